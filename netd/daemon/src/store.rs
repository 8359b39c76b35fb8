//! The desired document on disk: a restarted netd converges by itself.
//!
//! A network a row: a change of one port writes one network. What was acknowledged is on the disk, and after a kill at
//! any moment the old document is there or the new one.

use netd_api::{Change, Desired, Mirror, Network, Watcher};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use types::Generation;

/// Networks as JSON, in the document's order.
const NETWORKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("networks");
/// What is not of one network, as JSON.
const DOCUMENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("document");
const GENERATION: &str = "generation";
const WATCHERS: &str = "watchers";
const MIRRORS: &str = "mirrors";

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
    /// The database refused.
    #[error("cannot use {}; if it is damaged restore it, or remove it and run collective-netd purge", path.display())]
    Database {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    /// The document was damaged by others.
    #[error("{} holds no desired document; restore it, or remove it and run collective-netd purge", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// The folder, locked.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    database: Database,
    /// Where each network is.
    places: HashMap<String, u64>,
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
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(folder.to_owned())),
            Err(TryLockError::Error(source)) => return Err(fail(&path)(source)),
        }
        let path = folder.join("desired.redb");
        let database = Database::create(&path)
            .map_err(|source| StoreError::Database { path: path.clone(), source: Box::new(source.into()) })?;
        fs::set_permissions(&path, Permissions::from_mode(0o640)).map_err(fail(&path))?;
        let mut store = Self { path, database, places: HashMap::new(), _lock: lock };
        store.take_over(&folder.join("desired.json"))?;
        Ok(store)
    }

    /// Takes up what a netd before this one left as a file.
    fn take_over(&mut self, path: &Path) -> Result<(), StoreError> {
        let fail = |source| StoreError::Io { path: path.to_owned(), source };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(fail(source)),
        };
        let desired = serde_json::from_slice(&bytes)
            .map_err(|source| StoreError::Damaged { path: path.to_owned(), source })?;
        self.write(&desired)?;
        chassis::durable::remove(path).map_err(fail)
    }

    pub(crate) fn read(&mut self) -> Result<Option<Desired>, StoreError> {
        let mut rows = Vec::new();
        let found = self.read_rows(&mut rows).map_err(|source| self.broken(source))?;
        let Some([generation, watchers, mirrors]) = found else { return Ok(None) };
        let mut desired = Desired {
            generation: self.parse::<Generation>(&generation)?,
            networks: Vec::with_capacity(rows.len()),
            watchers: self.parse::<Vec<Watcher>>(&watchers)?,
            mirrors: self.parse::<Vec<Mirror>>(&mirrors)?,
        };
        self.places.clear();
        for (place, bytes) in rows {
            let network: Network = self.parse(&bytes)?;
            self.places.insert(network.id.clone(), place);
            desired.networks.push(network);
        }
        Ok(Some(desired))
    }

    fn read_rows(&self, rows: &mut Vec<(u64, Vec<u8>)>) -> Result<Option<[Vec<u8>; 3]>, redb::Error> {
        let reading = self.database.begin_read()?;
        let document = match reading.open_table(DOCUMENT) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table?,
        };
        let mut parts = [const { Vec::new() }; 3];
        for (part, name) in parts.iter_mut().zip([GENERATION, WATCHERS, MIRRORS]) {
            match document.get(name)? {
                Some(bytes) => *part = bytes.value().to_vec(),
                None => return Ok(None),
            }
        }
        for row in reading.open_table(NETWORKS)?.iter()? {
            let (place, bytes) = row?;
            rows.push((place.value(), bytes.value().to_vec()));
        }
        Ok(Some(parts))
    }

    /// Replaces the whole document.
    pub(crate) fn write(&mut self, desired: &Desired) -> Result<(), StoreError> {
        let networks: Vec<_> = desired.networks.iter().map(|n| self.print(n)).collect::<Result<_, _>>()?;
        let head = [
            (GENERATION, self.print(&desired.generation)?),
            (WATCHERS, self.print(&desired.watchers)?),
            (MIRRORS, self.print(&desired.mirrors)?),
        ];
        let write = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            writing.delete_table(NETWORKS)?;
            {
                let mut table = writing.open_table(NETWORKS)?;
                for (place, bytes) in (0..).zip(&networks) {
                    table.insert(place, bytes.as_slice())?;
                }
                let mut table = writing.open_table(DOCUMENT)?;
                for (name, bytes) in &head {
                    table.insert(*name, bytes.as_slice())?;
                }
            }
            Ok(writing.commit()?)
        };
        write().map_err(|source| self.broken(source))?;
        self.places = desired.networks.iter().map(|n| n.id.clone()).zip(0..).collect();
        Ok(())
    }

    /// Writes what a change of the held document changes. Replaced networks keep their places, new ones come last.
    pub(crate) fn change(&mut self, change: &Change) -> Result<(), StoreError> {
        let generation = self.print(&change.generation)?;
        let mut next = self.places.values().max().map_or(0, |last| last + 1);
        let mut rows = Vec::new();
        for network in &change.put {
            let place = self.places.get(&network.id).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            rows.push((place, self.print(network)?));
        }
        let write = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            {
                let mut table = writing.open_table(NETWORKS)?;
                for place in change.remove.iter().filter_map(|id| self.places.get(id)) {
                    table.remove(place)?;
                }
                for (place, bytes) in &rows {
                    table.insert(place, bytes.as_slice())?;
                }
                writing.open_table(DOCUMENT)?.insert(GENERATION, generation.as_slice())?;
            }
            Ok(writing.commit()?)
        };
        write().map_err(|source| self.broken(source))?;
        for id in &change.remove {
            self.places.remove(id);
        }
        self.places.extend(change.put.iter().map(|n| n.id.clone()).zip(rows.iter().map(|(place, _)| *place)));
        Ok(())
    }

    pub(crate) fn forget(&mut self) -> Result<(), StoreError> {
        let forget = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            writing.delete_table(DOCUMENT)?;
            writing.delete_table(NETWORKS)?;
            Ok(writing.commit()?)
        };
        forget().map_err(|source| self.broken(source))?;
        self.places.clear();
        Ok(())
    }

    fn broken(&self, source: redb::Error) -> StoreError {
        StoreError::Database { path: self.path.clone(), source: Box::new(source) }
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|source| self.damaged(source))
    }

    fn print<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(value).map_err(|source| self.damaged(source))
    }

    fn damaged(&self, source: serde_json::Error) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests;
