use super::*;
use plugins_sdk::instances::{Fleet as Rows, Instance, health, state};
use plugins_sdk::update::{Outcome, Roll, Status};
use serde_json::json;

mod simulation;

/// 2026-11-20 12:00 UTC, a Friday.
const NOON_MS: u64 = 1_795_176_000_000;
const MINUTE_MS: u64 = 60_000;

/// That many desktops of the old version, each a deployment and a host of its own.
fn desktops(count: usize) -> Vec<Instance> {
    let desktop = |index| Instance {
        deployment: format!("user-{index:03}"),
        member: "desktop".to_owned(),
        host: format!("host-{index:03}"),
        site: "lyon".to_owned(),
        appliance: "acme/desktop".to_owned(),
        version: "1.0.0".to_owned(),
        state: state::RUNNING,
        health: health::HEALTHY,
        ..Instance::default()
    };
    (0..count).map(desktop).collect()
}

fn rollout() -> Rollout {
    Rollout {
        id: "r1".to_owned(),
        appliance: "acme/desktop".to_owned(),
        channel: "stable".to_owned(),
        target: "2.0.0".to_owned(),
        started_ms: NOON_MS,
        unavailable_max: 1000,
        ..Rollout::default()
    }
}

fn outcome(row: u32, status: Status, finished_ms: u64) -> Outcome {
    let instance = format!("user-{row:03}/desktop");
    Outcome { instance, row: Some(row), ordered_ms: NOON_MS, finished_ms, status, detail: String::new() }
}

fn settings(value: serde_json::Value) -> Settings {
    let settings: Settings = serde_json::from_value(value).unwrap();
    assert_eq!(Waves::check_settings(&settings), []);
    settings
}

fn step_at(now_ms: u64, settings: &Settings, rollout: &Rollout, rows: Vec<Instance>) -> Step {
    let fleet = Rows::new(now_ms, rows);
    Waves::next_step(settings, rollout, &fleet, &fleet, &[]).unwrap().next
}

fn step(settings: &Settings, rollout: &Rollout, rows: Vec<Instance>) -> Step {
    step_at(NOON_MS + 60 * MINUTE_MS, settings, rollout, rows)
}

fn rolls(step: Step) -> Vec<Roll> {
    match step {
        Step::Proceed(rolls) => rolls,
        other => panic!("{other:?}"),
    }
}

fn codes(step: Step) -> (&'static str, Vec<String>) {
    let (kind, reasons) = match step {
        Step::Proceed(_) => ("proceed", Vec::new()),
        Step::Hold { reasons, .. } => ("hold", reasons),
        Step::Halt(reasons) => ("halt", reasons),
        Step::RollBack(reasons) => ("roll-back", reasons),
        Step::Complete(reasons) => ("complete", reasons),
    };
    (kind, reasons.into_iter().map(|reason| reason.code).collect())
}

/// The fleet after these outcomes: who succeeded runs the target.
fn after(count: usize, outcomes: &[Outcome]) -> Vec<Instance> {
    let mut rows = desktops(count);
    for outcome in outcomes.iter().filter(|outcome| outcome.status == Status::Succeeded) {
        rows[outcome.row.unwrap() as usize].version = "2.0.0".to_owned();
    }
    rows
}

#[test]
fn the_canary_goes_first_and_soaks_longer() {
    let first = rolls(step(&Settings::default(), &rollout(), desktops(10)));
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].soak_ms, first[0].checkpoint), (30 * MINUTE_MS, true));
    assert_eq!(first[0].reasons[0].code, "canary");
}

#[test]
fn a_share_of_the_fleet_can_be_the_canary() {
    let settings = settings(json!({"canary": "20%", "unavailable_percent_max": 100}));
    assert_eq!(rolls(step(&settings, &rollout(), desktops(11))).len(), 3);
}

#[test]
fn pilots_are_the_canary() {
    let settings =
        settings(json!({"canary": 2, "pilots": ["user-007", "user-003/desktop", "user-004/other", "x"]}));
    let mut rows: Vec<_> =
        rolls(step(&settings, &rollout(), desktops(10))).iter().map(|roll| roll.instance).collect();
    rows.sort_unstable();
    assert_eq!(rows, [3, 7]);
}

#[test]
fn another_rollout_has_another_canary() {
    let canary = |id: &str| {
        let rollout = Rollout { id: id.to_owned(), ..rollout() };
        rolls(step(&Settings::default(), &rollout, desktops(50)))[0].instance
    };
    let chosen: std::collections::BTreeSet<_> = (0..50).map(|id| canary(&format!("r{id}"))).collect();
    assert!(chosen.len() > 20, "{chosen:?}");
    assert_eq!(canary("r1"), canary("r1"));
}

#[test]
fn nobody_rolls_while_the_canary_soaks() {
    let rollout = Rollout { outcomes: vec![outcome(3, Status::UnderWay, 0)], ..rollout() };
    let (kind, codes) = codes(step(&Settings::default(), &rollout, desktops(10)));
    assert_eq!((kind, codes), ("hold", vec!["stage-under-way".to_owned()]));
}

