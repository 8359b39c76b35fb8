//! The desired document on disk: a restarted netd converges by itself.

use netd_api::Desired;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The folder or a file in it.
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another netd.
    #[error("{} is in use by another netd", .0.display())]
    Locked(PathBuf),
    /// The document was damaged by others.
    #[error("{} is no desired document; restore it, or remove it and run collective-netd purge", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// The folder, locked.
#[derive(Debug)]
pub(crate) struct Store {
    document: PathBuf,
    _lock: File,
}

impl Store {
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(fail(folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(fail(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { document: folder.join("desired.json"), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked(folder.to_owned())),
            Err(TryLockError::Error(source)) => Err(fail(&path)(source)),
        }
    }

    pub(crate) fn read(&self) -> Result<Option<Desired>, StoreError> {
        match fs::read(&self.document) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| StoreError::Damaged { path: self.document.clone(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path: self.document.clone(), source }),
        }
    }

    pub(crate) fn write(&self, desired: &Desired) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: self.document.clone(), source };
        let bytes = serde_json::to_vec_pretty(desired).map_err(|error| io(error.into()))?;
        chassis::durable::write(&self.document, &bytes, 0o640).map_err(io)
    }

    pub(crate) fn forget(&self) -> Result<(), StoreError> {
        chassis::durable::remove(&self.document)
            .map_err(|source| StoreError::Io { path: self.document.clone(), source })
    }
}
