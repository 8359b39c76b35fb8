//! Routers, with guests that have a whole network stack: a namespace each, behind a tap.

use crate::frames::{BROADCAST, Guest, ethernet, ipv4, ipv6};
use crate::namespace::Namespace;
use crate::world::{World, from_guest, mac, network, talker, to_guest, vxlan};
use netd_api::{
    Accept, Dhcp, Dns, Lease, Network, Outside, Port, Protocol, Published, Router, RouterStatus, Transport,
    Uplink,
};
use netd_plan::{Plan, RouterStep, Step, networks_status};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use types::{MacAddress, SiteName};

const DEADLINE: Duration = Duration::from_secs(20);
/// For what must not happen: a connection over these few links takes a millisecond.
const SILENCE: Duration = Duration::from_millis(400);

#[expect(clippy::disallowed_methods, reason = "between two looks at a condition")]
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A guest with a network stack of its own, behind one tap of the host.
struct Machine {
    namespace: Namespace,
    stop: Arc<AtomicBool>,
    cables: Vec<JoinHandle<()>>,
}

impl Machine {
    /// Boots behind a tap, under this MAC address.
    fn new(world: &World, tap: &str, last: u8) -> Self {
        let namespace = Namespace::new();
        let inner = Arc::new(Guest::new(namespace.run(|_, _| netd_kernel::open_tap("eth0")).unwrap()));
        let outer = Arc::new(world.guest(tap));
        namespace.shell(&format!(
            "echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; \
             ip link set lo up; ip link set eth0 address 02:00:00:00:00:{last:02x} up"
        ));
        let stop = Arc::new(AtomicBool::new(false));
        let cable = |from: &Arc<Guest>, to: &Arc<Guest>| {
            let (from, to, stop) = (Arc::clone(from), Arc::clone(to), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match from.take() {
                        Some(frame) => to.send(&frame),
                        None => from.wait(Duration::from_millis(20)),
                    }
                }
            })
        };
        let cables = vec![cable(&inner, &outer), cable(&outer, &inner)];
        Self { namespace, stop, cables }
    }

    /// With addresses and default routes as a configuration disk gives them.
    fn configured(world: &World, tap: &str, last: u8) -> Self {
        let machine = Self::new(world, tap, last);
        machine.namespace.shell(&format!(
            "ip addr add 10.20.0.{last}/24 dev eth0; ip addr add fd00:20::{last:x}/64 dev eth0; \
             ip link set eth0 mtu 1450; ip route add default via 10.20.0.1; ip route add default via fd00:20::1 metric 1"
        ));
        machine
    }

    /// Asks for an IPv4 lease as a guest does; what it was given, as `name=value` lines.
    fn lease(&self, tries: u32) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let (script, answer) = (folder.path().join("script"), folder.path().join("answer"));
        let text = format!("#!/bin/sh\n[ \"$1\" != bound ] || env > {}\n", answer.display());
        std::fs::write(&script, text).unwrap();
        self.namespace.shell(&format!(
            "chmod +x {script}; busybox udhcpc -i eth0 -n -q -f -t {tries} -T 1 -O mtu -O domain -s {script} 2>&1 || true",
            script = script.display()
        ));
        std::fs::read_to_string(answer).ok()
    }

    /// Whether a name resolves at the router; the answer.
    fn resolve(&self, name: &str, server: &str) -> String {
        self.namespace.shell(&format!("busybox nslookup {name} {server} 2>&1 || true"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for cable in self.cables.drain(..) {
            let _ = cable.join();
        }
    }
}

fn guest_port(last: u8, accept: Vec<Accept>) -> Port {
    Port {
        addresses: vec![
            format!("10.20.0.{last}").parse().unwrap(),
            format!("fd00:20::{last:x}").parse().unwrap(),
        ],
        accept,
        ..Port::closed(format!("office/m{last}/eth0"), format!("ct{last}"), MacAddress(mac(last)))
    }
}

fn router(number: u8) -> Router {
    Router {
        link: format!("cr{number}"),
        elsewhere: false,
        mac: MacAddress([2, 0, 0, 0, 1, number]),
        addresses: vec!["10.20.0.1/24".parse().unwrap(), "fd00:20::1/64".parse().unwrap()],
        dhcp: None,
        dns: None,
        advertises: false,
        outside: None,
    }
}

fn lease(last: u8) -> Lease {
    Lease {
        mac: MacAddress(mac(last)),
        addresses: guest_port(last, Vec::new()).addresses,
        name: format!("m{last}"),
    }
}

fn serving(number: u8, leases: &[u8]) -> Router {
    Router {
        dhcp: Some(Dhcp { lease_seconds: 600, leases: leases.iter().map(|last| lease(*last)).collect() }),
        dns: Some(Dns { domain: "office.test".to_owned(), forward: Vec::new() }),
        advertises: true,
        ..router(number)
    }
}

fn outside(number: u8, nat: bool) -> Outside {
    Outside {
        site: SiteName::new("lab").unwrap(),
        link: format!("co{number}"),
        mac: MacAddress([2, 0, 0, 0, 2, number]),
        addresses: vec![
            format!("198.51.100.{number}/24").parse().unwrap(),
            format!("fd01::{number:x}/64").parse().unwrap(),
        ],
        gateways: vec!["198.51.100.200".parse().unwrap(), "fd01::200".parse().unwrap()],
        nat,
        published: Vec::new(),
    }
}

fn routed(bridge: &str, router: Router, ports: Vec<Port>) -> Network {
    Network { router: Some(router), ..network(bridge, Uplink::None, ports) }
}

/// A host whose eth1 is cabled to a machine on the site's LAN: 198.51.100.200 and fd01::200, a gateway to nowhere.
fn on_a_site() -> (World, Namespace) {
    let mut world = World::new();
    let lan = Namespace::new();
    world.namespace.cable("eth1", &lan, "lan0");
    lan.shell(
        "echo 0 > /proc/sys/net/ipv6/conf/lan0/accept_dad; ip link set lo up; \
         ip addr add 198.51.100.200/24 dev lan0; ip addr add fd01::200/64 dev lan0",
    );
    world.host.uplinks = [(SiteName::new("lab").unwrap(), "eth1".to_owned())].into();
    (world, lan)
}

impl World {
    fn router(&self, network: usize) -> RouterStatus {
        networks_status(&self.desired, &self.host, &self.observe())[network].router.clone().unwrap()
    }

    /// Runs a line in a router's namespace, as a person would.
    fn in_router(&self, router: &str, line: &str) -> String {
        let path = self.namespace.folders().namespaces.join(format!("collective-{router}"));
        self.namespace.shell(&format!("nsenter --net={} sh -c '{line}'", path.display()))
    }

    fn server_pid(&self, router: &str) -> String {
        let path = self.namespace.folders().state.join("routers").join(router).join("pid");
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }
}

/// Listens and answers each connection with the address it sees.
fn echo_service(at: &Namespace, address: &'static str) {
    let listener = at.run(move |_, _| TcpListener::bind(address)).unwrap();
    std::thread::spawn(move || {
        use std::io::Write as _;
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = write!(stream, "{}", from.ip());
        }
    });
}

