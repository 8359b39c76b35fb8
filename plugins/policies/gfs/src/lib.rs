//! The checkpoint policy `gfs`: takes checkpoints by how much was written, and keeps grandfathers, fathers and sons.
//!
//! A checkpoint is due once `dirty_bytes` were written since the last good one, not sooner after it than
//! `interval_minutes_min` and not later than `interval_minutes_max`; a deployment in which nothing runs and nothing was
//! written needs none. Of those it took, the policy keeps the last few, and the newest of each of the last so many
//! hours, days, weeks, months and years that have one. What no rule wants is dropped.
//!
//! Where the quota has no room for a new checkpoint, damaged ones go first, then what no rule wants, then what is
//! wanted by the finest rule only, oldest first. Never dropped: what is pinned, what a person took (unless the settings
//! say that these age as well), and the newest that is good. If all that does not make room, none is taken, and the
//! decision's log says so.
//!
//! State: a smoothed rate of writing, so that the next call comes when the next checkpoint is due; and when one was
//! ordered, so that it is not ordered twice.

mod retention;
mod schedule;
mod settings;

use plugins_sdk::checkpoint::{CheckpointPolicy, Checkpoints, Discard, Plan, Subject, Take, WAIT_MS_MAX};
use plugins_sdk::{Context, Instances, Level, Manifest, Plugin, PolicyError, Reason, SettingsIssue};
use retention::{Owner, Row, discards};
use schedule::{Due, Remembered, Whole, due};
pub use settings::Settings;

plugins_sdk::export_checkpoint!(Gfs);

const MINUTE_MS: u64 = 60_000;

/// The policy.
#[derive(Debug)]
pub struct Gfs;

impl Plugin for Gfs {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: "gfs",
            version: env!("CARGO_PKG_VERSION"),
            summary: env!("CARGO_PKG_DESCRIPTION"),
            license: env!("CARGO_PKG_LICENSE"),
            settings_schema: include_str!("settings.schema.json"),
            default_settings: "{}",
        }
    }

    fn check_settings(settings: &Settings) -> Vec<SettingsIssue> {
        settings::check(settings)
    }
}

impl CheckpointPolicy for Gfs {
    fn schedule(
        settings: &Settings,
        subject: &Subject,
        instances: &impl Instances,
        checkpoints: &impl Checkpoints,
        context: &impl Context,
        state: &[u8],
    ) -> Result<Plan, PolicyError> {
        let now_ms = context.now_ms();
        let whole = Whole::read(instances);
        let rows = retention::read(settings, checkpoints);
        let mut remembered = Remembered::read(state);
        remembered.sample(now_ms, whole.dirty_bytes);
        let newest_good_ms = rows.iter().rev().find(|row| !row.damaged).map(|row| row.taken_ms);
        let newest_ms = newest_good_ms.unwrap_or(subject.created_ms);

        let due = due(settings, &remembered, &whole, now_ms, newest_ms);
        let wanted = wanted(settings, &whole, due, newest_good_ms.is_some());
        let (take, discards) = within_quota(settings, subject, &rows, &whole, wanted, context);
        let poll_ms = u64::from(settings.interval_minutes_min) * MINUTE_MS;
        let next_call_ms = match (&take, due) {
            (None, Due::In(wait_ms)) => wait_ms.min(poll_ms),
            _ => poll_ms,
        };
        if take.is_some() {
            remembered.ordered_ms = now_ms;
        }
        let next_call_ms = next_call_ms.clamp(MINUTE_MS, WAIT_MS_MAX);
        Ok(Plan { take, discards, next_call_ms, state: remembered.write() })
    }
}

/// The checkpoint that is to be taken, if there is room for it.
fn wanted(settings: &Settings, whole: &Whole, due: Due, has_good: bool) -> Option<Take> {
    let reason = match due {
        Due::In(_) => return None,
        Due::Dirty { dirty_bytes } => {
            let text = format!("{} MiB were written since the last one", dirty_bytes >> 20);
            Reason::plain("much-written", text)
        }
        Due::Old { minutes } if has_good => {
            Reason::plain("interval-over", format!("the last one is {minutes} minutes old"))
        }
        Due::Old { .. } => Reason::plain("first", "there is none that is good".to_owned()),
    };
    let nothing_to_hold = whole.running + whole.down == 0;
    let unchanged = whole.running == 0 && whole.dirty_bytes == 0 && has_good;
    if nothing_to_hold || unchanged || whole.blocked > 0 {
        return None;
    }
    let mut reasons = vec![reason];
    // The memory of a guest that is unwell would bring its trouble back.
    let with_memory = settings.with_memory && whole.running > 0 && whole.unwell == 0;
    if settings.with_memory && whole.unwell > 0 {
        let text = format!("without memory: {} guests are unwell", whole.unwell);
        reasons.push(Reason::plain("unwell", text));
    }
    Some(Take { with_memory, pause_max_ms: settings.pause_max_ms, reasons })
}

/// What is taken and dropped so that the quota is kept, if that is possible without what must stay.
fn within_quota(
    settings: &Settings,
    subject: &Subject,
    rows: &[Row],
    whole: &Whole,
    wanted: Option<Take>,
    context: &impl Context,
) -> (Option<Take>, Vec<Discard>) {
    let Some(take) = wanted else { return (None, discards(settings, subject, rows, 0, context).discards) };
    let new_bytes = expected_bytes(rows, whole, &take);
    let outcome = discards(settings, subject, rows, new_bytes, context);
    if subject.quota_bytes == 0 || outcome.used_bytes + new_bytes <= subject.quota_bytes {
        return (Some(take), outcome.discards);
    }
    let (used, quota) = (outcome.used_bytes >> 20, subject.quota_bytes >> 20);
    context.log(
        Level::Warn,
        &format!(
            "no checkpoint: about {} MiB would come to {used} MiB that must stay, and the quota is {quota} MiB; raise \
             the quota, or drop pinned checkpoints and those that people took",
            new_bytes >> 20
        ),
    );
    (None, discards(settings, subject, rows, 0, context).discards)
}

/// About how large a new checkpoint will be: what was written, or what the last one took where that is not known.
fn expected_bytes(rows: &[Row], whole: &Whole, take: &Take) -> u64 {
    let of_last = || rows.iter().rev().find(|row| row.owner == Owner::Policy).map_or(0, |row| row.size_bytes);
    let disks = if whole.dirty_bytes > 0 { whole.dirty_bytes } else { of_last() };
    disks + if take.with_memory { whole.memory_bytes } else { 0 }
}

#[cfg(test)]
mod tests;
