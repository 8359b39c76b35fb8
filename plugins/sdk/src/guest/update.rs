//! The world `update-policy`.

#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated from the WIT package")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package collective:sdk;
            world update {
                export collective:policy/update@0.1.1;
            }
        ",
        with: {
            "collective:policy/types@0.1.1": crate::guest::bindings::collective::policy::types,
        },
        pub_export_macro: true,
        default_bindings_module: "plugins_sdk::guest::update::bindings",
    });
}

use super::{Declined, Imports, attributes_from, begin, error_to, reasons_to};
use crate::update::{Outcome, Plan, Roll, Rollout, Status, Step, UpdatePolicy};
use bindings::exports::collective::policy::update as wire;

/// `update.next-step`.
///
/// # Errors
/// The policy has no decision.
pub fn next_step<P: UpdatePolicy>(rollout: wire::Rollout, state: &[u8]) -> Result<wire::Plan, Declined> {
    let settings = begin::<P>()?;
    let plan = P::next_step(&settings, &rollout_from(rollout), &Imports, &Imports, state);
    plan.map(plan_to).map_err(error_to)
}

fn rollout_from(rollout: wire::Rollout) -> Rollout {
    Rollout {
        id: rollout.id,
        appliance: rollout.appliance,
        channel: rollout.channel,
        target: rollout.target,
        started_ms: rollout.started,
        unavailable_max: rollout.unavailable_max,
        outcomes: rollout.outcomes.into_iter().map(outcome_from).collect(),
        attributes: attributes_from(rollout.attributes),
    }
}

fn outcome_from(outcome: wire::Outcome) -> Outcome {
    Outcome {
        instance: outcome.instance,
        row: outcome.row,
        ordered_ms: outcome.ordered,
        finished_ms: outcome.finished,
        status: Status::from_code(outcome.status),
        detail: outcome.detail,
    }
}

fn plan_to(Plan { next, next_call_ms, state }: Plan) -> wire::Plan {
    let next = match next {
        Step::Proceed(rolls) => wire::Step::Proceed(rolls.into_iter().map(roll_to).collect()),
        Step::Hold { retry_after_ms, reasons } => {
            wire::Step::Hold(wire::Pause { retry_after: retry_after_ms, reasons: reasons_to(reasons) })
        }
        Step::Halt(reasons) => wire::Step::Halt(reasons_to(reasons)),
        Step::RollBack(reasons) => wire::Step::RollBack(reasons_to(reasons)),
        Step::Complete(reasons) => wire::Step::Complete(reasons_to(reasons)),
    };
    wire::Plan { next, next_call: next_call_ms, state }
}

fn roll_to(Roll { instance, soak_ms, checkpoint, reasons }: Roll) -> wire::Roll {
    wire::Roll { instance, soak: soak_ms, checkpoint, reasons: reasons_to(reasons) }
}
