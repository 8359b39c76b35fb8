//! The file that says which pieces `data` holds.

use crate::durable;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use streamer_api::BytesBySource;
use streamer_plan::Pieces;
use types::Base64;

/// Its format; another is read as "nothing is here".
const FORMAT: &str = "collective-have/1";

/// Content of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Have {
    format: String,
    /// Bitfield of pieces that are in `data`.
    held: Base64,
    /// Bitfield of pieces that were here when the image was named.
    cached: Base64,
    /// Bitfield of pieces that were read.
    touched: Base64,
    pub(crate) bytes: BytesBySource,
    pub(crate) bytes_uploaded: u64,
    pub(crate) bytes_poisoned: u64,
    /// What `data` looked like when it was last closed in order; absent while it is being written.
    pub(crate) clean: Option<Stamp>,
}

/// Tells whether a file was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    size: u64,
    changed_s: i64,
    changed_ns: i64,
}

/// What the file is made of.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) held: Pieces,
    pub(crate) cached: Pieces,
    pub(crate) touched: Pieces,
}

impl Stamp {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { size: meta.size(), changed_s: meta.ctime(), changed_ns: meta.ctime_nsec() })
    }
}

impl Have {
    pub(crate) fn new(
        claims: &Claims,
        bytes: BytesBySource,
        bytes_uploaded: u64,
        bytes_poisoned: u64,
        clean: Option<Stamp>,
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            held: Base64(claims.held.to_bitfield()),
            cached: Base64(claims.cached.to_bitfield()),
            touched: Base64(claims.touched.to_bitfield()),
            bytes,
            bytes_uploaded,
            bytes_poisoned,
            clean,
        }
    }

    /// `None` if there is no file or it makes no sense: then nothing is claimed, and everything is fetched again.
    pub(crate) fn load(path: &Path, pieces: u32) -> io::Result<Option<(Self, Claims)>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let Ok(have) = serde_json::from_slice::<Self>(&text) else {
            tracing::warn!(path = %path.display(), "unreadable map of pieces; everything is fetched again");
            return Ok(None);
        };
        let set = |bits: &Base64| Pieces::from_bitfield(&bits.0, pieces);
        match (have.format == FORMAT, set(&have.held), set(&have.cached), set(&have.touched)) {
            (true, Ok(held), Ok(cached), Ok(touched)) => Ok(Some((have, Claims { held, cached, touched }))),
            _ => Ok(None),
        }
    }

    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        durable::replace(path, &serde_json::to_vec(self)?)
    }
}
