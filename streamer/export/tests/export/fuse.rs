//! The exports as files. Each test mounts in a mount namespace of its own thread, which ends with it.

use crate::support::*;
use crate::tools::run;
use bytes::Bytes;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use streamer_export::fuse::{Mount, MountError, mount};
use streamer_export::{Export, Extent, Reading, Server};

/// Where [`a_daemon_to_be_killed`] mounts.
const FOLDER: &str = "STREAMER_EXPORT_TEST_FOLDER";

fn mounts_are_private() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .unwrap();
}

/// Dropped in this order.
struct Mounted {
    mount: Option<Mount>,
    folder: PathBuf,
    rig: Rig,
}

impl Mounted {
    fn of(disk: &Disk) -> Self {
        mounts_are_private();
        let rig = Rig::of(disk);
        let folder = rig.folder.path().join("exports");
        let mount = Some(mount(&rig.server, &folder, rig.runtime.handle().clone()).unwrap());
        Self { mount, folder, rig }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn file(&self) -> File {
        File::open(self.path("disk")).unwrap()
    }
}

fn read(file: &File, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(length).unwrap()];
    file.read_exact_at(&mut buffer, offset).map(|()| buffer)
}

#[test]
fn a_file_is_the_disk_byte_for_byte() {
    let disk = Disk::new([]);
    let mounted = Mounted::of(&disk);
    let (path, copy) = (mounted.path("disk"), mounted.rig.folder.path().join("copy"));
    std::fs::write(&copy, content(0, SIZE)).unwrap();
    run("cmp", &[&path, copy.to_str().unwrap()]);
    run("sh", &["-c", &format!("cat {path} | cmp - {}", copy.display())]);
    let part = mounted.path("../part");
    for block in [1, 511, 4096, 65_537] {
        run(
            "dd",
            &[&format!("if={path}"), &format!("of={part}"), &format!("bs={block}"), "skip=3", "count=7"],
        );
        assert!(std::fs::read(&part).unwrap() == content(3 * block, 7 * block), "{block} bytes a block");
    }
    let file = mounted.file();
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    assert_eq!(read(&file, SIZE - 1, 1).unwrap(), content(SIZE - 1, 1));
    assert_eq!(file.read_at(&mut [0; 10], SIZE).unwrap(), 0);
    assert_eq!(file.read_at(&mut [0; 10], SIZE - 4).unwrap(), 4);
    assert!(disk.readers.lock().unwrap().iter().all(|reader| reader == "fuse"));
}

#[test]
fn nothing_can_be_written_made_or_removed() {
    let mounted = Mounted::of(&Disk::new([]));
    let path = mounted.path("disk");
    assert!(File::options().write(true).open(&path).is_err());
    assert!(std::fs::remove_file(&path).is_err());
    assert!(File::create(mounted.path("other")).is_err());
    for absent in ["other", "disk/reader", "disk/", "..."] {
        assert!(std::fs::metadata(mounted.path(absent)).is_err(), "{absent}");
    }
}

#[test]
fn only_the_read_of_a_file_that_waits_waits() {
    let disk = Disk::new([0, 1]);
    let mounted = Mounted::of(&disk);
    let waiters: Vec<_> = [0, PIECE]
        .map(|offset| {
            let file = mounted.file();
            std::thread::spawn(move || read(&file, offset, 512).unwrap())
        })
        .into();
    eventually("two wait", || disk.waiting() >= 2);
    let file = mounted.file();
    assert!(read(&file, 20 * PIECE, 4 * PIECE).unwrap() == content(20 * PIECE, 4 * PIECE));
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
    disk.bring(0);
    disk.bring(1);
    let read: Vec<Vec<u8>> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
    assert!(read == [content(0, 512), content(PIECE, 512)]);
}

#[test]
fn holes_can_be_sought_and_are_not_copied() {
    let mounted = Mounted::of(&Disk::new([]));
    let file = mounted.file();
    let hole = |at| rustix::fs::seek(&file, SeekFrom::Hole(at));
    let data = |at| rustix::fs::seek(&file, SeekFrom::Data(at));
    assert_eq!([hole(0), data(0)], [Ok(3 * PIECE), Ok(0)]);
    assert_eq!([hole(3 * PIECE + 5), data(3 * PIECE + 5)], [Ok(3 * PIECE + 5), Ok(5 * PIECE)]);
    assert_eq!([hole(5 * PIECE), data(9 * PIECE)], [Ok(9 * PIECE), Ok(10 * PIECE)]);
    assert_eq!([hole(10 * PIECE), data(SIZE - 1)], [Ok(SIZE), Ok(SIZE - 1)]);
    assert_eq!([hole(SIZE), data(SIZE)], [Err(rustix::io::Errno::NXIO); 2]);
    let stored = file.metadata().unwrap().blocks() * 512;
    assert!((SIZE - 3 * PIECE..SIZE - 3 * PIECE + 512).contains(&stored), "{stored} bytes are stored");
    let (path, copy) = (mounted.path("disk"), mounted.path("../copy"));
    run("cp", &[&path, &copy]);
    run("cmp", &[&path, &copy]);
    let copied = std::fs::metadata(&copy).unwrap().blocks() * 512;
    assert!(copied < SIZE - PIECE, "{copied} bytes were copied");
}

