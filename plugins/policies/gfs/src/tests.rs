use super::*;
use plugins_sdk::checkpoint::{Checkpoint, History, cause, verified};
use plugins_sdk::instances::{Fleet, Instance, health, state};
use serde_json::json;

mod properties;

/// 2026-11-20 12:00 UTC, a Friday.
const NOON_MS: u64 = 1_795_176_000_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const GIB: u64 = 1 << 30;

fn settings(value: serde_json::Value) -> Settings {
    let settings: Settings = serde_json::from_value(value).unwrap();
    assert_eq!(Gfs::check_settings(&settings), []);
    settings
}

fn subject() -> Subject {
    Subject { deployment: "office".to_owned(), created_ms: NOON_MS - 400 * DAY_MS, ..Subject::default() }
}

fn desktop(dirty_bytes: u64) -> Instance {
    Instance {
        deployment: "office".to_owned(),
        member: "desktop".to_owned(),
        host: "host-1".to_owned(),
        state: state::RUNNING,
        health: health::HEALTHY,
        memory_bytes: 4 * GIB,
        dirty_bytes,
        ..Instance::default()
    }
}

fn checkpoint(age_ms: u64) -> Checkpoint {
    Checkpoint {
        name: format!("c{age_ms}"),
        taken_ms: NOON_MS - age_ms,
        size_bytes: GIB,
        ..Checkpoint::default()
    }
}

fn ask(settings: &Settings, subject: &Subject, rows: Vec<Instance>, history: &History, state: &[u8]) -> Plan {
    let fleet = Fleet::new(NOON_MS, rows);
    Gfs::schedule(settings, subject, &fleet, history, &fleet, state).unwrap()
}

/// The plan for one desktop.
fn plan(given: serde_json::Value, dirty_bytes: u64, checkpoints: Vec<Checkpoint>) -> Plan {
    let used_bytes = checkpoints.iter().map(|checkpoint| checkpoint.size_bytes).sum();
    let subject = Subject { used_bytes, ..subject() };
    ask(&settings(given), &subject, vec![desktop(dirty_bytes)], &History::new(checkpoints), &[])
}

fn dropped(plan: &Plan) -> Vec<(u32, &str)> {
    plan.discards.iter().map(|discard| (discard.checkpoint, discard.reasons[0].code.as_str())).collect()
}

fn why(plan: &Plan) -> Option<&str> {
    plan.take.as_ref().map(|take| take.reasons[0].code.as_str())
}

#[test]
fn what_was_written_makes_a_checkpoint_due() {
    assert_eq!(why(&plan(json!({}), GIB, vec![checkpoint(HOUR_MS)])), Some("much-written"));
    assert_eq!(why(&plan(json!({}), GIB - 1, vec![checkpoint(HOUR_MS)])), None);
}

#[test]
fn the_interval_has_a_lower_and_an_upper_bound() {
    let young = plan(json!({}), 100 * GIB, vec![checkpoint(10 * MINUTE_MS)]);
    assert_eq!((why(&young), young.next_call_ms), (None, 5 * MINUTE_MS));
    assert_eq!(why(&plan(json!({}), 0, vec![checkpoint(DAY_MS - 1)])), None);
    assert_eq!(why(&plan(json!({}), 0, vec![checkpoint(DAY_MS)])), Some("interval-over"));
}

#[test]
fn a_deployment_without_a_good_checkpoint_gets_one() {
    assert_eq!(why(&plan(json!({}), 0, Vec::new())), Some("first"));
    let damaged = Checkpoint { verified: verified::DAMAGED, ..checkpoint(HOUR_MS) };
    assert_eq!(why(&plan(json!({}), 0, vec![damaged])), Some("first"));
}

#[test]
fn more_dirt_is_asked_about_sooner() {
    let history = History::new(vec![checkpoint(HOUR_MS)]);
    let next_call = |before: u64| {
        let remembered =
            Remembered { sampled_ms: NOON_MS - HOUR_MS, dirty_bytes: before, ..Remembered::default() };
        let state = remembered.write();
        ask(&Settings::default(), &subject(), vec![desktop(GIB - (1 << 25))], &history, &state).next_call_ms
    };
    // The same is dirty; it came within the hour, or most of it before.
    let (fast, slow) = (next_call(0), next_call(GIB - (1 << 26)));
    assert!(fast < slow && slow <= 15 * MINUTE_MS, "{fast} {slow}");
}

