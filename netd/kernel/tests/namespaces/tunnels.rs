use crate::frames::{BROADCAST, SYN, arp, ipv4, tcp};
use crate::world::{World, mac, network, open, port, vxlan};

/// Two hosts with an underlay between them, and the same network on both: guest 1 here, guest 2 there.
fn two_hosts(vni_here: u32, vni_there: u32) -> (World, World) {
    let (mut here, mut there) = (World::new(), World::new());
    there.host.underlay = Some("192.0.2.2".parse().unwrap());
    here.namespace.cable("eth0", &there.namespace, "eth0");
    here.namespace.shell("ip addr add 192.0.2.1/24 dev eth0");
    there.namespace.shell("ip addr add 192.0.2.2/24 dev eth0");
    here.desired.networks = vec![network("cb1", vxlan(vni_here, &["192.0.2.2"]), vec![port(1, open())])];
    there.desired.networks = vec![network("cb1", vxlan(vni_there, &["192.0.2.1"]), vec![port(2, open())])];
    here.converge();
    there.converge();
    (here, there)
}

#[test]
fn two_guests_on_two_hosts_exchange_frames() {
    let (here, there) = two_hosts(7, 7);
    let (one, two) = (here.guest("ct1"), there.guest("ct2"));
    let question = arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.2"));
    one.send(&question);
    two.wait_for(&question);
    let answer = arp(2, mac(1), (mac(2), "10.0.0.2"), (mac(1), "10.0.0.1"));
    two.send(&answer);
    one.wait_for(&answer);
    let syn = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(1000, 80, SYN));
    one.send(&syn);
    two.wait_for(&syn);
    // The longest packet the network promises.
    let long =
        ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &[tcp(1000, 80, SYN), vec![7; 1450 - 40]].concat());
    one.send(&long);
    two.wait_for(&long);
    assert_eq!(here.port("ct1").from_guest.frames, 3);
    assert_eq!(there.port("ct2").to_guest.frames, 3);
}

#[test]
fn an_underlay_of_ipv6_carries_the_longest_packet_and_one_too_narrow_is_reported() {
    let (mut here, mut there) = (World::new(), World::new());
    here.namespace.cable("eth0", &there.namespace, "eth0");
    for (world, address, peer, guest) in
        [(&mut here, "2001:db8::1", "2001:db8::2", 1), (&mut there, "2001:db8::2", "2001:db8::1", 2)]
    {
        world.namespace.shell(&format!("ip addr add {address}/64 dev eth0 nodad"));
        world.host.underlay = Some(address.parse().unwrap());
        let mut network = network("cb1", vxlan(7, &[peer]), vec![port(guest, open())]);
        network.mtu = 1430;
        world.desired.networks = vec![network];
        world.converge();
    }
    let (one, two) = (here.guest("ct1"), there.guest("ct2"));
    let payload = [tcp(1000, 80, SYN), vec![7; 1430 - 40]].concat();
    let long = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &payload);
    one.send(&long);
    two.wait_for(&long);
    here.namespace.shell("ip link set eth0 mtu 1499");
    let refusals = here.plan().refusals;
    assert!(refusals.len() == 1 && refusals[0].contains("needs 1500 bytes of eth0"), "{refusals:?}");
}

#[test]
fn a_change_of_the_flood_list_keeps_what_was_learned_from_the_others() {
    let (mut here, there) = two_hosts(7, 7);
    let (one, two) = (here.guest("ct1"), there.guest("ct2"));
    let answer = arp(1, BROADCAST, (mac(2), "10.0.0.2"), ([0; 6], "10.0.0.1"));
    two.send(&answer);
    one.wait_for(&answer);
    let learned = |world: &World| {
        let entries = world.namespace.shell("bridge fdb show dev cx7");
        entries.lines().filter(|l| l.starts_with("02:00:00:00:00:02")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = learned(&here);
    assert!(before.iter().any(|line| line.contains("dst 192.0.2.2")), "{before:?}");
    for peers in [&["192.0.2.2", "192.0.2.9"][..], &["192.0.2.2"]] {
        here.desired.networks[0].uplink = vxlan(7, peers);
        here.converge();
        assert_eq!(learned(&here), before);
    }
}

#[test]
fn another_identifier_is_another_network() {
    let (here, mut there) = two_hosts(7, 8);
    let (one, two) = (here.guest("ct1"), there.guest("ct2"));
    let hello = |number| arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], number));
    one.send(&hello("10.0.0.2"));
    there.desired.networks[0].uplink = vxlan(7, &["192.0.2.1"]);
    there.converge();
    one.send(&hello("10.0.0.3"));
    assert_eq!(two.wait_for(&hello("10.0.0.3")), Vec::<Vec<u8>>::new());
}

#[test]
fn a_removed_peer_gets_nothing_more() {
    let (mut here, there) = two_hosts(7, 7);
    let (one, two) = (here.guest("ct1"), there.guest("ct2"));
    let answer = arp(1, BROADCAST, (mac(2), "10.0.0.2"), ([0; 6], "10.0.0.1"));
    two.send(&answer);
    one.wait_for(&answer);
    here.desired.networks[0].uplink = vxlan(7, &["192.0.2.9"]);
    here.converge();
    let learned = here.namespace.shell("bridge fdb show dev cx7");
    assert!(!learned.contains("192.0.2.2"), "{learned}");
    let hello = |number| ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(number, 80, SYN));
    one.send(&hello(1));
    here.desired.networks[0].uplink = vxlan(7, &["192.0.2.2"]);
    here.converge();
    one.send(&hello(2));
    assert_eq!(two.wait_for(&hello(2)), Vec::<Vec<u8>>::new());
}
