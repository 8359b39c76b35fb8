//! The one door to the store: every change is a transaction together with its audit entry and its events, and the
//! picture in memory follows the disk, never the other way round.

use crate::problem::{Answer, Refused};
use chassis::clock::unix_ms;
use controller_api::rest::{AuditEntry, Change, Event};
use controller_model::cluster::RecordError;
use controller_model::{Cluster, name, record};
use controller_store::{BackendError, Operation, Store, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, broadcast, watch};
use types::{Digest, Revision};

/// Events kept.
pub(crate) const EVENTS_MAX: usize = 10_000;
/// Changes a slow watcher may lag behind before it is told to begin again.
const CHANGES_BUFFERED: usize = 1_024;
const AUDIT_HEAD: &str = "audit-head";

/// Who asked for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// Somebody with an API token.
    Token(String),
    /// A member of the cluster.
    Host(String),
    /// Nobody: it was due.
    Controller,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token:{id}"),
            Self::Host(name) => write!(f, "host:{name}"),
            Self::Controller => f.write_str("controller"),
        }
    }
}

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// By key; none deletes.
    pub records: BTreeMap<String, Option<Vec<u8>>>,
    /// What happened.
    pub events: Vec<Happening>,
}

/// An event before it has its place.
#[derive(Debug)]
pub(crate) struct Happening {
    object: String,
    reason: String,
    message: String,
    /// Now if absent.
    at_ms: Option<u64>,
}

impl Writes {
    /// The writes of a draft.
    #[must_use]
    pub(crate) fn of(draft: controller_model::Draft) -> Self {
        Self { records: draft.writes, events: Vec::new() }
    }

    /// Sets a key to the JSON of a value.
    pub(crate) fn put<T: Serialize>(&mut self, key: impl Into<String>, value: &T) {
        self.records.insert(key.into(), Some(serde_json::to_vec(value).unwrap_or_default()));
    }

    /// Removes a key.
    pub(crate) fn delete(&mut self, key: impl Into<String>) {
        self.records.insert(key.into(), None);
    }

    /// Says that something happened.
    pub(crate) fn event(
        &mut self,
        object: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let (object, message) = (object.into(), message.into());
        self.events.push(Happening { object, reason: reason.to_owned(), message, at_ms: None });
    }

    /// Says that something happened elsewhere, by the clock there. Long texts are cut.
    pub(crate) fn foreign_event(&mut self, object: String, reason: &str, message: &str, at_ms: u64) {
        let reason = reason.chars().take(64).collect();
        let message = message.chars().take(2_048).collect();
        self.events.push(Happening { object, reason, message, at_ms: Some(at_ms) });
    }
}

/// A line for the audit log: what, on what.
#[derive(Debug, Clone)]
pub(crate) struct Act<'a> {
    /// By whom.
    pub who: &'a Who,
    /// `apply`, `delete`, ...
    pub action: &'static str,
    /// What was changed.
    pub object: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct AuditHead {
    number: u64,
    digest: Option<Digest>,
}

/// Why the state cannot be read at start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] BackendError),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// The store with its picture.
#[derive(Debug)]
pub(crate) struct Ledger {
    store: Store,
    picture: RwLock<Arc<Cluster>>,
    events: RwLock<VecDeque<Event>>,
    writing: Mutex<AuditHead>,
    changes: broadcast::Sender<Change>,
    latest: watch::Sender<Revision>,
}

