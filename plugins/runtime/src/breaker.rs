//! When a failing policy is left alone for a while.
//!
//! A policy that fails again and again costs its deadline each time and fills the log with the same words. After some
//! failures in a row it is not asked any more until a pause is over; then one question tries it. Each time that fails
//! the pause doubles; an answer ends it. Pure: the caller says what time it is and keeps the value.

use crate::error::PolicyError;
use serde::{Deserialize, Serialize};

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerLimits {
    /// Failures in a row that open it, at least 1.
    pub failures_max: u32,
    /// First pause, milliseconds.
    pub pause_first_ms: u64,
    /// Longest pause, milliseconds.
    pub pause_max_ms: u64,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self { failures_max: 5, pause_first_ms: 1_000, pause_max_ms: 300_000 }
    }
}

/// The breaker of one policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    limits: BreakerLimits,
    /// Failures in a row.
    failures: u32,
    /// Times that it opened since the last answer.
    openings: u32,
    /// Not asked before this instant; 0 while it is closed.
    until_ms: u64,
    /// A question is on its way that tries whether the policy works again.
    trying: bool,
    last: String,
}

/// What it does, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BreakerState {
    /// The policy is asked.
    Closed {
        /// Failures in a row so far.
        failures: u32,
    },
    /// It is left alone.
    Open {
        /// Until this instant, milliseconds since 1970.
        until_ms: u64,
        /// Failures in a row.
        failures: u32,
        /// The last of them.
        last: String,
    },
    /// The pause is over: the next question tries it, or one is on its way.
    Trying {
        /// Failures in a row.
        failures: u32,
        /// The last of them.
        last: String,
    },
}

/// Why the policy is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the policy is left alone for {left_ms} ms: it failed {failures} times in a row, the last time because {last}"
)]
pub struct LeftAlone {
    /// Time until it is tried again, milliseconds; 0 while a question tries it.
    pub left_ms: u64,
    /// Failures in a row.
    pub failures: u32,
    /// The last of them.
    pub last: String,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(limits: BreakerLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Whether the policy may be asked now. Every yes is followed by [`Breaker::record`] or [`Breaker::forget`].
    ///
    /// # Errors
    /// It is left alone.
    pub fn admit(&mut self, now_ms: u64) -> Result<(), LeftAlone> {
        if self.until_ms == 0 {
            return Ok(());
        }
        if now_ms >= self.until_ms && !self.trying {
            self.trying = true;
            return Ok(());
        }
        Err(LeftAlone {
            left_ms: self.until_ms.saturating_sub(now_ms),
            failures: self.failures,
            last: self.last.clone(),
        })
    }

    /// Takes an outcome into account. An error that is not the policy's fault ([`PolicyError::is_fault`]) says nothing
    /// about it.
    pub fn record(&mut self, now_ms: u64, failure: Option<&PolicyError>) {
        match failure {
            // It declined, which is an answer.
            None | Some(PolicyError::Declined { .. }) => *self = Self::new(self.limits),
            Some(error) if !error.is_fault() => self.forget(),
            Some(error) => self.fail(now_ms, error),
        }
    }

    /// The question that was admitted was not asked after all.
    pub fn forget(&mut self) {
        self.trying = false;
    }

    fn fail(&mut self, now_ms: u64, error: &PolicyError) {
        self.failures = self.failures.saturating_add(1);
        self.last = error.to_string();
        self.trying = false;
        if self.failures >= self.limits.failures_max.max(1) && now_ms >= self.until_ms {
            let doubled = self.limits.pause_first_ms.saturating_mul(1 << self.openings.min(32));
            self.openings = self.openings.saturating_add(1);
            self.until_ms = now_ms.saturating_add(doubled.clamp(1, self.limits.pause_max_ms.max(1)));
        }
    }

    /// What it does at that instant.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> BreakerState {
        let (failures, last) = (self.failures, self.last.clone());
        match self.until_ms {
            0 => BreakerState::Closed { failures },
            until_ms if now_ms < until_ms => BreakerState::Open { until_ms, failures, last },
            _ => BreakerState::Trying { failures, last },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: BreakerLimits = BreakerLimits { failures_max: 3, pause_first_ms: 100, pause_max_ms: 350 };

    fn deadline() -> PolicyError {
        PolicyError::Deadline { deadline_ms: 50 }
    }

    /// Fails until it opens at that instant.
    fn open(now_ms: u64) -> Breaker {
        let mut breaker = Breaker::new(LIMITS);
        for _ in 0..3 {
            breaker.admit(now_ms).unwrap();
            breaker.record(now_ms, Some(&deadline()));
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_before() {
        let mut breaker = Breaker::new(LIMITS);
        for failure in [true, true, false, true, true] {
            assert_eq!(breaker.admit(7), Ok(()));
            breaker.record(7, failure.then(deadline).as_ref());
        }
        assert_eq!(breaker.state(7), BreakerState::Closed { failures: 2 });
        breaker.record(7, Some(&deadline()));
        let left_alone = breaker.admit(8).unwrap_err();
        assert_eq!((left_alone.left_ms, left_alone.failures), (99, 3));
        assert!(left_alone.to_string().contains("ran for more than 50 ms"), "{left_alone}");
    }

    #[test]
    fn one_question_tries_it_when_the_pause_is_over() {
        let mut breaker = open(1000);
        assert!(breaker.admit(1099).is_err());
        assert_eq!(breaker.admit(1100), Ok(()));
        assert!(breaker.admit(1100).is_err(), "a second one while the first is on its way");
        breaker.record(1100, None);
        assert_eq!(breaker.state(1100), BreakerState::Closed { failures: 0 });
    }

    #[test]
    fn each_failed_try_doubles_the_pause_up_to_the_longest() {
        let mut breaker = open(0);
        let mut now_ms = 100;
        for pause_ms in [200, 350, 350] {
            breaker.admit(now_ms).unwrap();
            breaker.record(now_ms, Some(&deadline()));
            assert_eq!(breaker.admit(now_ms).unwrap_err().left_ms, pause_ms);
            now_ms += pause_ms;
        }
    }

    #[test]
    fn what_is_not_its_fault_says_nothing_and_to_decline_is_an_answer() {
        let mut breaker = open(0);
        breaker.admit(100).unwrap();
        breaker.record(100, Some(&PolicyError::Busy { calls_max: 1 }));
        assert_eq!(breaker.admit(100), Ok(()), "the next one may try it");
        let declined = PolicyError::Declined { reason: "unsupported".into(), text: String::new() };
        breaker.record(100, Some(&declined));
        assert_eq!(breaker.state(100), BreakerState::Closed { failures: 0 });
    }

    #[test]
    fn failures_of_questions_that_were_on_their_way_when_it_opened_do_not_lengthen_the_pause() {
        let mut breaker = open(1000);
        breaker.record(1001, Some(&deadline()));
        assert_eq!(breaker.admit(1001).unwrap_err().left_ms, 99);
    }

    proptest! {
        #[test]
        fn whatever_happened_it_is_tried_again_within_the_longest_pause(
            steps in proptest::collection::vec((0u64..200, any::<bool>()), 0..60),
        ) {
            let (mut breaker, mut now_ms) = (Breaker::new(LIMITS), 1);
            for (pause_ms, failure) in steps {
                now_ms += pause_ms;
                if breaker.admit(now_ms).is_ok() {
                    breaker.record(now_ms, failure.then(deadline).as_ref());
                }
            }
            prop_assert_eq!(breaker.admit(now_ms + LIMITS.pause_max_ms), Ok(()));
        }
    }
}
