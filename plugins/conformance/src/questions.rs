//! One plain question of each kind, for whoever wants to know only whether there is an answer.

use crate::{checkpoint, introspection, placement, update};
use plugins_runtime::{Kind, Policy, PolicyError};
use std::sync::Arc;

/// Asks about five hosts, five instances, five checkpoints or an empty guest.
///
/// # Errors
/// There is no answer.
pub fn ask(policy: &Policy, kind: Kind) -> Result<(), PolicyError> {
    match kind {
        Kind::Placement => policy.place(&placement::cluster(5)).map(drop),
        Kind::Update => policy.next_step(&update::rollout(5)).map(drop),
        Kind::Checkpoint => policy.schedule(&checkpoint::deployment(5)).map(drop),
        Kind::Introspection => {
            policy.inspect(&introspection::input(), Arc::new(introspection::Content::Zeros)).map(drop)
        }
    }
}
