//! Rolls as a pure function: whatever hosts say, every order ends, and nobody runs two versions.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{HealthStatus, HostStatus, InstanceState, InstanceStatus};
use controller_api::life::Power;
use controller_api::planned::{OrderStatus as Status, RollOrder, RolloutPause};
use controller_api::policy::PolicyKind;
use controller_model::placement::Observed;
use controller_model::standing::Sight;
use controller_model::update::{self, Bounds};
use controller_model::{Draft, desired, record};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use streamer_api::{ImageStatus, Prefetch};
use support::{OFFICE, add_host, counting, office, put_version};
use types::{HostName, InstanceId};

const ROLLOUT: &str = "acme/gateway/stable/1.1.0/waves";

fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

/// A cluster with a clock and hosts that say what they are told to.
struct World {
    draft: Draft,
    observed: Observed,
    online: BTreeSet<HostName>,
    now_ms: u64,
    fresh: u64,
    bounds: Bounds,
}

impl World {
    fn new(mut draft: Draft) -> Self {
        let mut installed = draft.cluster.policies.values().next().unwrap().value.clone();
        installed.kind = PolicyKind::Update;
        draft.put("policies/waves", &installed);
        let online = draft.cluster.hosts.keys().cloned().collect();
        let bounds = Bounds { checkpoint_ms: 1_000, prefetch_ms: 1_000, gate_ms: 5_000, failed_ms: 500 };
        let mut world = Self { draft, observed: Observed::new(), online, now_ms: 10_000, fresh: 0, bounds };
        let everyone: Vec<InstanceId> = world.draft.cluster.placements.keys().cloned().collect();
        for id in &everyone {
            world.says(id, InstanceState::Ready);
        }
        world
    }

    /// The office, its gateway's channel moved to 1.1.0.
    fn office() -> Self {
        let mut draft = Draft::new(office());
        put_version(&mut draft, "acme/gateway", "1.1.0", &["wan", "lan"], &[]);
        Self::new(draft)
    }

    fn status_of(&mut self, id: &InstanceId) -> &mut InstanceStatus {
        let host = self.draft.cluster.placements[id].host.clone();
        let incarnation = self.draft.cluster.instances[id].incarnation.clone();
        let status: &mut HostStatus = self.observed.entry(host).or_default();
        let known =
            status.instances.iter().position(|status| status.id == *id && status.incarnation == incarnation);
        let index = known.unwrap_or_else(|| {
            status.instances.retain(|status| status.id != *id);
            status.instances.push(InstanceStatus {
                id: id.clone(),
                incarnation,
                state: InstanceState::Pending,
                reason: None,
                started_ms: None,
                ready_ms: None,
                starts: 0,
                dirty_bytes: 0,
                health: None,
            });
            status.instances.len() - 1
        });
        &mut status.instances[index]
    }

    /// An instance's host says that the present incarnation is so.
    fn says(&mut self, id: &InstanceId, state: InstanceState) {
        let now_ms = self.now_ms;
        let status = self.status_of(id);
        let runs = |state| matches!(state, InstanceState::Booting | InstanceState::Ready);
        if runs(state) && !runs(status.state) {
            status.started_ms = Some(now_ms);
            status.starts += 1;
        }
        status.state = state;
        status.ready_ms = (state == InstanceState::Ready).then_some(now_ms);
    }

    fn holds_image(&mut self, name: &str, version: &str) {
        let image = self.draft.cluster.versions[&(name.parse().unwrap(), version.parse().unwrap())].image;
        for status in self.observed.values_mut() {
            let here = ImageStatus { pieces: 4, pieces_local: 3, pieces_zero: 1, ..ImageStatus::default() };
            status.images.insert(image.to_string(), here);
        }
    }

