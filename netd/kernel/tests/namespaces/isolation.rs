use crate::frames::{BROADCAST, Guest, SYN, SYN_ACK, arp, echo, ethernet, ipv4, tcp, udp};
use crate::namespace::Namespace;
use crate::world::{World, from_guest, mac, network, open, port, to_guest};
use netd_api::{Network, Protocol, Uplink};
use types::SiteName;

#[test]
fn two_networks_with_the_same_addresses_never_exchange_a_frame() {
    let twin = |bridge: &str, first: u8| {
        let ports = [first, first + 1].map(|number| {
            let mut port = port(number, open());
            let twin = (number - 1) % 2 + 1;
            port.mac.0 = mac(twin);
            port.addresses = vec![format!("10.0.0.{twin}").parse().unwrap()];
            port
        });
        network(bridge, Uplink::None, ports.to_vec())
    };
    let world = World::with(vec![twin("cb1", 1), twin("cb2", 3)]);
    let guests: Vec<Guest> = (1..=4).map(|n| world.guest(&format!("ct{n}"))).collect();
    const HOSTILE: u32 = 4000;
    let mut state = 1u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for _ in 0..HOSTILE {
        let targets = [BROADCAST, mac(1), mac(2), mac(9), [1, 0, 0x5e, 0, 0, 1]];
        let to = targets[random() as usize % targets.len()];
        let number = random().to_be_bytes();
        let destination = format!("10.0.{}.{}", number[2] % 2, number[3]);
        let frame = match random() % 5 {
            0 => arp(1 + (random() % 2) as u16, to, (mac(1), "10.0.0.1"), (mac(2), &destination)),
            1 => ipv4(to, mac(1), "10.0.0.1", &destination, 6, &tcp(9, 80, number[1])),
            2 => ipv4(to, mac(1), "10.0.0.1", &destination, 17, &udp(68, 67)),
            3 => ipv4(to, mac(number[0]), "10.0.0.1", &destination, 1, &echo(8)),
            _ => ethernet(to, mac(1), random() as u16, &number),
        };
        guests[0].send(&frame);
    }
    let mut neighbour = 0;
    while guests[1].take().is_some() {
        neighbour += 1;
    }
    assert!(neighbour > 100, "only {neighbour} frames reached the neighbour: the test sends too little");
    let leaks = guests[2..].iter().filter_map(Guest::take).count();
    assert_eq!(leaks, 0);
    assert_eq!(world.port("ct3").to_guest.frames + world.port("ct4").to_guest.frames, 0);
}

#[test]
fn a_port_that_nobody_asked_for_is_closed() {
    let world = World::with(vec![network("cb1", Uplink::None, vec![port(1, open()), port(2, open())])]);
    world.namespace.shell(
        "ip tuntap add stray mode tap vnet_hdr && echo 1 > /proc/sys/net/ipv6/conf/stray/disable_ipv6 && \
         ip link set stray master cb1 up",
    );
    let (one, two, stray) = (world.guest("ct1"), world.guest("ct2"), world.guest("stray"));
    let hello = arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.2"));
    stray.send(&arp(1, BROADCAST, (mac(7), "10.0.0.7"), ([0; 6], "10.0.0.1")));
    stray.send(&ipv4(mac(1), mac(7), "10.0.0.7", "10.0.0.1", 17, &udp(1, 2)));
    one.send(&hello);
    assert_eq!(two.wait_for(&hello), Vec::<Vec<u8>>::new());
    assert_eq!(one.take(), None);
    assert_eq!(stray.take(), None);
    let plan = world.plan();
    assert!(plan.conflicts[0].contains("stray"), "{plan:?}");
    assert_eq!(plan.steps, vec![]);
}

