//! Policies: components on disk, compiled in memory, asked on threads that may block.

use crate::health::Health;
use crate::problem::{Answer, Refused};
use crate::settings;
use crate::shadow::WAITING_MAX;
use chassis::telemetry::chain;
use controller_api::policy::PolicyKind;
use controller_model::{Cluster, name};
use plugins_runtime::{Compiler, Kind, Limits, LoadError, Policy, Runtime, StartError};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use types::Digest;

/// The components that were taken in.
#[derive(Debug)]
pub(crate) struct Policies {
    runtime: Runtime,
    folder: PathBuf,
    loaded: Mutex<HashMap<Digest, Arc<Policy>>>,
    /// The last number that was given to a decision.
    last_decision: AtomicU64,
    /// How the installed policies do.
    pub(crate) health: Health,
    /// Questions that may wait for candidates.
    pub(crate) shadows: Arc<Semaphore>,
    /// Held by the candidate that is being asked.
    pub(crate) shadow_turn: tokio::sync::Mutex<()>,
}

impl Policies {
    /// Starts the runtime.
    ///
    /// # Errors
    /// The engine or its cache cannot be used.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, StartError> {
        let compiler = Compiler::this_program();
        let runtime = Runtime::with_compiler(Limits::default(), &state_dir.join("compiled"), compiler)?;
        Ok(Self {
            runtime,
            folder: state_dir.join("policies"),
            loaded: Mutex::default(),
            last_decision: AtomicU64::new(0),
            health: Health::default(),
            shadows: Arc::new(Semaphore::new(WAITING_MAX)),
            shadow_turn: tokio::sync::Mutex::default(),
        })
    }

    /// A number that no decision has or was promised.
    pub(crate) fn next_decision(&self, cluster: &Cluster) -> u64 {
        let stored = cluster.decisions.last_key_value().map_or(0, |(number, _)| *number);
        self.last_decision.fetch_max(stored, Ordering::Relaxed);
        self.last_decision.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Compiles a component and asks it who it is. Blocks: seconds for a large one. Nothing is kept.
    ///
    /// # Errors
    /// It is no policy: 422 with the runtime's reason.
    pub(crate) fn load(&self, bytes: &[u8]) -> Answer<Arc<Policy>> {
        self.runtime.load(bytes).map_err(|error| refuse(&error))
    }

    /// Keeps the bytes of a component that was loaded from them.
    ///
    /// # Errors
    /// They cannot be written.
    pub(crate) fn keep(&self, policy: Arc<Policy>, bytes: &[u8]) -> Answer<()> {
        let digest = policy.digest();
        let path = self.path(&digest);
        chassis::durable::write(&path, bytes, 0o600).map_err(|error| Refused::unwritten(&path, error))?;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, policy);
        Ok(())
    }

    /// Removes the bytes of a component that the store does not speak of.
    pub(crate) fn discard(&self, digest: &Digest) {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
        discard(&self.path(digest));
    }

    /// Removes what a crash left behind: files between being written and being spoken of, or the other way round.
    pub(crate) fn sweep(&self, cluster: &Cluster) {
        let needed: BTreeSet<PathBuf> = cluster
            .policies
            .values()
            .flat_map(|policy| policy.releases())
            .map(|release| self.path(&release.digest))
            .collect();
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| !needed.contains(path))
        {
            discard(&path);
        }
    }

    /// The bytes of a component, as they were taken in.
    ///
    /// # Errors
    /// They are gone, or were changed since.
    pub(crate) fn bytes(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        let bytes =
            std::fs::read(self.path(digest)).map_err(|error| format!("its component is lost: {error}"))?;
        if name::digest(&bytes) != *digest {
            return Err("its component on disk was changed: install it again".into());
        }
        Ok(bytes)
    }

    /// Judges settings by the component's schema, then by the component itself. Blocks.
    ///
    /// # Errors
    /// The component cannot be asked, or does not accept them: 422 with a JSON pointer for each place.
    pub(crate) fn check_settings(&self, digest: &Digest, settings: &serde_json::Value) -> Answer<()> {
        let policy = self.get(digest).map_err(Refused::invalid)?;
        settings::check(&policy, settings)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", digest.hex()))
    }

    /// The component, compiled if need be. Blocks then.
    ///
    /// # Errors
    /// Its bytes are gone or were changed, or the runtime does not take them any more.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Arc<Policy>, String> {
        if let Some(policy) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            return Ok(Arc::clone(policy));
        }
        let bytes = self.bytes(digest)?;
        let policy = self.runtime.load(&bytes).map_err(|error| chain(&error).to_string())?;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, Arc::clone(&policy));
        Ok(policy)
    }
}

/// Removes a file that nothing refers to. If that fails it only takes room.
pub(crate) fn discard(path: &Path) {
    if let Err(error) = chassis::durable::remove(path) {
        tracing::warn!(path = %path.display(), %error, "a file that nothing refers to stays");
    }
}

fn refuse(error: &LoadError) -> Refused {
    Refused::invalid(chain(error).to_string())
}

/// The runtime's word as the API's.
pub(crate) fn kind(kind: Kind) -> PolicyKind {
    match kind {
        Kind::Placement => PolicyKind::Placement,
        Kind::Update => PolicyKind::Update,
        Kind::Checkpoint => PolicyKind::Checkpoint,
        Kind::Introspection => PolicyKind::Introspection,
    }
}
