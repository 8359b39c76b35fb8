//! Live moves: which guests are on their way to another host, what both hosts are told, and what follows from what they
//! say.
//!
//! Exactly one host runs a guest, whatever dies when. libvirt sees to it as long as a move is under way; what this adds
//! is who may clear up after one that was cut off, and in which order:
//!
//! - A target that says that it has the guest has it: the placement follows, and the source is cleared.
//! - A source that says that the guest runs there has it: the move has failed, and the target is cleared.
//! - If the source cannot say, its guest stands still until the target has said that there is nothing left of it
//!   ([`MovePhase::Returning`]). An end that is out of reach is waited for.
//!
//! The instance keeps its incarnation, its addresses and its ports' names; its volumes and what it wrote go with it.

use crate::apply::Refusal;
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::placement::Observed;
use crate::{checkpoint, interpose, record, update};
use controller_api::agent::{HostStatus, InstanceState};
use controller_api::life::{DesiredMove, MoveEnd, MoveState, MoveStatus};
pub use controller_api::moving::{MoveCause, MovePhase};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use types::{HostName, InstanceId};

/// Moves under way at once, if the configuration does not say.
pub const UNDER_WAY_MAX: usize = 4;
/// Longest time a target may take to make ready, in milliseconds.
pub const PREPARE_MS_MAX: u64 = 10 * 60 * 1_000;

/// A guest on its way, or its last move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// A UUID.
    pub id: String,
    /// The guest that moves.
    pub incarnation: String,
    /// From this host.
    pub from: HostName,
    /// To this one.
    pub to: HostName,
    /// How far it is.
    pub phase: MovePhase,
    /// Who wanted it.
    pub cause: MoveCause,
    /// By which decision; 0 if somebody named the host.
    #[serde(default)]
    pub decision: u64,
    /// What it waits for, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was asked for, milliseconds since 1970 UTC.
    pub asked_ms: u64,
    /// When its target was told, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub prepared_from_ms: u64,
    /// When bytes began to travel, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub began_ms: u64,
    /// When it was over, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub ended_ms: u64,
    /// Bytes sent, once it is done.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes there were to send, once it is done.
    #[serde(default)]
    pub total_bytes: u64,
    /// How long the guest's processors stood, in milliseconds.
    #[serde(default)]
    pub downtime_ms: u64,
}

/// `moves/office/workspace`.
#[must_use]
pub fn key(id: &InstanceId) -> String {
    format!("moves/{id}")
}

/// A move of an instance that is not over.
#[must_use]
pub fn of<'a>(cluster: &'a Cluster, id: &InstanceId) -> Option<&'a Move> {
    cluster.moves.get(id).map(|held| &held.value).filter(|held| !held.phase.is_over())
}

/// Moves that a host is an end of.
#[must_use]
pub fn ends(cluster: &Cluster, host: &HostName) -> Vec<DesiredMove> {
    let ends = cluster.moves.iter().filter_map(|(id, held)| {
        let end = end(cluster, held, host)?;
        let (instance, incarnation) = (id.clone(), held.incarnation.clone());
        let stop = held.phase == MovePhase::Stopping;
        Some(DesiredMove { id: held.id.clone(), instance, incarnation, end, stop })
    });
    ends.collect()
}

fn end(cluster: &Cluster, held: &Move, host: &HostName) -> Option<MoveEnd> {
    // Once it is named no more, its source goes on: not before its target is clear.
    let at_source = matches!(held.phase, MovePhase::Moving | MovePhase::Stopping | MovePhase::Returning);
    if held.from == *host && at_source {
        let address = cluster.facts.get(&held.to)?.move_address?;
        return Some(MoveEnd::Source { to: held.to.clone(), address });
    }
    (held.to == *host && comes(held)).then(|| MoveEnd::Target { from: held.from.clone() })
}

/// Its target shall be ready for it.
fn comes(held: &Move) -> bool {
    matches!(held.phase, MovePhase::Preparing | MovePhase::Moving | MovePhase::Stopping)
}

