//! Debian's `restic` and we share repositories: each reads, checks and adds to what the other one wrote, and neither
//! deletes while the other one works.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_backup::{Control, Error, Repository, Thoroughness};
use std::fs;
use std::io::Write as _;
use std::num::NonZeroU64;
use std::sync::Arc;
use support::{Bench, PASSWORD, noise, part, until};

#[test]
fn restic_checks_lists_and_restores_what_we_wrote() {
    let bench = Bench::new();
    bench.create();
    let files = [
        ("layers/one/system", noise(1, 5 << 20)),
        ("layers/two/volume/home", noise(2, 3 << 20)),
        ("memory", vec![0; 2 << 20]),
    ];
    bench.back_up("first", &files);
    assert!(bench.restic(&["check", "--read-data"]).contains("no errors were found"));
    let listed: serde_json::Value = serde_json::from_str(&bench.restic(&["snapshots", "--json"])).unwrap();
    assert_eq!(listed[0]["hostname"], "host-a");
    assert_eq!(
        listed[0]["tags"],
        serde_json::json!(["checkpoint=first", "collective", "deployment=desk-alice", "member=desktop"])
    );
    let target = bench.folder.path().join("by-restic");
    bench.restic(&["restore", "latest", "--tag", "checkpoint=first", "--target", target.to_str().unwrap()]);
    for (name, bytes) in &files {
        assert!(
            fs::read(target.join("collective/desk-alice/desktop").join(name)).unwrap() == *bytes,
            "{name}"
        );
    }
}

#[test]
fn we_verify_and_add_to_what_restic_wrote_and_list_only_our_own() {
    let bench = Bench::new();
    let theirs = bench.folder.path().join("theirs");
    fs::write(&theirs, noise(3, 6 << 20)).unwrap();
    bench.restic(&["init"]);
    bench.restic(&["backup", theirs.to_str().unwrap()]);
    bench.open().verify(Thoroughness::Everything).unwrap();
    assert_eq!(bench.open().list().unwrap(), []);
    // The same bytes again: restic's chunks are ours.
    let made = bench.back_up("first", &[("layers/one/system", noise(3, 6 << 20))]);
    assert!(made.added_bytes < 64 << 10, "{} bytes were added though all were there", made.added_bytes);
    assert_eq!(bench.open().list().unwrap().len(), 1);
    // What restic packs anew is still ours to restore.
    bench.restic(&["forget", "--keep-last", "1", "--group-by", "", "--prune"]);
    bench.restic(&["prune", "--max-unused", "0"]);
    let backups = bench.open().list().unwrap();
    let target = bench.folder.path().join("restored");
    bench.open().restore(&backups[0], &target).unwrap();
    assert!(fs::read(target.join("layers/one/system")).unwrap() == noise(3, 6 << 20));
}

#[test]
fn we_forget_and_restic_finds_no_fault() {
    let bench = Bench::new();
    bench.create();
    let keep = noise(4, 4 << 20);
    bench.back_up("first", &[("layers/one/system", keep.clone()), ("layers/two/system", noise(5, 24 << 20))]);
    bench.back_up("second", &[("layers/one/system", keep.clone())]);
    let before = bench.stored_bytes();
    let backups = bench.open().list().unwrap();
    bench.open().forget(&backups[..1]).unwrap();
    assert!(
        bench.stored_bytes() < before - (20 << 20),
        "{} of {before} bytes are left",
        bench.stored_bytes()
    );
    assert!(bench.restic(&["check", "--read-data"]).contains("no errors were found"));
    let left = bench.open().list().unwrap();
    assert_eq!(left.iter().map(|backup| backup.part.checkpoint.as_str()).collect::<Vec<_>>(), ["second"]);
    let target = bench.folder.path().join("restored");
    bench.open().restore(&left[0], &target).unwrap();
    assert!(fs::read(target.join("layers/one/system")).unwrap() == keep);
}

#[test]
fn restic_does_not_prune_while_we_back_up() {
    let bench = Bench::new();
    bench.create();
    let file = bench.file("slow", &noise(6, 40 << 20));
    // Its packs take longer than the test.
    let control = Arc::new(Control::limited(NonZeroU64::new(64 << 10)));
    let place = bench.place();
    std::thread::scope(|scope| {
        let work = scope.spawn(|| Repository::open(&place, &control)?.back_up(&part("first"), vec![file]));
        until("a lock", || bench.locks() > 0);
        let refused = bench.restic_fails(&["prune"]);
        control.cancel();
        assert!(matches!(work.join().unwrap(), Err(Error::Cancelled)));
        assert!(refused.contains("already locked") && refused.contains("collective"), "{refused}");
    });
    assert_eq!(bench.locks(), 0, "a lock that was given back");
    assert_eq!(bench.open().list().unwrap(), [], "a cancelled backup is none");
    bench.restic(&["prune"]);
}

#[test]
fn we_do_not_forget_while_restic_backs_up_but_after_it_was_killed() {
    let bench = Bench::new();
    bench.create();
    bench.back_up("first", &[("layers/one/system", noise(7, 1 << 20))]);
    let mut restic = bench
        .restic_command(&["backup", "--stdin"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    restic.stdin.as_mut().unwrap().write_all(b"something").unwrap();
    until("restic's lock", || bench.locks() > 0);
    let refused = bench.open().forget(&[]).unwrap_err();
    assert!(matches!(&refused, Error::Locked { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("process {}", restic.id())), "{refused}");
    // Adding is no trouble.
    bench.back_up("second", &[("layers/one/system", noise(8, 1 << 20))]);
    restic.kill().unwrap();
    restic.wait().unwrap();
    assert_eq!(bench.locks(), 1, "a lock whose holder died");
    bench.open().forget(&[]).unwrap();
    assert_eq!(bench.locks(), 0);
    assert!(!bench.restic(&["check"]).contains(PASSWORD));
}
