//! Policies: components on disk, compiled in memory, asked on threads that may block.

use crate::problem::{Answer, Refused};
use chassis::telemetry::chain;
use controller_api::rest::PolicyView;
use controller_model::name;
use plugins_runtime::placement::{Columns, Decision, HostState, PlacementInput, Request};
use plugins_runtime::{Kind, Limits, LoadError, Policy, Runtime, StartError};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use types::{Digest, PolicyName};

/// Anything that can answer where an instance goes.
pub(crate) trait Placement: Send + Sync + 'static {
    /// Asks. Blocks for the policy's deadline at most.
    ///
    /// # Errors
    /// Why there is no answer, for people: never a silent yes.
    fn place(&self, digest: &Digest, input: &PlacementInput) -> Result<Decision, String>;
}

/// The installed components.
#[derive(Debug)]
pub(crate) struct Policies {
    runtime: Runtime,
    folder: PathBuf,
    loaded: Mutex<HashMap<Digest, Arc<Policy>>>,
}

impl Policies {
    /// Starts the runtime.
    ///
    /// # Errors
    /// The engine or its cache cannot be used.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, StartError> {
        let runtime = Runtime::new(Limits::default(), &state_dir.join("compiled"))?;
        Ok(Self { runtime, folder: state_dir.join("policies"), loaded: Mutex::default() })
    }

    /// Compiles a component, asks it who it is, and keeps its bytes. Blocks: seconds for a large one.
    ///
    /// # Errors
    /// It is no policy: 422 with the runtime's reason.
    pub(crate) fn install(&self, policy_name: &PolicyName, bytes: &[u8]) -> Answer<PolicyView> {
        let policy = self.runtime.load(bytes).map_err(|error| refuse(&error))?;
        let (manifest, digest) = (policy.manifest().clone(), policy.digest());
        let view = PolicyView {
            name: policy_name.clone(),
            kind: match policy.kind() {
                Kind::Placement => "placement".to_owned(),
            },
            component: manifest.name,
            version: manifest.version,
            digest,
            summary: manifest.summary,
        };
        let path = self.path(&digest);
        chassis::durable::write(&path, bytes, 0o600).map_err(|error| Refused::unwritten(&path, error))?;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, policy);
        Ok(view)
    }

    /// Removes the bytes of a component that the store was not told of.
    pub(crate) fn discard(&self, digest: &Digest) {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
        discard(&self.path(digest));
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", digest.hex()))
    }

    fn get(&self, digest: &Digest) -> Result<Arc<Policy>, String> {
        if let Some(policy) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            return Ok(Arc::clone(policy));
        }
        let bytes =
            std::fs::read(self.path(digest)).map_err(|error| format!("its component is lost: {error}"))?;
        if name::digest(&bytes) != *digest {
            return Err("its component on disk was changed: install it again".into());
        }
        let policy = self.runtime.load(&bytes).map_err(|error| chain(&error).to_string())?;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, Arc::clone(&policy));
        Ok(policy)
    }
}

impl Placement for Policies {
    fn place(&self, digest: &Digest, input: &PlacementInput) -> Result<Decision, String> {
        self.get(digest)?.place(input).map_err(|error| chain(&error).to_string())
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

/// The question in the runtime's words.
pub(crate) fn input(
    question: &controller_model::placement::Question,
    decision: u64,
    now_ms: u64,
    revision: types::Revision,
) -> PlacementInput {
    let instance = &question.instance;
    let mut hosts = Columns::default();
    for candidate in &question.candidates {
        hosts.names.push(candidate.name.to_string());
        hosts.sites.push(candidate.site.to_string());
        hosts.states.push(if candidate.online { HostState::Ready } else { HostState::Unreachable });
        hosts.memory_total_bytes.push(candidate.memory_total);
        hosts.memory_free_bytes.push(candidate.memory_free);
        hosts.disk_free_bytes.push(candidate.disk_free);
        hosts.cpu_total_milli.push(candidate.cpu_total_milli);
        hosts.cpu_free_milli.push(candidate.cpu_free_milli);
        hosts.instance_counts.push(candidate.instances);
        hosts.loads.push(if candidate.load.is_finite() { candidate.load.clamp(0.0, 1.0) } else { 1.0 });
        hosts.image_cached_bytes.push(candidate.image_cached_bytes);
        hosts.peers.push(candidate.peers);
    }
    let seed = name::digest(format!("{} {}", question.id, instance.incarnation).as_bytes());
    let [a, b, c, d, ..] = *seed.as_bytes();
    PlacementInput {
        decision_id: decision.to_string(),
        seed: u32::from_be_bytes([a, b, c, d]),
        now_ms,
        revision,
        settings: serde_json::Value::Null,
        request: Request {
            instance: question.id.to_string(),
            deployment: question.id.deployment.to_string(),
            member: question.id.member.to_string(),
            appliance: instance.appliance.to_string(),
            version: instance.version.to_string(),
            vcpus_milli: instance.vcpus.saturating_mul(1_000),
            memory_bytes: instance.memory.0,
            disk_bytes: 0,
            image_bytes: instance.image_size_bytes,
            current_host: None,
            pinned_host: question.pinned.as_ref().map(ToString::to_string),
            choices_max: 0,
            attributes: std::collections::BTreeMap::new(),
        },
        hosts,
    }
}
