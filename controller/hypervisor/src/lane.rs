//! A connection to libvirtd with threads that wait for it. There are two: one for calls that are answered at once, one
//! for those that copy memory or disks, so that the latter keep nobody waiting.

use crate::hypervisor::{Event, HypervisorError, LibvirtError};
use crate::native::Connection;
use crate::pool::Pool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

#[derive(Debug)]
pub(crate) struct Lane {
    uri: String,
    /// Longest wait for an answer.
    timeout: Duration,
    pool: Pool,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: Mutex<Option<Arc<Connection>>>,
    events: broadcast::Sender<Event>,
}

impl Lane {
    pub(crate) fn new(
        uri: &str,
        timeout: Duration,
        events: broadcast::Sender<Event>,
    ) -> Result<Self, HypervisorError> {
        let pool = Pool::new().map_err(|error| HypervisorError::Threads(error.to_string()))?;
        let shared = Arc::new(Shared { connection: Mutex::default(), events });
        Ok(Self { uri: uri.to_owned(), timeout, pool, shared })
    }

    /// What the connection tells.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Runs `f` on one of the threads, with a connection that is dialled if there is none.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Arc<Connection>) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let (uri, shared) = (self.uri.clone(), Arc::clone(&self.shared));
        let job = move || {
            let connection =
                shared.connection(&uri).map_err(|source| HypervisorError::Down { uri, source })?;
            f(&connection)
        };
        tokio::time::timeout(self.timeout, self.pool.run(job))
            .await
            .map_err(|_| HypervisorError::Timeout(self.timeout))?
            .unwrap_or_else(|| Err(HypervisorError::Threads("a call panicked".to_owned())))
    }
}

impl Shared {
    /// The live connection, dialled if there is none.
    fn connection(&self, uri: &str) -> Result<Arc<Connection>, LibvirtError> {
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = held.as_ref().filter(|connection| !connection.is_broken()) {
            return Ok(Arc::clone(connection));
        }
        *held = None;
        let connection = Arc::new(Connection::open(uri, &self.events)?);
        *held = Some(Arc::clone(&connection));
        // Nobody listens: then nobody misses it.
        let _ = self.events.send(Event::Connected);
        Ok(connection)
    }
}
