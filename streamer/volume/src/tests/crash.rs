//! What is left when the power goes, or the disk fails.

use super::shim::{Done, Step, failing, record, recorded};
use super::{Made, PIECE, full_in, numbered, open_in};
use crate::have::Have;
use crate::probe::Op;
use crate::{Cache, PieceState, Ready, Source, Stored, Volume};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const SECTOR: usize = 512;
/// A lender holds the pieces of the numbers 3, 4 and 9.
const PIECES: [u32; 8] = [1, 2, 3, 4, 0, 5, 5, 6];

/// A file as the disk has it, and what was written since it was last made durable.
#[derive(Default)]
struct Platter {
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

impl Platter {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.durable.resize(self.durable.len().max(at + bytes.len()), 0);
        self.durable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Any sector that was not made durable may be there or not.
    fn crash(mut self, mut survives: impl FnMut() -> bool) -> Vec<u8> {
        for (at, bytes) in std::mem::take(&mut self.pending) {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                if survives() {
                    self.put(at + index * SECTOR, sector);
                }
            }
        }
        self.durable
    }

    fn step(&mut self, done: &Done, image: &[u8]) {
        match done {
            Done::Write(at, bytes) => self.pending.push((*at as usize, bytes.clone())),
            Done::Copy(at, length) => {
                let range = *at as usize..(*at + *length) as usize;
                self.pending.push((range.start, image[range].to_vec()));
            }
            Done::Punch(at, length) => self.pending.push((*at as usize, vec![0; *length as usize])),
            Done::Replace(bytes) => {
                self.pending.clear();
                self.durable.clone_from(bytes);
            }
            Done::Sync => {
                for (at, bytes) in std::mem::take(&mut self.pending) {
                    self.put(at, &bytes);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Store(u32),
    Poison(u32),
    Adopt(u32),
    Read(u32),
    Flush,
    /// A flush that fails: the file that does.
    Fail(&'static str),
    /// Closed in order, and opened again.
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0_u32..8).prop_map(Act::Store),
        1 => (0_u32..8).prop_map(Act::Poison),
        2 => (0_u32..8).prop_map(Act::Adopt),
        2 => (0_u32..8).prop_map(Act::Read),
        3 => Just(Act::Flush),
        1 => prop::sample::select(vec!["data", "have"]).prop_map(Act::Fail),
        1 => Just(Act::Restart),
    ]
}

fn held(volume: &Volume) -> BTreeSet<u32> {
    volume.pieces_in(&[PieceState::Held]).collect()
}

fn carry_out(cache: &Cache, made: &Made, volume: Volume, act: &Act) -> (Volume, bool) {
    match act {
        Act::Store(piece) => drop(volume.store(*piece, &made.piece(*piece), Source::Peer)),
        Act::Poison(piece) => {
            assert_eq!(volume.store(*piece, &numbered(77).into(), Source::Peer), Stored::Poisoned);
        }
        Act::Adopt(piece) => drop(volume.adopt(*piece)),
        Act::Read(piece) => drop(volume.read(u64::from(*piece) * PIECE as u64, 512)),
        Act::Flush => {
            volume.flush().unwrap();
            return (volume, true);
        }
        Act::Fail(file) => {
            let file = *file;
            let fails = move |name: &str, op: &Op<'_>| {
                (name == file && !matches!(op, Op::Punch(..))).then_some(ErrorKind::Other)
            };
            drop(failing(fails, || volume.flush()));
        }
        Act::Restart => {
            volume.close().unwrap();
            drop(volume);
            return (open_in(cache, made, true), true);
        }
    }
    (volume, false)
}

fn check(volume: &Volume, made: &Made, promised: &BTreeSet<u32>) {
    for index in 0..8 {
        match volume.read(u64::from(index) * PIECE as u64, PIECE as u32) {
            Ready::Bytes(bytes) => {
                assert!(bytes == made.piece(index), "wrong bytes of piece {index} were served")
            }
            Ready::Absent(_) => assert!(!promised.contains(&index), "piece {index} was durable, and is lost"),
        }
    }
}

/// The folder as a crash after some of the steps may leave it.
fn crashed(folder: &Path, made: &Made, steps: &[Step], mut survives: impl FnMut() -> bool) {
    let (mut data, mut have) = (Platter::default(), Platter::default());
    data.durable.resize(made.bytes.len(), 0);
    for (name, done) in steps {
        match name.as_str() {
            "data" => data.step(done, &made.bytes),
            "have" => have.step(done, &made.bytes),
            _ => {}
        }
    }
    let (data, have) = (data.crash(&mut survives), have.crash(&mut survives));
    if let Ok(Some(have)) = Have::load(&written(folder, "have", &have), 8) {
        for piece in have.held.iter() {
            let at = piece as usize * PIECE;
            assert!(
                data[at..at + PIECE] == made.piece(piece),
                "piece {piece} was claimed before it was on disk"
            );
        }
    }
    written(folder, "data", &data);
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    if bytes.is_empty() {
        let _ = std::fs::remove_file(&path);
    } else {
        std::fs::write(&path, bytes).unwrap();
    }
    path
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Everything is recorded, and the power goes after every single step.
    #[test]
    fn at_no_moment_a_crash_makes_a_wrong_byte_served_or_loses_what_was_durable(
        acts in prop::collection::vec(act(), 1..24), luck in any::<u64>(),
    ) {
        let made = Made::of(&PIECES);
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), None).unwrap();
        let lender = full_in(&cache, &Made::of(&[9, 3, 4]), true);
        let mut volume = open_in(&cache, &made, true);
        record();
        let mut steps: Vec<Step> = Vec::new();
        // How many steps there were when these pieces had become durable.
        let mut promises: Vec<(usize, BTreeSet<u32>)> = Vec::new();
        for act in &acts {
            let (next, durable) = carry_out(&cache, &made, volume, act);
            volume = next;
            steps.extend(recorded());
            if durable {
                promises.push((steps.len(), held(&volume)));
            }
        }
        check(&volume, &made, promises.last().map_or(&BTreeSet::new(), |(_, held)| held));
        drop((volume, lender));

        let after = tempfile::tempdir().unwrap();
        let cache = Cache::open(after.path(), None).unwrap();
        drop(open_in(&cache, &made, true));
        let mut luck = luck;
        let mut survives = || {
            luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            luck >> 63 == 1
        };
        for crash in 0..=steps.len() {
            crashed(&cache.path(made.digest()), &made, &steps[..crash], &mut survives);
            let nothing = BTreeSet::new();
            let promised = promises.iter().rev().find(|(at, _)| *at <= crash).map_or(&nothing, |(_, held)| held);
            check(&open_in(&cache, &made, true), &made, promised);
        }
    }

