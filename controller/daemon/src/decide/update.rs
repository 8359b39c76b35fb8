//! What happens next in a rollout.

use super::{Answered, Question};
use controller_api::policy::PolicyKind;
use plugins_runtime::update::{UpdateInput, UpdatePlan};
use plugins_runtime::{Outcome as _, Policy, PolicyError};
use types::Digest;

impl Question for UpdateInput {
    type Verdict = UpdatePlan;
    const KIND: PolicyKind = PolicyKind::Update;

    fn address(&mut self, decision: u64, settings: serde_json::Value) {
        self.decision_id = decision.to_string();
        self.settings = settings;
    }

    fn digest(&self) -> Digest {
        UpdateInput::digest(self)
    }

    fn ask(&self, policy: &Policy) -> Result<Answered<UpdatePlan>, PolicyError> {
        let decision = policy.next_step(self)?;
        Ok(Answered { verdict: decision.verdict, took_us: decision.took_us, logs: decision.logs })
    }

    fn word(plan: &UpdatePlan) -> &'static str {
        plan.word()
    }

    fn outcome(plan: &UpdatePlan) -> String {
        plan.outcome()
    }
}
