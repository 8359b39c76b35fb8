//! Who leaves when the cache is full.

use super::shim::failing;
use super::{Made, PIECE, full_in, open_in};
use crate::probe::Op;
use crate::{Cache, PieceState, Settings, Source, Stored};
use std::cell::Cell;
use std::fs::File;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

/// Images of three pieces each, idle, the first longest unused.
fn idle(cache: &Cache, count: u32) -> Vec<Made> {
    let made: Vec<Made> = (0..count).map(|n| Made::of(&[10 * n + 1, 10 * n + 2, 10 * n + 3])).collect();
    for (age, made) in (0_u64..).zip(&made) {
        full_in(cache, made, false).close().unwrap();
        let have = File::options().write(true).open(cache.path(made.digest()).join("have")).unwrap();
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + age);
        have.set_modified(used).unwrap();
    }
    made
}

fn cache(pieces: usize) -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), Some((pieces * PIECE) as u64)).unwrap();
    (folder, cache)
}

fn here(cache: &Cache, made: &[Made]) -> Vec<bool> {
    let images = cache.images().unwrap();
    made.iter().map(|made| images.contains(&made.digest())).collect()
}

#[test]
fn the_longest_unused_leave_first_and_no_more_than_must() {
    let (_folder, cache) = cache(9);
    let made = idle(&cache, 3);
    assert!(cache.make_room(0, &|_| false).is_empty());
    assert_eq!(cache.make_room(4 * PIECE as u64, &|_| false), [made[0].digest(), made[1].digest()]);
    assert_eq!(here(&cache, &made), [false, false, true]);
    assert_eq!(cache.bytes(), 3 * PIECE as u64);
}

#[test]
fn the_named_the_pinned_the_open_and_those_in_use_stay() {
    let (folder, cache) = cache(15);
    let made = idle(&cache, 5);
    let kept = |index: usize, change: &dyn Fn(&mut Settings)| {
        let mut settings = cache.settings(made[index].digest()).unwrap();
        change(&mut settings);
        cache.set_settings(made[index].digest(), &settings).unwrap();
    };
    kept(0, &|settings| settings.named = true);
    kept(1, &|settings| settings.pinned = true);
    kept(2, &|settings| settings.source.pin = true);
    let open = open_in(&cache, &made[3], false);
    let in_use = made[4].digest();
    assert!(cache.make_room(u64::MAX, &|digest| digest == in_use).is_empty());
    drop(open);
    assert_eq!(cache.make_room(u64::MAX, &|digest| digest == in_use), [made[3].digest()]);
    drop(cache);
    let cache = Cache::open(folder.path(), Some(PIECE as u64)).unwrap();
    assert_eq!(cache.make_room(1, &|_| false), [in_use], "pins outlive the daemon");
    assert_eq!(here(&cache, &made), [true, true, true, false, false]);
}

#[test]
fn an_image_that_grows_evicts_too_and_is_told_apart_from_a_full_disk() {
    let (_folder, cache) = cache(7);
    let made = idle(&cache, 2);
    let new = Made::of(&[100, 101, 102, 103, 104, 105, 106, 107]);
    let volume = open_in(&cache, &new, true);
    for piece in 0..7 {
        assert_eq!(volume.store(piece, &new.piece(piece), Source::Peer), Stored::Disk);
        assert!(cache.bytes() <= 7 * PIECE as u64);
        let gone = [piece >= 1, piece >= 4];
        assert_eq!(here(&cache, &made), gone.map(|gone| !gone));
    }
    assert!(volume.trouble().is_none());
    assert_eq!(volume.store(7, &new.piece(7), Source::Peer), Stored::Memory);
    assert!(volume.trouble().unwrap().contains("the cache is full"), "nothing is left to evict");
    assert_eq!(volume.read_block(7, 0, 512), None);
    assert!(matches!(volume.read(7 * PIECE as u64, 512), crate::Ready::Bytes(_)));
}

#[test]
fn a_full_disk_evicts_one_image_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), None).unwrap();
    let made = idle(&cache, 3);
    let new = Made::of(&[100, 101]);
    let volume = open_in(&cache, &new, true);
    let tries = Cell::new(0);
    let full = move |name: &str, op: &Op<'_>| {
        let write = name == "data" && matches!(op, Op::Write(..));
        tries.set(tries.get() + u32::from(write));
        (write && tries.get() <= 2).then_some(ErrorKind::StorageFull)
    };
    let stored = failing(full, || volume.store(0, &new.piece(0), Source::Peer));
    assert_eq!(stored, Stored::Disk);
    assert_eq!(here(&cache, &made), [false, false, true]);
    assert!(volume.trouble().is_none());
}

#[test]
fn room_that_a_lost_piece_took_is_free_again() {
    let (_folder, cache) = cache(3);
    let new = Made::of(&[1, 2, 3]);
    let volume = full_in(&cache, &new, true);
    drop(volume);
    std::fs::remove_file(cache.path(new.digest()).join("have")).unwrap();
    let data = File::options().write(true).open(cache.path(new.digest()).join("data")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&data, b"x", 3).unwrap();
    let volume = open_in(&cache, &new, true);
    volume.verify(0);
    assert_eq!(volume.state(0), PieceState::Absent);
    assert_eq!(cache.bytes(), 2 * PIECE as u64);
    assert_eq!(volume.store(0, &new.piece(0), Source::Peer), Stored::Disk);
}
