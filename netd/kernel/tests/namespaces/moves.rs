//! Guests that move: between hosts, and between networks.

use crate::frames::{BROADCAST, Guest, Mac, arp, echo, ethernet, ipv4};
use crate::namespace::Namespace;
use crate::world::{World, mac, network, open, port, vxlan};
use netd_api::{Network, Port, Uplink};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use types::SiteName;

const PING_INTERVAL: Duration = Duration::from_millis(10);
const OUTAGE_MAX: Duration = Duration::from_millis(100);
const MOVES: usize = 4;

/// A switch with a host at each of its first ports, which have one network in common, and a machine that is nobody's.
struct Site {
    _switch: Namespace,
    hosts: [World; 3],
}

fn site(link: &str, prepare: impl Fn(&mut World, u8) -> Network) -> Site {
    // Only guests speak.
    let silent = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6";
    let switch = Namespace::new();
    switch.shell(silent);
    switch.shell("ip link add lan type bridge && ip link set lan up");
    // A switch looks at no IP header; ours have no checksum.
    switch.shell("echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables");
    let hosts = [1, 2, 3].map(|number| {
        let mut world = World::new();
        world.namespace.shell(silent);
        world.namespace.cable(link, &switch, &format!("p{number}"));
        switch.shell(&format!("ip link set p{number} master lan"));
        let network = prepare(&mut world, number);
        world.desired.networks = vec![network];
        world
    });
    Site { _switch: switch, hosts }
}

fn over_tunnels() -> Site {
    site("eth0", |world, number| {
        let address = |n: u8| format!("192.0.2.{n}");
        world.namespace.shell(&format!("ip addr add {}/24 dev eth0", address(number)));
        world.host.underlay = Some(address(number).parse().unwrap());
        let others: Vec<String> = (1..=3).filter(|n| *n != number).map(address).collect();
        network("cb1", vxlan(7, &others.iter().map(String::as_str).collect::<Vec<_>>()), vec![])
    })
}

fn over_a_lan() -> Site {
    site("eth1", |world, _| {
        let lab = SiteName::new("lab").unwrap();
        world.host.uplinks = [(lab.clone(), "eth1".to_owned())].into();
        Network { mtu: 1500, ..network("cb1", Uplink::Site { site: lab }, vec![]) }
    })
}