/// Instances on their way to a host, which has their networks, images and volumes as if they were there.
pub fn arrivals<'a>(cluster: &'a Cluster, host: &HostName) -> impl Iterator<Item = &'a InstanceId> {
    let here = cluster.moves.iter().filter(move |(_, held)| held.to == *host && comes(held));
    here.map(|(id, _)| id)
}

/// Where an instance is on its way to, if that host is to have its networks.
#[must_use]
pub fn coming_to<'a>(cluster: &'a Cluster, id: &InstanceId) -> Option<&'a HostName> {
    cluster.moves.get(id).filter(|held| comes(held)).map(|held| &held.value.to)
}

/// Nothing passes the ports of a guest that has not come yet: where it comes from, they are in use.
pub(crate) fn hold(cluster: &Cluster, host: &HostName, networks: &mut [netd_api::Network]) {
    let coming: BTreeSet<&str> = arrivals(cluster, host)
        .filter_map(|id| cluster.instances.get(id))
        .flat_map(|instance| instance.value.ports.iter().map(|port| port.tap.as_str()))
        .collect();
    for port in networks.iter_mut().flat_map(|network| &mut network.ports) {
        port.held |= coming.contains(port.tap.as_str());
    }
}

/// Why an instance does not move, wherever to.
#[must_use]
pub fn bound(cluster: &Cluster, id: &InstanceId) -> Option<String> {
    if let Some((guest, host)) = interpose::follows(cluster, id).ok().flatten() {
        return Some(format!("it stands in the path of {guest} and goes where that goes: now {host}"));
    }
    let via =
        interpose::vias_of(cluster, &id.deployment).find(|(other, via)| interpose::guest(other, via) == *id);
    if let Some((via, held)) = via {
        return Some(format!(
            "{via} stands in the path of {}/{}, and nothing that is interposed moves: take it out with `collective \
             interpose --remove`, or drain by deleting the instance",
            id.deployment, held.port
        ));
    }
    let instance = cluster.instances.get(id)?;
    (!instance.power.is_on()).then(|| "it is switched off: only a running guest moves live".to_owned())
}

/// Orders a move.
///
/// # Errors
/// [`Refusal`]; the message says what to do.
pub fn request(
    draft: &mut Draft,
    id: &InstanceId,
    to: &HostName,
    (cause, decision): (MoveCause, u64),
    now_ms: u64,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    let cluster = &draft.cluster;
    let instance =
        cluster.instances.get(id).ok_or_else(|| Refusal::NotFound(format!("there is no instance {id}")))?;
    let Some(placement) = cluster.placements.get(id) else {
        return Err(Refusal::Conflict(format!("{id} has no host yet: wait until it is placed")));
    };
    if let Some(held) = of(cluster, id) {
        return Err(Refusal::Conflict(format!(
            "{id} is on its way from {} to {} ({}): wait, or call it off with `collective move {id} --cancel`",
            held.from, held.to, held.phase
        )));
    }
    if placement.host == *to {
        return Err(Refusal::Conflict(format!("{id} is on {to} already")));
    }
    if let Some(why) = bound(cluster, id) {
        return Err(Refusal::Conflict(format!("{id} cannot move: {why}")));
    }
    if update::rolls(cluster, id) {
        return Err(Refusal::Conflict(format!(
            "{id} cannot move: a roll of it has begun: wait until it has ended"
        )));
    }
    if cluster.hosts.get(to).is_none_or(|host| host.role != "host") {
        return Err(Refusal::NotFound(format!("there is no host {to} that holds instances")));
    }
    if cluster.facts.get(to).and_then(|facts| facts.move_address).is_none() {
        return Err(Refusal::Conflict(format!(
            "{to} takes no guests that move: its agent is older, or its move_listen is \"off\""
        )));
    }
    let ordered = Move {
        id: fresh(),
        incarnation: instance.incarnation.clone(),
        from: placement.host.clone(),
        to: to.clone(),
        phase: MovePhase::Queued,
        cause,
        decision,
        reason: None,
        asked_ms: now_ms,
        prepared_from_ms: 0,
        began_ms: 0,
        ended_ms: 0,
        sent_bytes: 0,
        total_bytes: 0,
        downtime_ms: 0,
    };
    draft.put(key(id), &ordered);
    Ok(())
}

