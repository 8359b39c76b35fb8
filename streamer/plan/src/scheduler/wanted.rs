//! The ordered pieces that are wanted soon, and how far they are believed.

use super::Tuning;
use std::collections::HashMap;

/// Reads the profile did not name, more than it did, that make us careful with it.
const DOUBT_MAX: u8 = 4;

/// What one read that the profile names takes away of doubt. A right profile is never quite right.
const TRUST_PER_HIT: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Wanted {
    order: Vec<u32>,
    place: HashMap<u32, u32>,
    /// Everything in `order` before this was opened.
    cursor: usize,
    /// Next missing pieces in the order we try them.
    open: Vec<u32>,
    doubt: u8,
}

impl Wanted {
    pub(super) fn replace(&mut self, order: Vec<u32>) {
        if self.order.is_empty() {
            self.doubt = 0;
        }
        self.place = (0u32..).zip(&order).map(|(place, piece)| (*piece, place)).collect();
        self.order = order;
        self.cursor = 0;
        self.open.clear();
    }

    pub(super) fn names(&self, piece: u32) -> bool {
        self.place.contains_key(&piece)
    }

    pub(super) fn place(&self, piece: u32) -> u32 {
        self.place.get(&piece).copied().unwrap_or(u32::MAX)
    }

    /// A guest misses a piece: the profile is late if it names it, and wrong if not.
    pub(super) fn missed(&mut self, piece: u32) {
        if self.order.is_empty() {
            return;
        }
        self.doubt = if self.names(piece) {
            self.doubt.saturating_sub(TRUST_PER_HIT)
        } else {
            (self.doubt + 1).min(2 * DOUBT_MAX)
        };
    }

    /// Guests read something else: what the profile takes must not be felt.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubt >= DOUBT_MAX
    }

    /// Opens the next missing pieces, mixed among the last `diversity` opened, and forgets those not missing any more.
    pub(super) fn open(
        &mut self,
        tuning: &Tuning,
        diversity: usize,
        missing: impl Fn(u32) -> bool,
        mut random: impl FnMut() -> u64,
    ) {
        self.open.retain(|piece| missing(*piece));
        while self.open.len() < tuning.window_pieces && self.cursor < self.order.len() {
            let piece = self.order[self.cursor];
            self.cursor += 1;
            if missing(piece) {
                let among = self.open.len().min(diversity.saturating_sub(1)) + 1;
                let back = usize::try_from(random() % (among as u64)).unwrap_or(0);
                self.open.insert(self.open.len() - back, piece);
            }
        }
    }

    pub(super) fn opened(&self) -> &[u32] {
        &self.open
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.open.is_empty() && self.cursor >= self.order.len()
    }

    /// A piece that was started is absent again.
    pub(super) fn again(&mut self, piece: u32) {
        let opened = (self.place(piece) as usize) < self.cursor;
        if self.names(piece) && opened && !self.open.contains(&piece) {
            self.open.insert(0, piece);
        }
    }
}
