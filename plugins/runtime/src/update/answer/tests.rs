use super::*;
use crate::bindings::types;
use crate::instances::{Instance, InstanceColumns};
use crate::update::{Outcome, Rollout};
use ::types::Revision;

fn instance(index: usize, state: InstanceState, health: Health) -> Instance {
    Instance {
        name: format!("user-{index}/desktop"),
        version: if index == 9 { "2" } else { "1" }.to_owned(),
        state,
        health,
        ..Instance::default()
    }
}

/// Ten running instances, the last of them at the target; the one in row 1 is under way, that in row 2 no longer.
fn input(unavailable_max: u32) -> UpdateInput {
    let outcome = |row: usize, status| Outcome {
        instance: format!("user-{row}/desktop"),
        ordered_ms: 1,
        finished_ms: u64::from(status != RollStatus::UnderWay),
        status,
        detail: String::new(),
    };
    UpdateInput {
        decision_id: "d1".to_owned(),
        seed: 7,
        now_ms: 5,
        revision: Revision(3),
        settings: serde_json::Value::Null,
        rollout: Rollout {
            id: "r1".to_owned(),
            target: "2".to_owned(),
            unavailable_max,
            outcomes: vec![
                outcome(2, RollStatus::UnderWay),
                outcome(1, RollStatus::UnderWay),
                outcome(2, RollStatus::GivenUp),
            ],
            ..Rollout::default()
        },
        instances: (0..10).map(|index| instance(index, InstanceState::Running, Health::Healthy)).collect(),
        state: State::default(),
    }
}

fn roll(instance: u32) -> wire::Roll {
    wire::Roll { instance, soak: 0, checkpoint: true, reasons: vec![reason()] }
}

fn reason() -> types::Reason {
    types::Reason { code: "because".to_owned(), text: String::new(), weight: 0.0 }
}

fn plan(next: wire::Step) -> wire::Plan {
    wire::Plan { next, next_call: 1000, state: vec![1, 2] }
}

fn ordered(rows: &[u32], input: &UpdateInput) -> (Vec<String>, u32) {
    let rolls = rows.iter().map(|row| roll(*row)).collect();
    match check(plan(wire::Step::Proceed(rolls)), input).unwrap().step {
        Step::Proceed { rolls, cut } => (rolls.into_iter().map(|roll| roll.instance).collect(), cut),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(plan: wire::Plan, rule: &str) {
    let problem = check(plan, &input(10)).unwrap_err();
    assert!(problem.contains(rule), "{problem}");
}

#[test]
fn every_step_that_keeps_the_rules_is_a_plan() {
    let pause = wire::Pause { retry_after: WAIT_MS_MAX, reasons: vec![reason()] };
    let steps = [
        wire::Step::Proceed(vec![roll(0)]),
        wire::Step::Hold(pause),
        wire::Step::Halt(vec![reason()]),
        wire::Step::RollBack(vec![reason(); 32]),
        wire::Step::Complete(Vec::new()),
    ];
    for step in steps {
        let checked = check(plan(step), &input(10)).unwrap();
        assert_eq!((checked.next_call_ms, checked.state), (1000, State(vec![1, 2])));
    }
}

#[test]
fn rolls_that_cannot_be_are_refused() {
    refused(plan(wire::Step::Proceed(Vec::new())), "nobody rolls");
    refused(plan(wire::Step::Proceed(vec![roll(10)])), "no instance 10 of 10");
    refused(plan(wire::Step::Proceed(vec![roll(u32::MAX)])), "no instance");
    refused(plan(wire::Step::Proceed(vec![roll(3), roll(3)])), "proceed[1]: user-3/desktop rolls twice");
    refused(plan(wire::Step::Proceed(vec![roll(1)])), "is under way");
    refused(plan(wire::Step::Proceed(vec![roll(9)])), "runs 2 already");
    let long = wire::Roll { soak: WAIT_MS_MAX + 1, ..roll(0) };
    refused(plan(wire::Step::Proceed(vec![long])), "soak");
    let talkative = wire::Roll { reasons: vec![reason(); 33], ..roll(0) };
    refused(plan(wire::Step::Proceed(vec![talkative])), "33 are more than 32");
    refused(plan(wire::Step::Proceed(vec![roll(0); ROLLS_MAX + 1])), "1001 rolls are more than 1000");
}

#[test]
fn waits_reasons_and_state_have_bounds() {
    for wait in [0, WAIT_MS_MAX + 1, u64::MAX] {
        let pause = wire::Pause { retry_after: wait, reasons: vec![reason()] };
        refused(plan(wire::Step::Hold(pause)), "hold.retry-after");
        refused(wire::Plan { next_call: wait, ..plan(wire::Step::Complete(Vec::new())) }, "next-call");
    }
    refused(plan(wire::Step::Hold(wire::Pause { retry_after: 1, reasons: Vec::new() })), "there is none");
    refused(plan(wire::Step::Halt(Vec::new())), "there is none");
    refused(plan(wire::Step::RollBack(Vec::new())), "there is none");
    let nameless = types::Reason { code: "Not Kebab".to_owned(), ..reason() };
    refused(plan(wire::Step::Complete(vec![nameless])), "the code");
    let endless = types::Reason { weight: f64::NAN, ..reason() };
    refused(plan(wire::Step::Halt(vec![endless])), "not finite");
    let fat = wire::Plan { state: vec![0; STATE_BYTES_MAX + 1], ..plan(wire::Step::Complete(Vec::new())) };
    refused(fat, "state");
}

#[test]
fn a_plan_beyond_the_operators_bound_is_cut() {
    // One is down already: it is under way.
    assert_eq!(ordered(&[5, 0, 3], &input(4)), (names(&[5, 0, 3]), 0));
    assert_eq!(ordered(&[5, 0, 3], &input(3)), (names(&[5, 0]), 1));
    assert_eq!(ordered(&[5, 0, 3], &input(1)), (Vec::new(), 3));
}

#[test]
fn what_is_down_anyway_takes_no_room_and_what_is_stopped_on_purpose_is_not_down() {
    use Health::{Healthy, Unhealthy, Unknown};
    use InstanceState::{Failed, Running, Starting, Stopped, Unreachable, Waiting};
    let kinds = [
        (Running, Healthy),
        (Running, Healthy),
        (Stopped, Unknown),
        (Failed, Unknown),
        (Running, Unhealthy),
        (Unreachable, Healthy),
        (Starting, Unknown),
        (Waiting, Unknown),
    ];
    let rows = kinds.into_iter().enumerate();
    let instances: InstanceColumns =
        rows.map(|(index, (state, health))| instance(index, state, health)).collect();
    // Six are down: one is under way, five do not work.
    let asked =
        |most| ordered(&[0, 2, 3, 4, 5, 6, 7], &UpdateInput { instances: instances.clone(), ..input(most) });
    assert_eq!(asked(6), (names(&[3, 4, 5, 6, 7]), 2));
    assert_eq!(asked(7), (names(&[0, 3, 4, 5, 6, 7]), 1));
    assert_eq!(asked(8), (names(&[0, 2, 3, 4, 5, 6, 7]), 0));
}

fn names(rows: &[usize]) -> Vec<String> {
    rows.iter().map(|row| format!("user-{row}/desktop")).collect()
}