#[test]
fn a_marked_tap_without_rules_is_closed() {
    let world = World::with(vec![network("cb1", Uplink::None, vec![port(1, open()), port(2, open())])]);
    world.namespace.shell("nft delete element bridge collective ports '{ \"ct1\" }'");
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    one.send(&arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.2")));
    let back = arp(1, BROADCAST, (mac(2), "10.0.0.2"), ([0; 6], "10.0.0.1"));
    two.send(&back);
    assert_eq!((one.take(), two.take()), (None, None));
}

#[test]
fn the_host_itself_has_no_part_in_a_network() {
    let world = World::with(vec![network("cb1", Uplink::None, vec![port(1, open())])]);
    world.namespace.shell("ip addr add 10.0.0.99/24 dev cb1 && ip link set lo up");
    let one = world.guest("ct1");
    one.send(&arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.99")));
    one.send(&ipv4(BROADCAST, mac(1), "10.0.0.1", "10.0.0.99", 17, &udp(1, 9)));
    // The host asks for the guest, loudly.
    world.namespace.run(|_, _| {
        let socket = std::net::UdpSocket::bind("10.0.0.99:0").unwrap();
        socket.set_broadcast(true).unwrap();
        let _ = socket.send_to(b"x", "10.0.0.255:9");
        let _ = socket.send_to(b"x", "10.0.0.1:9");
    });
    assert_eq!(one.take(), None);
    let neighbours = world.namespace.shell("ip neigh show dev cb1");
    assert!(!neighbours.contains("02:00:00:00:00:01"), "{neighbours}");
}

fn site(bridge: &str, ports: Vec<netd_api::Port>) -> Network {
    let mut network = network(bridge, Uplink::Site { site: SiteName::new("lab").unwrap() }, ports);
    network.mtu = 1500;
    network
}

/// A host whose eth1 is cabled to a machine of the site.
fn host_on_a_site() -> (World, Namespace) {
    let mut world = World::new();
    let outside = Namespace::new();
    outside.shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    world.namespace.cable("eth1", &outside, "lan0");
    world.namespace.shell("ip link set eth1 down");
    outside.shell("ip addr add 10.0.0.200/24 dev lan0 && ip link set lo up");
    world.host.uplinks = [(SiteName::new("lab").unwrap(), "eth1".to_owned())].into();
    (world, outside)
}

#[test]
fn two_deployments_share_a_sites_link_and_stay_apart() {
    let (mut world, _outside) = host_on_a_site();
    let web =
        || vec![to_guest(Protocol::Tcp { listen_port: 80 }), from_guest(Protocol::Tcp { listen_port: 443 })];
    world.desired.networks = vec![site("cb1", vec![port(1, web())]), site("cb2", vec![port(2, web())])];
    world.converge();
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    let reply = arp(2, BROADCAST, (mac(1), "10.0.0.1"), (mac(1), "10.0.0.1"));
    one.send(&reply);
    assert_eq!(two.wait_for(&reply), Vec::<Vec<u8>>::new());
    // Deployment one may open what two listens on only as two's rules say.
    one.send(&ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(9, 22, SYN)));
    one.send(&ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(443, 22, SYN_ACK)));
    one.send(&reply);
    assert_eq!(two.wait_for(&reply), Vec::<Vec<u8>>::new());
    // One goes, the link stays for the other; both go, the link is as it was found.
    world.desired.networks.remove(0);
    world.converge();
    assert_eq!(world.observe().links["eth1"].master.as_deref(), Some("cbs-lab"));
    world.desired.networks.clear();
    world.converge();
    let eth1 = world.observe().links["eth1"].clone();
    assert_eq!((eth1.master, eth1.up), (None, false));
}

#[test]
fn a_site_reaches_open_ports_and_never_what_is_behind_a_gateway() {
    let (mut world, outside) = host_on_a_site();
    let mut gateway = port(1, vec![to_guest(Protocol::Tcp { listen_port: 80 }), from_guest(Protocol::Any)]);
    gateway.routes = true;
    world.desired.networks = vec![site("cb1", vec![gateway])];
    world.converge();
    let one = world.guest("ct1");
    let connect = |address: &'static str, number: u16| {
        outside.run(move |_, _| {
            let socket = std::net::SocketAddr::new(address.parse().unwrap(), number);
            let _ = std::net::TcpStream::connect_timeout(&socket, std::time::Duration::from_millis(300));
        });
    };
    outside.shell(
        "ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev lan0 && ip route add 10.20.0.0/24 via 10.0.0.1",
    );
    connect("10.20.0.10", 80);
    connect("10.0.0.1", 22);
    connect("10.0.0.1", 80);
    let mut syns = Vec::new();
    while let Some(frame) = one.take() {
        if frame[12..14] == [8, 0] {
            syns.push((frame[30..34].to_vec(), u16::from_be_bytes([frame[36], frame[37]])));
        }
    }
    syns.dedup();
    assert_eq!(syns, [(vec![10, 0, 0, 1], 80)]);
    assert!(world.port("ct1").dropped_to_guest.frames >= 2);
    // And the gateway cannot leak an inner address to the site.
    one.send(&ipv4(BROADCAST, mac(1), "10.20.0.10", "10.0.0.200", 17, &udp(1, 2)));
    assert_eq!(world.port("ct1").dropped_spoofed.frames, 1);
}

#[test]
fn a_link_with_addresses_is_not_taken() {
    let (mut world, _outside) = host_on_a_site();
    world.namespace.shell("ip addr add 203.0.113.9/24 dev eth1");
    world.desired.networks = vec![site("cb1", vec![port(1, open())])];
    let plan = world.plan();
    assert!(plan.refusals[0].contains("eth1 carries IP addresses"), "{plan:?}");
    world.apply(plan);
    assert_eq!(world.observe().links["eth1"].master, None);
}
