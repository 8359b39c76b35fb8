//! Where each piece is: one byte a piece, read without a lock.

use super::PieceState;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// [`PieceState`], and what only we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    /// Not here.
    Absent = 0,
    /// In our file, they say.
    Claimed = 1,
    /// Verified, in our file.
    Held = 2,
    /// All zero.
    Zero = 3,
    /// Verified, in memory.
    Memory = 4,
    /// In another image's file, or elsewhere in ours, they say.
    Offered = 5,
}

const PLACES: usize = 6;

impl Place {
    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Claimed,
            2 => Self::Held,
            3 => Self::Zero,
            4 => Self::Memory,
            5 => Self::Offered,
            _ => Self::Absent,
        }
    }

    pub(crate) fn seen(self) -> PieceState {
        match self {
            Self::Absent => PieceState::Absent,
            Self::Claimed | Self::Offered => PieceState::Claimed,
            Self::Held => PieceState::Held,
            Self::Zero => PieceState::Zero,
            Self::Memory => PieceState::Memory,
        }
    }

    pub(crate) fn all(of: PieceState) -> &'static [Self] {
        match of {
            PieceState::Absent => &[Self::Absent],
            PieceState::Claimed => &[Self::Claimed, Self::Offered],
            PieceState::Held => &[Self::Held],
            PieceState::Zero => &[Self::Zero],
            PieceState::Memory => &[Self::Memory],
        }
    }
}

/// The places of an image's pieces, and how many are in each.
#[derive(Debug)]
pub(crate) struct States {
    places: Box<[AtomicU8]>,
    counts: [AtomicU32; PLACES],
    /// How often a piece that was held has ceased to be.
    losses: AtomicU64,
}

impl States {
    pub(crate) fn new(places: impl Iterator<Item = Place>) -> Self {
        let places: Box<[AtomicU8]> = places.map(|place| AtomicU8::new(place as u8)).collect();
        let mut counts = [0; PLACES];
        for place in &places {
            counts[place.load(Ordering::Relaxed) as usize] += 1;
        }
        Self { places, counts: counts.map(AtomicU32::new), losses: AtomicU64::new(0) }
    }

    /// [`Place::Absent`] beyond the last piece.
    pub(crate) fn get(&self, piece: u32) -> Place {
        let place = self.places.get(piece as usize).map(|place| place.load(Ordering::Acquire));
        place.map_or(Place::Absent, Place::of)
    }

    /// Returns where it was.
    pub(crate) fn set(&self, piece: u32, to: Place) -> Place {
        let Some(place) = self.places.get(piece as usize) else { return Place::Absent };
        if to != Place::Held && place.load(Ordering::Acquire) == Place::Held as u8 {
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
        let before = Place::of(place.swap(to as u8, Ordering::AcqRel));
        self.counts[to as usize].fetch_add(1, Ordering::Relaxed);
        self.counts[before as usize].fetch_sub(1, Ordering::Relaxed);
        before
    }

    /// As [`Self::set`], if it is where it is thought to be.
    pub(crate) fn change(&self, piece: u32, from: Place, to: Place) {
        let Some(place) = self.places.get(piece as usize) else { return };
        if place.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.counts[to as usize].fetch_add(1, Ordering::Relaxed);
            self.counts[from as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Pieces in one place.
    pub(crate) fn count(&self, place: Place) -> u32 {
        self.counts[place as usize].load(Ordering::Relaxed)
    }

    /// Changes before a held piece's bytes may. Bytes that were read while it did not are those that were held.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }
}
