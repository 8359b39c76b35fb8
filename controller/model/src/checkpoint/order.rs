//! Orders: one is to be taken, is dropped, or is not to be dropped.

use super::all;
use crate::apply::Refusal;
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::record::{self, Checkpoint, CheckpointCause, Part, Then};
use controller_api::checkpoint::{CheckpointPhase, PAUSE_MS, PAUSE_MS_DEFAULT};
use controller_api::life::{CaptureState, Power};
use std::collections::BTreeMap;
use types::{DeploymentName, InstanceId, MemberName};

/// Longest name of a checkpoint in bytes.
const NAME_LEN_MAX: usize = 63;
/// Most checkpoints of one deployment.
pub(super) const CHECKPOINTS_MAX: usize = 1_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Its name; from the time if absent.
    pub name: Option<String>,
    /// Who wants it.
    pub cause: CheckpointCause,
    /// With the memory of the guests that run.
    pub with_memory: bool,
    /// Longest time that ports are held, in milliseconds, beside what saving memory takes.
    pub pause_max_ms: Option<u64>,
    /// No policy drops it.
    pub pinned: bool,
    /// What is done once it is taken.
    pub then: Then,
}

impl Order {
    /// One that goes by defaults.
    #[must_use]
    pub fn new(cause: CheckpointCause, with_memory: bool) -> Self {
        Self { name: None, cause, with_memory, pause_max_ms: None, pinned: false, then: Then::Nothing }
    }
}

/// The checkpoint of a deployment that is being taken.
#[must_use]
pub fn under_way<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
) -> Option<(&'a str, &'a Checkpoint)> {
    all(cluster, deployment).find(|(_, held)| held.is_under_way())
}

/// One by its name; those that are as good as gone are not there.
///
/// # Errors
/// There is none: says which there are.
pub fn find<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
    name: &str,
) -> Result<&'a Checkpoint, Refusal> {
    let shown = |(_, held): &(&str, &Checkpoint)| held.phase != CheckpointPhase::Dropped;
    if let Some((_, held)) = all(cluster, deployment).filter(shown).find(|(other, _)| *other == name) {
        return Ok(held);
    }
    let mut known: Vec<&str> = all(cluster, deployment).filter(shown).map(|(name, _)| name).collect();
    let more = known.len().saturating_sub(8);
    known.drain(..more);
    let known = match known.as_slice() {
        [] => "it has none".to_owned(),
        known => format!("there are {}{}", known.join(", "), if more > 0 { " and older ones" } else { "" }),
    };
    Err(Refusal::NotFound(format!("deployment {deployment} has no checkpoint {name}: {known}")))
}

/// Orders a checkpoint of all members of a deployment; [`super::settle`] carries it out. Answers its name.
///
/// # Errors
/// There is no such deployment, it has no members, one of them has no host, another checkpoint is being taken, there are
/// too many, or the name or pause cannot be.
pub fn request(
    draft: &mut Draft,
    deployment: &DeploymentName,
    order: Order,
    now_ms: u64,
    fresh: &mut dyn FnMut() -> String,
) -> Result<String, Refusal> {
    let cluster = &draft.cluster;
    if !cluster.deployments.contains_key(deployment) {
        return Err(Refusal::NotFound(format!("there is no deployment {deployment}")));
    }
    if let Some((name, held)) = under_way(cluster, deployment) {
        let message = format!(
            "checkpoint {name} of deployment {deployment} is being taken ({:?} since {} s): wait for it, or delete it",
            held.phase,
            now_ms.saturating_sub(held.requested_ms) / 1_000
        );
        return Err(Refusal::Conflict(message.to_lowercase()));
    }
    if all(cluster, deployment).count() >= CHECKPOINTS_MAX {
        let message = format!("deployment {deployment} has {CHECKPOINTS_MAX} checkpoints: delete some");
        return Err(Refusal::Conflict(message));
    }
    let name = match order.name {
        Some(name) => chosen(cluster, deployment, name)?,
        None => by_time(cluster, deployment, now_ms),
    };
    let pause_max_ms = order.pause_max_ms.unwrap_or(PAUSE_MS_DEFAULT);
    if !PAUSE_MS.contains(&pause_max_ms) {
        let message =
            format!("pause_max_ms is {} to {}, not {pause_max_ms}", PAUSE_MS.start(), PAUSE_MS.end());
        return Err(Refusal::Unfit(message));
    }
    let checkpoint = Checkpoint {
        with_memory: order.with_memory,
        cause: order.cause,
        pinned: order.pinned,
        id: fresh(),
        phase: CheckpointPhase::Requested,
        requested_ms: now_ms,
        pause_max_ms,
        then: order.then,
        parts: parts(cluster, deployment)?,
        ..Checkpoint::default()
    };
    draft.put(record::checkpoint_key(deployment, &name), &checkpoint);
    Ok(name)
}

/// What is interposed holds nothing that one goes back to: it is no part.
fn parts(cluster: &Cluster, deployment: &DeploymentName) -> Result<BTreeMap<MemberName, Part>, Refusal> {
    let members = cluster.instances_of(deployment).filter(|(id, _)| !cluster.vias.contains_key(*id));
    let parts = members.map(|(id, instance)| Ok((id.member.clone(), part(cluster, id, instance)?)));
    let parts: BTreeMap<_, _> = parts.collect::<Result<_, Refusal>>()?;
    if parts.is_empty() {
        return Err(Refusal::Conflict(format!("deployment {deployment} has no members: nothing to take")));
    }
    Ok(parts)
}

