//! Corner cases of requests and replies, from the specification.

use crate::support::*;
use std::io::Write as _;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const STATUS: u16 = 7;

const FUA: u16 = 1;
const DF: u16 = 1 << 2;
const ONE: u16 = 1 << 3;

const EPERM: u32 = 1;
const EINVAL: u32 = 22;

/// Of a structured reply.
const DONE: u16 = 1;
const DATA: u16 = 1;
const HOLE: u16 = 2;
const BLOCKS: u16 = 5;
const ERROR: u16 = 1 << 15 | 1;

const MIB_32: u32 = 32 << 20;

#[test]
fn what_cannot_be_is_refused_and_the_next_request_is_heard() {
    let cases = [
        ("nothing", 0, READ, 0, 0, EINVAL),
        ("nothing at the end", 0, READ, SIZE, 0, EINVAL),
        ("one byte behind the end", 0, READ, SIZE, 1, EINVAL),
        ("one byte too many", 0, READ, SIZE - 10, 11, EINVAL),
        ("an offset that overflows", 0, READ, u64::MAX, 1, EINVAL),
        ("an end that overflows", 0, READ, u64::MAX - 10, 11, EINVAL),
        ("all there is at once", 0, READ, 0, u32::MAX, EINVAL),
        ("a flag that is none", 1 << 9, READ, 0, 512, EINVAL),
        ("only one extent of a read", ONE, READ, 0, 512, EINVAL),
        ("a flush", 0, 3, 0, 0, EINVAL),
        ("a trim", 0, 4, 0, 512, EPERM),
        ("a cache", 0, 5, 0, 512, EINVAL),
        ("zeroes", 0, 6, 0, 512, EPERM),
        ("zeroes, now and fast", FUA | 1 << 4, 6, 0, 4 << 20, EPERM),
        ("a resize", 0, 8, 0, 512, EINVAL),
        ("no command", 0, 0xffff, 0, 512, EINVAL),
        ("status of nothing", 0, STATUS, 0, 0, EINVAL),
        ("status behind the end", 0, STATUS, SIZE - 1, 2, EINVAL),
        ("status that overflows", 0, STATUS, u64::MAX, u32::MAX, EINVAL),
        ("status unfragmented", DF, STATUS, 0, 512, EINVAL),
    ];
    let rig = Rig::of(&Disk::new([]));
    let (mut simple, mut rich) = (rig.reading("disk", false), rig.reading("disk", true));
    for (cookie, (what, flags, command, offset, length, code)) in (1u64..).zip(cases) {
        simple.request(flags, command, cookie, offset, length);
        assert_eq!(simple.simple(), (code, cookie), "{what}");
        rich.request(flags, command, cookie, offset, length);
        let payload = [&code.to_be_bytes()[..], &[0, 0]].concat();
        assert_eq!(rich.chunk(), (DONE, ERROR, cookie, payload), "{what}");
    }
    simple.request(DF, READ, 7, 0, 512);
    assert_eq!(simple.simple(), (EINVAL, 7), "unfragmented without fragments");
    simple.request(0, STATUS, 8, 0, 512);
    assert_eq!(simple.simple(), (EINVAL, 8), "status without contexts");
    simple.request(0, READ, u64::MAX, SIZE - 1, 1);
    assert_eq!((simple.simple(), simple.take(1)), ((0, u64::MAX), content(SIZE - 1, 1)));
}

#[test]
fn any_read_that_fits_is_right() {
    let rig = Rig::of(&Disk::new([]));
    let mut client = rig.reading("disk", false);
    let reads =
        [(0, 1), (511, 2), (1, 4096), (PIECE - 1, 2), (3, SIZE - 3), (0, SIZE), (3 * PIECE, 2 * PIECE)];
    for (offset, length) in reads {
        client.request(FUA, READ, offset, offset, u32::try_from(length).unwrap());
        assert_eq!(client.simple(), (0, offset));
        assert!(
            client.take(usize::try_from(length).unwrap()) == content(offset, length),
            "{length} at {offset}"
        );
    }
}