/// The same over UDP.
fn datagram_service(at: &Namespace, address: &'static str) {
    let socket = at.run(move |_, _| UdpSocket::bind(address)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
}

/// What the service at an address answers.
fn connect(from: &Namespace, to: &'static str, patience: Duration) -> Option<IpAddr> {
    from.run(move |_, _| {
        use std::io::Read as _;
        let address: SocketAddr = to.parse().unwrap();
        let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.parse().ok()
    })
}

fn ask(from: &Namespace, to: &'static str) -> Option<IpAddr> {
    from.run(move |_, _| {
        let address: SocketAddr = to.parse().unwrap();
        let any: IpAddr = if address.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        let mut buffer = [0; 64];
        for _ in 0..3 {
            let _ = socket.send_to(b"?", address);
            if let Ok((length, _)) = socket.recv_from(&mut buffer) {
                return std::str::from_utf8(&buffer[..length]).unwrap().parse().ok();
            }
        }
        None
    })
}

#[test]
fn a_guest_that_accepts_nothing_gets_its_lease_and_a_stranger_none() {
    let world = World::with(vec![routed(
        "cb1",
        serving(1, &[10]),
        vec![guest_port(10, Vec::new()), guest_port(11, Vec::new())],
    )]);
    assert!(world.router(0).ready);
    assert_eq!(world.router(0).namespace, "collective-cr1");
    let (known, stranger) = (Machine::new(&world, "ct10", 10), Machine::new(&world, "ct11", 11));
    let lease = known.lease(5).expect("no lease");
    for line in ["ip=10.20.0.10", "mask=24", "dns=10.20.0.1", "mtu=1450", "domain=office.test", "lease=600"] {
        assert!(lease.lines().any(|l| l == line), "{line} is not in {lease}");
    }
    assert!(!lease.contains("router="), "a router that leads nowhere is no default router: {lease}");
    assert_eq!(world.router(0).leases, 1);
    assert_eq!(stranger.lease(2), None);
    assert_eq!(world.router(0).leases, 1);
}

#[test]
fn names_of_leases_resolve_and_others_do_not_exist() {
    let world = World::with(vec![routed("cb1", serving(1, &[10, 11]), vec![guest_port(10, Vec::new())])]);
    let guest = Machine::configured(&world, "ct10", 10);
    let answer = guest.resolve("m11.office.test", "10.20.0.1");
    assert!(answer.contains("10.20.0.11") && answer.contains("fd00:20::b"), "{answer}");
    let answer = guest.resolve("m11.office.test", "fd00:20::1");
    assert!(answer.contains("10.20.0.11"), "{answer}");
    for name in ["gone.office.test", "example.org"] {
        let answer = guest.resolve(name, "10.20.0.1");
        assert!(answer.contains("NXDOMAIN"), "{answer}");
    }
    // And nothing else of the router is open.
    assert_eq!(connect(&guest.namespace, "10.20.0.1:80", SILENCE), None);
}

/// A DHCPv6 client (RFC 8415) of as few words as possible; the address it was given.
fn lease6(machine: &Machine, last: u8) -> Option<IpAddr> {
    machine.namespace.run(move |_, _| {
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        let socket = UdpSocket::bind("[::]:546").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let servers = std::net::SocketAddrV6::new("ff02::1:2".parse().unwrap(), 547, 0, index);
        let option = |kind: u16, value: &[u8]| {
            let length = u16::try_from(value.len()).unwrap();
            [&kind.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
        };
        let own = option(1, &[&[0, 3, 0, 1][..], &mac(last)].concat());
        let (mut kind, mut extra) = (1_u8, Vec::new());
        for _ in 0..10 {
            let wanted = option(3, &[&[0, 0, 0, 1][..], &[0; 8]].concat());
            let elapsed = option(8, &[0, 0]);
            let message = [&[kind, 1, 2, 3][..], &own, &elapsed, &wanted, &extra].concat();
            let _ = socket.send_to(&message, servers);
            let mut buffer = [0; 1500];
            let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
            let (mut rest, mut address, mut server) = (&buffer[4..length], None, Vec::new());
            while rest.len() >= 4 {
                let (of, length) = (
                    u16::from_be_bytes([rest[0], rest[1]]),
                    usize::from(u16::from_be_bytes([rest[2], rest[3]])),
                );
                let value = &rest[4..4 + length];
                match of {
                    2 => server = option(2, value),
                    // An identity association with an address (option 5) in it.
                    3 if length > 32 && value[12..14] == [0, 5] => {
                        address = Some(IpAddr::from(<[u8; 16]>::try_from(&value[16..32]).unwrap()));
                    }
                    _ => {}
                }
                rest = &rest[4 + length..];
            }
            match (buffer[0], address) {
                (7, Some(address)) => return Some(address),
                (2, Some(_)) => (kind, extra) = (3, server),
                _ => {}
            }
        }
        None
    })
}

#[test]
fn a_guest_hears_its_router_and_gets_its_ipv6_address() {
    let (mut world, _lan) = on_a_site();
    let router = Router { outside: Some(outside(1, true)), ..serving(1, &[10]) };
    world.desired.networks =
        vec![routed("cb1", router, vec![guest_port(10, Vec::new()), guest_port(11, Vec::new())])];
    world.converge();
    let (known, stranger) = (Machine::new(&world, "ct10", 10), Machine::new(&world, "ct11", 11));
    until("no default route was advertised", || {
        let routes = known.namespace.shell("ip -6 route");
        routes.contains("default via fe80::ff:fe00:101") && routes.contains("mtu 1450")
    });
    let routes = known.namespace.shell("ip -6 route");
    assert!(routes.contains("fd00:20::/64"), "{routes}");
    // Addresses are given, not chosen: the port would drop others.
    let addresses = known.namespace.shell("ip -6 addr show dev eth0 scope global");
    assert_eq!(addresses, "");
    assert_eq!(lease6(&known, 10), Some("fd00:20::a".parse().unwrap()));
    assert_eq!(lease6(&stranger, 11), None);
}

#[test]
fn a_guest_on_another_host_is_configured_over_the_tunnel() {
    let (mut here, mut there) = (World::new(), World::new());
    there.host.underlay = Some("192.0.2.2".parse().unwrap());
    here.namespace.cable("eth0", &there.namespace, "eth0");
    here.namespace.shell("ip addr add 192.0.2.1/24 dev eth0");
    there.namespace.shell("ip addr add 192.0.2.2/24 dev eth0");
    let carried =
        |peer, router, ports| Network { router: Some(router), ..network("cb1", vxlan(7, &[peer]), ports) };
    let away = Router { elsewhere: true, ..serving(1, &[10]) };
    here.desired.networks = vec![carried("192.0.2.2", serving(1, &[10]), Vec::new())];
    there.desired.networks = vec![carried("192.0.2.1", away, vec![guest_port(10, Vec::new())])];
    here.converge();
    there.converge();
    assert!(!there.namespace.anything_left(), "the router is elsewhere");
    let guest = Machine::new(&there, "ct10", 10);
    assert!(guest.lease(10).expect("no lease").contains("ip=10.20.0.10"));
    assert_eq!(lease6(&guest, 10), Some("fd00:20::a".parse().unwrap()));
    assert_eq!(here.router(0).leases, 2);
}

#[test]
fn a_guest_that_gives_leases_or_advertises_reaches_nobody() {
    let world = World::with(vec![routed(
        "cb1",
        serving(1, &[10]),
        vec![guest_port(10, talker()), guest_port(11, talker())],
    )]);
    let (victim, rogue) = (world.guest("ct10"), world.guest("ct11"));
    let udp =
        |from: u16, to: u16| [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 12, 0, 0], b"data"].concat();
    let near = "fe80::ff:fe00:b";
    let advertisement = [&[134, 0, 0, 0, 64, 0, 7, 8][..], &[0; 8]].concat();
    let redirect = [&[137, 0, 0, 0][..], &[0; 36]].concat();
    for frame in [
        ipv4(BROADCAST, mac(11), "10.20.0.11", "255.255.255.255", 17, &udp(67, 68)),
        ipv4(mac(10), mac(11), "10.20.0.11", "10.20.0.10", 17, &udp(67, 68)),
        ipv6([0x33, 0x33, 0, 0, 0, 1], mac(11), near, "ff02::1", 58, &advertisement),
        ipv6(mac(10), mac(11), "fd00:20::b", "fd00:20::a", 58, &redirect),
        ipv6(mac(10), mac(11), near, "fe80::ff:fe00:a", 17, &udp(547, 546)),
        // Nor does it pass for the router.
        ipv6([0x33, 0x33, 0, 0, 0, 1], mac(11), "fe80::ff:fe00:101", "ff02::1", 58, &advertisement),
        ipv4(mac(10), mac(11), "10.20.0.1", "10.20.0.10", 17, &udp(67, 68)),
    ] {
        rogue.send(&frame);
    }
    let last = ethernet(
        BROADCAST,
        mac(11),
        0x0806,
        &crate::frames::arp(1, BROADCAST, (mac(11), "10.20.0.11"), (mac(10), "10.20.0.10"))[14..],
    );
    rogue.send(&last);
    let before = victim.wait_for(&last);
    let from_rogue: Vec<_> = before.iter().filter(|frame| frame[6..12] == mac(11)).collect();
    assert_eq!(from_rogue, Vec::<&Vec<u8>>::new());
}

#[test]
fn a_guest_reaches_the_lan_which_sees_only_its_router() {
    let (mut world, lan) = on_a_site();
    let router = Router { outside: Some(outside(1, true)), ..router(1) };
    world.desired.networks = vec![routed("cb1", router, vec![guest_port(10, talker())])];
    world.converge();
    assert!(world.router(0).ready);
    let guest = Machine::configured(&world, "ct10", 10);
    echo_service(&lan, "198.51.100.200:80");
    echo_service(&lan, "[fd01::200]:80");
    datagram_service(&lan, "198.51.100.200:53");
    let seen = |to| connect(&guest.namespace, to, DEADLINE);
    assert_eq!(seen("198.51.100.200:80"), Some("198.51.100.1".parse().unwrap()));
    assert_eq!(seen("[fd01::200]:80"), Some("fd01::1".parse().unwrap()));
    assert_eq!(ask(&guest.namespace, "198.51.100.200:53"), Some("198.51.100.1".parse().unwrap()));
    guest.namespace.shell("busybox ping -c 1 -W 5 198.51.100.200 && busybox ping -6 -c 1 -W 5 fd01::200");
    // The way back is the guest's own; nobody opens it from outside, even with a route.
    lan.shell("ip route add 10.20.0.0/24 via 198.51.100.1; ip route add fd00:20::/64 via fd01::1");
    echo_service(&guest.namespace, "10.20.0.10:80");
    echo_service(&guest.namespace, "[fd00:20::a]:80");
    assert_eq!(connect(&lan, "10.20.0.10:80", SILENCE), None);
    assert_eq!(connect(&lan, "[fd00:20::a]:80", SILENCE), None);
    // Nor does the LAN find a service of the router's.
    assert_eq!(connect(&lan, "198.51.100.1:53", SILENCE), None);
    lan.shell("busybox ping -c 1 -W 5 198.51.100.1");
}

#[test]
fn published_ports_lead_inside_and_others_do_not() {
    let (mut world, lan) = on_a_site();
    let publish =
        |transport, listen_port, to: &str| Published { transport, listen_port, to: to.parse().unwrap() };
    let published = vec![
        publish(Transport::Tcp, 8080, "10.20.0.10:80"),
        publish(Transport::Tcp, 8080, "[fd00:20::a]:80"),
        publish(Transport::Udp, 5353, "10.20.0.10:53"),
        // Published, but the port does not accept it.
        publish(Transport::Tcp, 8022, "10.20.0.10:22"),
    ];
    let outside = Outside { published, ..outside(1, true) };
    let router = Router { outside: Some(outside), ..router(1) };
    let accept =
        vec![to_guest(Protocol::Tcp { listen_port: 80 }), to_guest(Protocol::Udp { listen_port: 53 })];
    world.desired.networks = vec![routed("cb1", router, vec![guest_port(10, accept)])];
    world.converge();
    let guest = Machine::configured(&world, "ct10", 10);
    for address in ["10.20.0.10:80", "[fd00:20::a]:80", "10.20.0.10:22"] {
        echo_service(&guest.namespace, address);
    }
    datagram_service(&guest.namespace, "10.20.0.10:53");
    let from = Some("198.51.100.200".parse().unwrap());
    assert_eq!(connect(&lan, "198.51.100.1:8080", DEADLINE), from, "the guest sees who asks");
    assert_eq!(connect(&lan, "[fd01::1]:8080", DEADLINE), Some("fd01::200".parse().unwrap()));
    assert_eq!(ask(&lan, "198.51.100.1:5353"), from);
    assert_eq!(connect(&lan, "198.51.100.1:8022", SILENCE), None);
    assert_eq!(connect(&lan, "198.51.100.1:80", SILENCE), None);
    assert_eq!(ask(&lan, "198.51.100.1:53"), None);
}

#[test]
fn a_routed_network_is_reached_by_its_route_where_its_ports_accept() {
    let (mut world, lan) = on_a_site();
    let router = Router { outside: Some(outside(1, false)), ..router(1) };
    let accept =
        vec![to_guest(Protocol::Tcp { listen_port: 80 }), from_guest(Protocol::Tcp { listen_port: 80 })];
    world.desired.networks = vec![routed("cb1", router, vec![guest_port(10, accept)])];
    world.converge();
    let guest = Machine::configured(&world, "ct10", 10);
    for address in ["10.20.0.10:80", "[fd00:20::a]:80", "10.20.0.10:22"] {
        echo_service(&guest.namespace, address);
    }
    echo_service(&lan, "198.51.100.200:80");
    lan.shell("ip route add 10.20.0.0/24 via 198.51.100.1; ip route add fd00:20::/64 via fd01::1");
    assert_eq!(connect(&lan, "10.20.0.10:80", DEADLINE), Some("198.51.100.200".parse().unwrap()));
    assert_eq!(connect(&lan, "[fd00:20::a]:80", DEADLINE), Some("fd01::200".parse().unwrap()));
    assert_eq!(connect(&lan, "10.20.0.10:22", SILENCE), None);
    let seen = connect(&guest.namespace, "198.51.100.200:80", DEADLINE);
    assert_eq!(seen, Some("10.20.0.10".parse().unwrap()), "nothing is hidden");
    // Who speaks on the LAN under an inner address is not believed.
    lan.shell(
        "ip addr add 10.20.0.77/32 dev lan0; ip route change 10.20.0.0/24 via 198.51.100.1 src 10.20.0.77",
    );
    assert_eq!(connect(&lan, "10.20.0.10:80", SILENCE), None);
}

#[test]
fn two_hidden_networks_with_equal_addresses_do_not_mix() {
    let (mut world, lan) = on_a_site();
    let hidden = |number: u8, tap: &str| {
        let router = Router { outside: Some(outside(number, true)), ..serving(number, &[10]) };
        let mut port = guest_port(10, talker());
        (port.id, port.tap) = (format!("office/{tap}/eth0"), tap.to_owned());
        routed(&format!("cb{number}"), router, vec![port])
    };
    world.desired.networks = vec![hidden(1, "ct1"), hidden(2, "ct2")];
    world.converge();
    let one = Machine::configured(&world, "ct1", 10);
    let two = Machine::configured(&world, "ct2", 10);
    echo_service(&lan, "198.51.100.200:80");
    for _ in 0..5 {
        assert_eq!(
            connect(&one.namespace, "198.51.100.200:80", DEADLINE),
            Some("198.51.100.1".parse().unwrap())
        );
        assert_eq!(
            connect(&two.namespace, "198.51.100.200:80", DEADLINE),
            Some("198.51.100.2".parse().unwrap())
        );
    }
    // Each has its own lease of the same address.
    for guest in [&one, &two] {
        assert!(guest.lease(5).expect("no lease").contains("ip=10.20.0.10"));
    }
    assert_eq!((world.router(0).leases, world.router(1).leases), (1, 1));
    // And the guest of one does not reach the other by its router's address on the LAN.
    echo_service(&two.namespace, "10.20.0.10:80");
    assert_eq!(connect(&one.namespace, "198.51.100.2:80", SILENCE), None);
}

/// Everything of the host that is not netd's, a line each.
fn host_state(world: &World) -> BTreeSet<String> {
    let text = world.namespace.shell(
        "ip -o addr | grep -vE ': c[brot]'; ip route show table all; ip rule; \
         ip -6 route show table all | grep -vE 'dev c[brot]'; nft list tables | grep -v 'bridge collective'; \
         find /proc/sys/net -type f ! -path '*/conf/c[brot]*' ! -path '*/neigh/*' ! -path '*/bridge/*' \
           ! -name '*conntrack_count' ! -name stable_secret ! -name '*random*' | xargs grep -H . 2>/dev/null; true",
    );
    text.lines().map(str::to_owned).collect()
}

fn assert_untouched(world: &World, before: &BTreeSet<String>) {
    let now = host_state(world);
    let changed: Vec<_> = now.symmetric_difference(before).collect();
    assert!(before.len() > 300 && changed.is_empty(), "{changed:#?}");
}

#[test]
fn the_hosts_own_stack_is_as_it_was() {
    let (mut world, lan) = on_a_site();
    // The host has addresses, a route and rules of its own, the same as the network's.
    world.namespace.shell(
        "ip link set lo up; ip link add own type veth peer name own1; ip link set own up; ip link set own1 up; \
         ip addr add 10.20.0.1/24 dev own; ip route add 198.51.100.0/24 via 10.20.0.9; \
         nft 'table inet mine { chain c { type filter hook forward priority 0; policy accept; }; }'",
    );
    until("the host's links settle", || !world.namespace.shell("ip -6 addr").contains("tentative"));
    let before = host_state(&world);
    let router = Router { outside: Some(outside(1, true)), ..serving(1, &[10]) };
    world.desired.networks = vec![routed("cb1", router, vec![guest_port(10, talker())])];
    world.converge();
    let guest = Machine::configured(&world, "ct10", 10);
    echo_service(&lan, "198.51.100.200:80");
    assert!(connect(&guest.namespace, "198.51.100.200:80", DEADLINE).is_some());
    assert_untouched(&world, &before);
    world.desired.networks.clear();
    drop(guest);
    world.converge();
    assert_untouched(&world, &before);
}

fn changing() -> [Vec<Network>; 3] {
    let first = Router { outside: Some(outside(1, true)), ..serving(1, &[10]) };
    // Everything about it changes, and another one comes.
    let mut second = Router { outside: Some(outside(1, false)), ..serving(1, &[10, 11]) };
    second.mac.0[5] = 9;
    second.addresses[0] = "10.20.0.254/24".parse().unwrap();
    if let Some(outside) = &mut second.outside {
        outside.addresses[0] = "198.51.100.9/24".parse().unwrap();
        outside.gateways.truncate(1);
    }
    [
        vec![routed("cb1", first, vec![guest_port(10, talker())])],
        vec![
            routed("cb1", second, vec![guest_port(10, talker())]),
            routed("cb2", Router { advertises: true, ..router(2) }, Vec::new()),
        ],
        vec![],
    ]
}

#[test]
fn killed_after_any_step_a_router_converges() {
    let (mut world, _lan) = on_a_site();
    let documents = changing();
    for stop in 0.. {
        let mut longest = 0;
        for document in &documents {
            world.desired.networks.clone_from(document);
            let mut part = world.plan();
            longest = longest.max(part.steps.len());
            part.steps.truncate(stop);
            world.apply(part);
            world.converge();
            for index in 0..document.len() {
                assert!(world.router(index).ready, "{stop}");
            }
        }
        assert!(!world.namespace.anything_left(), "{stop}");
        if stop >= longest {
            return;
        }
    }
}

#[test]
fn a_router_without_rules_gets_no_links() {
    let (mut world, _lan) = on_a_site();
    world.desired.networks = changing()[0].clone();
    let mut plan = world.plan();
    plan.steps.retain(|step| !matches!(step, Step::Router(RouterStep::ReplaceRules { .. })));
    let applied = world.namespace.run(move |runtime, kernel| runtime.block_on(kernel.apply(&plan)));
    assert!(!applied.failures.is_empty());
    let links = world.observe().links;
    assert!(!links.contains_key("cr1") && !links.contains_key("co1"), "{links:?}");
    world.converge();
    assert!(world.router(0).ready);
}

#[test]
fn damage_inside_is_repaired() {
    let (mut world, _lan) = on_a_site();
    world.desired.networks = changing()[0].clone();
    world.converge();
    for damage in [
        "nft flush ruleset",
        "nft add rule inet collective input accept",
        "nft flush chain inet collective forward",
        "ip link del lan",
        "ip link del wan",
        "ip link set lan down",
        "ip link set wan mtu 1400",
        "ip link set lan address 02:00:00:00:07:07",
        "ip addr del 10.20.0.1/24 dev lan",
        "ip addr add 10.99.0.1/24 dev lan",
        "ip addr del fd01::1/64 dev wan",
        "ip route del default",
        "ip -6 route replace default via fd01::77",
        "ip link set lo down",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "echo 2 > /proc/sys/net/ipv6/conf/default/accept_ra",
    ] {
        world.in_router("cr1", damage);
        assert_ne!(world.plan(), Plan::default(), "{damage} is not seen");
        assert!(!world.router(0).ready, "{damage}");
        world.converge();
        assert!(world.router(0).ready, "{damage}");
    }
    // A name taken away from the namespace while its servers keep it alive.
    let path = world.namespace.folders().namespaces.join("collective-cr1");
    world.namespace.shell(&format!("umount {path}; rm {path}", path = path.display()));
    assert!(!world.router(0).ready);
    world.converge();
    let guest = Machine::new(&world, "ct10", 10);
    assert!(guest.lease(5).is_some());
}

#[test]
fn servers_outlive_netd_and_come_back_when_they_die() {
    let mut world = World::with(vec![routed("cb1", serving(1, &[10]), vec![guest_port(10, Vec::new())])]);
    let first = world.server_pid("cr1");
    let owner = world.namespace.shell(&format!("stat -c %u /proc/{first}"));
    assert_ne!(owner.trim(), "0", "it gave its privileges away");
    // A new netd finds it.
    let adopted = world.namespace.observed_by_another();
    assert_eq!(adopted.routers, world.observe().routers);
    world.converge();
    assert_eq!(world.server_pid("cr1"), first);
    let victim = first.clone();
    world.namespace.run(move |runtime, kernel| {
        runtime.block_on(async {
            let kill = async {
                assert!(std::process::Command::new("kill").args(["-9", &victim]).status().unwrap().success())
            };
            let (died, ()) = tokio::join!(tokio::time::timeout(DEADLINE, kernel.server_died()), kill);
            died.expect("nobody heard of it");
        });
    });
    assert!(!world.router(0).ready);
    world.converge();
    let second = world.server_pid("cr1");
    assert!(world.router(0).ready && second != first);
    // A new lease needs new servers, an old file none.
    world.desired.networks[0].router = Some(serving(1, &[10, 11]));
    assert!(!world.router(0).ready);
    world.converge();
    let third = world.server_pid("cr1");
    assert_ne!(third, second);
    let pid = world.namespace.folders().state.join("routers/cr1/pid");
    std::fs::remove_file(pid).unwrap();
    world.converge();
    assert!(!std::path::Path::new(&format!("/proc/{third}/ns/net")).exists(), "nobody is left behind");
    let guest = Machine::new(&world, "ct10", 10);
    assert!(guest.lease(5).is_some());
}

#[test]
fn somebody_elses_namespace_of_the_same_name_is_reported_and_untouched() {
    let mut world = World::new();
    let path = world.namespace.folders().namespaces.join("collective-cr1");
    world.namespace.shell(&format!(
        "mkdir -p {folder}; touch {path}; unshare -n sh -c 'ip link set lo up; mount --bind /proc/self/ns/net {path}'",
        folder = path.parent().unwrap().display(),
        path = path.display()
    ));
    let look = |world: &World| {
        world.in_router("cr1", "ip -o link; ip addr; nft list ruleset; stat -Lc %i /proc/self/ns/net")
    };
    let before = look(&world);
    world.desired.networks = vec![
        routed("cb1", serving(1, &[10]), vec![guest_port(10, talker())]),
        routed("cb2", Router { advertises: true, ..router(2) }, Vec::new()),
    ];
    let plan = world.plan();
    assert!(plan.conflicts[0].contains("collective-cr1"), "{plan:?}");
    world.apply(plan);
    assert_eq!(world.plan().steps, vec![]);
    assert!(!world.router(0).ready && world.router(1).ready);
    assert_eq!(look(&world), before);
    world.desired.networks.clear();
    world.converge();
    assert_eq!(look(&world), before);
    world.namespace.shell(&format!("umount {path}; rm {path}", path = path.display()));
    assert!(!world.namespace.anything_left());
}
