//! Carries rolls out: from an order to an instance that runs the version, or runs again what it ran before.
//!
//! What is left to do follows from the orders' statuses alone, which are in the store: a controller that was killed goes on
//! where it was. A roll is one write of the order's status together with the instance's record.

use super::{SUPERSEDED, following, is_over, is_stopped, refused, safety, unavailable_max};
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::standing::{self, Condition, Sight, Standing};
use crate::{checkpoint, expand, moving, record};
use controller_api::health::ReadyTerm;
use controller_api::life::Power;
use controller_api::planned::{OrderStatus as Status, RollOrder};
use std::collections::{BTreeMap, BTreeSet};
use types::{ApplianceRef, DeploymentName, Digest, HostName, InstanceId, VersionName};

/// Statuses that one order may pass in one pass.
const STEPS_MAX: usize = 4;
/// Pause between two looks at orders that have begun, in milliseconds.
const LOOK_AGAIN_MS: u64 = 1_000;
/// The same if all of them wait for their turn.
const LOOK_LATER_MS: u64 = 5_000;

/// How long the parts of a roll may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Until a checkpoint is complete.
    pub checkpoint_ms: u64,
    /// Until the image is on the instance's host; then it rolls without.
    pub prefetch_ms: u64,
    /// From when the instance is made anew until it is ready.
    pub gate_ms: u64,
    /// An instance that cannot start may still come to do so for as long.
    pub failed_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { checkpoint_ms: 600_000, prefetch_ms: 300_000, gate_ms: 600_000, failed_ms: 60_000 }
    }
}

/// What a pass came to.
#[derive(Debug)]
pub struct Settled {
    /// Its writes.
    pub draft: Draft,
    /// What happened: object, reason, message.
    pub events: Vec<(String, &'static str, String)>,
    /// Look again after so many milliseconds even if nobody says anything; none if no order is under way.
    pub look_again_ms: Option<u64>,
}

/// Images that a host fetches ahead of a roll.
#[must_use]
pub fn prefetches(cluster: &Cluster, host: &HostName) -> BTreeSet<Digest> {
    let mut images = BTreeSet::new();
    for held in cluster.rollouts.values() {
        let here = |order: &&RollOrder| {
            order.status == Status::Prefetching
                && cluster.placements.get(&order.instance).is_some_and(|placed| placed.host == *host)
        };
        if held.orders.iter().any(|order| here(&order)) {
            let key = (held.appliance.clone(), held.target.clone());
            images.extend(cluster.versions.get(&key).map(|version| version.image));
        }
    }
    images
}

/// Takes every order on as far as it goes now. `fresh` gives a new UUID.
pub fn settle(
    cluster: &Cluster,
    sight: Sight<'_>,
    bounds: Bounds,
    fresh: &mut dyn FnMut() -> String,
) -> Settled {
    let mut pass = Pass {
        draft: Draft::new(cluster.clone()),
        sight,
        bounds,
        fresh,
        events: Vec::new(),
        turn: Turn::of(cluster),
    };
    let (mut active, mut waiting) = (false, false);
    for (id, stored) in &cluster.rollouts {
        let mut held = stored.value.clone();
        pass.rollout(id, &mut held);
        active |= held.orders.iter().any(|order| order.status.is_active());
        waiting |= held.orders.iter().any(|order| order.status.is_under_way());
        if held != stored.value {
            pass.draft.put(format!("rollouts/{id}"), &held);
        }
    }
    let look_again_ms = match (active, waiting) {
        (true, _) => Some(LOOK_AGAIN_MS),
        (false, true) => Some(LOOK_LATER_MS),
        (false, false) => None,
    };
    Settled { draft: pass.draft, events: pass.events, look_again_ms }
}

/// Who rolls at present.
#[derive(Debug, Default)]
struct Turn {
    /// By instance, the rollout it rolls in.
    rolling: BTreeMap<InstanceId, String>,
}

impl Turn {
    fn of(cluster: &Cluster) -> Self {
        let mut rolling = BTreeMap::new();
        for (id, held) in &cluster.rollouts {
            for order in held.orders.iter().filter(|order| order.status.is_active()) {
                rolling.insert(order.instance.clone(), id.clone());
            }
        }
        Self { rolling }
    }

    /// Members of a deployment that roll.
    fn of_deployment<'a>(
        &'a self,
        deployment: &'a DeploymentName,
    ) -> impl Iterator<Item = &'a InstanceId> + 'a {
        self.rolling.keys().filter(move |id| id.deployment == *deployment)
    }