impl Ledger {
    /// Reads everything.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn open(store: Store) -> Result<Self, OpenError> {
        let (revision, entries) = store.list("")?;
        let (mut cluster, mut events, mut head) = (Cluster::default(), VecDeque::new(), AuditHead::default());
        let parse =
            |key: &str, source: serde_json::Error| RecordError { key: key.to_owned(), source: source.into() };
        for entry in entries {
            if entry.key == AUDIT_HEAD {
                head = serde_json::from_slice(&entry.value).map_err(|error| parse(&entry.key, error))?;
            } else if entry.key.starts_with("events/") {
                events.push_back(
                    serde_json::from_slice(&entry.value).map_err(|error| parse(&entry.key, error))?,
                );
            } else {
                cluster.take(&entry.key, Some(&entry.value), entry.revision)?;
            }
        }
        Ok(Self {
            store,
            picture: RwLock::new(Arc::new(cluster)),
            events: RwLock::new(events),
            writing: Mutex::new(head),
            changes: broadcast::Sender::new(CHANGES_BUFFERED),
            latest: watch::Sender::new(revision),
        })
    }

    /// The picture as it is now. It does not change under its holder.
    #[must_use]
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.picture.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The revision of the picture.
    #[must_use]
    pub(crate) fn revision(&self) -> Revision {
        *self.latest.borrow()
    }

    /// Follows the picture's revision.
    #[must_use]
    pub(crate) fn follow(&self) -> watch::Receiver<Revision> {
        self.latest.subscribe()
    }

    /// Hints of what changed, of decisions and of what hosts report.
    #[must_use]
    pub(crate) fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Says that something changed that is not in the store: a host's report.
    pub(crate) fn hint(&self, collection: &str, name: String) {
        let revision = self.revision();
        // Nobody may be listening.
        let _ = self.changes.send(Change { revision, collection: collection.to_owned(), name });
    }

    /// The store, for what has no place in the picture.
    #[must_use]
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Events after a revision.
    #[must_use]
    pub(crate) fn events_since(&self, since: Revision) -> Vec<Event> {
        let events = self.events.read().unwrap_or_else(PoisonError::into_inner);
        let start = events.partition_point(|event| event.revision <= since);
        events.iter().skip(start).cloned().collect()
    }

    /// Changes something that somebody asked for. `make` sees the cluster as it is when it is its turn; if it writes
    /// nothing, nothing happens and no entry is made.
    ///
    /// # Errors
    /// Whatever `make` refuses, or the store fails: nothing is changed then.
    pub(crate) async fn change<T: Send>(
        &self,
        act: &Act<'_>,
        make: impl FnOnce(&Cluster) -> Answer<(Writes, T)> + Send,
    ) -> Answer<(Revision, T)> {
        self.change_because(act, None, make).await
    }

    /// As [`Self::change`], with the reason that was given.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(crate) async fn change_because<T: Send>(
        &self,
        act: &Act<'_>,
        why: Option<&str>,
        make: impl FnOnce(&Cluster) -> Answer<(Writes, T)> + Send,
    ) -> Answer<(Revision, T)> {
        self.write(Some((act, why)), make).await
    }

    /// Writes down what was due or has been observed.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(crate) async fn record(
        &self,
        make: impl FnOnce(&Cluster) -> Answer<Writes> + Send,
    ) -> Answer<Revision> {
        self.write(None, |cluster| Ok((make(cluster)?, ()))).await.map(|(revision, ())| revision)
    }

    async fn write<T: Send>(
        &self,
        act: Option<(&Act<'_>, Option<&str>)>,
        make: impl FnOnce(&Cluster) -> Answer<(Writes, T)> + Send,
    ) -> Answer<(Revision, T)> {
        let mut head = self.writing.lock().await;
        let (writes, answer) = make(&self.cluster())?;
        if writes.records.is_empty() && writes.events.is_empty() {
            return Ok((self.revision(), answer));
        }
        let expected = Revision(self.revision().0 + 1);
        let at_ms = unix_ms();
        let mut transaction = Transaction::default();
        for (key, value) in &writes.records {
            match value {
                Some(value) => transaction.put(key.clone(), value.clone()),
                None => transaction.delete(key.clone()),
            };
        }
        let new_head = act.map(|act| audit(&mut transaction, &head, act, at_ms, expected));
        let events = self.events(&mut transaction, &writes, at_ms, expected);
        let (store, committed) = (self.store.clone(), transaction);
        let (revision, committed) = tokio::task::spawn_blocking(move || {
            store.commit(&committed).map(|revision| (revision, committed))
        })
        .await
        .map_err(|error| Refused::internal(&error))??;
        if let Some(new_head) = new_head {
            *head = new_head;
        }
        self.take(&committed, revision, events)?;
        Ok((revision, answer))
    }

    /// Adds the events, and removes the oldest beyond [`EVENTS_MAX`]: whole revisions, so that the places of those that
    /// stay still begin at zero. Returns the new ones and how many old ones leave.
    fn events(
        &self,
        transaction: &mut Transaction,
        writes: &Writes,
        at_ms: u64,
        revision: Revision,
    ) -> (Vec<Event>, usize) {
        let made: Vec<Event> = writes
            .events
            .iter()
            .map(|happening| Event {
                revision,
                at_ms: happening.at_ms.unwrap_or(at_ms),
                object: happening.object.clone(),
                reason: happening.reason.clone(),
                message: happening.message.clone(),
            })
            .collect();
        for (place, event) in made.iter().enumerate() {
            transaction.put(event_key(revision, place), serde_json::to_vec(event).unwrap_or_default());
        }
        let held = self.events.read().unwrap_or_else(PoisonError::into_inner);
        let mut leaving = (held.len() + made.len()).saturating_sub(EVENTS_MAX).min(held.len());
        while leaving > 0 && leaving < held.len() && held[leaving].revision == held[leaving - 1].revision {
            leaving += 1;
        }
        let (mut place, mut before) = (0, None);
        for event in held.iter().take(leaving) {
            place = if before == Some(event.revision) { place + 1 } else { 0 };
            before = Some(event.revision);
            transaction.delete(event_key(event.revision, place));
        }
        (made, leaving)
    }

    fn take(
        &self,
        transaction: &Transaction,
        revision: Revision,
        (made, leaving): (Vec<Event>, usize),
    ) -> Answer<()> {
        {
            let mut picture = self.picture.write().unwrap_or_else(PoisonError::into_inner);
            let cluster = Arc::make_mut(&mut picture);
            for operation in &transaction.operations {
                let value = match operation {
                    Operation::Put(_, value) => Some(value.as_slice()),
                    Operation::Delete(_) => None,
                };
                cluster.take(operation.key(), value, revision).map_err(|error| Refused::internal(&error))?;
            }
        }
        {
            let mut events = self.events.write().unwrap_or_else(PoisonError::into_inner);
            events.drain(..leaving);
            events.extend(made);
        }
        self.latest.send_replace(revision);
        for change in
            transaction.operations.iter().filter_map(|operation| change_of(operation.key(), revision))
        {
            let _ = self.changes.send(change);
        }
        Ok(())
    }
}

