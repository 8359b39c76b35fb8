//! Prefixes of every length, beside the addresses that differ in the last bit that counts and in the first that does not.

use crate::frames::{SYN, SYN_ACK, echo, ipv4, ipv6, tcp};
use crate::rules::{Pair, pair_with};
use crate::world::mac;
use ipnet::IpNet;
use netd_api::{Accept, Direction, Protocol};
use std::net::IpAddr;

const FAR: [&str; 2] = ["172.21.43.171", "2001:db8:1234:5678:9abc:def0:1357:9bdf"];
/// Listening port of the prefix of length 0.
const FIRST_PORT: u16 = 1000;
/// Of a connecting end.
const SOURCE_PORT: u16 = 9;

/// A remote, and two addresses: one in it and one not, each as far from the middle of it as can be.
struct Edge {
    remote: IpNet,
    inside: IpAddr,
    outside: IpAddr,
}

impl Edge {
    fn new(far: IpAddr, length: u8) -> Self {
        let remote = IpNet::new(far, length).unwrap();
        let inside = if length == remote.max_prefix_len() { far } else { flipped(far, length + 1) };
        Self { remote, inside, outside: flipped(far, length) }
    }
}

/// With another bit at a place, counted from 1 as lengths are.
fn flipped(address: IpAddr, place: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) ^ (1 << (32 - u32::from(place)))).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) ^ (1 << (128 - u32::from(place)))).into()),
    }
}

fn every_length() -> impl Iterator<Item = Edge> {
    FAR.into_iter().flat_map(|far| {
        let far: IpAddr = far.parse().unwrap();
        (1..=IpNet::from(far).max_prefix_len()).map(move |length| Edge::new(far, length))
    })
}

impl Pair {
    /// What the guest sends to somebody behind its neighbour, or is sent.
    fn passes(&self, way: Direction, far: IpAddr, [four, six]: [(u8, Vec<u8>); 2]) -> bool {
        let own = if far.is_ipv4() { "10.0.0.1" } else { "fd00::1" };
        let make = if far.is_ipv4() { ipv4 } else { ipv6 };
        let (protocol, payload) = if far.is_ipv4() { four } else { six };
        let far = far.to_string();
        match way {
            Direction::FromGuest => self.passes_out(&make(mac(2), mac(1), own, &far, protocol, &payload)),
            Direction::ToGuest => self.passes_in(&make(mac(1), mac(2), &far, own, protocol, &payload)),
        }
    }
}

fn back(way: Direction) -> Direction {
    match way {
        Direction::FromGuest => Direction::ToGuest,
        Direction::ToGuest => Direction::FromGuest,
    }
}

fn segment(from: u16, to: u16, flags: u8) -> [(u8, Vec<u8>); 2] {
    [(6, tcp(from, to, flags)), (6, tcp(from, to, flags))]
}

#[test]
fn a_service_is_open_to_every_address_of_a_prefix_and_to_no_other() {
    for direction in [Direction::FromGuest, Direction::ToGuest] {
        let listen_port = |edge: &Edge| FIRST_PORT + u16::from(edge.remote.prefix_len());
        let accept = |edge: &Edge| Accept {
            direction,
            remote: Some(edge.remote),
            protocol: Protocol::Tcp { listen_port: listen_port(edge) },
        };
        let pair = pair_with(every_length().map(|edge| accept(&edge)).collect(), true);
        for edge in every_length() {
            let Edge { remote, inside, outside } = edge;
            let opens = segment(SOURCE_PORT, listen_port(&edge), SYN);
            let answers = segment(listen_port(&edge), SOURCE_PORT, SYN_ACK);
            for (way, segment) in [(direction, opens), (back(direction), answers)] {
                assert!(pair.passes(way, inside, segment.clone()), "{way:?} {inside}, in {remote}");
                assert!(!pair.passes(way, outside, segment), "{way:?} {outside}, not in {remote}");
            }
        }
        let used = pair.world.port("ct1").rules;
        assert_eq!(used.len(), every_length().count(), "some permission did not count");
        for rule in used {
            assert_eq!(rule.counter.frames, 2, "{:?}", rule.accept);
        }
    }
}

#[test]
fn echo_and_anything_are_open_to_every_address_of_a_prefix_and_to_no_other() {
    let mut pair = pair_with(vec![], true);
    let echoes = [[(1, echo(8)), (58, echo(128))], [(1, echo(0)), (58, echo(129))]];
    let segments = [segment(SOURCE_PORT, 80, SYN), segment(80, SOURCE_PORT, SYN_ACK)];
    // Each makes the rules anew: lengths on rungs, and some between.
    for edge in every_length().step_by(5) {
        let Edge { remote, inside, outside } = edge;
        for direction in [Direction::FromGuest, Direction::ToGuest] {
            for (protocol, [opens, answers]) in [(Protocol::Icmp, &echoes), (Protocol::Any, &segments)] {
                pair.world.desired.networks[0].ports[0].accept =
                    vec![Accept { direction, remote: Some(remote), protocol }];
                pair.world.converge();
                for (way, payload) in [(direction, opens), (back(direction), answers)] {
                    assert!(pair.passes(way, inside, payload.clone()), "{way:?} {inside}, in {remote}");
                    assert!(
                        !pair.passes(way, outside, payload.clone()),
                        "{way:?} {outside}, not in {remote}"
                    );
                }
                assert_eq!(pair.world.port("ct1").rules[0].counter.frames, 2);
            }
        }
    }
}