/// Calls a move off. What runs at its target already stays there.
///
/// # Errors
/// [`Refusal`].
pub fn cancel(draft: &mut Draft, id: &InstanceId, now_ms: u64) -> Result<(), Refusal> {
    let held = of(&draft.cluster, id).ok_or_else(|| Refusal::NotFound(format!("{id} is not on its way")))?;
    let reason = Some("it was called off".to_owned());
    let changed = match held.phase {
        MovePhase::Queued | MovePhase::Preparing => {
            Move { phase: MovePhase::Failed, reason, ended_ms: now_ms, ..held.clone() }
        }
        MovePhase::Moving => Move { phase: MovePhase::Stopping, reason, ..held.clone() },
        _ => return Err(Refusal::Conflict(format!("{id} is {}: that cannot be called off", held.phase))),
    };
    draft.put(key(id), &changed);
    Ok(())
}

/// What became of moves.
#[derive(Debug)]
pub struct Settled {
    /// The writes, if any.
    pub draft: Draft,
    /// Object, reason and message of what happened.
    pub events: Vec<(String, &'static str, String)>,
    /// Some are on their way.
    pub waiting: bool,
}

/// What is seen of the cluster now.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// What hosts say of themselves.
    pub observed: &'a Observed,
    /// Whose word is of now.
    pub online: &'a BTreeSet<HostName>,
    /// Milliseconds since 1970 UTC.
    pub now_ms: u64,
}

impl<'a> Sight<'a> {
    /// What a host says since it has taken up what it was told last; none if it does not speak.
    fn told(&self, cluster: &Cluster, host: &HostName) -> Option<&'a HostStatus> {
        let status = self.observed.get(host).filter(|_| self.online.contains(host))?;
        let told = cluster.desired.get(host).is_none_or(|held| status.generation >= held.generation);
        told.then_some(status)
    }
}

/// Takes every move as far as what hosts say allows. At most `under_way_max` are past the queue at once, and one between
/// two hosts.
#[must_use]
pub fn settle(cluster: &Cluster, sight: Sight<'_>, under_way_max: usize) -> Settled {
    let mut settled = Settled { draft: Draft::new(cluster.clone()), events: Vec::new(), waiting: false };
    for (id, held) in &cluster.moves {
        if !cluster.instances.contains_key(id) {
            settled.draft.delete(key(id));
            continue;
        }
        if held.phase.is_over() {
            continue;
        }
        let next = match overtaken(cluster, id, held) {
            Some(why) => Some(failed(held, why, sight.now_ms)),
            None if held.phase == MovePhase::Queued => {
                leave_queue(&settled.draft.cluster, id, held, sight, under_way_max)
            }
            None => step(cluster, id, held, sight),
        };
        settled.waiting |= next.as_ref().is_none_or(|next| !next.phase.is_over());
        if let Some(next) = next.filter(|next| *next != held.value) {
            write(&mut settled, id, held, &next);
        }
    }
    settled
}

fn write(settled: &mut Settled, id: &InstanceId, held: &Move, next: &Move) {
    if held.phase < MovePhase::Switching && next.phase == MovePhase::Switching {
        arrive(&mut settled.draft, id, next);
    }
    let object = format!("instance/{id}");
    let (from, to) = (&next.from, &next.to);
    match next.phase {
        phase if phase == held.phase => {}
        MovePhase::Moving => {
            settled.events.push((object, "instance-moving", format!("from {from} to {to}")));
        }
        MovePhase::Switching => {
            let message = format!("from {from} to {to}; its processors stood for {} ms", next.downtime_ms);
            settled.events.push((object, "instance-moved", message));
        }
        MovePhase::Failed => {
            let why = next.reason.as_deref().unwrap_or_default();
            settled.events.push((object, "instance-move-failed", format!("it stays on {from}: {why}")));
        }
        _ => {}
    }
    settled.draft.put(key(id), next);
}