#[test]
fn a_failed_canary_rolls_back_or_halts() {
    for status in [Status::Failed, Status::RolledBack] {
        let rollout = Rollout { outcomes: vec![outcome(3, status, NOON_MS + 1)], ..rollout() };
        let asked = |settings: &Settings| codes(step(settings, &rollout, desktops(10)));
        let expected = vec!["canary-failed".to_owned()];
        assert_eq!(asked(&Settings::default()), ("roll-back", expected.clone()));
        assert_eq!(asked(&settings(json!({"on_canary_failure": "halt"}))), ("halt", expected));
    }
}

#[test]
fn a_canary_that_becomes_unwell_after_its_soak_is_a_failed_one() {
    let outcomes = vec![outcome(3, Status::Succeeded, NOON_MS + 1)];
    let mut rows = after(10, &outcomes);
    rows[3].health = health::UNHEALTHY;
    let rollout = Rollout { outcomes, ..rollout() };
    assert_eq!(
        codes(step(&Settings::default(), &rollout, rows)),
        ("roll-back", vec!["too-many-unwell".to_owned()])
    );
}

#[test]
fn waves_grow_as_the_settings_say() {
    let settings = settings(json!({"waves": [20, 50, 100], "unavailable_percent_max": 100}));
    let mut outcomes = Vec::new();
    let mut sizes = Vec::new();
    while outcomes.len() < 10 {
        let rollout = Rollout { outcomes: outcomes.clone(), ..rollout() };
        let rolls = rolls(step(&settings, &rollout, after(10, &outcomes)));
        sizes.push(rolls.len());
        outcomes.extend(rolls.iter().map(|roll| outcome(roll.instance, Status::Succeeded, NOON_MS + 1)));
    }
    assert_eq!(sizes, [1, 1, 3, 5]);
    let rollout = Rollout { outcomes: outcomes.clone(), ..rollout() };
    assert_eq!(
        codes(step(&settings, &rollout, after(10, &outcomes))),
        ("complete", vec!["nobody-left".to_owned()])
    );
}

#[test]
fn a_pause_lies_between_stages_and_not_within_one() {
    let settings = settings(json!({"pause_minutes": 120, "waves": [50, 100], "unavailable_percent_max": 10}));
    let mut outcomes = vec![outcome(0, Status::Succeeded, NOON_MS)];
    let ask = |now_ms, outcomes: &Vec<Outcome>| {
        let rollout = Rollout { outcomes: outcomes.clone(), ..rollout() };
        step_at(now_ms, &settings, &rollout, after(10, outcomes))
    };
    let Step::Hold { retry_after_ms, reasons } = ask(NOON_MS + 60 * MINUTE_MS, &outcomes) else { panic!() };
    assert_eq!((retry_after_ms, reasons[0].code.as_str()), (60 * MINUTE_MS, "pause"));
    assert_eq!(rolls(ask(NOON_MS + 120 * MINUTE_MS, &outcomes)).len(), 1);
    outcomes.push(outcome(1, Status::Succeeded, NOON_MS + 130 * MINUTE_MS));
    assert_eq!(rolls(ask(NOON_MS + 131 * MINUTE_MS, &outcomes)).len(), 1);
}

#[test]
fn too_many_failures_halt_until_an_operator_lets_it_go_on() {
    let mut outcomes: Vec<_> = (0..8).map(|row| outcome(row, Status::Succeeded, NOON_MS + 1)).collect();
    outcomes.push(outcome(8, Status::Failed, NOON_MS + 2));
    let mut rollout = Rollout { outcomes: outcomes.clone(), ..rollout() };
    let halted = codes(step(&Settings::default(), &rollout, after(30, &outcomes)));
    assert_eq!(halted, ("halt", vec!["too-many-failed".to_owned()]));
    let lenient = settings(json!({"failed_percent_max": 12}));
    assert_eq!(codes(step(&lenient, &rollout, after(30, &outcomes))).0, "proceed");
    rollout.attributes.push(("collective/resumed".to_owned(), (NOON_MS + 2).to_string()));
    let next = rolls(step(&Settings::default(), &rollout, after(30, &outcomes)));
    assert!(!next.is_empty() && next.iter().all(|roll| roll.instance != 8), "{next:?}");
}

#[test]
fn outside_of_windows_nobody_rolls_and_the_next_call_is_when_one_opens() {
    let settings = settings(json!({
        "windows": [{"days": ["fri"], "from": "22:00", "to": "06:00"}], "utc_offset": "+01:00",
    }));
    let ask = |now_ms| step_at(now_ms, &settings, &rollout(), desktops(10));
    let Step::Hold { retry_after_ms, reasons } = ask(NOON_MS) else { panic!() };
    assert_eq!((retry_after_ms, reasons[0].code.as_str()), (9 * 60 * MINUTE_MS, "window-closed"));
    assert!(reasons[0].text.ends_with("fri 22:00"), "{reasons:?}");
    assert_eq!(rolls(ask(NOON_MS + retry_after_ms)).len(), 1);
    assert_eq!(rolls(ask(NOON_MS + 17 * 60 * MINUTE_MS - 1)).len(), 1);
    assert_eq!(codes(ask(NOON_MS + 17 * 60 * MINUTE_MS)).0, "hold");
}

