//! What happens to a deployment's checkpoints.

use super::{Answered, Question};
use controller_api::policy::PolicyKind;
use plugins_runtime::checkpoint::{CheckpointInput, CheckpointPlan};
use plugins_runtime::{Outcome as _, Policy, PolicyError};
use types::Digest;

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
        plan.word()
    }

    fn outcome(plan: &CheckpointPlan) -> String {
        plan.outcome()
    }
}
