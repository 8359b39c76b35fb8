//! When the next checkpoint is due: the more is written, the sooner.

use crate::settings::Settings;
use plugins_sdk::Instances;
use plugins_sdk::instances::{health, state};
use serde::{Deserialize, Serialize};

const MINUTE_MS: u64 = 60_000;

/// How soon a checkpoint that was ordered must be there, before another is ordered in its place.
const ORDER_MS_MAX: u64 = 15 * MINUTE_MS;

/// How far back the rate of writing is remembered.
const MEMORY_MS: u64 = 30 * MINUTE_MS;

/// What the policy remembers from call to call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Remembered {
    /// Instant of the last call, milliseconds since 1970; 0 = there was none.
    pub(crate) sampled_ms: u64,
    /// What was dirty then, bytes.
    pub(crate) dirty_bytes: u64,
    /// Smoothed, bytes for each millisecond.
    pub(crate) rate: f64,
    /// When a checkpoint was last ordered, milliseconds since 1970.
    pub(crate) ordered_ms: u64,
}

impl Remembered {
    /// What a policy of this name answered last; what it cannot read says nothing.
    pub(crate) fn read(state: &[u8]) -> Self {
        serde_json::from_slice(state).ok().filter(|read: &Self| read.rate.is_finite()).unwrap_or_default()
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Takes a sample of what is dirty. Less than before means that a checkpoint came between.
    #[expect(clippy::cast_precision_loss, reason = "values are below 2^53")]
    pub(crate) fn sample(&mut self, now_ms: u64, dirty_bytes: u64) {
        let passed_ms = now_ms.saturating_sub(self.sampled_ms);
        let before = if dirty_bytes < self.dirty_bytes { 0 } else { self.dirty_bytes };
        if self.sampled_ms > 0 && passed_ms > 0 {
            let rate = (dirty_bytes - before) as f64 / passed_ms as f64;
            let weight = passed_ms as f64 / (passed_ms + MEMORY_MS) as f64;
            self.rate += (rate - self.rate) * weight;
        }
        (self.sampled_ms, self.dirty_bytes) = (now_ms, dirty_bytes);
    }
}

/// The deployment's instances, taken together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) dirty_bytes: u64,
    /// Memory of those that run, bytes.
    pub(crate) memory_bytes: u64,
    pub(crate) running: usize,
    /// Running and unwell.
    pub(crate) unwell: usize,
    /// They have disks that do not change at this moment.
    pub(crate) down: usize,
    /// On their way, out of reach, or in a state that this policy does not know: their disks cannot be had.
    pub(crate) blocked: usize,
}

impl Whole {
    pub(crate) fn read(instances: &impl Instances) -> Self {
        let (states, healths) = (instances.states(), instances.healths());
        let (dirty, memory) = (instances.dirty_bytes(), instances.memory_bytes());
        let mut whole = Self { dirty_bytes: dirty.iter().sum(), ..Self::default() };
        for (row, code) in states.iter().enumerate() {
            match *code {
                state::RUNNING => {
                    whole.running += 1;
                    whole.memory_bytes += memory[row];
                    whole.unwell += usize::from(healths[row] == health::UNHEALTHY);
                }
                state::STOPPED | state::FAILED => whole.down += 1,
                state::WAITING => {}
                _ => whole.blocked += 1,
            }
        }
        whole
    }
}

/// Whether a checkpoint is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// So much was written.
    Dirty { dirty_bytes: u64 },
    /// It is so long since the last.
    Old { minutes: u64 },
    /// Not before this time, milliseconds from now.
    In(u64),
}

/// When a checkpoint is due, if the last good one is of `newest_ms` (or the deployment began then).
pub(crate) fn due(
    settings: &Settings,
    remembered: &Remembered,
    whole: &Whole,
    now_ms: u64,
    newest_ms: u64,
) -> Due {
    let age_ms = now_ms.saturating_sub(newest_ms);
    let min_ms = u64::from(settings.interval_minutes_min) * MINUTE_MS;
    let max_ms = u64::from(settings.interval_minutes_max) * MINUTE_MS;
    if remembered.ordered_ms > newest_ms && now_ms.saturating_sub(remembered.ordered_ms) < ORDER_MS_MAX {
        return Due::In(remembered.ordered_ms + ORDER_MS_MAX - now_ms);
    }
    if age_ms < min_ms {
        return Due::In(min_ms - age_ms);
    }
    if whole.dirty_bytes >= settings.dirty_bytes {
        return Due::Dirty { dirty_bytes: whole.dirty_bytes };
    }
    if age_ms >= max_ms {
        return Due::Old { minutes: age_ms / MINUTE_MS };
    }
    let until_dirty_ms = until(settings.dirty_bytes - whole.dirty_bytes, remembered.rate);
    Due::In(until_dirty_ms.min(max_ms - age_ms))
}

/// Milliseconds until so many bytes are written at that rate.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive quotient; a conversion to an integer saturates"
)]
fn until(bytes: u64, rate: f64) -> u64 {
    if rate > 0.0 { (bytes as f64 / rate) as u64 } else { u64::MAX }
}
