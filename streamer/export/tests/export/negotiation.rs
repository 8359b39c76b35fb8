//! Corner cases of the handshake, from the specification.

use crate::support::*;
use std::sync::Arc;

const ACK: u32 = 1;
const SERVER: u32 = 2;
const INFO: u32 = 3;
const CONTEXT: u32 = 4;
const UNSUPPORTED: u32 = 1 << 31 | 1;
const INVALID: u32 = 1 << 31 | 3;
const UNKNOWN: u32 = 1 << 31 | 6;
const TOO_BIG: u32 = 1 << 31 | 9;

const GO: u32 = 7;
const LIST_CONTEXTS: u32 = 9;
const SET_CONTEXTS: u32 = 10;

fn kinds(client: &mut Client) -> Vec<u32> {
    client.answers().into_iter().map(|(kind, _)| kind).collect()
}

#[test]
fn every_option_is_answered_and_the_next_is_heard() {
    let structured = [(8, vec![], vec![ACK])];
    let long = "a".repeat(129);
    let plain = [
        ("peek", 4, b"disk".to_vec(), vec![UNSUPPORTED]),
        ("tls", 5, vec![], vec![UNSUPPORTED]),
        ("extended headers", 11, vec![], vec![UNSUPPORTED]),
        ("no option at all", 0, vec![], vec![UNSUPPORTED]),
        ("an option to come, with data", 0x7fff_ffff, vec![7; 100], vec![UNSUPPORTED]),
        ("list", 3, vec![], vec![SERVER, ACK]),
        ("list with data", 3, vec![0], vec![INVALID]),
        ("structured replies with data", 8, vec![0], vec![INVALID]),
        ("info", 6, go("disk"), vec![INFO, INFO, ACK]),
        (
            "info about three things",
            6,
            [string("disk"), vec![0, 3, 0, 1, 0, 2, 0, 3]].concat(),
            vec![INFO, INFO, ACK],
        ),
        ("info for a reader", 6, go("disk/guest-1:vda_x.y/2"), vec![INFO, INFO, ACK]),
        ("info for the longest reader", 6, go(&format!("disk/{}", &long[1..])), vec![INFO, INFO, ACK]),
        ("a reader too long", 6, go(&format!("disk/{long}")), vec![UNKNOWN]),
        ("a reader without a name", 6, go("disk/"), vec![UNKNOWN]),
        ("a reader with a blank", 6, go("disk/a b"), vec![UNKNOWN]),
        ("a reader that is not ASCII", 6, go("disk/é"), vec![UNKNOWN]),
        ("a reader of nothing", 6, go("/reader"), vec![UNKNOWN]),
        ("no name", 6, go(""), vec![UNKNOWN]),
        ("another name", GO, go("disc"), vec![UNKNOWN]),
        ("a name of 4 KiB", GO, go(&"n".repeat(4096)), vec![UNKNOWN]),
        ("go with nothing", GO, vec![], vec![INVALID]),
        ("go with half a length", GO, vec![0, 0], vec![INVALID]),
        ("go with a name longer than the option", GO, vec![0, 0, 0, 9, b'd', 0, 0], vec![INVALID]),
        ("go with a name of 4 GiB", GO, vec![255, 255, 255, 255, 0, 0], vec![INVALID]),
        ("go without a count", GO, string("disk"), vec![INVALID]),
        ("go with too few requests", GO, [string("disk"), vec![0, 2, 0, 3]].concat(), vec![INVALID]),
        ("go with too many requests", GO, [string("disk"), vec![0, 0, 0, 3]].concat(), vec![INVALID]),
        ("go with a name that is not UTF-8", GO, vec![0, 0, 0, 1, 255, 0, 0], vec![INVALID]),
        ("contexts before structured replies", LIST_CONTEXTS, contexts("disk", &[]), vec![INVALID]),
        ("setting them so", SET_CONTEXTS, contexts("disk", &["base:allocation"]), vec![INVALID]),
        ("an option as large as may be", 99, vec![0; 16 << 10], vec![UNSUPPORTED]),
        ("an option too large", 99, vec![0; (16 << 10) + 1], vec![TOO_BIG]),
        ("go too large", GO, vec![0; 1 << 20], vec![TOO_BIG]),
    ];
    let rich = [
        ("all contexts", LIST_CONTEXTS, contexts("disk", &[]), vec![CONTEXT, ACK]),
        ("a namespace", LIST_CONTEXTS, contexts("disk", &["base:"]), vec![CONTEXT, ACK]),
        ("one", LIST_CONTEXTS, contexts("disk", &["base:allocation"]), vec![CONTEXT, ACK]),
        ("one twice", LIST_CONTEXTS, contexts("disk", &["base:allocation", "base:"]), vec![CONTEXT, ACK]),
        ("others", LIST_CONTEXTS, contexts("disk", &["qemu:dirty-bitmap:x", "base:alloc", ""]), vec![ACK]),
        ("set one", SET_CONTEXTS, contexts("disk", &["x:y", "base:allocation"]), vec![CONTEXT, ACK]),
        ("set a namespace", SET_CONTEXTS, contexts("disk", &["base:"]), vec![ACK]),
        ("set none", SET_CONTEXTS, contexts("disk", &[]), vec![ACK]),
        ("of another export", SET_CONTEXTS, contexts("disc", &["base:allocation"]), vec![UNKNOWN]),
        ("of a reader", SET_CONTEXTS, contexts("disk/me", &["base:allocation"]), vec![CONTEXT, ACK]),
        ("more than there are", SET_CONTEXTS, [string("disk"), vec![0, 0, 0, 1]].concat(), vec![INVALID]),
        ("4 Gi of them", SET_CONTEXTS, [string("disk"), vec![255; 4]].concat(), vec![INVALID]),
        (
            "more bytes than they have",
            LIST_CONTEXTS,
            [contexts("disk", &[]), vec![0]].concat(),
            vec![INVALID],
        ),
    ];
    let disk = Disk::new([]);
    let rig = Rig::of(&disk);
    let mut client = rig.greeted();
    for (what, option, data, expected) in plain {
        client.option(option, &data);
        assert_eq!(kinds(&mut client), expected, "{what}");
    }
    for (option, data, expected) in structured {
        client.option(option, &data);
        assert_eq!(kinds(&mut client), expected);
    }
    for (what, option, data, expected) in rich {
        client.option(option, &data);
        assert_eq!(kinds(&mut client), expected, "{what}");
    }
    assert_eq!(disk.readers.lock().unwrap().len(), 0, "somebody reads who only asked");
}

