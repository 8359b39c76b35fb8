//! Checkpoints of whole deployments: ordered, taken at one consistent instant, kept, gone back to, dropped.
//!
//! ```text
//!   requested ── all hosts in reach ──> holding ── all held ──> taking ── all taken ──> keeping ── all images ──> complete
//!       │                                  │                       │
//!       └──────────────────────────────────┴── late, failed, gone ─┴──> failed (nothing of it is named to hosts any more)
//! ```
//!
//! Between *holding* and *keeping* nothing passes between the members: what one has sent before it was taken the other
//! has got before it was taken, or it is lost as on any network. No member is taken before all are held, and none is let
//! go before all are taken. See [`settle`]; orders begin in [`request`], ways back in [`restore`].
//!
//! This file: when the policy of a deployment is asked, and what its answer comes to. A deployment's checkpoints are
//! looked after from when its first guest served. An order to take one ends when a newer checkpoint is there, one to drop
//! when it is gone.

use crate::cluster::Cluster;
use crate::record;
use crate::standing::{self, Condition, Sight, Standing};
use controller_api::planned::TakeOrder;
use std::collections::BTreeSet;
use types::{Base64, DeploymentName, PolicyName};

mod barrier;
mod compare;
mod files;
mod order;
mod restore;
mod suspend;

pub use barrier::{HOLD_REACH_MS, Settled, captures, hold_max_ms, settle};
pub use compare::compare;
pub use files::{LAYER_GRACE_MS, needed, replica_hosts, replicas, unneeded};
pub use order::{Order, cancel_or_drop, find, pin, request, under_way};
pub use restore::{Restore, out_of_reach, restore, restore_as_new, restore_member};
pub use suspend::{Where, resume, suspend, suspended_into};

/// Policy of bundles that name none.
pub const DEFAULT_POLICY: &str = "gfs";
/// The shortest pause between two questions about one deployment, in milliseconds.
pub const NEXT_CALL_MS_MIN: u64 = 1_000;

/// One deployment as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Whose checkpoints.
    pub deployment: DeploymentName,
    /// Who decides.
    pub policy: PolicyName,
    /// When it first served, milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// Its instances, in name order.
    pub instances: Vec<Standing>,
    /// Its checkpoints by name.
    pub checkpoints: Vec<(String, record::Checkpoint)>,
    /// What the policy wants to be given back.
    pub state: Base64,
    /// Ordered and not carried out.
    pub take: Option<TakeOrder>,
}

/// A policy's answer, without what only its own kind can read.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// One is to be taken now.
    pub take: Option<TakeOrder>,
    /// These are to be dropped.
    pub discards: BTreeSet<String>,
    /// Ask again after so many milliseconds; 0: when something changes.
    pub next_call_ms: u64,
    /// What the policy wants to be given back.
    pub state: Base64,
    /// Why there is no answer, if so.
    pub problem: Option<String>,
}

/// Checkpoints of one deployment that one can go back to, by name.
pub fn of<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
) -> impl Iterator<Item = (&'a str, &'a record::Checkpoint)> {
    all(cluster, deployment).filter(|(_, held)| held.is_restorable())
}

/// The newest one that one can go back to.
#[must_use]
pub fn newest<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
) -> Option<(&'a str, &'a record::Checkpoint)> {
    of(cluster, deployment).max_by_key(|(_, held)| held.taken_ms)
}

/// All that is known of checkpoints of one deployment, by name: also what failed or is under way.
pub fn all<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
) -> impl Iterator<Item = (&'a str, &'a record::Checkpoint)> {
    cluster
        .checkpoints
        .range((deployment.clone(), String::new())..)
        .take_while(move |((owner, _), _)| owner == deployment)
        .map(|((_, name), held)| (name.as_str(), &held.value))
}

/// Deployments whose policy is to be asked now, in name order. Of bundles that name no policy there is none as long as
/// the one that they would have is not installed.
#[must_use]
pub fn questions(cluster: &Cluster, sight: Sight<'_>) -> Vec<Question> {
    cluster.deployments.keys().filter_map(|deployment| question(cluster, deployment, sight)).collect()
}

/// The policy of a deployment, if there is one.
#[must_use]
pub fn policy_of(cluster: &Cluster, deployment: &DeploymentName) -> Option<PolicyName> {
    let bundle = cluster.bundles.get(&cluster.deployments.get(deployment)?.bundle)?;
    if let Some(policy) = &bundle.policies.checkpoint {
        return Some(policy.clone());
    }
    DEFAULT_POLICY.parse().ok().filter(|policy| cluster.policies.contains_key(policy))
}

fn question(cluster: &Cluster, deployment: &DeploymentName, sight: Sight<'_>) -> Option<Question> {
    let policy = policy_of(cluster, deployment)?;
    let held = cluster.schedules.get(deployment);
    let (newest, checkpoints) = cluster
        .checkpoints
        .range((deployment.clone(), String::new())..)
        .take_while(|((owner, _), _)| owner == deployment)
        .filter(|(_, held)| held.is_restorable())
        .fold((types::Revision::default(), Vec::new()), |(newest, mut all), ((_, name), held)| {
            all.push((name.clone(), held.value.clone()));
            (newest.max(held.revision), all)
        });
    // One that is gone leaves no revision: its order to be dropped is what tells.
    let dropped = |held: &record::Schedule| {
        held.discards.iter().any(|name| !checkpoints.iter().any(|(there, _)| there == name))
    };
    let due = held.is_none_or(|held| {
        sight.now_ms >= held.next_call_ms
            || held.policy != policy
            || newest > held.revision
            || dropped(&held.value)
    });
    if !due {
        return None;
    }
    let instances: Vec<Standing> =
        cluster.instances_of(deployment).filter_map(|(id, _)| standing::of(cluster, id, sight)).collect();
    let serves = instances.iter().any(|standing| standing.condition == Condition::Serving);
    let created_ms = match held {
        Some(held) => held.created_ms,
        None if serves => {
            instances.iter().map(|s| s.started_ms).filter(|ms| *ms > 0).min().unwrap_or(sight.now_ms)
        }
        None => return None,
    };
    let same = held.filter(|held| held.policy == policy);
    let taken = |order: &TakeOrder| checkpoints.iter().any(|(_, c)| c.taken_ms >= order.ordered_ms);
    Some(Question {
        deployment: deployment.clone(),
        created_ms,
        instances,
        // Another policy could not read it.
        state: same.map(|held| held.state.clone()).unwrap_or_default(),
        take: held.and_then(|held| held.take.clone()).filter(|order| !taken(order)),
        checkpoints,
        policy,
    })
}

/// The record of a deployment after an answer. An order to take one that was not carried out stays as it was.
#[must_use]
pub fn answered(question: &Question, answer: Answer, decision: Option<u64>, now_ms: u64) -> record::Schedule {
    let next_call_ms = match answer.next_call_ms {
        0 => 0,
        pause => now_ms.saturating_add(pause.max(NEXT_CALL_MS_MIN)),
    };
    record::Schedule {
        policy: question.policy.clone(),
        created_ms: question.created_ms,
        state: answer.state,
        next_call_ms,
        take: question.take.clone().or(answer.take),
        discards: answer.discards,
        problem: answer.problem,
        decision,
    }
}

/// Deployments that have a record and are gone.
#[must_use]
pub fn ended(cluster: &Cluster) -> Vec<DeploymentName> {
    let gone = cluster.schedules.keys().filter(|deployment| !cluster.deployments.contains_key(*deployment));
    gone.cloned().collect()
}