    fn in_rollout(&self, rollout: &str) -> usize {
        self.rolling.values().filter(|id| *id == rollout).count()
    }
}

/// What a rollout says to each of its orders.
struct Head {
    id: String,
    appliance: ApplianceRef,
    target: VersionName,
    unavailable_max: usize,
    /// Why no order begins now.
    barred: Option<&'static str>,
}

struct Pass<'a> {
    draft: Draft,
    sight: Sight<'a>,
    bounds: Bounds,
    fresh: &'a mut dyn FnMut() -> String,
    events: Vec<(String, &'static str, String)>,
    turn: Turn,
}

impl Pass<'_> {
    fn rollout(&mut self, id: &str, held: &mut record::Rollout) {
        self.end_refused(id, held);
        if !held.orders.iter().any(|order| order.status.is_under_way()) {
            return;
        }
        let followers = following(&self.draft.cluster, &held.appliance, &held.channel, &held.policy).len();
        // Those that have begun first: where one ends, another may begin.
        let begun = |order: &RollOrder| order.status.is_active() || order.status == Status::Returning;
        let (mut order_of_work, pending): (Vec<usize>, Vec<usize>) = (0..held.orders.len())
            .filter(|index| held.orders[*index].status.is_under_way())
            .partition(|index| begun(&held.orders[*index]));
        order_of_work.extend(pending);
        for index in order_of_work {
            for _ in 0..STEPS_MAX {
                let head = Head {
                    id: id.to_owned(),
                    appliance: held.appliance.clone(),
                    target: held.target.clone(),
                    unavailable_max: unavailable_max(followers) as usize,
                    barred: barred(held),
                };
                let Some(next) = self.step(&head, &held.orders[index]) else { break };
                self.note(&head, &held.orders[index], &next);
                held.orders[index] = next;
            }
        }
    }

    /// A version that was refused meanwhile, in another policy's rollout, ends this one as well.
    fn end_refused(&mut self, id: &str, held: &mut record::Rollout) {
        if is_over(&held.step) || is_stopped(&held.step) {
            return;
        }
        let Some(refusal) = refused(&self.draft.cluster, &held.appliance, &held.target) else { return };
        held.reasons = vec![format!("{} is refused here: {}", held.target, refusal.reason)];
        held.step = super::HALT.to_owned();
        super::drop_untouched(&mut held.orders, self.sight.now_ms);
        self.events.push((format!("rollout/{id}"), "rollout-refused", held.reasons.join("; ")));
    }

    /// The order as it is next; none if it stays as it is.
    fn step(&mut self, head: &Head, order: &RollOrder) -> Option<RollOrder> {
        let standing = standing::of(&self.draft.cluster, &order.instance, self.sight)
            .filter(|standing| standing.appliance == head.appliance);
        let Some(standing) = standing else {
            return order
                .status
                .is_under_way()
                .then(|| self.ended(order, Status::Dropped, Some("the instance is gone".into())));
        };
        match order.status {
            Status::Pending => self.begin(head, order, &standing),
            Status::Checkpointing => self.checkpoint(order, &standing),
            Status::Prefetching => self.prefetch(head, order, &standing),
            Status::Rolling | Status::Proving => self.prove(head, order, &standing),
            Status::Returning => self.give_back(head, order, &standing),
            Status::RollingBack => self.given_back(order, &standing),
            Status::Succeeded | Status::RolledBack | Status::Failed | Status::Dropped => None,
        }
    }

    fn begin(&mut self, head: &Head, order: &RollOrder, standing: &Standing) -> Option<RollOrder> {
        if standing.version == head.target && !self.turn.rolling.contains_key(&order.instance) {
            // Somebody else saw to it: nothing is taken down, and there is nothing to come back to.
            return Some(RollOrder { rolled_ms: self.sight.now_ms, ..self.at(order, Status::Rolling) });
        }
        if let Some(why) = self.hindered(head, standing) {
            return waits(order, why);
        }
        if !order.checkpoint {
            return Some(self.at(order, Status::Prefetching));
        }
        let (id, now_ms) = (&order.instance, self.sight.now_ms);
        match safety::request(&mut self.draft, &id.deployment, now_ms, self.fresh) {
            Ok(name) => Some(RollOrder { taken: Some(name), ..self.at(order, Status::Checkpointing) }),
            Err(why) => waits(order, format!("no checkpoint yet: {why}")),
        }
    }

    /// Why an instance that serves, or might, is not taken down now.
    fn hindered(&self, head: &Head, standing: &Standing) -> Option<String> {
        let id = &standing.id;
        if let Some(why) = head.barred {
            return Some(why.into());
        }
        if self.turn.rolling.contains_key(id) {
            return Some("another roll of it is not over".into());
        }
        match standing.condition {
            Condition::Waiting => return Some("it has no host yet".into()),
            Condition::Unreachable => return Some("its host is out of reach".into()),
            _ => {}
        }
        let cluster = &self.draft.cluster;
        if moving::coming_to(cluster, id).is_some() {
            return Some("it is on its way to another host".into());
        }
        let alike = |other: &InstanceId| {
            cluster.instances.get(other).is_some_and(|other| other.appliance == head.appliance)
        };
        if let Some(other) = self.turn.of_deployment(&id.deployment).find(|other| alike(other)) {
            return Some(format!("{other} rolls, one of its deployment at a time"));
        }
        if self.turn.in_rollout(&head.id) >= head.unavailable_max {
            return Some(format!("{} roll, no more at the same time", head.unavailable_max));
        }
        if !standing.is_well() {
            // It takes nothing away from anybody.
            return None;
        }
        let down = cluster
            .instances_of(&id.deployment)
            .map(|(other, _)| other)
            .find(|other| *other != id && alike(other) && is_down(cluster, other, self.sight));
        down.map(|other| format!("{other} is down, and only one of its deployment may be"))
    }

    fn checkpoint(&mut self, order: &RollOrder, standing: &Standing) -> Option<RollOrder> {
        let name = order.taken.as_deref().unwrap_or_default();
        let late = self.late(order, self.bounds.checkpoint_ms);
        match safety::progress(&self.draft.cluster, &standing.id.deployment, name) {
            safety::Progress::Taken => Some(self.at(order, Status::Prefetching)),
            safety::Progress::UnderWay if !late => None,
            safety::Progress::UnderWay => {
                let why = format!(
                    "checkpoint {name} is not complete after {} s",
                    self.bounds.checkpoint_ms / 1_000
                );
                Some(self.ended(order, Status::Failed, Some(why)))
            }
            safety::Progress::Failed(why) => {
                let why = format!("there is no checkpoint to come back to: {why}");
                Some(self.ended(order, Status::Failed, Some(why)))
            }
        }
    }

    fn prefetch(&mut self, head: &Head, order: &RollOrder, standing: &Standing) -> Option<RollOrder> {
        if standing.version == head.target {
            return Some(RollOrder { rolled_ms: self.sight.now_ms, ..self.at(order, Status::Rolling) });
        }
        let key = (head.appliance.clone(), head.target.clone());
        let image = self.draft.cluster.versions.get(&key).map(|version| version.image);
        let here = image.zip(standing.host.as_ref()).is_some_and(|(image, host)| self.is_here(host, image));
        if !here && !self.late(order, self.bounds.prefetch_ms) {
            return None;
        }
        let id = &order.instance;
        // What is being frozen stays the guest that it is.
        let held = moving::coming_to(&self.draft.cluster, id).is_some()
            || checkpoint::under_way(&self.draft.cluster, &id.deployment).is_some();
        if held && !self.late(order, self.bounds.checkpoint_ms.saturating_add(self.bounds.prefetch_ms)) {
            return None;
        }
        match expand::at_version(&self.draft.cluster, id, &head.target, self.fresh) {
            Err(why) => Some(self.ended(order, Status::Failed, Some(why))),
            Ok(made) => {
                self.draft.put(record::instance_key(id), &made);
                let (from, rolled_ms) = (Some(standing.version.clone()), self.sight.now_ms);
                Some(RollOrder { from, rolled_ms, ..self.at(order, Status::Rolling) })
            }
        }
    }

    /// All of an image is on a host.
    fn is_here(&self, host: &HostName, image: Digest) -> bool {
        let images = self.sight.observed.get(host).map(|status| &status.images);
        let names = [image.to_string(), image.hex()];
        let status = images.and_then(|images| names.iter().find_map(|name| images.get(name)));
        status.is_some_and(|status| status.pieces_local.saturating_add(status.pieces_zero) >= status.pieces)
    }

    fn prove(&mut self, head: &Head, order: &RollOrder, standing: &Standing) -> Option<RollOrder> {
        if standing.version != head.target {
            let why = format!("somebody made it anew: it runs {}", standing.version);
            return Some(self.ended(order, Status::Dropped, Some(why)));
        }
        if self.is_off(&standing.id) {
            let why = "it is switched off, so that nothing was proven".to_owned();
            return Some(self.ended(order, Status::Succeeded, Some(why)));
        }
        let now_ms = self.sight.now_ms;
        let since_roll_ms = now_ms.saturating_sub(order.rolled_ms);
        match standing.condition {
            // Nobody can say how it is, nor do anything about it.
            Condition::Unreachable | Condition::Waiting => return None,
            Condition::Serving if standing.unhealthy.is_none() => {
                return if order.status == Status::Rolling || order.run_ms != standing.started_ms {
                    Some(RollOrder { run_ms: standing.started_ms, ..self.at(order, Status::Proving) })
                } else if self.late(order, order.soak_ms) {
                    Some(self.ended(order, Status::Succeeded, None))
                } else {
                    None
                };
            }
            Condition::Serving if order.status == Status::Proving => {
                let why = standing.unhealthy.clone().unwrap_or_default();
                return Some(self.failed(order, format!("it became unhealthy: {why}")));
            }
            Condition::Failed | Condition::Stopped
                if standing.starts >= 2 || since_roll_ms >= self.bounds.failed_ms =>
            {
                let word =
                    if standing.condition == Condition::Failed { "it cannot run" } else { "it stopped" };
                let why = standing.reason.as_ref().map_or(word.to_owned(), |why| format!("{word}: {why}"));
                return Some(self.failed(order, why));
            }
            _ => {}
        }
        let proving_ms = if order.run_ms > 0 { order.soak_ms } else { 0 };
        let gate_ms = self.gate_ms(&standing.id);
        if since_roll_ms >= gate_ms.saturating_add(proving_ms) {
            let why = standing.unhealthy.as_ref().or(standing.reason.as_ref());
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            return Some(self.failed(order, format!("it was not ready within {} s{why}", gate_ms / 1_000)));
        }
        // It began again: what it has proven so far counts no more.
        (order.status == Status::Proving).then(|| self.at(order, Status::Rolling))
    }

    /// It goes back, or stays as it is if there is nothing to go back to.
    fn failed(&self, order: &RollOrder, why: String) -> RollOrder {
        match order.from {
            Some(_) => RollOrder { reason: Some(why), ..self.at(order, Status::Returning) },
            None => self.ended(order, Status::Failed, Some(why)),
        }
    }

    fn give_back(&mut self, head: &Head, order: &RollOrder, standing: &Standing) -> Option<RollOrder> {
        if standing.version != head.target {
            let back = order.from.as_ref() == Some(&standing.version);
            let status = if back { Status::RolledBack } else { Status::Dropped };
            return Some(self.ended(order, status, order.reason.clone()));
        }
        // What serves waits for its turn; what does not cannot lose anything.
        if standing.condition == Condition::Unreachable {
            return None;
        }
        let own = self.turn.rolling.get(&standing.id).is_some_and(|rollout| *rollout == head.id);
        if standing.is_well() && !own {
            let head = Head {
                barred: None,
                id: head.id.clone(),
                appliance: head.appliance.clone(),
                target: head.target.clone(),
                ..*head
            };
            if self.hindered(&head, standing).is_some() {
                return None;
            }
        }
        let reason = order.reason.clone().unwrap_or_default();
        match self.go_back(order) {
            Ok(None) => Some(RollOrder { reason: Some(reason), ..self.at(order, Status::RollingBack) }),
            Ok(Some(note)) => {
                let reason = Some(format!("{reason}; {note}"));
                Some(RollOrder { reason, ..self.at(order, Status::RollingBack) })
            }
            Err(why) => {
                let reason = format!("{reason}; it cannot go back: {why}");
                Some(self.ended(order, Status::Failed, Some(reason)))
            }
        }
    }

    /// Makes the instance what it was: from the checkpoint, or by the version it had. Says what was lost, if so.
    fn go_back(&mut self, order: &RollOrder) -> Result<Option<String>, String> {
        let id = &order.instance;
        let mut note = None;
        if let Some(name) = &order.taken {
            match safety::restore(&mut self.draft, id, name, self.fresh) {
                Ok(()) => return Ok(None),
                Err(why) => {
                    note = Some(format!(
                        "checkpoint {name} could not be restored ({why}): it has a fresh overlay and its present volumes"
                    ));
                }
            }
        }
        let from = order.from.as_ref().ok_or("what it ran before is not known")?;
        let made = expand::at_version(&self.draft.cluster, id, from, self.fresh)?;
        self.draft.put(record::instance_key(id), &made);
        Ok(note)
    }

    fn given_back(&self, order: &RollOrder, standing: &Standing) -> Option<RollOrder> {
        let well = standing.is_well() || self.is_off(&standing.id);
        if well {
            return Some(self.ended(order, Status::RolledBack, order.reason.clone()));
        }
        if standing.condition == Condition::Unreachable || !self.late(order, self.bounds.gate_ms) {
            return None;
        }
        let reason = order.reason.clone().unwrap_or_default();
        let reason =
            format!("{reason}; it went back and is not ready after {} s", self.bounds.gate_ms / 1_000);
        Some(self.ended(order, Status::RolledBack, Some(reason)))
    }

    fn is_off(&self, id: &InstanceId) -> bool {
        self.draft.cluster.instances.get(id).is_some_and(|instance| instance.power == Power::Off)
    }

    /// How long a guest of this member may take to become ready, in milliseconds.
    fn gate_ms(&self, id: &InstanceId) -> u64 {
        let cluster = &self.draft.cluster;
        let bundle = cluster.deployments.get(&id.deployment).map(|deployment| &deployment.bundle);
        let member = bundle.and_then(|bundle| cluster.bundles.get(bundle)?.value.members.get(&id.member));
        let said = member.and_then(|member| member.health.as_ref()?.ready_within);
        said.map_or(self.bounds.gate_ms, ReadyTerm::ms)
    }

    fn late(&self, order: &RollOrder, bound_ms: u64) -> bool {
        self.sight.now_ms >= order.since_ms.saturating_add(bound_ms)
    }

    fn at(&self, order: &RollOrder, status: Status) -> RollOrder {
        RollOrder { status, since_ms: self.sight.now_ms, reason: None, ..order.clone() }
    }

    fn ended(&self, order: &RollOrder, status: Status, reason: Option<String>) -> RollOrder {
        RollOrder { reason, finished_ms: self.sight.now_ms, ..self.at(order, status) }
    }

    /// Keeps count of who rolls, and says what people want to know.
    fn note(&mut self, head: &Head, before: &RollOrder, after: &RollOrder) {
        if before.status == after.status {
            return;
        }
        if after.status.is_active() {
            self.turn.rolling.insert(after.instance.clone(), head.id.clone());
        } else if before.status.is_active() && after.status != Status::Returning {
            self.turn.rolling.remove(&after.instance);
        }
        let why = after.reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
        let (reason, text) = match after.status {
            Status::Rolling if before.status != Status::Proving => ("roll-started", String::new()),
            Status::Succeeded => ("roll-succeeded", why),
            Status::Returning => ("roll-failed", why),
            Status::RolledBack => ("rolled-back", why),
            Status::Failed => ("roll-failed", why),
            Status::Dropped => ("roll-dropped", why),
            _ => return,
        };
        let message = format!("{} {}{text}", head.appliance, head.target);
        self.events.push((format!("instance/{}", after.instance), reason, message));
    }
}

/// Why no order of a rollout begins now.
fn barred(held: &record::Rollout) -> Option<&'static str> {
    if held.paused.is_some() {
        return Some("somebody paused the rollout");
    }
    if is_stopped(&held.step) || held.step == SUPERSEDED {
        return Some("the rollout was stopped");
    }
    let failing = |order: &RollOrder| matches!(order.status, Status::Returning | Status::RollingBack);
    let failed = |order: &RollOrder| matches!(order.status, Status::RolledBack | Status::Failed);
    let unheeded = super::ended_count(&held.orders) != held.heeded && held.orders.iter().any(failed);
    (unheeded || held.orders.iter().any(failing))
        .then_some("the version failed on an instance: its policy is asked first")
}

fn is_down(cluster: &Cluster, id: &InstanceId, sight: Sight<'_>) -> bool {
    let on = cluster.instances.get(id).is_some_and(|instance| instance.power == Power::On);
    on && standing::of(cluster, id, sight).is_some_and(|standing| !standing.is_well())
}

/// The order with what it waits for; none if that is known.
fn waits(order: &RollOrder, why: String) -> Option<RollOrder> {
    (order.reason.as_ref() != Some(&why)).then(|| RollOrder { reason: Some(why), ..order.clone() })
}