    #[test]
    fn neither_truncation_nor_flipped_bits_make_a_wrong_byte_served(
        damage in prop::collection::vec((any::<bool>(), any::<bool>(), any::<prop::sample::Index>()), 1..6),
        clean in any::<bool>(),
    ) {
        let made = Made::of(&PIECES);
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), None).unwrap();
        let volume = full_in(&cache, &made, true);
        if clean { volume.close().unwrap() } else { volume.flush().unwrap() }
        drop(volume);
        for (map, cut, at) in damage {
            let path = cache.path(made.digest()).join(if map { "have" } else { "data" });
            let mut bytes = std::fs::read(&path).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let at = at.index(bytes.len());
            bytes[at] ^= 0x10;
            bytes.truncate(if cut { at } else { bytes.len() });
            std::fs::write(&path, bytes).unwrap();
        }
        check(&open_in(&cache, &made, true), &made, &BTreeSet::new());
    }
}

/// Linux tells of a failed write once, then calls the pages clean: what is read from memory afterwards proves nothing.
#[test]
fn what_a_failed_sync_lost_is_found_out_and_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), None).unwrap();
    let made = Made::of(&PIECES);
    let volume = open_in(&cache, &made, true);
    volume.store(0, &made.piece(0), Source::Peer);
    volume.flush().unwrap();
    volume.store(1, &made.piece(1), Source::Peer);
    volume.store(2, &made.piece(2), Source::Peer);
    let data = std::fs::File::options().write(true).open(cache.path(made.digest()).join("data")).unwrap();
    let loses = move |name: &str, op: &Op<'_>| {
        (name == "data" && *op == Op::Sync).then(|| {
            data.write_all_at(&numbered(0)[..4096], PIECE as u64 + 4096).unwrap();
            data.sync_all().unwrap();
            ErrorKind::Other
        })
    };
    assert!(failing(loses, || volume.flush()).is_err());
    assert!(volume.trouble().unwrap().contains("cannot make pieces stored"));
    let states: Vec<PieceState> = (0..3).map(|piece| volume.state(piece)).collect();
    assert_eq!(states, [PieceState::Held, PieceState::Absent, PieceState::Held]);
    assert_eq!(volume.settle().absent, [1]);
    assert_eq!(volume.settle().absent, [0; 0], "it is told once");
    assert_eq!(volume.unsynced(), 1, "what the disk has is still to be made durable");
    volume.store(1, &made.piece(1), Source::Peer);
    volume.flush().unwrap();
    assert!(volume.trouble().is_none());
    check(&volume, &made, &[0, 1, 2].into());
}

#[test]
fn a_disk_that_can_not_even_be_read_after_a_failed_sync_holds_nothing_new() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), None).unwrap();
    let made = Made::of(&PIECES);
    let volume = open_in(&cache, &made, true);
    volume.store(0, &made.piece(0), Source::Peer);
    let path = cache.path(made.digest()).join("data");
    let fails = move |name: &str, op: &Op<'_>| {
        (name == "data" && *op == Op::Sync).then(|| {
            std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
            ErrorKind::Other
        })
    };
    assert!(failing(fails, || volume.close()).is_err());
    assert_eq!(volume.state(0), PieceState::Absent);
    drop(volume);
    assert_eq!(open_in(&cache, &made, true).count_in(&[PieceState::Claimed, PieceState::Held]), 0);
}
