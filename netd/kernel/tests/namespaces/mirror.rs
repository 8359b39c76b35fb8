use crate::frames::{BROADCAST, SYN, arp, ethernet, ipv4, tcp, udp};
use crate::world::{World, mac, network, open, port, vxlan};
use netd_api::{
    Mirror, MirrorFrom, MirrorStatus, MirrorTo, MirrorTunnel, Network, Rate, Uplink, Watcher, WatcherStatus,
};
use netd_plan::{mirrors_status, watchers_status};
use std::collections::BTreeMap;
use types::SiteName;

fn watcher(number: u8) -> Watcher {
    Watcher { id: format!("office/w{number}/eth0"), tap: format!("ctw{number}"), mtu: 1450 }
}

fn mirror(from: MirrorFrom, to: MirrorTo) -> Mirror {
    Mirror { id: "office/w1/eth0".to_owned(), from, to }
}

fn from_port(number: u8) -> MirrorFrom {
    MirrorFrom::Port { tap: format!("ct{number}") }
}

fn from_network(bridge: &str) -> MirrorFrom {
    MirrorFrom::Network { id: format!("office/{bridge}") }
}

fn to_watcher() -> MirrorTo {
    MirrorTo::Watcher { tap: "ctw1".to_owned() }
}

fn tunnel(peer: &str) -> MirrorTunnel {
    MirrorTunnel { vni: 900, link: "cx900".to_owned(), peer: peer.parse().unwrap() }
}

fn office() -> Vec<Network> {
    vec![
        network("cb1", Uplink::None, vec![port(1, open()), port(2, open())]),
        network("cb2", Uplink::None, vec![port(3, open())]),
    ]
}

fn watched(from: MirrorFrom) -> World {
    let mut world = World::new();
    world.desired.networks = office();
    world.desired.watchers = vec![watcher(1)];
    world.desired.mirrors = vec![mirror(from, to_watcher())];
    world.converge();
    world
}

fn watcher_of(world: &World) -> WatcherStatus {
    watchers_status(&world.desired, &world.observe()).remove(0)
}

/// Of the first.
fn mirror_of(world: &World) -> MirrorStatus {
    mirrors_status(&world.desired, &world.target(), &world.observe()).remove(0)
}

fn talk(from: u8, to: u8, number: u16) -> Vec<u8> {
    ipv4(mac(to), mac(from), &format!("10.0.0.{from}"), &format!("10.0.0.{to}"), 6, &tcp(number, 80, SYN))
}

#[test]
fn a_watcher_of_a_port_gets_what_it_sends_and_is_sent() {
    let world = watched(from_port(1));
    let (one, two, three) = (world.guest("ct1"), world.guest("ct2"), world.guest("ct3"));
    let watching = world.watching("ctw1");
    // Dropped by the rules, but copied all the same.
    let stolen = ipv4(mac(2), mac(1), "10.0.0.77", "10.0.0.2", 17, &udp(1, 2));
    one.send(&stolen);
    watching.wait_for(&stolen);
    for number in 0..50 {
        let (there, back) = (talk(1, 2, number), talk(2, 1, number));
        one.send(&there);
        assert_eq!(two.wait_for(&there), Vec::<Vec<u8>>::new());
        assert_eq!(watching.wait_for(&there), Vec::<Vec<u8>>::new());
        two.send(&back);
        assert_eq!(one.wait_for(&back), Vec::<Vec<u8>>::new());
        assert_eq!(watching.wait_for(&back), Vec::<Vec<u8>>::new());
    }
    assert_eq!(three.take(), None);
    let (watcher, mirror) = (watcher_of(&world), mirror_of(&world));
    assert!(watcher.ready && watcher.carrier && mirror.ready, "{watcher:?} {mirror:?}");
    assert_eq!(mirror.copied.frames, 101);
    assert_eq!(mirror.copied.bytes, 101 * 60);
}

