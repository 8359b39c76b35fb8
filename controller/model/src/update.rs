//! Rollouts: which there are, when their policy is asked, and what its answer comes to.
//!
//! A rollout is a channel's version on its way to the instances that follow the channel under one policy. It begins when
//! some of them run another version, and is written down with its first answer. [`settle`] carries its orders out, one
//! status at a time; an order ends well when its instance runs the version and is healthy for as long as was asked,
//! whoever saw to that. What is interposed follows no channel.
//!
//! Invariants:
//! - An instance is its order's own from when that begins until it ends: no two rolls of one instance overlap.
//! - Of the members of a deployment that run the same appliance one is rolled at a time, and none while another is down.
//! - A version whose rollout was stopped because of failures is refused: no order begins with it, and new instances run
//!   what was there before, until somebody says `retry` or `resume`.
//! - After a failure no order begins before the policy was asked about it.

use crate::cluster::Cluster;
use crate::record;
use crate::standing::{self, Sight, Standing};
use controller_api::planned::{OrderStatus, RollOrder};
use std::collections::{BTreeMap, BTreeSet};
use types::{ApplianceRef, Base64, ChannelName, InstanceId, PolicyName, Revision, VersionName};

mod board;
mod execution;
mod refusal;
mod safety;

pub use board::{halt_all, pause, resume, retry};
pub use execution::{Bounds, Settled, prefetches, settle};
pub(crate) use refusal::acceptable;
pub use refusal::{refusal, refused, runs_refused};

/// Policy of bundles that name none.
pub const DEFAULT_POLICY: &str = "waves";
/// Rollouts kept, the newest ones; those that are under way are kept whatever their number.
pub const ROLLOUTS_MAX: usize = 200;
/// The shortest pause between two questions about one rollout, in milliseconds.
pub const NEXT_CALL_MS_MIN: u64 = 1_000;
/// Of so many instances of a rollout one may be down at a time; one may in any case.
const ONE_DOWN_OF: usize = 10;
/// A version came after it.
pub const SUPERSEDED: &str = "superseded";
/// Nobody rolls until somebody says so.
pub const HALT: &str = "halt";
/// Every touched instance goes back, and the version is not tried again.
pub const ROLL_BACK: &str = "roll_back";
/// Nothing is left to do.
pub const COMPLETE: &str = "complete";
/// Its policy is to be asked as for the first time.
pub const UNASKED: &str = "unasked";

/// One rollout as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// `publisher/appliance/channel/version/policy`.
    pub id: String,
    /// Of which appliance.
    pub appliance: ApplianceRef,
    /// The channel that moved.
    pub channel: ChannelName,
    /// To this version.
    pub target: VersionName,
    /// Who decides.
    pub policy: PolicyName,
    /// When it began, milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// Most instances that may be down at the same time: a tenth of them, one at least.
    pub unavailable_max: u32,
    /// Every instance that follows the channel under this policy, in name order.
    pub instances: Vec<Standing>,
    /// Every roll so far, as it stands now.
    pub orders: Vec<RollOrder>,
    /// What the policy wants to be given back.
    pub state: Base64,
    /// When somebody last let it go on, milliseconds since 1970 UTC; 0 if nobody did.
    pub resumed_ms: u64,
    /// Of the record that this was made of; none if there is none yet.
    pub revision: Option<Revision>,
    /// It is to be asked now.
    pub due: bool,
}

/// A policy's answer, without what only its own kind can read.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// A `RolloutView`'s step.
    pub step: String,
    /// Why, for people.
    pub reasons: Vec<String>,
    /// Instances that roll, with their soak in milliseconds, and whether a checkpoint is taken first.
    pub rolls: Vec<(InstanceId, u64, bool)>,
    /// Ask again after so many milliseconds; 0: when something changes.
    pub next_call_ms: u64,
    /// What the policy wants to be given back.
    pub state: Base64,
}

/// Which instances follow what, by appliance, channel and policy.
type Followers = BTreeMap<(ApplianceRef, ChannelName, PolicyName), Vec<InstanceId>>;

fn followers(cluster: &Cluster) -> Followers {
    let mut followers = Followers::new();
    for id in cluster.instances.keys().filter(|id| !cluster.vias.contains_key(id)) {
        let followed = || {
            let bundle = &cluster.bundles.get(&cluster.deployments.get(&id.deployment)?.bundle)?.value;
            let member = bundle.members.get(&id.member).filter(|member| member.version.is_none())?;
            let channel = member.channel.clone().or_else(|| "stable".parse().ok())?;
            let policy = bundle.policies.update.clone().or_else(|| DEFAULT_POLICY.parse().ok())?;
            Some((member.appliance.clone(), channel, policy))
        };
        if let Some(key) = followed() {
            followers.entry(key).or_default().push(id.clone());
        }
    }
    followers
}

