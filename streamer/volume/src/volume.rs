//! The bytes of one image.

mod ledger;
mod memory;
mod read;
mod save;
mod states;
mod store;
mod verify;

pub(crate) use states::{Place, States};

use crate::data::{Data, data_ranges};
use crate::have::{Have, HaveFile, Stamp};
use crate::room::Room;
use crate::{Image, durable};
use bytes::Bytes;
use ledger::{Ledger, Touched};
use memory::Memory;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use streamer_plan::{Geometry, Pieces};

/// Pieces that can be filled at the same time.
const FILLING: usize = 64;

/// Where a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceState {
    /// Not here.
    Absent,
    /// On disk, they say, of this or of another image: it must be verified before it is served.
    Claimed,
    /// Verified, on disk.
    Held,
    /// All zero: served, never stored.
    Zero,
    /// Verified, in memory because the disk takes none.
    Memory,
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
    /// This host: a file that is being published here, or another image.
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

/// The bytes of one image: what is here, and what was counted. All methods may block on the disk except where said.
#[derive(Debug)]
pub struct Volume {
    image: Arc<Image>,
    folder: PathBuf,
    data: Arc<Data>,
    states: Arc<States>,
    /// Held while a piece's bytes in `data` change; a piece's lock is that of its index modulo their number.
    filling: Box<[Mutex<()>]>,
    touched: Touched,
    ledger: Mutex<Ledger>,
    memory: Mutex<Memory>,
    room: Arc<Room>,
    map: Mutex<HaveFile>,
    /// The map says that `data` is being written.
    dirty: AtomicBool,
    /// Pieces stored since the last flush.
    unsynced: Mutex<Vec<u32>>,
    /// Something else to save since the last flush.
    changed: AtomicBool,
    /// Pieces that the disk lost, until the next [`Self::settle`].
    lost: Mutex<Vec<u32>>,
    trouble: Mutex<Trouble>,
}

/// What the disk does not do for us, for people.
#[derive(Debug, Default)]
struct Trouble {
    storing: Option<String>,
    flushing: Option<String>,
}

/// What became of pieces while nobody looked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// They were in memory only and are on disk now.
    pub stored: Vec<u32>,
    /// They may have been here and are no longer: those that the disk lost; and every absent one, once all of memory is
    /// stored, if memory had been too small.
    pub absent: Vec<u32>,
}

/// A lock whose holder panicked is taken over: every section leaves its value whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    pub(crate) fn open(folder: &Path, image: Arc<Image>, room: Arc<Room>) -> io::Result<Self> {
        let geometry = image.geometry;
        let data = Arc::new(Data::open(&folder.join("data"))?);
        let (map, have) = HaveFile::open(folder.join("have"), geometry.pieces())?;
        let stamp = Stamp::of(data.file()).ok();
        let have = match have {
            Some(have) => have,
            None => unmapped(&data, geometry, stamp)?,
        };
        let clean = have.clean.is_some() && have.clean == stamp;
        if data.file().metadata()?.len() < geometry.size_bytes() {
            data.file().set_len(geometry.size_bytes())?;
            durable::sync_folder(folder)?;
        }
        let place = |piece: u32| match (image.zero.contains(piece), have.held.contains(piece)) {
            (true, _) => Place::Zero,
            (false, true) if clean => Place::Held,
            (false, true) => Place::Claimed,
            (false, false) => Place::Absent,
        };
        let states = Arc::new(States::new((0..geometry.pieces()).map(place)));
        room.index.add_open(&image, folder, &states, &data);
        let mut cached = have.cached;
        for piece in (0..geometry.pieces()).filter(|piece| !have.held.contains(*piece)) {
            cached.remove(piece);
        }
        let volume = Self {
            touched: Touched::new(&have.touched),
            image,
            folder: folder.to_owned(),
            data,
            states,
            filling: (0..FILLING).map(|_| Mutex::default()).collect(),
            ledger: Mutex::new(Ledger { counted: have.counted, cached }),
            memory: Mutex::default(),
            room,
            map: Mutex::new(map),
            dirty: AtomicBool::new(!clean),
            unsynced: Mutex::default(),
            changed: AtomicBool::new(false),
            lost: Mutex::default(),
            trouble: Mutex::default(),
        };
        volume.offer();
        Ok(volume)
    }

    /// Claims what others have.
    fn offer(&self) {
        for piece in self.room.index.lendable(&self.image, &self.states) {
            self.states.set(piece, Place::Offered);
        }
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

    /// Upgrades while the volume is open.
    pub(crate) fn alive(&self) -> Weak<States> {
        Arc::downgrade(&self.states)
    }

    /// Where a piece is; does not block.
    #[must_use]
    pub fn state(&self, piece: u32) -> PieceState {
        self.states.get(piece).seen()
    }

    /// How many pieces are in one of some states; does not block, and takes no longer for a large image.
    #[must_use]
    pub fn count_in(&self, states: &[PieceState]) -> u32 {
        places(states).map(|place| self.states.count(place)).sum()
    }

    /// Pieces in one of some states; does not block. Looks at every piece unless there is none.
    pub fn pieces_in(&self, states: &[PieceState]) -> impl Iterator<Item = u32> + use<'_> {
        let places: Vec<Place> = places(states).collect();
        let some = places.iter().any(|place| self.states.count(*place) > 0);
        let end = if some { self.image.geometry.pieces() } else { 0 };
        (0..end).filter(move |piece| places.contains(&self.states.get(*piece)))
    }

    fn pieces_at<'a>(&'a self, places: &'a [Place]) -> impl Iterator<Item = u32> + 'a {
        (0..self.image.geometry.pieces()).filter(|piece| places.contains(&self.states.get(*piece)))
    }

    /// Why pieces are not stored, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = lock(&self.trouble);
        trouble.storing.clone().or_else(|| trouble.flushing.clone())
    }

    /// Nobody else changes the piece's bytes while this is held.
    fn filling(&self, piece: u32) -> MutexGuard<'_, ()> {
        lock(&self.filling[piece as usize % FILLING])
    }
}

fn places(states: &[PieceState]) -> impl Iterator<Item = Place> + '_ {
    states.iter().flat_map(|state| Place::all(*state)).copied()
}

/// Without a map, all that is in the file is claimed: verifying is cheaper than fetching.
fn unmapped(data: &Data, geometry: Geometry, stamp: Option<Stamp>) -> io::Result<Have> {
    let length = data.file().metadata()?.len().min(geometry.size_bytes());
    let mut held = Pieces::none(geometry.pieces());
    for range in data_ranges(data.file(), length)? {
        for piece in geometry.touched(range.start, range.end - range.start) {
            let end = geometry.offset(piece) + u64::from(geometry.length(piece));
            if geometry.offset(piece) >= range.start && end <= range.end {
                held.insert(piece);
            }
        }
    }
    let none = || Pieces::none(geometry.pieces());
    let clean = stamp.filter(|_| held.count() == 0);
    Ok(Have { held, cached: none(), touched: none(), counted: Default::default(), clean })
}
