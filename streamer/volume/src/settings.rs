//! What is kept beside an image's bytes.
//!
//! That an image is named no longer is a file of its own, which is empty: it takes no room, so a full disk can be emptied.

use crate::durable;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use streamer_api::ImageSource;

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

/// What eviction must know, without the rest.
#[derive(Deserialize)]
struct Pins {
    source: Pin,
    #[serde(default)]
    pinned: bool,
}

#[derive(Deserialize)]
struct Pin {
    #[serde(default)]
    pin: bool,
}

impl Settings {
    /// Never evicted, named or not.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned || self.source.pin
    }

    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let settings: Self = serde_json::from_slice(&fs::read(source(folder))?)?;
        Ok(Self { named: settings.named && is_named(folder), ..settings })
    }

    /// Durable on return. What was kept before is kept still after an error.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let path = source(folder);
        let bytes = serde_json::to_vec(&Self { named: true, ..self.clone() })?;
        if fs::read(&path).ok().as_ref() != Some(&bytes) {
            let new = !folder.exists();
            fs::create_dir_all(folder)?;
            if let Err(error) = durable::replace(&path, &bytes) {
                if new {
                    // What is left is removed at the next start.
                    let _ = fs::remove_dir_all(folder);
                }
                return Err(error);
            }
            durable::sync_folder(folder.parent().unwrap_or(Path::new(".")))?;
        }
        let unnamed = folder.join("unnamed");
        match self.named {
            true if unnamed.exists() => fs::remove_file(&unnamed)?,
            true => return Ok(()),
            false => drop(File::create(&unnamed)?),
        }
        durable::sync_folder(folder)
    }
}

/// Where metainfo, manifest and the rest are.
pub(crate) fn source(folder: &Path) -> PathBuf {
    folder.join("source")
}

pub(crate) fn is_named(folder: &Path) -> bool {
    !folder.join("unnamed").exists()
}

/// Reads only whether an image is pinned. One that cannot be read is: what is in doubt is not thrown away.
pub(crate) fn is_pinned(folder: &Path) -> bool {
    let pins = fs::read(source(folder)).ok().and_then(|bytes| serde_json::from_slice::<Pins>(&bytes).ok());
    pins.is_none_or(|pins| pins.pinned || pins.source.pin)
}