fn part(cluster: &Cluster, id: &InstanceId, instance: &record::Instance) -> Result<Part, Refusal> {
    let Some(placement) = cluster.placements.get(id) else {
        return Err(Refusal::Conflict(format!(
            "{id} has no host: a checkpoint is of all members or none; see `collective describe instance {id}`"
        )));
    };
    Ok(Part {
        incarnation: instance.incarnation.clone(),
        host: placement.host.clone(),
        appliance: instance.appliance.clone(),
        version: instance.version.clone(),
        image: instance.image,
        image_size_bytes: instance.image_size_bytes,
        vcpus: instance.vcpus,
        memory: instance.memory,
        ports: instance.ports.clone(),
        volumes: instance.volumes.clone(),
        ran: instance.power == Power::On,
        with_memory: false,
        state: CaptureState::Waiting,
        reason: None,
        pause_us: 0,
        new_bytes: 0,
        disks: Vec::new(),
        saved: None,
    })
}

fn chosen(cluster: &Cluster, deployment: &DeploymentName, name: String) -> Result<String, Refusal> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(allowed) || name.starts_with('-') {
        return Err(Refusal::Unfit(format!(
            "{name:?} cannot name a checkpoint: write 1 to {NAME_LEN_MAX} of a-z, 0-9 and '-', beginning with a letter \
             or digit"
        )));
    }
    if cluster.checkpoints.contains_key(&(deployment.clone(), name.clone())) {
        return Err(Refusal::Conflict(format!(
            "deployment {deployment} has a checkpoint {name} already: choose another name"
        )));
    }
    Ok(name)
}

/// `20260131-120000`, and `-2` if that is there already.
fn by_time(cluster: &Cluster, deployment: &DeploymentName, now_ms: u64) -> String {
    let seconds = now_ms / 1_000;
    let (year, month, day) = civil(seconds / 86_400);
    let rest = seconds % 86_400;
    let base =
        format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    let free = |name: &String| !cluster.checkpoints.contains_key(&(deployment.clone(), name.clone()));
    let later = (2_u32..).map(|count| format!("{base}-{count}"));
    std::iter::once(base.clone()).chain(later).find(free).unwrap_or(base)
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar. Eras of 400 years begin on 1 March, so
/// that leap days are last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Forbids that a checkpoint is dropped, or allows it again.
///
/// # Errors
/// There is none, or it was not taken.
pub fn pin(draft: &mut Draft, deployment: &DeploymentName, name: &str, pinned: bool) -> Result<(), Refusal> {
    let held = find(&draft.cluster, deployment, name)?;
    if held.is_failed() {
        return Err(Refusal::Conflict(format!("checkpoint {name} was not taken: there is nothing to keep")));
    }
    if held.pinned != pinned {
        let new = Checkpoint { pinned, ..held.clone() };
        draft.put(record::checkpoint_key(deployment, name), &new);
    }
    Ok(())
}

/// Drops a checkpoint; one that is being taken fails.
///
/// # Errors
/// There is none, it is pinned, or something needs it still.
pub fn cancel_or_drop(draft: &mut Draft, deployment: &DeploymentName, name: &str) -> Result<(), Refusal> {
    let held = find(&draft.cluster, deployment, name)?;
    if held.pinned {
        return Err(Refusal::Conflict(format!(
            "checkpoint {name} is pinned: `collective checkpoint unpin {deployment} {name}` first"
        )));
    }
    if let Some(why) = in_use(&draft.cluster, deployment, name, held) {
        return Err(Refusal::Conflict(format!("checkpoint {name} is in use: {why}")));
    }
    let key = record::checkpoint_key(deployment, name);
    let held = held.clone();
    if held.is_under_way() {
        let failed =
            Checkpoint { phase: CheckpointPhase::Failed, reason: Some("it was cancelled".into()), ..held };
        draft.put(key, &failed);
    } else if super::files::carries_a_running_disk(&draft.cluster, deployment, name, &held) {
        draft.put(key, &Checkpoint { phase: CheckpointPhase::Dropped, ..held });
    } else {
        draft.delete(key);
    }
    Ok(())
}

/// Why it cannot go now, if so.
pub(super) fn in_use(
    cluster: &Cluster,
    deployment: &DeploymentName,
    name: &str,
    held: &Checkpoint,
) -> Option<String> {
    let wanted = |other: &Checkpoint| {
        matches!(&other.then, Then::Restore { checkpoint, .. } if checkpoint == name) && other.is_under_way()
    };
    if all(cluster, deployment).any(|(_, other)| wanted(other)) {
        return Some(format!("deployment {deployment} goes back to it"));
    }
    if super::suspended_into(cluster, deployment).is_some_and(|(suspended, _)| suspended == name) {
        return Some(format!("deployment {deployment} is suspended into it: resume it first"));
    }
    let goes_on = |instance: &record::Instance| {
        instance.memory_from.as_ref().is_some_and(|memory| memory.checkpoint == held.id)
    };
    let (id, _) = cluster.instances.iter().find(|(_, instance)| goes_on(instance))?;
    Some(format!("{id} has not begun to run from its memory yet"))
}
