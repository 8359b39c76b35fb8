use crate::frames::{
    ACK, BROADCAST, Guest, Mac, SYN, SYN_ACK, arp, arp_in, echo, ethernet, ipv4, ipv6, neighbour, tagged,
    tcp, udp,
};
use crate::world::{World, from_guest, mac, network, open, port, talker, to_guest};
use netd_api::{Accept, Protocol, Uplink};

/// Two ports on one network: 1 under test, 2 open to everything.
pub(crate) struct Pair {
    pub(crate) world: World,
    one: Guest,
    two: Guest,
}

fn pair(accept: Vec<Accept>) -> Pair {
    pair_with(accept, false)
}

pub(crate) fn pair_with(accept: Vec<Accept>, routes: bool) -> Pair {
    let mut first = port(1, accept);
    first.routes = routes;
    let mut second = port(2, open());
    second.routes = true;
    let world = World::with(vec![network("cb1", Uplink::None, vec![first, second])]);
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    // Both are known to the bridge from here on.
    let pair = Pair { world, one, two };
    assert!(pair.passes_out(&arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.2"))));
    assert!(pair.passes_in(&arp(1, BROADCAST, (mac(2), "10.0.0.2"), ([0; 6], "10.0.0.1"))));
    pair
}

impl Pair {
    /// Whether a frame that guest 1 sends reaches guest 2. A frame that always passes ends the wait.
    pub(crate) fn passes_out(&self, frame: &[u8]) -> bool {
        let marker = arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.250"));
        self.one.send(frame);
        self.one.send(&marker);
        self.two.wait_for(&marker).iter().any(|f| f == frame)
    }

    /// Whether a frame that guest 2 sends reaches guest 1.
    pub(crate) fn passes_in(&self, frame: &[u8]) -> bool {
        let marker = arp(1, BROADCAST, (mac(2), "10.0.0.2"), ([0; 6], "10.0.0.250"));
        self.two.send(frame);
        self.two.send(&marker);
        self.one.wait_for(&marker).iter().any(|f| f == frame)
    }
}

fn out4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", protocol, payload)
}

fn in4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4(mac(1), mac(2), "10.0.0.2", "10.0.0.1", protocol, payload)
}

fn out6(next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6(mac(2), mac(1), "fd00::1", "fd00::2", next, payload)
}

fn in6(next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6(mac(1), mac(2), "fd00::2", "fd00::1", next, payload)
}

#[test]
fn a_port_without_rules_passes_address_resolution_and_nothing_else() {
    let pair = pair(vec![]);
    for frame in [
        out4(6, &tcp(9, 80, SYN)),
        out4(17, &udp(9, 53)),
        out4(1, &echo(8)),
        out4(47, b"tunnel"),
        out6(6, &tcp(9, 80, SYN)),
    ] {
        assert!(!pair.passes_out(&frame), "{frame:02x?}");
    }
    for frame in [in4(6, &tcp(9, 80, SYN)), in4(17, &udp(9, 53)), in4(1, &echo(8)), in6(58, &echo(128))] {
        assert!(!pair.passes_in(&frame), "{frame:02x?}");
    }
    assert!(pair.passes_out(&out6(58, &neighbour(135, "fd00::2"))));
    assert!(pair.passes_out(&out6(58, &neighbour(136, "fd00::1"))));
    assert!(pair.passes_in(&in6(58, &neighbour(135, "fd00::1"))));
    let status = pair.world.port("ct1");
    assert_eq!(status.dropped_from_guest.frames, 5);
    assert_eq!(status.dropped_to_guest.frames, 4);
    assert_eq!(status.dropped_spoofed.frames, 0);
}

#[test]
fn a_tcp_rule_to_the_guest_opens_one_port_one_way() {
    let pair = pair(vec![to_guest(Protocol::Tcp { listen_port: 80 })]);
    for (into, out) in [(in4 as fn(u8, &[u8]) -> Vec<u8>, out4 as fn(u8, &[u8]) -> Vec<u8>), (in6, out6)] {
        assert!(pair.passes_in(&into(6, &tcp(9, 80, SYN))));
        assert!(pair.passes_out(&out(6, &tcp(80, 9, SYN_ACK))));
        assert!(pair.passes_in(&into(6, &tcp(9, 80, ACK))));
        assert!(!pair.passes_in(&into(6, &tcp(9, 81, SYN))), "another port");
        assert!(!pair.passes_in(&into(17, &udp(9, 80))), "another protocol");
        assert!(
            !pair.passes_out(&out(6, &tcp(80, 9, SYN))),
            "a connection the other way, from the listening port"
        );
        assert!(!pair.passes_out(&out(6, &tcp(9, 80, SYN))), "a connection the other way");
        assert!(!pair.passes_out(&out(6, &tcp(9, 80, SYN_ACK))));
    }
}

