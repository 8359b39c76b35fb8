//! What goes wrong: kill -9, full storage, damage, files that change, work called off.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_backup::{
    Content, Control, Credentials, Error, Location, Place, Repository, SourceFile, Thoroughness,
};
use std::fs::{self, File};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::{Bench, noise, part, place, until};
use xtask::small_disk::SmallDisk;

const VICTIM: &str = "COLLECTIVE_BACKUP_VICTIM";

/// The process of another test, which kills it.
#[test]
#[ignore = "run by another test"]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM).map(PathBuf::from) else { return };
    let control = Arc::new(Control::limited(NonZeroU64::new(16 << 20)));
    let file = SourceFile { name: "layers/one/system".into(), content: Content::File(folder.join("file")) };
    let _ = Repository::open(&place(&folder.join("repository")), &control)
        .unwrap()
        .back_up(&part("first"), vec![file]);
}

#[test]
fn a_killed_backup_harms_nothing_and_the_next_one_goes_on() {
    let bench = Bench::new();
    bench.create();
    bench.back_up("before", &[("layers/zero/system", noise(9, 1 << 20))]);
    let (before, len) = (bench.stored_bytes(), 160 << 20);
    fs::write(bench.folder.path().join("file"), noise(10, len)).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored"])
        .env(VICTIM, bench.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("two packs", || bench.stored_bytes() > before + (64 << 20));
    child.kill().unwrap();
    child.wait().unwrap();
    let sent_before = bench.stored_bytes() - before;
    assert_eq!(bench.locks(), 1, "its lock stays behind");
    bench.restic(&["unlock"]);
    bench.restic(&["check", "--read-data"]);
    assert_eq!(bench.open().list().unwrap().len(), 1, "only whole backups are listed");
    let control = Arc::new(Control::default());
    let file = SourceFile {
        name: "layers/one/system".into(),
        content: Content::File(bench.folder.path().join("file")),
    };
    Repository::open(&bench.place(), &control).unwrap().back_up(&part("first"), vec![file]).unwrap();
    let sent = control.progress().sent_bytes;
    // All but the packs that were half written; their random bytes do not compress.
    assert!(
        sent + sent_before < len as u64 + (16 << 20),
        "{sent} bytes were sent again though {sent_before} of {len} were there"
    );
    assert!(bench.restic(&["check", "--read-data"]).contains("no errors were found"));
}

#[test]
fn a_full_storage_is_one_clear_error_and_stays_readable() {
    let disk = SmallDisk::new(48 << 20).unwrap();
    let bench = Bench::at(tempfile::tempdir().unwrap(), disk.path().join("repository"));
    bench.create();
    let kept = bench.back_up("first", &[("layers/one/system", noise(11, 4 << 20))]);
    let large = bench.file("layers/two/system", &noise(12, 128 << 20));
    let refused = bench.open().back_up(&part("second"), vec![large]).unwrap_err();
    assert!(matches!(&refused, Error::Full { .. }), "{refused:?}");
    assert!(refused.to_string().contains("is full: what it holds is unharmed"), "{refused}");
    assert_eq!(bench.open().list().unwrap(), std::slice::from_ref(&kept));
    bench.open().verify(Thoroughness::Everything).unwrap();
    // Not a byte free: it can still be read, though nobody can say that he reads.
    disk.fill().unwrap();
    assert_eq!(bench.open().list().unwrap().len(), 1);
    disk.free().unwrap();
    bench.open().forget(&[]).unwrap();
    let target = bench.folder.path().join("restored");
    bench.open().restore(&kept, &target).unwrap();
    assert!(fs::read(target.join("layers/one/system")).unwrap() == noise(11, 4 << 20));
    bench.back_up("third", &[("layers/three/system", noise(13, 4 << 20))]);
}

#[test]
fn a_damaged_pack_is_found_and_nothing_of_it_is_restored_as_if_it_were_good() {
    let bench = Bench::new();
    bench.create();
    let made = bench.back_up("first", &[("layers/one/system", noise(14, 8 << 20))]);
    bench.open().verify(Thoroughness::Everything).unwrap();
    let largest = largest_below(&bench.repository.join("data"));
    let file = File::options().read(true).write(true).open(&largest).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1 << 20).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1 << 20).unwrap();
    let damaged = bench.open().verify(Thoroughness::Everything).unwrap_err();
    let pack = largest.file_name().unwrap().to_str().unwrap();
    assert!(matches!(&damaged, Error::Damaged { what, .. } if what.contains(&pack[..8])), "{damaged}");
    bench.open().verify(Thoroughness::Structure).unwrap();
    let refused = bench.open().restore(&made, &bench.folder.path().join("restored")).unwrap_err();
    assert!(
        matches!(&refused, Error::Damaged { what, .. } if what.contains("layers/one/system")),
        "{refused}"
    );
    // One that is missing shows without reading any.
    fs::remove_file(&largest).unwrap();
    assert!(matches!(bench.open().verify(Thoroughness::Structure), Err(Error::Damaged { .. })));
}

