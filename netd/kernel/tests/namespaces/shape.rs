use crate::frames::{SYN, ipv4, tcp, udp};
use crate::machine::Machine;
use crate::world::{World, mac, network, open, port};
use netd_api::{Mirror, MirrorFrom, MirrorTo, Rate, Uplink, Watcher};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const LIMIT_BITS: u64 = 20_000_000;
const TRIES: u32 = 5;
/// Frames that carry a stream's bytes carry headers besides: 54 bytes in 1,464.
const HEADERS_SHARE: f64 = 54.0 / 1464.0;

fn limited(rate: Option<Rate>) -> World {
    let mut one = port(1, open());
    one.rate = rate;
    World::with(vec![
        network("cb1", Uplink::None, vec![one, port(2, open())]),
        network("cb2", Uplink::None, vec![port(3, open())]),
    ])
}

fn from_guest(bits: u64) -> Option<Rate> {
    Some(Rate { from_guest_bits: Some(bits), to_guest_bits: None })
}

/// Bits/s of frames that a stream from one machine to the other makes, once it has found its pace.
fn pace(from: &Machine, to: &Machine, address: &'static str) -> f64 {
    const WARM_UP: Duration = Duration::from_millis(700);
    const MEASURED: Duration = Duration::from_millis(2000);
    let (ready, listening) = std::sync::mpsc::channel();
    let receiver = to.spawn(move || {
        let listener = TcpListener::bind((address, 0)).unwrap();
        ready.send(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let (mut buffer, mut bytes, begin) = (vec![0; 1 << 16], 0u64, Instant::now());
        let mut measured = None;
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            bytes += length as u64;
            if begin.elapsed() < WARM_UP {
                continue;
            }
            let (since, before) = *measured.get_or_insert((Instant::now(), bytes));
            if since.elapsed() > MEASURED {
                return (bytes - before) as f64 * 8.0 / since.elapsed().as_secs_f64();
            }
        }
        panic!("the stream ended early");
    });
    let address = listening.recv().unwrap();
    let sender = from.spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        while stream.write_all(&[7; 1 << 14]).is_ok() {}
    });
    let payload = receiver.join().unwrap();
    let _ = sender.join();
    payload / (1.0 - HEADERS_SHARE)
}

fn machines(world: &World) -> (Machine, Machine) {
    (Machine::new(world, "ct1", mac(1), "10.0.0.1/24"), Machine::new(world, "ct2", mac(2), "10.0.0.2/24"))
}

#[test]
fn a_port_gets_what_its_limit_says_in_both_directions() {
    let rate = Rate { from_guest_bits: Some(LIMIT_BITS), to_guest_bits: Some(2 * LIMIT_BITS) };
    let mut world = limited(Some(rate));
    let (one, two) = machines(&world);
    // A stream on a busy machine may be slower than its limit, but never faster.
    let check = |from: &Machine, to: &Machine, address, limit: u64, what: &str| {
        let share = (0..TRIES).map(|_| pace(from, to, address) / limit as f64).find(|share| *share > 0.9);
        let share = share.unwrap_or_default();
        println!("{what} the guest: {share:.3} of {} Mbit/s", limit / 1_000_000);
        assert!((0.9..1.1).contains(&share), "{what} the guest: {share:.2} of the limit");
    };
    check(&one, &two, "10.0.0.2", LIMIT_BITS, "from");
    check(&two, &one, "10.0.0.1", 2 * LIMIT_BITS, "to");
    // Changed, with the port left as it is.
    let before = world.namespace.shell("ip -o link show dev ct1");
    world.desired.networks[0].ports[0].rate = from_guest(2 * LIMIT_BITS);
    world.converge();
    check(&one, &two, "10.0.0.2", 2 * LIMIT_BITS, "from");
    world.desired.networks[0].ports[0].rate = None;
    world.converge();
    let plain = |line: &str| line.split(" qdisc ").next().unwrap().to_owned();
    assert_eq!(plain(&world.namespace.shell("ip -o link show dev ct1")), plain(&before));
    let free = [pace(&one, &two, "10.0.0.2"), pace(&two, &one, "10.0.0.1")];
    println!("without limits: {:.0} and {:.0} Mbit/s", free[0] / 1e6, free[1] / 1e6);
    assert!(free.iter().all(|bits| *bits > 3.0 * LIMIT_BITS as f64), "{free:?}");
    assert_eq!(world.observe().links.keys().filter(|name| name.starts_with("ci")).count(), 0);
    assert_eq!(world.namespace.shell("nft list tables netdev"), "");
}

