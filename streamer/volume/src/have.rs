//! The file that says which pieces `data` holds.
//!
//! Of sectors of 512 bytes, little endian. The first is the head:
//!
//! ```text
//!   0  16  "collective-have2"
//!  16   4  pieces
//!  24  56  bytes from origin, peer, web seed; zero, cache; uploaded, poisoned
//!  80   8  1 if the last stop was clean, then
//!  88  24  size, seconds and nanoseconds of the last change of `data`
//! 112  32  SHA-256 of all sectors behind the head
//! 480  32  SHA-256 of the 480 bytes before
//! ```
//!
//! Behind it are three bitfields, each filled up to whole sectors: pieces that are in `data`, pieces that were here when
//! the image was named, pieces that were read. It is made whole (written beside, then renamed) and then changed in place,
//! only the sectors that differ: what a flush costs does not grow with the image. Any mixture of old and new sectors is
//! safe, because without a clean stop every claim is verified, and a clean stop has the sum of them all.

use crate::durable;
use crate::image::sha256;
use crate::probe::{self, Op};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use streamer_api::BytesBySource;
use streamer_plan::Pieces;

const FORMAT: &[u8; 16] = b"collective-have2";
const SECTOR_BYTES: usize = 512;
const HEAD_SUM: usize = 480;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Have {
    /// Pieces that are in `data`.
    pub(crate) held: Pieces,
    /// Pieces that were here when the image was named.
    pub(crate) cached: Pieces,
    /// Pieces that were read.
    pub(crate) touched: Pieces,
    pub(crate) counted: Counted,
    /// What `data` looked like when it was last closed in order; absent while it is being written.
    pub(crate) clean: Option<Stamp>,
}

/// What was counted, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) bytes: BytesBySource,
    pub(crate) uploaded: u64,
    pub(crate) poisoned: u64,
}

/// Tells whether a file was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    size: u64,
    changed_s: i64,
    changed_ns: i64,
}

impl Stamp {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { size: meta.size(), changed_s: meta.ctime(), changed_ns: meta.ctime_nsec() })
    }
}

impl Have {
    /// Reads the file; `None` if there is none or it makes no sense.
    pub(crate) fn load(path: &Path, pieces: u32) -> io::Result<Option<Self>> {
        Ok(read(path)?.and_then(|bytes| Self::decode(&bytes, pieces)))
    }

    fn decode(bytes: &[u8], pieces: u32) -> Option<Self> {
        let field = (pieces.div_ceil(8) as usize).next_multiple_of(SECTOR_BYTES);
        let (head, rest) = bytes.split_at_checked(SECTOR_BYTES)?;
        let sound = head.starts_with(FORMAT)
            && head[16..20] == pieces.to_le_bytes()
            && rest.len() == 3 * field
            && sha256(&head[..HEAD_SUM]).as_bytes() == &head[HEAD_SUM..];
        if !sound {
            return None;
        }
        let number = |at: usize| head[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let set = |index: usize| {
            let bits = &rest[index * field..index * field + pieces.div_ceil(8) as usize];
            Pieces::from_bitfield(bits, pieces).ok()
        };
        let bytes = BytesBySource {
            origin: number(24),
            peer: number(32),
            web_seed: number(40),
            zero: number(48),
            cache: number(56),
        };
        let clean = number(80) == 1 && sha256(rest).as_bytes() == &head[112..144];
        Some(Self {
            held: set(0)?,
            cached: set(1)?,
            touched: set(2)?,
            counted: Counted { bytes, uploaded: number(64), poisoned: number(72) },
            clean: clean.then(|| Stamp {
                size: number(88),
                changed_s: number(96).cast_signed(),
                changed_ns: number(104).cast_signed(),
            }),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR_BYTES];
        for set in [&self.held, &self.cached, &self.touched] {
            bytes.extend_from_slice(&set.to_bitfield());
            bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
        }
        let sum = sha256(&bytes[SECTOR_BYTES..]);
        let counted = self.counted;
        let from = counted.bytes;
        let numbers = [
            (24, from.origin),
            (32, from.peer),
            (40, from.web_seed),
            (48, from.zero),
            (56, from.cache),
            (64, counted.uploaded),
            (72, counted.poisoned),
            (80, u64::from(self.clean.is_some())),
            (88, self.clean.map_or(0, |stamp| stamp.size)),
            (96, self.clean.map_or(0, |stamp| stamp.changed_s.cast_unsigned())),
            (104, self.clean.map_or(0, |stamp| stamp.changed_ns.cast_unsigned())),
        ];
        let head = &mut bytes[..SECTOR_BYTES];
        head[..16].copy_from_slice(FORMAT);
        head[16..20].copy_from_slice(&self.held.length().to_le_bytes());
        for (at, number) in numbers {
            head[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        head[112..144].copy_from_slice(sum.as_bytes());
        let head_sum = sha256(&head[..HEAD_SUM]);
        head[HEAD_SUM..].copy_from_slice(head_sum.as_bytes());
        bytes
    }
}

/// The file, and what is in it. It is open only while it is changed: a host may have ten thousand images.
#[derive(Debug)]
pub(crate) struct HaveFile {
    path: PathBuf,
    /// `None` if that is not known: then the file is made whole again.
    bytes: Option<Vec<u8>>,
}

impl HaveFile {
    /// Reads the file and says what is in it, if there is one that makes sense.
    pub(crate) fn open(path: PathBuf, pieces: u32) -> io::Result<(Self, Option<Have>)> {
        let Some(bytes) = read(&path)? else { return Ok((Self { path, bytes: None }, None)) };
        let Some(have) = Have::decode(&bytes, pieces) else {
            tracing::warn!(path = %path.display(), "unreadable map of pieces: what is there is verified");
            return Ok((Self { path, bytes: None }, None));
        };
        Ok((Self { path, bytes: Some(bytes) }, Some(have)))
    }

    /// Writes the file. Durable on return.
    pub(crate) fn save(&mut self, have: &Have) -> io::Result<()> {
        let bytes = have.encode();
        // After an error, also one of the sync, nobody knows what is in the file.
        match self.bytes.take() {
            Some(before) if before.len() == bytes.len() => {
                let file = OpenOptions::new().write(true).open(&self.path)?;
                self.change(&file, &before, &bytes)?;
            }
            _ => durable::replace(&self.path, &bytes)?,
        }
        self.bytes = Some(bytes);
        Ok(())
    }

    fn change(&self, file: &File, before: &[u8], bytes: &[u8]) -> io::Result<()> {
        let sectors = bytes.chunks(SECTOR_BYTES).zip(before.chunks(SECTOR_BYTES));
        for (at, (new, _)) in (0_u64..).zip(sectors).filter(|(_, (new, old))| new != old) {
            let at = at * SECTOR_BYTES as u64;
            probe::before(&self.path, &Op::Write(at, new))?;
            file.write_all_at(new, at)?;
        }
        probe::before(&self.path, &Op::Sync)?;
        file.sync_data()
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