/// The instances that follow a channel under a policy.
#[must_use]
pub fn following<'a>(
    cluster: &'a Cluster,
    appliance: &ApplianceRef,
    channel: &ChannelName,
    policy: &PolicyName,
) -> Vec<&'a record::Instance> {
    let key = (appliance.clone(), channel.clone(), policy.clone());
    let ids = followers(cluster).remove(&key).unwrap_or_default();
    ids.iter().filter_map(|id| cluster.instances.get(id)).map(|stored| &stored.value).collect()
}

/// Every rollout that there is, in the order of their ids. Of bundles that name no policy there is none as long as the
/// one that they would have is not installed.
#[must_use]
pub fn questions(cluster: &Cluster, sight: Sight<'_>) -> Vec<Question> {
    let mut questions = Vec::new();
    for ((appliance, channel, policy), ids) in followers(cluster) {
        let Some(pointer) = cluster.channels.get(&(appliance.clone(), channel.clone())) else { continue };
        let (target, since_ms) = (pointer.version.clone(), sight.now_ms);
        let id = format!("{appliance}/{channel}/{target}/{policy}");
        let held = cluster.rollouts.get(&id).map(|held| &held.value);
        let behind = ids.iter().any(|id| cluster.instances.get(id).is_some_and(|i| i.version != target));
        let absent = policy.as_str() == DEFAULT_POLICY && !cluster.policies.contains_key(&policy);
        if absent || (!behind && held.is_none_or(|held| is_over(&held.step))) {
            continue;
        }
        let instances: Vec<Standing> = ids.iter().filter_map(|id| standing::of(cluster, id, sight)).collect();
        let is_refused = refused(cluster, &appliance, &target).is_some();
        questions.push(Question {
            due: !is_refused && is_due(held, behind, sight.now_ms),
            started_ms: held.map_or(since_ms, |held| held.started_ms),
            unavailable_max: unavailable_max(ids.len()),
            state: held.map(|held| held.state.clone()).unwrap_or_default(),
            orders: held.map(|held| held.orders.clone()).unwrap_or_default(),
            resumed_ms: held.map_or(0, |held| held.resumed_ms),
            revision: cluster.rollouts.get(&id).map(|held| held.revision),
            instances,
            id,
            appliance,
            channel,
            target,
            policy,
        });
    }
    questions
}

/// Nobody is asked about it any more, unless somebody falls behind again.
#[must_use]
pub fn is_over(step: &str) -> bool {
    matches!(step, COMPLETE | SUPERSEDED)
}

/// Of so many instances, how many may be down at the same time.
fn unavailable_max(instances: usize) -> u32 {
    u32::try_from((instances / ONE_DOWN_OF).max(1)).unwrap_or(u32::MAX)
}

/// Nobody is asked and nothing begins until a person says so.
fn is_stopped(step: &str) -> bool {
    matches!(step, HALT | ROLL_BACK)
}

fn is_due(held: Option<&record::Rollout>, behind: bool, now_ms: u64) -> bool {
    let Some(held) = held else { return true };
    match held.step.as_str() {
        _ if held.paused.is_some() || is_stopped(&held.step) => false,
        COMPLETE | SUPERSEDED => behind,
        _ => ended_count(&held.orders) != held.heeded || now_ms >= held.next_call_ms,
    }
}

/// Something may be left to carry out.
#[must_use]
pub fn is_busy(cluster: &Cluster) -> bool {
    let under_way = |held: &record::Rollout| held.orders.iter().any(|order| order.status.is_under_way());
    !cluster.refusals.is_empty() || cluster.rollouts.values().any(|held| under_way(held))
}

/// A roll of this instance has begun and is not over: nobody else makes it anew or moves it.
#[must_use]
pub fn rolls(cluster: &Cluster, id: &InstanceId) -> bool {
    let mut orders = cluster.rollouts.values().flat_map(|held| &held.orders);
    orders.any(|order| order.status.is_active() && order.instance == *id)
}

fn ended_count(orders: &[RollOrder]) -> usize {
    orders.iter().filter(|order| !order.status.is_under_way()).count()
}

