//! The decision points: which interface a policy of each kind exports, and what it may import.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which decision a policy makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// On which host an instance runs.
    Placement,
    /// Which instances roll to a new version, and when.
    Update,
    /// When checkpoints are taken, and which are dropped.
    Checkpoint,
    /// What is wrong in a guest, seen from outside.
    Introspection,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Placement, Self::Update, Self::Checkpoint, Self::Introspection];

    /// Its name: also that of the interface a policy of this kind exports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placement => "placement",
            Self::Update => "update",
            Self::Checkpoint => "checkpoint",
            Self::Introspection => "introspection",
        }
    }

    /// Interfaces of `collective:policy` that a policy of this kind may import.
    #[must_use]
    pub const fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Placement => &["types", "context", "log", "cluster"],
            Self::Update => &["types", "context", "log", "instances"],
            Self::Checkpoint => &["types", "context", "log", "instances", "checkpoints"],
            Self::Introspection => &[
                "types",
                "context",
                "log",
                "guest",
                "views",
                "guest-memory",
                "guest-cpu",
                "guest-flows",
                "guest-disk",
            ],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of policy: give placement, update, checkpoint or introspection")]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| UnknownKind(text.to_owned()))
    }
}
