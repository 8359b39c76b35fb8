//! Components of policies: fetched by digest, kept on disk, compiled once.

use crate::work::Works;
use chassis::telemetry::chain;
use plugins_runtime::{Compiler, Limits, Policy, Runtime};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::Digest;

/// Longest time to fetch one.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Processor time of one look, milliseconds: reading, searching and hashing for it count.
const DEADLINE_MS: u64 = 2_000;
/// Linear memory of one look: a kernel's code and symbols have to fit.
const MEMORY_BYTES_MAX: usize = 128 << 20;
/// Looks at the same time: one, and one that a shutdown left behind.
const CALLS_MAX: u32 = 2;

/// The runtime, started when the first policy is asked, and what it has compiled.
#[derive(Debug, Default)]
pub(super) struct Components {
    runtime: Arc<Mutex<Option<Runtime>>>,
    compiled: Mutex<HashMap<Digest, Arc<Policy>>>,
}

impl Components {
    /// The policy with that digest.
    ///
    /// # Errors
    /// It cannot be fetched or kept, or is no policy.
    pub(super) async fn policy(&self, works: &Arc<Works>, digest: Digest) -> Result<Arc<Policy>, String> {
        if let Some(policy) = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&digest) {
            return Ok(Arc::clone(policy));
        }
        let bytes = match held(works, digest) {
            Some(bytes) => bytes,
            None => fetch(works, digest).await?,
        };
        let (runtime, folder) = (Arc::clone(&self.runtime), works.store.layout().compiled());
        let compiled = tokio::task::spawn_blocking(move || {
            let runtime = {
                let mut held = runtime.lock().unwrap_or_else(PoisonError::into_inner);
                match held.as_ref() {
                    Some(runtime) => runtime.clone(),
                    None => {
                        let started = Runtime::with_compiler(limits(), &folder, Compiler::this_program());
                        let started = started.map_err(|error| chain(&error).to_string())?;
                        held.insert(started).clone()
                    }
                }
            };
            runtime.load(&bytes).map_err(|error| chain(&error).to_string())
        });
        let policy = compiled.await.map_err(|error| format!("compiling was cut off: {error}"))??;
        let mut all = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(digest, Arc::clone(&policy));
        Ok(policy)
    }
}

fn limits() -> Limits {
    Limits {
        deadline_ms: DEADLINE_MS,
        memory_bytes_max: MEMORY_BYTES_MAX,
        calls_max: CALLS_MAX,
        ..Limits::default()
    }
}

/// From the disk, if it is what it was.
fn held(works: &Works, digest: Digest) -> Option<Vec<u8>> {
    let bytes = std::fs::read(works.store.layout().component(digest)).ok()?;
    (digest_of(&bytes) == digest).then_some(bytes)
}

async fn fetch(works: &Works, digest: Digest) -> Result<Vec<u8>, String> {
    let told = |error: reqwest::Error| format!("its component cannot be fetched: {}", chain(&error));
    let url = format!("{}/agent/v1/policies/{digest}", works.config.controller.trim_end_matches('/'));
    let answer = works.controller.get(url).timeout(FETCH_TIMEOUT).send().await.map_err(told)?;
    let mut answer = answer.error_for_status().map_err(told)?;
    let most = limits().component_bytes_max;
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(told)? {
        bytes.extend_from_slice(&part);
        if bytes.len() > most {
            return Err(format!("its component has more than {most} bytes"));
        }
    }
    if digest_of(&bytes) != digest {
        return Err("the controller gave another component than it named".to_owned());
    }
    let path = works.store.layout().component(digest);
    if let Err(error) = chassis::durable::write(&path, &bytes, 0o600) {
        tracing::warn!(path = %path.display(), %error, "a component is not kept: the next start fetches it again");
    }
    Ok(bytes)
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}
