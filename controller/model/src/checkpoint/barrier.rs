//! The barrier across hosts: hold, take, keep; and what else becomes of checkpoints by itself.

use super::{files, order, restore};
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::moving;
use crate::record::{self, Checkpoint, CheckpointCause, Part, Then, Verified};
use crate::standing::Sight;
use controller_api::agent::{InstanceState, InstanceStatus};
use controller_api::checkpoint::{CheckpointPhase as Phase, PAUSE_MS_PER_GIB, runs};
use controller_api::life::{CaptureState, CaptureStatus, CaptureStep, DesiredCapture, Power};
use controller_api::moving::MovePhase;
use std::collections::BTreeMap;
use types::{DeploymentName, HostName, InstanceId, MemberName};

/// How long a requested checkpoint waits for a host that is out of reach, in milliseconds: after a start of the controller
/// its hosts come one by one.
pub const HOLD_REACH_MS: u64 = 10_000;
/// How long guests may take to end when their deployment is suspended, in milliseconds.
const OFF_MS_MAX: u64 = 30_000;
/// Pause before a policy's order that failed is carried out again, in milliseconds.
const ORDER_RETRY_MS: u64 = 60_000;
/// Failed ones of a deployment that are kept to be looked at.
const FAILED_MAX: usize = 3;
const GIB: u64 = 1 << 30;

/// What follows from what hosts say.
#[derive(Debug)]
pub struct Settled {
    /// The writes; none if nothing changes.
    pub draft: Option<Draft>,
    /// Object, reason and message of each event.
    pub events: Vec<(String, &'static str, String)>,
    /// When something is due without anybody saying anything, milliseconds since 1970 UTC.
    pub next_ms: Option<u64>,
}

/// A step of one checkpoint in the making.
struct Step<'a> {
    cluster: &'a Cluster,
    sight: Sight<'a>,
    deployment: &'a DeploymentName,
    name: &'a str,
    held: Checkpoint,
}

/// Takes every checkpoint as far as it may go now, and carries out what policies have ordered.
pub fn settle(cluster: &Cluster, sight: Sight<'_>, fresh: &mut dyn FnMut() -> String) -> Settled {
    let mut work = Work { base: cluster, draft: None, events: Vec::new(), next_ms: None };
    for ((deployment, name), stored) in &cluster.checkpoints {
        if matches!(stored.phase, Phase::Failed | Phase::Dropped) || stored.id.is_empty() {
            continue;
        }
        let step = Step { cluster, sight, deployment, name, held: stored.value.clone() };
        step.advance(&mut work, fresh);
    }
    verify(&mut work, sight);
    carry_out_orders(&mut work, sight, fresh);
    forget(&mut work);
    Settled { draft: work.draft, events: work.events, next_ms: work.next_ms }
}

/// A draft that is only made if something changes.
pub(super) struct Work<'a> {
    base: &'a Cluster,
    draft: Option<Draft>,
    events: Vec<(String, &'static str, String)>,
    next_ms: Option<u64>,
}

impl Work<'_> {
    fn cluster(&self) -> &Cluster {
        self.draft.as_ref().map_or(self.base, |draft| &draft.cluster)
    }

    fn draft(&mut self) -> &mut Draft {
        self.draft.get_or_insert_with(|| Draft::new(self.base.clone()))
    }

    fn event(&mut self, deployment: &DeploymentName, reason: &'static str, message: String) {
        self.events.push((format!("deployment/{deployment}"), reason, message));
    }

    fn due(&mut self, at_ms: u64) {
        self.next_ms = Some(self.next_ms.map_or(at_ms, |next| next.min(at_ms)));
    }

    /// Does what may be refused; nothing of it is written then.
    fn attempt<T, E>(&mut self, change: impl FnOnce(&mut Draft) -> Result<T, E>) -> Result<T, E> {
        let mut draft = match &self.draft {
            Some(draft) => draft.clone(),
            None => Draft::new(self.base.clone()),
        };
        let done = change(&mut draft)?;
        self.draft = Some(draft);
        Ok(done)
    }
}

