//! The bytes of one image.

use crate::cache::Quota;
use crate::have::{Claims, Have, Stamp};
use crate::{Image, durable};
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::ReadWriteFlags;
use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use streamer_api::BytesBySource;
use streamer_plan::Pieces;

/// Verified pieces kept in memory while the disk takes none, in bytes for each image.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Where a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PieceState {
    /// Not here.
    Absent = 0,
    /// On disk, they say: it must be verified before it is served.
    Claimed = 1,
    /// Verified, on disk.
    Held = 2,
    /// All zero: served, never stored.
    Zero = 3,
    /// Verified, in memory because the disk takes none.
    Memory = 4,
}

/// Who sent a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The publisher's own streamer.
    Origin,
    /// Another host.
    Peer,
    /// The web seed.
    WebSeed,
    /// A file that is being published here.
    Local,
}

/// What became of a piece that was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Verified, on disk.
    Disk,
    /// Verified, in memory: the disk takes none.
    Memory,
    /// Its hashes are wrong; it is thrown away.
    Poisoned,
}

/// What a read found.
#[derive(Debug)]
pub enum Ready {
    /// The bytes.
    Bytes(Bytes),
    /// The first piece of the range that is not here.
    Absent(u32),
}

#[derive(Debug, Default)]
struct Memory {
    pieces: HashMap<u32, Bytes>,
    order: VecDeque<u32>,
    bytes: usize,
    /// A piece had to go before the disk took it.
    overflowed: bool,
}

#[derive(Debug)]
struct Ledger {
    bytes: BytesBySource,
    uploaded: u64,
    poisoned: u64,
    cached: Pieces,
    touched: Pieces,
}

/// The bytes of one image: what is here, and what was counted. All methods may block on the disk except where said.
#[derive(Debug)]
pub struct Volume {
    image: Arc<Image>,
    data: File,
    folder: PathBuf,
    have_path: PathBuf,
    states: Box<[AtomicU8]>,
    touched: Box<[AtomicBool]>,
    quota: Arc<Quota>,
    ledger: Mutex<Ledger>,
    memory: Mutex<Memory>,
    /// `have` says that `data` is being written.
    dirty: Mutex<bool>,
    /// Pieces stored since the last flush.
    unsynced: AtomicU32,
    /// Something else to save since the last flush.
    changed: AtomicBool,
    trouble: Mutex<Trouble>,
}

/// What the disk does not do for us, for people.
#[derive(Debug, Default)]
struct Trouble {
    storing: Option<String>,
    flushing: Option<String>,
}

/// What became of the pieces that were in memory only.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// On disk now.
    pub stored: Vec<u32>,
    /// Every piece that is not here. Given once all are stored, if memory had been too small: some of them were.
    pub absent: Vec<u32>,
}

