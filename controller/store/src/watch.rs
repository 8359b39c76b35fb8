//! Following the store.

use crate::{Backend, BackendError, Change, History};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch as signal;
use types::Revision;

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Changes were forgotten: list anew, then watch from that list's revision.
    #[error(
        "the changes after revision {asked} are forgotten; list again and watch from there (oldest is {oldest})"
    )]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest that could be.
        oldest: Revision,
    },
    /// The medium fails.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A watch. Made by [`crate::Store::watch`].
pub struct Watch {
    backend: Arc<dyn Backend>,
    latest: signal::Receiver<Revision>,
    prefix: String,
    since: Revision,
    ready: VecDeque<Change>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch of {:?} after {}", self.prefix, self.since)
    }
}

impl Watch {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        latest: signal::Receiver<Revision>,
        prefix: String,
        since: Revision,
    ) -> Self {
        Self { backend, latest, prefix, since, ready: VecDeque::new() }
    }

    /// The next change; waits for it. Cancel safe. None when the store is closed.
    ///
    /// # Errors
    /// [`WatchError`]; the watch is of no use afterwards.
    pub async fn next(&mut self) -> Result<Option<Change>, WatchError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(Some(change));
            }
            let latest = *self.latest.borrow_and_update();
            if latest > self.since {
                self.fill(latest)?;
                continue;
            }
            if self.latest.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self, latest: Revision) -> Result<(), WatchError> {
        match self.backend.history(self.since)? {
            History::Compacted(oldest) => Err(WatchError::Compacted { asked: self.since, oldest }),
            History::Changes(changes) => {
                let last = changes.last().map_or(latest, |change| change.revision.max(latest));
                self.ready.extend(changes.into_iter().filter(|c| c.key.starts_with(&self.prefix)));
                self.since = last;
                Ok(())
            }
        }
    }
}
