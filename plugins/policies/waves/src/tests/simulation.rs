//! Whole rollouts of random fleets with random luck, played in virtual time.

use super::*;
use plugins_sdk::update::is_down;
use proptest::prelude::*;

/// Calls after which a rollout must have come to an end. Each instance takes a few, a shut window one.
const CALLS_MAX: usize = 1500;

/// What lies ahead of an instance.
#[derive(Debug, Clone)]
struct Fate {
    /// It fails with the new version.
    fails: bool,
    /// Minutes that a roll takes before its soak.
    takes_minutes: u64,
    /// It is in this state until so many minutes have passed.
    first: (u8, u64),
    deployment: usize,
    host: usize,
}

fn fate() -> impl Strategy<Value = Fate> {
    let first = prop_oneof![
        6 => Just((state::RUNNING, 0)),
        1 => (Just(state::STOPPED), Just(u64::MAX)),
        1 => (Just(state::FAILED), Just(u64::MAX)),
        1 => (Just(state::UNREACHABLE), 0..1000u64),
        1 => (Just(state::STARTING), 0..100u64),
    ];
    (prop::bool::weighted(0.05), 1..30u64, first, 0..12usize, 0..8usize).prop_map(
        |(fails, takes_minutes, first, deployment, host)| Fate {
            fails,
            takes_minutes,
            first,
            deployment,
            host,
        },
    )
}

fn any_settings() -> impl Strategy<Value = serde_json::Value> {
    let canary = prop_oneof![Just(json!(0)), Just(json!(1)), Just(json!(2)), Just(json!("20%"))];
    let waves = prop_oneof![Just(json!([100])), Just(json!([10, 50, 100])), Just(json!([1, 2, 3, 99, 100]))];
    let windows = prop_oneof![Just(json!([])), Just(json!([{"from": "22:00", "to": "06:00"}]))];
    let failure = prop_oneof![Just("halt"), Just("roll-back")];
    let limits = (0..3u32, 0..3u32, 0..4u32, 1..=100u32);
    (canary, waves, windows, failure, limits, 0..60u32, 0..=100u32, any::<bool>()).prop_map(
        |(canary, waves, windows, failure, (deployment, host, site, percent), pause, failed, leave)| {
            json!({
                "canary": canary, "waves": waves, "windows": windows, "utc_offset": "+01:00",
                "on_failure": failure, "on_canary_failure": failure, "pause_minutes": pause,
                "per_deployment_max": deployment, "per_host_max": host, "per_site_max": site,
                "unavailable_percent_max": percent, "failed_percent_max": failed, "unhealthy_percent_max": 100,
                "retry_seconds": 300, "stopped": if leave { "leave" } else { "roll" },
            })
        },
    )
}

/// A bound's deployment, host or site.
type KeyOf = fn(&Instance) -> &String;

/// A rollout in virtual time.
struct World {
    given: serde_json::Value,
    settings: Settings,
    now_ms: u64,
    rows: Vec<Instance>,
    fates: Vec<Fate>,
    rollout: Rollout,
    /// When each roll under way ends, by its place among the outcomes.
    ends_ms: Vec<u64>,
    /// What the policy said last.
    last: Step,
}

impl World {
    fn new(given: serde_json::Value, fates: Vec<Fate>, unavailable_max: u32) -> Self {
        let settings = settings(given.clone());
        let mut rows = desktops(fates.len());
        for (index, (row, fate)) in rows.iter_mut().zip(&fates).enumerate() {
            row.deployment = format!("team-{:02}", fate.deployment);
            row.member = format!("member-{index:03}");
            row.host = format!("host-{}", fate.host);
            row.site = format!("site-{}", fate.host % 2);
            row.state = fate.first.0;
        }
        // The rows' places are those that the policy sees.
        let mut both: Vec<_> = rows.into_iter().zip(fates).collect();
        both.sort_by_key(|(row, _)| row.name());
        let (rows, fates) = both.into_iter().unzip();
        let rollout = Rollout { unavailable_max, ..rollout() };
        let last = Step::Complete(Vec::new());
        Self { given, settings, now_ms: NOON_MS, rows, fates, rollout, ends_ms: Vec::new(), last }
    }