#[test]
fn one_that_was_ordered_is_not_ordered_again_at_once() {
    let history = History::new(vec![checkpoint(HOUR_MS)]);
    let first = ask(&Settings::default(), &subject(), vec![desktop(GIB)], &history, &[]);
    assert!(first.take.is_some());
    let second = ask(&Settings::default(), &subject(), vec![desktop(GIB)], &history, &first.state);
    assert_eq!((why(&second), second.next_call_ms), (None, 15 * MINUTE_MS));
    let remembered = Remembered { ordered_ms: NOON_MS - 15 * MINUTE_MS, ..Remembered::default() };
    let late = ask(&Settings::default(), &subject(), vec![desktop(GIB)], &history, &remembered.write());
    assert!(late.take.is_some());
}

#[test]
fn state_of_another_version_is_begun_anew() {
    let history = History::new(vec![checkpoint(HOUR_MS)]);
    let with = |state: &[u8]| ask(&Settings::default(), &subject(), vec![desktop(GIB)], &history, state);
    assert_eq!(with(b"\xff nonsense"), with(b""));
}

#[test]
fn what_does_not_run_and_was_not_written_needs_none() {
    let stopped = |dirty_bytes| Instance { state: state::STOPPED, ..desktop(dirty_bytes) };
    let history = History::new(vec![checkpoint(10 * DAY_MS)]);
    let with = |rows| ask(&Settings::default(), &subject(), rows, &history, &[]);
    assert_eq!(why(&with(vec![stopped(0)])), None);
    assert_eq!(why(&with(vec![stopped(1)])), Some("interval-over"));
    assert_eq!(why(&with(Vec::new())), None);
}

#[test]
fn instances_on_their_way_or_out_of_reach_put_it_off() {
    for code in [state::STARTING, state::UNREACHABLE, 77] {
        let other = Instance { member: "db".to_owned(), state: code, ..desktop(0) };
        let plan = ask(&Settings::default(), &subject(), vec![desktop(GIB), other], &History::default(), &[]);
        assert_eq!(plan.take, None, "{code}");
    }
}

#[test]
fn memory_is_held_unless_a_guest_is_unwell() {
    let settings = settings(json!({"with_memory": true}));
    let take = |rows| ask(&settings, &subject(), rows, &History::default(), &[]).take.unwrap();
    assert!(take(vec![desktop(GIB)]).with_memory);
    assert!(!take(vec![Instance { health: health::UNHEALTHY, ..desktop(GIB) }]).with_memory);
    assert!(!take(vec![Instance { state: state::STOPPED, ..desktop(GIB) }]).with_memory);
}

#[test]
fn the_newest_of_each_day_is_kept() {
    let checkpoints: Vec<_> = (0..8).map(|index| checkpoint(index * 12 * HOUR_MS)).collect();
    let plan = plan(
        json!({"keep": {"last": 0, "hourly": 0, "daily": 3, "weekly": 0, "monthly": 0, "yearly": 0}}),
        0,
        checkpoints,
    );
    // Noons and midnights, oldest first: rows 0 to 7. The noons of the last three days stay.
    let rows: Vec<_> = dropped(&plan).into_iter().map(|(row, _)| row).collect();
    assert_eq!(rows, [0, 1, 2, 4, 6]);
}

#[test]
fn days_are_local_days() {
    // 23:30 and 00:30 UTC are one day in Lyon.
    let checkpoints =
        vec![checkpoint(36 * HOUR_MS + HOUR_MS / 2), checkpoint(35 * HOUR_MS + HOUR_MS / 2), checkpoint(0)];
    let keep = json!({"last": 0, "hourly": 0, "daily": 9, "weekly": 0, "monthly": 0, "yearly": 0});
    let with = |offset| plan(json!({"keep": keep, "utc_offset": offset}), 0, checkpoints.clone());
    assert_eq!(dropped(&with("Z")), []);
    assert_eq!(dropped(&with("+01:00")), [(0, "not-wanted")]);
}