/// The record of a rollout after an answer. Where the answer rolls an instance that has an order under way, or on which
/// the version failed, nothing is ordered. A complete one drops what has not touched its instance yet; one that goes
/// back does so too, and returns what has.
#[must_use]
pub fn answered(question: &Question, answer: Answer, decision: Option<u64>, now_ms: u64) -> record::Rollout {
    let mut orders = question.orders.clone();
    let barred: BTreeSet<InstanceId> = orders
        .iter()
        .filter(|order| order.status.is_under_way() || order.status.is_failure())
        .map(|order| order.instance.clone())
        .collect();
    for (instance, soak_ms, checkpoint) in answer.rolls {
        if !barred.contains(&instance) {
            orders.push(RollOrder {
                instance,
                ordered_ms: now_ms,
                soak_ms,
                checkpoint,
                status: OrderStatus::Pending,
                since_ms: now_ms,
                reason: None,
                from: None,
                taken: None,
                rolled_ms: 0,
                run_ms: 0,
                finished_ms: 0,
            });
        }
    }
    if matches!(answer.step.as_str(), ROLL_BACK | COMPLETE) {
        drop_untouched(&mut orders, now_ms);
    }
    if answer.step == ROLL_BACK {
        return_touched(&mut orders, &answer.reasons, now_ms);
    }
    let next_call_ms = match answer.next_call_ms {
        0 => 0,
        pause => now_ms.saturating_add(pause.max(NEXT_CALL_MS_MIN)),
    };
    record::Rollout {
        appliance: question.appliance.clone(),
        channel: question.channel.clone(),
        target: question.target.clone(),
        policy: question.policy.clone(),
        started_ms: question.started_ms,
        state: answer.state,
        step: answer.step,
        reasons: answer.reasons,
        next_call_ms,
        heeded: ended_count(&orders),
        orders,
        paused: None,
        resumed_ms: question.resumed_ms,
        decision,
    }
}

/// Orders whose instances run as before end.
fn drop_untouched(orders: &mut [RollOrder], now_ms: u64) {
    let untouched = |status| {
        matches!(status, OrderStatus::Pending | OrderStatus::Checkpointing | OrderStatus::Prefetching)
    };
    for order in orders.iter_mut().filter(|order| untouched(order.status)) {
        (order.status, order.since_ms, order.finished_ms) = (OrderStatus::Dropped, now_ms, now_ms);
        order.reason = Some("the rollout ended without it".into());
    }
}

/// Every instance that runs the version because of its last order here goes back.
fn return_touched(orders: &mut [RollOrder], reasons: &[String], now_ms: u64) {
    let mut seen = BTreeSet::new();
    for order in orders.iter_mut().rev() {
        let is_last = seen.insert(order.instance.clone());
        let touched =
            matches!(order.status, OrderStatus::Rolling | OrderStatus::Proving | OrderStatus::Succeeded);
        if is_last && touched && order.from.is_some() {
            (order.status, order.since_ms, order.finished_ms) = (OrderStatus::Returning, now_ms, 0);
            let why = reasons.first().map_or("the policy said so", String::as_str);
            order.reason = Some(format!("the rollout was rolled back: {why}"));
        }
    }
}

/// Records that are to change because their rollout is none any more, and those that leave: none deletes.
#[must_use]
pub fn ended(
    cluster: &Cluster,
    questions: &[Question],
    now_ms: u64,
) -> Vec<(String, Option<record::Rollout>)> {
    let present: BTreeSet<&str> = questions.iter().map(|question| question.id.as_str()).collect();
    let gone = cluster.rollouts.iter().filter(|(id, _)| !present.contains(id.as_str()));
    let mut over: Vec<(&String, &record::Rollout)> = gone.map(|(id, held)| (id, &held.value)).collect();
    let mut changes: Vec<_> = over
        .iter()
        .filter(|(_, held)| !is_over(&held.step))
        .map(|(id, held)| {
            let mut held = (*held).clone();
            drop_untouched(&mut held.orders, now_ms);
            (held.step, held.next_call_ms) = (SUPERSEDED.to_owned(), 0);
            ((*id).clone(), Some(held))
        })
        .collect();
    let surplus = cluster.rollouts.len().saturating_sub(ROLLOUTS_MAX);
    over.retain(|(_, held)| !held.orders.iter().any(|order| order.status.is_under_way()));
    over.sort_by_key(|(_, held)| held.started_ms);
    changes.extend(over.into_iter().take(surplus).map(|(id, _)| (id.clone(), None)));
    changes
}
