//! Rolls one instance after the other, in the order of their names, and stops at the first that fails.

use plugins_sdk::update::{Plan, Roll, Rollout, Status, Step, UpdatePolicy};
use plugins_sdk::{Context, Instances, Manifest, Plugin, PolicyError, Reason, SettingsIssue};
use serde::Deserialize;

plugins_sdk::export_update!({{Name}});

const SOAK_MS_MAX: u64 = 86_400_000;
const LOOK_AGAIN_MS: u64 = 10_000;

/// The policy.
pub struct {{Name}};

/// See `settings.schema.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    soak_ms: u64,
    checkpoint: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { soak_ms: 60_000, checkpoint: true }
    }
}

impl Plugin for {{Name}} {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            summary: env!("CARGO_PKG_DESCRIPTION"),
            license: env!("CARGO_PKG_LICENSE"),
            settings_schema: include_str!("settings.schema.json"),
            default_settings: "{}",
        }
    }

    fn check_settings(settings: &Settings) -> Vec<SettingsIssue> {
        if settings.soak_ms <= SOAK_MS_MAX {
            return Vec::new();
        }
        let message = format!("give at most {SOAK_MS_MAX} milliseconds");
        vec![SettingsIssue { path: "/soak_ms".to_owned(), message }]
    }
}

impl UpdatePolicy for {{Name}} {
    fn next_step(
        settings: &Settings,
        rollout: &Rollout,
        instances: &impl Instances,
        context: &impl Context,
        _state: &[u8],
    ) -> Result<Plan, PolicyError> {
        let next = step(settings, rollout, instances, context);
        // Where the rollout stands follows from its outcomes: there is nothing to remember.
        Ok(Plan { next, next_call_ms: LOOK_AGAIN_MS, state: Vec::new() })
    }
}

fn step(
    settings: &Settings,
    rollout: &Rollout,
    instances: &impl Instances,
    context: &impl Context,
) -> Step {
    for outcome in &rollout.outcomes {
        match outcome.status {
            Status::Succeeded => {}
            Status::UnderWay => {
                let text = format!("{} is under way", outcome.instance);
                let reasons = vec![Reason::plain("one-at-a-time", text)];
                return Step::Hold { retry_after_ms: LOOK_AGAIN_MS, reasons };
            }
            // Also what a later contract may add: a policy treats a code it does not know as not eligible.
            _ => {
                let text = format!("{} did not come through", outcome.instance);
                return Step::Halt(vec![Reason::plain("a-roll-failed", text)]);
            }
        }
    }
    // A version that no instance runs is no symbol: 0, which no instance has.
    let target = context.find_symbol(&rollout.target);
    let waiting = (0u32..).zip(instances.versions()).find(|(_, version)| target == 0 || *version != target);
    match waiting {
        None => Step::Complete(vec![Reason::plain("all-at-target", format!("all run {}", rollout.target))]),
        Some((instance, _)) => {
            let text = "the next by name".to_owned();
            let reasons = vec![Reason::plain("next-in-order", text)];
            let Settings { soak_ms, checkpoint } = *settings;
            Step::Proceed(vec![Roll { instance, soak_ms, checkpoint, reasons }])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugins_sdk::update::Outcome;
    use plugins_sdk::{Fleet, Instance};

    fn ask(versions: &[&str], statuses: &[Status]) -> Step {
        let row = |(number, version): (usize, &&str)| Instance {
            deployment: "office".to_owned(),
            member: format!("desk-{number}"),
            version: (*version).to_owned(),
            ..Instance::default()
        };
        let fleet = Fleet::new(0, versions.iter().enumerate().map(row).collect());
        let outcome = |status: &Status| Outcome {
            instance: "office/desk-0".to_owned(),
            row: Some(0),
            ordered_ms: 1,
            finished_ms: 0,
            status: *status,
            detail: String::new(),
        };
        let outcomes = statuses.iter().map(outcome).collect();
        let rollout = Rollout { target: "2.0.0".to_owned(), outcomes, ..Rollout::default() };
        {{Name}}::next_step(&Settings::default(), &rollout, &fleet, &fleet, &[]).unwrap().next
    }

    #[test]
    fn one_instance_rolls_and_then_the_next() {
        let Step::Proceed(rolls) = ask(&["1.0.0", "1.0.0"], &[]) else { panic!("it goes on") };
        assert_eq!(rolls.iter().map(|roll| roll.instance).collect::<Vec<_>>(), [0]);
        assert!(matches!(ask(&["1.0.0", "1.0.0"], &[Status::UnderWay]), Step::Hold { .. }));
        let Step::Proceed(rolls) = ask(&["2.0.0", "1.0.0"], &[Status::Succeeded]) else { panic!("it goes on") };
        assert_eq!(rolls.iter().map(|roll| roll.instance).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn it_stops_at_the_first_failure() {
        for status in [Status::Failed, Status::RolledBack, Status::GivenUp, Status::Other(9)] {
            assert!(matches!(ask(&["1.0.0", "1.0.0"], &[status]), Step::Halt(_)));
        }
    }

    #[test]
    fn it_is_complete_when_all_are_at_the_target() {
        assert!(matches!(ask(&["2.0.0", "2.0.0"], &[Status::Succeeded]), Step::Complete(_)));
    }
}
