//! Frames that are none, or none a guest may send: too long, too short, tagged, with lying lengths.

use crate::frames::{BROADCAST, Guest, Mac, arp, echo, ethernet, ipv4, ipv6, neighbour, tagged, tcp, udp};
use crate::world::{World, mac, network, open, port};
use netd_api::Uplink;

const FRAMES: u32 = 100_000;
/// Largest frame of the network: its MTU, the header, and the tag that a bridge always leaves room for.
const FRAME_BYTES_MAX: usize = 1450 + 14 + 4;

/// xorshift64*: small, and the same frames for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next()).unwrap_or_default() % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// What a guest might well send.
fn honest(random: &mut Random) -> Vec<u8> {
    let to: Mac = random.pick(&[
        BROADCAST,
        mac(1),
        mac(2),
        mac(2),
        mac(2),
        mac(9),
        [1, 0, 0x5e, 0, 0, 1],
        [0x33, 0x33, 0, 0, 0, 1],
    ]);
    let from: Mac = random.pick(&[mac(1), mac(1), mac(1), mac(1), mac(2), mac(77), BROADCAST]);
    let source = random.pick(&[
        "10.0.0.1",
        "10.0.0.1",
        "10.0.0.1",
        "10.0.0.1",
        "10.0.0.2",
        "203.0.113.1",
        "0.0.0.0",
        "127.0.0.1",
    ]);
    let other = random.pick(&["10.0.0.2", "10.0.0.1", "255.255.255.255", "224.0.0.251", "10.0.0.77"]);
    let source6 = random.pick(&["fd00::1", "fd00::1", "fd00::1", "fd00::2", "::", "fe80::1", "::1"]);
    let other6 = random.pick(&["fd00::2", "ff02::1", "fd00::77", "fe80::2"]);
    let flags = random.next().to_le_bytes()[0];
    match random.below(9) {
        0 => arp(random.pick(&[0, 1, 2, 9]), to, (from, source), (mac(2), other)),
        1 => ipv4(to, from, source, other, 6, &tcp(9, 80, flags)),
        2 => ipv4(to, from, source, other, 17, &udp(random.pick(&[68, 67, 9]), random.pick(&[67, 68, 53]))),
        3 => ipv4(to, from, source, other, 1, &echo(random.pick(&[0, 5, 8, 13]))),
        4 => ipv6(to, from, source6, other6, 58, &neighbour(random.pick(&[133, 134, 135, 136, 137]), other6)),
        5 => ipv6(to, from, source6, other6, 6, &tcp(9, 80, flags)),
        6 => ipv6(to, from, source6, other6, random.pick(&[0, 43, 44, 60, 59]), &random.bytes(24)),
        7 => ethernet(
            to,
            from,
            random.pick(&[0x0800, 0x0806, 0x86dd, 0x88cc, 0x888e, 0x0042, 0x8864]),
            &random.bytes(50),
        ),
        _ => ipv4(to, from, source, other, random.pick(&[2, 4, 41, 47, 89, 132]), &random.bytes(30)),
    }
}

fn double_tagged(frame: &[u8]) -> Vec<u8> {
    let mut frame = tagged(&tagged(frame, 5), 6);
    frame[12..14].copy_from_slice(&[0x88, 0xa8]);
    frame
}

/// The same, made worse in one way or none.
fn hostile(random: &mut Random) -> Vec<u8> {
    let mut frame = honest(random);
    match random.below(8) {
        0 => frame.truncate(14 + random.below(frame.len() - 14)),
        1 => frame.extend(random.bytes(1451).into_iter().cycle().take(FRAME_BYTES_MAX + random.below(8000))),
        2 => frame = tagged(&frame, random.pick(&[0, 1, 100, 4095, 0xe001])),
        3 => {
            frame = tagged(&frame, 7);
            frame[12..14].copy_from_slice(&random.pick(&[[0x88, 0xa8], [0x91, 0], [0x92, 0]]));
        }
        4 => frame = double_tagged(&frame),
        // Version and header length, total or payload length.
        5 => frame[14] = random.next().to_le_bytes()[0],
        6 => frame[random.pick(&[16, 17, 18, 19])] = random.next().to_le_bytes()[0],
        _ => {}
    }
    frame
}

/// What a guest may see of another one: `reason` if this is not.
fn unsound(frame: &[u8]) -> Option<&'static str> {
    let number = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if frame.len() > FRAME_BYTES_MAX {
        return Some("is too long");
    }
    if frame[6..12] != mac(1) {
        return Some("has a stolen MAC address");
    }
    match number(12) {
        0x0806 if frame.len() < 42 => Some("is a short ARP"),
        0x0806 if frame[22..28] != mac(1) => Some("claims another's MAC address"),
        0x0806 if ![[10, 0, 0, 1], [0; 4]].contains(&[frame[28], frame[29], frame[30], frame[31]]) => {
            Some("claims another's address")
        }
        0x0806 => None,
        0x0800 if frame.len() < 34 || frame[14] >> 4 != 4 || frame[14] & 15 < 5 => Some("is no IPv4"),
        0x0800 if number(16) > frame.len() - 14 || number(16) < usize::from(frame[14] & 15) * 4 => {
            Some("lies about its length")
        }
        0x0800 if ![[10, 0, 0, 1], [0; 4]].contains(&[frame[26], frame[27], frame[28], frame[29]]) => {
            Some("has a stolen address")
        }
        0x0800 => None,
        0x86dd if frame.len() < 54 || frame[14] >> 4 != 6 => Some("is no IPv6"),
        0x86dd if number(18) + 40 > frame.len() - 14 => Some("lies about its length"),
        0x86dd => None,
        _ => Some("is of a type that nobody may send"),
    }
}

#[test]
fn hostile_frames_come_out_nowhere() {
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    let seed = std::env::var("HOSTILE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(seed);
    println!("HOSTILE_SEED={seed}");
    let twin = |bridge: &str, first: u8| {
        let ports = [first, first + 1].map(|number| {
            let mut port = port(number, open());
            let twin = (number - 1) % 2 + 1;
            port.mac.0 = mac(twin);
            port.addresses =
                vec![format!("10.0.0.{twin}").parse().unwrap(), format!("fd00::{twin}").parse().unwrap()];
            port
        });
        network(bridge, Uplink::None, ports.to_vec())
    };
    let world = World::with(vec![twin("cb1", 1), twin("cb2", 3)]);
    world.namespace.shell("ip link set lo up && ip addr add 10.0.0.77/24 dev cb1");
    let guests: Vec<Guest> = (1..=4).map(|n| world.guest(&format!("ct{n}"))).collect();
    let mut random = Random(seed);
    let (mut heard, mut shown) = (0, Vec::new());
    for _ in 0..FRAMES {
        let frame = hostile(&mut random);
        guests[0].send_anything(&frame);
        while let Some(got) = guests[1].take() {
            heard += 1;
            if let Some(reason) = unsound(&got) {
                shown.push(format!("{reason}: {:02x?}", &got[..got.len().min(80)]));
            }
        }
    }
    let leaks = guests[2..].iter().filter_map(Guest::take).count();
    println!("{FRAMES} frames, {heard} passed to the neighbour, {} unsound, {leaks} leaked", shown.len());
    shown.truncate(5);
    assert_eq!(shown, Vec::<String>::new());
    assert_eq!(leaks, 0);
    assert_eq!(world.port("ct3").to_guest.frames + world.port("ct4").to_guest.frames, 0);
    assert_eq!(guests[0].take(), None);
    assert!(heard > 1000, "only {heard} frames passed: the test sends too little that is sound");
}
