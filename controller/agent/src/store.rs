//! What the agent remembers on disk: the desired document, a record for each incarnation, and what it named to the
//! streamer. A record is written before the domain it is about exists and goes after it.

use crate::layout::Layout;
use chassis::telemetry::chain;
use controller_api::agent::HostDesired;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use streamer_api::{ImageSource, Prefetch};
use types::{Digest, InstanceId};
use uuid::Uuid;

/// One incarnation on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Whose.
    pub(crate) instance: InstanceId,
    /// The image its overlay stands on.
    pub(crate) image: Digest,
    /// What netd keeps of it until the domain is gone.
    #[serde(flatten)]
    pub(crate) wires: Wires,
    /// Attempts to start it.
    pub(crate) starts: u32,
    /// When its present or last run began.
    pub(crate) started_ms: Option<u64>,
    /// When the guest said `ready` in that run.
    pub(crate) ready_ms: Option<u64>,
    /// That run has ended.
    pub(crate) ended: bool,
    /// Runs and attempts in a row that were short or failed.
    pub(crate) tries: u32,
    /// It is not started before.
    pub(crate) not_before_ms: u64,
    /// Why the last attempt failed.
    pub(crate) failure: Option<String>,
    /// The start whose run the controller was told last, or that had nothing to tell.
    #[serde(default)]
    pub(crate) run_told: u32,
    /// A run is not told before.
    #[serde(default)]
    pub(crate) run_not_before_ms: u64,
    /// The memory it was to go on from was used: from now on it boots.
    #[serde(default)]
    pub(crate) resumed: bool,
    /// Bytes written to its disks since its last capture, or since it was made, in runs that have ended.
    #[serde(default)]
    pub(crate) dirty_before: u64,
    /// Bytes of its present run that a capture has taken.
    #[serde(default)]
    pub(crate) captured_bytes: u64,
}

/// An instance's ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wires {
    /// Its networks, each with its own ports only.
    pub(crate) networks: Vec<netd_api::Network>,
    /// Its ports that watch. What they watch is no part of it.
    #[serde(default)]
    pub(crate) watchers: Vec<netd_api::Watcher>,
}

/// How an image was named to the streamer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Naming {
    /// Number of the source the controller gave.
    pub(crate) source: u64,
    pub(crate) prefetch: Prefetch,
    pub(crate) pin: bool,
}

/// An image as it was named.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) naming: Naming,
    pub(crate) source: ImageSource,
}

impl Record {
    pub(crate) fn new(instance: InstanceId, image: Digest, wires: Wires) -> Self {
        Self {
            instance,
            image,
            wires,
            starts: 0,
            started_ms: None,
            ready_ms: None,
            ended: false,
            tries: 0,
            not_before_ms: 0,
            failure: None,
            run_told: 0,
            run_not_before_ms: 0,
            resumed: false,
            dirty_before: 0,
            captured_bytes: 0,
        }
    }
}

/// Why something could not be remembered or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A file.
    #[error("cannot {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Its content.
    #[error("{} holds something else than expected", path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Store {
    layout: Layout,
    records: Mutex<Records>,
    desired: Mutex<Document>,
    named: Mutex<BTreeMap<Digest, Naming>>,
}

#[derive(Debug, Default)]
struct Records {
    all: BTreeMap<Uuid, Record>,
    /// Those that are otherwise on disk, or not there: it took no note.
    unsaved: BTreeSet<Uuid>,
}

#[derive(Debug, Default)]
struct Document {
    held: Option<HostDesired>,
    /// One that the disk did not take, and why: it is not acted on.
    waiting: Option<(HostDesired, String)>,
}

