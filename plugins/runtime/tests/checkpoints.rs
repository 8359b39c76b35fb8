//! The world `checkpoint-policy`, with the component that is shipped.

#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod support;

use plugins_runtime::checkpoint::{
    CHECKPOINTS_MAX, Cause, Checkpoint, CheckpointInput, Decision, Subject, Verified,
};
use plugins_runtime::instances::{Health, Instance, InstanceState};
use plugins_runtime::{Kind, Limits, LogLevel, Policy, PolicyError, State};
use serde_json::json;
use std::sync::{Arc, LazyLock};
use support::{GIB, runtime};
use types::Revision;

static GFS: LazyLock<Arc<Policy>> = LazyLock::new(|| {
    let (runtime, _folder) = runtime(Limits::default());
    let built = xtask::policies::build(None).unwrap().policies;
    let gfs = built.iter().find(|policy| policy.name == "gfs").unwrap();
    runtime.load(&std::fs::read(&gfs.path).unwrap()).unwrap()
});

const NOON_MS: u64 = 1_795_176_000_000;
const HOUR_MS: u64 = 3_600_000;

fn checkpoint(hours: u64) -> Checkpoint {
    Checkpoint {
        name: format!("c{hours:05}"),
        taken_ms: NOON_MS - hours * HOUR_MS,
        size_bytes: GIB,
        ..Checkpoint::default()
    }
}

/// A desktop that wrote so much, and checkpoints.
fn input(dirty_bytes: u64, checkpoints: Vec<Checkpoint>) -> CheckpointInput {
    let desktop = Instance {
        name: "office/desktop".to_owned(),
        deployment: "office".to_owned(),
        member: "desktop".to_owned(),
        host: "host-1".to_owned(),
        state: InstanceState::Running,
        health: Health::Healthy,
        dirty_bytes,
        ..Instance::default()
    };
    CheckpointInput {
        decision_id: "d1".to_owned(),
        seed: 7,
        now_ms: NOON_MS,
        revision: Revision(3),
        settings: serde_json::Value::Null,
        subject: Subject {
            deployment: "office".to_owned(),
            used_bytes: checkpoints.iter().map(|checkpoint| checkpoint.size_bytes).sum(),
            ..Subject::default()
        },
        instances: [desktop].into_iter().collect(),
        checkpoints: checkpoints.into_iter().collect(),
        state: State::default(),
    }
}

#[test]
fn enough_dirt_makes_a_checkpoint_and_the_state_remembers_the_order() {
    assert_eq!(GFS.kind(), Kind::Checkpoint);
    let mut input = input(GIB, vec![checkpoint(1)]);
    let first = GFS.schedule(&input).unwrap().verdict;
    assert_eq!(first.take.unwrap().reasons[0].code, "much-written");
    input.state = first.state;
    assert_eq!(GFS.schedule(&input).unwrap().verdict.take, None);
}

#[test]
fn what_no_rule_wants_goes_and_what_is_pinned_stays() {
    let mut checkpoints: Vec<_> = (0..6).map(checkpoint).collect();
    checkpoints[3].pinned = true;
    checkpoints[4].cause = Cause::Person;
    checkpoints[5].verified = Verified::Damaged;
    let mut input = input(0, checkpoints);
    input.settings = json!({"keep": {"last": 2, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}});
    let plan = GFS.schedule(&input).unwrap().verdict;
    let dropped: Vec<_> = plan.discards.iter().map(|discard| discard.checkpoint.as_str()).collect();
    assert_eq!(dropped, ["c00005", "c00002"]);
}

#[test]
fn where_there_is_no_room_none_is_taken_and_the_log_says_why() {
    let pinned = Checkpoint { pinned: true, ..checkpoint(1) };
    let mut input = input(GIB, vec![pinned]);
    input.subject.quota_bytes = GIB + 1;
    let decision = GFS.schedule(&input).unwrap();
    assert_eq!(decision.verdict.take, None);
    let line = &decision.logs[0];
    assert!(line.level == LogLevel::Warn && line.message.contains("raise the quota"), "{line:?}");
}

#[test]
fn the_same_input_gives_the_same_plan_and_survives_its_storage() {
    let input = input(GIB, (0..50).map(|index| checkpoint(index * 7)).collect());
    let decision = GFS.schedule(&input).unwrap();
    assert_eq!(decision.verdict, GFS.schedule(&input).unwrap().verdict);
    let text = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
    let stored: CheckpointInput = serde_json::from_str(&serde_json::to_string(&input).unwrap()).unwrap();
    assert_eq!((stored.digest(), &stored), (decision.input_digest, &input));
}

#[test]
fn the_longest_history_fits_the_limits() {
    let checkpoints = (0..CHECKPOINTS_MAX as u64).map(checkpoint).collect();
    let plan = GFS.schedule(&input(GIB, checkpoints)).unwrap().verdict;
    assert!(plan.discards.len() > CHECKPOINTS_MAX - 100, "{}", plan.discards.len());
}

#[test]
fn what_breaks_a_rule_is_not_asked() {
    let refused = |change: fn(&mut CheckpointInput), rule: &str| {
        let mut input = input(0, vec![checkpoint(2), checkpoint(1)]);
        change(&mut input);
        let error = GFS.schedule(&input).unwrap_err();
        let PolicyError::BadInput { detail } = &error else { panic!("{error}") };
        assert!(detail.contains(rule), "{detail}");
    };
    refused(|input| input.checkpoints.taken_ms.swap(0, 1), "not oldest first");
    refused(|input| input.checkpoints.names[0] = "c00001".to_owned(), "one occurs twice");
    refused(|input| input.checkpoints.pinned.clear(), "checkpoints.pinned has 0 elements for 2");
    refused(|input| input.checkpoints.sizes_bytes[0] = u64::MAX, "is above");
    refused(|input| input.subject.quota_bytes = 1 << 53, "is above");
    refused(|input| input.instances.names.clear(), "for 0 instances");
    refused(|input| input.state.0 = vec![0; (64 << 10) + 1], "state");
    refused(|input| input.settings = json!(3), "settings");
}