#[test]
fn ten_thousand_files_are_listed_and_found() {
    let disk = Disk::new([]);
    let mounted = Mounted::of(&disk);
    let names: Vec<String> = (0..10_000).map(|number| format!("{number:064x}")).collect();
    for name in &names {
        mounted.rig.server.add(name.clone(), Arc::new(disk.clone()));
    }
    let entries = std::fs::read_dir(&mounted.folder).unwrap();
    let mut listed: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    listed.sort_unstable();
    assert_eq!(listed[..10_000], names);
    assert_eq!(listed[10_000..], ["disk"]);
    for name in &names {
        assert_eq!(std::fs::metadata(mounted.path(name)).unwrap().len(), SIZE);
    }
    let file = File::open(mounted.path(&names[9_999])).unwrap();
    assert_eq!(read(&file, 77, 9).unwrap(), content(77, 9));
}

#[test]
fn a_removed_export_is_no_file_and_its_reads_end() {
    let disk = Disk::new([1]);
    let mounted = Mounted::of(&disk);
    let file = mounted.file();
    let waiter = std::thread::spawn(move || read(&file, PIECE, 512).is_err());
    eventually("it waits", || disk.waiting() == 1);
    mounted.rig.server.remove("disk");
    assert!(waiter.join().unwrap(), "bytes out of nowhere");
    eventually("it is no file", || File::open(mounted.path("disk")).is_err());
    assert_eq!(std::fs::read_dir(&mounted.folder).unwrap().count(), 0);
    eventually("nothing of it is kept", || disk.waiting() == 0 && disk.faces() == 1);
    mounted.rig.server.add("disk".to_owned(), Arc::new(disk.clone()));
    eventually("it is a file again", || File::open(mounted.path("disk")).is_ok());
}

#[test]
fn it_is_unmounted_though_files_are_open_and_reads_wait_and_can_be_mounted_again() {
    let disk = Disk::new([1]);
    let mut mounted = Mounted::of(&disk);
    let (open, file) = (mounted.file(), mounted.file());
    let waiter = std::thread::spawn(move || read(&file, PIECE, 512).is_err());
    eventually("it waits", || disk.waiting() == 1);
    mounted.mount = None;
    assert!(waiter.join().unwrap(), "bytes out of nowhere");
    assert!(read(&open, 10 * PIECE, 1).is_err());
    assert_eq!(std::fs::read_dir(&mounted.folder).unwrap().count(), 0);
    let runtime = mounted.rig.runtime.handle().clone();
    mounted.mount = Some(mount(&mounted.rig.server, &mounted.folder, runtime.clone()).unwrap());
    assert_eq!(read(&mounted.file(), 0, 7).unwrap(), content(0, 7));
    let twice = mount(&mounted.rig.server, &mounted.folder, runtime);
    assert!(matches!(twice, Err(MountError::Busy(_))), "{twice:?}");
}

#[test]
#[ignore = "not a test: it is run, and killed, by the one below"]
fn a_daemon_to_be_killed() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let rig = Rig::of(&Disk::new([1]));
    let _mount = mount(&rig.server, &folder, rig.runtime.handle().clone()).unwrap();
    eprintln!("mounted");
    // Until its standard input ends, should whoever runs it die.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

#[test]
fn what_a_killed_daemon_left_mounted_is_mounted_over() {
    mounts_are_private();
    let disk = Disk::new([]);
    let rig = Rig::of(&disk);
    let folder = rig.folder.path().join("exports");
    for _ in 0..2 {
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "fuse::a_daemon_to_be_killed"])
            .env(FOLDER, &folder)
            .env("TMPDIR", rig.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(daemon.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("mounted")));
        let file = File::open(folder.join("disk")).unwrap();
        assert_eq!(read(&file, 5, 5).unwrap(), content(5, 5));
        let waiter = std::thread::spawn(move || read(&file, PIECE, 512).is_err());
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert!(waiter.join().unwrap(), "bytes out of nowhere");
        assert!(std::fs::metadata(folder.join("disk")).is_err());
    }
    let _mount = mount(&rig.server, &folder, rig.runtime.handle().clone()).unwrap();
    let file = File::open(folder.join("disk")).unwrap();
    assert_eq!(read(&file, PIECE, 5).unwrap(), content(PIECE, 5));
}

/// A file as an export.
struct Copy(Vec<u8>);

impl Export for Copy {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_now(&self, offset: u64, length: u32) -> Option<Bytes> {
        let begin = usize::try_from(offset).ok()?;
        Some(Bytes::copy_from_slice(&self.0[begin..begin + length as usize]))
    }

    fn read_at(&self, offset: u64, length: u32) -> Reading<'_> {
        Box::pin(async move { self.read_now(offset, length).ok_or(std::io::ErrorKind::Other.into()) })
    }

    fn extents(&self, _: u64, length: u32) -> Vec<Extent> {
        vec![Extent { length: length.into(), zero: false }]
    }
}

#[test]
fn a_file_can_be_loop_mounted() {
    let mounted = Mounted::of(&Disk::new([]));
    let at = |name: &str| mounted.rig.folder.path().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    std::fs::create_dir_all(at("tree")).unwrap();
    std::fs::write(at("tree/hello"), "from a disk in a swarm").unwrap();
    File::create(at("image")).unwrap().set_len(4 << 20).unwrap();
    run("mkfs.ext4", &["-q", "-O", "^has_journal", "-d", &text(&at("tree")), &text(&at("image"))]);
    let server: &Server = &mounted.rig.server;
    server.add("ext4".to_owned(), Arc::new(Copy(std::fs::read(at("image")).unwrap())));
    std::fs::create_dir(at("loop")).unwrap();
    run("mount", &["-o", "loop,ro", &mounted.path("ext4"), &text(&at("loop"))]);
    let hello = std::fs::read_to_string(at("loop/hello"));
    run("umount", &[&text(&at("loop"))]);
    assert_eq!(hello.unwrap(), "from a disk in a swarm");
}