/// How long ports may be held for a checkpoint, in milliseconds: hosts save their guests' memory beside each other.
#[must_use]
pub fn hold_max_ms(held: &Checkpoint) -> u64 {
    let mut saved: BTreeMap<&HostName, u64> = BTreeMap::new();
    for part in held.parts.values().filter(|part| part.with_memory) {
        let bytes = saved.entry(&part.host).or_default();
        *bytes = bytes.saturating_add(part.memory.0);
    }
    let most = saved.values().max().copied().unwrap_or_default();
    held.pause_max_ms.saturating_add(most.div_ceil(GIB).saturating_mul(PAUSE_MS_PER_GIB))
}

impl Step<'_> {
    fn advance(mut self, work: &mut Work<'_>, fresh: &mut dyn FnMut() -> String) {
        self.look();
        match self.held.phase {
            Phase::Requested => self.begin(work),
            Phase::Holding => self.hold(work),
            Phase::Taking => self.take(work, fresh),
            Phase::Keeping => self.keep(work),
            Phase::Complete | Phase::Failed | Phase::Dropped => {}
        }
        let before = self.cluster.checkpoints.get(&(self.deployment.clone(), self.name.to_owned()));
        if before.map(|stored| &stored.value) != Some(&self.held) {
            let key = record::checkpoint_key(self.deployment, self.name);
            work.draft().put(key, &self.held);
        }
    }

    fn id(&self, member: &MemberName) -> InstanceId {
        InstanceId { deployment: self.deployment.clone(), member: member.clone() }
    }

    fn instance<'s>(&'s self, member: &MemberName, part: &Part) -> Option<&'s InstanceStatus> {
        let id = self.id(member);
        let said = &self.sight.observed.get(&part.host)?.instances;
        said.iter().find(|status| status.id == id && status.incarnation == part.incarnation)
    }

    /// Takes up what hosts in reach say of their parts.
    fn look(&mut self) {
        let (observed, online) = (self.sight.observed, self.sight.online);
        let deployment = self.deployment;
        let checkpoint = &self.held.id;
        let taken = !self.held.is_under_way();
        let mut damage = None;
        for (member, part) in &mut self.held.parts {
            let said = online.contains(&part.host).then(|| observed.get(&part.host)).flatten();
            let of_it = |said: &&CaptureStatus| {
                said.checkpoint == *checkpoint
                    && said.instance.member == *member
                    && said.instance.deployment == *deployment
            };
            let Some(said) = said.and_then(|status| status.captures.iter().find(of_it)) else { continue };
            if taken && said.state == CaptureState::Failed {
                let why = said.reason.as_deref().unwrap_or("its files are gone");
                damage = Some(format!("{member} on {}: {why}", part.host));
                continue;
            }
            take_up(part, said);
        }
        if let Some(why) = damage.filter(|_| self.held.verified != Verified::Damaged) {
            self.held.verified = Verified::Damaged;
            self.held.reason = Some(why);
        }
    }

    /// Why it cannot be taken any more, if so: a member is another guest now, or is elsewhere, or says so itself.
    fn spoilt(&self) -> Option<String> {
        self.held.parts.iter().find_map(|(member, part)| {
            let id = self.id(member);
            let now = self.cluster.instances.get(&id).map(|instance| &instance.incarnation);
            if now != Some(&part.incarnation) {
                return Some(format!("{id} was made anew or removed meanwhile"));
            }
            if self.cluster.placements.get(&id).map(|placement| &placement.host) != Some(&part.host) {
                return Some(format!("{id} left host {} meanwhile", part.host));
            }
            (part.state == CaptureState::Failed).then(|| {
                format!("{id} on {}: {}", part.host, part.reason.as_deref().unwrap_or("it was not taken"))
            })
        })
    }

    fn begin(&mut self, work: &mut Work<'_>) {
        if let Some(why) = self.spoilt() {
            return self.fail(work, why);
        }
        let mut waits = None;
        for (member, part) in &self.held.parts {
            let id = self.id(member);
            if !self.sight.online.contains(&part.host) {
                waits = Some(format!("host {} of {id} is out of reach", part.host));
                break;
            }
            if moving::of(self.cluster, &id).is_some_and(|held| held.phase != MovePhase::Queued) {
                waits = Some(format!("{id} is moving to another host"));
                break;
            }
            let state = self.instance(member, part).map(|status| status.state);
            if !matches!(
                state,
                Some(
                    InstanceState::Booting
                        | InstanceState::Ready
                        | InstanceState::Stopped
                        | InstanceState::Failed
                )
            ) {
                waits = Some(format!("{id} is being prepared on host {}", part.host));
                break;
            }
        }
        let given_up_ms = self.held.requested_ms.saturating_add(HOLD_REACH_MS);
        match waits {
            Some(why) if self.sight.now_ms >= given_up_ms => {
                self.fail(work, format!("{why}: a checkpoint is of all members or none"));
            }
            Some(why) => {
                self.held.reason = Some(why);
                work.due(given_up_ms);
            }
            None => {
                let ran: BTreeMap<MemberName, bool> = self
                    .held
                    .parts
                    .iter()
                    .map(|(member, part)| {
                        let state = self.instance(member, part).map(|status| status.state);
                        (member.clone(), state.is_some_and(runs))
                    })
                    .collect();
                for (member, part) in &mut self.held.parts {
                    part.ran = ran.get(member).copied().unwrap_or_default();
                    part.with_memory = self.held.with_memory && part.ran;
                }
                self.held.with_memory = self.held.parts.values().any(|part| part.with_memory);
                self.held.reason = None;
                self.held.phase = Phase::Holding;
                self.held.hold_from_ms = self.sight.now_ms;
                work.due(self.end_of_hold_ms());
            }
        }
    }

    fn end_of_hold_ms(&self) -> u64 {
        self.held.hold_from_ms.saturating_add(hold_max_ms(&self.held))
    }

    fn hold(&mut self, work: &mut Work<'_>) {
        if let Some(why) = self.spoilt() {
            return self.fail(work, why);
        }
        let held = |part: &Part| part.state == CaptureState::Held && self.sight.online.contains(&part.host);
        let late: Vec<String> = self.late(|part| !held(part));
        if self.sight.now_ms >= self.end_of_hold_ms() {
            // Those that were held in time have waited long enough, too.
            let late = if late.is_empty() { self.late(|_| true) } else { late };
            return self.fail(work, self.overdue("were not held", &late));
        }
        if late.is_empty() {
            self.held.phase = Phase::Taking;
        }
        work.due(self.end_of_hold_ms());
    }

    fn take(&mut self, work: &mut Work<'_>, fresh: &mut dyn FnMut() -> String) {
        let late: Vec<String> = self.late(|part| !part.is_taken());
        if late.is_empty() {
            return self.taken(work, fresh);
        }
        // Frames may have passed meanwhile: what one member was taken with another may not have.
        let loose = self.late(|part| part.state == CaptureState::Waiting);
        if let Some(who) = loose.first() {
            return self.fail(work, format!("the ports of {who} were let go before it was taken"));
        }
        if let Some(why) = self.spoilt() {
            return self.fail(work, why);
        }
        if self.sight.now_ms >= self.end_of_hold_ms() {
            return self.fail(work, self.overdue("were not taken", &late));
        }
        work.due(self.end_of_hold_ms());
    }

    fn late(&self, is_late: impl Fn(&Part) -> bool) -> Vec<String> {
        let late = self.held.parts.iter().filter(|(_, part)| is_late(part));
        late.map(|(member, part)| format!("{member} on {}", part.host)).collect()
    }

    fn overdue(&self, what: &str, late: &[String]) -> String {
        format!(
            "{} {what} within {} ms: the ports of all members pass again; allow a longer pause if its hosts are slow",
            late.join(", "),
            hold_max_ms(&self.held)
        )
    }

    /// All members are taken. The guests of a deployment that is suspended end before their ports pass again: what they
    /// did between would be lost, and others would have seen it.
    fn taken(&mut self, work: &mut Work<'_>, fresh: &mut dyn FnMut() -> String) {
        let now_ms = self.sight.now_ms;
        if self.held.taken_ms == 0 {
            self.held.taken_ms = now_ms;
            self.held.size_bytes =
                self.held.parts.values().fold(0_u64, |sum, part| sum.saturating_add(part.new_bytes));
        }
        if self.held.then == Then::Off && !self.is_off(work) {
            return;
        }
        self.held.phase = Phase::Keeping;
        self.held.hold_ms = now_ms.saturating_sub(self.held.hold_from_ms);
        let what = if self.held.with_memory { "with memory" } else { "disks" };
        work.event(
            self.deployment,
            "checkpoint-taken",
            format!(
                "{} ({what}, {} members, {} bytes, ports held for {} ms)",
                self.name,
                self.held.parts.len(),
                self.held.size_bytes,
                self.held.hold_ms
            ),
        );
        self.go_back(work, fresh);
        self.keep(work);
    }

    /// Switches the guests off; true once they are.
    fn is_off(&self, work: &mut Work<'_>) -> bool {
        let on: Vec<(InstanceId, record::Instance)> = self
            .cluster
            .instances_of(self.deployment)
            .filter(|(_, instance)| instance.power == Power::On)
            .map(|(id, instance)| (id.clone(), instance.value.clone()))
            .collect();
        if !on.is_empty() {
            for (id, instance) in on {
                let off = record::Instance { power: Power::Off, memory_from: None, ..instance };
                work.draft().put(record::instance_key(&id), &off);
            }
            work.event(self.deployment, "deployment-suspended", format!("into checkpoint {}", self.name));
        }
        let given_up_ms = self.held.taken_ms.saturating_add(OFF_MS_MAX);
        let lives = |(member, part): (&MemberName, &Part)| {
            self.sight.online.contains(&part.host)
                && self.instance(member, part).is_some_and(|status| runs(status.state))
        };
        if self.sight.now_ms < given_up_ms && self.held.parts.iter().any(lives) {
            work.due(given_up_ms);
            return false;
        }
        true
    }

    /// What was there is safe now: the deployment may go back.
    fn go_back(&mut self, work: &mut Work<'_>, fresh: &mut dyn FnMut() -> String) {
        let Then::Restore { checkpoint, members, with_memory } = self.held.then.clone() else { return };
        self.held.then = Then::Nothing;
        let wish = restore::Restore { members, with_memory };
        // The order stands in the record, so that it is done once whatever ends meanwhile.
        let done = work.attempt(|draft| restore::restore(draft, self.deployment, &checkpoint, &wish, fresh));
        match done {
            Ok(()) => {
                work.event(self.deployment, "deployment-restored", format!("to checkpoint {checkpoint}"));
            }
            Err(refusal) => {
                work.event(self.deployment, "restore-failed", format!("to {checkpoint}: {refusal}"));
            }
        }
    }

    fn keep(&mut self, work: &mut Work<'_>) {
        let waits = self.held.parts.iter().find(|(_, part)| part.state != CaptureState::Published);
        match waits {
            None => {
                self.held.phase = Phase::Complete;
                if self.held.verified != Verified::Damaged {
                    self.held.reason = None;
                }
                work.event(self.deployment, "checkpoint-complete", self.name.to_owned());
            }
            Some((member, part)) if self.held.verified != Verified::Damaged => {
                let why = part.reason.as_deref().unwrap_or("its files are becoming images");
                self.held.reason = Some(format!("{member} on {}: {why}", part.host));
            }
            Some(_) => {}
        }
    }

    fn fail(&mut self, work: &mut Work<'_>, why: String) {
        if let Then::Restore { checkpoint, .. } = &self.held.then {
            let message = format!("to {checkpoint}: what is there now could not be kept: {why}");
            work.event(self.deployment, "restore-failed", message);
        }
        work.event(self.deployment, "checkpoint-failed", format!("{}: {why}", self.name));
        self.held.phase = Phase::Failed;
        self.held.reason = Some(why);
        if self.held.hold_from_ms > 0 {
            self.held.hold_ms = self.sight.now_ms.saturating_sub(self.held.hold_from_ms);
        }
    }
}

