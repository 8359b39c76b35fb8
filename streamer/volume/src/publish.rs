//! Makes an image of a file: copies, cuts and hashes it on all cores.

use crate::cache::{CacheError, failed};
use crate::data::data_ranges;
use crate::have::{Counted, Have, HaveFile, Stamp};
use crate::image::{check_sizes, hashes, sha256, write, zero_sha1};
use crate::settings::source;
use crate::{Cache, Image, InvalidImage, Privacy, Settings, Source, Volume, durable};
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use streamer_api::ImageSource;
use streamer_plan::{Geometry, Pieces};
use thiserror::Error;
use types::Base64;

/// Piece of images up to [`SMALL_IMAGE_BYTES_MAX`]: a guest's read fetches little more than it needs.
const SMALL_PIECE_BYTES: u32 = 256 << 10;
/// Piece of larger images: some clients take no bitfield above 16,500 bytes.
const LARGE_PIECE_BYTES: u32 = 1 << 20;
const SMALL_IMAGE_BYTES_MAX: u64 = 32 << 30;
/// Copied bytes that are made durable at once.
const SYNC_BYTES: u64 = 64 << 20;

/// Tells apart the publishes of one process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Why a file cannot be published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The source file.
    #[error("cannot read {}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be an image.
    #[error("{} cannot be an image: {reason}", path.display())]
    Unsuitable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What was written cannot be read back: a mistake of ours.
    #[error("the image just made is invalid")]
    Invalid(#[from] InvalidImage),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// An image that has been made but is not in the cache yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    /// The image.
    pub image: Arc<Image>,
    /// How to name it.
    pub source: ImageSource,
    folder: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Nothing to report to: what is left is removed at the next start.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Draft {
    /// Puts the image into the cache, named and pinned. It must not be there yet.
    ///
    /// # Errors
    /// [`CacheError::Io`]
    pub fn install(&self, cache: &Cache) -> Result<(), CacheError> {
        let path = cache.path(self.image.digest);
        let take_in = || {
            durable::replace(&source(&self.folder), &serde_json::to_vec(&self.settings())?)?;
            cache.take_in(self.image.digest, &self.folder)
        };
        take_in().map_err(failed("make", &path))
    }

    /// How it is kept.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings { source: self.source.clone(), named: true, pinned: true }
    }

    /// Gives every piece to a volume of the same image that is open already.
    ///
    /// # Errors
    /// [`CacheError::Io`]
    pub fn feed(&self, volume: &Volume) -> Result<(), CacheError> {
        let path = self.folder.join("data");
        let geometry = self.image.geometry;
        let data = File::open(&path).map_err(failed("open", &path))?;
        for piece in (0..geometry.pieces()).filter(|piece| !self.image.zero.contains(*piece)) {
            let mut bytes = vec![0; geometry.length(piece) as usize];
            data.read_exact_at(&mut bytes, geometry.offset(piece)).map_err(failed("read", &path))?;
            // Memory is for what can be fetched again.
            volume
                .keep(piece, &Bytes::from(bytes), Source::Local)
                .map_err(failed("fill", volume.folder()))?;
        }
        volume.flush().map_err(failed("fill", volume.folder()))
    }
}

/// Copies a file (reflinked where the file system can), cuts it and hashes it on all cores. A `public` image may be
/// fetched by any BitTorrent client (BEP 27). `progress` is called from several threads with bytes done and bytes in all.
///
/// # Errors
/// [`PublishError`]; nothing is left in the cache then.
pub fn publish(
    cache: &Cache,
    path: &Path,
    tracker: &str,
    piece_bytes: Option<u64>,
    public: bool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Draft, PublishError> {
    let unreadable = |source| PublishError::Source { path: path.to_owned(), source };
    let unsuitable = |reason| PublishError::Unsuitable { path: path.to_owned(), reason };
    let file = File::open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(unsuitable("it is not a regular file".to_owned()));
    }
    let piece_bytes = match piece_bytes {
        Some(bytes) => u32::try_from(bytes).unwrap_or(u32::MAX),
        None if meta.len() <= SMALL_IMAGE_BYTES_MAX => SMALL_PIECE_BYTES,
        None => LARGE_PIECE_BYTES,
    };
    let geometry = check_sizes(meta.len(), piece_bytes).map_err(unsuitable)?;

    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let folder = cache.folder().join(format!("publish-{}-{serial}", std::process::id()));
    fs::create_dir(&folder).map_err(failed("make the folder", &folder))?;
    let cleanup = Remover(Some(folder.clone()));
    let data_path = folder.join("data");
    let data = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&data_path)
        .map_err(failed("make", &data_path))?;
    data.set_len(geometry.size_bytes()).map_err(failed("write", &data_path))?;

    let ranges = data_ranges(&file, meta.len()).map_err(unreadable)?;
    cache.make_room(ranges.iter().map(|range| range.end - range.start).sum(), &|_| false);
    let work = Work::new(&file, &data, geometry, ranges);
    let (hashed, synced) = work.run(progress);
    let (sha1s, sha256s) = hashed.map_err(|error| match error.kind() {
        // Reading meets no full disk: it is the copy that does not fit.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            PublishError::Cache(failed("write", &data_path)(error))
        }
        _ => unreadable(error),
    })?;
    synced.map_err(failed("write", &data_path))?;
    let (metainfo, manifest) =
        write(geometry, &sha1s, sha256s, tracker, public).map_err(|error| unsuitable(error.to_string()))?;
    let image = Arc::new(Image::parse(&metainfo, &manifest, Some(sha256(&manifest)), Privacy::Any)?);
    save_have(&folder, &data, &image).map_err(failed("write", &folder))?;
    let named = ImageSource::new(Base64(metainfo), Base64(manifest), tracker.to_owned());
    Ok(Draft { image, source: named, folder: cleanup.keep() })
}

