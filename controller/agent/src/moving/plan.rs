//! What an end of a move does next. Pure: values in, steps and words out.
//!
//! ```text
//!   source   named ── runs here ──> Begin ──> (task) ──> gone: Done │ runs here: Failed │ stands still: nobody knows
//!   target   named ── Expect ──> ports, image, disks ready: Prepared ──> comes in: Moving ──> runs: Arrived, Done
//! ```
//!
//! Invariants:
//! - An incarnation that may run at the other end is left [`Plan::alone`]: nothing here starts, resumes or adopts it.
//! - A source goes on by itself only where libvirt says that the guest runs. One whose guest stands still waits until it
//!   is no end of the move any more: whoever un-names it has cleared the target first.

use controller_api::life::{DesiredMove, MoveEnd, MoveState, MoveStatus};
use controller_hypervisor::{MigrationProgress, Standing};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What this host remembers of a move, on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// As the controller named it.
    pub(crate) named: DesiredMove,
    /// How far it was.
    pub(crate) stage: Stage,
    /// Why it failed.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Once it is done.
    #[serde(default)]
    pub(crate) sent_bytes: u64,
    #[serde(default)]
    pub(crate) total_bytes: u64,
    #[serde(default)]
    pub(crate) downtime_ms: u64,
    /// Of the run that comes in.
    #[serde(default)]
    pub(crate) run: Option<Run>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The target has a record of the guest.
    Expected,
    /// The source may have sent it.
    Moving,
    /// The guest is at the target.
    Done,
    /// The guest is at the source.
    Failed,
}

/// The run of a guest: it goes on at the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    pub(crate) starts: u32,
    pub(crate) started_ms: Option<u64>,
    pub(crate) ready_ms: Option<u64>,
}

impl Held {
    pub(crate) fn new(named: DesiredMove, stage: Stage) -> Self {
        Self { named, stage, reason: None, sent_bytes: 0, total_bytes: 0, downtime_ms: 0, run: None }
    }

    pub(crate) fn incarnation(&self) -> Option<Uuid> {
        self.named.incarnation.parse().ok()
    }
}

/// What is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) named: Vec<DesiredMove>,
    pub(crate) held: BTreeMap<String, Held>,
    /// Of each incarnation that moves; none that libvirt does not speak of. `None`: there is no such domain.
    pub(crate) standing: BTreeMap<Uuid, Option<Standing>>,
    /// Moves that a task of this process carries out, and how far they are.
    pub(crate) under_way: BTreeMap<String, MigrationProgress>,
    /// Incarnations that the document names.
    pub(crate) wanted: BTreeSet<Uuid>,
    /// What an incarnation that is to come waits for.
    pub(crate) waits: BTreeMap<Uuid, String>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a record of a guest that is to come.
    Expect(DesiredMove),
    /// Send it.
    Begin(DesiredMove),
    /// Stop sending it.
    Abort(String, Uuid),
    /// Write this down.
    Keep(Held),
    /// It has come: its run is written into its record.
    Arrived(Held),
    /// It stands still here, and nobody else has it.
    Resume(Uuid),
    /// Nothing more is to be remembered.
    Forget(String),
}

/// What to do, to say, and to leave.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) statuses: Vec<MoveStatus>,
    /// Incarnations that nobody touches.
    pub(crate) alone: BTreeSet<Uuid>,
    /// Those of them that are here: their ports pass.
    pub(crate) arrived: BTreeSet<Uuid>,
}

impl Plan {
    fn say(&mut self, named: &DesiredMove, state: MoveState, reason: Option<String>) -> &mut MoveStatus {
        let (id, instance) = (named.id.clone(), named.instance.clone());
        self.statuses.push(MoveStatus {
            id,
            instance,
            state,
            reason,
            sent_bytes: 0,
            total_bytes: 0,
            downtime_ms: 0,
        });
        let last = self.statuses.len() - 1;
        &mut self.statuses[last]
    }
}

/// Makes the plan.
pub(crate) fn plan(seen: &Seen) -> Plan {
    let mut plan = Plan::default();
    for named in &seen.named {
        let Ok(incarnation) = named.incarnation.parse::<Uuid>() else {
            plan.say(named, MoveState::Failed, Some(format!("{:?} is no incarnation", named.incarnation)));
            continue;
        };
        match named.end {
            MoveEnd::Source { .. } => source(&mut plan, named, incarnation, seen),
            MoveEnd::Target { .. } => target(&mut plan, named, incarnation, seen),
        }
    }
    for held in seen.held.values().filter(|held| !seen.named.iter().any(|named| is_same(named, held))) {
        released(&mut plan, held, seen);
    }
    plan
}

/// The same move, with this host at the same end.
fn is_same(named: &DesiredMove, held: &Held) -> bool {
    named.id == held.named.id && is_source(named) == is_source(&held.named)
}

fn is_source(named: &DesiredMove) -> bool {
    matches!(named.end, MoveEnd::Source { .. })
}

fn held<'a>(named: &DesiredMove, seen: &'a Seen) -> Option<&'a Held> {
    seen.held.get(&named.id).filter(|held| is_same(named, held))
}

