//! The few blocks of pcapng (IETF draft-ietf-opsawg-pcapng) that a capture has, in this machine's byte order.

use std::time::Duration;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const VERSION: [u16; 2] = [1, 0];
const SECTION_LENGTH_UNKNOWN: u64 = u64::MAX;
const LINKTYPE_ETHERNET: u16 = 1;
/// Timestamps count 10^-9 s.
const NANOSECONDS: u8 = 9;

/// Options' numbers, each within its kind of block.
const END_OF_OPTIONS: u16 = 0;
const SHB_USER_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TIMESTAMP_RESOLUTION: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_START_TIME: u16 = 2;
const ISB_END_TIME: u16 = 3;
const ISB_RECEIVED: u16 = 4;
const ISB_DROPPED: u16 = 5;

/// Bytes of one [`statistics`] block.
pub(super) const STATISTICS_BYTES: u64 = 12 + 12 + 4 * 12 + 4;

/// Which way a frame goes, as its tap sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Sent by the guest.
    Inbound,
    /// Sent to the guest.
    Outbound,
}

/// One captured frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) interface: u32,
    /// Since the epoch.
    pub(super) at: Duration,
    pub(super) bytes: &'a [u8],
    /// Of the frame before it was cut.
    pub(super) length: u32,
    pub(super) way: Way,
}

/// What became of one interface.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Statistics {
    pub(super) begin: Duration,
    pub(super) end: Duration,
    pub(super) received: u64,
    pub(super) dropped: u64,
}

pub(super) fn section_header(to: &mut Vec<u8>) {
    block(to, SECTION_HEADER, |body| {
        body.extend(BYTE_ORDER_MAGIC.to_ne_bytes());
        VERSION.iter().for_each(|part| body.extend(part.to_ne_bytes()));
        body.extend(SECTION_LENGTH_UNKNOWN.to_ne_bytes());
        option(body, SHB_USER_APPLICATION, b"collective-netd");
        option(body, END_OF_OPTIONS, b"");
    });
}

pub(super) fn interface(to: &mut Vec<u8>, name: &str, description: &str, snap_bytes: u32) {
    block(to, INTERFACE_DESCRIPTION, |body| {
        body.extend(LINKTYPE_ETHERNET.to_ne_bytes());
        body.extend([0, 0]);
        body.extend(snap_bytes.to_ne_bytes());
        option(body, IF_NAME, name.as_bytes());
        option(body, IF_DESCRIPTION, description.as_bytes());
        option(body, IF_TIMESTAMP_RESOLUTION, &[NANOSECONDS]);
        option(body, END_OF_OPTIONS, b"");
    });
}

pub(super) fn packet(to: &mut Vec<u8>, packet: &Packet<'_>) {
    block(to, ENHANCED_PACKET, |body| {
        body.extend(packet.interface.to_ne_bytes());
        body.extend(timestamp(packet.at));
        body.extend(length_of(packet.bytes).to_ne_bytes());
        body.extend(packet.length.to_ne_bytes());
        body.extend(packet.bytes);
        pad(body);
        let flags: u32 = match packet.way {
            Way::Inbound => 1,
            Way::Outbound => 2,
        };
        option(body, EPB_FLAGS, &flags.to_ne_bytes());
        option(body, END_OF_OPTIONS, b"");
    });
}

pub(super) fn statistics(to: &mut Vec<u8>, interface: u32, statistics: &Statistics) {
    block(to, INTERFACE_STATISTICS, |body| {
        body.extend(interface.to_ne_bytes());
        body.extend(timestamp(statistics.end));
        option(body, ISB_START_TIME, &timestamp(statistics.begin));
        option(body, ISB_END_TIME, &timestamp(statistics.end));
        option(body, ISB_RECEIVED, &statistics.received.to_ne_bytes());
        option(body, ISB_DROPPED, &statistics.dropped.to_ne_bytes());
        option(body, END_OF_OPTIONS, b"");
    });
}

/// The upper half first, each in this machine's byte order.
fn timestamp(at: Duration) -> [u8; 8] {
    // Enough until the year 2554.
    let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    let (high, low) = ((nanoseconds >> 32) as u32, nanoseconds as u32);
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&high.to_ne_bytes());
    bytes[4..].copy_from_slice(&low.to_ne_bytes());
    bytes
}

fn block(to: &mut Vec<u8>, kind: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = to.len();
    to.extend(kind.to_ne_bytes());
    to.extend([0; 4]);
    write(to);
    let length = (length_of(&to[begin..]) + 4).to_ne_bytes();
    to[begin + 4..begin + 8].copy_from_slice(&length);
    to.extend(length);
}

fn option(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend(kind.to_ne_bytes());
    // Names, ids of at most 128 bytes, and numbers.
    to.extend(u16::try_from(value.len()).unwrap_or_default().to_ne_bytes());
    to.extend(value);
    pad(to);
}

/// Every block begins at a multiple of four, so padding may count from the beginning of the buffer.
fn pad(to: &mut Vec<u8>) {
    to.resize(to.len().next_multiple_of(4), 0);
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
