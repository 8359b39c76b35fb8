use super::*;
use proptest::prelude::*;

const ID: &str = "11111111-2222-4333-8444-555555555555";

fn guest() -> Uuid {
    Uuid::from_u128(1)
}

fn named(source: bool) -> DesiredMove {
    let (to, from) = ("h2".parse().unwrap(), "h1".parse().unwrap());
    let end = if source {
        MoveEnd::Source { to, address: "10.99.0.2:4250".parse().unwrap() }
    } else {
        MoveEnd::Target { from }
    };
    DesiredMove {
        id: ID.into(),
        instance: "office/workspace".parse().unwrap(),
        incarnation: guest().to_string(),
        end,
        stop: false,
    }
}

fn held(source: bool, stage: Stage) -> BTreeMap<String, Held> {
    [(ID.to_owned(), Held::new(named(source), stage))].into()
}

fn seen(source: bool, stage: Option<Stage>, standing: Option<Standing>) -> Seen {
    Seen {
        named: vec![named(source)],
        held: stage.map(|stage| held(source, stage)).unwrap_or_default(),
        standing: [(guest(), standing)].into(),
        wanted: [guest()].into(),
        ..Seen::default()
    }
}

fn under_way() -> BTreeMap<String, MigrationProgress> {
    [(ID.to_owned(), MigrationProgress { sent_bytes: 3, total_bytes: 9, downtime_ms: 0 })].into()
}

fn says(plan: &Plan) -> MoveState {
    plan.statuses[0].state
}

#[test]
fn a_source_begins_once_and_says_what_libvirt_says() {
    let first = plan(&seen(true, None, Some(Standing::Here)));
    assert_eq!(first.steps, [Step::Begin(named(true))]);
    assert!(first.alone.contains(&guest()));
    let mut going = seen(true, Some(Stage::Moving), Some(Standing::Here));
    going.under_way = under_way();
    let going = plan(&going);
    assert_eq!((going.steps.len(), says(&going), going.statuses[0].sent_bytes), (0, MoveState::Moving, 3));
    let back = plan(&seen(true, Some(Stage::Moving), Some(Standing::Here)));
    assert!(matches!(&back.steps[..], [Step::Keep(Held { stage: Stage::Failed, .. })]));
    assert_eq!(says(&back), MoveState::Failed);
    let gone = plan(&seen(true, Some(Stage::Moving), None));
    assert!(matches!(&gone.steps[..], [Step::Keep(Held { stage: Stage::Done, .. })]));
    assert_eq!(says(&gone), MoveState::Done);
    let off = plan(&seen(true, None, Some(Standing::Stopped)));
    assert_eq!((off.steps.len(), says(&off)), (0, MoveState::Failed));
}

#[test]
fn a_source_whose_guest_stands_still_does_nothing_until_it_is_released() {
    for standing in [Standing::Between, Standing::Stopped] {
        let still = plan(&seen(true, Some(Stage::Moving), Some(standing)));
        assert!(still.steps.is_empty() && still.alone.contains(&guest()));
        assert!(still.statuses[0].reason.is_some() && says(&still) == MoveState::Moving);
    }
    let mut released = seen(true, Some(Stage::Moving), Some(Standing::Between));
    released.named.clear();
    assert_eq!(plan(&released).steps, [Step::Resume(guest())]);
    released.wanted.clear();
    assert_eq!(plan(&released).steps, [Step::Forget(ID.into())]);
    // Not knowing is no leave.
    released.standing.clear();
    released.wanted = [guest()].into();
    assert!(plan(&released).steps.is_empty() && plan(&released).alone.contains(&guest()));
}

#[test]
fn a_guest_that_has_left_is_not_started_again_while_the_controller_does_not_know() {
    let mut left = seen(true, Some(Stage::Done), None);
    left.named.clear();
    let here = plan(&left);
    assert!(here.steps.is_empty() && here.alone.contains(&guest()) && says(&here) == MoveState::Done);
    left.wanted.clear();
    assert_eq!(plan(&left).steps, [Step::Forget(ID.into())]);
}