/// What is taken stays so, whatever is said later; only its files become images.
fn take_up(part: &mut Part, said: &CaptureStatus) {
    let rank = |state: CaptureState| match state {
        CaptureState::Waiting => 0,
        CaptureState::Held => 1,
        CaptureState::Failed => 2,
        CaptureState::Taken => 3,
        CaptureState::Published => 4,
    };
    if part.is_taken() && rank(said.state) < rank(CaptureState::Taken) {
        return;
    }
    // A host that has forgotten that it held says so, and holds again; one that failed has failed.
    if part.state == CaptureState::Failed && said.state != CaptureState::Failed {
        return;
    }
    if rank(said.state) < rank(part.state) && part.is_taken() {
        return;
    }
    part.state = said.state;
    part.reason.clone_from(&said.reason);
    if matches!(said.state, CaptureState::Taken | CaptureState::Published) {
        part.pause_us = said.pause_us;
        part.new_bytes = said.new_bytes;
        part.disks.clone_from(&said.disks);
        part.saved.clone_from(&said.memory);
    }
}

/// What a host is told of its parts: those that are being taken, and those that are kept.
#[must_use]
pub fn captures(cluster: &Cluster, host: &HostName) -> Vec<DesiredCapture> {
    let mut captures = Vec::new();
    for ((deployment, _), held) in &cluster.checkpoints {
        let step = match held.phase {
            Phase::Holding => CaptureStep::Hold,
            Phase::Taking => CaptureStep::Take,
            Phase::Keeping | Phase::Complete => CaptureStep::Keep,
            Phase::Requested | Phase::Failed | Phase::Dropped => continue,
        };
        for (member, part) in held.parts.iter().filter(|(_, part)| part.host == *host) {
            captures.push(DesiredCapture {
                checkpoint: held.id.clone(),
                instance: InstanceId { deployment: deployment.clone(), member: member.clone() },
                incarnation: part.incarnation.clone(),
                with_memory: part.with_memory,
                step,
                publish: true,
            });
        }
    }
    captures
}