#[test]
fn the_rules_hold_for_a_limited_port() {
    let world = limited(Some(Rate { from_guest_bits: Some(LIMIT_BITS), to_guest_bits: Some(LIMIT_BITS) }));
    let (one, two, three) = (world.guest("ct1"), world.guest("ct2"), world.guest("ct3"));
    let own = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(1, 80, SYN));
    for stolen in [
        ipv4(mac(2), mac(9), "10.0.0.1", "10.0.0.2", 17, &udp(1, 2)),
        ipv4(mac(2), mac(1), "10.0.0.9", "10.0.0.2", 17, &udp(1, 2)),
        ipv4(mac(3), mac(1), "10.0.0.2", "10.0.0.3", 17, &udp(1, 2)),
    ] {
        one.send(&stolen);
    }
    one.send(&own);
    assert_eq!(two.wait_for(&own), Vec::<Vec<u8>>::new());
    let back = ipv4(mac(1), mac(2), "10.0.0.2", "10.0.0.1", 6, &tcp(80, 1, SYN));
    two.send(&back);
    assert_eq!(one.wait_for(&back), Vec::<Vec<u8>>::new());
    assert_eq!(three.take(), None);
    let port = world.port("ct1");
    assert_eq!((port.dropped_spoofed.frames, port.from_guest.frames, port.to_guest.frames), (3, 1, 1));
}

#[test]
fn a_limited_port_can_be_watched() {
    let mut world = limited(from_guest(LIMIT_BITS));
    world.desired.watchers = vec![Watcher { id: "office/w/eth0".into(), tap: "ctw1".into(), mtu: 1450 }];
    world.desired.mirrors = vec![Mirror {
        id: "office/w/eth0".into(),
        from: MirrorFrom::Port { tap: "ct1".into() },
        to: MirrorTo::Watcher { tap: "ctw1".into() },
    }];
    world.converge();
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    let watching = world.watching("ctw1");
    let (there, back) = (
        ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(1, 80, SYN)),
        ipv4(mac(1), mac(2), "10.0.0.2", "10.0.0.1", 6, &tcp(80, 1, SYN)),
    );
    one.send(&there);
    two.wait_for(&there);
    assert_eq!(watching.wait_for(&there), Vec::<Vec<u8>>::new());
    two.send(&back);
    one.wait_for(&back);
    assert_eq!(watching.wait_for(&back), Vec::<Vec<u8>>::new());
    assert_eq!(watching.take(), None);
}

#[test]
fn drift_of_a_limit_is_repaired() {
    let world = limited(Some(Rate { from_guest_bits: Some(LIMIT_BITS), to_guest_bits: Some(LIMIT_BITS) }));
    for damage in [
        "tc qdisc del dev ct1 root",
        "tc qdisc change dev ct1 root tbf rate 1mbit burst 10k latency 50ms",
        "tc qdisc del dev ci1 root",
        "ip link set ci1 down",
        "ip link del ci1",
        "nft flush chain netdev collective in_ct1",
        "nft delete table netdev collective",
    ] {
        world.namespace.shell(damage);
        assert_ne!(world.plan().steps, vec![], "{damage} is not seen");
        world.converge();
        let (one, two) = (world.guest("ct1"), world.guest("ct2"));
        let own = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(1, 80, SYN));
        one.send(&own);
        two.wait_for(&own);
    }
}

#[test]
fn limits_of_every_size_are_taken_and_told_back() {
    for bits in [64_000, 1_000_000, 4_294_967_296, 40_000_000_000, 100_000_000_000] {
        limited(Some(Rate { from_guest_bits: Some(bits), to_guest_bits: Some(bits) }));
    }
}

#[test]
fn a_limit_that_cannot_be_set_leaves_the_port_working_and_is_told() {
    let mut world = limited(None);
    // Somebody else's link has the shaper's name.
    world.namespace.shell("ip link add ci1 type ifb");
    world.desired.networks[0].ports[0].rate = from_guest(LIMIT_BITS);
    let plan = world.plan();
    assert!(plan.refusals.iter().any(|text| text.contains("ci1")), "{:?}", plan.refusals);
    world.apply(plan);
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    let own = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(1, 80, SYN));
    one.send(&own);
    two.wait_for(&own);
    assert_eq!(world.plan().steps, vec![]);
}
