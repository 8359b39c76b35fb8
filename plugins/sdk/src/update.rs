//! Rolling a version out: the rollout, the instances as columns, the plan.

use crate::instances::{health, state};
use crate::{Context, Instances, Plugin, PolicyError, Reason};

/// Most instances that one plan rolls.
pub const ROLLS_MAX: usize = 1000;

/// The longest wait that an answer may name: one day.
pub const WAIT_MS_MAX: u64 = 86_400_000;

/// Most bytes of state.
pub const STATE_BYTES_MAX: usize = 64 << 10;

/// An update policy. The function is pure.
pub trait UpdatePolicy: Plugin {
    /// Says what happens next in a rollout. `state` is what the last call about it answered, empty at first.
    ///
    /// # Errors
    /// The policy has no decision.
    fn next_step(
        settings: &Self::Settings,
        rollout: &Rollout,
        instances: &impl Instances,
        context: &impl Context,
        state: &[u8],
    ) -> Result<Plan, PolicyError>;
}

/// One version that is to replace others. Fields as in `update.rollout` of the WIT package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rollout {
    /// Stable over the calls of one rollout.
    pub id: String,
    /// `publisher/appliance`.
    pub appliance: String,
    /// Channel that moved; empty if a person named the version.
    pub channel: String,
    /// Version to go to.
    pub target: String,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// Most instances that may be down at the same time, at least 1.
    pub unavailable_max: u32,
    /// Every roll so far, oldest first.
    pub outcomes: Vec<Outcome>,
    /// Extension point: key and value.
    pub attributes: Vec<(String, String)>,
}

/// What became of a roll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `deployment/member`.
    pub instance: String,
    /// Its index in this call; absent if it is no longer there.
    pub row: Option<u32>,
    /// Milliseconds since 1970.
    pub ordered_ms: u64,
    /// Milliseconds since 1970; 0 while it is under way.
    pub finished_ms: u64,
    /// How it stands.
    pub status: Status,
    /// Why; may be empty.
    pub detail: String,
}

/// How a roll stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not finished.
    UnderWay,
    /// The instance runs the target and stayed healthy for its soak.
    Succeeded,
    /// It does not.
    Failed,
    /// It went back to where it was.
    RolledBack,
    /// An operator gave it up.
    GivenUp,
    /// A code of a later contract.
    Other(u8),
}

impl Status {
    /// From the contract's code.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::UnderWay,
            1 => Self::Succeeded,
            2 => Self::Failed,
            3 => Self::RolledBack,
            4 => Self::GivenUp,
            other => Self::Other(other),
        }
    }
}

/// One instance that rolls now.
#[derive(Debug, Clone, PartialEq)]
pub struct Roll {
    /// Index of the instance.
    pub instance: u32,
    /// The roll has failed unless the instance is healthy for this long, at most [`WAIT_MS_MAX`].
    pub soak_ms: u64,
    /// Take a checkpoint first, to come back to.
    pub checkpoint: bool,
    /// Why this one, at most 32.
    pub reasons: Vec<Reason>,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// These roll now: 1 to [`ROLLS_MAX`].
    Proceed(Vec<Roll>),
    /// Nobody rolls now.
    Hold {
        /// Ask again after this time.
        retry_after_ms: u64,
        /// Why, at least one.
        reasons: Vec<Reason>,
    },
    /// Nobody rolls until an operator says so. At least one reason.
    Halt(Vec<Reason>),
    /// Every touched instance goes back, and the version is not tried again. At least one reason.
    RollBack(Vec<Reason>),
    /// Nothing is left to do.
    Complete(Vec<Reason>),
}

/// A policy's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What happens.
    pub next: Step,
    /// Ask again after this time, or earlier when a roll ends; 1 to [`WAIT_MS_MAX`].
    pub next_call_ms: u64,
    /// Opaque, at most [`STATE_BYTES_MAX`].
    pub state: Vec<u8>,
}

/// Whether an instance counts against `unavailable-max` even if nobody rolls it: it is meant to run, and does not run
/// or is not well. One that is under way counts as well; one that is stopped on purpose does not.
#[must_use]
pub fn is_down(state_code: u8, health_code: u8) -> bool {
    match state_code {
        state::STOPPED => false,
        state::RUNNING => !matches!(health_code, health::UNKNOWN | health::HEALTHY),
        _ => true,
    }
}