/// The guest is at its target: so are its placement and its volumes.
fn arrive(draft: &mut Draft, id: &InstanceId, held: &Move) {
    let decision = match held.decision {
        0 => draft.cluster.placements.get(id).map_or(0, |placement| placement.decision),
        decision => decision,
    };
    draft.put(record::placement_key(id), &record::Placement { host: held.to.clone(), decision });
    let volumes =
        draft.cluster.instances.get(id).map(|instance| instance.volumes.clone()).unwrap_or_default();
    for name in volumes {
        let held_volume =
            draft.cluster.volumes.get(&(id.clone(), name.clone())).map(|held| held.value.clone());
        if let Some(volume) = held_volume {
            let volume = record::Volume { host: Some(held.to.clone()), ..volume };
            draft.put(record::volume_key(id, &name), &volume);
        }
    }
}

fn failed(held: &Move, reason: impl Into<String>, now_ms: u64) -> Move {
    Move { phase: MovePhase::Failed, reason: Some(reason.into()), ended_ms: now_ms, ..held.clone() }
}

/// Somebody decided otherwise meanwhile: it was made anew, restored, or started elsewhere because its host was gone.
fn overtaken(cluster: &Cluster, id: &InstanceId, held: &Move) -> Option<String> {
    if cluster.instances.get(id)?.incarnation != held.incarnation {
        return Some("another incarnation of it was made meanwhile".to_owned());
    }
    let expected = if held.phase == MovePhase::Switching { &held.to } else { &held.from };
    match cluster.placements.get(id) {
        Some(placement) if placement.host == *expected => None,
        Some(placement) => Some(format!("it was placed on {} meanwhile", placement.host)),
        None => Some("it was taken from its host meanwhile".to_owned()),
    }
}

fn waits(held: &Move, reason: impl Into<String>) -> Option<Move> {
    Some(Move { reason: Some(reason.into()), ..held.clone() })
}

fn leave_queue(
    cluster: &Cluster,
    id: &InstanceId,
    held: &Move,
    sight: Sight<'_>,
    under_way_max: usize,
) -> Option<Move> {
    if let Some(why) = bound(cluster, id) {
        return Some(failed(held, why, sight.now_ms));
    }
    if checkpoint::under_way(cluster, &id.deployment).is_some() {
        return waits(held, "a checkpoint of its deployment is being taken");
    }
    if update::rolls(cluster, id) {
        return waits(held, "a roll of it has begun");
    }
    let under_way =
        || cluster.moves.values().filter(|other| !other.phase.is_over() && other.phase != MovePhase::Queued);
    let pair = |other: &Move| BTreeSet::from([other.from.clone(), other.to.clone()]);
    if let Some(other) = under_way().find(|other| pair(other) == pair(held)) {
        return waits(held, format!("another guest moves from {} to {}", other.from, other.to));
    }
    if under_way().count() >= under_way_max {
        return waits(held, format!("{under_way_max} guests are on their way already"));
    }
    if let Some(away) = [&held.from, &held.to].into_iter().find(|host| !sight.online.contains(host)) {
        return waits(held, format!("{away} is out of reach"));
    }
    Some(Move { phase: MovePhase::Preparing, reason: None, prepared_from_ms: sight.now_ms, ..held.clone() })
}

fn said<'a>(status: &'a HostStatus, held: &Move) -> Option<&'a MoveStatus> {
    status.moves.iter().find(|said| said.id == held.id)
}

/// A host has something of the guest.
fn has_trace(status: &HostStatus, held: &Move) -> bool {
    said(status, held).is_some()
        || status.instances.iter().any(|instance| instance.incarnation == held.incarnation)
}