#[test]
fn a_client_that_breaks_the_protocol_is_dropped() {
    let named = |name: &str| option_bytes(1, name.as_bytes());
    let flags = 3u32.to_be_bytes();
    let cases = [
        ("client flags to come", vec![0, 0, 0, 7]),
        ("wrong option magic", [&flags[..], b"IHAVEOPS", &[0; 8]].concat()),
        ("no such export, the old way", [&flags[..], &named("disc")].concat()),
        ("no export, the old way", [&flags[..], &named("")].concat()),
        ("a bad reader, the old way", [&flags[..], &named("disk/a b")].concat()),
        ("a name too long, the old way", [&flags[..], &named(&"n".repeat(20_000))].concat()),
    ];
    let rig = Rig::of(&Disk::new([]));
    for (what, bytes) in cases {
        let mut client = rig.connect();
        client.take(18);
        client.send(&bytes);
        assert!(client.is_dropped(), "{what}");
    }
}

#[test]
fn a_client_may_leave_at_any_byte() {
    let disk = Disk::new([]);
    let rig = Rig::of(&disk);
    let whole = [
        3u32.to_be_bytes().to_vec(),
        option_bytes(8, b""),
        option_bytes(GO, &go("disk/short")),
        request(0, 0, 1, 0, 512),
    ]
    .concat();
    for length in 0..=whole.len() {
        let mut client = rig.connect();
        client.send(&whole[..length]);
    }
    eventually("all connections end", || disk.faces() == 2);
    rig.reading("disk", false);
}

#[test]
fn abort_is_acknowledged_and_ends_it() {
    let rig = Rig::of(&Disk::new([]));
    let mut client = rig.greeted();
    client.option(2, b"");
    assert_eq!(kinds(&mut client), [ACK]);
    assert!(client.is_dropped());
}

#[test]
fn options_are_bounded() {
    let rig = Rig::of(&Disk::new([]));
    let mut client = rig.greeted();
    let batch = option_bytes(99, b"").repeat(1 << 10);
    for _ in 0..64 {
        client.send(&batch);
        for _ in 0..1 << 10 {
            assert_eq!(kinds(&mut client), [UNSUPPORTED]);
        }
    }
    assert!(client.is_dropped());
}

