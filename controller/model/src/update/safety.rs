//! Checkpoints of a deployment that one of its instances can come back to after a roll.

use crate::checkpoint::{self, Order};
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::record::CheckpointCause;
use types::{DeploymentName, InstanceId};

/// How far a checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is being taken.
    UnderWay,
    /// One can go back to it.
    Taken,
    /// There is none, and why.
    Failed(String),
}

/// Has one taken, of the disks: the guest boots anew in any case. Answers its name.
///
/// # Errors
/// Why none can be taken now.
pub(super) fn request(
    draft: &mut Draft,
    deployment: &DeploymentName,
    now_ms: u64,
    fresh: &mut dyn FnMut() -> String,
) -> Result<String, String> {
    let order = Order::new(CheckpointCause::Update, false);
    checkpoint::request(draft, deployment, order, now_ms, fresh).map_err(|refusal| refusal.to_string())
}

pub(super) fn progress(cluster: &Cluster, deployment: &DeploymentName, name: &str) -> Progress {
    let Some(held) = cluster.checkpoints.get(&(deployment.clone(), name.to_owned())) else {
        return Progress::Failed(format!("{name} is gone"));
    };
    if held.is_failed() {
        return Progress::Failed(held.reason.clone().unwrap_or_else(|| format!("{name} was not taken")));
    }
    if held.is_restorable() { Progress::Taken } else { Progress::UnderWay }
}

/// Makes an instance what it was.
///
/// # Errors
/// Why it cannot be.
pub(super) fn restore(
    draft: &mut Draft,
    id: &InstanceId,
    name: &str,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), String> {
    checkpoint::restore_member(draft, id, name, false, fresh).map_err(|refusal| refusal.to_string())
}
