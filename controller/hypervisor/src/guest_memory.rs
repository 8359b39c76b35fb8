//! A guest's memory, read from outside while it runs.
//!
//! QEMU keeps it in a memfd (`<source type='memfd'/><access mode='shared'/>`), which is found among the open files of
//! the domain's own QEMU and opened again, read-only. It is read with `pread`, not mapped: a page that the guest never
//! touched is then not made by looking at it, and a file that is cut off is an error and no signal. The open file
//! outlives QEMU; so whoever reads asks [`GuestMemory::is_there`] afterwards before believing what was read.

use crate::monitor::Ram;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use uuid::Uuid;

/// How the link of an open memfd begins, with the name that QEMU gives those of memory.
const MEMFD: &str = "/memfd:memory-backend-memfd";
/// Programs that may hold a guest's memory.
const QEMU: &str = "qemu-system-";

/// A guest's memory.
#[derive(Debug)]
pub struct GuestMemory {
    file: File,
    ram: Vec<Ram>,
    /// Of the QEMU it belongs to.
    process: PathBuf,
    started: u64,
}

/// Why a guest's memory is not found.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No QEMU of it is to be seen from here.
    #[error("no QEMU process of domain {0} is visible here")]
    NoProcess(Uuid),
    /// Somebody else says it was this domain.
    #[error("more than one process says that it is domain {0}: none is believed")]
    Ambiguous(Uuid),
    /// It was started without shared memory.
    #[error(
        "domain {0} has no memfd of its whole memory: it was defined without memoryBacking, start it anew"
    )]
    NoMemory(Uuid),
    /// QEMU does not say where the memory is.
    #[error("QEMU does not say which addresses of domain {0} are memory")]
    NoMap(Uuid),
    /// The file cannot be opened.
    #[error("cannot open the memory of domain {0}")]
    Open(Uuid, #[source] io::Error),
}

impl GuestMemory {
    /// Opens the memory of a domain whose RAM is known.
    pub(crate) fn open(uuid: Uuid, ram: Vec<Ram>) -> Result<Self, MemoryError> {
        let process = process_of(uuid)?;
        let started = started(&process).ok_or(MemoryError::NoProcess(uuid))?;
        let len = ram.iter().map(|part| part.offset + part.len).max().unwrap_or(0);
        let path = memfd_of(&process, len).ok_or(MemoryError::NoMemory(uuid))?;
        let file = File::open(path).map_err(|error| MemoryError::Open(uuid, error))?;
        Ok(Self { file, ram, process, started })
    }

    /// RAM by guest-physical address, ascending.
    #[must_use]
    pub fn ram(&self) -> &[Ram] {
        &self.ram
    }

    /// Fills `into` from a guest-physical address. The guest runs on: what is read may be half of a change.
    ///
    /// # Errors
    /// Not all of it is in one part of RAM, or the memory is not there any more.
    pub fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        let next = self.ram.partition_point(|part| part.start <= address);
        let part = next.checked_sub(1).and_then(|index| self.ram.get(index));
        let inside = part.and_then(|part| {
            let from = address - part.start;
            let fits = part.len.checked_sub(from).is_some_and(|left| left >= into.len() as u64);
            fits.then_some(part.offset + from)
        });
        let offset =
            inside.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this is no memory"))?;
        self.file.read_exact_at(into, offset)
    }

    /// Whether the QEMU that it was opened of still lives: if not, what was read since is of no guest.
    #[must_use]
    pub fn is_there(&self) -> bool {
        started(&self.process) == Some(self.started)
    }
}

fn process_of(uuid: Uuid) -> Result<PathBuf, MemoryError> {
    let processes = fs::read_dir("/proc").map_err(|error| MemoryError::Open(uuid, error))?;
    let mut found = processes
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .map(|entry| entry.path())
        .filter(|process| is_qemu(process) && says(process, uuid));
    match (found.next(), found.next()) {
        (Some(process), None) => Ok(process),
        (Some(_), Some(_)) => Err(MemoryError::Ambiguous(uuid)),
        (None, _) => Err(MemoryError::NoProcess(uuid)),
    }
}

fn is_qemu(process: &std::path::Path) -> bool {
    let program = fs::read_link(process.join("exe")).unwrap_or_default();
    program.file_name().is_some_and(|name| name.to_string_lossy().starts_with(QEMU))
}

/// Whether its command line has `-uuid UUID`.
fn says(process: &std::path::Path, uuid: Uuid) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let wanted = uuid.to_string();
    words.windows(2).any(|pair| pair == [b"-uuid".as_slice(), wanted.as_bytes()])
}

/// When a process started, in ticks since the boot: its number and this are its identity.
fn started(process: &std::path::Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let zombie = fields.next()? == "Z";
    fields.nth(18)?.parse().ok().filter(|_| !zombie)
}

/// The one memfd that holds all of it.
fn memfd_of(process: &std::path::Path, len: u64) -> Option<PathBuf> {
    let files = fs::read_dir(process.join("fd")).ok()?;
    files.flatten().map(|entry| entry.path()).find(|path| {
        fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with(MEMFD))
            && fs::metadata(path).is_ok_and(|meta| meta.size() >= len && len > 0)
    })
}
