//! What an operator may set; `settings.schema.json` says the same to forms and editors.

use crate::window::Window;
use plugins_sdk::SettingsIssue;
use plugins_sdk::calendar::Offsets;
use serde::Deserialize;

const WAVES_MAX: usize = 32;
const WINDOWS_MAX: usize = 32;
const PILOTS_MAX: usize = 1000;
const DAY_MINUTES: u32 = 1440;
const RETRY_SECONDS_MAX: u32 = 3600;

/// How a rollout goes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Instances that go first and must all succeed.
    pub(crate) canary: Share,
    /// Deployments, or instances as `deployment/member`, that go before others in each stage.
    pub(crate) pilots: Vec<String>,
    /// Percentages of the instances that were touched after each wave, ascending to 100.
    pub(crate) waves: Vec<f64>,
    pub(crate) canary_soak_minutes: u32,
    pub(crate) soak_minutes: u32,
    /// Between the end of a stage and the next.
    pub(crate) pause_minutes: u32,
    /// When rolls may begin; none = at any time.
    pub(crate) windows: Vec<Window>,
    /// No roll begins in the last minutes of a window.
    pub(crate) window_tail_minutes: u32,
    pub(crate) utc_offset: Offsets,
    pub(crate) failed_percent_max: f64,
    pub(crate) unhealthy_percent_max: f64,
    pub(crate) on_canary_failure: OnFailure,
    pub(crate) on_failure: OnFailure,
    /// Beside the rollout's own bound; at least one instance may always roll.
    pub(crate) unavailable_percent_max: f64,
    /// 0 = no limit, for these three.
    pub(crate) per_deployment_max: u32,
    pub(crate) per_host_max: u32,
    pub(crate) per_site_max: u32,
    pub(crate) checkpoint: bool,
    pub(crate) stopped: Stopped,
    pub(crate) retry_seconds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            canary: Share::Count(1),
            pilots: Vec::new(),
            waves: vec![10.0, 30.0, 100.0],
            canary_soak_minutes: 30,
            soak_minutes: 5,
            pause_minutes: 0,
            windows: Vec::new(),
            window_tail_minutes: 0,
            utc_offset: Offsets::default(),
            failed_percent_max: 5.0,
            unhealthy_percent_max: 10.0,
            on_canary_failure: OnFailure::RollBack,
            on_failure: OnFailure::Halt,
            unavailable_percent_max: 25.0,
            per_deployment_max: 1,
            // A booting guest reads its disk: two at once slow each other and the host's other guests down.
            per_host_max: 1,
            per_site_max: 0,
            checkpoint: true,
            stopped: Stopped::Roll,
            retry_seconds: 60,
        }
    }
}

/// What happens once too much has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnFailure {
    /// Nobody rolls until an operator says so.
    Halt,
    /// Every touched instance goes back.
    RollBack,
}

/// What happens to instances that are stopped on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stopped {
    /// They get the version, last in each wave.
    Roll,
    /// They are no part of the rollout.
    Leave,
}

/// A number of instances, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub(crate) enum Share {
    Count(u32),
    Percent(f64),
}

impl Share {
    /// That many of `total`: a share of some is at least one.
    pub(crate) fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => (count as usize).min(total),
            Self::Percent(percent) => percent_of(percent, total),
        }
    }
}

impl TryFrom<serde_json::Value> for Share {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        let count = || value.as_u64().and_then(|count| u32::try_from(count).ok()).map(Self::Count);
        let percent = || {
            let percent: f64 = value.as_str()?.strip_suffix('%')?.trim_end().parse().ok()?;
            (0.0..=100.0).contains(&percent).then_some(Self::Percent(percent))
        };
        let wrong = || format!("{value} is no share: give a number of instances, or a text such as \"5%\"");
        count().or_else(percent).ok_or_else(wrong)
    }
}

/// `percent` of `total`, rounded up.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 ..= 100 per cent of at most 40,000"
)]
pub(crate) fn percent_of(percent: f64, total: usize) -> usize {
    // 30 % of 10 is 3, although 0.3 * 10 is a little more.
    ((percent * total as f64 / 100.0 - 1e-9).ceil().max(0.0) as usize).min(total)
}

/// Whether `part` is more than `percent` of `whole`.
#[expect(clippy::cast_precision_loss, reason = "at most 40,000")]
pub(crate) fn exceeds(part: usize, whole: usize, percent: f64) -> bool {
    part as f64 * 100.0 > percent * whole as f64
}

/// What is wrong with settings that parsed.
pub(crate) fn check(settings: &Settings) -> Vec<SettingsIssue> {
    let mut issues = Vec::new();
    let mut issue = |path: &str, message: String| {
        issues.push(SettingsIssue { path: path.to_owned(), message });
    };
    let ascending =
        settings.waves.is_sorted_by(|a, b| a < b) && settings.waves.first().is_some_and(|first| *first > 0.0);
    if settings.waves.len() > WAVES_MAX || !ascending || settings.waves.last() != Some(&100.0) {
        issue(
            "/waves",
            format!("give 1 to {WAVES_MAX} percentages above 0, ascending, the last of them 100"),
        );
    }
    let percentages = [
        ("/failed_percent_max", settings.failed_percent_max),
        ("/unhealthy_percent_max", settings.unhealthy_percent_max),
        ("/unavailable_percent_max", settings.unavailable_percent_max),
    ];
    for (path, percent) in percentages {
        if !(0.0..=100.0).contains(&percent) {
            issue(path, format!("{percent} is out of range: give 0 to 100"));
        }
    }
    let minutes = [
        ("/canary_soak_minutes", settings.canary_soak_minutes, DAY_MINUTES),
        ("/soak_minutes", settings.soak_minutes, DAY_MINUTES),
        ("/pause_minutes", settings.pause_minutes, 30 * DAY_MINUTES),
        ("/window_tail_minutes", settings.window_tail_minutes, DAY_MINUTES),
    ];
    for (path, given, most) in minutes {
        if given > most {
            issue(path, format!("{given} is out of range: give 0 to {most} minutes"));
        }
    }
    if !(1..=RETRY_SECONDS_MAX).contains(&settings.retry_seconds) {
        issue("/retry_seconds", format!("give 1 to {RETRY_SECONDS_MAX} seconds"));
    }
    if settings.pilots.len() > PILOTS_MAX {
        issue("/pilots", format!("give at most {PILOTS_MAX}"));
    }
    if settings.windows.len() > WINDOWS_MAX {
        issue("/windows", format!("give at most {WINDOWS_MAX}"));
    }
    for (position, window) in settings.windows.iter().enumerate() {
        if window.days.is_empty() {
            issue(&format!("/windows/{position}/days"), "give at least one day, or leave it out".to_owned());
        }
        if window.len_minutes() <= settings.window_tail_minutes {
            let len = window.len_minutes();
            issue(
                &format!("/windows/{position}"),
                format!(
                    "it is {len} minutes long and window_tail_minutes takes all of them: nothing would ever roll"
                ),
            );
        }
    }
    issues
}
