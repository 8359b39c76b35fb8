//! The update policy `waves`: a canary first, then waves, in windows of time, as long as nothing fails.
//!
//! ```text
//!   canary ──all succeeded──▶ wave 1 ──▶ wave 2 ──▶ … ──▶ complete
//!     │ one failed             │ too many failed or unwell
//!     ▼                        ▼
//!   roll-back (or halt)       halt (or roll-back); an operator lets it go on
//! ```
//!
//! In a stage, an instance rolls when a window is open, when the bound of unavailable instances has room for it, and
//! when not too many of its deployment, host and site roll. One that failed with the version is not tried again.
//!
//! The policy keeps no state: where a rollout is follows from its outcomes, so that an upgrade of the policy in the
//! middle of one changes nothing. What failed before an operator let it go on (the attribute `collective/resumed`,
//! milliseconds since 1970) is forgiven.

mod choose;
mod fleet;
mod settings;
mod stage;
mod window;

use choose::{Obstacles, choose};
use fleet::Fleet;
use plugins_sdk::update::{Plan, Rollout, Step, UpdatePolicy, WAIT_MS_MAX};
use plugins_sdk::{Context, Instances, Manifest, Plugin, PolicyError, Reason, SettingsIssue};
use settings::OnFailure;
pub use settings::Settings;
use stage::{Stage, failure, stage};

plugins_sdk::export_update!(Waves);

/// The policy.
#[derive(Debug)]
pub struct Waves;

impl Plugin for Waves {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: "waves",
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

impl UpdatePolicy for Waves {
    fn next_step(
        settings: &Settings,
        rollout: &Rollout,
        instances: &impl Instances,
        context: &impl Context,
        _state: &[u8],
    ) -> Result<Plan, PolicyError> {
        let fleet = Fleet::read(settings, rollout, instances, context.find_symbol(&rollout.target));
        let next = next(settings, rollout, &fleet, instances, context);
        let next_call_ms = match &next {
            Step::Hold { retry_after_ms, .. } => *retry_after_ms,
            Step::Proceed(_) => retry_ms(settings),
            Step::Halt(_) | Step::RollBack(_) | Step::Complete(_) => WAIT_MS_MAX,
        };
        Ok(Plan { next, next_call_ms, state: Vec::new() })
    }
}

fn next(
    settings: &Settings,
    rollout: &Rollout,
    fleet: &Fleet,
    instances: &impl Instances,
    context: &impl Context,
) -> Step {
    let stage = stage(settings, fleet);
    match failure(settings, fleet, stage) {
        Some((OnFailure::Halt, reasons)) => return Step::Halt(reasons),
        Some((OnFailure::RollBack, reasons)) => return Step::RollBack(reasons),
        None => {}
    }
    let retry_ms = retry_ms(settings);
    if fleet.candidates.is_empty() {
        return match fleet.touched.under_way {
            0 => Step::Complete(summary(rollout, fleet)),
            rolling => hold(retry_ms, "last-under-way", format!("{rolling} still roll; nobody else is left")),
        };
    }
    if fleet.touched.all >= stage.touched_max && fleet.touched.under_way > 0 {
        let text = format!("{} of {} still roll", fleet.touched.under_way, stage.name(settings));
        return hold(retry_ms, "stage-under-way", text);
    }
    let now_ms = context.now_ms();
    if let Some(wait_ms) = stage.not_before_ms.checked_sub(now_ms).filter(|wait_ms| *wait_ms > 0) {
        let minutes = settings.pause_minutes;
        let text = format!("{minutes} minutes lie between the end of a stage and {}", stage.name(settings));
        return hold(wait_ms, "pause", text);
    }
    if let Some(wait) = closed(settings, now_ms) {
        return wait;
    }
    let (rolls, obstacles) = choose(settings, rollout, stage, fleet, instances, context);
    if rolls.is_empty() { hindered(retry_ms, stage, settings, &obstacles) } else { Step::Proceed(rolls) }
}

fn retry_ms(settings: &Settings) -> u64 {
    u64::from(settings.retry_seconds) * 1000
}

fn hold(wait_ms: u64, code: &str, text: String) -> Step {
    Step::Hold { retry_after_ms: wait_ms.clamp(1, WAIT_MS_MAX), reasons: vec![Reason::plain(code, text)] }
}

/// Waits for a window if none is open.
fn closed(settings: &Settings, now_ms: u64) -> Option<Step> {
    let (windows, tail, offsets) = (&settings.windows, settings.window_tail_minutes, &settings.utc_offset);
    if window::is_open(windows, tail, offsets, now_ms) {
        return None;
    }
    Some(match window::next_opening(windows, tail, offsets, now_ms) {
        Some(opening) => {
            let text = format!("no window is open; the next opens on {}", window::in_words(offsets, opening));
            hold(opening.saturating_sub(now_ms), "window-closed", text)
        }
        None => hold(WAIT_MS_MAX, "window-closed", "no window opens within a week".to_owned()),
    })
}

/// Why nobody rolls although some are left.
fn hindered(retry_ms: u64, stage: Stage, settings: &Settings, obstacles: &Obstacles) -> Step {
    let mut reasons = Vec::new();
    let mut count = |code: &str, count: usize, why: &str| {
        if count > 0 {
            reasons.push(Reason::plain(code, format!("{count} wait: {why}")));
        }
    };
    count("too-many-down", obstacles.down, "as many instances are down as may be");
    count("neighbours-roll", obstacles.neighbours, "others of their deployment, host or site roll");
    count("not-ready", obstacles.blocked, "they start, wait for a host, or cannot be reached");
    if reasons.is_empty() {
        let text = format!("{} has no room", stage.name(settings));
        reasons.push(Reason::plain("stage-full", text));
    }
    Step::Hold { retry_after_ms: retry_ms, reasons }
}

fn summary(rollout: &Rollout, fleet: &Fleet) -> Vec<Reason> {
    let touched = &fleet.touched;
    let text = format!("{} instances were rolled to {}", touched.succeeded, rollout.target);
    let mut reasons = vec![Reason::plain("nobody-left", text)];
    let mut count = |code: &str, count: usize, what: &str| {
        if count > 0 {
            reasons.push(Reason::plain(code, format!("{count} {what}")));
        }
    };
    count("failed", touched.failed, "failed with it and are not tried again");
    let given_up = touched.all - touched.succeeded - touched.failed - touched.under_way;
    count("given-up", given_up, "were given up");
    count("left-stopped", fleet.left_stopped, "are stopped and left alone");
    reasons
}

#[cfg(test)]
mod tests;
