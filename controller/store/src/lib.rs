//! The controller's state: a revisioned key-value store behind one seam.
//!
//! It is: get, list by prefix, transaction with compares, watch from a revision. It is not a database of ours: the
//! bytes and their durability are [`redb`]'s (one file), and several controllers will stand on etcd, whose words these
//! are. Nobody in here knows what a bundle is.
//!
//! Start at [`Store`]; an implementation is a [`Backend`]: [`Redb`] and [`Memory`] pass the same tests.
//!
//! Invariants:
//! - A transaction happens wholly or not at all, and is durable before [`Store::commit`] returns.
//! - Every transaction that changes something takes exactly the next [`Revision`]; all its keys carry it.
//! - A watcher sees every change after the revision it asked for, in order, once; or it is told that the history does
//!   not reach back that far ([`WatchError::Compacted`]) and lists anew. It never misses one silently.

mod memory;
mod redb_file;
mod watch;

pub use memory::Memory;
pub use redb_file::Redb;
pub use watch::{Watch, WatchError};

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch as signal;
use types::Revision;

/// Longest key in bytes.
pub const KEY_LEN_MAX: usize = 512;
/// Largest value in bytes: bulk bytes are files, the store holds what names them.
pub const VALUE_LEN_MAX: usize = 4 << 20;
/// Most operations of one transaction.
pub const OPERATIONS_MAX: usize = 16_384;
/// Revisions whose changes are kept for watchers.
pub const HISTORY_REVISIONS_MAX: u64 = 4_096;

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// UTF-8, 1 to [`KEY_LEN_MAX`] bytes.
    pub key: String,
    /// At most [`VALUE_LEN_MAX`] bytes.
    pub value: Vec<u8>,
    /// When it was last written.
    pub revision: Revision,
}

/// What must hold for a transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key is not there.
    Absent(String),
    /// The key was last written at exactly this revision.
    At(String, Revision),
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put(String, Vec<u8>),
    /// Removes a key; an absent one is fine.
    Delete(String),
}

impl Operation {
    /// The key it writes.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// Compares and writes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// At most one per key.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// Adds a condition.
    pub fn require(&mut self, compare: Compare) -> &mut Self {
        self.compares.push(compare);
        self
    }

    /// Adds a write.
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.operations.push(Operation::Put(key.into(), value.into()));
        self
    }

    /// Adds a removal.
    pub fn delete(&mut self, key: impl Into<String>) -> &mut Self {
        self.operations.push(Operation::Delete(key.into()));
        self
    }

    fn check(&self) -> Result<(), CommitError> {
        if self.operations.len() > OPERATIONS_MAX {
            return Err(CommitError::TooManyOperations(self.operations.len()));
        }
        let mut keys = std::collections::BTreeSet::new();
        for operation in &self.operations {
            let key = operation.key();
            if key.is_empty() || key.len() > KEY_LEN_MAX {
                return Err(CommitError::Key(key.chars().take(64).collect()));
            }
            if !keys.insert(key) {
                return Err(CommitError::Twice(key.to_owned()));
            }
            if let Operation::Put(key, value) = operation
                && value.len() > VALUE_LEN_MAX
            {
                return Err(CommitError::Value { key: key.clone(), len: value.len() });
            }
        }
        Ok(())
    }
}

/// One key changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of the transaction that changed it.
    pub revision: Revision,
    /// Which key.
    pub key: String,
    /// What it holds now; none if it is gone.
    pub value: Option<Vec<u8>>,
}

/// The store's medium fails.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {}", path.display())]
pub struct BackendError {
    /// What was attempted.
    pub attempt: &'static str,
    /// With which file.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl BackendError {
    /// There is no room on the medium: freeing some helps, nothing is broken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        matches!(self.source.downcast_ref(), Some(redb::Error::Io(error)) if full(error))
    }
}

