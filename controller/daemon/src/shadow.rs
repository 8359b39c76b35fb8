//! Candidates: asked what the active component was asked, after it answered. Nobody waits for them and nothing follows
//! from what they say; it is written down beside the decision.

use crate::app::App;
use crate::decide::{self, Question, settings_digest};
use crate::ledger::Writes;
use controller_api::policy::{DecisionView, PolicyRelease, ShadowView};
use controller_model::record;
use std::sync::Arc;

/// Questions that wait for candidates. Further ones are passed over: a slow candidate must not fill the memory.
pub(crate) const WAITING_MAX: usize = 256;

/// Lets a candidate see a question that was decided, on a task of its own.
pub(crate) fn ask<Q: Question>(app: &App, view: DecisionView, candidate: PolicyRelease, mut question: Q) {
    let labels = [("policy", view.policy.to_string()), ("version", candidate.version.clone())];
    let Ok(place) = Arc::clone(&app.policies.shadows).try_acquire_owned() else {
        metrics::counter!("collective_policy_shadow_skipped_total", &labels).increment(1);
        return;
    };
    let app = app.clone();
    app.sessions.clone().spawn(async move {
        let _place = place;
        // One at a time: candidates get what the cluster's own decisions leave.
        let _turn = app.policies.shadow_turn.lock().await;
        question.address(view.id, candidate.settings.clone().unwrap_or_default());
        let (policies, digest) = (Arc::clone(&app.policies), candidate.digest);
        let called = tokio::task::spawn_blocking(move || decide::call(&policies, &digest, &question)).await;
        let Ok(answer) = called else { return };
        let (outcome, took_us) = match answer {
            Ok(answered) => (Q::outcome(&answered.verdict), answered.took_us),
            Err(failure) => (format!("error: {}", failure.text), 0),
        };
        let shadow = ShadowView {
            policy: view.policy.clone(),
            component: format!("{} {}", candidate.component, candidate.version),
            digest: candidate.digest,
            settings: candidate.settings.as_ref().map(settings_digest),
            differs: outcome != view.outcome,
            outcome,
            took_us,
        };
        metrics::counter!("collective_policy_shadow_calls_total", &labels).increment(1);
        if shadow.differs {
            metrics::counter!("collective_policy_shadow_differences_total", &labels).increment(1);
        }
        let kept = app.ledger.record(|cluster| {
            let mut writes = Writes::default();
            // It may have left meanwhile.
            if cluster.decisions.contains_key(&view.id) {
                writes.put(record::number_key("shadows", view.id), &shadow);
            }
            Ok(writes)
        });
        // The store has said why; a candidate's answer is worth no retry.
        let _ = kept.await;
    });
}
