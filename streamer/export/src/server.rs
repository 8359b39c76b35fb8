//! The listening socket and the table of exports.

use crate::{Export, negotiation, transmission};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client that has not chosen an export by then is dropped.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Clients at a time; more wait to be accepted.
const CLIENTS_MAX: usize = 1024;

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) export: Arc<dyn Export>,
    /// Ends its connections.
    pub(crate) gone: CancellationToken,
    /// Never that of another entry, also not of one that is gone.
    pub(crate) number: u64,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<String, Entry>,
    names: BTreeMap<u64, String>,
    last_number: u64,
}

impl Table {
    fn remove(&mut self, name: &str) {
        if let Some(old) = self.entries.remove(name) {
            self.names.remove(&old.number);
            old.gone.cancel();
        }
    }
}

/// Longest name of a reader, in bytes.
const READER_BYTES_MAX: usize = 128;

/// Serves exports by name. Clones share one table.
///
/// A client names an export alone, or followed by `/` and a reader's name: 1 to 128 letters, digits, `.`, `_`, `:`, `/`
/// and `-`.
#[derive(Clone, Default)]
pub struct Server {
    exports: Arc<Mutex<Table>>,
}

impl Server {
    /// A server without exports.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers an export, whose name has no `/`; one of the same name is replaced and its clients are dropped.
    pub fn add(&self, name: String, export: Arc<dyn Export>) {
        let mut table = self.table();
        table.remove(&name);
        table.last_number += 1;
        let number = table.last_number;
        table.names.insert(number, name.clone());
        table.entries.insert(name, Entry { export, gone: CancellationToken::new(), number });
    }

    /// Offers an export no longer and drops its clients.
    pub fn remove(&self, name: &str) {
        self.table().remove(name);
    }

    /// Serves on a unix socket until `shutdown`. A socket that is there already is replaced.
    ///
    /// # Errors
    /// If the socket cannot be bound.
    pub fn serve(
        self,
        path: &Path,
        shutdown: CancellationToken,
    ) -> io::Result<impl Future<Output = ()> + Send + 'static> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(self.accept(listener, shutdown))
    }

    async fn accept(self, listener: UnixListener, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let clients = Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (server, shutdown) = (self.clone(), shutdown.clone());
                    tasks.spawn(async move {
                        let _permit = permit;
                        server.converse(stream, &shutdown).await;
                    });
                }
                Err(error) => {
                    // Out of descriptors: others end before long.
                    tracing::warn!(%error, "cannot accept a block client");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Speaks with one client until it leaves, breaks the protocol, or its export is removed, or until `shutdown`.
    /// [`Server::serve`] does this for each connection.
    pub async fn converse(&self, mut stream: UnixStream, shutdown: &CancellationToken) {
        let (mut reader, mut writer) = stream.split();
        let negotiating = negotiation::negotiate(&mut reader, &mut writer, self);
        let negotiated = tokio::select! {
            negotiated = tokio::time::timeout(NEGOTIATION_TIMEOUT, negotiating) => negotiated,
            () = shutdown.cancelled() => return,
        };
        let session = match negotiated {
            Ok(Ok(Some(session))) => session,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => return tracing::debug!(%error, "a block client failed to negotiate"),
            Err(_) => return tracing::debug!("a block client chose no export in time"),
        };
        let served = match stream.into_std() {
            Ok(stream) => transmission::serve(stream, session, shutdown).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a block client was dropped");
        }
    }

    /// The export and the reader that a client names.
    pub(crate) fn find<'a>(&self, name: &'a str) -> Option<(Entry, &'a str)> {
        let (name, reader) = match name.split_once('/') {
            Some((name, reader)) => (name, Some(reader)),
            None => (name, None),
        };
        if reader.is_some_and(|reader| !is_reader(reader)) {
            return None;
        }
        Some((self.table().entries.get(name).cloned()?, reader.unwrap_or_default()))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.table().entries.keys().cloned().collect()
    }

    /// The export of a number.
    pub(crate) fn numbered(&self, number: u64) -> Option<Entry> {
        let table = self.table();
        table.entries.get(table.names.get(&number)?).cloned()
    }

    /// At most so many exports' numbers and names, by number, behind a number.
    pub(crate) fn names_after(&self, number: u64, count: usize) -> Vec<(u64, String)> {
        let behind = (Bound::Excluded(number), Bound::Unbounded);
        self.table().names.range(behind).take(count).map(|(number, name)| (*number, name.clone())).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_reader(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    (1..=READER_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}