    fn sight(&self) -> Sight<'_> {
        Sight { observed: &self.observed, online: &self.online, now_ms: self.now_ms }
    }

    fn question(&self) -> update::Question {
        let [question] = update::questions(&self.draft.cluster, self.sight()).try_into().unwrap();
        question
    }

    /// The policy answers.
    fn answer(&mut self, step: &str, rolls: Vec<(InstanceId, u64, bool)>) {
        let question = self.question();
        let answer = update::Answer {
            step: step.into(),
            reasons: vec!["because".into()],
            rolls,
            next_call_ms: 60_000,
            state: types::Base64::default(),
        };
        let record = update::answered(&question, answer, None, self.now_ms);
        if let Some(refusal) = update::refusal(&question, &record, self.now_ms) {
            self.draft.put(record::refusal_key(&record.appliance, &record.target), &refusal);
        }
        self.draft.put(format!("rollouts/{}", question.id), &record);
    }

    fn order(&mut self, instance: &str, soak_ms: u64, checkpoint: bool) {
        self.answer("proceed", vec![(id(instance), soak_ms, checkpoint)]);
    }

    /// One pass after some time.
    fn pass(&mut self, later_ms: u64) -> Vec<(String, &'static str, String)> {
        self.now_ms += later_ms;
        let mut fresh = self.fresh;
        let mut counting = || {
            fresh += 1;
            format!("00000000-0000-4000-9000-{fresh:012}")
        };
        let sight = Sight { observed: &self.observed, online: &self.online, now_ms: self.now_ms };
        let settled = update::settle(&self.draft.cluster, sight, self.bounds, &mut counting);
        self.fresh = fresh;
        // What is written is what the next controller finds.
        for (key, value) in settled.draft.writes {
            self.draft.cluster.take(&key, value.as_deref(), types::Revision(self.now_ms)).unwrap();
        }
        settled.events
    }

    fn rollout(&self, id: &str) -> &record::Rollout {
        &self.draft.cluster.rollouts[id].value
    }

    fn last(&self) -> &RollOrder {
        self.rollout(ROLLOUT).orders.last().unwrap()
    }

    fn version(&self, instance: &str) -> &str {
        self.draft.cluster.instances[&id(instance)].version.as_str()
    }

    /// To the guest with the new version, which its host has not taken up.
    fn rolled(soak_ms: u64) -> Self {
        let mut world = Self::office();
        world.order("office/gateway", soak_ms, false);
        world.holds_image("acme/gateway", "1.1.0");
        world.pass(1);
        assert_eq!(world.last().status, Status::Rolling);
        world
    }

    /// The gateway failed with the version and runs the one before.
    fn rolled_back() -> Self {
        let mut world = Self::rolled(100);
        world.says(&id("office/gateway"), InstanceState::Failed);
        world.pass(500);
        world.says(&id("office/gateway"), InstanceState::Ready);
        world.pass(1);
        assert_eq!(world.last().status, Status::RolledBack);
        world
    }
}

#[test]
fn a_roll_prefetches_makes_the_guest_anew_on_its_host_and_proves_it() {
    let mut world = World::office();
    let before = world.draft.cluster.instances[&id("office/gateway")].value.clone();
    let placement = world.draft.cluster.placements[&id("office/gateway")].value.clone();
    world.order("office/gateway", 1_000, false);
    world.pass(1);
    assert_eq!(world.last().status, Status::Prefetching);
    assert_eq!(world.version("office/gateway"), "1.0.0", "the old guest runs while the image comes");
    let image =
        world.draft.cluster.versions[&("acme/gateway".parse().unwrap(), "1.1.0".parse().unwrap())].image;
    let document = &desired::desired(&world.draft.cluster, &world.online)[&placement.host];
    let stream = document.streams.iter().find(|stream| stream.image == image).unwrap();
    assert_eq!(stream.prefetch, Prefetch::Full);
    assert!(document.images.contains(&image));

    world.holds_image("acme/gateway", "1.1.0");
    world.pass(1);
    let after = world.draft.cluster.instances[&id("office/gateway")].value.clone();
    assert_eq!((world.last().status, after.version.as_str(), after.image), (Status::Rolling, "1.1.0", image));
    assert_ne!(after.incarnation, before.incarnation);
    assert_eq!((&after.ports, &after.volumes, after.memory), (&before.ports, &before.volumes, before.memory));
    assert_eq!(world.draft.cluster.placements[&id("office/gateway")].value, placement);
    assert_eq!(world.last().from.as_ref().unwrap().as_str(), "1.0.0");

    world.says(&id("office/gateway"), InstanceState::Ready);
    world.pass(1);
    assert_eq!(world.last().status, Status::Proving);
    world.pass(999);
    assert_eq!(world.last().status, Status::Proving);
    world.pass(1);
    assert_eq!(world.last().status, Status::Succeeded);
    assert!(world.question().due, "a roll has ended");
    // Applying the same documents again makes nothing anew.
    let applied = support::apply(&world.draft.cluster, OFFICE).unwrap();
    assert!(
        applied.draft.writes.keys().all(|key| !key.starts_with("instances/")),
        "{:?}",
        applied.draft.writes
    );
}