#[test]
fn what_a_watcher_sends_reaches_nobody() {
    let world = watched(from_network("cb1"));
    world
        .namespace
        .shell("ip link set lo up && ip addr add 198.51.100.1/24 dev lo && ip addr add 10.0.0.99/24 dev cb1");
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    let watching = world.watching("ctw1");
    let host: [u8; 6] = {
        let text = world.namespace.shell("ip -o link show dev ctw1");
        let mac = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        mac.split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    };
    let frames = [
        arp(1, BROADCAST, (mac(9), "198.51.100.9"), ([0; 6], "198.51.100.1")),
        arp(1, BROADCAST, (mac(9), "10.0.0.9"), ([0; 6], "10.0.0.99")),
        ipv4(host, mac(9), "198.51.100.9", "198.51.100.1", 1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
        ipv4(host, mac(9), "10.0.0.1", "10.0.0.99", 17, &udp(1, 2)),
        ethernet(BROADCAST, mac(9), 0x88b5, b"whatever"),
    ];
    let before = world.namespace.shell("cat /proc/self/net/snmp | grep ^Ip: | tail -1");
    for _ in 0..20 {
        for frame in &frames {
            watching.send(frame);
        }
    }
    assert_eq!(watcher_of(&world).dropped_from_guest.frames, 100);
    assert_eq!(world.namespace.shell("cat /proc/self/net/snmp | grep ^Ip: | tail -1"), before);
    assert_eq!((one.take(), two.take(), watching.take()), (None, None, None));
    // Nor while the chain is gone that keeps it from the host: the host answers no stranger.
    world.namespace.shell("nft delete table netdev collective");
    for frame in &frames {
        watching.send(frame);
    }
    assert_eq!((one.take(), two.take(), watching.take()), (None, None, None));
    world.converge();
    let neighbours = world.namespace.shell("ip neigh show");
    assert!(!neighbours.contains("02:00:00:00:00:09"), "{neighbours}");
}

#[test]
fn a_watcher_of_a_network_gets_every_frame_once_also_from_its_sites_lan() {
    let mut world = World::new();
    let lan = SiteName::new("lab").unwrap();
    world.namespace.shell("ip tuntap add lan0 mode tap vnet_hdr");
    world.host.uplinks = [(lan.clone(), "lan0".to_owned())].into();
    let site = network("cb1", Uplink::Site { site: lan }, vec![port(1, open()), port(2, open())]);
    world.desired.networks = vec![site];
    world.desired.watchers = vec![watcher(1)];
    world.desired.mirrors = vec![mirror(from_network("cb1"), to_watcher())];
    world.converge();
    let (one, two, outside) = (world.guest("ct1"), world.guest("ct2"), world.guest("lan0"));
    let watching = world.watching("ctw1");
    for (guest, frame) in [
        (&one, talk(1, 2, 1)),
        (&two, talk(2, 1, 2)),
        (&one, arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.2"))),
        (&outside, talk(9, 1, 3)),
        (&outside, arp(1, BROADCAST, (mac(9), "10.0.0.9"), ([0; 6], "10.0.0.1"))),
        (&one, talk(1, 9, 4)),
    ] {
        guest.send(&frame);
        assert_eq!(watching.wait_for(&frame), Vec::<Vec<u8>>::new());
    }
    assert_eq!(watching.take(), None);
    world.desired = Default::default();
    world.converge();
    assert_eq!(world.namespace.shell("nft list tables"), "");
}

/// The network is on both hosts, the watcher there.
fn two_hosts() -> (World, World) {
    let (mut here, mut there) = (World::new(), World::new());
    there.host.underlay = Some("192.0.2.2".parse().unwrap());
    here.namespace.cable("eth0", &there.namespace, "eth0");
    here.namespace.shell("ip addr add 192.0.2.1/24 dev eth0");
    there.namespace.shell("ip addr add 192.0.2.2/24 dev eth0");
    here.desired.networks = vec![network("cb1", vxlan(7, &["192.0.2.2"]), vec![port(1, open())])];
    there.desired.networks = vec![network("cb1", vxlan(7, &["192.0.2.1"]), vec![port(2, open())])];
    here.desired.mirrors = vec![mirror(from_network("cb1"), MirrorTo::Tunnel(tunnel("192.0.2.2")))];
    there.desired.watchers = vec![watcher(1)];
    there.desired.mirrors = vec![
        mirror(from_network("cb1"), to_watcher()),
        mirror(MirrorFrom::Tunnel(tunnel("192.0.2.1")), to_watcher()),
    ];
    here.converge();
    there.converge();
    (here, there)
}

#[test]
fn a_watcher_on_another_host_gets_every_frame_once() {
    let (here, there) = two_hosts();
    let (one, two) = (here.guest("ct1"), there.guest("ct2"));
    let watching = there.watching("ctw1");
    for number in 0..20 {
        for (from, to, frame) in [(&one, &two, talk(1, 2, number)), (&two, &one, talk(2, 1, number))] {
            from.send(&frame);
            to.wait_for(&frame);
            assert_eq!(watching.wait_for(&frame), Vec::<Vec<u8>>::new());
        }
    }
    assert_eq!(watching.take(), None);
    assert_eq!(mirror_of(&here).copied.frames, 20);
    // Nothing goes back through the tunnel, and nothing of it reaches the host behind it.
    watching.send(&talk(9, 1, 99));
    let last = talk(2, 1, 100);
    two.send(&last);
    assert_eq!(one.wait_for(&last), Vec::<Vec<u8>>::new());
}

#[test]
fn copies_of_segments_to_be_arrive_whole_here_and_on_another_host() {
    let (here, there) = two_hosts();
    let (one, two) = (here.guest("ct1"), there.guest("ct2"));
    let watching = there.watching("ctw1");
    let payload: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    let long =
        ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &[tcp(1000, 80, 0x10), payload.clone()].concat());
    one.send_in_segments(&long, 1400);
    let last = talk(1, 2, 7);
    one.send(&last);
    let bytes = |frames: Vec<Vec<u8>>| -> Vec<u8> {
        assert!(frames.iter().all(|frame| frame.len() <= 1464), "a frame is longer than the network's");
        frames.iter().flat_map(|frame| frame[54..].to_vec()).collect()
    };
    assert_eq!(bytes(two.wait_for(&last)), payload);
    assert_eq!(bytes(watching.wait_for(&last)), payload);
}

#[test]
fn a_watcher_that_vanishes_disturbs_no_guest_and_comes_back() {
    let world = watched(from_port(1));
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    for damage in [
        "ip link del ctw1",
        "ip link set ctw1 down",
        "nft delete table netdev collective",
        "nft flush ruleset",
        "nft add chain netdev collective stray",
        "nft add rule netdev collective in_ct1 accept",
        "nft flush chain netdev collective in_ctw1",
        "ip link add other type bridge && ip link set ctw1 master other",
    ] {
        world.namespace.shell(damage);
        if damage != "nft flush ruleset" {
            let frame = talk(1, 2, 1);
            one.send(&frame);
            two.wait_for(&frame);
        }
        assert_ne!(world.plan().steps, vec![], "{damage} is not seen");
        world.converge();
        let watching = world.watching("ctw1");
        let frame = talk(1, 2, 2);
        one.send(&frame);
        two.wait_for(&frame);
        watching.wait_for(&frame);
        assert!(mirror_of(&world).ready, "{damage}");
    }
}

#[test]
fn a_change_of_one_mirror_keeps_the_counters_of_others() {
    let mut world = watched(from_port(1));
    let one = world.guest("ct1");
    let copied = |world: &World| mirror_of(world).copied.frames;
    one.send(&talk(1, 2, 1));
    assert_eq!(copied(&world), 1);
    world.desired.watchers.push(watcher(2));
    let second =
        Mirror { to: MirrorTo::Watcher { tap: "ctw2".to_owned() }, ..mirror(from_port(1), to_watcher()) };
    world.desired.mirrors.push(second);
    world.converge();
    one.send(&talk(1, 2, 2));
    assert_eq!(copied(&world), 2);
    world.namespace.shell("nft add chain netdev collective stray");
    world.converge();
    assert_eq!(copied(&world), 2);
    world.desired.mirrors.truncate(1);
    world.converge();
    one.send(&talk(1, 2, 3));
    assert_eq!(copied(&world), 3);
}

#[test]
fn killed_after_any_step_with_watchers_and_limits_it_converges() {
    let mut world = World::new();
    let rate = Rate { from_guest_bits: Some(10_000_000), to_guest_bits: Some(20_000_000) };
    let mut limited = office();
    limited[0].ports[0].rate = Some(rate);
    let first = netd_api::Desired {
        networks: limited,
        watchers: vec![watcher(1)],
        mirrors: vec![
            mirror(from_port(1), to_watcher()),
            mirror(from_network("cb1"), MirrorTo::Tunnel(tunnel("192.0.2.2"))),
        ],
        ..Default::default()
    };
    let mut second = first.clone();
    second.watchers = vec![watcher(2)];
    second.mirrors =
        vec![mirror(MirrorFrom::Tunnel(tunnel("192.0.2.3")), MirrorTo::Watcher { tap: "ctw2".to_owned() })];
    second.networks[0].ports[0].rate = Some(Rate { from_guest_bits: None, to_guest_bits: Some(30_000_000) });
    second.networks[0].ports[1].rate = Some(rate);
    for stop in 0.. {
        let mut longest = 0;
        for document in [&Default::default(), &first, &second] {
            world.desired = document.clone();
            let mut part = world.plan();
            longest = longest.max(part.steps.len());
            part.steps.truncate(stop);
            world.apply(part);
            world.converge();
        }
        if stop >= longest {
            break;
        }
    }
    world.desired = Default::default();
    world.converge();
    let left: BTreeMap<_, _> = world.observe().links.into_iter().filter(|(n, l)| l.is_ours(n)).collect();
    assert_eq!(left, BTreeMap::new());
    assert_eq!(world.namespace.shell("nft list tables"), "");
}
