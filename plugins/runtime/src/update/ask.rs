//! Asking a policy what happens next in a rollout.

use super::{Decision, OUTCOMES_MAX, Outcome, RollStatus, UNAVAILABLE_MAX, UpdateInput, answer};
use crate::bindings::types;
use crate::bindings::update::exports::collective::policy::update as wire;
use crate::call;
use crate::error::PolicyError;
use crate::instances::{self, InstancesView};
use crate::kind::Kind;
use crate::policy::{Asked, Policy};
use crate::symbols::Symbols;
use crate::world::World;
use std::sync::Arc;

const STATE_BYTES_MAX: usize = 64 << 10;
const DETAIL_BYTES_MAX: usize = 1024;

/// What the imports of one call read.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) instances: InstancesView,
}

impl Policy {
    /// Asks what happens next in a rollout.
    ///
    /// # Errors
    /// There is no decision: the input breaks a rule, the policy failed or declined, or its answer is nonsense.
    pub fn next_step(&self, input: &UpdateInput) -> Result<Decision, PolicyError> {
        let World::Update(exports) = self.world() else { return Err(self.other_kind(Kind::Update)) };
        check(input).map_err(|detail| PolicyError::BadInput { detail })?;
        let mut symbols = Symbols::default();
        let instances = InstancesView::new(&input.instances, &mut symbols);
        let scene = call::Scene {
            header: call::Header {
                decision_id: input.decision_id.clone(),
                seed: input.seed,
                now_ms: input.now_ms,
                revision: input.revision.0,
                settings: self.settings(&input.settings),
                symbols: Arc::new(symbols),
            },
            view: call::View::Update(Box::new(View { instances })),
        };
        let rollout = rollout(input);
        self.decide(
            exports,
            Asked { scene, limits: self.limits(), input_digest: || input.digest() },
            |store, policy| policy.collective_policy_update().call_next_step(store, &rollout, &input.state.0),
            |plan| answer::check(plan, input),
        )
    }
}

fn check(input: &UpdateInput) -> Result<(), String> {
    let rollout = &input.rollout;
    instances::check(&input.instances)?;
    instances::check_settings(&input.settings)?;
    instances::check_numbers("the input", [&input.now_ms, &input.revision.0, &rollout.started_ms])?;
    if !(1..=UNAVAILABLE_MAX).contains(&rollout.unavailable_max) {
        let given = rollout.unavailable_max;
        return Err(format!("rollout.unavailable_max: {given} is not in 1 ..= {UNAVAILABLE_MAX}"));
    }
    if rollout.outcomes.len() > OUTCOMES_MAX {
        return Err(format!("rollout.outcomes: {} are more than {OUTCOMES_MAX}", rollout.outcomes.len()));
    }
    for (position, outcome) in rollout.outcomes.iter().enumerate() {
        let place = format!("rollout.outcomes[{position}]");
        instances::check_numbers(&place, [&outcome.ordered_ms, &outcome.finished_ms])?;
        if (outcome.finished_ms == 0) != (outcome.status == RollStatus::UnderWay) {
            return Err(format!("{place}: finished_ms is 0 while a roll is under way, and only then"));
        }
    }
    if input.state.0.len() > STATE_BYTES_MAX {
        return Err(format!("state: {} bytes are more than {STATE_BYTES_MAX}", input.state.0.len()));
    }
    Ok(())
}

/// The rollout in the contract's words.
fn rollout(input: &UpdateInput) -> wire::Rollout {
    let rollout = &input.rollout;
    let attributes = rollout.attributes.iter();
    wire::Rollout {
        id: rollout.id.clone(),
        appliance: rollout.appliance.clone(),
        channel: rollout.channel.clone(),
        target: rollout.target.clone(),
        started: rollout.started_ms,
        unavailable_max: rollout.unavailable_max,
        outcomes: rollout.outcomes.iter().map(|given| outcome(input, given)).collect(),
        attributes: attributes
            .map(|(key, value)| types::Attribute { key: key.clone(), value: value.clone() })
            .collect(),
    }
}

fn outcome(input: &UpdateInput, outcome: &Outcome) -> wire::Outcome {
    let detail = &outcome.detail;
    wire::Outcome {
        instance: outcome.instance.clone(),
        row: input.instances.row_of(&outcome.instance).and_then(|row| u32::try_from(row).ok()),
        ordered: outcome.ordered_ms,
        finished: outcome.finished_ms,
        status: match outcome.status {
            RollStatus::UnderWay => 0,
            RollStatus::Succeeded => 1,
            RollStatus::Failed => 2,
            RollStatus::RolledBack => 3,
            RollStatus::GivenUp => 4,
        },
        detail: detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned(),
    }
}