#[test]
fn members_of_one_deployment_take_turns() {
    let settings = settings(json!({"canary": 0, "waves": [100], "unavailable_percent_max": 100}));
    let mut rows = desktops(6);
    for (index, row) in rows.iter_mut().enumerate() {
        row.deployment = format!("team-{}", index / 3);
        row.member = format!("member-{}", index % 3);
    }
    let names = |roll: &Roll| rows[roll.instance as usize].deployment.clone();
    let rolls = rolls(step(&settings, &rollout(), rows.clone()));
    let deployments: Vec<_> = rolls.iter().map(names).collect();
    assert!(deployments.len() == 2 && deployments[0] != deployments[1], "{deployments:?}");
}

#[test]
fn hosts_and_sites_have_bounds_that_count_what_is_under_way() {
    let settings = settings(json!({
        "canary": 0, "waves": [100], "unavailable_percent_max": 100, "per_host_max": 0, "per_site_max": 3,
    }));
    let rollout = Rollout { outcomes: vec![outcome(0, Status::UnderWay, 0)], ..rollout() };
    assert_eq!(rolls(step(&settings, &rollout, desktops(10))).len(), 2);
}

#[test]
fn what_is_down_anyway_counts_and_may_roll() {
    let settings =
        settings(json!({"canary": 0, "waves": [100], "unavailable_percent_max": 100, "per_host_max": 0}));
    let mut rows = desktops(10);
    rows[4].state = state::FAILED;
    rows[5].state = state::UNREACHABLE;
    let rollout = Rollout { unavailable_max: 2, ..rollout() };
    let rolls = rolls(step(&settings, &rollout, rows));
    assert_eq!(rolls.iter().map(|roll| roll.instance).collect::<Vec<_>>(), [4]);
}

#[test]
fn states_that_are_not_known_are_not_eligible() {
    let mut rows = desktops(2);
    rows[0].state = 77;
    rows[1].health = 77;
    let (kind, codes) = codes(step(&Settings::default(), &rollout(), rows));
    assert_eq!((kind, codes), ("hold", vec!["not-ready".to_owned()]));
}

#[test]
fn stopped_instances_roll_last_or_are_left_alone() {
    let mut rows = desktops(3);
    rows[0].state = state::STOPPED;
    rows[1].version = "2.0.0".to_owned();
    rows[2].version = "2.0.0".to_owned();
    let last = rolls(step(&Settings::default(), &rollout(), rows.clone()));
    assert_eq!((last[0].instance, last[0].soak_ms), (0, 0));
    let left = codes(step(&settings(json!({"stopped": "leave"})), &rollout(), rows));
    assert_eq!(left, ("complete", vec!["nobody-left".to_owned(), "left-stopped".to_owned()]));
}

#[test]
fn a_roll_whose_instance_is_gone_holds_nothing_up() {
    let gone = Outcome { row: None, ..outcome(99, Status::UnderWay, 0) };
    let rollout = Rollout { outcomes: vec![gone], ..rollout() };
    assert_eq!(rolls(step(&Settings::default(), &rollout, desktops(10))).len(), 1);
}

#[test]
fn no_instances_is_complete() {
    assert_eq!(codes(step(&Settings::default(), &rollout(), Vec::new())).0, "complete");
}

#[test]
fn settings_have_the_defaults_of_their_schema() {
    let schema: serde_json::Value = serde_json::from_str(Waves::manifest().settings_schema).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let defaults: serde_json::Map<_, _> =
        properties.iter().map(|(name, property)| (name.clone(), property["default"].clone())).collect();
    assert_eq!(serde_json::from_value::<Settings>(defaults.into()).unwrap(), Settings::default());
    assert_eq!(Waves::check_settings(&Settings::default()), []);
}

#[test]
fn settings_out_of_range_are_refused_with_their_path() {
    let given = json!({
        "waves": [50, 20], "failed_percent_max": 101, "soak_minutes": 1441, "retry_seconds": 0,
        "windows": [{"days": [], "from": "01:00", "to": "02:00"}], "window_tail_minutes": 60,
    });
    let settings: Settings = serde_json::from_value(given).unwrap();
    let paths: Vec<_> = Waves::check_settings(&settings).into_iter().map(|issue| issue.path).collect();
    let expected =
        ["/waves", "/failed_percent_max", "/soak_minutes", "/retry_seconds", "/windows/0/days", "/windows/0"];
    assert_eq!(paths, expected);
    for wrong in
        [json!({"canary": "many"}), json!({"canary": -1}), json!({"canary": "101%"}), json!({"wave": []})]
    {
        assert!(serde_json::from_value::<Settings>(wrong.clone()).is_err(), "{wrong}");
    }
}