#[test]
fn what_a_bounded_wait_does_not_bring_is_streamed_later() {
    let mut world = World::office();
    world.order("office/gateway", 0, false);
    world.pass(1);
    world.pass(999);
    assert_eq!(world.last().status, Status::Prefetching);
    world.pass(1);
    assert_eq!((world.last().status, world.version("office/gateway")), (Status::Rolling, "1.1.0"));
}

#[test]
fn a_guest_that_is_not_ready_in_time_or_fails_goes_back() {
    let cases: [(&str, InstanceState, u64, &str); 3] = [
        ("never ready", InstanceState::Booting, 5_000, "not ready within"),
        ("cannot run", InstanceState::Failed, 500, "it cannot run"),
        ("stops", InstanceState::Stopped, 500, "it stopped"),
    ];
    for (name, state, after_ms, reason) in cases {
        let mut world = World::rolled(1_000);
        world.says(&id("office/gateway"), state);
        world.pass(after_ms - 1);
        assert_eq!(world.last().status, Status::Rolling, "{name}");
        let events = world.pass(1);
        assert_eq!((world.last().status, world.version("office/gateway")), (Status::RollingBack, "1.0.0"));
        assert!(world.last().reason.as_ref().unwrap().contains(reason), "{name}: {:?}", world.last());
        assert!(events.iter().any(|(_, what, _)| *what == "roll-failed"), "{name}: {events:?}");
        world.says(&id("office/gateway"), InstanceState::Ready);
        world.pass(1);
        assert_eq!(world.last().status, Status::RolledBack, "{name}");
        assert!(world.last().reason.as_ref().unwrap().contains(reason), "{name}");
    }
}

#[test]
fn a_member_says_how_soon_its_guest_has_to_be_ready() {
    let mut world = World::rolled(1_000);
    let bundle = "office".parse().unwrap();
    let mut office = world.draft.cluster.bundles[&bundle].value.clone();
    let gateway = office.members.get_mut(&"gateway".parse().unwrap()).unwrap();
    gateway.health = serde_json::from_value(serde_json::json!({"ready_within": "45s"})).unwrap();
    world.draft.put("bundles/office", &office);
    world.says(&id("office/gateway"), InstanceState::Booting);
    world.pass(44_999);
    assert_eq!(world.last().status, Status::Rolling);
    world.pass(1);
    assert_eq!(world.last().status, Status::RollingBack);
    assert!(world.last().reason.as_ref().unwrap().contains("not ready within 45 s"));
}

#[test]
fn an_unhealthy_guest_goes_back_and_one_that_began_again_begins_its_soak_again() {
    let mut world = World::rolled(1_000);
    let gateway = id("office/gateway");
    world.says(&gateway, InstanceState::Ready);
    world.pass(1);
    world.says(&gateway, InstanceState::Booting);
    world.status_of(&gateway).started_ms = Some(77);
    world.pass(900);
    assert_eq!(world.last().status, Status::Rolling);
    world.says(&gateway, InstanceState::Ready);
    world.pass(50);
    // A restart between two looks is one, too.
    world.status_of(&gateway).started_ms = Some(78);
    world.pass(999);
    assert_eq!(world.last().status, Status::Proving);
    world.pass(999);
    assert_eq!(world.last().status, Status::Proving);
    let sick = HealthStatus { healthy: false, reason: Some("tcp 80: refused".into()), since_ms: 1 };
    world.status_of(&gateway).health = Some(sick);
    world.pass(0);
    assert_eq!(world.last().status, Status::RollingBack);
    assert!(world.last().reason.as_ref().unwrap().contains("tcp 80: refused"));
}

#[test]
fn nobody_is_blamed_while_a_host_is_out_of_reach() {
    let mut world = World::rolled(1_000);
    world.online.clear();
    world.pass(1_000_000);
    assert_eq!(world.last().status, Status::Rolling);
    world.online = [host("h1"), host("h2")].into();
    world.says(&id("office/gateway"), InstanceState::Ready);
    world.pass(1);
    world.pass(1_000);
    assert_eq!(world.last().status, Status::Succeeded);
}

