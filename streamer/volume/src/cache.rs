//! The folder of all images.

use crate::room::{Kept, Room};
use crate::settings::source;
use crate::{Image, InvalidImage, Settings, Volume};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
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

/// The folder of all images. One process at a time has it.
#[derive(Debug)]
pub struct Cache {
    room: Arc<Room>,
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
        let cache = Self { room: Arc::new(Room::new(folder.to_owned(), bytes_max)), _lock: lock };
        cache.remove_leftovers()?;
        for digest in cache.images()? {
            cache.room.found(digest);
        }
        Ok(cache)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.room.folder()
    }

    /// Images in the cache, whether named or not.
    ///
    /// # Errors
    /// [`CacheError::Io`]
    pub fn images(&self) -> Result<Vec<Digest>, CacheError> {
        let list = fs::read_dir(self.folder()).map_err(failed("list", self.folder()))?;
        let mut images: Vec<Digest> = list
            .filter_map(|entry| entry.ok()?.file_name().to_str().map(|name| format!("sha256:{name}")))
            .filter_map(|name| name.parse().ok())
            .filter(|digest| source(&self.path(*digest)).exists())
            .collect();
        images.sort_unstable();
        Ok(images)
    }

    /// What is kept beside an image's bytes.
    ///
    /// # Errors
    /// [`CacheError::Absent`], [`CacheError::Io`]
    pub fn settings(&self, digest: Digest) -> Result<Settings, CacheError> {
        let folder = self.path(digest);
        Settings::read(&folder).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CacheError::Absent(digest),
            _ => failed("read", &source(&folder))(error),
        })
    }

    /// Writes what is kept beside an image's bytes, making the image's folder if needed. Durable on return.
    ///
    /// An image that is only named no longer, or again, takes no room for that: a full disk can be emptied.
    ///
    /// # Errors
    /// [`CacheError::Io`]; what was kept before is kept still.
    pub fn set_settings(&self, digest: Digest, settings: &Settings) -> Result<(), CacheError> {
        let folder = self.path(digest);
        let mut images = self.room.images();
        settings.write(&folder).map_err(failed("write", &source(&folder)))?;
        let kept = images.entry(digest).or_default();
        kept.named = settings.named;
        kept.pinned = Some(settings.is_pinned());
        Ok(())
    }

    /// Opens an image's bytes; its settings are there already. Pieces that another image in the cache holds are claimed:
    /// verifying copies them.
    ///
    /// # Errors
    /// [`CacheError::Io`]
    pub fn volume(&self, image: Arc<Image>) -> Result<Volume, CacheError> {
        let digest = image.digest;
        let folder = self.path(digest);
        let mut images = self.room.images();
        for other in images.keys().filter(|other| **other != digest && !self.room.index.knows(**other)) {
            self.room.index.add_idle(*other, &self.path(*other));
        }
        let volume = Volume::open(&folder, image, Arc::clone(&self.room)).map_err(failed("open", &folder))?;
        images.entry(digest).or_default().open = volume.alive();
        Ok(volume)
    }

    /// Removes an image that is not open, with all its bytes.
    ///
    /// # Errors
    /// [`CacheError::Absent`], [`CacheError::Io`]
    pub fn remove(&self, digest: Digest) -> Result<(), CacheError> {
        let folder = self.path(digest);
        let mut images = self.room.images();
        if !source(&folder).exists() {
            return Err(CacheError::Absent(digest));
        }
        self.room.forget(&mut images, digest).map_err(failed("remove", &folder))
    }

    /// Evicts images, longest unused first, until `wanted` bytes more fit into the quota or nothing can go; returns whom.
    /// One that is named, pinned, open or `in_use` stays.
    ///
    /// A volume that grows does this by itself, for each piece.
    pub fn make_room(&self, wanted: u64, in_use: &dyn Fn(Digest) -> bool) -> Vec<Digest> {
        self.room.evict(wanted, usize::MAX, in_use)
    }

    /// When an image was last in use; long ago if that is not known.
    #[must_use]
    pub fn last_used(&self, digest: Digest) -> SystemTime {
        self.room.last_used(digest)
    }

    /// Bytes that the cache's files take on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.room.used()
    }

    /// Bytes the file system has free for us.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(self.folder()).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.room.path(digest)
    }

    /// Takes in an image that was made beside the others, named and pinned.
    pub(crate) fn take_in(&self, digest: Digest, made: &Path) -> io::Result<()> {
        let path = self.path(digest);
        let mut images = self.room.images();
        fs::rename(made, &path)?;
        crate::durable::sync_folder(self.folder())?;
        self.room.add(crate::room::on_disk(&path.join("data")));
        images.insert(digest, Kept { named: true, pinned: Some(true), ..Kept::default() });
        Ok(())
    }

    /// Removes what a publish or an eviction that was cut short left behind.
    fn remove_leftovers(&self) -> Result<(), CacheError> {
        let list = fs::read_dir(self.folder()).map_err(failed("list", self.folder()))?;
        for entry in list.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let ours = name.starts_with("publish-") || format!("sha256:{name}").parse::<Digest>().is_ok();
            if ours && !source(&entry.path()).exists() {
                fs::remove_dir_all(entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}
