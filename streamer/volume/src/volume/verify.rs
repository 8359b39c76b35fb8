//! Making sure of what is claimed: here, or by another image.

use super::{Place, Volume, lock};
use crate::index::Lender;
use bytes::Bytes;
use std::io;

impl Volume {
    /// Verifies a claimed piece: then it is held, or absent. One that another image holds is copied first.
    pub fn verify(&self, piece: u32) {
        if !matches!(self.states.get(piece), Place::Claimed | Place::Offered) {
            return;
        }
        let _filling = self.filling(piece);
        match self.states.get(piece) {
            Place::Claimed => self.verify_own(piece),
            Place::Offered => self.verify_offered(piece),
            _ => {}
        }
    }

    /// Gets a piece from another image in the cache, or from elsewhere in this one, if it is there: `true` if the piece is
    /// here now. Asked before the network is; quick if nobody has it.
    pub fn adopt(&self, piece: u32) -> bool {
        self.verify(piece);
        let _filling = self.filling(piece);
        match self.states.get(piece) {
            Place::Held | Place::Zero | Place::Memory => true,
            Place::Absent => self.borrow(piece),
            Place::Claimed | Place::Offered => false,
        }
    }

    /// Other pieces of this image with the same bytes: [`Self::adopt`] gets them once one is here. Does not block.
    #[must_use]
    pub fn twins(&self, piece: u32) -> Vec<u32> {
        if self.image.zero.contains(piece) {
            return Vec::new();
        }
        self.room.index.twins(&self.image, piece)
    }

    fn verify_own(&self, piece: u32) {
        let mut buffer = vec![0; self.image.geometry.length(piece) as usize];
        let at = self.image.geometry.offset(piece);
        let read = self.data.read(&mut buffer, at);
        if read.is_ok() && self.image.verifies(piece, &buffer) {
            self.states.set(piece, Place::Held);
        } else {
            tracing::warn!(image = %self.image.digest.short(), piece, "a cached piece is wrong; it is fetched again");
            self.lose(piece);
        }
    }

    fn verify_offered(&self, piece: u32) {
        if !self.borrow(piece) {
            self.states.set(piece, Place::Absent);
            self.count_lost(piece);
        }
    }

    /// Copies a piece from whoever has it; the copy is what is verified.
    fn borrow(&self, piece: u32) -> bool {
        let mut buffer = Vec::new();
        for lender in self.room.index.lenders(&self.image, piece) {
            buffer.resize(self.image.geometry.length(piece) as usize, 0);
            match self.copy(piece, &lender, &mut buffer) {
                Ok(true) => {
                    self.count_piece(piece, super::Source::Local);
                    self.stored(piece);
                    return true;
                }
                Ok(false) => {
                    tracing::warn!(image = %self.image.digest.short(), piece, "another image's piece is wrong");
                }
                Err(error) => {
                    // The disk takes none, but what it has can still be read.
                    let read = lender.data.read(&mut buffer, lender.at);
                    if read.is_ok() && self.image.verifies(piece, &buffer) {
                        self.count_piece(piece, super::Source::Local);
                        self.remember(piece, Bytes::from(buffer), &error);
                        return true;
                    }
                }
            }
        }
        false
    }

    fn copy(&self, piece: u32, lender: &Lender, buffer: &mut [u8]) -> io::Result<bool> {
        let at = self.image.geometry.offset(piece);
        let length = buffer.len() as u64;
        self.fill(piece, || self.data.copy_from(lender.data.file(), lender.at, at, length))?;
        let right = self.data.read(buffer, at).is_ok() && self.image.verifies(piece, buffer);
        if !right {
            self.data.punch(at, length);
            self.room.release(length);
        }
        Ok(right)
    }

    /// The disk failed to make these pieces durable. Which of them it has is not known, whatever the page cache says:
    /// they are read back from the disk itself, or lost.
    pub(super) fn doubt(&self, pieces: Vec<u32>) {
        let mut buffer = Vec::new();
        for piece in pieces {
            let _filling = self.filling(piece);
            if self.states.get(piece) != Place::Held {
                continue;
            }
            self.states.set(piece, Place::Claimed);
            buffer.resize(self.image.geometry.length(piece) as usize, 0);
            let read = self.data.read_from_disk(&mut buffer, self.image.geometry.offset(piece));
            if read.is_ok() && self.image.verifies(piece, &buffer) {
                // Its bytes are there; that they are found again is for the next sync.
                self.stored(piece);
                continue;
            }
            tracing::warn!(image = %self.image.digest.short(), piece, "the disk lost a piece; it is fetched again");
            self.lose(piece);
            lock(&self.lost).push(piece);
        }
    }

    /// A piece in our file is wrong, or cannot be read: it is absent, and its room is free. Nobody else fills it meanwhile.
    pub(super) fn lose(&self, piece: u32) {
        let before = self.states.set(piece, Place::Absent);
        if matches!(before, Place::Held | Place::Claimed) {
            let length = u64::from(self.image.geometry.length(piece));
            self.data.punch(self.image.geometry.offset(piece), length);
            self.room.release(length);
            self.count_lost(piece);
        }
    }
}