#[test]
fn a_source_that_is_told_to_stop_stops_and_says_so() {
    let mut going = seen(true, Some(Stage::Moving), Some(Standing::Here));
    going.named[0].stop = true;
    going.under_way = under_way();
    assert_eq!(plan(&going).steps, [Step::Abort(ID.into(), guest())]);
    going.under_way.clear();
    assert_eq!(says(&plan(&going)), MoveState::Failed);
    let mut never = seen(true, None, Some(Standing::Here));
    never.named[0].stop = true;
    assert!(plan(&never).steps.is_empty() && says(&plan(&never)) == MoveState::Failed);
}

#[test]
fn a_target_is_prepared_when_nothing_is_waited_for_and_has_what_libvirt_defined() {
    assert_eq!(plan(&seen(false, None, None)).steps, [Step::Expect(named(false))]);
    let mut waits = seen(false, Some(Stage::Expected), None);
    assert_eq!(says(&plan(&waits)), MoveState::Prepared);
    waits.waits = [(guest(), "its image is not exported yet".to_owned())].into();
    assert_eq!(says(&plan(&waits)), MoveState::Preparing);
    assert_eq!(says(&plan(&seen(false, Some(Stage::Expected), Some(Standing::Between)))), MoveState::Moving);
    // It came, and ended by itself before anybody looked.
    for standing in [Standing::Here, Standing::Stopped] {
        let come = plan(&seen(false, Some(Stage::Expected), Some(standing)));
        assert!(matches!(&come.steps[..], [Step::Arrived(_)]) && come.arrived.contains(&guest()));
        assert_eq!(says(&come), MoveState::Done);
    }
    let mut over = seen(false, Some(Stage::Done), Some(Standing::Here));
    over.named.clear();
    assert_eq!(plan(&over).steps, [Step::Forget(ID.into())]);
}

#[test]
fn without_libvirts_word_nothing_is_begun_resumed_or_forgotten() {
    for (source, stage) in [(true, Stage::Moving), (false, Stage::Expected)] {
        let mut blind = seen(source, Some(stage), None);
        blind.standing.clear();
        let blind = plan(&blind);
        assert!(blind.steps.is_empty() && blind.alone.contains(&guest()));
    }
}

fn standing() -> impl Strategy<Value = Option<Option<Standing>>> {
    prop_oneof![
        Just(None),
        Just(Some(None)),
        Just(Some(Some(Standing::Here))),
        Just(Some(Some(Standing::Between))),
        Just(Some(Some(Standing::Stopped))),
    ]
}

proptest! {
    // A guest that may be elsewhere is left alone by all else, and resumed here only by a source that is no end any more.
    #[test]
    fn what_may_run_elsewhere_is_left_alone(
        source: bool,
        is_named: bool,
        stop: bool,
        task: bool,
        wanted: bool,
        stage in prop::sample::select(vec![
            None, Some(Stage::Expected), Some(Stage::Moving), Some(Stage::Done), Some(Stage::Failed),
        ]),
        standing in standing(),
    ) {
        let mut seen = seen(source, stage, None);
        seen.standing = standing.map(|standing| (guest(), standing)).into_iter().collect();
        seen.named[0].stop = stop;
        if !is_named {
            seen.named.clear();
        }
        if !wanted {
            seen.wanted.clear();
        }
        if task && stage == Some(Stage::Moving) {
            seen.under_way = under_way();
        }
        let plan = plan(&seen);
        let resumes = plan.steps.contains(&Step::Resume(guest()));
        let is_under_way = task && stage == Some(Stage::Moving);
        prop_assert!(!resumes || (!is_named && !is_under_way && source));
        let may_be_elsewhere = source && stage == Some(Stage::Moving) && standing != Some(Some(Standing::Here));
        if (may_be_elsewhere && is_named) || (source && stage == Some(Stage::Done) && wanted) {
            prop_assert!(plan.alone.contains(&guest()));
        }
        if !source && is_named {
            prop_assert!(plan.alone.contains(&guest()));
        }
        let begins = plan.steps.iter().any(|step| matches!(step, Step::Begin(_)));
        prop_assert!(!begins || (stage.is_none() && !stop && standing == Some(Some(Standing::Here))));
    }
}
