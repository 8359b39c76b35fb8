//! Guests on their way to another host: what people ask, and what they are shown.

use serde::{Deserialize, Serialize};
use std::fmt;
use types::{HostName, InstanceId, SiteName};
use utoipa::ToSchema;

/// How far a move is.
///
/// ```text
///   queued ─> preparing ─> moving ─> switching ─> done
///                 │          │ └─ called off ─> stopping ──┐
///                 │          └─ interrupted ─> returning ──┴─> failed (it runs where it was)
///                 └────────────────────────────────────────> failed
/// ```
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum MovePhase {
    /// It waits for other moves of its hosts, or for a checkpoint.
    #[default]
    Queued,
    /// Its target makes ready: image, disks, ports.
    Preparing,
    /// Bytes travel; it runs at its source.
    Moving,
    /// Somebody called it off: its source is told to stop.
    Stopping,
    /// It was interrupted: its target is cleared first, then its source goes on.
    Returning,
    /// It runs at its target; its source is cleared.
    Switching,
    /// It runs at its target.
    Done,
    /// It runs at its source as before.
    Failed,
}

impl MovePhase {
    /// Nothing more happens.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

impl fmt::Display for MovePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Preparing => "preparing",
            Self::Moving => "moving",
            Self::Stopping => "stopping",
            Self::Returning => "returning",
            Self::Switching => "switching",
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}

/// Who wanted a move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MoveCause {
    /// Somebody, of this very instance.
    #[default]
    Person,
    /// Its host is to be empty.
    Drain,
    /// It is better off elsewhere.
    Rebalance,
}

/// Moves one instance, or all of a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AskMove {
    /// To this host; the placement policy is asked if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<HostName>,
    /// To hosts of this site; where the deployment may be if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// A guest that moves, or the last move of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MoveProgress {
    /// A UUID.
    pub id: String,
    /// What moves.
    pub instance: InstanceId,
    /// From this host.
    pub from: HostName,
    /// To this one.
    pub to: HostName,
    /// How far it is.
    pub phase: MovePhase,
    /// What it waits for, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who wanted it.
    pub cause: MoveCause,
    /// When it was asked for, milliseconds since 1970 UTC.
    pub asked_ms: u64,
    /// When bytes began to travel, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub began_ms: u64,
    /// When it was over, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub ended_ms: u64,
    /// Bytes of memory and disks sent so far.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes that there are to send, as known so far.
    #[serde(default)]
    pub total_bytes: u64,
    /// How long the guest's processors stood, in milliseconds, once it is done.
    #[serde(default)]
    pub downtime_ms: u64,
}