/// Why a transaction did not happen. Nothing of it did.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A compare does not hold.
    #[error("{key} was changed by somebody else (at revision {actual:?})")]
    Conflict {
        /// Of the compare.
        key: String,
        /// When the key was last written; none if it is absent.
        actual: Option<Revision>,
    },
    /// A key is empty or too long.
    #[error("{0:?} is no key: 1 to {KEY_LEN_MAX} bytes")]
    Key(String),
    /// Two operations write one key.
    #[error("a transaction writes {0} twice")]
    Twice(String),
    /// A value is too large.
    #[error("the value of {key} has {len} bytes, more than {VALUE_LEN_MAX}")]
    Value {
        /// Its key.
        key: String,
        /// Its size in bytes.
        len: usize,
    },
    /// Too many operations.
    #[error("a transaction has {0} operations, more than {OPERATIONS_MAX}")]
    TooManyOperations(usize),
    /// The medium fails.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// The changes after a revision, or that they are forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum History {
    /// All of them, in order.
    Changes(Vec<Change>),
    /// Some are forgotten: the oldest revision one may ask from is in it.
    Compacted(Revision),
}

/// Where the bytes are. Methods block; they are called from many threads.
pub trait Backend: Send + Sync + 'static {
    /// The last revision taken.
    ///
    /// # Errors
    /// The medium fails.
    fn revision(&self) -> Result<Revision, BackendError>;

    /// One key.
    ///
    /// # Errors
    /// The medium fails.
    fn get(&self, key: &str) -> Result<Option<Entry>, BackendError>;

    /// All keys that begin with `prefix`, in order, and the revision this is a picture of.
    ///
    /// # Errors
    /// The medium fails.
    fn list(&self, prefix: &str) -> Result<(Revision, Vec<Entry>), BackendError>;

    /// Carries out a checked transaction and makes it durable. A transaction without effect takes no revision.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] or the medium fails; nothing is changed then.
    fn commit(&self, transaction: &Transaction) -> Result<Revision, CommitError>;

    /// Changes after `since`.
    ///
    /// # Errors
    /// The medium fails.
    fn history(&self, since: Revision) -> Result<History, BackendError>;
}

/// The store. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    latest: Arc<signal::Sender<Revision>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store at {}", *self.latest.borrow())
    }
}

impl Store {
    /// A store on a backend.
    ///
    /// # Errors
    /// The medium fails.
    pub fn new(backend: impl Backend) -> Result<Self, BackendError> {
        let revision = backend.revision()?;
        Ok(Self { backend: Arc::new(backend), latest: Arc::new(signal::Sender::new(revision)) })
    }

    /// The last revision taken.
    #[must_use]
    pub fn revision(&self) -> Revision {
        *self.latest.borrow()
    }

    /// One key. Blocks for a page read at most.
    ///
    /// # Errors
    /// The medium fails.
    pub fn get(&self, key: &str) -> Result<Option<Entry>, BackendError> {
        self.backend.get(key)
    }

    /// All keys that begin with `prefix`, in order, and the revision this is a picture of.
    ///
    /// # Errors
    /// The medium fails.
    pub fn list(&self, prefix: &str) -> Result<(Revision, Vec<Entry>), BackendError> {
        self.backend.list(prefix)
    }

    /// Carries out a transaction; it is durable when this returns. Blocks for the disk: call it where that is allowed.
    ///
    /// # Errors
    /// [`CommitError`]; nothing is changed then.
    pub fn commit(&self, transaction: &Transaction) -> Result<Revision, CommitError> {
        transaction.check()?;
        let revision = self.backend.commit(transaction)?;
        self.latest.send_if_modified(|latest| {
            let newer = revision > *latest;
            *latest = revision.max(*latest);
            newer
        });
        Ok(revision)
    }

    /// All changes after `since` to keys that begin with `prefix`, for ever.
    #[must_use]
    pub fn watch(&self, prefix: impl Into<String>, since: Revision) -> Watch {
        Watch::new(Arc::clone(&self.backend), self.latest.subscribe(), prefix.into(), since)
    }
}
