//! The figures the simulation sweeps.

use std::time::Duration;

/// What may be tuned. The defaults are those the curves in `integration/simulation/README.md` chose.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// Queue kept at the slowest link of a path, as a share of a piece: an urgent piece comes later by so much of its
    /// own time. At 0.25 an urgent read's p99 beside saturating prefetch is at most 1.27 of idle, at 0.5 it is 1.49.
    pub slack: f64,
    /// Factor on a path's bandwidth-delay product; above 1, so that a window can grow.
    pub headroom: f64,
    /// Share of the window that the profile keeps while a guest waits. None for background. With nothing, 64 hosts are
    /// 5 % slower and take 8 % more from the origin: what a guest waits for is often held up elsewhere.
    pub waiting_share: f64,
    /// Missing pieces of the profile among which a host picks at random while it has near peers. In order, 64 hosts take
    /// half as long again.
    pub diversity_pieces: usize,
    /// Missing pieces of the profile that may be asked for at all. With 64, those who should fetch are further apart,
    /// and 64 hosts take 1.4 times the unique bytes from the origin; with 32, 1.1 times.
    pub window_pieces: usize,
    /// Per rank, at least: how long a host that is not the one of its site to fetch a piece waits for the one that is.
    /// What an origin has queued for a crowd takes seconds on a slow line: 64 hosts at 20 Mbit/s take 2.00 times the
    /// unique bytes from it with 800 ms, 1.16 times with 5 s, and boot no slower.
    pub site_patience: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            slack: 0.25,
            headroom: 1.25,
            waiting_share: 0.5,
            diversity_pieces: 32,
            window_pieces: 32,
            site_patience: Duration::from_secs(5),
        }
    }
}

impl Tuning {
    pub(super) fn slack_blocks(&self, piece_blocks: u32) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped right after")]
        let slack = (f64::from(piece_blocks) * self.slack) as u32;
        slack.clamp(2, 16)
    }
}
