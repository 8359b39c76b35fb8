//! The store in one redb file.

use crate::{
    Backend, BackendError, Change, CommitError, Compare, Entry, HISTORY_REVISIONS_MAX, History, Operation,
    Transaction,
};
use redb::backends::FileBackend;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, Table, TableDefinition, TableError,
    WriteTransaction,
};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use types::Revision;

/// Key to (revision of its last write, value).
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// A change: key, value; none if deleted.
type Changed<'a> = (&'a str, Option<&'a [u8]>);
/// (Revision, place in its transaction) to what changed.
const HISTORY: TableDefinition<'_, (u64, u32), Changed<'_>> = TableDefinition::new("history");
/// `revision`, `compacted`, `format`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Of the tables above; a file with another is refused.
const FORMAT: u64 = 1;

type HistoryTable<'txn> = Table<'txn, (u64, u32), Changed<'static>>;

/// One file, locked while open. Every commit is synced before it returns.
///
/// After an error of the disk redb refuses everything until the file is opened anew, so that is done at once, or as soon
/// as it can be: a full disk is a refusal, not the end. Space is allocated before it is used, so that a full disk is met
/// while the file grows, before anything of a transaction is written.
#[derive(Debug)]
pub struct Redb {
    path: PathBuf,
    database: RwLock<Opened>,
    /// Held by the one commit at a time: the last revision that somebody was told of.
    told: Mutex<Revision>,
}

#[derive(Debug)]
struct Opened {
    /// None while it could not be opened again.
    database: Option<Database>,
    /// How often it was opened: one that failed answers some questions still, so only this tells it from the next.
    times: u64,
}

impl Redb {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file cannot be opened, is damaged, in use, or of another format.
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        let failed = |error: redb::Error| failed("open", path, error);
        let database = open(path).map_err(failed)?;
        let told = Mutex::new(revision(&database).map_err(failed)?);
        let opened = Opened { database: Some(database), times: 1 };
        Ok(Self { path: path.to_owned(), database: RwLock::new(opened), told })
    }

    /// Runs something on the open file. If the disk fails under it, the file is opened anew.
    fn with<T>(
        &self,
        attempt: &'static str,
        work: impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, BackendError> {
        let result = match self.run(&work) {
            // Another's failure, not this one's.
            (Err(redb::Error::PreviousIo), times) => self.reopen(times).and_then(|()| self.run(&work).0),
            (Err(redb::Error::Io(error)), times) => {
                if let Err(again) = self.reopen(times) {
                    tracing::error!(error = %again, "the store is closed until its file can be opened again");
                }
                Err(redb::Error::Io(error))
            }
            (result, _) => result,
        };
        result.map_err(|error| failed(attempt, &self.path, error))
    }

    fn run<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> (Result<T, redb::Error>, u64) {
        let opened = self.database.read().unwrap_or_else(PoisonError::into_inner);
        (opened.database.as_ref().map_or(Err(redb::Error::PreviousIo), work), opened.times)
    }

    /// Opens the file anew, unless somebody has done so since it was opened `times` times.
    fn reopen(&self, times: u64) -> Result<(), redb::Error> {
        let mut opened = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if opened.times == times {
            // Its lock on the file goes with it.
            opened.database = None;
            opened.database = Some(open(&self.path)?);
            opened.times += 1;
        }
        Ok(())
    }

    /// The revision on disk. Only a commit that was told to have failed can have made it another than the one told:
    /// then what the asker believes is wrong, and only a new start puts that right.
    fn known(&self, told: Revision) -> Result<(), BackendError> {
        let now = self.with("read the revision of", revision)?;
        if now == told {
            return Ok(());
        }
        let text = format!("it is at revision {now}, expected was {told}: restart the controller");
        Err(failed("trust", &self.path, io::Error::other(text).into()))
    }
}