#[test]
fn a_version_that_does_not_fit_its_wiring_leaves_the_guest_as_it_is() {
    let mut draft = Draft::new(office());
    put_version(&mut draft, "acme/gateway", "1.1.0", &["wan", "lan", "dmz"], &[]);
    let mut world = World::new(draft);
    world.order("office/gateway", 0, false);
    world.holds_image("acme/gateway", "1.1.0");
    world.pass(1);
    assert_eq!((world.last().status, world.version("office/gateway")), (Status::Failed, "1.0.0"));
    assert!(world.last().reason.as_ref().unwrap().contains("dmz"), "{:?}", world.last());
    // The version did not run here: it is not refused for what a bundle lacks.
    world.answer("halt", vec![]);
    assert!(world.draft.cluster.refusals.is_empty());
}

#[test]
fn a_version_that_failed_is_refused_until_somebody_says_otherwise() {
    let mut world = World::rolled_back();
    assert!(world.question().due, "the policy is asked about the failure");
    world.answer("halt", vec![]);
    let refusal = world.draft.cluster.refusals.values().next().unwrap().value.clone();
    assert_eq!((refusal.instance, refusal.before.unwrap().as_str()), (id("office/gateway"), "1.0.0"));
    assert!(refusal.reason.contains("it cannot run"), "{}", refusal.reason);
    world.now_ms += 1 << 40;
    assert!(!world.question().due);

    // A new instance of the member runs what was there before.
    let mut renewed = world.draft.clone();
    controller_model::apply::renew_instance(&mut renewed, &id("office/gateway"), &mut counting()).unwrap();
    assert_eq!(renewed.cluster.instances[&id("office/gateway")].version.as_str(), "1.0.0");

    // A version after it is another question, and rolls.
    put_version(&mut world.draft, "acme/gateway", "1.2.0", &["wan", "lan"], &[]);
    let next = world.question();
    assert!(next.due && next.target.as_str() == "1.2.0");

    // Retry forgets what failed.
    let mut retried = World::rolled_back();
    retried.answer("roll_back", vec![]);
    assert!(update::resume(&mut retried.draft, ROLLOUT, 5).unwrap_err().to_string().contains("retry"));
    update::retry(&mut retried.draft, ROLLOUT, retried.now_ms).unwrap();
    assert!(retried.draft.cluster.refusals.is_empty() && retried.rollout(ROLLOUT).orders.is_empty());
    assert!(retried.question().due);
    let again = update::retry(&mut retried.draft, ROLLOUT, 9).unwrap_err();
    assert!(again.to_string().contains("nothing"), "{again}");
}

#[test]
fn if_every_version_is_refused_the_channel_s_runs_and_says_so() {
    let mut world = World::office();
    for version in ["1.0.0", "1.1.0"] {
        let refusal = record::Refusal {
            reason: "it does not boot".into(),
            instance: id("office/gateway"),
            at_ms: 1,
            before: Some("1.0.0".parse().unwrap()),
            rollout: ROLLOUT.into(),
        };
        world.draft.put(format!("refusals/acme/gateway/{version}"), &refusal);
    }
    controller_model::apply::renew_instance(&mut world.draft, &id("office/gateway"), &mut counting())
        .unwrap();
    assert_eq!(world.version("office/gateway"), "1.1.0");
    let said = update::runs_refused(&world.draft.cluster, &"office".parse().unwrap());
    assert!(said.len() == 1 && said[0].contains("refused here: it does not boot"), "{said:?}");
}

#[test]
fn a_failure_is_the_policy_s_to_judge_before_anything_else_begins_and_the_instance_is_never_tried_twice() {
    let mut world = World::rolled(100);
    world.says(&id("office/gateway"), InstanceState::Failed);
    world.pass(500);
    world.says(&id("office/gateway"), InstanceState::Ready);
    world.pass(1);
    world.order("office/gateway", 0, false);
    assert_eq!(world.rollout(ROLLOUT).orders.len(), 1, "it failed there with this version");
    assert!(world.draft.cluster.refusals.is_empty(), "the policy goes on in spite of it");
}

#[test]
fn a_roll_back_of_all_returns_what_succeeded() {
    let mut world = World::rolled(10);
    world.says(&id("office/gateway"), InstanceState::Ready);
    world.pass(1);
    world.pass(10);
    assert_eq!(world.last().status, Status::Succeeded);
    world.answer("roll_back", vec![]);
    assert_eq!(world.last().status, Status::Returning);
    assert_eq!(world.draft.cluster.refusals.len(), 1);
    world.pass(1);
    assert_eq!((world.last().status, world.version("office/gateway")), (Status::RollingBack, "1.0.0"));
    world.says(&id("office/gateway"), InstanceState::Ready);
    world.pass(1);
    assert_eq!(world.last().status, Status::RolledBack);
    assert!(!world.question().due);
}

