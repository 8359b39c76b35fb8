//! Absent pieces by number of copies, kept in order as peers come and announce: no walk over all pieces finds the rarest.

/// Not in any bucket.
const NOWHERE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Rarest {
    copies: Vec<u16>,
    /// Index of each piece in its bucket.
    place: Vec<u32>,
    /// Absent pieces that are not on their way, by number of copies.
    buckets: Vec<Vec<u32>>,
}

impl Rarest {
    /// Of so many pieces none is absent and none has a copy.
    pub(super) fn new(pieces: u32) -> Self {
        let pieces = pieces as usize;
        Self { copies: vec![0; pieces], place: vec![NOWHERE; pieces], buckets: vec![Vec::new()] }
    }

    pub(super) fn copies(&self, piece: u32) -> u16 {
        self.copies[piece as usize]
    }

    pub(super) fn contains(&self, piece: u32) -> bool {
        self.place[piece as usize] != NOWHERE
    }

    /// The piece is absent and nobody is asked for it.
    pub(super) fn put(&mut self, piece: u32) {
        if self.contains(piece) {
            return;
        }
        let copies = usize::from(self.copies(piece));
        if self.buckets.len() <= copies {
            self.buckets.resize_with(copies + 1, Vec::new);
        }
        let bucket = &mut self.buckets[copies];
        self.place[piece as usize] = u32::try_from(bucket.len()).unwrap_or(NOWHERE);
        bucket.push(piece);
    }

    /// The piece is here or on its way.
    pub(super) fn take(&mut self, piece: u32) {
        if !self.contains(piece) {
            return;
        }
        let bucket = &mut self.buckets[usize::from(self.copies[piece as usize])];
        let place = self.place[piece as usize];
        bucket.swap_remove(place as usize);
        if let Some(moved) = bucket.get(place as usize) {
            self.place[*moved as usize] = place;
        }
        self.place[piece as usize] = NOWHERE;
    }

    pub(super) fn one_more(&mut self, piece: u32) {
        self.recount(piece, |copies| copies.saturating_add(1));
    }

    pub(super) fn one_less(&mut self, piece: u32) {
        self.recount(piece, |copies| copies.saturating_sub(1));
    }

    fn recount(&mut self, piece: u32, change: impl FnOnce(u16) -> u16) {
        let absent = self.contains(piece);
        self.take(piece);
        let copies = &mut self.copies[piece as usize];
        *copies = change(*copies);
        if absent {
            self.put(piece);
        }
    }

    /// Is there an absent piece that somebody has?
    pub(super) fn any(&self) -> bool {
        self.buckets.iter().skip(1).any(|bucket| !bucket.is_empty())
    }

    /// Some absent pieces that somebody has, rarest first; at most `each` of one number of copies and `most` together.
    /// Among equals it begins at a place `random` chooses, so that what is left out this time comes another time.
    pub(super) fn some(&self, each: usize, most: usize, random: u64) -> Vec<u32> {
        let mut found = Vec::with_capacity(most);
        for bucket in self.buckets.iter().skip(1).filter(|bucket| !bucket.is_empty()) {
            let first = usize::try_from(random % (bucket.len() as u64)).unwrap_or(0);
            let count = each.min(bucket.len()).min(most - found.len());
            found.extend((0..count).map(|at| bucket[(first + at) % bucket.len()]));
            if found.len() == most {
                break;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn buckets_agree_with_a_plain_count(steps in prop::collection::vec((0u32..20, 0u8..4), 0..200)) {
            let mut rarest = Rarest::new(20);
            let (mut absent, mut copies) = (BTreeSet::new(), BTreeMap::<u32, u16>::new());
            for (piece, step) in steps {
                match step {
                    0 => { rarest.put(piece); absent.insert(piece); }
                    1 => { rarest.take(piece); absent.remove(&piece); }
                    2 => { rarest.one_more(piece); *copies.entry(piece).or_default() += 1; }
                    _ => {
                        rarest.one_less(piece);
                        let copies = copies.entry(piece).or_default();
                        *copies = copies.saturating_sub(1);
                    }
                }
            }
            let copies_of = |piece: &u32| copies.get(piece).copied().unwrap_or(0);
            let all = rarest.some(20, 400, 7);
            let expected: BTreeSet<u32> = absent.iter().copied().filter(|piece| copies_of(piece) > 0).collect();
            prop_assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), expected);
            prop_assert!(all.is_sorted_by_key(copies_of));
            prop_assert_eq!(rarest.any(), !all.is_empty());
        }
    }
}
