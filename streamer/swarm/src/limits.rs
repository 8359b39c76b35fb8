//! Rate limits: token buckets that may be changed while they are in use.

use std::num::NonZeroU64;
use std::time::Duration;

/// What a limited flow may send at once after a pause: so much time's worth.
const BURST: Duration = Duration::from_millis(50);
/// But at least a block, in bytes.
const BURST_BYTES_MIN: f64 = 16_384.0;

/// Most bytes of pieces a second, of a whole engine; `None` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// From all peers and web seeds.
    pub download: Option<NonZeroU64>,
    /// To all peers.
    pub upload: Option<NonZeroU64>,
    /// From peers of other sites, origins and web seeds.
    pub far_download: Option<NonZeroU64>,
    /// To peers of other sites and origins.
    pub far_upload: Option<NonZeroU64>,
}

/// Tokens that come at a rate. What is taken may exceed what is there by one block: the debt is waited for.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    rate: Option<NonZeroU64>,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// Another rate from now on; a debt stays.
    pub(crate) fn set(&mut self, rate: Option<NonZeroU64>, now: Duration) {
        self.refill(now);
        self.rate = rate;
        self.tokens = self.tokens.min(self.burst());
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// May a block pass now?
    pub(crate) fn is_ready(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.rate.is_none() || self.tokens > 0.0
    }

    /// A block passes.
    pub(crate) fn spend(&mut self, bytes: u32) {
        if self.rate.is_some() {
            self.tokens -= f64::from(bytes);
        }
    }

    /// When a block may pass; the past if it may now.
    pub(crate) fn ready_at(&self) -> Duration {
        match self.rate {
            Some(rate) if self.tokens <= 0.0 => {
                self.at + Duration::from_secs_f64((1.0 - self.tokens) / as_f64(rate))
            }
            _ => self.at,
        }
    }

    fn burst(&self) -> f64 {
        self.rate.map_or(0.0, |rate| (as_f64(rate) * BURST.as_secs_f64()).max(BURST_BYTES_MIN))
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        if let Some(rate) = self.rate {
            self.tokens = (self.tokens + as_f64(rate) * passed.as_secs_f64()).min(self.burst());
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 bytes a second nobody counts single bytes")]
fn as_f64(rate: NonZeroU64) -> f64 {
    rate.get() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: u32 = 16 << 10;

    /// Bytes that pass a bucket in so many milliseconds, by whoever comes as soon as it may.
    fn passed(bucket: &mut Bucket, from_ms: u64, until_ms: u64) -> u64 {
        let mut bytes = 0;
        let mut now = Duration::from_millis(from_ms);
        while now < Duration::from_millis(until_ms) {
            if bucket.is_ready(now) {
                bucket.spend(BLOCK);
                bytes += u64::from(BLOCK);
            } else {
                now = bucket.ready_at().max(now + Duration::from_nanos(1));
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn a_limit_holds_over_any_ten_seconds_also_after_it_changed(
            before in 16_384u64..1 << 30, rate in 16_384u64..1 << 30, pause_ms in 0u64..60_000
        ) {
            let mut bucket = Bucket::default();
            bucket.set(NonZeroU64::new(before), Duration::ZERO);
            passed(&mut bucket, 0, 1_000);
            bucket.set(NonZeroU64::new(rate), Duration::from_secs(1));
            let from = 1_000 + pause_ms;
            let bytes = passed(&mut bucket, from, from + 10_000);
            // A debt of the rate before, a burst, and the block that went over.
            prop_assert!(bytes <= rate * 10 + rate / 20 + 2 * u64::from(BLOCK));
            prop_assert!(bytes + 2 * u64::from(BLOCK) >= rate * 10, "{} of {}", bytes, rate * 10);
        }
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let mut bucket = Bucket::default();
        for _ in 0..1000 {
            bucket.spend(u32::MAX);
            assert!(bucket.is_ready(Duration::ZERO));
        }
    }
}
