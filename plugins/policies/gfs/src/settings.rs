//! What an operator may set; `settings.schema.json` says the same to forms and editors.

use plugins_sdk::SettingsIssue;
use plugins_sdk::calendar::Offsets;
use plugins_sdk::checkpoint::PAUSE_MS_MAX;
use serde::Deserialize;

/// Most checkpoints of one class.
const KEEP_MAX: u32 = 1000;
/// A week.
const INTERVAL_MINUTES_MAX: u32 = 7 * 1440;
const DAYS_MAX: u32 = 3650;

/// When checkpoints are taken, and which are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Bytes written after which a checkpoint is worth its cost.
    pub(crate) dirty_bytes: u64,
    pub(crate) interval_minutes_min: u32,
    pub(crate) interval_minutes_max: u32,
    pub(crate) keep: Keep,
    /// Checkpoints that updates took are dropped after this time.
    pub(crate) update_days: u32,
    /// Whether checkpoints that people took are kept for ever, or age as this policy's own.
    pub(crate) manual: Manual,
    pub(crate) with_memory: bool,
    pub(crate) pause_max_ms: u64,
    pub(crate) utc_offset: Offsets,
}

/// How many are kept of each class: the newest of each of the last so many hours, days and so on that have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Keep {
    /// The newest, whatever they are.
    pub(crate) last: u32,
    pub(crate) hourly: u32,
    pub(crate) daily: u32,
    pub(crate) weekly: u32,
    pub(crate) monthly: u32,
    pub(crate) yearly: u32,
}

/// What happens to checkpoints that people took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Manual {
    /// They stay until a person drops them.
    Keep,
    /// They age like the policy's own.
    Age,
}

impl Default for Keep {
    fn default() -> Self {
        Self { last: 3, hourly: 24, daily: 7, weekly: 4, monthly: 12, yearly: 0 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dirty_bytes: 1 << 30,
            interval_minutes_min: 15,
            interval_minutes_max: 1440,
            keep: Keep::default(),
            update_days: 14,
            manual: Manual::Keep,
            with_memory: false,
            pause_max_ms: 2000,
            utc_offset: Offsets::default(),
        }
    }
}

/// What is wrong with settings that parsed.
pub(crate) fn check(settings: &Settings) -> Vec<SettingsIssue> {
    let mut issues = Vec::new();
    let mut issue = |path: &str, message: String| {
        issues.push(SettingsIssue { path: path.to_owned(), message });
    };
    if settings.dirty_bytes == 0 {
        issue("/dirty_bytes", "give at least 1".to_owned());
    }
    let (least, most) = (settings.interval_minutes_min, settings.interval_minutes_max);
    if !(1..=INTERVAL_MINUTES_MAX).contains(&least) {
        issue("/interval_minutes_min", format!("give 1 to {INTERVAL_MINUTES_MAX} minutes"));
    }
    if most < least || most > INTERVAL_MINUTES_MAX {
        issue(
            "/interval_minutes_max",
            format!("give interval_minutes_min, which is {least}, to {INTERVAL_MINUTES_MAX} minutes"),
        );
    }
    let keep = settings.keep;
    let classes = [
        ("last", keep.last),
        ("hourly", keep.hourly),
        ("daily", keep.daily),
        ("weekly", keep.weekly),
        ("monthly", keep.monthly),
        ("yearly", keep.yearly),
    ];
    for (class, count) in classes {
        if count > KEEP_MAX {
            issue(&format!("/keep/{class}"), format!("give 0 to {KEEP_MAX}"));
        }
    }
    if settings.update_days > DAYS_MAX {
        issue("/update_days", format!("give 0 to {DAYS_MAX} days"));
    }
    if !(1..=PAUSE_MS_MAX).contains(&settings.pause_max_ms) {
        issue("/pause_max_ms", format!("give 1 to {PAUSE_MS_MAX} milliseconds"));
    }
    issues
}