#[test]
fn a_tcp_rule_from_the_guest_is_the_mirror() {
    let pair = pair(vec![from_guest(Protocol::Tcp { listen_port: 443 })]);
    assert!(pair.passes_out(&out4(6, &tcp(9, 443, SYN))));
    assert!(pair.passes_in(&in4(6, &tcp(443, 9, SYN_ACK))));
    assert!(
        !pair.passes_in(&in4(6, &tcp(443, 9, SYN))),
        "a connection the other way, from the listening port"
    );
    assert!(!pair.passes_out(&out4(6, &tcp(9, 80, SYN))));
    // Flags hidden in a second fragment make no reply.
    let mut second = in4(6, &tcp(443, 9, ACK)[8..]);
    second[21] = 1;
    assert!(!pair.passes_in(&second));
}

#[test]
fn udp_echo_and_any_rules_do_what_they_say() {
    let udp_to = pair(vec![to_guest(Protocol::Udp { listen_port: 53 }), to_guest(Protocol::Icmp)]);
    assert!(udp_to.passes_in(&in4(17, &udp(9, 53))));
    assert!(udp_to.passes_out(&out4(17, &udp(53, 9))));
    assert!(!udp_to.passes_out(&out4(17, &udp(9, 53))));
    assert!(udp_to.passes_in(&in4(1, &echo(8))) && udp_to.passes_out(&out4(1, &echo(0))));
    assert!(udp_to.passes_in(&in6(58, &echo(128))) && udp_to.passes_out(&out6(58, &echo(129))));
    assert!(!udp_to.passes_out(&out4(1, &echo(8))) && !udp_to.passes_out(&out6(58, &echo(128))));

    let any = pair(talker());
    assert!(any.passes_out(&out4(6, &tcp(9, 80, SYN))) && any.passes_in(&in4(6, &tcp(80, 9, SYN_ACK))));
    assert!(!any.passes_in(&in4(6, &tcp(9, 80, SYN))), "nobody may open");
    assert!(!any.passes_in(&in4(1, &echo(8))), "nobody may ask");
    assert!(any.passes_in(&in4(1, &echo(0))) && any.passes_out(&out4(1, &echo(8))));
    assert!(any.passes_out(&out4(47, b"tunnel")));
}

#[test]
fn a_remote_limits_a_rule_to_the_other_end() {
    let remote = |net: &str| Some(net.parse().unwrap());
    let pair = pair(vec![
        Accept { remote: remote("10.0.0.2/32"), ..to_guest(Protocol::Tcp { listen_port: 80 }) },
        Accept { remote: remote("10.9.0.0/16"), ..to_guest(Protocol::Tcp { listen_port: 22 }) },
        // Nested remotes are one.
        Accept { remote: remote("10.9.1.0/24"), ..to_guest(Protocol::Tcp { listen_port: 22 }) },
    ]);
    assert!(pair.passes_in(&in4(6, &tcp(9, 80, SYN))));
    assert!(!pair.passes_in(&in4(6, &tcp(9, 22, SYN))));
    let far = ipv4(mac(1), mac(2), "10.9.1.5", "10.0.0.1", 6, &tcp(9, 22, SYN));
    assert!(pair.passes_in(&far));
    assert!(!pair.passes_out(&out4(6, &tcp(22, 9, SYN_ACK))));
}

#[test]
fn spoofed_frames_are_dropped_counted_and_teach_the_bridge_nothing() {
    let pair = pair(open());
    let stolen: Mac = mac(2);
    let spoofs = [
        ("MAC", ipv4(mac(2), mac(9), "10.0.0.1", "10.0.0.2", 17, &udp(1, 2))),
        ("MAC of the neighbour", arp(1, BROADCAST, (stolen, "10.0.0.2"), ([0; 6], "10.0.0.1"))),
        ("IPv4 source", ipv4(mac(2), mac(1), "10.0.0.2", "10.0.0.2", 17, &udp(1, 2))),
        ("no IPv4 source", ipv4(mac(2), mac(1), "0.0.0.0", "10.0.0.2", 17, &udp(1, 2))),
        ("ARP address", arp(2, mac(2), (mac(1), "10.0.0.254"), (mac(2), "10.0.0.2"))),
        ("ARP hardware", arp_in(mac(1), 2, mac(2), (mac(9), "10.0.0.1"), (mac(2), "10.0.0.2"))),
        ("IPv6 source", ipv6(mac(2), mac(1), "fd00::9", "fd00::2", 17, &udp(1, 2))),
        ("advertised target", out6(58, &neighbour(136, "fd00::2"))),
    ];
    for (what, frame) in &spoofs {
        assert!(!pair.passes_out(frame), "{what} was passed");
    }
    assert_eq!(pair.world.port("ct1").dropped_spoofed.frames, spoofs.len() as u64);
    // The stolen MAC was not learned: frames for it still reach its owner.
    assert!(pair.passes_out(&out4(17, &udp(1, 2))));
}