/// A checkpoint whose guests came up from it is good; guests that run need the memory they began with no more.
fn verify(work: &mut Work<'_>, sight: Sight<'_>) {
    let mut good: BTreeMap<String, bool> = BTreeMap::new();
    let mut begun = Vec::new();
    for (id, instance) in &work.base.instances {
        let Some(layer) = instance.layers.last() else { continue };
        let host = work.base.placements.get(id).map(|placement| &placement.host);
        let said = host.filter(|host| sight.online.contains(*host)).and_then(|host| sight.observed.get(host));
        let said = said.and_then(|status| {
            let own =
                |status: &&InstanceStatus| status.id == *id && status.incarnation == instance.incarnation;
            status.instances.iter().find(own)
        });
        let state = said.map(|status| status.state);
        let all = good.entry(layer.checkpoint.clone()).or_insert(true);
        *all &= state == Some(InstanceState::Ready);
        if instance.memory_from.is_some() && state.is_some_and(runs) {
            begun.push((id.clone(), instance.value.clone()));
        }
    }
    good.retain(|_, all| *all);
    for (id, instance) in begun {
        // A restore of this very pass has made another one of it.
        if work.cluster().instances.get(&id).is_some_and(|now| now.incarnation == instance.incarnation) {
            let begun = record::Instance { memory_from: None, ..instance };
            work.draft().put(record::instance_key(&id), &begun);
        }
    }
    if good.is_empty() {
        return;
    }
    let proven: Vec<_> = work
        .cluster()
        .checkpoints
        .iter()
        .filter(|(_, held)| {
            held.is_restorable() && held.verified == Verified::Untried && good.contains_key(&held.id)
        })
        .map(|(key, held)| (key.clone(), held.value.clone()))
        .collect();
    for ((deployment, name), held) in proven {
        let key = record::checkpoint_key(&deployment, &name);
        work.draft().put(key, &Checkpoint { verified: Verified::Good, ..held });
    }
}