#[test]
fn the_largest_read_is_served_and_one_larger_is_not() {
    let mut disk = Disk::new([]);
    disk.size = 64 << 20;
    let rig = Rig::of(&disk);
    let mut client = rig.reading("disk", false);
    client.request(0, READ, 1, 5, MIB_32);
    assert_eq!(client.simple(), (0, 1));
    let bytes = client.take(MIB_32 as usize);
    assert!(bytes == content(5, MIB_32.into()));
    client.request(0, READ, 2, 0, MIB_32 + 1);
    assert_eq!(client.simple(), (EINVAL, 2));
}

#[test]
fn a_write_is_refused_and_its_bytes_are_not_taken_for_requests() {
    let rig = Rig::of(&Disk::new([]));
    let mut client = rig.reading("disk", false);
    let payload = request(0, DISCONNECT, 0, 0, 0).repeat(1 << 15);
    client.request(0, WRITE, 1, 0, u32::try_from(payload.len()).unwrap());
    for part in payload.chunks(10_007) {
        client.send(part);
    }
    client.request(0, READ, 2, 9, 2);
    assert_eq!(client.simple(), (EPERM, 1));
    assert_eq!((client.simple(), client.take(2)), ((0, 2), content(9, 2)));
}

#[test]
fn nonsense_drops_the_client() {
    let rig = Rig::of(&Disk::new([]));
    let cases = [
        ("a wrong magic", vec![0x25; 28]),
        ("a write of 4 GiB", request(0, WRITE, 1, 0, u32::MAX)),
        ("a write a byte too large", request(0, WRITE, 1, 0, MIB_32 + 1)),
    ];
    for (what, bytes) in cases {
        let mut client = rig.reading("disk", true);
        client.send(&bytes);
        assert!(client.is_dropped(), "{what}");
    }
}

#[test]
fn requests_may_come_in_drops_and_in_floods() {
    let rig = Rig::of(&Disk::new([]));
    let mut client = rig.reading("disk", false);
    for byte in request(0, READ, 1, 100, 100) {
        client.send(&[byte]);
    }
    assert_eq!((client.simple(), client.take(100)), ((0, 1), content(100, 100)));
    let flood: Vec<u8> = (0..5000u64).flat_map(|cookie| request(0, READ, cookie, cookie * 11, 700)).collect();
    let mut sender = client.0.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&flood).unwrap());
    for cookie in 0..5000 {
        assert_eq!((client.simple(), client.take(700)), ((0, cookie), content(cookie * 11, 700)));
    }
    sending.join().unwrap();
}

/// Bytes of a structured reply to a read, put together, and the ranges that came as holes.
fn assembled(client: &mut Client, cookie: u64, offset: u64, length: usize) -> (Vec<u8>, Vec<(u64, u64)>) {
    let (mut bytes, mut holes, mut covered) = (vec![0xee; length], Vec::new(), 0);
    loop {
        let (flags, kind, of, payload) = client.chunk();
        assert_eq!(of, cookie);
        let at = u64::from_be_bytes(payload[..8].try_into().unwrap());
        let begin = usize::try_from(at - offset).unwrap();
        let data = match kind {
            DATA => payload[8..].to_vec(),
            HOLE => {
                let length = u32::from_be_bytes(payload[8..].try_into().unwrap());
                holes.push((at, u64::from(length)));
                vec![0; length as usize]
            }
            _ => panic!("chunk of kind {kind}"),
        };
        bytes[begin..begin + data.len()].copy_from_slice(&data);
        covered += data.len();
        if flags & DONE != 0 {
            assert_eq!(covered, length);
            return (bytes, holes);
        }
    }
}

#[test]
fn zero_pieces_are_holes_unless_the_client_wants_one_fragment() {
    let disk = Disk::new([6]);
    let rig = Rig::of(&disk);
    let mut client = rig.reading("disk", true);
    for waits in [false, true] {
        let pieces = if waits { 6 } else { 3 };
        let length = pieces * PIECE;
        client.request(0, READ, 1, 2 * PIECE + 7, u32::try_from(length).unwrap());
        if waits {
            eventually("the read waits", || disk.waiting() == 1);
            disk.bring(6);
        }
        let (bytes, holes) = assembled(&mut client, 1, 2 * PIECE + 7, usize::try_from(length).unwrap());
        assert!(bytes == content(2 * PIECE + 7, length));
        assert_eq!(holes, [(3 * PIECE, 2 * PIECE)]);
    }
    client.request(DF, READ, 2, 2 * PIECE, u32::try_from(2 * PIECE).unwrap());
    let (flags, kind, _, payload) = client.chunk();
    assert_eq!((flags, kind), (DONE, DATA));
    assert!(payload[8..] == content(2 * PIECE, 2 * PIECE));
}

