//! The frames a question is about, as ends of a connection would send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use types::MacAddress;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Shortest frame a NIC sends, without its checksum.
const FRAME_BYTES_MIN: usize = 60;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// One frame. Both addresses are of one version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Of who sends it.
    pub from: MacAddress,
    /// Of whom it is for; a question of address resolution goes to a group instead.
    pub to: MacAddress,
    /// IP address of who sends it.
    pub source: IpAddr,
    /// IP address of whom it is for.
    pub destination: IpAddr,
    /// What it says.
    pub payload: Payload,
}

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// ARP request or neighbour solicitation.
    Ask,
    /// ARP reply or neighbour advertisement.
    Tell,
    /// Echo request.
    Ping,
    /// Echo reply.
    Pong,
    /// A connection's first or second segment.
    Tcp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// The second: it acknowledges.
        answers: bool,
    },
    /// A datagram.
    Udp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
    },
}

impl Frame {
    /// As it goes over the wire, without the frame's own checksum.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (to, kind, packet) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.packet4(source, destination),
            (source, destination) => self.packet6(as_v6(source), as_v6(destination)),
        };
        let mut bytes = [&to[..], &self.from.0, &kind.to_be_bytes(), &packet].concat();
        bytes.resize(bytes.len().max(FRAME_BYTES_MIN), 0);
        bytes
    }

    fn packet4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> ([u8; 6], u16, Vec<u8>) {
        match self.payload {
            Payload::Ask => (BROADCAST, 0x0806, arp(1, (self.from.0, source), ([0; 6], destination))),
            Payload::Tell => (self.to.0, 0x0806, arp(2, (self.from.0, source), (self.to.0, destination))),
            payload => {
                let (protocol, body) = segment(payload, source.into(), destination.into());
                (self.to.0, 0x0800, ipv4(protocol, source, destination, &body))
            }
        }
    }

    fn packet6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> ([u8; 6], u16, Vec<u8>) {
        let (to, group) = match self.payload {
            Payload::Ask => {
                let last = destination.octets();
                let group = Ipv6Addr::new(
                    0xff02,
                    0,
                    0,
                    0,
                    0,
                    1,
                    0xff00 | u16::from(last[13]),
                    u16::from_be_bytes([last[14], last[15]]),
                );
                ([0x33, 0x33, 0xff, last[13], last[14], last[15]], group)
            }
            _ => (self.to.0, destination),
        };
        let (protocol, body) = match self.payload {
            Payload::Ask => (ICMPV6, neighbour(135, 0, destination, (1, self.from), source, group)),
            // Solicited, and the one to believe.
            Payload::Tell => (ICMPV6, neighbour(136, 0x60, source, (2, self.from), source, group)),
            payload => segment(payload, source.into(), destination.into()),
        };
        (to, 0x86dd, ipv6(protocol, source, group, &body))
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn arp(operation: u16, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    [
        &[0, 1, 8, 0, 6, 4][..],
        &operation.to_be_bytes(),
        &sender.0,
        &sender.1.octets(),
        &target.0,
        &target.1.octets(),
    ]
    .concat()
}

fn neighbour(
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    (option, mac): (u8, MacAddress),
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Vec<u8> {
    let mut body = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), &[option, 1], &mac.0].concat();
    let seed = pseudo_header(ICMPV6, source.into(), destination.into(), body.len());
    write_checksum(&mut body, 2, seed);
    body
}

fn ipv4(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    // Bodies are a few dozen bytes.
    let length = u16::try_from(20 + body.len()).unwrap_or(u16::MAX);
    let mut header = [
        &[0x45, 0][..],
        &length.to_be_bytes(),
        &[0, 0, 0x40, 0, 64, protocol, 0, 0],
        &source.octets(),
        &destination.octets(),
    ]
    .concat();
    write_checksum(&mut header, 10, 0);
    [header, body.to_vec()].concat()
}

fn ipv6(next: u8, source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, 255], &source.octets(), &destination.octets(), body]
        .concat()
}

/// Protocol number and bytes of everything that is not address resolution.
fn segment(payload: Payload, source: IpAddr, destination: IpAddr) -> (u8, Vec<u8>) {
    let six = source.is_ipv6();
    let (protocol, checksum_at, mut body) = match payload {
        Payload::Tcp { from, to, answers } => {
            let flags = if answers { SYN_ACK } else { SYN };
            let acknowledged = u8::from(answers);
            let rest = [0, 0, 0, 1, 0, 0, 0, acknowledged, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
            (TCP, 16, [&from.to_be_bytes()[..], &to.to_be_bytes(), &rest].concat())
        }
        Payload::Udp { from, to } => {
            (UDP, 6, [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat())
        }
        other => {
            let answers = matches!(other, Payload::Pong | Payload::Tell);
            let (protocol, kind) = match (six, answers) {
                (false, false) => (ICMP, 8),
                (false, true) => (ICMP, 0),
                (true, false) => (ICMPV6, 128),
                (true, true) => (ICMPV6, 129),
            };
            (protocol, 2, vec![kind, 0, 0, 0, 0, 1, 0, 1])
        }
    };
    let seed = if protocol == ICMP { 0 } else { pseudo_header(protocol, source, destination, body.len()) };
    write_checksum(&mut body, checksum_at, seed);
    (protocol, body)
}

/// What TCP, UDP and ICMPv6 add to their checksums.
fn pseudo_header(protocol: u8, source: IpAddr, destination: IpAddr, length: usize) -> u32 {
    let words = |address: IpAddr| match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    u32::from(protocol) + u32::try_from(length).unwrap_or_default() + words(source) + words(destination)
}

fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(word).sum()
}

fn write_checksum(bytes: &mut [u8], at: usize, seed: u32) {
    let mut total = seed + sum(bytes);
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    let checksum = !u16::try_from(total).unwrap_or_default();
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}
