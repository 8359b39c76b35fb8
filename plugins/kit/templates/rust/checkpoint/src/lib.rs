//! Takes a checkpoint at a fixed interval and keeps the newest.

use plugins_sdk::checkpoint::{CheckpointPolicy, Discard, Plan, Subject, Take};
use plugins_sdk::{
    Checkpoints, Context, Instances, Manifest, Plugin, PolicyError, Reason, SettingsIssue,
};
use serde::Deserialize;

plugins_sdk::export_checkpoint!({{Name}});

const INTERVAL_MS_MIN: u64 = 60_000;
const INTERVAL_MS_MAX: u64 = 86_400_000;
const KEEP_MAX: usize = 1000;
const PAUSE_MAX_MS: u64 = 5000;

/// The policy.
pub struct {{Name}};

/// See `settings.schema.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    interval_ms: u64,
    keep: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { interval_ms: 3_600_000, keep: 24 }
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
        let mut issues = Vec::new();
        if !(INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&settings.interval_ms) {
            let message = format!("give {INTERVAL_MS_MIN} to {INTERVAL_MS_MAX} milliseconds");
            issues.push(SettingsIssue { path: "/interval_ms".to_owned(), message });
        }
        if !(1..=KEEP_MAX).contains(&settings.keep) {
            let message = format!("give 1 to {KEEP_MAX} checkpoints");
            issues.push(SettingsIssue { path: "/keep".to_owned(), message });
        }
        issues
    }
}

impl CheckpointPolicy for {{Name}} {
    fn schedule(
        settings: &Settings,
        _subject: &Subject,
        _instances: &impl Instances,
        checkpoints: &impl Checkpoints,
        context: &impl Context,
        _state: &[u8],
    ) -> Result<Plan, PolicyError> {
        // Oldest first: the last is the newest.
        let age_ms = checkpoints.taken().last().map(|taken| context.now_ms().saturating_sub(*taken));
        let due = age_ms.is_none_or(|age_ms| age_ms >= settings.interval_ms);
        let take = due.then(|| Take {
            with_memory: false,
            pause_max_ms: PAUSE_MAX_MS,
            reasons: vec![Reason::plain("interval-over", reason_of(age_ms))],
        });
        let left_ms = settings.interval_ms - age_ms.unwrap_or(0).min(settings.interval_ms);
        let next_call_ms = if due { settings.interval_ms } else { left_ms };
        // The new one counts: it is there before any is dropped.
        let discards = discards(checkpoints, settings.keep.saturating_sub(due.into()));
        Ok(Plan { take, discards, next_call_ms, state: Vec::new() })
    }
}

fn reason_of(age_ms: Option<u64>) -> String {
    match age_ms {
        None => "there is none yet".to_owned(),
        Some(age_ms) => format!("the newest is {} s old", age_ms / 1000),
    }
}

fn discards(checkpoints: &impl Checkpoints, keep: usize) -> Vec<Discard> {
    let count = checkpoints.checkpoint_count();
    let old = (0u32..).zip(checkpoints.pinned()).take(count.saturating_sub(keep));
    old.filter(|(_, pinned)| *pinned == 0)
        .map(|(checkpoint, _)| Discard {
            checkpoint,
            reasons: vec![Reason::plain("enough-newer-ones", format!("{keep} newer ones are there"))],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugins_sdk::checkpoint::Checkpoint;
    use plugins_sdk::{Fleet, History};

    const HOUR_MS: u64 = 3_600_000;

    fn ask(taken_ms: &[u64], pinned_ms: u64, now_ms: u64) -> Plan {
        let row = |taken_ms: &u64| Checkpoint {
            name: format!("c{taken_ms}"),
            taken_ms: *taken_ms,
            pinned: *taken_ms == pinned_ms,
            ..Checkpoint::default()
        };
        let history = History::new(taken_ms.iter().map(row).collect());
        let fleet = Fleet::new(now_ms, vec![]);
        let settings = Settings { keep: 2, ..Settings::default() };
        {{Name}}::schedule(&settings, &Subject::default(), &fleet, &history, &fleet, &[]).unwrap()
    }

    #[test]
    fn one_is_taken_when_the_interval_is_over() {
        assert!(ask(&[], 0, HOUR_MS).take.is_some());
        assert!(ask(&[HOUR_MS], 0, 2 * HOUR_MS).take.is_some());
        let early = ask(&[HOUR_MS], 0, 2 * HOUR_MS - 1);
        assert_eq!((early.take, early.next_call_ms), (None, 1));
    }

    #[test]
    fn the_newest_and_the_pinned_stay() {
        let plan = ask(&[1, 2, 3, 4], 2, 5);
        assert_eq!(plan.discards.iter().map(|one| one.checkpoint).collect::<Vec<_>>(), [0]);
        let plan = ask(&[1, 2, 3, 4], 2, 2 * HOUR_MS);
        assert_eq!(plan.discards.iter().map(|one| one.checkpoint).collect::<Vec<_>>(), [0, 2]);
    }
}