#[test]
fn block_status_tells_zero_pieces_from_others() {
    let rig = Rig::of(&Disk::new([0, 1, 2]));
    let mut client = rig.reading("disk", true);
    let mut status = |flags, offset: u64, length: u64| -> Vec<(u64, u32)> {
        client.request(flags, STATUS, 3, offset, u32::try_from(length).unwrap());
        let (flags, kind, _, payload) = client.chunk();
        assert_eq!((flags, kind, &payload[..4]), (DONE, BLOCKS, &1u32.to_be_bytes()[..]));
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        payload[4..].chunks(8).map(|pair| (number(&pair[..4]).into(), number(&pair[4..]))).collect()
    };
    let all = [(3 * PIECE, 0), (2 * PIECE, 3), (4 * PIECE, 0), (PIECE, 3), (SIZE - 10 * PIECE, 0)];
    assert_eq!(status(0, 0, SIZE), all);
    assert_eq!(status(ONE, 0, SIZE), all[..1]);
    assert_eq!(status(ONE | FUA, 3 * PIECE + 1, PIECE), [(PIECE, 3)]);
    assert_eq!(status(0, SIZE - 1, 1), [(1, 0)]);
}

#[test]
fn only_the_read_that_waits_waits() {
    for structured in [false, true] {
        let disk = Disk::new([0]);
        let rig = Rig::of(&disk);
        let mut client = rig.reading("disk", structured);
        client.request(DF * u16::from(structured), READ, 1, 0, 512);
        for cookie in 2..50 {
            client.request(DF * u16::from(structured), READ, cookie, PIECE + cookie, 1);
            let answered = if structured { client.chunk().2 } else { client.simple().1 };
            assert_eq!(answered, cookie);
            if !structured {
                assert_eq!(client.take(1), content(PIECE + cookie, 1));
            }
        }
        eventually("it waits", || disk.waiting() == 1);
        disk.bring(0);
        let answered = if structured { client.chunk().2 } else { client.simple().1 };
        assert_eq!(answered, 1);
    }
}

#[test]
fn reads_of_one_client_do_not_stop_another() {
    let disk = Disk::new([7]);
    let rig = Rig::of(&disk);
    let (mut waits, mut reads) = (rig.reading("disk", false), rig.reading("disk", false));
    waits.request(0, READ, 1, 7 * PIECE, 1);
    eventually("it waits", || disk.waiting() == 1);
    reads.request(0, READ, 2, 0, 1);
    assert_eq!((reads.simple(), reads.take(1)), ((0, 2), content(0, 1)));
    disk.bring(7);
    assert_eq!((waits.simple(), waits.take(1)), ((0, 1), content(7 * PIECE, 1)));
}

#[test]
fn waiting_reads_are_bounded_and_all_are_answered() {
    let disk = Disk::new([1]);
    let rig = Rig::of(&disk);
    let mut client = rig.reading("disk", false);
    for cookie in 0..300 {
        client.request(0, READ, cookie, PIECE + cookie, 1);
    }
    eventually("as many wait as may", || disk.waiting() == 128);
    // What is behind them is taken when they are answered, and no sooner.
    client.request(0, READ, 300, 0, 1);
    disk.bring(1);
    let mut seen: Vec<u64> = (0..=300)
        .map(|_| {
            let (code, cookie) = client.simple();
            let at = if cookie == 300 { 0 } else { PIECE + cookie };
            assert_eq!((code, client.take(1)), (0, content(at, 1)));
            cookie
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..=300).collect::<Vec<_>>());
}

#[test]
fn bytes_of_waiting_reads_are_bounded() {
    let mut disk = Disk::new([1]);
    disk.size = 64 << 20;
    let rig = Rig::of(&disk);
    let mut client = rig.reading("disk", false);
    for cookie in 0..6 {
        client.request(0, READ, cookie, 0, MIB_32);
    }
    client.request(0, READ, 6, 0, 1);
    eventually("four of 32 MiB wait", || disk.waiting() == 4);
    client.request(0, READ, 7, 0, 1);
    disk.bring(1);
    for _ in 0..8 {
        let (code, cookie) = client.simple();
        assert_eq!(code, 0);
        client.take(if cookie < 6 { MIB_32 as usize } else { 1 });
    }
}

