//! Bytes that are here are not fetched.

use super::{Made, PIECE, full_in, numbered, open_in, pieces};
use crate::{Cache, PieceState, Ready, Source, Stored};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

const V1: [u32; 6] = [1, 2, 3, 0, 5, 6];
/// Of [`V1`]: three pieces as they were, one elsewhere, two new, one of them twice.
const V2: [u32; 8] = [1, 20, 3, 0, 5, 2, 30, 30];

fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), None).unwrap();
    (folder, cache)
}

fn served(ready: Ready) -> Vec<u8> {
    match ready {
        Ready::Bytes(bytes) => bytes.to_vec(),
        Ready::Absent(piece) => panic!("piece {piece} is absent"),
    }
}

/// A whole number of megabytes, so that five percent of the pieces is a whole number too.
#[test]
fn a_new_version_fetches_only_what_changed() {
    let (_folder, cache) = cache();
    let piece = 256 << 10;
    let mut random = 1_u64;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    })
    .take(64 << 20)
    .collect();
    let v1 = Made::new(bytes.clone(), piece);
    let changed: Vec<u32> = (0..256).filter(|index| index % 20 == 7).collect();
    for index in &changed {
        bytes[*index as usize * piece] ^= 1;
    }
    let v2 = Made::new(bytes, piece);
    drop(full_in(&cache, &v1, false).close());

    let volume = open_in(&cache, &v2, true);
    volume.begin_counting();
    assert_eq!(pieces(&volume, PieceState::Absent), changed);
    for index in 0..256 {
        volume.verify(index);
    }
    assert_eq!(pieces(&volume, PieceState::Absent), changed, "no other byte moves");
    for index in changed {
        assert_eq!(volume.store(index, &v2.piece(index), Source::Peer), Stored::Disk);
    }
    assert!(served(volume.read(0, 64 << 20)) == v2.bytes);
    let counted = volume.counted().0;
    assert_eq!((counted.peer, counted.cache), (13 * piece as u64, 243 * piece as u64));
    volume.close().unwrap();
    drop(volume);
    cache.remove(v1.digest()).unwrap();
    let volume = open_in(&cache, &v2, true);
    assert!(served(volume.read(0, 64 << 20)) == v2.bytes, "they are copies");
}

#[test]
fn what_an_idle_or_open_image_holds_is_claimed_and_read_without_the_swarm() {
    for open in [true, false] {
        let (_folder, cache) = cache();
        let (v1, v2) = (Made::of(&V1), Made::of(&V2));
        let lender = full_in(&cache, &v1, open);
        lender.close().unwrap();
        let lender = open.then_some(lender);
        let volume = open_in(&cache, &v2, true);
        assert_eq!(pieces(&volume, PieceState::Claimed), [0, 2, 4, 5]);
        assert_eq!(pieces(&volume, PieceState::Absent), [1, 6, 7]);
        assert_eq!(volume.count_in(&[PieceState::Claimed, PieceState::Zero]), 5);
        assert!(volume.read_now(0, 512).is_none(), "nothing unverified is served");
        assert!(volume.read_block(0, 0, 512).is_none(), "nor sent");
        assert_eq!(served(volume.read(5 * PIECE as u64, 512)), numbered(2)[..512]);
        assert_eq!(volume.state(5), PieceState::Held);
        drop(lender);
    }
}

#[test]
fn a_restart_takes_nothing_for_here_that_was_only_offered() {
    let (_folder, cache) = cache();
    let (v1, v2) = (Made::of(&V1), Made::of(&V2));
    drop(full_in(&cache, &v1, false).close());
    let volume = open_in(&cache, &v2, true);
    volume.begin_counting();
    volume.verify(0);
    volume.close().unwrap();
    drop(volume);
    cache.remove(v1.digest()).unwrap();
    let volume = open_in(&cache, &v2, true);
    assert_eq!(pieces(&volume, PieceState::Held), [0]);
    assert_eq!(pieces(&volume, PieceState::Claimed), [0; 0]);
    volume.store(2, &v2.piece(2), Source::Peer);
    volume.read(0, PIECE as u32);
    volume.read(2 * PIECE as u64, PIECE as u32);
    let counted = volume.counted().0;
    assert_eq!((counted.cache, counted.peer), (PIECE as u64, PIECE as u64), "each piece once");
}

