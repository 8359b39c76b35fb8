//! Where an instance goes: the question in the runtime's words, and what an answer comes to.

use super::{Answered, Question};
use controller_api::policy::PolicyKind;
use plugins_runtime::placement::{PlacementInput, Verdict};
use plugins_runtime::{Outcome as _, Policy, PolicyError};
use types::Digest;

impl Question for PlacementInput {
    type Verdict = Verdict;
    const KIND: PolicyKind = PolicyKind::Placement;

    fn address(&mut self, decision: u64, settings: serde_json::Value) {
        self.decision_id = decision.to_string();
        self.settings = settings;
    }

    fn digest(&self) -> Digest {
        PlacementInput::digest(self)
    }

    fn ask(&self, policy: &Policy) -> Result<Answered<Verdict>, PolicyError> {
        let decision = policy.place(self)?;
        Ok(Answered { verdict: decision.verdict, took_us: decision.took_us, logs: decision.logs })
    }

    fn word(verdict: &Verdict) -> &'static str {
        verdict.word()
    }

    fn outcome(verdict: &Verdict) -> String {
        verdict.outcome()
    }
}
