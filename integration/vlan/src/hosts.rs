//! Two hosts, each a guest of its own, on one trunk: one asks, the other answers.
//!
//! Both have VLAN 100 and VLAN 200, with equal addresses in both: the asking guest is 1, the answering one is 2. The
//! test between them looks at every frame.

use crate::claims::vlan;
use crate::frames::{BROADCAST, Guest, Mac, SYN, SYN_ACK, arp, ipv4, tcp};
use crate::world::{World, mac, open, port};
use std::time::{Duration, Instant};
use types::MacAddress;

/// The only network card.
const TRUNK: &str = "eth0";
/// The other host may boot at its leisure.
const PATIENCE: Duration = Duration::from_secs(100);
const STEP: Duration = Duration::from_millis(100);
const VIDS: [u16; 2] = [100, 200];
/// A connection to this port says that all is done.
const END: u16 = 9;

/// A host of this number: one guest in each VLAN.
fn host(number: u8) -> (World, [Guest; 2]) {
    let mut world = World::new();
    let thread = world.namespace.thread_id();
    run(&format!("ip link set {TRUNK} netns {thread}"));
    world.host.trunks = [("core".to_owned(), TRUNK.to_owned())].into();
    world.desired.networks = VIDS
        .map(|vid| {
            let mut port = port(number, open());
            port.id = format!("office/m{number}/v{vid}");
            port.tap = format!("ct{vid}");
            port.mac = MacAddress(mac(number));
            vlan(vid, vec![port])
        })
        .to_vec();
    world.converge();
    let guests = VIDS.map(|vid| world.guest(&format!("ct{vid}")));
    (world, guests)
}

fn run(line: &str) {
    let status = std::process::Command::new("sh").args(["-c", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

const ONE: Mac = [2, 0, 0, 0, 0, 1];
const TWO: Mac = [2, 0, 0, 0, 0, 2];

fn question(vid: u16) -> Vec<u8> {
    arp(1, BROADCAST, (ONE, "10.0.0.1"), ([0; 6], &format!("10.0.0.{vid}")))
}

fn answer_to(vid: u16) -> Vec<u8> {
    arp(2, ONE, (TWO, "10.0.0.2"), (ONE, &format!("10.0.0.{}", vid + 1)))
}

/// The longest frame that a network of 1,500 bytes carries.
fn long(to: Mac, from: Mac, flags: u8) -> Vec<u8> {
    let (source, destination) = (format!("10.0.0.{}", from[5]), format!("10.0.0.{}", to[5]));
    ipv4(to, from, &source, &destination, 6, &[tcp(1000, 80, flags), vec![7; 1460]].concat())
}

fn end() -> Vec<u8> {
    ipv4(TWO, ONE, "10.0.0.1", "10.0.0.2", 6, &tcp(1000, END, SYN))
}

pub(crate) fn ask() {
    let (_world, guests) = host(1);
    for (vid, guest) in VIDS.into_iter().zip(&guests) {
        let mut heard = exchange(guest, &question(vid), &answer_to(vid));
        heard.extend(exchange(guest, &long(TWO, ONE, SYN), &long(ONE, TWO, SYN_ACK)));
        // What was asked several times is answered several times; nothing of the other VLAN is among it.
        let known = [answer_to(vid), long(ONE, TWO, SYN_ACK)];
        assert!(heard.iter().all(|frame| known.contains(frame)), "{heard:02x?}");
    }
    exchange(&guests[0], &end(), &end_of_answer());
}

fn end_of_answer() -> Vec<u8> {
    ipv4(ONE, TWO, "10.0.0.2", "10.0.0.1", 6, &tcp(END, 1000, SYN_ACK))
}

pub(crate) fn answer() {
    let (_world, guests) = host(2);
    let deadline = Instant::now() + PATIENCE;
    let mut ended: Option<Instant> = None;
    // The last answer is on its way for a while, and may be asked for again.
    while ended.is_none_or(|at| at.elapsed() < 10 * STEP) {
        for (vid, guest) in VIDS.into_iter().zip(&guests) {
            while let Some(frame) = guest.take() {
                if frame == question(vid) {
                    guest.send(&answer_to(vid));
                } else if frame == long(TWO, ONE, SYN) {
                    guest.send(&long(ONE, TWO, SYN_ACK));
                } else if frame == end() && vid == VIDS[0] {
                    guest.send(&end_of_answer());
                    ended = Some(Instant::now());
                } else {
                    panic!("VLAN {vid} carried {frame:02x?}");
                }
            }
        }
        assert!(Instant::now() < deadline, "the asking host was silent");
        guests[0].wait(STEP);
    }
}

/// Sends until the answer is there; what else came.
fn exchange(guest: &Guest, frame: &[u8], wanted: &[u8]) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut others = Vec::new();
    while Instant::now() < deadline {
        guest.send(frame);
        guest.wait(STEP);
        while let Some(frame) = guest.take() {
            if frame == wanted {
                return others;
            }
            others.push(frame);
        }
    }
    panic!("no answer came; {} others did: {others:02x?}", others.len());
}
