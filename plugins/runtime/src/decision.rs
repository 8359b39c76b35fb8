//! What every kind of policy answers with: a verdict, and where it came from.

use serde::{Deserialize, Serialize};
use types::Digest;

/// A policy's answer and what it came from. Store it beside its input: `explain` shows it, replay compares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision<V> {
    /// As in the input.
    pub decision_id: String,
    /// Digest of the input.
    pub input_digest: Digest,
    /// Name of the policy.
    pub policy: String,
    /// Version of the policy.
    pub policy_version: String,
    /// SHA-256 of the policy's component.
    pub policy_digest: Digest,
    /// What it says.
    pub verdict: V,
    /// How long the call took by the wall clock, microseconds.
    pub took_us: u64,
    /// Linear memory that the call had at its end, bytes; it never gives any back.
    #[serde(default)]
    pub memory_bytes: u64,
    /// What the policy logged, within its quota.
    #[serde(default)]
    pub logs: Vec<LogLine>,
    /// Lines beyond the quota.
    #[serde(default)]
    pub logs_dropped: u32,
}

/// One step of an explanation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Kebab-case identifier.
    pub code: String,
    /// For people.
    pub text: String,
    /// Share of the score. Finite.
    pub weight: f64,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For authors.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

/// One line that a policy wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// At most 4 KiB.
    pub message: String,
}