#[test]
fn pinned_ones_those_of_people_and_recent_ones_of_updates_stay() {
    let old = |cause| Checkpoint { name: format!("of-{cause}"), cause, ..checkpoint(300 * DAY_MS) };
    let pinned = Checkpoint { name: "pinned".to_owned(), pinned: true, ..checkpoint(301 * DAY_MS) };
    let recent = Checkpoint { name: "recent".to_owned(), cause: cause::UPDATE, ..checkpoint(13 * DAY_MS) };
    let checkpoints = vec![
        pinned,
        old(cause::POLICY),
        old(cause::PERSON),
        old(cause::UPDATE),
        old(9),
        recent,
        checkpoint(0),
    ];
    let keep = json!({"last": 1, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0});
    // Equal instants are in the order of their names: of-0, of-1, of-2, of-9 are rows 1 to 4.
    assert_eq!(
        dropped(&plan(json!({"keep": keep}), 0, checkpoints.clone())),
        [(1, "not-wanted"), (3, "not-wanted")]
    );
    let aged = plan(json!({"keep": keep, "manual": "age"}), 0, checkpoints);
    assert_eq!(dropped(&aged), [(1, "not-wanted"), (2, "not-wanted"), (3, "not-wanted")]);
}

#[test]
fn damaged_ones_count_for_no_rule_and_go() {
    let damaged = Checkpoint { verified: verified::DAMAGED, ..checkpoint(0) };
    let plan = plan(json!({"keep": {"last": 1}}), 0, vec![checkpoint(HOUR_MS), damaged]);
    assert_eq!(dropped(&plan), [(1, "damaged")]);
}

#[test]
fn a_short_quota_costs_fine_steps_before_coarse_ones() {
    // Monthly, daily, two hourly ones, and the newest.
    let ages = [60 * DAY_MS, 2 * DAY_MS, 3 * HOUR_MS, 2 * HOUR_MS, HOUR_MS];
    let checkpoints: Vec<_> = ages.into_iter().map(checkpoint).collect();
    let history = History::new(checkpoints);
    let keep = json!({"last": 1, "hourly": 9, "daily": 2, "weekly": 0, "monthly": 2, "yearly": 0});
    let with_quota = |gib: u64, pinned_newest: bool| {
        let mut rows = history.rows().to_vec();
        rows[4].pinned = pinned_newest;
        let subject = Subject { used_bytes: 5 * GIB, quota_bytes: gib * GIB, ..subject() };
        ask(&settings(json!({"keep": keep})), &subject, vec![desktop(GIB)], &History::new(rows), &[])
    };
    let rows = |plan: Plan| plan.discards.iter().map(|discard| discard.checkpoint).collect::<Vec<_>>();
    assert_eq!(rows(with_quota(6, false)), [] as [u32; 0]);
    assert_eq!(rows(with_quota(5, false)), [2]);
    assert_eq!(rows(with_quota(4, true)), [2, 3]);
    assert_eq!(rows(with_quota(3, false)), [2, 3, 1]);
    assert_eq!(rows(with_quota(2, false)), [2, 3, 1, 0]);
    assert!(with_quota(2, false).take.is_some());
    let hopeless = with_quota(1, false);
    // Nothing is taken, and what is there already is brought within the quota.
    assert_eq!((hopeless.take.clone(), rows(hopeless)), (None, vec![2, 3, 1, 0]));
}

#[test]
fn settings_have_the_defaults_of_their_schema() {
    let schema: serde_json::Value = serde_json::from_str(Gfs::manifest().settings_schema).unwrap();
    let defaults = |schema: &serde_json::Value| -> serde_json::Map<_, _> {
        let properties = schema["properties"].as_object().unwrap().iter();
        properties.map(|(name, property)| (name.clone(), property["default"].clone())).collect()
    };
    let mut given = defaults(&schema);
    given["keep"] = defaults(&schema["properties"]["keep"]).into();
    assert_eq!(serde_json::from_value::<Settings>(given.into()).unwrap(), Settings::default());
    assert_eq!(Gfs::check_settings(&Settings::default()), []);
}

#[test]
fn settings_out_of_range_are_refused_with_their_path() {
    let given = json!({
        "dirty_bytes": 0, "interval_minutes_min": 0, "interval_minutes_max": 99999, "keep": {"daily": 1001},
        "update_days": 4000, "pause_max_ms": 0,
    });
    let settings: Settings = serde_json::from_value(given).unwrap();
    let paths: Vec<_> = Gfs::check_settings(&settings).into_iter().map(|issue| issue.path).collect();
    let expected = [
        "/dirty_bytes",
        "/interval_minutes_min",
        "/interval_minutes_max",
        "/keep/daily",
        "/update_days",
        "/pause_max_ms",
    ];
    assert_eq!(paths, expected);
}