    fn is_rolling(&self, row: usize) -> bool {
        let name = self.rows[row].name();
        self.rollout.outcomes.iter().any(|o| o.instance == name && o.status == Status::UnderWay)
    }

    fn down(&self) -> usize {
        let down =
            |row: &usize| is_down(self.rows[*row].state, self.rows[*row].health) || self.is_rolling(*row);
        (0..self.rows.len()).filter(down).count()
    }

    /// Most that may be down.
    fn down_max(&self) -> usize {
        let percent = self.given["unavailable_percent_max"].as_u64().unwrap() as usize;
        (self.rows.len() * percent).div_ceil(100).max(1).min(self.rollout.unavailable_max as usize)
    }

    /// Lets the world go on to the next event or call.
    fn pass(&mut self, wait_ms: u64) {
        let under_way =
            |(outcome, ends): (&Outcome, &u64)| (outcome.status == Status::UnderWay).then_some(*ends);
        let next_end = self.rollout.outcomes.iter().zip(&self.ends_ms).filter_map(under_way).min();
        self.now_ms = (self.now_ms + wait_ms).min(next_end.unwrap_or(u64::MAX));
        for (row, fate) in self.rows.iter_mut().zip(&self.fates) {
            let (first, minutes) = fate.first;
            if row.state == first && minutes != u64::MAX && self.now_ms >= NOON_MS + minutes * MINUTE_MS {
                row.state = state::RUNNING;
            }
        }
        for (outcome, ends_ms) in self.rollout.outcomes.iter_mut().zip(&self.ends_ms) {
            if outcome.status == Status::UnderWay && *ends_ms <= self.now_ms {
                let row = outcome.row.unwrap() as usize;
                outcome.finished_ms = *ends_ms;
                if self.fates[row].fails {
                    outcome.status = Status::Failed;
                    self.rows[row].state = state::FAILED;
                } else {
                    outcome.status = Status::Succeeded;
                    self.rows[row].version = self.rollout.target.clone();
                    if self.rows[row].state == state::FAILED {
                        self.rows[row].state = state::RUNNING;
                    }
                }
            }
        }
    }

    fn ask(&mut self) -> Result<u64, TestCaseError> {
        let fleet = Rows::new(self.now_ms, self.rows.clone());
        let plan = Waves::next_step(&self.settings, &self.rollout, &fleet, &fleet, &[]).unwrap();
        prop_assert!((1..=WAIT_MS_MAX).contains(&plan.next_call_ms));
        self.last = plan.next.clone();
        match &plan.next {
            Step::Proceed(rolls) => self.order(rolls)?,
            Step::Hold { retry_after_ms, reasons } => {
                prop_assert!((1..=WAIT_MS_MAX).contains(retry_after_ms) && !reasons.is_empty());
            }
            Step::Halt(reasons) | Step::RollBack(reasons) | Step::Complete(reasons) => {
                prop_assert!(!reasons.is_empty());
            }
        }
        Ok(plan.next_call_ms)
    }

    fn order(&mut self, rolls: &[Roll]) -> Result<(), TestCaseError> {
        prop_assert!(!rolls.is_empty());
        if self.given["windows"] != json!([]) {
            let minute = (self.now_ms / MINUTE_MS + 60) % 1440;
            prop_assert!(!(6 * 60..22 * 60).contains(&minute), "it rolls outside of its window");
        }
        let before = self.down();
        for roll in rolls {
            let row = roll.instance as usize;
            let instance = self.rows[row].name();
            prop_assert!(self.rows[row].version != self.rollout.target, "{} is at the target", instance);
            let again = self.rollout.outcomes.iter().any(|outcome| outcome.instance == instance);
            prop_assert!(!again, "{} rolls a second time", instance);
            self.ends_ms.push(self.now_ms + self.fates[row].takes_minutes * MINUTE_MS + roll.soak_ms);
            self.rollout.outcomes.push(Outcome {
                instance,
                row: Some(roll.instance),
                ordered_ms: self.now_ms,
                finished_ms: 0,
                status: Status::UnderWay,
                detail: String::new(),
            });
        }
        let allowed = self.down_max();
        prop_assert!(self.down() <= allowed.max(before), "{} are down, {allowed} may be", self.down());
        self.check_neighbours()
    }

