//! Making durable what is here, in this order: bytes first, then the map that claims them.

use super::{Place, Volume, lock};
use crate::have::{Have, HaveFile, Stamp};
use std::io;
use std::sync::atomic::Ordering;
use streamer_plan::Pieces;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clean {
    Yes,
    No,
}

/// Why something is not durable.
enum Failed {
    /// The bytes.
    Data(io::Error),
    /// The map.
    Map(io::Error),
}

impl Volume {
    /// Pieces stored since the last flush; does not block.
    #[must_use]
    pub fn unsynced(&self) -> u32 {
        u32::try_from(lock(&self.unsynced).len()).unwrap_or(u32::MAX)
    }

    /// Makes what is here durable, if there is anything new.
    ///
    /// # Errors
    /// Whatever the disk says; nothing is claimed then that was not before. Pieces that it may have lost for good are
    /// read back from it; those that are wrong are absent, and told by the next [`Self::settle`].
    pub fn flush(&self) -> io::Result<()> {
        let changed = self.changed.swap(false, Ordering::Relaxed);
        if self.unsynced() == 0 && !changed {
            return Ok(());
        }
        self.save_or_doubt(Clean::No)
    }

    /// Makes everything durable and marks it clean: the next start serves it without verifying it again.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn close(&self) -> io::Result<()> {
        self.save_or_doubt(if self.states.count(Place::Claimed) == 0 { Clean::Yes } else { Clean::No })
    }

    fn save_or_doubt(&self, clean: Clean) -> io::Result<()> {
        let fresh = std::mem::take(&mut *lock(&self.unsynced));
        let result = match self.save(clean, !fresh.is_empty()) {
            Ok(()) => Ok(()),
            Err(Failed::Map(error)) => {
                lock(&self.unsynced).extend(fresh);
                Err(error)
            }
            Err(Failed::Data(error)) => {
                let later = std::mem::take(&mut *lock(&self.unsynced));
                self.doubt(fresh.into_iter().chain(later).collect());
                Err(error)
            }
        };
        if result.is_err() {
            self.changed.store(true, Ordering::Relaxed);
        }
        lock(&self.trouble).flushing = result
            .as_ref()
            .err()
            .map(|error| format!("cannot make pieces stored in {} durable: {error}", self.folder.display()));
        result
    }

    fn save(&self, clean: Clean, fresh: bool) -> Result<(), Failed> {
        let mut map = lock(&self.map);
        let dirty = self.dirty.load(Ordering::Acquire) || fresh;
        // Older than the sync: whatever it claims is on disk when it is written.
        let mut have = self.snapshot();
        if dirty {
            self.data.sync().map_err(Failed::Data)?;
        }
        let clean = !dirty || clean == Clean::Yes;
        if clean {
            have.clean = Some(Stamp::of(self.data.file()).map_err(Failed::Map)?);
        }
        map.save(&have).map_err(Failed::Map)?;
        self.dirty.store(!clean, Ordering::Release);
        if clean && self.unsynced() > 0 {
            // Something came meanwhile: not so clean.
            self.mark(&mut map).map_err(Failed::Map)?;
        }
        Ok(())
    }

    /// From now on a crash leaves `data` suspect.
    pub(super) fn mark_dirty(&self) -> io::Result<()> {
        // Without the lock: a flush holds it while it waits for the disk.
        if self.dirty.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut map = lock(&self.map);
        if self.dirty.load(Ordering::Acquire) { Ok(()) } else { self.mark(&mut map) }
    }

    fn mark(&self, map: &mut HaveFile) -> io::Result<()> {
        map.save(&self.snapshot())?;
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    fn snapshot(&self) -> Have {
        let ledger = lock(&self.ledger);
        // What is not on disk for sure is not claimed. Locked while a piece becomes held.
        let unsynced = lock(&self.unsynced);
        let mut held = Pieces::none(self.image.geometry.pieces());
        for piece in self.pieces_at(&[Place::Held, Place::Claimed]) {
            held.insert(piece);
        }
        for piece in unsynced.iter() {
            held.remove(*piece);
        }
        drop(unsynced);
        Have {
            held,
            cached: ledger.cached.clone(),
            touched: self.touched.to_pieces(),
            counted: ledger.counted,
            clean: None,
        }
    }
}