impl Store {
    /// Reads everything. A folder without a record is a half-finished removal: it is finished.
    pub(crate) fn open(layout: Layout) -> Result<Self, StoreError> {
        let desired = read_json(&layout.desired())?;
        let mut records = BTreeMap::new();
        for name in names(&layout.instances())? {
            let Ok(incarnation) = name.parse::<Uuid>() else { continue };
            match read_json(&layout.record(incarnation))? {
                Some(record) => {
                    records.insert(incarnation, record);
                }
                None => remove_folder(&layout.instance(incarnation))?,
            }
        }
        let records = Records { all: records, unsaved: BTreeSet::new() };
        let document = Document { held: desired, waiting: None };
        let named = Mutex::new(named(&layout)?);
        Ok(Self { layout, records: Mutex::new(records), desired: Mutex::new(document), named })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn desired(&self) -> Option<HostDesired> {
        locked(&self.desired).held.clone()
    }

    /// Keeps a desired document. False if it is older than the one held: then nothing changes. One that the disk does
    /// not take waits for [`Self::keep_waiting`].
    pub(crate) fn keep_desired(&self, desired: HostDesired) -> Result<bool, StoreError> {
        let mut document = locked(&self.desired);
        let waiting = document.waiting.as_ref().map(|(waiting, _)| waiting);
        let newer = |other: &HostDesired| other.generation > desired.generation;
        if document.held.as_ref().is_some_and(newer) || waiting.is_some_and(newer) {
            return Ok(false);
        }
        document.waiting = None;
        if document.held.as_ref() != Some(&desired) {
            if let Err(error) = write_json(&self.layout.desired(), &desired) {
                let why = chain(&error).to_string();
                document.waiting = Some((desired, why));
                return Err(error);
            }
            document.held = Some(desired);
        }
        Ok(true)
    }

    /// The newest document that came is the one that is acted on.
    pub(crate) fn is_kept(&self) -> bool {
        locked(&self.desired).waiting.is_none()
    }

    /// Tries again to keep a document that the disk did not take; says why not.
    pub(crate) fn keep_waiting(&self) -> Option<String> {
        let (desired, _) = locked(&self.desired).waiting.clone()?;
        let generation = desired.generation;
        // What it says is kept with the document.
        let _ = self.keep_desired(desired);
        let document = locked(&self.desired);
        let (_, why) = document.waiting.as_ref()?;
        Some(format!("generation {generation} of the desired document is not kept, so not acted on: {why}"))
    }

    pub(crate) fn records(&self) -> BTreeMap<Uuid, Record> {
        locked(&self.records).all.clone()
    }

    /// Changes a record on disk, then in memory. One that is not there is made of `new`, or left alone without it.
    pub(crate) fn change(
        &self,
        incarnation: Uuid,
        new: Option<Record>,
        change: impl FnOnce(&mut Record),
    ) -> Result<Option<Record>, StoreError> {
        let mut records = locked(&self.records);
        let before = records.all.get(&incarnation);
        let Some(mut record) = before.cloned().or(new) else { return Ok(None) };
        change(&mut record);
        if before != Some(&record) || records.unsaved.contains(&incarnation) {
            let folder = self.layout.instance(incarnation);
            std::fs::create_dir_all(&folder).map_err(|source| StoreError::File {
                what: "make",
                path: folder.clone(),
                source,
            })?;
            write_json(&self.layout.record(incarnation), &record)?;
            records.unsaved.remove(&incarnation);
            records.all.insert(incarnation, record.clone());
        }
        Ok(Some(record))
    }

    /// Notes something that may be forgotten by a crash: in memory even if the disk takes no note, so that it is told
    /// and heeded all the same.
    pub(crate) fn note(&self, incarnation: Uuid, new: Record, note: impl Fn(&mut Record)) {
        let Err(error) = self.change(incarnation, Some(new.clone()), &note) else { return };
        tracing::warn!(error = %chain(&error), %incarnation, "a note is kept in memory only");
        let mut records = locked(&self.records);
        note(records.all.entry(incarnation).or_insert(new));
        records.unsaved.insert(incarnation);
    }

    /// Notes that the guest said `ready` in the run that began at `started_ms`. True if that is news.
    pub(crate) fn note_ready(
        &self,
        incarnation: Uuid,
        started_ms: u64,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let mut news = false;
        self.change(incarnation, None, |record| {
            if record.started_ms == Some(started_ms) && !record.ended && record.ready_ms.is_none() {
                record.ready_ms = Some(now_ms);
                news = true;
            }
        })?;
        Ok(news)
    }

    /// Forgets an incarnation with its overlay, configuration disk and log. Its domain is gone by now.
    pub(crate) fn forget(&self, incarnation: Uuid) -> Result<(), StoreError> {
        // The record goes first on disk: a folder without one is removed at the next start.
        let path = self.layout.record(incarnation);
        chassis::durable::remove(&path).map_err(|source| StoreError::File {
            what: "remove",
            path,
            source,
        })?;
        remove_folder(&self.layout.instance(incarnation))?;
        let _ = std::fs::remove_file(self.layout.health_socket(incarnation));
        let mut records = locked(&self.records);
        records.all.remove(&incarnation);
        records.unsaved.remove(&incarnation);
        Ok(())
    }

    /// Images this agent has named to the streamer, and how.
    pub(crate) fn named(&self) -> BTreeMap<Digest, Naming> {
        locked(&self.named).clone()
    }

    /// An image as it was named. What cannot be read is fetched again.
    pub(crate) fn image(&self, digest: Digest) -> Result<Option<Named>, StoreError> {
        match read_json(&self.layout.image(digest)) {
            Err(StoreError::Content { .. }) => Ok(None),
            read => read,
        }
    }

    pub(crate) fn keep_image(&self, digest: Digest, named: &Named) -> Result<(), StoreError> {
        write_json(&self.layout.image(digest), named)?;
        locked(&self.named).insert(digest, named.naming);
        Ok(())
    }

    pub(crate) fn forget_image(&self, digest: Digest) -> Result<(), StoreError> {
        let path = self.layout.image(digest);
        chassis::durable::remove(&path).map_err(|source| StoreError::File {
            what: "remove",
            path,
            source,
        })?;
        locked(&self.named).remove(&digest);
        Ok(())
    }

    /// The controller has said how fast the streamer may be, and not taken it back yet.
    pub(crate) fn limits_set(&self) -> bool {
        self.layout.limits().exists()
    }

    pub(crate) fn keep_limits_set(&self, set: bool) -> Result<(), StoreError> {
        let path = self.layout.limits();
        if set {
            return write_json(&path, &set);
        }
        chassis::durable::remove(&path).map_err(|source| StoreError::File { what: "remove", path, source })
    }
}

fn named(layout: &Layout) -> Result<BTreeMap<Digest, Naming>, StoreError> {
    let hex = |name: &String| name.strip_suffix(".json").map(|hex| format!("sha256:{hex}"));
    let mut all = BTreeMap::new();
    for name in names(&layout.images())? {
        let Some(digest) = hex(&name).and_then(|text| text.parse::<Digest>().ok()) else { continue };
        let named: Result<Option<Named>, _> = read_json(&layout.image(digest));
        all.insert(digest, named.ok().flatten().map(|named| named.naming).unwrap_or_default());
    }
    Ok(all)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::File { what: "read", path: path.to_owned(), source }),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| StoreError::Content { path: path.to_owned(), source }),
    }
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let bytes =
        serde_json::to_vec(value).map_err(|source| StoreError::Content { path: path.to_owned(), source })?;
    chassis::durable::write(path, &bytes, 0o600).map_err(|source| StoreError::File {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let fail = |source| StoreError::File { what: "read", path: folder.to_owned(), source };
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(fail(source)),
        Ok(entries) => {
            entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(fail)).collect()
        }
    }
}

fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::File { what: "remove", path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
