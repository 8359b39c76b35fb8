//! The world `update-policy`, with the component that is shipped.

#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod support;

use plugins_runtime::instances::{Health, INSTANCES_MAX, Instance, InstanceState};
use plugins_runtime::update::{Decision, Outcome, RollStatus, Rollout, Step, UpdateInput};
use plugins_runtime::{Kind, Limits, Policy, PolicyError, State};
use serde_json::json;
use std::sync::{Arc, LazyLock};
use support::runtime;
use types::Revision;

static WAVES: LazyLock<Arc<Policy>> = LazyLock::new(|| {
    let (runtime, _folder) = runtime(Limits::default());
    let built = xtask::policies::build(None).unwrap().policies;
    let waves = built.iter().find(|policy| policy.name == "waves").unwrap();
    runtime.load(&std::fs::read(&waves.path).unwrap()).unwrap()
});

const NOON_MS: u64 = 1_795_176_000_000;

/// A rollout over that many desktops, none of them touched.
fn input(count: usize) -> UpdateInput {
    let desktop = |index| Instance {
        name: format!("user-{index:05}/desktop"),
        deployment: format!("user-{index:05}"),
        member: "desktop".to_owned(),
        host: format!("host-{}", index % 100),
        site: "lyon".to_owned(),
        appliance: "acme/desktop".to_owned(),
        version: "1.0.0".to_owned(),
        state: InstanceState::Running,
        health: Health::Healthy,
        ..Instance::default()
    };
    UpdateInput {
        decision_id: "d1".to_owned(),
        seed: 7,
        now_ms: NOON_MS,
        revision: Revision(3),
        settings: serde_json::Value::Null,
        rollout: Rollout {
            id: "r1".to_owned(),
            appliance: "acme/desktop".to_owned(),
            channel: "stable".to_owned(),
            target: "2.0.0".to_owned(),
            started_ms: NOON_MS,
            unavailable_max: 20_000,
            ..Rollout::default()
        },
        instances: (0..count).map(desktop).collect(),
        state: State::default(),
    }
}

/// The first so many have ended like that.
fn ended(mut input: UpdateInput, count: usize, status: RollStatus) -> UpdateInput {
    for row in 0..count {
        input.rollout.outcomes.push(Outcome {
            instance: input.instances.names[row].clone(),
            ordered_ms: NOON_MS - 2,
            finished_ms: NOON_MS - 1,
            status,
            detail: "x".repeat(2000),
        });
        if status == RollStatus::Succeeded {
            input.instances.versions[row] = input.rollout.target.clone();
        }
    }
    input
}

fn step(input: &UpdateInput) -> Step {
    WAVES.next_step(input).unwrap().verdict.step
}

#[test]
fn a_rollout_goes_from_its_canary_to_its_end() {
    assert_eq!(WAVES.kind(), Kind::Update);
    let mut input = input(20);
    let mut sizes = Vec::new();
    let reasons = loop {
        let decision = WAVES.next_step(&input).unwrap();
        input.state = decision.verdict.state;
        match decision.verdict.step {
            Step::Proceed { rolls, cut: 0 } => {
                sizes.push(rolls.len());
                for roll in rolls {
                    let row = input.instances.row_of(&roll.instance).unwrap();
                    input.instances.versions[row] = "2.0.0".to_owned();
                    input.rollout.outcomes.push(Outcome {
                        instance: roll.instance,
                        ordered_ms: NOON_MS,
                        finished_ms: NOON_MS,
                        status: RollStatus::Succeeded,
                        detail: String::new(),
                    });
                }
            }
            Step::Complete { reasons } => break reasons,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((sizes, reasons[0].code.as_str()), (vec![1, 1, 4, 5, 5, 4], "nobody-left"));
}

#[test]
fn the_same_input_gives_the_same_plan_and_survives_its_storage() {
    let input = ended(input(50), 1, RollStatus::Succeeded);
    let decision = WAVES.next_step(&input).unwrap();
    assert_eq!(decision.verdict, WAVES.next_step(&input).unwrap().verdict);
    let text = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
    let stored: UpdateInput = serde_json::from_str(&serde_json::to_string(&input).unwrap()).unwrap();
    assert_eq!((stored.digest(), &stored), (decision.input_digest, &input));
}

#[test]
fn a_failed_canary_rolls_back() {
    let input = ended(input(50), 1, RollStatus::Failed);
    let Step::RollBack { reasons } = step(&input) else { panic!("it goes on") };
    assert_eq!(reasons[0].code, "canary-failed");
}

#[test]
fn the_operators_bound_holds_whatever_the_settings_say() {
    let mut input = input(50);
    input.settings = json!({"canary": 0, "waves": [100], "unavailable_percent_max": 100, "per_host_max": 0});
    input.rollout.unavailable_max = 3;
    let Step::Proceed { rolls, .. } = step(&input) else { panic!("nobody rolls") };
    assert_eq!(rolls.len(), 3);
}

#[test]
fn the_largest_rollout_fits_the_limits_at_every_point() {
    for touched in [0, 1, INSTANCES_MAX / 2, INSTANCES_MAX] {
        let input = ended(input(INSTANCES_MAX), touched, RollStatus::Succeeded);
        let decision = WAVES.next_step(&input).unwrap();
        assert_eq!(matches!(decision.verdict.step, Step::Complete { .. }), touched == INSTANCES_MAX);
    }
}

#[test]
fn what_breaks_a_rule_is_not_asked() {
    let refused = |change: fn(&mut UpdateInput), rule: &str| {
        let mut input = ended(input(3), 1, RollStatus::Succeeded);
        change(&mut input);
        let error = WAVES.next_step(&input).unwrap_err();
        let PolicyError::BadInput { detail } = &error else { panic!("{error}") };
        assert!(detail.contains(rule), "{detail}");
    };
    refused(|input| input.instances.names.swap(0, 1), "do not rise");
    refused(|input| input.instances.hosts.truncate(2), "instances.hosts has 2 elements for 3");
    refused(|input| input.instances.started_ms[0] = 1 << 53, "is above");
    refused(|input| input.rollout.unavailable_max = 0, "rollout.unavailable_max");
    refused(|input| input.rollout.outcomes[0].finished_ms = 0, "while a roll is under way");
    refused(|input| input.rollout.outcomes[0].status = RollStatus::UnderWay, "while a roll is under way");
    refused(|input| input.state.0 = vec![0; (64 << 10) + 1], "state");
    refused(|input| input.settings = json!([]), "settings");
}

#[test]
fn a_policy_of_another_kind_is_not_asked() {
    let error = WAVES.place(&support::input(1)).unwrap_err();
    assert!(matches!(error, PolicyError::OtherKind { is: Kind::Update, asked: Kind::Placement }), "{error}");
}

#[test]
fn settings_are_judged_by_the_policy() {
    let issues = WAVES.validate_settings(&json!({"waves": [50], "retry_seconds": 0})).unwrap_err();
    let paths: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
    assert_eq!(paths, ["/waves", "/retry_seconds"]);
    assert_eq!(
        WAVES.validate_settings(&json!({"canary": "5%", "windows": [{"from": "22:00", "to": "06:00"}]})),
        Ok(())
    );
}
