//! How much the cache may hold, and who leaves when it is full.

use crate::index::Index;
use crate::settings::{is_named, is_pinned, source};
use crate::volume::States;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;
use types::Digest;

/// Bytes that a sparse file takes on disk.
pub(crate) fn on_disk(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

/// What eviction knows of an image.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) named: bool,
    /// `None`: not looked up yet.
    pub(crate) pinned: Option<bool>,
    /// Alive while the image is open.
    pub(crate) open: Weak<States>,
}

/// The folder, its quota, and the images in it.
#[derive(Debug)]
pub(crate) struct Room {
    folder: PathBuf,
    used: AtomicU64,
    limit: u64,
    /// Images; locked while one comes, goes or is named.
    kept: Mutex<BTreeMap<Digest, Kept>>,
    pub(crate) index: Index,
}

impl Room {
    pub(crate) fn new(folder: PathBuf, limit: Option<u64>) -> Self {
        Self {
            folder,
            used: AtomicU64::new(0),
            limit: limit.unwrap_or(u64::MAX),
            kept: Mutex::default(),
            index: Index::default(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    pub(crate) fn images(&self) -> MutexGuard<'_, BTreeMap<Digest, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An image that was found in the folder.
    pub(crate) fn found(&self, digest: Digest) {
        let folder = self.path(digest);
        self.add(on_disk(&folder.join("data")));
        let kept = Kept { named: is_named(&folder), pinned: None, open: Weak::new() };
        self.images().insert(digest, kept);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: u64) {
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
    }

    /// Takes bytes of the quota, evicting for them if need be.
    pub(crate) fn reserve(&self, bytes: u64) -> io::Result<()> {
        if self.take(bytes) {
            return Ok(());
        }
        self.evict(bytes, usize::MAX, &|_| false);
        if self.take(bytes) {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the cache is full"))
        }
    }

    /// The disk itself is full: one image less. `false` if there is none to spare.
    pub(crate) fn evict_one(&self) -> bool {
        !self.evict(u64::MAX, 1, &|_| false).is_empty()
    }

    /// Evicts images that nobody names, pins or has open, longest unused first, until `wanted` bytes fit, or `most` are
    /// gone.
    pub(crate) fn evict(&self, wanted: u64, most: usize, in_use: &dyn Fn(Digest) -> bool) -> Vec<Digest> {
        let fits = || self.used().checked_add(wanted).is_some_and(|sum| sum <= self.limit);
        let mut evicted = Vec::new();
        if fits() {
            return evicted;
        }
        let mut images = self.images();
        for digest in self.idle(&mut images, in_use) {
            if fits() || evicted.len() == most {
                break;
            }
            match self.forget(&mut images, digest) {
                Ok(()) => {
                    tracing::info!(image = %digest, "evicted to make room");
                    evicted.push(digest);
                }
                Err(error) => tracing::error!(image = %digest, %error, "cannot evict"),
            }
        }
        evicted
    }

    fn idle(&self, images: &mut BTreeMap<Digest, Kept>, in_use: &dyn Fn(Digest) -> bool) -> Vec<Digest> {
        let mut idle = Vec::new();
        for (digest, kept) in images.iter_mut() {
            if kept.named || kept.open.strong_count() > 0 || in_use(*digest) {
                continue;
            }
            if !*kept.pinned.get_or_insert_with(|| is_pinned(&self.path(*digest))) {
                idle.push((self.last_used(*digest), *digest));
            }
        }
        idle.sort_unstable();
        idle.into_iter().map(|(_, digest)| digest).collect()
    }

    /// When an image was last in use; long ago if that is not known.
    pub(crate) fn last_used(&self, digest: Digest) -> SystemTime {
        fs::metadata(self.path(digest).join("have"))
            .and_then(|meta| meta.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Removes an image with all its bytes.
    pub(crate) fn forget(&self, images: &mut BTreeMap<Digest, Kept>, digest: Digest) -> io::Result<()> {
        let folder = self.path(digest);
        let bytes = on_disk(&folder.join("data"));
        // Without its source it is no image any more, whatever of the rest is removed.
        fs::remove_file(source(&folder))?;
        images.remove(&digest);
        self.index.remove(digest);
        self.release(bytes);
        fs::remove_dir_all(&folder)
    }

    fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}
