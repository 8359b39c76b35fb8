//! The tools people use, against the server.

use crate::support::*;
use std::process::{Command, Output};
use std::sync::Arc;

/// Runs a program for a while at most; its output if it succeeded.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = output(program, arguments);
    let (out, errors) = (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr).into_owned());
    assert!(status.success(), "{program} {arguments:?}: {status}\n{out}\n{errors}");
    out
}

fn output(program: &str, arguments: &[&str]) -> Output {
    let seconds = PATIENCE.as_secs().to_string();
    let limited = [&["-k", "1", &seconds, program], arguments].concat();
    Command::new("timeout").args(limited).output().unwrap()
}

fn rig_and_file() -> (Rig, String) {
    let rig = Rig::of(&Disk::new([]));
    let path = rig.folder.path().join("file");
    std::fs::write(&path, content(0, SIZE)).unwrap();
    (rig, path.to_str().unwrap().to_owned())
}

#[test]
fn nbdinfo_sees_the_disk_as_it_is() {
    let rig = Rig::of(&Disk::new([]));
    let uri = rig.uri("disk/nbdinfo");
    assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), SIZE.to_string());
    let info = run("nbdinfo", &["--json", &uri]);
    let expected = [
        r#""protocol": "newstyle-fixed""#.to_owned(),
        r#""structured": true"#.to_owned(),
        format!(r#""export-size": {SIZE}"#),
        r#""is_read_only": true"#.to_owned(),
        r#""can_multi_conn": true"#.to_owned(),
        r#""can_df": true"#.to_owned(),
        r#""can_trim": false"#.to_owned(),
        r#""can_zero": false"#.to_owned(),
        r#""can_flush": false"#.to_owned(),
        r#""block_size_minimum": 1"#.to_owned(),
        r#""block_size_preferred": 4096"#.to_owned(),
        r#""block_size_maximum": 33554432"#.to_owned(),
        r#""base:allocation""#.to_owned(),
    ];
    for line in expected {
        assert!(info.contains(&line), "{line} is not in {info}");
    }
    assert!(!output("nbdinfo", &[&rig.uri("disc")]).status.success());
}

#[test]
fn nbdinfo_maps_zero_pieces_as_holes() {
    let rig = Rig::of(&Disk::new([0, 1, 2]));
    let map = run("nbdinfo", &["--map", &rig.uri("disk")]);
    let found: Vec<Vec<u64>> = map
        .lines()
        .map(|line| line.split_whitespace().take(3).map(|word| word.parse().unwrap()).collect())
        .collect();
    let expected = [
        [0, 3 * PIECE, 0],
        [3 * PIECE, 2 * PIECE, 3],
        [5 * PIECE, 4 * PIECE, 0],
        [9 * PIECE, PIECE, 3],
        [10 * PIECE, SIZE - 10 * PIECE, 0],
    ];
    assert_eq!(found, expected);
}

#[test]
fn nbdinfo_and_qemu_list_all_exports() {
    let rig = Rig::new();
    for number in 0..200 {
        rig.server.add(format!("disk-{number}"), Arc::new(Disk::new([])));
    }
    let listed = run("nbdinfo", &["--list", &rig.uri("")]);
    let found = (0..200).filter(|number| listed.contains(&format!("export=\"disk-{number}\":"))).count();
    assert_eq!(found, 200, "{listed}");
    let listed = run("qemu-nbd", &["--list", "-k", rig.socket.to_str().unwrap()]);
    let found = (0..200).filter(|number| listed.contains(&format!("export: 'disk-{number}'\n"))).count();
    assert_eq!(found, 200, "{listed}");
}

#[test]
fn nbdcopy_copies_the_disk_over_several_connections() {
    let (rig, file) = rig_and_file();
    let copy = format!("{file}.copy");
    run("nbdcopy", &["--connections=4", "--requests=64", &rig.uri("disk/copy"), &copy]);
    assert!(std::fs::read(copy).unwrap() == content(0, SIZE));
}

#[test]
fn qemu_finds_the_disk_identical() {
    let (rig, file) = rig_and_file();
    let uri = rig.uri("disk/qemu");
    assert!(run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, &file]).contains("identical"));
    let copy = format!("{file}.qcow2");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, &copy]);
    assert!(run("qemu-img", &["compare", "-F", "raw", &copy, &file]).contains("identical"));
}

#[test]
fn qemu_writes_over_the_disk_only_in_its_overlay() {
    let (rig, file) = rig_and_file();
    let (uri, overlay) = (rig.uri("disk/guest"), format!("{file}.overlay"));
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &uri, &overlay]);
    let commands =
        ["-c", "write -P 171 65536 4096", "-c", "read -P 171 65536 4096", "-c", "read -P 0 196608 131072"];
    run("qemu-io", &[&["-f", "qcow2", &overlay], &commands[..]].concat());
    assert!(run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, &file]).contains("identical"));
}

#[test]
fn qemu_waits_for_absent_pieces() {
    let disk = Disk::new([0, 7, 30]);
    let rig = Rig::of(&disk);
    let uri = rig.uri("disk/waits");
    let reading = std::thread::spawn(move || {
        let commands = ["-c", "aio_read 458752 512", "-c", "aio_read 0 1024", "-c", "aio_flush"];
        run("qemu-io", &[&["-r", "-f", "raw"], &commands[..], &[&uri]].concat())
    });
    for (piece, waiting) in [(7, 1), (0, 0)] {
        eventually("it waits", || disk.waiting() > waiting);
        disk.bring(piece);
    }
    let out = reading.join().unwrap();
    assert_eq!(out.matches("read 512/512").count() + out.matches("read 1024/1024").count(), 2, "{out}");
}
