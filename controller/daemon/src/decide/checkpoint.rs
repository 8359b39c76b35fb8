//! What happens to a deployment's checkpoints.

use super::{Answered, Question};
use controller_api::policy::PolicyKind;
use plugins_runtime::checkpoint::{CheckpointInput, CheckpointPlan};
use plugins_runtime::{Policy, PolicyError};
use types::Digest;

/// Checkpoints that a line names.
const NAMED_MAX: usize = 4;

impl Question for CheckpointInput {
    type Verdict = CheckpointPlan;
    const KIND: PolicyKind = PolicyKind::Checkpoint;

    fn address(&mut self, decision: u64, settings: serde_json::Value) {
        self.decision_id = decision.to_string();
        self.settings = settings;
    }

    fn digest(&self) -> Digest {
        CheckpointInput::digest(self)
    }

    fn ask(&self, policy: &Policy) -> Result<Answered<CheckpointPlan>, PolicyError> {
        let decision = policy.schedule(self)?;
        Ok(Answered { verdict: decision.verdict, took_us: decision.took_us, logs: decision.logs })
    }

    fn word(plan: &CheckpointPlan) -> &'static str {
        match (&plan.take, plan.discards.is_empty()) {
            (Some(_), _) => "take",
            (None, false) => "discard",
            (None, true) => "wait",
        }
    }

    fn outcome(plan: &CheckpointPlan) -> String {
        let dropped: Vec<&str> =
            plan.discards.iter().take(NAMED_MAX).map(|discard| discard.checkpoint.as_str()).collect();
        let more = match plan.discards.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        match (&plan.take, dropped.is_empty()) {
            (Some(_), true) => "take one".to_owned(),
            (Some(_), false) => format!("take one, drop {}{more}", dropped.join(", ")),
            (None, false) => format!("drop {}{more}", dropped.join(", ")),
            (None, true) => "wait".to_owned(),
        }
    }
}
