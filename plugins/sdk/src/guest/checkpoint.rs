//! The world `checkpoint-policy`.

#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated from the WIT package")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package collective:sdk;
            world checkpoint {
                export collective:policy/checkpoint@0.1.1;
            }
        ",
        with: {
            "collective:policy/types@0.1.1": crate::guest::bindings::collective::policy::types,
        },
        pub_export_macro: true,
        default_bindings_module: "plugins_sdk::guest::checkpoint::bindings",
    });
}

use super::bindings::collective::policy::checkpoints;
use super::{Declined, Imports, attributes_from, begin, error_to, reasons_to};
use crate::checkpoint::{CheckpointPolicy, Checkpoints, Discard, Plan, Subject, Take};
use bindings::exports::collective::policy::checkpoint as wire;

/// `checkpoint.schedule`.
///
/// # Errors
/// The policy has no decision.
pub fn schedule<P: CheckpointPolicy>(subject: wire::Subject, state: &[u8]) -> Result<wire::Plan, Declined> {
    let settings = begin::<P>()?;
    let plan = P::schedule(&settings, &subject_from(subject), &Imports, &Imports, &Imports, state);
    plan.map(plan_to).map_err(error_to)
}

impl Checkpoints for Imports {
    fn checkpoint_count(&self) -> usize {
        checkpoints::checkpoint_count() as usize
    }
    fn checkpoint_name(&self, checkpoint: u32) -> String {
        checkpoints::checkpoint_name(checkpoint)
    }
    fn taken(&self) -> Vec<u64> {
        checkpoints::taken()
    }
    fn sizes_bytes(&self) -> Vec<u64> {
        checkpoints::sizes_bytes()
    }
    fn with_memory(&self) -> Vec<u8> {
        checkpoints::with_memory()
    }
    fn causes(&self) -> Vec<u8> {
        checkpoints::causes()
    }
    fn pinned(&self) -> Vec<u8> {
        checkpoints::pinned()
    }
    fn verified(&self) -> Vec<u8> {
        checkpoints::verified()
    }
}

fn subject_from(subject: wire::Subject) -> Subject {
    Subject {
        deployment: subject.deployment,
        created_ms: subject.created,
        used_bytes: subject.used_bytes,
        quota_bytes: subject.quota_bytes,
        attributes: attributes_from(subject.attributes),
    }
}

fn plan_to(Plan { take, discards, next_call_ms, state }: Plan) -> wire::Plan {
    wire::Plan {
        take: take.map(take_to),
        discards: discards.into_iter().map(discard_to).collect(),
        next_call: next_call_ms,
        state,
    }
}

fn take_to(Take { with_memory, pause_max_ms, reasons }: Take) -> wire::Take {
    wire::Take { with_memory, pause_max: pause_max_ms, reasons: reasons_to(reasons) }
}

fn discard_to(Discard { checkpoint, reasons }: Discard) -> wire::Discard {
    wire::Discard { checkpoint, reasons: reasons_to(reasons) }
}
