//! The decision when a deployment's checkpoints are taken and which are dropped: what a checkpoint policy is given,
//! and what it may answer.

mod answer;
mod ask;

pub(crate) use ask::{CheckpointsView, View};

use crate::decision::{self, Reason};
use crate::instances::InstanceColumns;
use crate::state::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{Digest, Revision};

/// Most checkpoints of one deployment.
pub const CHECKPOINTS_MAX: usize = 10_000;

/// Everything that a checkpoint policy is told. A function of it and of nothing else is the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointInput {
    /// Identifier of the decision, in logs and in `explain`.
    pub decision_id: String,
    /// The policy's only source of chance.
    pub seed: u32,
    /// When the decision was asked for: milliseconds since 1970, below 2^53.
    pub now_ms: u64,
    /// Revision of the store behind the columns, below 2^53.
    pub revision: Revision,
    /// The policy's settings: an object, or null for the policy's defaults.
    #[serde(default)]
    pub settings: serde_json::Value,
    /// The deployment.
    pub subject: Subject,
    /// Its instances.
    pub instances: InstanceColumns,
    /// Its checkpoints.
    pub checkpoints: CheckpointColumns,
    /// What the last plan about this deployment said; empty at first.
    #[serde(default)]
    pub state: State,
}

/// A deployment whose checkpoints are looked after. All numbers are below 2^53.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name.
    pub deployment: String,
    /// First start of the deployment, milliseconds since 1970.
    pub created_ms: u64,
    /// Bytes that its checkpoints take.
    pub used_bytes: u64,
    /// Bytes that they may take; 0 = no limit.
    #[serde(default)]
    pub quota_bytes: u64,
    /// Extension point, `vendor/key` and value.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// Who wanted a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A checkpoint policy.
    #[default]
    Policy,
    /// A person.
    Person,
    /// An update, to come back to.
    Update,
}

impl Cause {
    /// The contract's code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Policy => 0,
            Self::Person => 1,
            Self::Update => 2,
        }
    }
}

/// What is known of a checkpoint's worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// Nobody tried.
    #[default]
    Never,
    /// It was restored with success.
    Restored,
    /// It cannot be restored.
    Damaged,
}

impl Verified {
    /// The contract's code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Never => 0,
            Self::Restored => 1,
            Self::Damaged => 2,
        }
    }
}

/// One checkpoint, before it is a row of [`CheckpointColumns`]. All numbers are below 2^53.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its name.
    pub name: String,
    /// When it was taken, milliseconds since 1970.
    pub taken_ms: u64,
    /// Bytes that dropping it alone would free.
    pub size_bytes: u64,
    /// It holds memory.
    pub with_memory: bool,
    /// Who wanted it.
    pub cause: Cause,
    /// A person forbade to drop it.
    pub pinned: bool,
    /// What is known of its worth.
    pub verified: Verified,
}

/// The checkpoints as columns: element *i* of each describes checkpoint *i*, oldest first. All have the same length, at
/// most [`CHECKPOINTS_MAX`]. Collecting [`Checkpoint`]s makes columns that keep these rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointColumns {
    /// Names, each once.
    pub names: Vec<String>,
    /// When each was taken, milliseconds since 1970, ascending.
    pub taken_ms: Vec<u64>,
    /// Bytes that dropping each alone would free.
    pub sizes_bytes: Vec<u64>,
    /// Which hold memory.
    pub with_memory: Vec<bool>,
    /// Who wanted them.
    pub causes: Vec<Cause>,
    /// Which a person forbade to drop.
    pub pinned: Vec<bool>,
    /// What is known of their worth.
    pub verified: Vec<Verified>,
}

/// A plan and what it came from.
pub type Decision = decision::Decision<CheckpointPlan>;

/// What the policy says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointPlan {
    /// Take one now.
    #[serde(default)]
    pub take: Option<Take>,
    /// Drop these, each once, after the new one is there. None is pinned.
    #[serde(default)]
    pub discards: Vec<Discard>,
    /// Ask again after this time, or earlier when something changes: milliseconds, 1 ..= 86,400,000.
    pub next_call_ms: u64,
    /// To be given back at the next call about this deployment.
    #[serde(default)]
    pub state: State,
}

/// One to take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Take {
    /// Hold memory as well, so that programs go on where they were.
    pub with_memory: bool,
    /// Longest pause of the guests that is acceptable, milliseconds, 1 ..= 60,000.
    pub pause_max_ms: u64,
    /// Why, at least one.
    pub reasons: Vec<Reason>,
}

/// One to drop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Discard {
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Why, at least one.
    pub reasons: Vec<Reason>,
}

impl CheckpointInput {
    /// SHA-256 of the input as JSON without white space, keys in the order of their bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        crate::canonical::digest(self)
    }
}

/// Sorts by instant, then by name.
impl FromIterator<Checkpoint> for CheckpointColumns {
    fn from_iter<I: IntoIterator<Item = Checkpoint>>(checkpoints: I) -> Self {
        let mut rows: Vec<_> = checkpoints.into_iter().collect();
        rows.sort_by(|a, b| (a.taken_ms, &a.name).cmp(&(b.taken_ms, &b.name)));
        let mut columns = Self::default();
        for row in rows {
            columns.names.push(row.name);
            columns.taken_ms.push(row.taken_ms);
            columns.sizes_bytes.push(row.size_bytes);
            columns.with_memory.push(row.with_memory);
            columns.causes.push(row.cause);
            columns.pinned.push(row.pinned);
            columns.verified.push(row.verified);
        }
        columns
    }
}