/// Takes and drops what policies have ordered.
fn carry_out_orders(work: &mut Work<'_>, sight: Sight<'_>, fresh: &mut dyn FnMut() -> String) {
    for (deployment, schedule) in &work.base.schedules {
        for name in &schedule.discards {
            let cluster = work.cluster();
            let Some(held) = cluster.checkpoints.get(&(deployment.clone(), name.clone())) else { continue };
            if held.pinned
                || !held.is_restorable()
                || order::in_use(cluster, deployment, name, held).is_some()
            {
                continue;
            }
            if work.attempt(|draft| order::cancel_or_drop(draft, deployment, name)).is_ok() {
                let message = format!("{name}, by policy {}", schedule.policy);
                work.event(deployment, "checkpoint-dropped", message);
            }
        }
        let Some(take) = &schedule.take else { continue };
        let cluster = work.cluster();
        if super::all(cluster, deployment).any(|(_, held)| {
            held.is_under_way() || (held.is_restorable() && held.taken_ms >= take.ordered_ms)
        }) {
            continue;
        }
        let failed = super::all(cluster, deployment).filter(|(_, held)| {
            held.is_failed() && held.cause == CheckpointCause::Policy && held.requested_ms >= take.ordered_ms
        });
        let again_ms = failed.map(|(_, held)| held.requested_ms.saturating_add(ORDER_RETRY_MS)).max();
        if let Some(again_ms) = again_ms.filter(|again_ms| sight.now_ms < *again_ms) {
            work.due(again_ms);
            continue;
        }
        let mut wish = order::Order::new(CheckpointCause::Policy, take.with_memory);
        let bounds = controller_api::checkpoint::PAUSE_MS;
        wish.pause_max_ms = Some(take.pause_max_ms.clamp(*bounds.start(), *bounds.end()));
        // What has no host or no members now may have one later: the order stays.
        let begun = work.attempt(|draft| order::request(draft, deployment, wish, sight.now_ms, fresh));
        work.due(sight.now_ms.saturating_add(if begun.is_ok() { 0 } else { ORDER_RETRY_MS }));
    }
}

/// Records that are of no use to anybody any more.
fn forget(work: &mut Work<'_>) {
    let mut failed: BTreeMap<DeploymentName, Vec<(u64, String)>> = BTreeMap::new();
    let mut gone = Vec::new();
    for ((deployment, name), held) in &work.cluster().checkpoints {
        match held.phase {
            Phase::Failed => {
                failed.entry(deployment.clone()).or_default().push((held.requested_ms, name.clone()));
            }
            Phase::Dropped if !files::carries_a_running_disk(work.cluster(), deployment, name, held) => {
                gone.push((deployment.clone(), name.clone()));
            }
            _ => {}
        }
    }
    for (deployment, mut names) in failed {
        names.sort();
        let surplus = names.len().saturating_sub(FAILED_MAX);
        gone.extend(names.drain(..surplus).map(|(_, name)| (deployment.clone(), name)));
    }
    for (deployment, name) in gone {
        work.draft().delete(record::checkpoint_key(&deployment, &name));
    }
}