    fn check_neighbours(&self) -> Result<(), TestCaseError> {
        let rolling: Vec<_> = (0..self.rows.len()).filter(|row| self.is_rolling(*row)).collect();
        let most = |key: &str| self.given[key].as_u64().unwrap() as usize;
        let keys: [(&str, KeyOf); 3] = [
            ("per_deployment_max", |row| &row.deployment),
            ("per_host_max", |row| &row.host),
            ("per_site_max", |row| &row.site),
        ];
        for (key, of) in keys {
            for row in &rolling {
                let same =
                    rolling.iter().filter(|other| of(&self.rows[**other]) == of(&self.rows[*row])).count();
                prop_assert!(most(key) == 0 || same <= most(key), "{key}: {same}");
            }
        }
        Ok(())
    }

    /// Plays to the end.
    fn play(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..CALLS_MAX {
            let wait_ms = self.ask()?;
            if !matches!(self.last, Step::Proceed(_) | Step::Hold { .. }) {
                return Ok(());
            }
            self.pass(wait_ms);
        }
        Err(TestCaseError::fail(format!("no end after {CALLS_MAX} calls: {:?}", self.last)))
    }

    fn canary(&self) -> usize {
        self.settings.canary.of(self.rows.len())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_rollout_ends_and_keeps_its_bounds_on_the_way(
        given in any_settings(),
        fates in prop::collection::vec(fate(), 0..24),
        unavailable_max in 1..8u32,
    ) {
        let mut world = World::new(given, fates, unavailable_max);
        world.play_or_starve()?;
        if let Step::Complete(_) = world.last {
            for (row, instance) in world.rows.iter().enumerate() {
                let touched = world.rollout.outcomes.iter().any(|o| o.instance == instance.name());
                let left = instance.state == state::STOPPED && world.given["stopped"] == json!("leave");
                prop_assert!(touched || left, "{} was forgotten", row);
            }
        }
    }

    #[test]
    fn a_version_that_always_fails_touches_the_canary_at_most(
        given in any_settings(),
        mut fates in prop::collection::vec(fate(), 1..24),
        canary in 1..5u32,
    ) {
        for fate in &mut fates {
            (fate.fails, fate.first) = (true, (state::RUNNING, 0));
        }
        let given = with(given, "canary", json!(canary));
        let mut world = World::new(given, fates, 1000);
        world.play()?;
        prop_assert!(world.rollout.outcomes.len() <= world.canary());
        prop_assert!(matches!(world.last, Step::Halt(_) | Step::RollBack(_)), "{:?}", world.last);
    }

    #[test]
    fn a_version_that_never_fails_reaches_everybody(
        given in any_settings(),
        mut fates in prop::collection::vec(fate(), 1..24),
        unavailable_max in 1..8u32,
    ) {
        for fate in &mut fates {
            (fate.fails, fate.first) = (false, (state::RUNNING, 0));
        }
        let mut world = World::new(given, fates, unavailable_max);
        world.play()?;
        prop_assert!(matches!(world.last, Step::Complete(_)), "{:?}", world.last);
        prop_assert!(world.rows.iter().all(|row| row.version == world.rollout.target));
    }
}

impl World {
    /// As `play`, but the rollout may also wait for ever because instances that failed fill the bound of those that may
    /// be down; then it says so.
    fn play_or_starve(&mut self) -> Result<(), TestCaseError> {
        let Err(endless) = self.play() else { return Ok(()) };
        let (kind, codes) = codes(self.last.clone());
        let starved = kind == "hold" && codes.iter().any(|code| code == "too-many-down");
        if starved && self.down() >= self.down_max() { Ok(()) } else { Err(endless) }
    }
}

fn with(mut given: serde_json::Value, key: &str, value: serde_json::Value) -> serde_json::Value {
    given[key] = value;
    given
}