fn event_key(revision: Revision, place: usize) -> String {
    format!("{}-{place:06}", record::number_key("events", revision.0))
}

fn audit(
    transaction: &mut Transaction,
    head: &AuditHead,
    (act, why): (&Act<'_>, Option<&str>),
    at_ms: u64,
    revision: Revision,
) -> AuditHead {
    let entry = AuditEntry {
        number: head.number + 1,
        at_ms,
        who: act.who.to_string(),
        action: act.action.to_owned(),
        object: act.object.clone(),
        why: why.map(str::to_owned),
        revision,
        previous: head.digest.unwrap_or(Digest::from_bytes([0; 32])),
    };
    let bytes = serde_json::to_vec(&entry).unwrap_or_default();
    let new = AuditHead { number: entry.number, digest: Some(name::digest(&bytes)) };
    transaction.put(record::number_key("audit", entry.number), bytes);
    transaction.put(AUDIT_HEAD, serde_json::to_vec(&new).unwrap_or_default());
    new
}

/// What a changed key means to those who watch.
pub(crate) fn change_of(key: &str, revision: Revision) -> Option<Change> {
    let (collection, name) = key.split_once('/')?;
    let (collection, name) = match collection {
        "bundles" | "deployments" | "instances" | "hosts" | "policies" | "volumes" | "decisions"
        | "rollouts" => (collection, name.to_owned()),
        "placements" => ("instances", name.to_owned()),
        "facts" => ("hosts", name.to_owned()),
        "schedules" | "checkpoints" => {
            ("deployments", name.split_once('/').map_or(name, |(deployment, _)| deployment).to_owned())
        }
        "subscriptions" => ("subscriptions", name.to_owned()),
        "versions" | "channels" => ("appliances", name.rsplit_once('/')?.0.to_owned()),
        _ => return None,
    };
    Some(Change { revision, collection: collection.to_owned(), name })
}
