//! What happens next in a rollout.

use super::{Answered, Question};
use controller_api::policy::PolicyKind;
use plugins_runtime::update::{Step, UpdateInput, UpdatePlan};
use plugins_runtime::{Policy, PolicyError};
use types::Digest;

/// Instances that a line names.
const NAMED_MAX: usize = 4;

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
        match plan.step {
            Step::Proceed { .. } => "proceed",
            Step::Hold { .. } => "hold",
            Step::Halt { .. } => "halt",
            Step::RollBack { .. } => "roll_back",
            Step::Complete { .. } => "complete",
        }
    }

    /// Who rolls counts: reasons, times and state may differ.
    fn outcome(plan: &UpdatePlan) -> String {
        let Step::Proceed { rolls, .. } = &plan.step else { return Self::word(plan).to_owned() };
        let named: Vec<&str> = rolls.iter().take(NAMED_MAX).map(|roll| roll.instance.as_str()).collect();
        let more = match rolls.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("proceed with {}{more}", named.join(", "))
    }
}
