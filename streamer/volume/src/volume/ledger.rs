//! What was read, and where it had come from: each piece is counted once.

use super::{Source, Volume, lock};
use crate::have::Counted;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use streamer_api::BytesBySource;
use streamer_plan::Pieces;

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) counted: Counted,
    /// Pieces that were here when the image was named, or came from another image since.
    pub(crate) cached: Pieces,
}

/// Pieces that were read: one bit each, set without a lock.
#[derive(Debug)]
pub(crate) struct Touched {
    words: Box<[AtomicU64]>,
    pieces: u32,
}

impl Touched {
    pub(crate) fn new(touched: &Pieces) -> Self {
        let words: Box<[AtomicU64]> = (0..touched.length().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        for piece in touched.iter() {
            words[(piece / 64) as usize].fetch_or(1 << (piece % 64), Ordering::Relaxed);
        }
        Self { words, pieces: touched.length() }
    }

    /// `true` if it was not there.
    fn insert(&self, piece: u32) -> bool {
        let bit = 1 << (piece % 64);
        self.words.get((piece / 64) as usize).is_some_and(|word| {
            word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
        })
    }

    fn clear(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    pub(crate) fn to_pieces(&self) -> Pieces {
        let mut pieces = Pieces::none(self.pieces);
        for (index, word) in (0_u32..).zip(&self.words) {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                pieces.insert(index * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        pieces
    }
}

impl Volume {
    /// The image is named now: what is here came from an earlier run, and counting begins anew.
    pub fn begin_counting(&self) {
        let here = self.pieces_in(&[super::PieceState::Held, super::PieceState::Claimed]);
        let mut ledger = lock(&self.ledger);
        ledger.counted.bytes = BytesBySource::default();
        ledger.cached = Pieces::none(self.image.geometry.pieces());
        for piece in here {
            ledger.cached.insert(piece);
        }
        self.touched.clear();
        drop(ledger);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Bytes were sent to a peer; does not block.
    pub fn uploaded(&self, bytes: u64) {
        lock(&self.ledger).counted.uploaded += bytes;
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Bytes by source, bytes uploaded, bytes poisoned.
    #[must_use]
    pub fn counted(&self) -> (BytesBySource, u64, u64) {
        let counted = lock(&self.ledger).counted;
        (counted.bytes, counted.uploaded, counted.poisoned)
    }

    pub(super) fn count_poisoned(&self, bytes: u64) {
        lock(&self.ledger).counted.poisoned += bytes;
        self.changed.store(true, Ordering::Relaxed);
    }

    /// A piece came that was not here.
    pub(super) fn count_piece(&self, piece: u32, source: Source) {
        let length = u64::from(self.image.geometry.length(piece));
        let mut ledger = lock(&self.ledger);
        let bytes = &mut ledger.counted.bytes;
        match source {
            Source::Origin => bytes.origin += length,
            Source::Peer => bytes.peer += length,
            Source::WebSeed => bytes.web_seed += length,
            Source::Local => drop(ledger.cached.insert(piece)),
        }
    }

    /// A piece is not here after all.
    pub(super) fn count_lost(&self, piece: u32) {
        lock(&self.ledger).cached.remove(piece);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Counts zero and cached pieces when they are first read.
    /// A read was answered with zeros without looking here: counted all the same.
    pub fn passed_over(&self, offset: u64, length: u32) {
        self.touch(self.range(offset, length));
    }

    pub(super) fn touch(&self, pieces: Range<u32>) {
        for piece in pieces {
            if !self.touched.insert(piece) {
                continue;
            }
            let length = u64::from(self.image.geometry.length(piece));
            let mut ledger = lock(&self.ledger);
            if self.image.zero.contains(piece) {
                ledger.counted.bytes.zero += length;
            } else if ledger.cached.contains(piece) {
                ledger.counted.bytes.cache += length;
            }
            drop(ledger);
            self.changed.store(true, Ordering::Relaxed);
        }
    }
}
