//! An image's bytes on disk: a sparse file.

use crate::probe::{self, Op};
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, SeekFrom, copy_file_range, fadvise, fallocate, seek};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What direct reads must be aligned to, in memory and on disk: no disk has larger sectors.
const DIRECT_BYTES: usize = 4096;

/// A sparse file.
#[derive(Debug)]
pub(crate) struct Data {
    file: File,
    path: PathBuf,
    /// Its file system cannot tell whether a read takes the disk.
    blind: AtomicBool,
}

impl Data {
    /// Opens the file, making it if needed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, path: path.to_owned(), blind: AtomicBool::new(false) })
    }

    /// Opens a file that is there, only to be read.
    pub(crate) fn open_to_read(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, path: path.to_owned(), blind: AtomicBool::new(false) })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Fills the buffer from the page cache; `false` if that takes the disk, or fails. A file system that cannot say
    /// (tmpfs) is taken to be one in memory.
    pub(crate) fn read_now(&self, buffer: &mut [u8], at: u64) -> bool {
        if self.blind.load(Ordering::Relaxed) {
            return self.file.read_exact_at(buffer, at).is_ok();
        }
        let wanted = buffer.len();
        let mut slices = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, &mut slices, at, ReadWriteFlags::NOWAIT) {
            Ok(read) => read == wanted,
            Err(Errno::OPNOTSUPP) => {
                self.blind.store(true, Ordering::Relaxed);
                self.read_now(buffer, at)
            }
            Err(_) => false,
        }
    }

    pub(crate) fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    /// Reads what the disk has, whatever the page cache says. `at` is a multiple of 4 KiB.
    pub(crate) fn read_from_disk(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self.read_direct(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                // No direct reads here. Pages that are clean, or only called so after a failed write, can be dropped.
                let length = NonZeroU64::new(buffer.len() as u64);
                fadvise(&self.file, at, length, Advice::DontNeed)?;
                self.read(buffer, at)
            }
            other => other,
        }
    }

    fn read_direct(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let file: File =
            rustix::fs::open(&self.path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())?
                .into();
        let whole = buffer.len().next_multiple_of(DIRECT_BYTES);
        let mut room = vec![0_u8; whole + DIRECT_BYTES];
        let start = room.as_ptr().align_offset(DIRECT_BYTES);
        let aligned =
            room.get_mut(start..start + whole).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut read = 0;
        while read < buffer.len() {
            match file.read_at(&mut aligned[read..], at + read as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Only the end of the file cuts a direct read short.
                more => read += more,
            }
        }
        buffer.copy_from_slice(&aligned[..buffer.len()]);
        Ok(())
    }

    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        probe::before(&self.path, &Op::Write(at, bytes))?;
        self.file.write_all_at(bytes, at)
    }

    /// Copies a range of another file here: shared blocks where the file system can, else in the kernel, else by hand.
    pub(crate) fn copy_from(&self, from: &File, from_at: u64, at: u64, length: u64) -> io::Result<()> {
        probe::before(&self.path, &Op::Copy(at, length))?;
        let size = usize::try_from(length).map_err(io::Error::other)?;
        if !copy_whole(from, from_at, &self.file, at, size)? {
            let mut buffer = vec![0; size];
            from.read_exact_at(&mut buffer, from_at)?;
            self.file.write_all_at(&buffer, at)?;
        }
        Ok(())
    }

    /// Makes a range a hole. Best effort: a file system without holes keeps the bytes.
    pub(crate) fn punch(&self, at: u64, length: u64) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if probe::before(&self.path, &Op::Punch(at, length)).is_ok() {
            let _ = fallocate(&self.file, hole, at, length);
        }
    }

    /// Makes all that was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        probe::before(&self.path, &Op::Sync)?;
        self.file.sync_data()
    }
}

/// Copies in the kernel, which shares blocks where it can; `false` if it cannot between these files.
fn copy_whole(from: &File, from_at: u64, to: &File, at: u64, length: usize) -> io::Result<bool> {
    let (mut read_at, mut write_at) = (from_at, at);
    let mut rest = length;
    while rest > 0 {
        match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), rest) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter")),
            Ok(copied) => rest -= copied,
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if rest == length => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Byte ranges of a file that are not holes.
pub(crate) fn data_ranges(file: &File, length: u64) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(std::iter::once(0..length).collect()),
            other => other?,
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(length);
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}
