//! Keeping pieces that are brought.

use super::{PieceState, Place, Settled, Source, Stored, Volume, lock};
use bytes::Bytes;
use std::io;

impl Volume {
    /// Verifies a piece that was brought, and keeps it.
    pub fn store(&self, piece: u32, bytes: &Bytes, source: Source) -> Stored {
        if !self.image.verifies(piece, bytes) {
            self.count_poisoned(bytes.len() as u64);
            return Stored::Poisoned;
        }
        let _filling = self.filling(piece);
        let again = match self.states.get(piece) {
            Place::Held | Place::Zero => return Stored::Disk,
            // Counted, and its room taken, when it was first claimed.
            Place::Claimed => {
                self.lose(piece);
                false
            }
            Place::Offered | Place::Absent => false,
            Place::Memory => true,
        };
        if !again {
            self.count_lost(piece);
            self.count_piece(piece, source);
        }
        match self.write(piece, bytes) {
            Ok(()) => {
                self.stored(piece);
                Stored::Disk
            }
            Err(error) => {
                self.remember(piece, bytes.clone(), &error);
                Stored::Memory
            }
        }
    }

    /// As [`Self::store`], but on disk or not at all.
    pub(crate) fn keep(&self, piece: u32, bytes: &Bytes, source: Source) -> io::Result<()> {
        self.verify(piece);
        let _filling = self.filling(piece);
        let again = match self.states.get(piece) {
            Place::Held | Place::Zero => return Ok(()),
            place => place == Place::Memory,
        };
        if !self.image.verifies(piece, bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("piece {piece} is wrong")));
        }
        self.write(piece, bytes)?;
        if !again {
            self.count_piece(piece, source);
        }
        self.stored(piece);
        Ok(())
    }

    /// Tries again to store what is in memory because the disk took none.
    pub fn settle(&self) -> Settled {
        let mut settled = Settled { stored: Vec::new(), absent: std::mem::take(&mut *lock(&self.lost)) };
        loop {
            let next = lock(&self.memory).oldest();
            let Some((piece, bytes)) = next else { break };
            let _filling = self.filling(piece);
            if self.states.get(piece) != Place::Memory {
                lock(&self.memory).forget(piece);
                continue;
            }
            if let Err(error) = self.write(piece, &bytes) {
                lock(&self.trouble).storing = Some(self.cannot_store(&error));
                return settled;
            }
            // It was counted when it came.
            self.stored(piece);
            settled.stored.push(piece);
        }
        lock(&self.trouble).storing = None;
        if std::mem::take(&mut lock(&self.memory).overflowed) {
            settled.absent = self.pieces_in(&[PieceState::Absent]).collect();
        }
        settled
    }

    /// Its bytes are in the file, and right.
    pub(super) fn stored(&self, piece: u32) {
        let mut unsynced = lock(&self.unsynced);
        unsynced.push(piece);
        self.states.set(piece, Place::Held);
        drop(unsynced);
        lock(&self.memory).forget(piece);
    }

    /// Keeps a verified piece that the disk did not take.
    pub(super) fn remember(&self, piece: u32, bytes: Bytes, error: &io::Error) {
        lock(&self.trouble).storing = Some(self.cannot_store(error));
        let mut memory = lock(&self.memory);
        let gone = memory.insert(piece, bytes);
        self.states.set(piece, Place::Memory);
        for oldest in gone {
            // Unless the disk has just taken it.
            self.states.change(oldest, Place::Memory, Place::Absent);
        }
    }

    fn cannot_store(&self, error: &io::Error) -> String {
        let full = if error.kind() == io::ErrorKind::StorageFull { "the disk is full: " } else { "" };
        format!(
            "{full}cannot store pieces in {}: {error}; reads are served from memory and peers",
            self.folder.display()
        )
    }

    fn write(&self, piece: u32, bytes: &Bytes) -> io::Result<()> {
        self.fill(piece, || self.data.write(bytes, self.image.geometry.offset(piece)))
    }

    /// Takes room for a piece and puts bytes there; an image that nobody uses goes for it if it must.
    pub(super) fn fill(&self, piece: u32, put: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let length = u64::from(self.image.geometry.length(piece));
        self.room.reserve(length)?;
        loop {
            let result = self.mark_dirty().and_then(|()| put());
            let Err(error) = result else { return Ok(()) };
            // Half a piece is of no use, and its room is needed to say what is here.
            self.data.punch(self.image.geometry.offset(piece), length);
            if error.kind() != io::ErrorKind::StorageFull || !self.room.evict_one() {
                self.room.release(length);
                return Err(error);
            }
        }
    }
}