fn failed(attempt: &'static str, path: &Path, source: redb::Error) -> BackendError {
    BackendError { attempt, path: path.to_owned(), source: source.into() }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let backend = Allocated { file: file.try_clone()?, inner: FileBackend::new(file)? };
    let database = Database::builder().create_with_backend(backend)?;
    // A file that is as it should be is only read: that needs no room.
    let format = match database.begin_read()?.open_table(META) {
        Ok(table) => table.get("format")?.map(|guard| guard.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match format {
        None => initialize(&database)?,
        Some(FORMAT) => {}
        Some(other) => {
            return Err(redb::Error::Corrupted(format!(
                "the file has format {other}, this program writes {FORMAT}"
            )));
        }
    }
    Ok(database)
}

fn initialize(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(ENTRIES)?;
    write.open_table(HISTORY)?;
    write.open_table(META)?.insert("format", FORMAT)?;
    Ok(write.commit()?)
}

/// A file whose every byte has its place on the disk: where there are no holes, no write finds the disk full.
#[derive(Debug)]
struct Allocated {
    file: File,
    inner: FileBackend,
}

impl StorageBackend for Allocated {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.inner.len()?;
        if len <= before {
            return self.inner.set_len(len);
        }
        match fallocate(&self.file, FallocateFlags::empty(), before, len - before) {
            Ok(()) => Ok(()),
            // A file system that cannot: a hole, then.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.inner.set_len(len),
            Err(error) => {
                // Some of it may have been had.
                self.inner.set_len(before)?;
                Err(error.into())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

fn revision(database: &Database) -> Result<Revision, redb::Error> {
    Ok(Revision(meta(&database.begin_read()?.open_table(META)?, "revision")?))
}

fn get(database: &Database, key: &str) -> Result<Option<Entry>, redb::Error> {
    let table = database.begin_read()?.open_table(ENTRIES)?;
    Ok(table.get(key)?.map(|guard| entry(key, guard.value())))
}

fn list(database: &Database, prefix: &str) -> Result<(Revision, Vec<Entry>), redb::Error> {
    let read = database.begin_read()?;
    let table = read.open_table(ENTRIES)?;
    let mut entries = Vec::new();
    for row in table.range(prefix..)? {
        let (key, value) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        entries.push(entry(key.value(), value.value()));
    }
    Ok((Revision(meta(&read.open_table(META)?, "revision")?), entries))
}

fn commit(
    database: &Database,
    transaction: &Transaction,
) -> Result<Result<Revision, CommitError>, redb::Error> {
    let write = database.begin_write()?;
    if let Some(conflict) = first_conflict(&write, &transaction.compares)? {
        write.abort()?;
        return Ok(Err(conflict));
    }
    let before = meta(&write.open_table(META)?, "revision")?;
    if carry_out(&write, &transaction.operations, before + 1)? == 0 {
        write.abort()?;
        return Ok(Ok(Revision(before)));
    }
    write.open_table(META)?.insert("revision", before + 1)?;
    forget(&write, (before + 1).saturating_sub(HISTORY_REVISIONS_MAX))?;
    write.commit()?;
    Ok(Ok(Revision(before + 1)))
}

fn history(database: &Database, since: Revision) -> Result<History, redb::Error> {
    let read = database.begin_read()?;
    let compacted = meta(&read.open_table(META)?, "compacted")?;
    if since.0 < compacted {
        return Ok(History::Compacted(Revision(compacted)));
    }
    let mut changes = Vec::new();
    for row in read.open_table(HISTORY)?.range((since.0.saturating_add(1), 0)..)? {
        let (at, change) = row?;
        let (key, value) = change.value();
        changes.push(Change {
            revision: Revision(at.value().0),
            key: key.to_owned(),
            value: value.map(<[u8]>::to_vec),
        });
    }
    Ok(History::Changes(changes))
}

fn entry(key: &str, (revision, value): (u64, &[u8])) -> Entry {
    Entry { key: key.to_owned(), value: value.to_vec(), revision: Revision(revision) }
}

fn meta(table: &impl redb::ReadableTable<&'static str, u64>, key: &str) -> Result<u64, redb::Error> {
    Ok(table.get(key)?.map_or(0, |guard| guard.value()))
}

fn first_conflict(
    write: &WriteTransaction,
    compares: &[Compare],
) -> Result<Option<CommitError>, redb::Error> {
    let table = write.open_table(ENTRIES)?;
    for compare in compares {
        let (key, expected) = match compare {
            Compare::Absent(key) => (key, None),
            Compare::At(key, revision) => (key, Some(*revision)),
        };
        let actual = table.get(key.as_str())?.map(|guard| Revision(guard.value().0));
        if actual != expected {
            return Ok(Some(CommitError::Conflict { key: key.clone(), actual }));
        }
    }
    Ok(None)
}

/// Returns how many operations had an effect.
fn carry_out(write: &WriteTransaction, operations: &[Operation], revision: u64) -> Result<u32, redb::Error> {
    let mut entries = write.open_table(ENTRIES)?;
    let mut history: HistoryTable<'_> = write.open_table(HISTORY)?;
    let mut place = 0;
    for operation in operations {
        match operation {
            Operation::Put(key, value) => {
                entries.insert(key.as_str(), (revision, value.as_slice()))?;
                history.insert((revision, place), (key.as_str(), Some(value.as_slice())))?;
            }
            Operation::Delete(key) => {
                if entries.remove(key.as_str())?.is_none() {
                    continue;
                }
                history.insert((revision, place), (key.as_str(), None))?;
            }
        }
        place += 1;
    }
    Ok(place)
}

/// Removes changes up to and with `through`. One commit forgets one revision's changes, so this stays short.
fn forget(write: &WriteTransaction, through: u64) -> Result<(), redb::Error> {
    let mut meta_table = write.open_table(META)?;
    if through <= meta(&meta_table, "compacted")? {
        return Ok(());
    }
    write.open_table(HISTORY)?.retain_in(..=(through, u32::MAX), |_, _| false)?;
    meta_table.insert("compacted", through)?;
    Ok(())
}

impl Backend for Redb {
    fn revision(&self) -> Result<Revision, BackendError> {
        self.with("read the revision of", revision)
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, BackendError> {
        self.with("read a key of", |database| get(database, key))
    }

    fn list(&self, prefix: &str) -> Result<(Revision, Vec<Entry>), BackendError> {
        self.with("list the keys of", |database| list(database, prefix))
    }

    fn commit(&self, transaction: &Transaction) -> Result<Revision, CommitError> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.known(*told)?;
        match self.with("commit a transaction to", |database| commit(database, transaction)) {
            Ok(committed) => {
                *told = committed?;
                Ok(*told)
            }
            // The disk may have failed after the transaction had become durable.
            Err(error) => match self.with("read the revision of", revision) {
                Ok(now) if now > *told => {
                    *told = now;
                    Ok(now)
                }
                _ => Err(error.into()),
            },
        }
    }

    fn history(&self, since: Revision) -> Result<History, BackendError> {
        self.with("read the history of", |database| history(database, since))
    }
}