fn paused() -> RolloutPause {
    RolloutPause { who: "token:t1".into(), at_ms: 5, why: Some("a fair".into()) }
}

#[test]
fn a_pause_begins_nothing_and_ends_what_has_begun() {
    let mut world = World::office();
    world.order("office/gateway", 0, false);
    update::pause(&mut world.draft, ROLLOUT, paused()).unwrap();
    world.holds_image("acme/gateway", "1.1.0");
    world.pass(100_000);
    assert_eq!(world.last().status, Status::Pending);
    assert!(world.last().reason.as_ref().unwrap().contains("paused") && !world.question().due);
    update::resume(&mut world.draft, ROLLOUT, world.now_ms).unwrap();
    assert_eq!(world.rollout(ROLLOUT).resumed_ms, 0, "a pause forgives nothing");
    assert!(
        update::resume(&mut world.draft, ROLLOUT, 9).unwrap_err().to_string().contains("goes on already")
    );
    world.pass(1);
    assert_eq!(world.last().status, Status::Rolling);
    assert_eq!(update::halt_all(&mut world.draft, &paused()), [ROLLOUT]);
    assert_eq!(update::halt_all(&mut world.draft, &paused()), Vec::<String>::new());
    world.says(&id("office/gateway"), InstanceState::Ready);
    world.pass(1);
    world.pass(1);
    assert_eq!(world.last().status, Status::Succeeded);
    assert!(update::pause(&mut world.draft, "acme/x/stable/1/waves", paused()).is_err());
}

#[test]
fn resuming_a_halt_forgives_and_lifts_the_refusal() {
    let mut world = World::rolled_back();
    world.answer("halt", vec![]);
    let now_ms = world.now_ms;
    update::resume(&mut world.draft, ROLLOUT, now_ms).unwrap();
    assert!(world.draft.cluster.refusals.is_empty());
    let question = world.question();
    assert!(question.due && question.resumed_ms == now_ms);
    // The policy halts again for another reason: what was forgiven refuses nothing.
    world.answer("halt", vec![]);
    assert!(world.draft.cluster.refusals.is_empty());
}

#[test]
fn what_is_switched_off_rolls_and_stays_off() {
    let mut world = World::office();
    let mut gateway = world.draft.cluster.instances[&id("office/gateway")].value.clone();
    gateway.power = Power::Off;
    world.draft.put("instances/office/gateway", &gateway);
    world.says(&id("office/gateway"), InstanceState::Stopped);
    world.order("office/gateway", 60_000, false);
    world.holds_image("acme/gateway", "1.1.0");
    world.pass(1);
    assert_eq!((world.last().status, world.version("office/gateway")), (Status::Succeeded, "1.1.0"));
    assert_eq!(world.draft.cluster.instances[&id("office/gateway")].power, Power::Off);
}

const FARM: &str = "
apiVersion: collective/v1
kind: Bundle
metadata: {name: farm}
spec:
  networks:
    inside: {subnet: 10.20.0.0/24}
  members:
    a: {appliance: acme/plain, ports: {eth0: inside}}
    b: {appliance: acme/plain, ports: {eth0: inside}}
    c: {appliance: acme/plain, ports: {eth0: inside}}
---
apiVersion: collective/v1
kind: Deployment
metadata: {name: one}
spec: {bundle: farm}
---
apiVersion: collective/v1
kind: Deployment
metadata: {name: two}
spec: {bundle: farm}
";

const FARM_ROLLOUT: &str = "acme/plain/stable/1.1.0/waves";

/// Six instances of one appliance in two deployments, on two hosts.
fn farm() -> World {
    let mut draft = support::apply(&support::with_site(), FARM).unwrap().draft;
    add_host(&mut draft, "h1", "10.99.0.1");
    add_host(&mut draft, "h2", "10.99.0.2");
    let ids: Vec<InstanceId> = draft.cluster.instances.keys().cloned().collect();
    for (number, id) in ids.iter().enumerate() {
        let placement = record::Placement { host: host(["h1", "h2"][number % 2]), decision: 1 };
        draft.put(record::placement_key(id), &placement);
    }
    put_version(&mut draft, "acme/plain", "1.1.0", &["eth0"], &[]);
    World::new(draft)
}