fn step(cluster: &Cluster, id: &InstanceId, held: &Move, sight: Sight<'_>) -> Option<Move> {
    let source = sight.told(cluster, &held.from);
    let target = sight.told(cluster, &held.to);
    let from = source.and_then(|status| said(status, held));
    let to = target.and_then(|status| said(status, held));
    // A source that is still at it says in a moment how long the guest stood.
    let at_it = from.is_some_and(|said| said.state == MoveState::Moving && !is_interrupted(said));
    let arrived = to.is_some_and(|said| said.state == MoveState::Done) && !at_it;
    if held.phase < MovePhase::Switching && arrived {
        return Some(switch(held, from, sight.now_ms));
    }
    match held.phase {
        MovePhase::Preparing => prepare(held, to, sight.now_ms),
        MovePhase::Moving | MovePhase::Stopping if !sight.online.contains(&held.from) => {
            // If nothing comes in any more, it is over: who starts it elsewhere need not wait for this.
            returning(held, Some(format!("{} is out of reach", held.from)), to)
        }
        MovePhase::Moving | MovePhase::Stopping => travel(held, from, to, sight.now_ms),
        MovePhase::Returning => {
            let gone = !cluster.hosts.contains_key(&held.to);
            let clear = gone || target.is_some_and(|status| !has_trace(status, held));
            let why = held.reason.clone().unwrap_or_else(|| "it was interrupted".to_owned());
            clear.then(|| failed(held, why, sight.now_ms))
        }
        MovePhase::Switching => {
            let runs = |status: &HostStatus| {
                status.instances.iter().any(|instance| {
                    instance.id == *id
                        && instance.incarnation == held.incarnation
                        && instance.state != InstanceState::Preparing
                })
            };
            let left = source.is_none_or(|status| !has_trace(status, held));
            (left && target.is_some_and(runs)).then(|| Move {
                phase: MovePhase::Done,
                reason: None,
                ended_ms: sight.now_ms,
                ..held.clone()
            })
        }
        MovePhase::Queued | MovePhase::Done | MovePhase::Failed => None,
    }
}

/// Its source does not know whether it has left.
fn is_interrupted(said: &MoveStatus) -> bool {
    said.state == MoveState::Moving && said.reason.is_some()
}

fn prepare(held: &Move, to: Option<&MoveStatus>, now_ms: u64) -> Option<Move> {
    let late = now_ms.saturating_sub(held.prepared_from_ms) > PREPARE_MS_MAX;
    let reason = to.and_then(|said| said.reason.clone());
    match to.map(|said| said.state) {
        Some(MoveState::Prepared) => {
            Some(Move { phase: MovePhase::Moving, reason: None, began_ms: now_ms, ..held.clone() })
        }
        Some(MoveState::Failed) => Some(failed(held, reason.unwrap_or_default(), now_ms)),
        _ if late => {
            let why = reason.or_else(|| held.reason.clone()).unwrap_or_else(|| "it says nothing".to_owned());
            Some(failed(held, format!("{} was not ready in time: {why}", held.to), now_ms))
        }
        _ => reason.and_then(|reason| waits(held, reason)),
    }
}

fn travel(held: &Move, from: Option<&MoveStatus>, to: Option<&MoveStatus>, now_ms: u64) -> Option<Move> {
    let said = from?;
    match said.state {
        MoveState::Done => Some(switch(held, from, now_ms)),
        MoveState::Failed => {
            let called_off = held.reason.clone().filter(|_| held.phase == MovePhase::Stopping);
            Some(failed(held, called_off.or_else(|| said.reason.clone()).unwrap_or_default(), now_ms))
        }
        MoveState::Moving if is_interrupted(said) => returning(held, said.reason.clone(), to),
        _ => None,
    }
}

/// Nobody moves it any more: if there is nothing of it at its target, that is cleared, and then it goes on where it was.
fn returning(held: &Move, reason: Option<String>, to: Option<&MoveStatus>) -> Option<Move> {
    let nothing_there = to
        .is_some_and(|to| matches!(to.state, MoveState::Prepared | MoveState::Preparing | MoveState::Failed));
    nothing_there.then_some(Move { phase: MovePhase::Returning, reason, ..held.clone() })
}

fn switch(held: &Move, from: Option<&MoveStatus>, now_ms: u64) -> Move {
    let began_ms = if held.began_ms == 0 { now_ms } else { held.began_ms };
    Move {
        phase: MovePhase::Switching,
        reason: None,
        began_ms,
        sent_bytes: from.map_or(held.sent_bytes, |said| said.sent_bytes),
        total_bytes: from.map_or(held.total_bytes, |said| said.total_bytes),
        downtime_ms: from.map_or(held.downtime_ms, |said| said.downtime_ms),
        ..held.clone()
    }
}

#[cfg(test)]
mod tests;
