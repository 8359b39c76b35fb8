//! Questions, the same way for every kind.

use plugins_runtime::{Decision, Policy, PolicyError};
use serde::Serialize;

/// One question.
pub(crate) struct Case {
    /// What it is about, after "it answers about".
    pub(crate) name: String,
    /// Rows, if its cost is of interest; else 0.
    pub(crate) rows: u32,
    pub(crate) ask: Ask,
}

/// Asks it.
pub(crate) type Ask = Box<dyn Fn(&Policy) -> Result<Answer, PolicyError>>;

/// An answer, as far as kinds have it in common.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) verdict: serde_json::Value,
    pub(crate) took_us: u64,
    /// In a few words.
    pub(crate) summary: String,
    /// What the controller will not do though the contract allows to say it.
    pub(crate) unwise: Option<String>,
}

impl Answer {
    pub(crate) fn of<V: Serialize>(decision: &Decision<V>, summary: String) -> Self {
        // Plain structs with text keys become JSON.
        let verdict = serde_json::to_value(&decision.verdict).unwrap_or_default();
        Self { verdict, took_us: decision.took_us, summary, unwise: None }
    }
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        ask: impl Fn(&Policy) -> Result<Answer, PolicyError> + 'static,
    ) -> Self {
        Self { name: name.into(), rows: 0, ask: Box::new(ask) }
    }

    /// Whose cost is of interest.
    pub(crate) fn sized(mut self, rows: u32) -> Self {
        self.rows = rows;
        self
    }
}
