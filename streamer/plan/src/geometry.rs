//! How an image is cut into pieces and blocks.

use std::ops::Range;

/// Bytes of one request on the wire, as every BitTorrent client cuts them.
pub const BLOCK_BYTES: u32 = 16 * 1024;

/// Sizes of an image and of its pieces. Neither is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    size_bytes: u64,
    piece_bytes: u32,
}

/// A part of a piece: the unit of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Index of the piece.
    pub piece: u32,
    /// Offset in the piece, in bytes.
    pub begin: u32,
    /// In bytes.
    pub length: u32,
}

impl Geometry {
    /// `None` if a size is zero or there would be more than `u32::MAX` pieces.
    #[must_use]
    pub fn new(size_bytes: u64, piece_bytes: u32) -> Option<Self> {
        let fits = size_bytes > 0
            && piece_bytes > 0
            && size_bytes.div_ceil(u64::from(piece_bytes)) <= u64::from(u32::MAX);
        fits.then_some(Self { size_bytes, piece_bytes })
    }

    /// Bytes of the image.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Bytes of every piece but perhaps the last.
    #[must_use]
    pub fn piece_bytes(&self) -> u32 {
        self.piece_bytes
    }

    /// Number of pieces.
    #[must_use]
    pub fn pieces(&self) -> u32 {
        u32::try_from(self.size_bytes.div_ceil(u64::from(self.piece_bytes))).unwrap_or(u32::MAX)
    }

    /// Where a piece begins in the image.
    #[must_use]
    pub fn offset(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.piece_bytes)
    }

    /// Bytes of one piece; 0 beyond the last.
    #[must_use]
    pub fn length(&self, piece: u32) -> u32 {
        let rest = self.size_bytes.saturating_sub(self.offset(piece));
        u32::try_from(rest).unwrap_or(u32::MAX).min(self.piece_bytes)
    }

    /// Number of blocks of a piece.
    #[must_use]
    pub fn blocks(&self, piece: u32) -> u32 {
        self.length(piece).div_ceil(BLOCK_BYTES)
    }

    /// One block of a piece.
    #[must_use]
    pub fn block(&self, piece: u32, index: u32) -> Block {
        let begin = index * BLOCK_BYTES;
        Block { piece, begin, length: self.length(piece).saturating_sub(begin).min(BLOCK_BYTES) }
    }

    /// The pieces a byte range touches. Bytes beyond the image touch none.
    #[must_use]
    pub fn touched(&self, offset: u64, length: u64) -> Range<u32> {
        let end = offset.saturating_add(length).min(self.size_bytes);
        if offset >= end {
            return 0..0;
        }
        let index = |at: u64| u32::try_from(at / u64::from(self.piece_bytes)).unwrap_or(u32::MAX);
        index(offset)..index(end - 1) + 1
    }

    /// Does a request from a stranger stay inside one piece?
    #[must_use]
    pub fn contains(&self, block: Block) -> bool {
        block.piece < self.pieces()
            && block.length > 0
            && u64::from(block.begin) + u64::from(block.length) <= u64::from(self.length(block.piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_and_blocks_cover_the_image_once(size in 1u64..5_000_000, shift in 14u32..20) {
            let geometry = Geometry::new(size, 1 << shift).unwrap();
            let total: u64 = (0..geometry.pieces()).map(|piece| {
                let blocks: u32 = (0..geometry.blocks(piece)).map(|i| geometry.block(piece, i).length).sum();
                assert_eq!(blocks, geometry.length(piece));
                u64::from(blocks)
            }).sum();
            prop_assert_eq!(total, size);
            prop_assert_eq!(geometry.touched(0, size), 0..geometry.pieces());
        }

        #[test]
        fn a_request_of_a_stranger_never_leaves_its_piece(
            size in 1u64..5_000_000, piece in any::<u32>(), begin in any::<u32>(), length in any::<u32>()
        ) {
            let geometry = Geometry::new(size, 1 << 16).unwrap();
            if geometry.contains(Block { piece, begin, length }) {
                prop_assert!(geometry.offset(piece) + u64::from(begin) + u64::from(length) <= size);
            }
        }
    }
}
