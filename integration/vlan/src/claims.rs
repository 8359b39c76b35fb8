//! One host, and a trunk whose other end is in our hands: a tap shows frames as they are on a wire, tags and all.

use crate::frames::{BROADCAST, Guest, Mac, SYN, arp, ethernet, ipv4, neighbour, tagged, tcp};
use crate::world::{World, mac, network, open, port};
use netd_api::{Network, Port, Uplink};
use std::io::Write as _;

const TRUNK: &str = "trunk0";

pub(crate) fn vlan(vid: u16, ports: Vec<Port>) -> Network {
    let uplink = Uplink::Vlan { trunk: "core".to_owned(), vid, link: format!("cv{vid}") };
    Network { mtu: 1500, ..network(&format!("cb{vid}"), uplink, ports) }
}

/// VLAN 100 with ports 1 and 2, VLAN 200 with port 3, and the far end of their trunk.
fn host() -> (World, Guest) {
    let mut world = World::new();
    world.namespace.shell("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6");
    let trunk = Guest::new(world.namespace.run(|_, _| netd_kernel::open_tap(TRUNK)).unwrap());
    world.host.trunks = [("core".to_owned(), TRUNK.to_owned())].into();
    world.desired.networks =
        vec![vlan(100, vec![port(1, open()), port(2, open())]), vlan(200, vec![port(3, open())])];
    world.converge();
    (world, trunk)
}

fn hello(from: u8, to: &str) -> Vec<u8> {
    arp(1, BROADCAST, (mac(from), &format!("10.0.0.{from}")), ([0; 6], to))
}

pub(crate) fn frames_leave_by_the_trunk_under_their_networks_tag_and_no_other() {
    let (world, trunk) = host();
    let [one, two, three] = ["ct1", "ct2", "ct3"].map(|tap| world.guest(tap));
    one.send(&hello(1, "10.0.0.9"));
    three.send(&hello(3, "10.0.0.9"));
    let long = ipv4(mac(9), mac(1), "10.0.0.1", "10.0.0.9", 6, &[tcp(1000, 80, SYN), vec![7; 1460]].concat());
    assert_eq!(long.len(), 14 + 1500);
    one.send(&long);
    let wanted = [tagged(&hello(1, "10.0.0.9"), 100), tagged(&hello(3, "10.0.0.9"), 200), tagged(&long, 100)];
    let mut seen = trunk.wait_for(&wanted[2]);
    seen.push(wanted[2].clone());
    assert_eq!(seen, wanted);
    assert_eq!(two.wait_for(&hello(1, "10.0.0.9")), Vec::<Vec<u8>>::new());

    // Into a network comes what has its tag, and nothing else: also not what a switch sends untagged (VLAN 1).
    let into = |to: Mac, about: &str| arp(1, to, (mac(9), "10.0.0.9"), ([0; 6], about));
    for stray in [into(BROADCAST, "10.0.0.77"), into(mac(1), "10.0.0.77"), into(mac(3), "10.0.0.77")] {
        trunk.send(&stray);
        for vid in [0, 1, 2, 101, 4094, 4095] {
            trunk.send(&tagged(&stray, vid));
        }
    }
    for (vid, guest, silent) in [(100, &one, &three), (200, &three, &one)] {
        let last = into(BROADCAST, &format!("10.0.0.{vid}"));
        trunk.send(&tagged(&last, vid));
        assert_eq!(guest.wait_for(&last), Vec::<Vec<u8>>::new());
        assert_eq!(silent.take(), None);
    }
    assert_eq!(trunk.take(), None);
}

pub(crate) fn a_guest_that_tags_its_frames_gets_nowhere() {
    let (world, trunk) = host();
    let [one, two, three] = ["ct1", "ct2", "ct3"].map(|tap| world.guest(tap));
    let mut sent = 0;
    let kinds = [0x8100, 0x88a8, 0x9100];
    let vids = [0, 1, 100, 200, 4095, 0xe000 | 200];
    for to in [BROADCAST, mac(2), mac(3), mac(9)] {
        let plain = ipv4(to, mac(1), "10.0.0.1", "10.0.0.3", 6, &tcp(1, 80, SYN));
        for outer in kinds {
            for vid in vids {
                let once = under(&plain, outer, vid);
                for frame in [once, under(&under(&plain, 0x8100, 200), outer, vid)] {
                    one.send(&frame);
                    sent += 1;
                }
            }
        }
    }
    let end = hello(1, "10.0.0.9");
    one.send(&end);
    assert_eq!(trunk.wait_for(&tagged(&end, 100)), Vec::<Vec<u8>>::new());
    assert_eq!(two.wait_for(&end), Vec::<Vec<u8>>::new());
    assert_eq!(three.take(), None);
    assert_eq!(world.port("ct1").dropped_from_guest.frames, sent);

    // A second tag under the network's own leads nowhere from outside either. (Under a tag of VLAN 0, which says a
    // priority only, the second one is the first.)
    for to in [BROADCAST, mac(1), mac(3)] {
        let plain = arp(1, to, (mac(9), "10.0.0.9"), ([0; 6], "10.0.0.1"));
        for (outer, inner) in [(100, 200), (100, 100), (200, 100), (1, 100), (4095, 100)] {
            for kind in kinds {
                trunk.send(&tagged(&under(&plain, kind, inner), outer));
                trunk.send(&under(&tagged(&plain, inner), kind, if kind == 0x8100 { outer } else { 100 }));
            }
        }
    }
    let end = arp(1, BROADCAST, (mac(9), "10.0.0.9"), ([0; 6], "10.0.0.88"));
    for (vid, guest) in [(100, &one), (200, &three)] {
        trunk.send(&tagged(&end, vid));
        assert_eq!(guest.wait_for(&end), Vec::<Vec<u8>>::new());
    }
}

/// The frame with a tag of this type in front.
fn under(frame: &[u8], kind: u16, tag: u16) -> Vec<u8> {
    [&frame[..12], &kind.to_be_bytes(), &tag.to_be_bytes(), &frame[12..]].concat()
}

pub(crate) fn an_arriving_guest_is_announced_in_its_vlan() {
    let (mut world, trunk) = host();
    world.desired.networks[0].ports[0].held = true;
    world.converge();
    let mut tap = world.namespace.run(|_, _| netd_kernel::open_tap("ct1")).unwrap();
    assert!(tap.write(&[vec![0; 10], hello(1, "10.0.0.9")].concat()).is_err(), "a held port took a frame");
    world.desired.networks[0].ports[0].held = false;
    world.converge();
    let mine = arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.1"));
    let reverse = [&[0, 1, 8, 0, 6, 4, 0, 3][..], &mac(1), &[0; 4], &mac(1), &[0; 4]].concat();
    let reverse = ethernet(BROADCAST, mac(1), 0x8035, &reverse);
    assert_eq!(trunk.wait_for(&tagged(&mine, 100)), [tagged(&reverse, 100)]);
    let advertisement = trunk.take().unwrap();
    assert_eq!(advertisement[6..18], [&mac(1)[..], &[0x81, 0, 0, 100, 0x86, 0xdd]].concat());
    assert_eq!(advertisement[58], 136);
    assert_eq!(advertisement[66..82], neighbour(136, "fd00::1")[8..]);
    assert_eq!(trunk.take(), None);
    assert_eq!(world.port("ct1").from_guest.frames, 0);
}