#[test]
fn guests_are_no_servers_routers_or_switches() {
    let pair = pair(open());
    let frames = [
        ("DHCP server", out4(17, &udp(67, 68))),
        ("DHCPv6 server", out6(17, &udp(547, 546))),
        (
            "router advertisement",
            ipv6([0x33, 0x33, 0, 0, 0, 1], mac(1), "fe80::1", "ff02::1", 58, &neighbour(134, "::")),
        ),
        ("own router advertisement", out6(58, &neighbour(134, "::"))),
        ("redirect", out6(58, &neighbour(137, "::"))),
        ("tagged", tagged(&out4(17, &udp(1, 2)), 5)),
        ("doubly tagged", tagged(&tagged(&out4(17, &udp(1, 2)), 5), 6)),
        ("LLDP", ethernet([1, 0x80, 0xc2, 0, 0, 0xe], mac(1), 0x88cc, b"lldp")),
        ("spanning tree", ethernet([1, 0x80, 0xc2, 0, 0, 0], mac(1), 38, &[0x42, 0x42, 3, 0, 0])),
        ("unknown type", ethernet(mac(2), mac(1), 0x88b5, b"x")),
    ];
    for (what, frame) in &frames {
        assert!(!pair.passes_out(frame), "{what} was passed");
        // Nor from the other side, which may route.
        let mut back = frame.clone();
        back[..6].copy_from_slice(&mac(1));
        back[6..12].copy_from_slice(&mac(2));
        let routers = what.contains("DHCP") || what.contains("advertisement") || *what == "redirect";
        assert!(routers || !pair.passes_in(&back), "{what} was passed back");
    }
    let status = pair.world.port("ct1");
    assert_eq!(status.dropped_spoofed.frames, 0);
    // A switch's own protocols end at the bridge and do not reach the counters of the port.
    assert!(status.dropped_from_guest.frames >= 8, "{status:?}");
}

#[test]
fn a_dhcp_client_is_served_by_a_routing_port() {
    let pair = pair(vec![from_guest(Protocol::Udp { listen_port: 67 })]);
    let discover = ipv4(BROADCAST, mac(1), "0.0.0.0", "255.255.255.255", 17, &udp(68, 67));
    assert!(pair.passes_out(&discover));
    let offer = ipv4(BROADCAST, mac(2), "10.0.0.2", "255.255.255.255", 17, &udp(67, 68));
    assert!(pair.passes_in(&offer));
    let offer = ipv4(mac(1), mac(2), "10.0.0.2", "10.0.0.1", 17, &udp(67, 68));
    assert!(pair.passes_in(&offer));
    let probe = arp(1, BROADCAST, (mac(1), "0.0.0.0"), ([0; 6], "10.0.0.1"));
    assert!(pair.passes_out(&probe));
}

#[test]
fn what_is_addressed_to_others_needs_a_routing_port_and_a_rule() {
    let transit = ipv4(mac(1), mac(2), "10.0.0.2", "198.51.100.7", 6, &tcp(9, 80, SYN));
    let plain = pair(open());
    assert!(!plain.passes_in(&transit), "a port that does not route gets its own only");
    let closed = pair_with(talker(), true);
    assert!(!closed.passes_in(&transit), "routing needs a rule too");
    let router = pair_with(open(), true);
    assert!(router.passes_in(&transit));
    let forwarded = ipv4(mac(2), mac(1), "198.51.100.7", "10.0.0.2", 6, &tcp(80, 9, SYN_ACK));
    assert!(router.passes_out(&forwarded));
    assert!(!plain.passes_out(&forwarded));
    // It still cannot claim an address that is not its own.
    assert!(!router.passes_out(&arp(2, mac(2), (mac(1), "198.51.100.7"), (mac(2), "10.0.0.2"))));
}

#[test]
fn frames_for_another_mac_are_not_shown() {
    let pair = pair(open());
    assert!(!pair.passes_in(&ipv4(mac(77), mac(2), "10.0.0.2", "10.0.0.1", 17, &udp(1, 2))));
    assert_eq!(pair.world.port("ct1").dropped_to_guest.frames, 0);
}
