//! The folder of all images.

use crate::{Image, InvalidImage, Volume, durable};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use streamer_api::ImageSource;
use thiserror::Error;
use types::Digest;

/// Why the cache cannot be used.
#[derive(Debug, Error)]
pub enum CacheError {
    /// Another daemon has it open.
    #[error("the cache {} is in use by another streamer", .0.display())]
    InUse(PathBuf),
    /// An image's metainfo and manifest do not belong together.
    #[error(transparent)]
    Invalid(#[from] InvalidImage),
    /// The image is not in the cache.
    #[error("no image {0} in the cache")]
    Absent(Digest),
    /// The disk.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is kept beside an image's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// As it was named.
    pub source: ImageSource,
    /// It is exported and fetched.
    pub named: bool,
    /// It was published here: it is seeded, named or not, and never evicted by the quota.
    pub pinned: bool,
}

/// Bytes of pieces on disk, and how many there may be.
#[derive(Debug)]
pub(crate) struct Quota {
    used: AtomicU64,
    limit: u64,
}

impl Quota {
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: u64) {
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
    }
}

/// Bytes a sparse file takes.
pub(crate) fn on_disk(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

/// The folder of all images. One process at a time has it.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    quota: Arc<Quota>,
    /// Held for its lock.
    _lock: File,
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { action, path, source }
}

impl Cache {
    /// Opens the folder, making it if needed. Pieces beyond `bytes_max` are not stored.
    ///
    /// # Errors
    /// [`CacheError::InUse`], [`CacheError::Io`].
    pub fn open(folder: &Path, bytes_max: Option<u64>) -> Result<Self, CacheError> {
        fs::create_dir_all(folder).map_err(failed("make the folder", folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(failed("open", &path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| CacheError::InUse(folder.to_owned()))?;
        let quota = Arc::new(Quota { used: AtomicU64::new(0), limit: bytes_max.unwrap_or(u64::MAX) });
        let cache = Self { folder: folder.to_owned(), quota, _lock: lock };
        cache.remove_leftovers()?;
        for digest in cache.images()? {
            cache.quota.add(on_disk(&cache.path(digest).join("data")));
        }
        Ok(cache)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Images in the cache, whether named or not.
    ///
    /// # Errors
    /// [`CacheError::Io`]
    pub fn images(&self) -> Result<Vec<Digest>, CacheError> {
        let list = fs::read_dir(&self.folder).map_err(failed("list", &self.folder))?;
        let mut images: Vec<Digest> = list
            .filter_map(|entry| entry.ok()?.file_name().to_str().map(|name| format!("sha256:{name}")))
            .filter_map(|name| name.parse().ok())
            .filter(|digest| self.path(*digest).join("source").exists())
            .collect();
        images.sort_unstable();
        Ok(images)
    }

    /// What is kept beside an image's bytes.
    ///
    /// # Errors
    /// [`CacheError::Absent`], [`CacheError::Io`]
    pub fn settings(&self, digest: Digest) -> Result<Settings, CacheError> {
        let path = self.path(digest).join("source");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CacheError::Absent(digest)),
            other => other.map_err(failed("read", &path))?,
        };
        let settings: Settings =
            serde_json::from_slice(&bytes).map_err(|error| failed("read", &path)(error.into()))?;
        Ok(Settings { named: settings.named && !self.unnamed(digest).exists(), ..settings })
    }

    /// Writes what is kept beside an image's bytes, making the image's folder if needed. Durable on return.
    ///
    /// An image that is only named no longer, or again, takes no room for that: a full disk can be emptied.
    ///
    /// # Errors
    /// [`CacheError::Io`]; what was kept before is kept still.
    pub fn set_settings(&self, digest: Digest, settings: &Settings) -> Result<(), CacheError> {
        let path = self.path(digest).join("source");
        self.write_settings(digest, settings).map_err(failed("write", &path))
    }

    fn write_settings(&self, digest: Digest, settings: &Settings) -> io::Result<()> {
        let (folder, unnamed) = (self.path(digest), self.unnamed(digest));
        let path = folder.join("source");
        let bytes = serde_json::to_vec(&Settings { named: true, ..settings.clone() })?;
        if fs::read(&path).ok().as_ref() != Some(&bytes) {
            let new = !folder.exists();
            fs::create_dir_all(&folder)?;
            if let Err(error) = durable::replace(&path, &bytes) {
                if new {
                    // What is left is removed at the next start.
                    let _ = fs::remove_dir_all(&folder);
                }
                return Err(error);
            }
            durable::sync_folder(&self.folder)?;
        }
        match settings.named {
            true if unnamed.exists() => fs::remove_file(&unnamed)?,
            true => return Ok(()),
            false => drop(File::create(&unnamed)?),
        }
        durable::sync_folder(&folder)
    }

    /// An empty file: the image is exported and fetched no longer.
    fn unnamed(&self, digest: Digest) -> PathBuf {
        self.path(digest).join("unnamed")
    }

    /// Opens an image's bytes; its settings are there already.
    ///
    /// # Errors
    /// [`CacheError::Io`]
    pub fn volume(&self, image: Arc<Image>) -> Result<Volume, CacheError> {
        let folder = self.path(image.digest);
        Volume::open(&folder, image, Arc::clone(&self.quota)).map_err(failed("open", &folder))
    }

    /// Removes an image that is not open, with all its bytes.
    ///
    /// # Errors
    /// [`CacheError::Absent`], [`CacheError::Io`]
    pub fn remove(&self, digest: Digest) -> Result<(), CacheError> {
        let folder = self.path(digest);
        if !folder.join("source").exists() {
            return Err(CacheError::Absent(digest));
        }
        self.quota.release(on_disk(&folder.join("data")));
        // Without its source it is no image any more, whatever of the rest is removed.
        fs::remove_file(folder.join("source")).map_err(failed("remove", &folder))?;
        fs::remove_dir_all(&folder).map_err(failed("remove", &folder))
    }

    /// When an image was last in use; long ago if that is not known.
    #[must_use]
    pub fn last_used(&self, digest: Digest) -> SystemTime {
        fs::metadata(self.path(digest).join("have"))
            .and_then(|meta| meta.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Bytes that the cache's files take on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.quota.used.load(Ordering::Relaxed)
    }

    /// Bytes the file system has free for us.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.folder).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(crate) fn quota(&self) -> &Quota {
        &self.quota
    }

    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    /// Removes what a publish or an eviction that was cut short left behind.
    fn remove_leftovers(&self) -> Result<(), CacheError> {
        let list = fs::read_dir(&self.folder).map_err(failed("list", &self.folder))?;
        for entry in list.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let ours = name.starts_with("publish-") || format!("sha256:{name}").parse::<Digest>().is_ok();
            if ours && !entry.path().join("source").exists() {
                fs::remove_dir_all(entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}