#[test]
fn members_of_a_deployment_that_run_the_same_appliance_roll_one_by_one() {
    let mut world = farm();
    world.answer("proceed", vec![(id("one/a"), 10, false), (id("one/b"), 10, false)]);
    world.holds_image("acme/plain", "1.1.0");
    world.pass(1);
    let statuses = |world: &World| -> Vec<Status> {
        world.rollout(FARM_ROLLOUT).orders.iter().map(|order| order.status).collect()
    };
    assert_eq!(statuses(&world), [Status::Rolling, Status::Pending]);
    let waits = world.rollout(FARM_ROLLOUT).orders[1].reason.clone().unwrap();
    assert!(waits.contains("one/a rolls"), "{waits}");
    world.says(&id("one/a"), InstanceState::Ready);
    world.pass(1);
    world.says(&id("one/c"), InstanceState::Failed);
    world.pass(10);
    assert_eq!(statuses(&world), [Status::Succeeded, Status::Pending]);
    let waits = world.rollout(FARM_ROLLOUT).orders[1].reason.clone().unwrap();
    assert!(waits.contains("one/c is down"), "{waits}");
    world.says(&id("one/c"), InstanceState::Ready);
    world.pass(1);
    assert_eq!(statuses(&world), [Status::Succeeded, Status::Rolling]);
}

/// What the outside does before the next look.
#[derive(Debug, Clone)]
enum Happening {
    Says(usize, InstanceState),
    Sick(usize),
    HostGoes(usize),
    HostComes(usize),
    Image,
    Later(u64),
    Order(usize),
    Halt,
    RollBack,
    Resume,
    Pause,
    Retry,
    Newer,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let state = prop_oneof![
        1 => Just(InstanceState::Preparing),
        1 => Just(InstanceState::Booting),
        4 => Just(InstanceState::Ready),
        1 => Just(InstanceState::Stopped),
        1 => Just(InstanceState::Failed),
    ];
    prop_oneof![
        8 => (0_usize..6, state).prop_map(|(index, state)| H::Says(index, state)),
        1 => (0_usize..6).prop_map(H::Sick),
        1 => (0_usize..2).prop_map(H::HostGoes),
        1 => (0_usize..2).prop_map(H::HostComes),
        1 => Just(H::Image),
        4 => (1_u64..2_000).prop_map(H::Later),
        6 => (0_usize..6).prop_map(H::Order),
        1 => Just(H::Halt),
        1 => Just(H::RollBack),
        1 => Just(H::Resume),
        1 => Just(H::Pause),
        1 => Just(H::Retry),
        1 => Just(H::Newer),
    ]
}

impl World {
    fn happens(&mut self, what: &Happening) {
        let ids: Vec<InstanceId> = self.draft.cluster.instances.keys().cloned().collect();
        let hosts = [host("h1"), host("h2")];
        let current = |world: &Self| {
            let questions = update::questions(&world.draft.cluster, world.sight());
            questions.into_iter().next().map(|question| question.id)
        };
        match what {
            Happening::Says(index, state) => self.says(&ids[*index], *state),
            Happening::Sick(index) => {
                let sick = HealthStatus { healthy: false, reason: None, since_ms: 1 };
                self.status_of(&ids[*index]).health = Some(sick);
            }
            Happening::HostGoes(index) => {
                self.online.remove(&hosts[*index]);
            }
            Happening::HostComes(index) => {
                self.online.insert(hosts[*index].clone());
            }
            Happening::Image => self.holds_image("acme/plain", "1.1.0"),
            Happening::Later(ms) => self.now_ms += ms,
            Happening::Order(index) => {
                if current(self).is_some() && self.question().due {
                    self.answer("proceed", vec![(ids[*index].clone(), 300, false)]);
                }
            }
            Happening::Halt | Happening::RollBack => {
                let step = if matches!(what, Happening::Halt) { update::HALT } else { update::ROLL_BACK };
                if current(self).is_some() && self.question().due {
                    self.answer(step, vec![]);
                }
            }
            Happening::Resume | Happening::Pause | Happening::Retry => {
                let Some(id) = current(self).filter(|id| self.draft.cluster.rollouts.contains_key(id)) else {
                    return;
                };
                // A refusal of what cannot be now changes nothing.
                let before = self.draft.cluster.clone();
                let said = match what {
                    Happening::Resume => update::resume(&mut self.draft, &id, self.now_ms),
                    Happening::Retry => update::retry(&mut self.draft, &id, self.now_ms),
                    _ => update::pause(&mut self.draft, &id, paused()),
                };
                if said.is_err() {
                    assert_eq!(self.draft.cluster, before);
                }
            }
            Happening::Newer => put_version(&mut self.draft, "acme/plain", "1.2.0", &["eth0"], &[]),
        }
        let questions = update::questions(&self.draft.cluster, self.sight());
        for (id, held) in update::ended(&self.draft.cluster, &questions, self.now_ms) {
            if let Some(held) = held {
                self.draft.put(format!("rollouts/{id}"), &held);
            }
        }
    }