fn source(plan: &mut Plan, named: &DesiredMove, incarnation: Uuid, seen: &Seen) {
    let standing = seen.standing.get(&incarnation);
    let Some(held) = held(named, seen) else {
        match standing {
            Some(Some(Standing::Here)) if named.stop => {
                plan.say(named, MoveState::Failed, Some("it was called off".into()));
            }
            Some(Some(Standing::Here)) => {
                plan.alone.insert(incarnation);
                plan.steps.push(Step::Begin(named.clone()));
                plan.say(named, MoveState::Preparing, None);
            }
            Some(_) => {
                plan.say(
                    named,
                    MoveState::Failed,
                    Some("it does not run: only a running guest moves".into()),
                );
            }
            None => {
                plan.say(named, MoveState::Preparing, Some("libvirt does not answer".into()));
            }
        }
        return;
    };
    match held.stage {
        Stage::Failed => drop(plan.say(named, MoveState::Failed, held.reason.clone())),
        Stage::Done => {
            plan.alone.insert(incarnation);
            done(plan, held);
        }
        Stage::Expected | Stage::Moving => {
            plan.alone.insert(incarnation);
            if named.stop && seen.under_way.contains_key(&named.id) {
                plan.steps.push(Step::Abort(named.id.clone(), incarnation));
            }
            on_its_way(plan, held, incarnation, seen);
        }
    }
}

fn done(plan: &mut Plan, held: &Held) {
    let said = plan.say(&held.named, MoveState::Done, None);
    (said.sent_bytes, said.total_bytes) = (held.sent_bytes, held.total_bytes);
    said.downtime_ms = held.downtime_ms;
}

/// A source that has begun and not heard the end.
fn on_its_way(plan: &mut Plan, held: &Held, incarnation: Uuid, seen: &Seen) {
    if let Some(progress) = seen.under_way.get(&held.named.id) {
        let said = plan.say(&held.named, MoveState::Moving, None);
        (said.sent_bytes, said.total_bytes) = (progress.sent_bytes, progress.total_bytes);
        return;
    }
    let why = held.reason.clone().unwrap_or_else(|| "it was interrupted".to_owned());
    match seen.standing.get(&incarnation) {
        // libvirt lets go of a guest only once it runs at the target.
        Some(None) => {
            plan.steps.push(Step::Keep(Held { stage: Stage::Done, reason: None, ..held.clone() }));
            done(plan, held);
        }
        Some(Some(Standing::Here)) => {
            let failed = Held { stage: Stage::Failed, reason: Some(why.clone()), ..held.clone() };
            plan.steps.push(Step::Keep(failed));
            plan.say(&held.named, MoveState::Failed, Some(why));
        }
        // Whether it has arrived is known at the target only.
        Some(Some(Standing::Between | Standing::Stopped)) => drop(plan.say(
            &held.named,
            MoveState::Moving,
            Some(format!("{why}; its guest stands still until the target has said what it has")),
        )),
        None => drop(plan.say(&held.named, MoveState::Preparing, Some("libvirt does not answer".into()))),
    }
}

fn target(plan: &mut Plan, named: &DesiredMove, incarnation: Uuid, seen: &Seen) {
    plan.alone.insert(incarnation);
    let Some(held) = held(named, seen) else {
        plan.steps.push(Step::Expect(named.clone()));
        plan.say(named, MoveState::Preparing, None);
        return;
    };
    if held.stage == Stage::Done {
        plan.arrived.insert(incarnation);
        plan.say(named, MoveState::Done, None);
        return;
    }
    match seen.standing.get(&incarnation) {
        // Only what has arrived is defined here, so it was here even if it does not run any more.
        Some(Some(Standing::Here | Standing::Stopped)) => {
            plan.arrived.insert(incarnation);
            plan.steps.push(Step::Arrived(Held { stage: Stage::Done, ..held.clone() }));
            plan.say(named, MoveState::Done, None);
        }
        Some(Some(Standing::Between)) => drop(plan.say(named, MoveState::Moving, None)),
        Some(None) => match seen.waits.get(&incarnation) {
            Some(wait) => drop(plan.say(named, MoveState::Preparing, Some(wait.clone()))),
            None => drop(plan.say(named, MoveState::Prepared, None)),
        },
        None => drop(plan.say(named, MoveState::Preparing, Some("libvirt does not answer".into()))),
    }
}

/// This host is no end of the move any more.
fn released(plan: &mut Plan, held: &Held, seen: &Seen) {
    let id = held.named.id.clone();
    let Some(incarnation) = held.incarnation().filter(|_| is_source(&held.named)) else {
        // What has not come is removed as all that is not wanted.
        return plan.steps.push(Step::Forget(id));
    };
    if seen.under_way.contains_key(&id) {
        plan.alone.insert(incarnation);
        plan.steps.push(Step::Abort(id, incarnation));
        return on_its_way(plan, held, incarnation, seen);
    }
    match (held.stage, seen.standing.get(&incarnation)) {
        // As long as it is wanted here, the controller does not know that it left.
        (Stage::Done, _) | (Stage::Moving, Some(None)) if seen.wanted.contains(&incarnation) => {
            plan.alone.insert(incarnation);
            if held.stage == Stage::Moving {
                plan.steps.push(Step::Keep(Held { stage: Stage::Done, reason: None, ..held.clone() }));
            }
            done(plan, held);
        }
        (Stage::Moving, Some(Some(Standing::Between))) if seen.wanted.contains(&incarnation) => {
            plan.alone.insert(incarnation);
            plan.steps.push(Step::Resume(incarnation));
        }
        (Stage::Moving, None) => {
            plan.alone.insert(incarnation);
        }
        _ => plan.steps.push(Step::Forget(id)),
    }
}

#[cfg(test)]
mod tests;
