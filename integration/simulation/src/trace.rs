//! What one guest reads: first touches of pieces, with the time it thinks before each.

use anyhow::{Context as _, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeSet;
use std::time::Duration;

/// Bytes of a piece of every image that is smaller than 32 GiB.
pub const PIECE_BYTES: u32 = 256 * 1024;

/// The boot of the demo's workspace appliance from a local disk, as the bench recorded it.
const RECORDED: &str = include_str!("../traces/workspace-boot.csv");

/// A guest's first touches, in order.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Pieces of the image.
    pub pieces: u32,
    /// Piece, and what the guest thinks before it reads it.
    pub steps: Vec<(u32, Duration)>,
}

impl Trace {
    /// The recorded boot that ships with the simulation.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn recorded() -> anyhow::Result<Self> {
        Self::parse(RECORDED)
    }

    /// Reads `at_ms,piece` lines below a heading, in order of time.
    ///
    /// # Errors
    /// If a line is not that.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (mut steps, mut before) = (Vec::new(), 0u64);
        for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
            let (at, piece) = line.split_once(',').with_context(|| format!("no comma in {line:?}"))?;
            let at: u64 = at.trim().parse().with_context(|| format!("no time in {line:?}"))?;
            ensure!(at >= before, "time runs backwards at {line:?}");
            steps.push((piece.trim().parse()?, Duration::from_millis(at - before)));
            before = at;
        }
        let last = steps.iter().map(|(piece, _)| *piece).max().context("an empty trace")?;
        Ok(Self { pieces: last + 1, steps })
    }

    /// A boot of a 2 GiB image as they look: 330 pieces in bursts over 12 s, mostly forward, with jumps.
    #[must_use]
    pub fn synthetic(seed: u64) -> Self {
        const PIECES: u32 = 8192;
        let mut random = StdRng::seed_from_u64(seed);
        let (mut steps, mut seen, mut at) = (Vec::new(), BTreeSet::new(), 0u32);
        while steps.len() < 330 {
            // A burst: a program and its libraries.
            at = if random.random_bool(0.7) { at + random.random_range(1..40) } else { random.random() }
                % PIECES;
            let burst = random.random_range(1..16);
            for index in 0..burst {
                let piece = (at + index * random.random_range(1..3)) % PIECES;
                let first = index == 0;
                if seen.insert(piece) {
                    let ms = if first { random.random_range(40..440) } else { random.random_range(0..8) };
                    steps.push((piece, Duration::from_millis(ms)));
                }
            }
        }
        steps.truncate(330);
        Self { pieces: PIECES, steps }
    }

    /// What a guest needs that waits for nothing.
    #[must_use]
    pub fn thinking(&self) -> Duration {
        self.steps.iter().map(|(_, think)| *think).sum()
    }

    /// Bytes of the pieces touched.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.steps.len() as u64 * u64::from(PIECE_BYTES)
    }

    /// What earlier boots made of it: a few pieces missing, neighbours in another order.
    #[must_use]
    pub fn profile(&self, seed: u64) -> Vec<u32> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut order: Vec<u32> = self.steps.iter().map(|(piece, _)| *piece).collect();
        order.retain(|_| !random.random_bool(0.03));
        for few in order.chunks_mut(4) {
            few.shuffle(&mut random);
        }
        order
    }

    /// As many pieces, none of which the guest will read.
    #[must_use]
    pub fn wrong_profile(&self, seed: u64) -> Vec<u32> {
        let read: BTreeSet<u32> = self.steps.iter().map(|(piece, _)| *piece).collect();
        let mut other: Vec<u32> = (0..self.pieces).filter(|piece| !read.contains(piece)).collect();
        other.shuffle(&mut StdRng::seed_from_u64(seed));
        other.truncate(self.steps.len());
        other
    }
}