    fn incarnations(&self) -> BTreeMap<InstanceId, (String, String)> {
        let of = |instance: &record::Instance| (instance.incarnation.clone(), instance.version.to_string());
        self.draft.cluster.instances.iter().map(|(id, instance)| (id.clone(), of(instance))).collect()
    }

    fn check(&self, before: &BTreeMap<InstanceId, (String, String)>, refused: &BTreeSet<String>) {
        let cluster = &self.draft.cluster;
        let mut active: BTreeMap<&InstanceId, u32> = BTreeMap::new();
        let mut groups: BTreeMap<_, u32> = BTreeMap::new();
        for order in cluster.rollouts.values().flat_map(|held| &held.orders) {
            if order.status.is_active() {
                *active.entry(&order.instance).or_default() += 1;
                // What somebody else made anew is only watched, and what failed goes back at once.
                let watched =
                    order.from.is_none() && matches!(order.status, Status::Rolling | Status::Proving);
                if order.status != Status::RollingBack && !watched {
                    *groups.entry(&order.instance.deployment).or_default() += 1;
                }
            }
        }
        assert!(active.values().all(|count| *count == 1), "two rolls of one instance: {active:?}");
        assert!(groups.values().all(|count| *count == 1), "two of a deployment: {groups:?}");
        let goes_back = |id: &InstanceId| {
            let orders = cluster.rollouts.values().flat_map(|held| &held.orders);
            orders.into_iter().any(|order| order.instance == *id && order.status == Status::RollingBack)
        };
        for (id, (incarnation, version)) in self.incarnations() {
            let (old, from) = &before[&id];
            assert_eq!(version == *from, incarnation == *old, "{id}: a version changes with its incarnation");
            let may = version == *from || !refused.contains(&version) || goes_back(&id);
            assert!(may, "{id} rolled to {version}, refused here");
            assert!(cluster.placements.contains_key(&id), "{id} lost its host");
        }
    }

    /// Hosts do as they are told from now on.
    fn calm(&mut self) {
        self.online = [host("h1"), host("h2")].into();
        let ids: Vec<InstanceId> = self.draft.cluster.instances.keys().cloned().collect();
        for _ in 0..400 {
            for id in &ids {
                self.says(id, InstanceState::Ready);
                self.status_of(id).health = None;
            }
            self.pass(400);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_hosts_and_people_say_rolls_do_not_overlap_and_refused_versions_stay_away(
        happenings in prop::collection::vec(happening(), 1..80)
    ) {
        let mut world = farm();
        for what in &happenings {
            let before = world.incarnations();
            world.happens(what);
            let refused: BTreeSet<String> =
                world.draft.cluster.refusals.keys().map(|(_, version)| version.to_string()).collect();
            world.pass(1);
            world.check(&before, &refused);
        }
        // A pause and a halt keep orders waiting; all others end once hosts are well.
        world.calm();
        for (id, held) in &world.draft.cluster.rollouts {
            let stays = held.paused.is_some() || matches!(held.step.as_str(), update::HALT | update::ROLL_BACK);
            for order in &held.orders {
                let waits = order.status == Status::Pending && stays;
                prop_assert!(waits || !order.status.is_under_way() || unheeded(held), "{}: {:?}", id, order);
            }
        }
    }
}

/// A pending order waits for the policy's word after a failure.
fn unheeded(held: &record::Rollout) -> bool {
    let ended = held.orders.iter().filter(|order| !order.status.is_under_way()).count();
    ended != held.heeded
}
