//! How much may be in flight on one path: enough to keep it busy, and hardly more.
//!
//! An urgent block waits behind whatever is already in the pipe, so the window is the path's own bandwidth-delay product
//! plus a fixed, small queue. The rate is sampled as in BBR (Cardwell et al., 2016): blocks delivered while a block was
//! on its way, divided by that time. The delay is the smallest seen, renewed when a block travels alone.

use super::Tuning;
use std::time::Duration;

/// Most blocks nobody waits for that are in flight on one path: with the urgent ones below what any client lets queue.
const WINDOW_BLOCKS_MAX: u32 = 192;

/// Weight of a new sample of the rate.
const RATE_WEIGHT: f64 = 0.125;

/// Weight of a new delay of a block that travelled alone.
const DELAY_WEIGHT: f64 = 0.25;

/// What a block remembers of its path when it is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mark {
    at: Duration,
    delivered: u64,
    alone: bool,
}

/// One path: to a peer, or to all peers of one side.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Blocks in flight.
    pub(super) outstanding: u32,
    /// Those of them that nobody waits for.
    pub(super) others: u32,
    delivered: u64,
    blocks_per_s: f64,
    delay: Option<Duration>,
    /// How long blocks took lately: those somebody waits for, and others.
    took: [Duration; 2],
}

impl Flow {
    pub(super) fn sent(&mut self, urgent: bool, now: Duration) -> Mark {
        let mark = Mark { at: now, delivered: self.delivered, alone: self.outstanding == 0 };
        self.outstanding += 1;
        self.others += u32::from(!urgent);
        mark
    }

    /// A block is not in flight any more.
    pub(super) fn ended(&mut self, urgent: bool) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.others = self.others.saturating_sub(u32::from(!urgent));
    }

    /// A block that nobody waited for is waited for now.
    pub(super) fn promoted(&mut self) {
        self.others = self.others.saturating_sub(1);
    }

    pub(super) fn received(&mut self, mark: Mark, urgent: bool, now: Duration) {
        self.ended(urgent);
        self.delivered += 1;
        let took = now.saturating_sub(mark.at).max(Duration::from_micros(1));
        #[expect(clippy::cast_precision_loss, reason = "a window's worth of blocks")]
        let sample = (self.delivered - mark.delivered) as f64 / took.as_secs_f64();
        let recent = &mut self.took[usize::from(!urgent)];
        *recent = (*recent * 3 + took) / 4;
        self.blocks_per_s += (sample - self.blocks_per_s) * RATE_WEIGHT;
        self.delay = Some(match self.delay {
            None => {
                self.blocks_per_s = sample;
                took
            }
            Some(delay) if mark.alone && took > delay => delay + (took - delay).mul_f64(DELAY_WEIGHT),
            Some(delay) => delay.min(took),
        });
    }

    /// Blocks nobody waits for that may be in flight, for pieces of `piece_blocks` blocks.
    pub(super) fn window(&self, piece_blocks: u32, tuning: &Tuning) -> u32 {
        let slack = tuning.slack_blocks(piece_blocks);
        let Some(delay) = self.delay else { return 2 * slack };
        let product = self.blocks_per_s * delay.as_secs_f64() * tuning.headroom;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped right after")]
        let product = product.min(f64::from(WINDOW_BLOCKS_MAX)) as u32;
        (product + slack).min(WINDOW_BLOCKS_MAX)
    }

    /// How long blocks took lately, queues and all; zero: not known.
    pub(super) fn took(&self, urgent: bool) -> Duration {
        self.took[usize::from(!urgent)]
    }

    /// How long a piece takes on this path at the rate seen; `None`: nothing seen yet.
    pub(super) fn piece_time(&self, piece_blocks: u32) -> Option<Duration> {
        (self.blocks_per_s > 0.0)
            .then(|| Duration::from_secs_f64((f64::from(piece_blocks) / self.blocks_per_s).min(60.0)))
    }
}
