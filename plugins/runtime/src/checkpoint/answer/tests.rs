use super::*;
use crate::bindings::types;
use crate::checkpoint::Checkpoint;

/// Three checkpoints; the second is pinned.
fn checkpoints() -> CheckpointColumns {
    let row = |index| Checkpoint {
        name: format!("c{index}"),
        taken_ms: index,
        pinned: index == 1,
        ..Checkpoint::default()
    };
    (0..3).map(row).collect()
}

fn reason() -> types::Reason {
    types::Reason { code: "because".to_owned(), text: String::new(), weight: 0.0 }
}

fn take() -> wire::Take {
    wire::Take { with_memory: true, pause_max: 60_000, reasons: vec![reason()] }
}

fn discard(checkpoint: u32) -> wire::Discard {
    wire::Discard { checkpoint, reasons: vec![reason()] }
}

fn plan() -> wire::Plan {
    let discards = vec![discard(2), discard(0)];
    wire::Plan { take: Some(take()), discards, next_call: WAIT_MS_MAX, state: vec![7] }
}

#[track_caller]
fn refused(plan: wire::Plan, rule: &str) {
    let problem = check(plan, &checkpoints()).unwrap_err();
    assert!(problem.contains(rule), "{problem}");
}

#[test]
fn a_plan_that_keeps_the_rules_names_its_checkpoints() {
    let checked = check(plan(), &checkpoints()).unwrap();
    let dropped: Vec<_> = checked.discards.iter().map(|discard| discard.checkpoint.as_str()).collect();
    assert_eq!((dropped, checked.next_call_ms), (vec!["c2", "c0"], WAIT_MS_MAX));
    assert!(checked.take.is_some_and(|take| take.with_memory && take.pause_max_ms == 60_000));
    let nothing = wire::Plan { take: None, discards: Vec::new(), next_call: 1, state: Vec::new() };
    assert_eq!(check(nothing, &CheckpointColumns::default()).unwrap().next_call_ms, 1);
}

#[test]
fn discards_that_cannot_be_are_refused() {
    let with = |discards| wire::Plan { discards, ..plan() };
    refused(with(vec![discard(3)]), "no checkpoint 3 of 3");
    refused(with(vec![discard(u32::MAX)]), "no checkpoint");
    refused(with(vec![discard(0), discard(0)]), "discards[1]: c0 is dropped twice");
    refused(with(vec![discard(1)]), "c1 is pinned");
    refused(with(vec![wire::Discard { checkpoint: 0, reasons: Vec::new() }]), "there is none");
    refused(with(vec![wire::Discard { checkpoint: 0, reasons: vec![reason(); 33] }]), "33 are more");
}

#[test]
fn pauses_waits_reasons_and_state_have_bounds() {
    for pause_max in [0, PAUSE_MS_MAX + 1, u64::MAX] {
        refused(wire::Plan { take: Some(wire::Take { pause_max, ..take() }), ..plan() }, "take.pause-max");
    }
    for next_call in [0, WAIT_MS_MAX + 1, u64::MAX] {
        refused(wire::Plan { next_call, ..plan() }, "next-call");
    }
    let silent = wire::Take { reasons: Vec::new(), ..take() };
    refused(wire::Plan { take: Some(silent), ..plan() }, "take: reasons: there is none");
    refused(wire::Plan { state: vec![0; STATE_BYTES_MAX + 1], ..plan() }, "state");
}