fn largest_below(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder)
        .unwrap()
        .flat_map(|inner| fs::read_dir(inner.unwrap().path()).unwrap())
        .map(|file| file.unwrap());
    files.max_by_key(|file| file.metadata().unwrap().len()).unwrap().path()
}

#[test]
fn a_backup_without_one_of_its_files_is_none() {
    let bench = Bench::new();
    bench.create();
    let good = bench.file("layers/one/system", &noise(15, 1 << 20));
    let missing = SourceFile {
        name: "layers/two/system".into(),
        content: Content::File(bench.folder.path().join("nowhere")),
    };
    let refused = bench.open().back_up(&part("first"), vec![good.clone(), missing]).unwrap_err();
    assert!(
        refused.to_string().contains("cannot back up") && refused.to_string().contains("nowhere"),
        "{refused}"
    );
    // It has more bytes than its size says.
    let growing =
        SourceFile { name: "layers/two/system".into(), content: Content::File("/proc/self/maps".into()) };
    let refused = bench.open().back_up(&part("first"), vec![good.clone(), growing]).unwrap_err();
    assert!(matches!(refused, Error::Changed { .. }), "{refused}");
    // A folder opens, and cannot be read.
    let folder = SourceFile {
        name: "layers/two/system".into(),
        content: Content::File(bench.folder.path().to_owned()),
    };
    let refused = bench.open().back_up(&part("first"), vec![good, folder]).unwrap_err();
    assert!(matches!(refused, Error::File { .. }), "{refused}");
    assert_eq!(bench.open().list().unwrap(), []);
    bench.open().verify(Thoroughness::Everything).unwrap();
}

#[test]
fn what_did_not_change_is_not_read_again() {
    let bench = Bench::new();
    bench.create();
    let old = noise(16, 8 << 20);
    bench.back_up("first", &[("layers/one/system", old.clone())]);
    // Other bytes under the same name, size and time: whoever reads them would see it.
    let path = bench.folder.path().join("files/layers/one/system");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, noise(17, 8 << 20)).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let unchanged = SourceFile { name: "layers/one/system".into(), content: Content::File(path) };
    let new = bench.file("layers/two/system", &noise(18, 1 << 20));
    let made = bench.open().back_up(&part("second"), vec![unchanged, new]).unwrap();
    assert!(made.added_bytes < (1 << 20) + (64 << 10), "{} bytes were added", made.added_bytes);
    let target = bench.folder.path().join("restored");
    bench.open().restore(&made, &target).unwrap();
    assert!(fs::read(target.join("layers/one/system")).unwrap() == old);
}

#[test]
fn a_restore_keeps_holes_and_times_and_goes_on_where_it_was() {
    let bench = Bench::new();
    bench.create();
    let path = bench.folder.path().join("sparse");
    let file = File::create_new(&path).unwrap();
    file.set_len(96 << 20).unwrap();
    file.write_all_at(&noise(19, 3 << 20), 40 << 20).unwrap();
    let files = vec![
        SourceFile { name: "layers/one/system".into(), content: Content::File(path.clone()) },
        SourceFile { name: "checkpoint.json".into(), content: Content::Bytes(b"{}".to_vec().into()) },
    ];
    let made = bench.open().back_up(&part("first"), files).unwrap();
    assert_eq!(bench.open().read(&made, "checkpoint.json").unwrap(), b"{}");
    let target = bench.folder.path().join("restored");
    let restored = bench.open().restore(&made, &target).unwrap();
    assert_eq!(
        restored.iter().map(|file| (file.name.as_str(), file.bytes)).collect::<Vec<_>>(),
        [("checkpoint.json", 2), ("layers/one/system", 96 << 20)]
    );
    let (old, new) = (fs::metadata(&path).unwrap(), fs::metadata(target.join("layers/one/system")).unwrap());
    assert!(new.blocks() * 512 < 16 << 20, "{} blocks", new.blocks());
    assert_eq!(old.modified().unwrap(), new.modified().unwrap());
    assert!(fs::read(&path).unwrap() == fs::read(target.join("layers/one/system")).unwrap());
    // Cut off in the middle, as by a crash.
    File::options().write(true).open(target.join("layers/one/system")).unwrap().set_len(41 << 20).unwrap();
    bench.open().restore(&made, &target).unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(target.join("layers/one/system")).unwrap());
}

#[test]
fn refuses_what_cannot_be_with_one_word_each() {
    let bench = Bench::new();
    let absent = Repository::open(&bench.place(), &Arc::default()).unwrap_err();
    assert!(matches!(&absent, Error::Absent { .. }), "{absent}");
    bench.create();
    let exists = Repository::create(&bench.place(), &Arc::default()).unwrap_err();
    assert!(matches!(&exists, Error::Exists { .. }), "{exists}");
    let wrong = Place::new(Location::Folder(bench.repository.clone()), Credentials::password("guess"), None);
    let refused = Repository::open(&wrong, &Arc::default()).unwrap_err();
    assert!(matches!(&refused, Error::Password { .. }), "{refused}");
    assert!(!refused.to_string().contains("guess"));
}