/// Removes a folder unless it is kept.
struct Remover(Option<PathBuf>);

impl Remover {
    fn keep(mut self) -> PathBuf {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        if let Some(folder) = self.0.take() {
            // What is left is removed at the next start.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn save_have(folder: &Path, data: &File, image: &Image) -> io::Result<()> {
    let pieces = image.geometry.pieces();
    let mut held = Pieces::none(pieces);
    for piece in (0..pieces).filter(|piece| !image.zero.contains(*piece)) {
        held.insert(piece);
    }
    let have = Have {
        cached: held.clone(),
        held,
        touched: Pieces::none(pieces),
        counted: Counted::default(),
        clean: Some(Stamp::of(data)?),
    };
    HaveFile::open(folder.join("have"), pieces)?.0.save(&have)
}

/// SHA-1 of all pieces, and SHA-256 of all.
type Hashes = (Vec<u8>, Vec<u8>);

/// Copying and hashing, piece by piece, shared by all cores.
struct Work<'a> {
    from: &'a File,
    to: &'a File,
    /// `to` shares its blocks with `from`: only zeros are left to be taken out.
    shared: bool,
    geometry: Geometry,
    ranges: Vec<Range<u64>>,
    next: AtomicU32,
    done: AtomicU64,
    failed: AtomicBool,
    hashes: Mutex<Hashes>,
}

impl<'a> Work<'a> {
    fn new(from: &'a File, to: &'a File, geometry: Geometry, ranges: Vec<Range<u64>>) -> Self {
        let pieces = geometry.pieces() as usize;
        Self {
            from,
            to,
            shared: ioctl_ficlone(to, from).is_ok(),
            geometry,
            ranges,
            next: AtomicU32::new(0),
            done: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            hashes: Mutex::new((vec![0; pieces * 20], vec![0; pieces * 32])),
        }
    }

    /// The hashes; and whether the disk took what was written.
    fn run(self, progress: &(dyn Fn(u64, u64) + Sync)) -> (io::Result<Hashes>, io::Result<()>) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (copied, queue) = mpsc::channel::<u64>();
        let panicked = |_| Err(io::Error::other("a thread that publishes panicked"));
        let (hashed, synced) = std::thread::scope(|scope| {
            let writing = scope.spawn(|| sync_behind(self.to, queue));
            let workers: Vec<_> = std::iter::repeat_n(copied, cores)
                .map(|copied| scope.spawn(|| self.work(progress, copied)))
                .collect();
            // Every worker has ended before a result is looked at: an error of one stops the others.
            let results: Vec<io::Result<()>> =
                workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked)).collect();
            let hashed = results.into_iter().collect::<io::Result<()>>();
            (hashed, writing.join().unwrap_or_else(panicked))
        });
        (hashed.map(|()| self.hashes.into_inner().unwrap_or_else(PoisonError::into_inner)), synced)
    }

    #[expect(clippy::needless_pass_by_value, reason = "the queue ends when the last worker drops its end")]
    fn work(&self, progress: &(dyn Fn(u64, u64) + Sync), copied: mpsc::Sender<u64>) -> io::Result<()> {
        let full = self.geometry.piece_bytes();
        let zero = zero_sha1(full);
        let mut buffer = vec![0; full as usize];
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.geometry.pieces() || self.failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let length = self.geometry.length(piece);
            let buffer = &mut buffer[..length as usize];
            let data =
                self.copy(piece, buffer).inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
            let (sha1_bytes, sha256_bytes) = match data {
                Content::Data => hashes(buffer),
                Content::Zero if length == full => (zero, [0; 32]),
                Content::Zero => (zero_sha1(length), [0; 32]),
            };
            // If nobody listens any more, the disk has failed, and that is told there.
            let _ = copied.send(u64::from(length));
            let at = piece as usize;
            let mut kept = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            kept.0[at * 20..at * 20 + 20].copy_from_slice(&sha1_bytes);
            kept.1[at * 32..at * 32 + 32].copy_from_slice(&sha256_bytes);
            drop(kept);
            let done = self.done.fetch_add(u64::from(length), Ordering::Relaxed) + u64::from(length);
            progress(done, self.geometry.size_bytes());
        }
    }

    /// Reads a piece and copies it: what is hashed is what is kept.
    fn copy(&self, piece: u32, buffer: &mut [u8]) -> io::Result<Content> {
        let offset = self.geometry.offset(piece);
        let end = offset + buffer.len() as u64;
        let at = self.ranges.partition_point(|range| range.end <= offset);
        if self.ranges.get(at).is_none_or(|range| range.start >= end) {
            return Ok(Content::Zero);
        }
        let from = if self.shared { self.to } else { self.from };
        from.read_exact_at(buffer, offset)?;
        if !is_zero(buffer) {
            if !self.shared {
                self.to.write_all_at(buffer, offset)?;
            }
            return Ok(Content::Data);
        }
        if self.shared {
            // Best effort: a file system without holes keeps the zeros.
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = fallocate(self.to, hole, offset, buffer.len() as u64);
        }
        Ok(Content::Zero)
    }
}

/// Makes durable what was copied while the rest is, so that the disk and the cores work at the same time.
fn sync_behind(to: &File, copied: mpsc::Receiver<u64>) -> io::Result<()> {
    let mut behind = 0;
    for bytes in copied {
        behind += bytes;
        if behind >= SYNC_BYTES {
            to.sync_data()?;
            behind = 0;
        }
    }
    to.sync_data()
}

/// Looks at whole cache lines: a comparison byte by byte is slower than the disk.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
}

enum Content {
    Data,
    Zero,
}
