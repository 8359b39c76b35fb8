//! Claims: each is verified or not, with the evidence.

use crate::say;
use std::time::Instant;

/// The claims verified so far.
#[derive(Debug)]
pub(crate) struct Claims {
    began: Instant,
    passed: u32,
    failed: Vec<String>,
}

impl Claims {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), passed: 0, failed: Vec::new() }
    }

    /// Announces what comes next.
    pub(crate) fn step(&self, text: &str) {
        say(&format!("[{:5.1} s] {text}", self.began.elapsed().as_secs_f64()));
    }

    /// Records one claim with its evidence.
    pub(crate) fn verify(&mut self, claim: &str, holds: bool, evidence: &str) {
        let word = if holds { "  holds:" } else { "  DOES NOT HOLD:" };
        say(&format!("{word} {claim} ({evidence})"));
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(format!("{claim} ({evidence})"));
        }
    }

    /// Records a claim whose check could not be carried out as one that does not hold.
    pub(crate) fn attempt<T>(&mut self, claim: &str, result: anyhow::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.verify(claim, false, &format!("{error:#}"));
                None
            }
        }
    }

    /// Whether all held so far.
    pub(crate) fn all_hold(&self) -> bool {
        self.failed.is_empty()
    }

    /// Prints the sum and says whether all held.
    pub(crate) fn finish(&self) -> bool {
        for failed in &self.failed {
            say(&format!("does not hold: {failed}"));
        }
        let seconds = self.began.elapsed().as_secs();
        say(&format!("claims: {} passed, {} failed, in {seconds} s", self.passed, self.failed.len()));
        self.failed.is_empty()
    }
}
