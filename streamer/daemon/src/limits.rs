//! Rate limits: in force at once, kept over restarts.

use crate::problem::Refusal;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use streamer_api::Limits;
use streamer_swarm::Engine;

/// Smallest limit, in bytes a second: one block.
const LIMIT_MIN: u64 = 16 << 10;

/// The limits in force, and the file they are kept in.
#[derive(Debug)]
pub(crate) struct Throttle {
    path: PathBuf,
    limits: Mutex<Limits>,
}

impl Throttle {
    /// Takes up what was in force before. A file that makes no sense is an error: nobody wants a link flooded by mistake.
    pub(crate) fn open(cache_dir: &Path, engine: &Engine) -> io::Result<Self> {
        let path = cache_dir.join("limits.json");
        let limits = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                let reason =
                    format!("{} is no set of limits: {error}; remove it to have none", path.display());
                io::Error::new(io::ErrorKind::InvalidData, reason)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Limits::default(),
            Err(error) => return Err(error),
        };
        engine.set_limits(translate(limits));
        Ok(Self { path, limits: Mutex::new(limits) })
    }

    /// In force.
    pub(crate) fn get(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other limits in force, once they are kept. Blocks on the disk.
    pub(crate) fn set(&self, limits: Limits, engine: &Engine) -> Result<Limits, Refusal> {
        let all = [
            ("download_bytes_per_s", limits.download_bytes_per_s),
            ("upload_bytes_per_s", limits.upload_bytes_per_s),
            ("site_download_bytes_per_s", limits.site_download_bytes_per_s),
            ("site_upload_bytes_per_s", limits.site_upload_bytes_per_s),
        ];
        for (name, limit) in all {
            if let Some(limit) = limit.filter(|limit| *limit < LIMIT_MIN) {
                return Err(Refusal::Limit { name, limit, least: LIMIT_MIN });
            }
        }
        let mut held = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if *held != limits {
            self.keep(limits).map_err(|source| Refusal::Keep { path: self.path.clone(), source })?;
            engine.set_limits(translate(limits));
            *held = limits;
        }
        Ok(limits)
    }

    fn keep(&self, limits: Limits) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&limits)?)?;
        file.sync_data()?;
        fs::rename(&beside, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn translate(limits: Limits) -> streamer_swarm::Limits {
    let limit = |bytes: Option<u64>| bytes.and_then(NonZeroU64::new);
    streamer_swarm::Limits {
        download: limit(limits.download_bytes_per_s),
        upload: limit(limits.upload_bytes_per_s),
        far_download: limit(limits.site_download_bytes_per_s),
        far_upload: limit(limits.site_upload_bytes_per_s),
    }
}
