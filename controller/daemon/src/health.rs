//! How the installed policies do: counted since the start, and left alone for a while if they fail in a row.

use crate::decide::{Answered, Failure};
use controller_api::policy::{PolicyHealth, PolicyRelease};
use plugins_runtime::{Breaker, BreakerState};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use types::{Digest, PolicyName};

/// By policy and component: another component begins anew.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<HashMap<(PolicyName, Digest), Watched>>);

#[derive(Debug, Default)]
struct Watched {
    calls: u64,
    failures: u64,
    breaker: Breaker,
    /// Its component could not be loaded the last time.
    broken: Option<String>,
}

impl Health {
    fn held(&self) -> MutexGuard<'_, HashMap<(PolicyName, Digest), Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a component may be asked now. Every yes is followed by [`Self::note`].
    ///
    /// # Errors
    /// Why not. The words stay the same while it is left alone: what is said again is not written down again.
    pub(crate) fn may_ask(&self, policy: &PolicyName, digest: &Digest, now_ms: u64) -> Result<(), String> {
        let mut held = self.held();
        let watched = held.entry((policy.clone(), *digest)).or_default();
        watched.breaker.admit(now_ms).map_err(|alone| {
            format!(
                "it is left alone for a while: it failed {} times in a row, {}",
                alone.failures, alone.last
            )
        })
    }

    /// Takes up how a call ended.
    pub(crate) fn note<V>(
        &self,
        policy: &PolicyName,
        release: &PolicyRelease,
        answer: &Result<Answered<V>, Failure>,
        now_ms: u64,
    ) {
        let open = {
            let mut held = self.held();
            let watched = held.entry((policy.clone(), release.digest)).or_default();
            watched.calls += 1;
            watched.failures += u64::from(answer.is_err());
            watched.broken = None;
            match answer {
                Ok(_) => watched.breaker.record(now_ms, None),
                Err(Failure { error: Some(error), .. }) => watched.breaker.record(now_ms, Some(error)),
                // Loading is no call.
                Err(failure) => {
                    watched.breaker.forget();
                    watched.broken = Some(failure.text.clone());
                }
            }
            matches!(watched.breaker.state(now_ms), BreakerState::Open { .. })
        };
        let labels = [("policy", policy.to_string()), ("version", release.version.clone())];
        metrics::counter!("collective_policy_calls_total", &labels).increment(1);
        metrics::gauge!("collective_policy_open", &labels).set(if open { 1.0 } else { 0.0 });
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

    /// The call that was admitted was not made after all.
    pub(crate) fn forget(&self, policy: &PolicyName, digest: &Digest) {
        if let Some(watched) = self.held().get_mut(&(policy.clone(), *digest)) {
            watched.breaker.forget();
        }
    }

    /// How a component does.
    pub(crate) fn of(&self, policy: &PolicyName, digest: &Digest, now_ms: u64) -> PolicyHealth {
        let held = self.held();
        let Some(watched) = held.get(&(policy.clone(), *digest)) else { return PolicyHealth::default() };
        let (open_until_ms, last) = match watched.breaker.state(now_ms) {
            BreakerState::Open { until_ms, failures, last } => {
                (Some(until_ms), Some(format!("it failed {failures} times in a row: {last}")))
            }
            BreakerState::Trying { failures, last } => {
                (None, Some(format!("it failed {failures} times in a row: {last}")))
            }
            BreakerState::Closed { .. } => (None, None),
        };
        let (calls, failures) = (watched.calls, watched.failures);
        PolicyHealth { calls, failures, open_until_ms, problem: watched.broken.clone().or(last) }
    }
}
