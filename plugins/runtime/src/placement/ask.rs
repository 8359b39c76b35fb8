//! Asking a policy where an instance should go.

use super::{Decision, PlacementInput, PlacementQuestion, Snapshot, View, answer, digest, view};
use crate::call;
use crate::error::PolicyError;
use crate::kind::Kind;
use crate::policy::{Asked, Policy};
use crate::world::World;
use std::sync::Arc;

impl Policy {
    /// Asks where an instance should go. Makes a [`Snapshot`] of the hosts first: of several questions about the same
    /// hosts, ask with [`Policy::place_among`].
    ///
    /// # Errors
    /// There is no decision: the input breaks a rule, the policy failed or declined, or its answer is nonsense.
    pub fn place(&self, input: &PlacementInput) -> Result<Decision, PolicyError> {
        self.place_among(&Snapshot::new(&input.hosts)?, &PlacementQuestion::of(input))
    }

    /// Asks where among these hosts an instance should go.
    ///
    /// # Errors
    /// As [`Policy::place`].
    pub fn place_among(
        &self,
        hosts: &Arc<Snapshot>,
        question: &PlacementQuestion,
    ) -> Result<Decision, PolicyError> {
        let World::Placement(exports) = self.world() else { return Err(self.other_kind(Kind::Placement)) };
        question.check(hosts)?;
        let scene = call::Scene {
            header: call::Header {
                decision_id: question.decision_id.as_str().into(),
                seed: question.seed,
                now_ms: question.now_ms,
                revision: question.revision.0,
                settings: self.settings(&question.settings),
                symbols: Arc::clone(&hosts.symbols),
            },
            view: call::View::Placement(View::new(hosts, question)),
        };
        let request = view::request(hosts, question);
        let choices_max = view::choices_max(question);
        self.decide(
            exports,
            Asked { scene, limits: self.limits(), input_digest: || digest::question(hosts, question) },
            |store, policy| policy.collective_policy_placement().call_place(store, &request),
            |verdict| answer::check(verdict, &hosts.names, choices_max),
        )
    }
}
