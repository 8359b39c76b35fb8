//! Patterns with masks, at the speed of memory. Pure.

use memchr::memmem;

/// A pattern that can be looked for again and again.
#[derive(Debug)]
pub(crate) struct Pattern {
    bytes: Vec<u8>,
    /// As long as `bytes`.
    mask: Vec<u8>,
    /// The longest run of bytes that are compared whole: what is looked for at speed.
    anchor: std::ops::Range<usize>,
    finder: memmem::Finder<'static>,
}

impl Pattern {
    /// `mask` is empty or as long as `bytes`; a bit that is 0 in it is not compared. The caller has checked the lengths.
    pub(crate) fn new(bytes: &[u8], mask: &[u8]) -> Self {
        let mask = if mask.is_empty() { vec![0xff; bytes.len()] } else { mask.to_vec() };
        let bytes: Vec<u8> = bytes.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
        let anchor = longest_whole_run(&mask);
        let finder = memmem::Finder::new(&bytes[anchor.clone()]).into_owned();
        Self { bytes, mask, anchor, finder }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Offsets in `haystack` where it begins and ends inside, ascending.
    pub(crate) fn find_in<'a>(&'a self, haystack: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let last = haystack.len().checked_sub(self.len());
        let mut next = 0;
        std::iter::from_fn(move || {
            while next <= last? {
                // An empty anchor is found everywhere: then every offset is compared.
                let from = next + self.anchor.start;
                let start = next + self.finder.find(&haystack[from..])?;
                if start > last? {
                    return None;
                }
                next = start + 1;
                if self.is_at(&haystack[start..]) {
                    return Some(start);
                }
            }
            None
        })
    }

    fn is_at(&self, place: &[u8]) -> bool {
        place.iter().zip(&self.mask).zip(&self.bytes).all(|((byte, mask), wanted)| byte & mask == *wanted)
    }
}

fn longest_whole_run(mask: &[u8]) -> std::ops::Range<usize> {
    let mut best = 0..0;
    let mut start = 0;
    for (position, byte) in mask.iter().enumerate() {
        if *byte != 0xff {
            start = position + 1;
        } else if position + 1 - start > best.len() {
            best = start..position + 1;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_masked_pattern_is_found_where_its_compared_bits_are() {
        let pattern = Pattern::new(b"swXpper", &[255, 255, 0, 255, 255, 255, 255]);
        assert_eq!(pattern.find_in(b"..swapper/0 swepper swppper").collect::<Vec<_>>(), [2, 12, 20]);
        let halves = Pattern::new(&[0x4f; 4], &[0xf0; 4]);
        assert_eq!(halves.find_in(b"AAAAA0").collect::<Vec<_>>(), [0, 1]);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_slow_search_finds(
            haystack in proptest::collection::vec(0_u8..4, 0..200),
            pattern in proptest::collection::vec((0_u8..4, prop_oneof![Just(0xff_u8), Just(1), Just(0)]), 4..8),
        ) {
            let (bytes, mask): (Vec<u8>, Vec<u8>) = pattern.into_iter().unzip();
            let slow: Vec<usize> = (0..(haystack.len() + 1).saturating_sub(bytes.len()))
                .filter(|at| (0..bytes.len()).all(|i| (haystack[at + i] ^ bytes[i]) & mask[i] == 0))
                .collect();
            prop_assert_eq!(Pattern::new(&bytes, &mask).find_in(&haystack).collect::<Vec<_>>(), slow);
        }
    }
}