/// A lock whose holder panicked is taken over: every section leaves its value whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    pub(crate) fn open(folder: &Path, image: Arc<Image>, quota: Arc<Quota>) -> io::Result<Self> {
        let pieces = image.geometry.pieces();
        let path = folder.join("data");
        let data = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let have_path = folder.join("have");
        let loaded = Have::load(&have_path, pieces)?;
        let clean = match &loaded {
            Some((have, _)) => have.clean.is_some() && have.clean == Stamp::of(&data).ok(),
            None => true,
        };
        if data.metadata()?.len() < image.geometry.size_bytes() {
            data.set_len(image.geometry.size_bytes())?;
            durable::sync_folder(folder)?;
        }
        let none = || Pieces::none(pieces);
        let (counted, claims) = match loaded {
            Some((have, claims)) => ((have.bytes, have.bytes_uploaded, have.bytes_poisoned), claims),
            None => (Default::default(), Claims { held: none(), cached: none(), touched: none() }),
        };
        let ledger = Ledger {
            bytes: counted.0,
            uploaded: counted.1,
            poisoned: counted.2,
            cached: claims.cached,
            touched: claims.touched,
        };
        let state = |piece: u32| match (image.zero.contains(piece), claims.held.contains(piece), clean) {
            (true, _, _) => PieceState::Zero,
            (false, true, true) => PieceState::Held,
            (false, true, false) => PieceState::Claimed,
            (false, false, _) => PieceState::Absent,
        };
        let states: Box<[AtomicU8]> = (0..pieces).map(|piece| AtomicU8::new(state(piece) as u8)).collect();
        Ok(Self {
            touched: (0..pieces).map(|piece| AtomicBool::new(ledger.touched.contains(piece))).collect(),
            image,
            data,
            folder: folder.to_owned(),
            have_path,
            states,
            quota,
            ledger: Mutex::new(ledger),
            memory: Mutex::default(),
            dirty: Mutex::new(!clean),
            unsynced: AtomicU32::new(0),
            changed: AtomicBool::new(false),
            trouble: Mutex::default(),
        })
    }

    /// What the bytes are.
    #[must_use]
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Where it is on disk.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a piece is; does not block.
    #[must_use]
    pub fn state(&self, piece: u32) -> PieceState {
        match self.states.get(piece as usize).map(|state| state.load(Ordering::Acquire)) {
            Some(1) => PieceState::Claimed,
            Some(2) => PieceState::Held,
            Some(3) => PieceState::Zero,
            Some(4) => PieceState::Memory,
            _ => PieceState::Absent,
        }
    }

    /// Pieces in one of some states; does not block.
    pub fn pieces_in<'a>(&'a self, states: &'a [PieceState]) -> impl Iterator<Item = u32> + 'a {
        (0..self.image.geometry.pieces()).filter(move |piece| states.contains(&self.state(*piece)))
    }

    /// Verifies a piece that was brought, and keeps it.
    pub fn store(&self, piece: u32, bytes: &Bytes, source: Source) -> Stored {
        if !self.image.verifies(piece, bytes) {
            lock(&self.ledger).poisoned += bytes.len() as u64;
            self.changed.store(true, Ordering::Relaxed);
            return Stored::Poisoned;
        }
        match self.state(piece) {
            PieceState::Held | PieceState::Zero => return Stored::Disk,
            // Counted when it was first claimed.
            PieceState::Claimed => self.set_state(piece, PieceState::Absent),
            PieceState::Absent | PieceState::Memory => {}
        }
        match self.write(piece, bytes) {
            Ok(()) => {
                self.count(piece, bytes.len() as u64, source, PieceState::Held);
                self.unsynced.fetch_add(1, Ordering::Relaxed);
                Stored::Disk
            }
            Err(error) => {
                lock(&self.trouble).storing = Some(self.cannot_store(&error));
                self.count(piece, bytes.len() as u64, source, PieceState::Memory);
                self.remember(piece, bytes.clone());
                Stored::Memory
            }
        }
    }

    /// As [`Self::store`], but on disk or not at all.
    pub(crate) fn keep(&self, piece: u32, bytes: &Bytes, source: Source) -> io::Result<()> {
        match self.state(piece) {
            PieceState::Held | PieceState::Zero => return Ok(()),
            PieceState::Claimed => self.verify(piece),
            PieceState::Absent | PieceState::Memory => {}
        }
        if self.state(piece) == PieceState::Held {
            return Ok(());
        }
        if !self.image.verifies(piece, bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("piece {piece} is wrong")));
        }
        self.write(piece, bytes)?;
        self.count(piece, bytes.len() as u64, source, PieceState::Held);
        self.unsynced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Tries again to store what is in memory because the disk took none.
    pub fn settle(&self) -> Settled {
        let mut settled = Settled::default();
        loop {
            let next = {
                let memory = lock(&self.memory);
                memory.order.front().and_then(|piece| Some((*piece, memory.pieces.get(piece)?.clone())))
            };
            let Some((piece, bytes)) = next else { break };
            if let Err(error) = self.write(piece, &bytes) {
                lock(&self.trouble).storing = Some(self.cannot_store(&error));
                return settled;
            }
            // It was counted when it came.
            self.unsynced.fetch_add(1, Ordering::Relaxed);
            let mut memory = lock(&self.memory);
            memory.forget(piece);
            self.set_state(piece, PieceState::Held);
            settled.stored.push(piece);
        }
        lock(&self.trouble).storing = None;
        if std::mem::take(&mut lock(&self.memory).overflowed) {
            settled.absent = self.pieces_in(&[PieceState::Absent]).collect();
        }
        settled
    }

    fn cannot_store(&self, error: &io::Error) -> String {
        let full = if error.kind() == io::ErrorKind::StorageFull { "the disk is full: " } else { "" };
        format!(
            "{full}cannot store pieces in {}: {error}; reads are served from memory and peers",
            self.folder.display()
        )
    }

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
        let here = |piece| matches!(self.state(piece), PieceState::Held | PieceState::Zero);
        if !pieces.clone().all(here) {
            return false;
        }
        for (at, piece, range) in self.segments(offset, length) {
            let part = &mut buffer[range];
            if self.image.zero.contains(piece) {
                part.fill(0);
                continue;
            }
            let wanted = part.len();
            let mut slices = [IoSliceMut::new(part)];
            match rustix::io::preadv2(&self.data, &mut slices, at, ReadWriteFlags::NOWAIT) {
                Ok(read) if read == wanted => {}
                _ => return false,
            }
        }
        self.touch(pieces);
        true
    }

    /// The file whose bytes from `offset` on are the image's, if all of the range is verified and on disk: for a copy in
    /// the kernel (`sendfile`, `splice`). Zero pieces are not in it. The copy may wait for the disk; its errors are cured
    /// by [`Self::read`].
    #[must_use]
    pub fn file_range(&self, offset: u64, length: u32) -> Option<BorrowedFd<'_>> {
        let pieces = self.range(offset, length);
        let held = pieces.clone().all(|piece| self.state(piece) == PieceState::Held);
        held.then(|| {
            self.touch(pieces);
            self.data.as_fd()
        })
    }

    /// Reads bytes; claimed pieces are verified first. A piece the disk cannot give back is absent.
    pub fn read(&self, offset: u64, length: u32) -> Ready {
        let mut buffer = vec![0; length as usize];
        for (at, piece, range) in self.segments(offset, length) {
            if self.state(piece) == PieceState::Claimed {
                self.verify(piece);
            }
            match self.state(piece) {
                PieceState::Zero => {}
                PieceState::Absent | PieceState::Claimed => return Ready::Absent(piece),
                PieceState::Memory => {
                    let within = usize::try_from(at - self.image.geometry.offset(piece)).unwrap_or(0);
                    let Some(bytes) = lock(&self.memory).pieces.get(&piece).cloned() else {
                        return Ready::Absent(piece);
                    };
                    let part = &mut buffer[range];
                    part.copy_from_slice(&bytes[within..within + part.len()]);
                }
                PieceState::Held => {
                    if let Err(error) = self.data.read_exact_at(&mut buffer[range], at) {
                        tracing::warn!(image = %self.image.digest.short(), piece, %error, "cannot read a piece back");
                        self.lose(piece);
                        return Ready::Absent(piece);
                    }
                }
            }
        }
        self.touch(self.range(offset, length));
        Ready::Bytes(buffer.into())
    }

    /// Reads part of a piece for a peer; `None` if it is not here. Nothing is counted.
    #[must_use]
    pub fn read_block(&self, piece: u32, begin: u32, length: u32) -> Option<Bytes> {
        let mut buffer = vec![0; length as usize];
        match self.state(piece) {
            PieceState::Zero => {}
            PieceState::Held => {
                let at = self.image.geometry.offset(piece) + u64::from(begin);
                if self.data.read_exact_at(&mut buffer, at).is_err() {
                    self.lose(piece);
                    return None;
                }
            }
            _ => return None,
        }
        Some(buffer.into())
    }

    /// Verifies a claimed piece: then it is held, or absent.
    pub fn verify(&self, piece: u32) {
        if self.state(piece) != PieceState::Claimed {
            return;
        }
        let mut buffer = vec![0; self.image.geometry.length(piece) as usize];
        let read = self.data.read_exact_at(&mut buffer, self.image.geometry.offset(piece));
        if read.is_ok() && self.image.verifies(piece, &buffer) {
            let _ = self.states[piece as usize].compare_exchange(
                PieceState::Claimed as u8,
                PieceState::Held as u8,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        } else {
            tracing::warn!(image = %self.image.digest.short(), piece, "a cached piece is wrong; it is fetched again");
            self.lose(piece);
        }
    }

    /// The image is named now: what is here came from an earlier run, and counting begins anew.
    pub fn begin_counting(&self) {
        let mut ledger = lock(&self.ledger);
        ledger.bytes = BytesBySource::default();
        ledger.cached = Pieces::none(self.image.geometry.pieces());
        for piece in self.pieces_in(&[PieceState::Held, PieceState::Claimed]) {
            ledger.cached.insert(piece);
        }
        ledger.touched = Pieces::none(self.image.geometry.pieces());
        for touched in &self.touched {
            touched.store(false, Ordering::Relaxed);
        }
        drop(ledger);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Bytes were sent to a peer; does not block.
    pub fn uploaded(&self, bytes: u64) {
        lock(&self.ledger).uploaded += bytes;
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Bytes by source, bytes uploaded, bytes poisoned.
    #[must_use]
    pub fn counted(&self) -> (BytesBySource, u64, u64) {
        let ledger = lock(&self.ledger);
        (ledger.bytes, ledger.uploaded, ledger.poisoned)
    }

    /// Why pieces are not stored, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = lock(&self.trouble);
        trouble.storing.clone().or_else(|| trouble.flushing.clone())
    }

    /// Pieces stored since the last flush; does not block.
    #[must_use]
    pub fn unsynced(&self) -> u32 {
        self.unsynced.load(Ordering::Relaxed)
    }

    /// Makes what is here durable, if there is anything new.
    ///
    /// # Errors
    /// Whatever the disk says; nothing is claimed then that was not before.
    pub fn flush(&self) -> io::Result<()> {
        let stored = self.unsynced.swap(0, Ordering::Relaxed);
        let changed = self.changed.swap(false, Ordering::Relaxed);
        if stored == 0 && !changed {
            return Ok(());
        }
        let result = self.save(Clean::No);
        lock(&self.trouble).flushing = result
            .as_ref()
            .err()
            .map(|error| format!("cannot make pieces stored in {} durable: {error}", self.folder.display()));
        if result.is_err() {
            self.unsynced.fetch_add(stored, Ordering::Relaxed);
            self.changed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Makes everything durable and marks it clean: the next start serves it without verifying it again.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn close(&self) -> io::Result<()> {
        let unverified = self.pieces_in(&[PieceState::Claimed]).next().is_some();
        self.save(if unverified { Clean::No } else { Clean::Yes })
    }

    fn save(&self, clean: Clean) -> io::Result<()> {
        let mut dirty = lock(&self.dirty);
        let clean_still = !*dirty || matches!(clean, Clean::Yes);
        // The snapshot is older than the sync: whatever it claims is on disk when it is written.
        let mut snapshot = self.snapshot();
        if *dirty {
            self.data.sync_data()?;
        }
        if clean_still {
            snapshot.clean = Some(Stamp::of(&self.data)?);
        }
        snapshot.save(&self.have_path)?;
        *dirty = !clean_still;
        Ok(())
    }

    /// From now on a crash leaves `data` suspect.
    fn mark_dirty(&self) -> io::Result<()> {
        let mut dirty = lock(&self.dirty);
        if *dirty {
            return Ok(());
        }
        self.snapshot().save(&self.have_path)?;
        *dirty = true;
        Ok(())
    }

    fn snapshot(&self) -> Have {
        let ledger = lock(&self.ledger);
        let mut held = Pieces::none(self.image.geometry.pieces());
        for piece in self.pieces_in(&[PieceState::Held, PieceState::Claimed]) {
            held.insert(piece);
        }
        let claims = Claims { held, cached: ledger.cached.clone(), touched: ledger.touched.clone() };
        Have::new(&claims, ledger.bytes, ledger.uploaded, ledger.poisoned, None)
    }

    fn write(&self, piece: u32, bytes: &Bytes) -> io::Result<()> {
        let length = bytes.len() as u64;
        if !self.quota.reserve(length) {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the cache is full"));
        }
        let offset = self.image.geometry.offset(piece);
        let result = self.mark_dirty().and_then(|()| self.data.write_all_at(bytes, offset));
        if result.is_err() {
            self.quota.release(length);
            // Half a piece is of no use, and its room is needed to say what is here. Best effort.
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = fallocate(&self.data, hole, offset, length);
        }
        result
    }

    fn count(&self, piece: u32, length: u64, source: Source, state: PieceState) {
        let mut ledger = lock(&self.ledger);
        let again = matches!(self.state(piece), PieceState::Held | PieceState::Memory);
        match source {
            _ if again => {}
            Source::Origin => ledger.bytes.origin += length,
            Source::Peer => ledger.bytes.peer += length,
            Source::WebSeed => ledger.bytes.web_seed += length,
            Source::Local => {
                ledger.cached.insert(piece);
            }
        }
        self.set_state(piece, state);
        if state == PieceState::Held {
            lock(&self.memory).forget(piece);
        }
    }

    fn set_state(&self, piece: u32, state: PieceState) {
        self.states[piece as usize].store(state as u8, Ordering::Release);
    }

    fn lose(&self, piece: u32) {
        let before = self.states[piece as usize].swap(PieceState::Absent as u8, Ordering::AcqRel);
        if before == PieceState::Held as u8 || before == PieceState::Claimed as u8 {
            self.quota.release(u64::from(self.image.geometry.length(piece)));
            let mut ledger = lock(&self.ledger);
            ledger.cached.remove(piece);
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    fn remember(&self, piece: u32, bytes: Bytes) {
        let mut memory = lock(&self.memory);
        memory.forget(piece);
        memory.bytes += bytes.len();
        memory.pieces.insert(piece, bytes);
        memory.order.push_back(piece);
        while memory.bytes > MEMORY_BYTES_MAX && memory.order.len() > 1 {
            let Some(oldest) = memory.order.front().copied() else { break };
            memory.forget(oldest);
            memory.overflowed = true;
            self.set_state(oldest, PieceState::Absent);
        }
    }

    fn range(&self, offset: u64, length: u32) -> Range<u32> {
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

    /// Counts zero and cached pieces when they are first read.
    fn touch(&self, pieces: Range<u32>) {
        for piece in pieces {
            let seen = &self.touched[piece as usize];
            if seen.load(Ordering::Relaxed) || seen.swap(true, Ordering::Relaxed) {
                continue;
            }
            let length = u64::from(self.image.geometry.length(piece));
            let mut ledger = lock(&self.ledger);
            if !ledger.touched.insert(piece) {
                continue;
            }
            if self.image.zero.contains(piece) {
                ledger.bytes.zero += length;
            } else if ledger.cached.contains(piece) {
                ledger.bytes.cache += length;
            }
            drop(ledger);
            self.changed.store(true, Ordering::Relaxed);
        }
    }
}

impl Memory {
    fn forget(&mut self, piece: u32) {
        if let Some(bytes) = self.pieces.remove(&piece) {
            self.bytes -= bytes.len();
            self.order.retain(|kept| *kept != piece);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Clean {
    Yes,
    No,
}
