//! The file that stands for saved memory: what the previous file has not got, and where the rest is found in it.
//!
//! Its form, numbers little-endian: 16 bytes of magic; then parts, each a byte that says which: `L`, a 32-bit length and
//! as many bytes; `C`, a 64-bit offset in the previous file and a 64-bit length; `E`, the 64-bit length and the SHA-256 of
//! all that the parts make, and nothing after it but zeros.

use crate::split::{Piece, Split};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read, Seek, SeekFrom, Write};

const MAGIC: &[u8; 16] = b"CollectivePages1";
const LITERAL: u8 = b'L';
const COPY: u8 = b'C';
const END: u8 = b'E';
/// Bytes of a part that copies.
const COPY_BYTES: usize = 17;
/// Bytes that are gathered before they are written as one literal.
const LITERAL_BYTES_MAX: usize = 1 << 20;

/// What a difference came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of the memory that it stands for.
    pub whole_bytes: u64,
    /// Bytes that were written for it.
    pub written_bytes: u64,
    /// Pages of the memory.
    pub pages: u64,
    /// Those of them that the previous file has not got.
    pub new_pages: u64,
}

/// Why memory cannot be made whole.
#[derive(Debug, thiserror::Error)]
pub enum DifferenceError {
    /// A file cannot be read or written.
    #[error("its bytes cannot be copied")]
    Copy(#[from] io::Error),
    /// It is something else.
    #[error("it does not begin as a difference of saved memory does")]
    Magic,
    /// It ends too early.
    #[error("it ends before its end: it was cut off")]
    Short,
    /// A part of it is none.
    #[error("it has a part {0:#04x}, which is none")]
    Part(u8),
    /// It names what the previous file has not got.
    #[error("the memory that it stands on has no {len} bytes at {offset}: it is not the one it was made of")]
    Previous {
        /// From here.
        offset: u64,
        /// So many.
        len: u64,
    },
    /// It makes more than there can be.
    #[error("it makes more than {0} bytes, which was the most that it may")]
    TooLong(u64),
    /// What was made is not what was saved.
    #[error("what it makes is not what was saved: one of the two files is damaged, or not the right one")]
    Digest,
}

/// Writes what `next` has and `previous` has not. Both are files of saved memory; others work and save little.
///
/// # Errors
/// A file cannot be read or written.
pub fn difference(
    previous: &mut (impl Read + Seek),
    next: &mut impl Read,
    to: &mut impl Write,
) -> Result<Figures, DifferenceError> {
    let places = places(previous)?;
    let mut writer = Parts::begin(to)?;
    let mut figures = Figures::default();
    let mut digest = Sha256::new();
    let mut split = Split::new(next);
    let mut candidate = Vec::new();
    while let Some(piece) = split.next()? {
        let bytes = piece.bytes();
        digest.update(bytes);
        figures.whole_bytes += bytes.len() as u64;
        let mut known = None;
        if let Some(offset) = places.get(&key(bytes)) {
            // A hash is a hint: the bytes decide.
            candidate.resize(bytes.len(), 0);
            previous.seek(SeekFrom::Start(*offset))?;
            known = (fills(previous, &mut candidate)? && candidate == bytes).then_some(*offset);
        }
        if matches!(piece, Piece::Page(_)) {
            figures.pages += 1;
            figures.new_pages += u64::from(known.is_none());
        }
        match known {
            // Naming a few bytes takes as much room as they do.
            Some(offset) if bytes.len() > COPY_BYTES => writer.copy(offset, bytes.len() as u64)?,
            _ => writer.literal(bytes)?,
        }
    }
    figures.written_bytes = writer.end(figures.whole_bytes, &digest.finalize())?;
    Ok(figures)
}

/// Makes the memory that a difference stands for, of the same previous file: `bytes_max` at most, for a few bytes can name
/// many.
///
/// # Errors
/// [`DifferenceError`]; what was written so far is of no use.
pub fn whole(
    previous: &mut (impl Read + Seek),
    difference: &mut impl Read,
    to: &mut impl Write,
    bytes_max: u64,
) -> Result<(), DifferenceError> {
    if take::<16>(difference)? != *MAGIC {
        return Err(DifferenceError::Magic);
    }
    let mut made = Digesting { to, digest: Sha256::new(), len: 0 };
    loop {
        let [part] = take(difference)?;
        match part {
            LITERAL => {
                let len = u64::from(u32::from_le_bytes(take(difference)?));
                made.has_room(len, bytes_max)?;
                if io::copy(&mut difference.take(len), &mut made)? < len {
                    return Err(DifferenceError::Short);
                }
            }
            COPY => {
                let [offset, len] = [take(difference)?, take(difference)?].map(u64::from_le_bytes);
                made.has_room(len, bytes_max)?;
                previous.seek(SeekFrom::Start(offset))?;
                if io::copy(&mut previous.take(len), &mut made)? < len {
                    return Err(DifferenceError::Previous { offset, len });
                }
            }
            END => {
                let len = u64::from_le_bytes(take(difference)?);
                let digest: [u8; 32] = take(difference)?;
                let same = made.len == len && made.digest.finalize()[..] == digest;
                return if same { Ok(()) } else { Err(DifferenceError::Digest) };
            }
            other => return Err(DifferenceError::Part(other)),
        }
    }
}

/// Where each piece of a file is.
fn places(previous: &mut (impl Read + Seek)) -> Result<HashMap<u64, u64>, DifferenceError> {
    previous.seek(SeekFrom::Start(0))?;
    let mut places = HashMap::new();
    let mut offset = 0;
    let mut split = Split::new(previous);
    while let Some(piece) = split.next()? {
        places.insert(key(piece.bytes()), offset);
        offset += piece.bytes().len() as u64;
    }
    Ok(places)
}

fn key(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Whether there was enough to fill it.
fn fills(from: &mut impl Read, into: &mut [u8]) -> Result<bool, DifferenceError> {
    match from.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn take<const N: usize>(from: &mut impl Read) -> Result<[u8; N], DifferenceError> {
    let mut bytes = [0; N];
    if fills(from, &mut bytes)? { Ok(bytes) } else { Err(DifferenceError::Short) }
}

/// Writes parts, neighbours put together.
struct Parts<W> {
    to: W,
    literal: Vec<u8>,
    /// Offset and length.
    copy: Option<(u64, u64)>,
    written: u64,
}

impl<W: Write> Parts<W> {
    fn begin(to: W) -> Result<Self, DifferenceError> {
        let mut parts = Self { to, literal: Vec::new(), copy: None, written: 0 };
        parts.put(MAGIC)?;
        Ok(parts)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), DifferenceError> {
        self.to.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn literal(&mut self, bytes: &[u8]) -> Result<(), DifferenceError> {
        self.flush_copy()?;
        self.literal.extend(bytes);
        if self.literal.len() >= LITERAL_BYTES_MAX { self.flush_literal() } else { Ok(()) }
    }

    fn copy(&mut self, offset: u64, len: u64) -> Result<(), DifferenceError> {
        self.flush_literal()?;
        match &mut self.copy {
            Some((start, so_far)) if *start + *so_far == offset => {
                *so_far += len;
                Ok(())
            }
            _ => {
                self.flush_copy()?;
                self.copy = Some((offset, len));
                Ok(())
            }
        }
    }

    fn flush_literal(&mut self) -> Result<(), DifferenceError> {
        let literal = std::mem::take(&mut self.literal);
        // Each is little longer than its limit: its length fits.
        for part in literal.chunks(LITERAL_BYTES_MAX) {
            self.put(&[LITERAL])?;
            self.put(&(part.len() as u32).to_le_bytes())?;
            self.put(part)?;
        }
        Ok(())
    }

    fn flush_copy(&mut self) -> Result<(), DifferenceError> {
        let Some((offset, len)) = self.copy.take() else { return Ok(()) };
        self.put(&[COPY])?;
        self.put(&offset.to_le_bytes())?;
        self.put(&len.to_le_bytes())
    }

    /// Bytes written in all.
    fn end(mut self, len: u64, digest: &[u8]) -> Result<u64, DifferenceError> {
        self.flush_literal()?;
        self.flush_copy()?;
        self.put(&[END])?;
        self.put(&len.to_le_bytes())?;
        self.put(digest)?;
        self.to.flush()?;
        Ok(self.written)
    }
}

/// Writes on, and knows the digest of what it wrote.
struct Digesting<'a, W> {
    to: &'a mut W,
    digest: Sha256,
    len: u64,
}

impl<W> Digesting<'_, W> {
    fn has_room(&self, len: u64, bytes_max: u64) -> Result<(), DifferenceError> {
        let fits = self.len.checked_add(len).is_some_and(|after| after <= bytes_max);
        if fits { Ok(()) } else { Err(DifferenceError::TooLong(bytes_max)) }
    }
}

impl<W: Write> Write for Digesting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.to.write(bytes)?;
        self.digest.update(&bytes[..len]);
        self.len += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests;