#[test]
fn a_wrong_or_vanished_piece_of_another_image_is_only_absent() {
    let (_folder, cache) = cache();
    let (v1, v2) = (Made::of(&V1), Made::of(&V2));
    let lender = full_in(&cache, &v1, false);
    let path = cache.path(v1.digest()).join("data");
    let volume = open_in(&cache, &v2, true);
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"x", 9).unwrap();
    let before = cache.bytes();
    volume.verify(0);
    assert_eq!((volume.state(0), cache.bytes()), (PieceState::Absent, before), "nor does it take room");
    drop(lender);
    cache.remove(v1.digest()).unwrap();
    volume.verify(2);
    assert_eq!(volume.state(2), PieceState::Absent);
    assert!(matches!(volume.read(0, 512), Ready::Absent(0)));
    volume.store(0, &v2.piece(0), Source::Peer);
    assert_eq!(served(volume.read(0, PIECE as u32)), numbered(1));
}

#[test]
fn a_wrong_copy_does_not_hide_a_right_one() {
    let (_folder, cache) = cache();
    let made = [Made::of(&[1, 7]), Made::of(&[8, 1]), Made::of(&[9, 9, 1])];
    let lenders = [full_in(&cache, &made[0], true), full_in(&cache, &made[1], true)];
    for wrong in 0..2 {
        let path = cache.path(made[wrong].digest()).join("data");
        let at = wrong as u64 * PIECE as u64;
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"x", at).unwrap();
        let volume = open_in(&cache, &made[2], true);
        volume.verify(2);
        assert_eq!(volume.state(2), PieceState::Held);
        drop(volume);
        cache.remove(made[2].digest()).unwrap();
        file.write_all_at(&numbered(1)[..1], at).unwrap();
    }
    drop(lenders);
}

#[test]
fn what_comes_to_another_image_later_is_adopted() {
    let (_folder, cache) = cache();
    let (v1, v2) = (Made::of(&V1), Made::of(&V2));
    let (lender, volume) = (open_in(&cache, &v1, true), open_in(&cache, &v2, true));
    assert!(!volume.adopt(5), "nobody has it");
    lender.store(1, &v1.piece(1), Source::Origin);
    assert!(volume.adopt(5));
    assert!(volume.adopt(5) && volume.adopt(3), "what is here is here");
    assert_eq!(served(volume.read(5 * PIECE as u64, PIECE as u32)), numbered(2));
    assert_eq!(volume.counted().0.cache, PIECE as u64);
    assert_eq!(volume.unsynced(), 1, "it is still to be made durable");
}

#[test]
fn equal_pieces_of_one_image_are_fetched_once() {
    let (_folder, cache) = cache();
    let v2 = Made::of(&V2);
    let volume = open_in(&cache, &v2, true);
    assert_eq!((volume.twins(6), volume.twins(7), volume.twins(0)), (vec![7], vec![6], vec![]));
    assert!(!volume.adopt(7));
    volume.store(6, &v2.piece(6), Source::Peer);
    assert!(volume.adopt(7));
    assert_eq!(served(volume.read(7 * PIECE as u64, PIECE as u32)), numbered(30));
    volume.close().unwrap();
    drop(volume);
    assert_eq!(open_in(&cache, &v2, true).count_in(&[PieceState::Held]), 2);
}

#[test]
fn pieces_of_other_sizes_have_nothing_in_common() {
    let (_folder, cache) = cache();
    let bytes = [numbered(1), numbered(1), numbered(2), numbered(2)].concat();
    let (small, large) = (Made::new(bytes.clone(), PIECE), Made::new(bytes, 2 * PIECE));
    let lender = full_in(&cache, &small, true);
    let volume = open_in(&cache, &large, true);
    assert_eq!(pieces(&volume, PieceState::Claimed), [0; 0]);
    // But a last piece that is short has the size of the others there.
    let short = Made::new([numbered(8), numbered(9), numbered(1)].concat(), 2 * PIECE);
    assert_eq!(pieces(&open_in(&cache, &short, true), PieceState::Claimed), [1]);
    drop(lender);
}

#[test]
fn a_full_disk_lends_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), Some(5 * PIECE as u64)).unwrap();
    let (v1, v2) = (Made::of(&V1), Made::of(&V2));
    let lender = full_in(&cache, &v1, true);
    let volume = open_in(&cache, &v2, true);
    volume.verify(0);
    assert_eq!(volume.state(0), PieceState::Memory);
    assert!(volume.trouble().unwrap().contains("the cache is full"));
    assert_eq!(served(volume.read(0, PIECE as u32)), numbered(1));
    drop(lender);
}
