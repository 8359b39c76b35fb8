//! Bytes a second, of the last second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Parts the last second is counted in.
const PARTS: usize = 10;
const PART_MS: u128 = 100;

/// Counts bytes of the last second, in tenths. Times are since the engine began.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    parts: [u64; PARTS],
    /// The part that is counted now, since the beginning of time.
    now: u128,
}

impl Ring {
    fn turn(&mut self, now: Duration) {
        let part = (now.as_millis() / PART_MS).max(self.now);
        for gone in (self.now + 1..=part).rev().take(PARTS) {
            self.parts[Self::index(gone)] = 0;
        }
        self.now = part;
    }

    fn index(part: u128) -> usize {
        usize::try_from(part % PARTS as u128).unwrap_or(0)
    }
}

impl Meter {
    /// Bytes passed.
    pub(crate) fn count(&self, bytes: u64, now: Duration) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.turn(now);
        let index = Ring::index(ring.now);
        ring.parts[index] += bytes;
    }

    /// Bytes of the last second.
    pub(crate) fn rate(&self, now: Duration) -> u64 {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.turn(now);
        ring.parts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_second_counts() {
        let (meter, ms) = (Meter::default(), Duration::from_millis);
        meter.count(5, ms(0));
        meter.count(7, ms(450));
        assert_eq!(meter.rate(ms(999)), 12);
        assert_eq!(meter.rate(ms(1_000)), 7);
        assert_eq!(meter.rate(ms(60_000)), 0);
        meter.count(3, ms(60_000));
        assert_eq!(meter.rate(ms(60_900)), 3);
    }
}