#[test]
fn a_client_that_leaves_stops_waiting() {
    for (what, waiting) in [("a few reads", 3), ("more than may wait", 200)] {
        let disk = Disk::new([1]);
        let rig = Rig::of(&disk);
        let mut client = rig.reading("disk/gone", true);
        for cookie in 0..waiting {
            client.request(0, READ, cookie, PIECE, 512);
        }
        eventually("they wait", || disk.waiting() == usize::try_from(waiting.min(128)).unwrap());
        drop(client);
        eventually(what, || disk.waiting() == 0 && disk.faces() == 2);
    }
}

#[test]
fn a_client_that_disconnects_gets_what_it_asked_for() {
    let disk = Disk::new([1]);
    let rig = Rig::of(&disk);
    let mut client = rig.reading("disk", false);
    client.request(0, READ, 1, PIECE, 5);
    client.request(0, DISCONNECT, 2, 0, 0);
    eventually("the read waits", || disk.waiting() == 1);
    disk.bring(1);
    assert_eq!((client.simple(), client.take(5)), ((0, 1), content(PIECE, 5)));
    assert!(client.is_dropped());
}

#[test]
fn a_client_that_disconnects_and_leaves_is_not_waited_for() {
    let disk = Disk::new([1]);
    let rig = Rig::of(&disk);
    let mut client = rig.reading("disk", false);
    client.request(0, READ, 1, PIECE, 5);
    client.request(0, DISCONNECT, 2, 0, 0);
    eventually("the read waits", || disk.waiting() == 1);
    drop(client);
    eventually("nobody waits", || disk.waiting() == 0 && disk.faces() == 2);
}

#[test]
fn a_client_that_takes_no_replies_is_not_read_from() {
    let rig = Rig::of(&Disk::new([]));
    let mut client = rig.reading("disk", false);
    client.0.set_nonblocking(true).unwrap();
    // A request of 28 bytes asks for a megabyte: the server stops long before it has answered them all.
    let batch = request(0, READ, 1, 0, 1 << 20).repeat(1000);
    let (mut sent, limit) = (0, 64 << 20);
    let begun = std::time::Instant::now();
    let mut stuck_since = begun;
    while stuck_since.elapsed().as_millis() < 300 {
        match client.0.write(&batch) {
            Ok(more) => (sent, stuck_since) = (sent + more, std::time::Instant::now()),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        assert!(sent < limit && begun.elapsed() < PATIENCE, "the server takes {sent} bytes of requests");
        std::thread::yield_now();
    }
    // It is stopped all the same.
    rig.server.remove("disk");
    client.0.set_nonblocking(false).unwrap();
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.0, &mut rest);
    assert!(rest.len() < 16 << 20, "{} bytes were kept for it", rest.len());
}

#[test]
fn a_removed_export_drops_its_clients_and_their_reads() {
    let disk = Disk::new([1]);
    let rig = Rig::of(&disk);
    let (mut idle, mut waits) = (rig.reading("disk", false), rig.reading("disk", false));
    waits.request(0, READ, 1, PIECE, 1);
    eventually("it waits", || disk.waiting() == 1);
    rig.server.remove("disk");
    assert!(idle.is_dropped() && waits.is_dropped());
    eventually("all is let go", || disk.waiting() == 0 && disk.faces() == 1);
}

#[test]
fn shutdown_drops_all_clients_and_ends() {
    let disk = Disk::new([1]);
    let mut rig = Rig::of(&disk);
    let (mut negotiates, mut idle, mut waits) =
        (rig.greeted(), rig.reading("disk", false), rig.reading("disk", true));
    waits.request(0, READ, 1, PIECE, 1);
    eventually("it waits", || disk.waiting() == 1);
    rig.stop();
    assert!(negotiates.is_dropped() && idle.is_dropped() && waits.is_dropped());
    eventually("nobody waits", || disk.waiting() == 0 && disk.faces() == 2);
}