#[test]
fn the_old_way_leads_to_the_same_disk() {
    let disk = Disk::new([]);
    let rig = Rig::of(&disk);
    for (flags, zeroes) in [(0u32, 124), (1, 124), (3, 0)] {
        let mut client = rig.connect();
        client.take(18);
        client.send(&flags.to_be_bytes());
        client.option(1, b"disk/old");
        let answer = client.take(10 + zeroes);
        assert_eq!(answer[..8], SIZE.to_be_bytes());
        // Flags are there, read-only, DF is understood, several connections see the same.
        assert_eq!(answer[8..10], [1, 0x83]);
        assert!(answer[10..].iter().all(|byte| *byte == 0));
        client.request(0, 0, 5, 1, 3);
        assert_eq!((client.simple(), client.take(3)), ((0, 5), content(1, 3)));
    }
    assert_eq!(*disk.readers.lock().unwrap(), ["old"; 3]);
}

#[test]
fn a_client_is_told_size_flags_and_block_sizes() {
    let rig = Rig::of(&Disk::new([]));
    let mut client = rig.greeted();
    client.option(GO, &go("disk"));
    let export = [&[0, 0][..], &SIZE.to_be_bytes(), &[1, 0x83]].concat();
    let blocks =
        [&[0, 3][..], &1u32.to_be_bytes(), &4096u32.to_be_bytes(), &(32u32 << 20).to_be_bytes()].concat();
    assert_eq!(client.answers(), [(INFO, export), (INFO, blocks), (ACK, vec![])]);
}

#[test]
fn each_connection_has_its_reader_until_it_ends() {
    let disk = Disk::new([]);
    let rig = Rig::of(&disk);
    let clients = ["disk", "disk/a", "disk/a", "disk/b/c"].map(|name| rig.reading(name, true));
    assert_eq!(*disk.readers.lock().unwrap(), ["", "a", "a", "b/c"]);
    assert!(disk.faces() > 2, "no reader is served by its own face");
    drop(clients);
    eventually("readers are dropped with their connections", || disk.faces() == 2);
}

#[test]
fn allocation_of_one_export_is_not_that_of_another() {
    let rig = Rig::of(&Disk::new([]));
    rig.server.add("other".to_owned(), Arc::new(Disk::new([])));
    let mut client = rig.greeted();
    client.option(8, b"");
    kinds(&mut client);
    client.option(SET_CONTEXTS, &contexts("other", &["base:allocation"]));
    assert_eq!(kinds(&mut client), [CONTEXT, ACK]);
    client.option(GO, &go("disk"));
    kinds(&mut client);
    client.request(0, 7, 1, 0, 512);
    let (_, kind, _, payload) = client.chunk();
    assert_eq!((kind, &payload[..4]), (1 << 15 | 1, &22u32.to_be_bytes()[..]));
}

#[test]
fn ten_thousand_exports_are_added_listed_and_opened() {
    let rig = Rig::new();
    let disk = Disk::new([]);
    let names: Vec<String> = (0..10_000).map(|number| format!("{number:064x}")).collect();
    let begun = std::time::Instant::now();
    for name in &names {
        rig.server.add(name.clone(), Arc::new(disk.clone()));
    }
    assert!(begun.elapsed().as_millis() < 1000, "added in {:?}", begun.elapsed());
    let mut client = rig.greeted();
    client.option(3, b"");
    let listed: Vec<String> = client
        .answers()
        .into_iter()
        .filter(|(kind, _)| *kind == SERVER)
        .map(|(_, entry)| String::from_utf8(entry[4..].to_vec()).unwrap())
        .collect();
    assert_eq!(listed, names);
    // As `qemu-nbd --list` does: all over one connection, and then one of them.
    for name in &names {
        client.option(6, &go(name));
        assert_eq!(kinds(&mut client), [INFO, INFO, ACK]);
    }
    client.option(GO, &go(&names[9_999]));
    assert_eq!(kinds(&mut client), [INFO, INFO, ACK]);
    for name in &names[..500] {
        let mut client = rig.reading(name, false);
        client.request(0, 0, 1, 7, 5);
        assert_eq!((client.simple(), client.take(5)), ((0, 1), content(7, 5)));
    }
    for name in &names {
        rig.server.remove(name);
    }
    assert!(client.is_dropped(), "the last client outlived its export");
    eventually("exports are dropped", || disk.faces() == 1);
    assert!(begun.elapsed() < PATIENCE, "all of it took {:?}", begun.elapsed());
}
