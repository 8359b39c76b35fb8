//! The decision which instances roll to a new version, and when: what an update policy is given, and what it may
//! answer.

mod answer;
mod ask;

pub(crate) use ask::View;

use crate::decision::{self, Reason};
use crate::instances::InstanceColumns;
use crate::state::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{Digest, Revision};

/// Most rolls of one answer.
pub const ROLLS_MAX: usize = 1000;

/// Most outcomes of one rollout.
pub const OUTCOMES_MAX: usize = 20_000;

/// Most instances that may be down: the range of `unavailable_max` ends here.
pub const UNAVAILABLE_MAX: u32 = 20_000;

/// Everything that an update policy is told. A function of it and of nothing else is the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateInput {
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
    /// What is to be rolled out.
    pub rollout: Rollout,
    /// All instances of the rollout's appliance that follow its channel.
    pub instances: InstanceColumns,
    /// What the last plan of this rollout said; empty at first.
    #[serde(default)]
    pub state: State,
}

/// One version that is to replace others of the same appliance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Stable over the calls of one rollout.
    pub id: String,
    /// `publisher/appliance`.
    pub appliance: String,
    /// Channel that moved; empty if a person named the version.
    #[serde(default)]
    pub channel: String,
    /// Version to go to.
    pub target: String,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// Most instances that may be down at the same time, 1 ..= [`UNAVAILABLE_MAX`]. A plan that goes beyond is cut.
    pub unavailable_max: u32,
    /// Every roll so far, oldest first, at most [`OUTCOMES_MAX`].
    #[serde(default)]
    pub outcomes: Vec<Outcome>,
    /// Extension point, `vendor/key` and value. `waves` knows `collective/resumed` (milliseconds since 1970): when an
    /// operator last said that a halted rollout goes on; what had failed before is forgiven.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// What became of a roll that was ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// `deployment/member`; it need not exist any more.
    pub instance: String,
    /// Milliseconds since 1970.
    pub ordered_ms: u64,
    /// Milliseconds since 1970; 0 while it is under way.
    pub finished_ms: u64,
    /// How it stands.
    pub status: RollStatus,
    /// Why, at most 1 KiB; may be empty.
    #[serde(default)]
    pub detail: String,
}

/// How a roll stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollStatus {
    /// Not finished.
    #[default]
    UnderWay,
    /// The instance runs the target and stayed healthy for its soak.
    Succeeded,
    /// It does not.
    Failed,
    /// It went back to where it was.
    RolledBack,
    /// An operator gave it up.
    GivenUp,
}

/// A plan and what it came from.
pub type Decision = decision::Decision<UpdatePlan>;

/// What the policy says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdatePlan {
    /// What happens.
    pub step: Step,
    /// Ask again after this time, or earlier when a roll ends: milliseconds, 1 ..= 86,400,000.
    pub next_call_ms: u64,
    /// To be given back at the next call about this rollout.
    #[serde(default)]
    pub state: State,
}

/// What happens next in a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Step {
    /// These instances roll now.
    Proceed {
        /// At most [`ROLLS_MAX`], each instance once. There is none only if all were cut.
        rolls: Vec<Roll>,
        /// How many more the policy wanted than the rollout's `unavailable_max` has room for: these do not roll.
        #[serde(default)]
        cut: u32,
    },
    /// Nobody rolls now.
    Hold {
        /// Ask again after this time, milliseconds, 1 ..= 86,400,000.
        retry_after_ms: u64,
        /// Why, at least one.
        reasons: Vec<Reason>,
    },
    /// Nobody rolls until an operator says so.
    Halt {
        /// Why, at least one.
        reasons: Vec<Reason>,
    },
    /// Every touched instance goes back to where it was, and the version is not tried again.
    RollBack {
        /// Why, at least one.
        reasons: Vec<Reason>,
    },
    /// Nothing is left to do.
    Complete {
        /// Why; there may be none.
        reasons: Vec<Reason>,
    },
}

/// One instance that rolls now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Roll {
    /// `deployment/member`.
    pub instance: String,
    /// The roll has failed unless the instance is healthy for this long, milliseconds, 0 ..= 86,400,000.
    pub soak_ms: u64,
    /// Take a checkpoint first, to come back to.
    pub checkpoint: bool,
    /// Why this one.
    pub reasons: Vec<Reason>,
}

impl UpdateInput {
    /// SHA-256 of the input as JSON without white space, keys in the order of their bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        crate::canonical::digest(self)
    }
}
