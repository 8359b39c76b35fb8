//! The store in one redb file.

use crate::{
    Backend, BackendError, Change, CommitError, Compare, Entry, HISTORY_REVISIONS_MAX, History, Operation,
    Transaction,
};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition, WriteTransaction};
use std::path::Path;
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
#[derive(Debug)]
pub struct Redb(Database);

impl Redb {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file cannot be opened, is damaged, in use, or of another format.
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        Self::open_inner(path).map_err(BackendError::new("open the file"))
    }

    fn open_inner(path: &Path) -> Result<Self, redb::Error> {
        let database = Database::create(path)?;
        let write = database.begin_write()?;
        {
            write.open_table(ENTRIES)?;
            write.open_table(HISTORY)?;
            let mut meta = write.open_table(META)?;
            let format = meta.get("format")?.map(|guard| guard.value());
            match format {
                None => drop(meta.insert("format", FORMAT)?),
                Some(FORMAT) => {}
                Some(other) => {
                    return Err(redb::Error::Corrupted(format!(
                        "the file has format {other}, this program writes {FORMAT}"
                    )));
                }
            }
        }
        write.commit()?;
        Ok(Self(database))
    }

    fn get_inner(&self, key: &str) -> Result<Option<Entry>, redb::Error> {
        let table = self.0.begin_read()?.open_table(ENTRIES)?;
        Ok(table.get(key)?.map(|guard| entry(key, guard.value())))
    }

    fn list_inner(&self, prefix: &str) -> Result<(Revision, Vec<Entry>), redb::Error> {
        let read = self.0.begin_read()?;
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

    fn commit_inner(&self, transaction: &Transaction) -> Result<Result<Revision, CommitError>, redb::Error> {
        let write = self.0.begin_write()?;
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

    fn history_inner(&self, since: Revision) -> Result<History, redb::Error> {
        let read = self.0.begin_read()?;
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
        let read = || Ok(Revision(meta(&self.0.begin_read()?.open_table(META)?, "revision")?));
        read().map_err(BackendError::new("read the revision"))
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, BackendError> {
        self.get_inner(key).map_err(BackendError::new("read a key"))
    }

    fn list(&self, prefix: &str) -> Result<(Revision, Vec<Entry>), BackendError> {
        self.list_inner(prefix).map_err(BackendError::new("list keys"))
    }

    fn commit(&self, transaction: &Transaction) -> Result<Revision, CommitError> {
        self.commit_inner(transaction).map_err(BackendError::new("commit a transaction"))?
    }

    fn history(&self, since: Revision) -> Result<History, BackendError> {
        self.history_inner(since).map_err(BackendError::new("read the history"))
    }
}