/// Answers echo requests, and says nothing of its own accord.
struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    fn start(guest: Guest) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                guest.wait(Duration::from_millis(1));
                while let Some(frame) = guest.take() {
                    if frame[12..14] == [8, 0] && frame[34] == 8 {
                        let mut reply = answer(frame[41]);
                        reply[40] = frame[40];
                        guest.send(&reply);
                    }
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn numbered(mut message: Vec<u8>, number: u8) -> Vec<u8> {
    message[7] = number;
    message
}

fn question(number: u8) -> Vec<u8> {
    ipv4(mac(1), mac(3), "10.0.0.3", "10.0.0.1", 1, &numbered(echo(8), number))
}

fn answer(number: u8) -> Vec<u8> {
    ipv4(mac(3), mac(1), "10.0.0.1", "10.0.0.3", 1, &numbered(echo(0), number))
}

/// Asks until it is answered; how long that took.
fn ask(pinger: &Guest, longest: Duration) -> Option<Duration> {
    let begin = Instant::now();
    while pinger.take().is_some() {}
    let mut number = 0u8;
    while begin.elapsed() < longest {
        number = number.wrapping_add(1);
        pinger.send(&question(number));
        let next = Instant::now() + PING_INTERVAL;
        while let Some(rest) = next.checked_duration_since(Instant::now()) {
            pinger.wait(rest.max(Duration::from_millis(1)));
            while let Some(frame) = pinger.take() {
                if frame == answer(frame[41]) {
                    return Some(begin.elapsed());
                }
            }
        }
    }
    None
}

fn moving(held: bool) -> Port {
    Port { held, ..port(1, open()) }
}

fn open_held(world: &World) -> std::fs::File {
    world.namespace.run(|_, _| netd_kernel::open_tap("ct1")).unwrap()
}

#[expect(clippy::print_stdout, reason = "what was measured")]
fn check_moves(kind: &str, mut site: Site) {
    let [first, second, third] = &mut site.hosts;
    first.desired.networks[0].ports = vec![moving(false)];
    third.desired.networks[0].ports = vec![port(3, open())];
    for host in [&*first, &*second, &*third] {
        host.converge();
    }
    let pinger = third.guest("ct3");
    let mut here = Responder::start(first.guest("ct1"));
    // The guest has been heard of where it is.
    ask(&pinger, Duration::from_secs(5)).expect("the guest does not answer at all");
    let mut outages = Vec::new();
    for turn in 0..MOVES {
        let (from, to) =
            if turn % 2 == 0 { (&mut *first, &mut *second) } else { (&mut *second, &mut *first) };
        to.desired.networks[0].ports = vec![moving(true)];
        to.converge();
        assert!(to.port("ct1").ready);
        let mut tap = open_held(to);
        // A monitor may announce early: nothing of it leaves, and the guest is still reached where it is.
        let early = arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.1"));
        assert!(tap.write(&[vec![0; 10], early.clone()].concat()).is_err(), "a held port took a frame");
        ask(&pinger, Duration::from_secs(1)).expect("the guest was lost before it moved");
        // It stops there and goes on here.
        drop(here);
        to.desired.networks[0].ports = vec![moving(false)];
        let begin = Instant::now();
        to.converge();
        let applied = begin.elapsed();
        here = Responder::start(Guest::new(tap));
        let outage = ask(&pinger, Duration::from_secs(5)).expect("nobody was told where the guest is");
        outages.push((applied + outage, outage));
        from.desired.networks[0].ports.clear();
        from.converge();
    }
    println!("moved over {kind}: (hand-over and outage, outage after it) {outages:?}");
    let best = outages.iter().map(|(whole, _)| *whole).min().unwrap();
    assert!(best <= OUTAGE_MAX, "{outages:?}");
    drop(here);
}

#[test]
fn a_guest_that_moved_to_another_host_answers_at_once_over_tunnels() {
    check_moves("tunnels", over_tunnels());
}

#[test]
fn a_guest_that_moved_to_another_host_answers_at_once_over_the_sites_lan() {
    check_moves("a LAN", over_a_lan());
}

#[test]
fn a_held_port_passes_nothing_in_either_direction() {
    let mut world = World::with(vec![network("cb1", Uplink::None, vec![moving(true), port(2, open())])]);
    let (mut tap, two) = (open_held(&world), world.guest("ct2"));
    let hello = arp(1, BROADCAST, (mac(2), "10.0.0.2"), ([0; 6], "10.0.0.1"));
    two.send(&hello);
    assert!(tap.write(&[vec![0; 10], ethernet(mac(2), mac(1), 0x0806, b"x")].concat()).is_err());
    let one = Guest::new(tap);
    assert_eq!((one.take(), two.take()), (None, None));
    let status = world.port("ct1");
    assert!(status.ready && status.carrier, "{status:?}");
    let link = world.observe().links["ct1"].clone();
    assert_eq!((link.up, link.master), (false, None));
    world.desired.networks[0].ports[0].held = false;
    world.converge();
    two.send(&hello);
    assert_eq!(one.wait_for(&hello), Vec::<Vec<u8>>::new());
    // And back: a migration that is given up.
    world.desired.networks[0].ports[0].held = true;
    world.converge();
    two.send(&hello);
    assert_eq!(one.take(), None);
}

#[test]
fn a_guest_says_itself_that_it_has_moved_and_no_other_guest_is_bothered() {
    let mut site = over_a_lan();
    site.hosts[0].desired.networks[0].ports = vec![moving(false), port(2, open())];
    site.hosts[0].converge();
    let world = &site.hosts[0];
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    let reverse = |operation: u8, from: Mac| {
        let payload = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &from, &[0; 4], &from, &[0; 4]].concat();
        ethernet(BROADCAST, from, 0x8035, &payload)
    };
    one.send(&reverse(3, mac(1)));
    one.send(&reverse(4, mac(1)));
    one.send(&reverse(3, mac(9)));
    let status = world.port("ct1");
    assert_eq!((status.from_guest.frames, status.dropped_from_guest.frames), (1, 1), "{status:?}");
    assert_eq!(status.dropped_spoofed.frames, 1);
    assert_eq!(two.take(), None);
}

#[test]
fn a_guest_that_moves_to_another_network_is_announced_there() {
    let mut site = over_tunnels();
    let [first, second, _] = &mut site.hosts;
    first.desired.networks[0].ports = vec![moving(false)];
    first.converge();
    let _one = first.guest("ct1");
    second.desired.networks = vec![network("cb2", vxlan(8, &["192.0.2.1"]), vec![port(4, open())])];
    second.converge();
    let four = second.guest("ct4");
    let mut other = network("cb2", vxlan(8, &["192.0.2.2"]), vec![moving(false)]);
    other.id = "office/other".to_owned();
    first.desired.networks[0].ports.clear();
    first.desired.networks.push(other);
    first.converge();
    four.wait_for(&arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.1")));
    let learned = second.namespace.shell("bridge fdb show br cb2");
    assert!(learned.contains("02:00:00:00:00:01 dev cx8"), "{learned}");
    let here = first.namespace.shell("bridge fdb show br cb2");
    assert!(here.contains("02:00:00:00:00:01 dev ct1"), "{here}");
}

#[test]
fn stopped_before_it_was_announced_a_guest_is_announced_later() {
    let mut site = over_tunnels();
    let [first, second, _] = &mut site.hosts;
    second.desired.networks[0].ports = vec![port(2, open())];
    second.converge();
    let two = second.guest("ct2");
    first.desired.networks[0].ports = vec![moving(true)];
    first.converge();
    let _tap = open_held(first);
    first.desired.networks[0].ports = vec![moving(false)];
    let mut part = first.plan();
    assert!(part.steps.pop().unwrap().to_string().starts_with("announce"));
    first.apply(part);
    first.converge();
    two.wait_for(&arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.1")));
}
