//! Ethernet frames as guests write them, and the guest's end of a tap.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

pub(crate) type Mac = [u8; 6];
pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const SYN_ACK: u8 = 0x12;
const VNET_HEADER_BYTES: usize = 10;
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A virtual machine's end of a tap.
pub(crate) struct Guest(File);

impl Guest {
    pub(crate) fn new(tap: File) -> Self {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        Self(tap)
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        let mut bytes = vec![0; VNET_HEADER_BYTES];
        bytes.extend_from_slice(frame);
        assert_eq!((&self.0).write(&bytes).unwrap(), bytes.len());
    }

    pub(crate) fn into_tap(self) -> File {
        self.0
    }

    /// Writes a frame that the other end may cut into TCP segments of `segment` bytes of payload each.
    pub(crate) fn send_in_segments(&self, frame: &[u8], segment: u16) {
        const NEEDS_CHECKSUM: u8 = 1;
        const TCP_OVER_IPV4: u8 = 1;
        let (headers, tcp_at, checksum_at) = (54u16, 34u16, 16u16);
        let mut bytes = vec![NEEDS_CHECKSUM, TCP_OVER_IPV4];
        for field in [headers, segment, tcp_at, checksum_at] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
        assert_eq!((&self.0).write(&bytes).unwrap(), bytes.len());
    }

    /// Writes a frame, and does not mind if the kernel takes it for none.
    pub(crate) fn send_anything(&self, frame: &[u8]) {
        let mut bytes = vec![0; VNET_HEADER_BYTES];
        bytes.extend_from_slice(frame);
        let _ = (&self.0).write(&bytes);
    }

    /// The next frame that is there already.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 70_000];
        match (&self.0).read(&mut bytes) {
            Ok(len) => Some(bytes[VNET_HEADER_BYTES..len].to_vec()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a frame, at most so long.
    pub(crate) fn wait(&self, longest: Duration) {
        use nix::poll::{PollFd, PollFlags, poll};
        let milliseconds = u16::try_from(longest.as_millis()).unwrap();
        let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], milliseconds);
    }

    /// Waits for `wanted`, and returns what came before it.
    pub(crate) fn wait_for(&self, wanted: &[u8]) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + ARRIVAL_TIMEOUT;
        let mut before = Vec::new();
        while Instant::now() < deadline {
            match self.take() {
                Some(frame) if frame == wanted => return before,
                Some(frame) => before.push(frame),
                None => self.wait(Duration::from_millis(100)),
            }
        }
        panic!("the frame did not arrive; {} others did: {before:02x?}", before.len());
    }
}

pub(crate) fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

pub(crate) fn arp(operation: u16, to: Mac, sender: (Mac, &str), target: (Mac, &str)) -> Vec<u8> {
    arp_in(sender.0, operation, to, sender, target)
}

/// The Ethernet source and the claimed sender may differ.
pub(crate) fn arp_in(
    from: Mac,
    operation: u16,
    to: Mac,
    sender: (Mac, &str),
    target: (Mac, &str),
) -> Vec<u8> {
    let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let payload = [
        &[0, 1, 8, 0, 6, 4][..],
        &operation.to_be_bytes(),
        &sender.0,
        &v4(sender.1),
        &target.0,
        &v4(target.1),
    ]
    .concat();
    ethernet(to, from, 0x0806, &payload)
}

pub(crate) fn ipv4(
    to: Mac,
    from: Mac,
    source: &str,
    destination: &str,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let length = u16::try_from(20 + payload.len()).unwrap();
    let header = [
        &[0x45, 0][..],
        &length.to_be_bytes(),
        &[0, 0, 0x40, 0, 64, protocol, 0, 0],
        &v4(source),
        &v4(destination),
    ]
    .concat();
    ethernet(to, from, 0x0800, &[header, payload.to_vec()].concat())
}

pub(crate) fn ipv6(to: Mac, from: Mac, source: &str, destination: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let length = u16::try_from(payload.len()).unwrap();
    let header =
        [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, 255], &v6(source), &v6(destination)].concat();
    ethernet(to, from, 0x86dd, &[header, payload.to_vec()].concat())
}

pub(crate) fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = [&source.to_be_bytes()[..], &destination.to_be_bytes()].concat();
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

pub(crate) fn udp(source: u16, destination: u16) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0, 12, 0, 0], b"data"].concat()
}

pub(crate) fn echo(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 1, 0, 1]
}

/// Neighbour solicitation (135) or advertisement (136).
pub(crate) fn neighbour(kind: u8, target: &str) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.parse::<Ipv6Addr>().unwrap().octets()].concat()
}

pub(crate) fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}
