//! Why a call gave no decision.

use crate::bindings::types::PolicyError as Declined;
use crate::kind::Kind;
use serde::{Deserialize, Serialize};

const TEXT_BYTES_MAX: usize = 1024;

/// Why a policy gave no decision. None of these places, rolls, takes, drops or reports anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PolicyError {
    /// The policy says that it has none.
    #[error("the policy has no decision ({reason}): {text}")]
    Declined {
        /// `unsupported`, `invalid-input`, `bad-settings` or `internal`.
        reason: String,
        /// The policy's words.
        text: String,
    },
    /// It used up its processor time.
    #[error("the policy was ended: it ran for more than {deadline_ms} ms")]
    Deadline {
        /// The limit.
        deadline_ms: u64,
    },
    /// It asked for more memory than it may have, and did not survive the no.
    #[error("the policy was ended: it needs more than {bytes_max} bytes of memory")]
    Memory {
        /// The limit.
        bytes_max: u64,
    },
    /// It called its imports too often.
    #[error("the policy was ended: it called the runtime more than {calls_max} times")]
    HostCalls {
        /// The limit.
        calls_max: u32,
    },
    /// It passed too much data at once.
    #[error("the policy was ended: it passed more than {bytes_max} bytes at once")]
    Copied {
        /// The limit.
        bytes_max: u64,
    },
    /// It crashed.
    #[error("the policy crashed: {detail}")]
    Trap {
        /// The kind of trap, and the last error that the policy logged.
        detail: String,
    },
    /// It used an import as the contract forbids.
    #[error("the policy broke the contract: {detail}")]
    Forbidden {
        /// What it did.
        detail: String,
    },
    /// Its data is not what the contract's types say (a pointer, a length, a text that is not UTF-8).
    #[error("the policy's data is malformed: {detail}")]
    Malformed {
        /// What the engine says.
        detail: String,
    },
    /// Its answer has the right types and breaks a rule of the contract.
    #[error("the policy's answer is nonsense: {detail}")]
    BadAnswer {
        /// Which part, and which rule.
        detail: String,
    },
    /// What the caller gave breaks a rule of the contract; the policy was not asked.
    #[error("the policy was not asked: {detail}")]
    BadInput {
        /// Which part, and which rule.
        detail: String,
    },
    /// It decides something else; it was not asked.
    #[error("the policy was not asked: it decides about {is}, not about {asked}")]
    OtherKind {
        /// What it decides.
        is: Kind,
        /// What it was to decide.
        asked: Kind,
    },
    /// Too many calls run at the same time; the policy was not asked.
    #[error("the policy was not asked: {calls_max} calls are under way")]
    Busy {
        /// The limit.
        calls_max: u32,
    },
}

impl PolicyError {
    /// Whether the policy is to blame, and not whoever asked: what a circuit breaker counts. A policy that declines
    /// works.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::Declined { .. } | Self::BadInput { .. } | Self::OtherKind { .. } | Self::Busy { .. }
        )
    }
}

impl From<Declined> for PolicyError {
    fn from(error: Declined) -> Self {
        let (reason, mut text) = match error {
            Declined::Unsupported(text) => ("unsupported", text),
            Declined::InvalidInput(text) => ("invalid-input", text),
            Declined::BadSettings(text) => ("bad-settings", text),
            Declined::Internal(text) => ("internal", text),
        };
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        Self::Declined { reason: reason.to_owned(), text }
    }
}

/// Why a host function ended the guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it called an import while it was asked about itself or its settings")]
    NoSceneYet,
    #[error("it called an import that a policy of its kind does not get")]
    NotOfItsKind,
    #[error("too many host calls")]
    HostCalls,
    #[error("it asked for {what} {index} of {count}")]
    OutOfRange { what: &'static str, index: u32, count: usize },
    #[error("it asked for {count} {what}, more than {count_max}")]
    TooMany { what: &'static str, count: usize, count_max: usize },
}
