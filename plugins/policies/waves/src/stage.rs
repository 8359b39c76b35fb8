//! Where a rollout is: in its canary or in which wave, and whether it may go on.

use crate::fleet::{Fleet, Touched};
use crate::settings::{OnFailure, Settings, exceeds, percent_of};
use plugins_sdk::Reason;

const MINUTE_MS: u64 = 60_000;

/// A canary or a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage {
    /// 0 is the canary.
    pub(crate) number: usize,
    /// Instances that may be touched once it is over.
    pub(crate) touched_max: usize,
    /// Nobody rolls before: the stage before it ended too shortly ago. Milliseconds since 1970.
    pub(crate) not_before_ms: u64,
}

impl Stage {
    pub(crate) fn is_canary(self) -> bool {
        self.number == 0
    }

    /// For people.
    pub(crate) fn name(self, settings: &Settings) -> String {
        match self.number {
            0 => "the canary".to_owned(),
            number => format!("wave {number} of {}", settings.waves.len()),
        }
    }
}

/// The stage that is under way or comes next. It is computed from the outcomes alone, so that a policy that was
/// upgraded in the middle goes on where its predecessor was.
pub(crate) fn stage(settings: &Settings, fleet: &Fleet) -> Stage {
    let (total, touched) = (fleet.total(), &fleet.touched);
    let canary = settings.canary.of(total);
    if touched.succeeded < canary {
        // One that an operator gave up or forgave proves nothing: another takes its place.
        let proves_nothing = touched.all - touched.succeeded - touched.under_way;
        return Stage { number: 0, touched_max: canary + proves_nothing, not_before_ms: 0 };
    }
    let ended = touched.all - touched.under_way;
    let mut before = canary;
    for (number, percent) in (1..).zip(&settings.waves) {
        let touched_max = percent_of(*percent, total).max(before);
        if ended < touched_max || number == settings.waves.len() {
            let begun = touched.all > before || touched.last_finished_ms == 0;
            let pause_ms = u64::from(settings.pause_minutes) * MINUTE_MS;
            let not_before_ms = if begun { 0 } else { touched.last_finished_ms + pause_ms };
            return Stage { number, touched_max, not_before_ms };
        }
        before = touched_max;
    }
    // Validated settings have a wave.
    Stage { number: settings.waves.len(), touched_max: total, not_before_ms: 0 }
}

/// Whether too much has failed for the rollout to go on, and what happens then.
pub(crate) fn failure(settings: &Settings, fleet: &Fleet, stage: Stage) -> Option<(OnFailure, Vec<Reason>)> {
    let Touched { succeeded, failed_unforgiven: failed, ill, watched, .. } = fleet.touched;
    if stage.is_canary() && failed > 0 {
        let text = format!("{failed} of the first {} failed", succeeded + failed);
        return Some((settings.on_canary_failure, vec![Reason::plain("canary-failed", text)]));
    }
    let canary_alone = fleet.touched.all <= settings.canary.of(fleet.total());
    let consequence =
        if stage.is_canary() || canary_alone { settings.on_canary_failure } else { settings.on_failure };
    let mut reasons = Vec::new();
    if exceeds(failed, succeeded + failed, settings.failed_percent_max) {
        let most = settings.failed_percent_max;
        let text = format!("{failed} of {} rolls failed, more than {most} %", succeeded + failed);
        reasons.push(Reason::plain("too-many-failed", text));
    }
    if exceeds(ill, watched, settings.unhealthy_percent_max) {
        let most = settings.unhealthy_percent_max;
        let text =
            format!("{ill} of {watched} instances with the new version are unwell, more than {most} %");
        reasons.push(Reason::plain("too-many-unwell", text));
    }
    (!reasons.is_empty()).then_some((consequence, reasons))
}
