//! A set of pieces of one image.

use thiserror::Error;

/// A set of pieces. Its wire form is BitTorrent's bitfield.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    words: Vec<u64>,
    length: u32,
    count: u32,
}

/// A bitfield that does not fit the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a bitfield of {bytes} bytes does not describe {pieces} pieces")]
pub struct WrongBitfield {
    bytes: usize,
    pieces: u32,
}

impl Pieces {
    /// No piece out of `length`.
    #[must_use]
    pub fn none(length: u32) -> Self {
        Self { words: vec![0; length.div_ceil(64) as usize], length, count: 0 }
    }

    /// Reads a bitfield: the first piece is the highest bit of the first byte.
    ///
    /// # Errors
    /// If the length is wrong or a bit beyond the last piece is set.
    pub fn from_bitfield(bytes: &[u8], length: u32) -> Result<Self, WrongBitfield> {
        let wrong = WrongBitfield { bytes: bytes.len(), pieces: length };
        if bytes.len() != length.div_ceil(8) as usize {
            return Err(wrong);
        }
        let mut pieces = Self::none(length);
        for (byte, bits) in (0u32..).zip(bytes) {
            for bit in (0..8).filter(|bit| bits & (0x80 >> bit) != 0) {
                let piece = byte * 8 + bit;
                if piece >= length {
                    return Err(wrong);
                }
                pieces.insert(piece);
            }
        }
        Ok(pieces)
    }

    /// Writes a bitfield.
    #[must_use]
    pub fn to_bitfield(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length.div_ceil(8) as usize];
        for piece in self.iter() {
            bytes[(piece / 8) as usize] |= 0x80 >> (piece % 8);
        }
        bytes
    }

    /// Number of pieces it may hold.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Number of pieces it holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Does it hold every piece?
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == self.length
    }

    /// Is the piece in it?
    #[must_use]
    pub fn contains(&self, piece: u32) -> bool {
        piece < self.length && self.words[(piece / 64) as usize] & (1 << (piece % 64)) != 0
    }

    /// Adds a piece; `true` if it was not there. One beyond the last is ignored.
    pub fn insert(&mut self, piece: u32) -> bool {
        let fresh = piece < self.length && !self.contains(piece);
        if fresh {
            self.words[(piece / 64) as usize] |= 1 << (piece % 64);
            self.count += 1;
        }
        fresh
    }

    /// Takes a piece out; `true` if it was there.
    pub fn remove(&mut self, piece: u32) -> bool {
        let there = self.contains(piece);
        if there {
            self.words[(piece / 64) as usize] &= !(1 << (piece % 64));
            self.count -= 1;
        }
        there
    }

    /// Its pieces in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.words).flat_map(|(word, bits)| {
            (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| word * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_survives_the_wire(length in 1u32..500, picks in prop::collection::vec(any::<u32>(), 0..200)) {
            let mut pieces = Pieces::none(length);
            let mut model = BTreeSet::new();
            for (turn, pick) in picks.iter().map(|pick| pick % length).enumerate() {
                if turn % 3 == 2 {
                    prop_assert_eq!(pieces.remove(pick), model.remove(&pick));
                } else {
                    prop_assert_eq!(pieces.insert(pick), model.insert(pick));
                }
            }
            prop_assert_eq!(pieces.iter().collect::<BTreeSet<_>>(), model.clone());
            prop_assert_eq!(pieces.count() as usize, model.len());
            prop_assert_eq!(Pieces::from_bitfield(&pieces.to_bitfield(), length), Ok(pieces));
        }

        #[test]
        fn any_bytes_are_a_bitfield_or_refused(length in 1u32..500, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(pieces) = Pieces::from_bitfield(&bytes, length) {
                prop_assert_eq!(pieces.to_bitfield(), bytes);
            }
        }
    }
}
