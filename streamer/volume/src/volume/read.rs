//! Reading what is here.

use super::{Place, Ready, Volume, lock};
use bytes::Bytes;
use std::ops::Range;

impl Volume {
    /// Bytes that are here and need no waiting for the disk; `None` otherwise. Does not block.
    #[must_use]
    pub fn read_now(&self, offset: u64, length: u32) -> Option<Bytes> {
        let mut buffer = vec![0; length as usize];
        self.read_now_into(offset, &mut buffer).then(|| buffer.into())
    }

    /// As [`Self::read_now`], into the caller's buffer and without allocating: `true` if it is filled, else its content is
    /// arbitrary.
    #[must_use]
    pub fn read_now_into(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let Ok(length) = u32::try_from(buffer.len()) else { return false };
        let pieces = self.range(offset, length);
        let losses = self.states.losses();
        let (mut held, mut zero) = (false, false);
        for piece in pieces.clone() {
            match self.states.get(piece) {
                Place::Held => held = true,
                Place::Zero => zero = true,
                _ => return false,
            }
        }
        let read = match (held, zero) {
            (true, false) => self.data.read_now(buffer, offset),
            (true, true) => self.read_parts_now(offset, buffer),
            (false, _) => {
                buffer.fill(0);
                true
            }
        };
        let read = read && self.states.losses() == losses;
        if read {
            self.touch(pieces);
        }
        read
    }

    fn read_parts_now(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let Ok(length) = u32::try_from(buffer.len()) else { return false };
        self.segments(offset, length).all(|(at, piece, range)| {
            let part = &mut buffer[range];
            // What lies in a hole of the file is never looked at.
            if self.image.zero.contains(piece) {
                part.fill(0);
                return true;
            }
            self.data.read_now(part, at)
        })
    }

    /// Reads bytes; claimed pieces are verified first. A piece the disk cannot give back is absent.
    pub fn read(&self, offset: u64, length: u32) -> Ready {
        let mut buffer = vec![0; length as usize];
        loop {
            let losses = self.states.losses();
            if let Err(piece) = self.read_parts(offset, &mut buffer) {
                return Ready::Absent(piece);
            }
            if self.states.losses() == losses {
                break;
            }
        }
        self.touch(self.range(offset, length));
        Ready::Bytes(buffer.into())
    }

    fn read_parts(&self, offset: u64, buffer: &mut [u8]) -> Result<(), u32> {
        let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        for (at, piece, range) in self.segments(offset, length) {
            self.verify(piece);
            let part = &mut buffer[range];
            match self.states.get(piece) {
                Place::Zero => part.fill(0),
                Place::Absent | Place::Claimed | Place::Offered => return Err(piece),
                Place::Memory => {
                    let within = usize::try_from(at - self.image.geometry.offset(piece)).unwrap_or(0);
                    let bytes = lock(&self.memory).get(piece);
                    match bytes {
                        Some(bytes) => part.copy_from_slice(&bytes[within..within + part.len()]),
                        // It went to the disk, or had to go.
                        None if self.states.get(piece) == Place::Held => self.read_held(piece, part, at)?,
                        None => return Err(piece),
                    }
                }
                Place::Held => self.read_held(piece, part, at)?,
            }
        }
        Ok(())
    }

    fn read_held(&self, piece: u32, part: &mut [u8], at: u64) -> Result<(), u32> {
        self.data.read(part, at).map_err(|error| {
            tracing::warn!(image = %self.image.digest.short(), piece, %error, "cannot read a piece back");
            let _filling = self.filling(piece);
            if self.states.get(piece) == Place::Held {
                self.lose(piece);
            }
            piece
        })
    }

    /// Reads part of a piece for a peer; `None` if it is not here. Nothing is counted.
    #[must_use]
    pub fn read_block(&self, piece: u32, begin: u32, length: u32) -> Option<Bytes> {
        let mut buffer = vec![0; length as usize];
        let losses = self.states.losses();
        match self.states.get(piece) {
            Place::Zero => {}
            Place::Held => {
                let at = self.image.geometry.offset(piece) + u64::from(begin);
                self.read_held(piece, &mut buffer, at).ok()?;
            }
            _ => return None,
        }
        (self.states.losses() == losses).then(|| buffer.into())
    }

    pub(super) fn range(&self, offset: u64, length: u32) -> Range<u32> {
        self.image.geometry.touched(offset, u64::from(length))
    }

    /// A byte range cut at piece borders: offset in the image, piece, range in the buffer.
    fn segments(&self, offset: u64, length: u32) -> impl Iterator<Item = (u64, u32, Range<usize>)> + '_ {
        let end = offset + u64::from(length);
        self.range(offset, length).map(move |piece| {
            let geometry = &self.image.geometry;
            let from = geometry.offset(piece).max(offset);
            let to = (geometry.offset(piece) + u64::from(geometry.length(piece))).min(end);
            let index = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            (from, piece, index(from)..index(to))
        })
    }
}
