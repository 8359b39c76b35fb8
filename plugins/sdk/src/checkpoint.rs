//! Looking after a deployment's checkpoints: the deployment, its instances and checkpoints as columns, the plan.

use crate::{Context, Instances, Plugin, PolicyError, Reason};

/// The longest pause of guests that an answer may name: one minute.
pub const PAUSE_MS_MAX: u64 = 60_000;

/// The longest wait that an answer may name: one day.
pub const WAIT_MS_MAX: u64 = 86_400_000;

/// Most bytes of state.
pub const STATE_BYTES_MAX: usize = 64 << 10;

/// Codes of [`Checkpoints::causes`]. A policy leaves a checkpoint whose code is not among these alone.
pub mod cause {
    /// This policy asked for it.
    pub const POLICY: u8 = 0;
    /// A person did.
    pub const PERSON: u8 = 1;
    /// It was taken before an update.
    pub const UPDATE: u8 = 2;
}

/// Codes of [`Checkpoints::verified`].
pub mod verified {
    /// Never tried.
    pub const NEVER: u8 = 0;
    /// Restored with success.
    pub const GOOD: u8 = 1;
    /// Cannot be restored.
    pub const DAMAGED: u8 = 2;
}

/// A checkpoint policy. The function is pure.
pub trait CheckpointPolicy: Plugin {
    /// Says what happens to a deployment's checkpoints now. `state` is what the last call about it answered, empty at
    /// first.
    ///
    /// # Errors
    /// The policy has no decision.
    fn schedule(
        settings: &Self::Settings,
        subject: &Subject,
        instances: &impl Instances,
        checkpoints: &impl Checkpoints,
        context: &impl Context,
        state: &[u8],
    ) -> Result<Plan, PolicyError>;
}

/// A deployment whose checkpoints are looked after. Fields as in `checkpoint.subject` of the WIT package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its name.
    pub deployment: String,
    /// First start, milliseconds since 1970.
    pub created_ms: u64,
    /// Bytes that its checkpoints take.
    pub used_bytes: u64,
    /// Bytes that they may take; 0 = no limit.
    pub quota_bytes: u64,
    /// Extension point: key and value.
    pub attributes: Vec<(String, String)>,
}

/// The checkpoints as columns, oldest first. Every list has [`checkpoint_count`](Self::checkpoint_count) elements.
pub trait Checkpoints {
    /// Number of checkpoints.
    fn checkpoint_count(&self) -> usize;
    /// Name of a checkpoint; an index out of range traps.
    fn checkpoint_name(&self, checkpoint: u32) -> String;
    /// When each was taken, milliseconds since 1970.
    fn taken(&self) -> Vec<u64>;
    /// Bytes that dropping it alone would free.
    fn sizes_bytes(&self) -> Vec<u64>;
    /// 1 if it holds memory, else 0.
    fn with_memory(&self) -> Vec<u8>;
    /// See [`cause`].
    fn causes(&self) -> Vec<u8>;
    /// 1 if a person forbade to drop it, else 0.
    fn pinned(&self) -> Vec<u8>;
    /// See [`verified`].
    fn verified(&self) -> Vec<u8>;
}

/// Take one now.
#[derive(Debug, Clone, PartialEq)]
pub struct Take {
    /// Hold memory as well.
    pub with_memory: bool,
    /// Longest pause of the guests, 1 to [`PAUSE_MS_MAX`].
    pub pause_max_ms: u64,
    /// At least one.
    pub reasons: Vec<Reason>,
}

/// Drop one.
#[derive(Debug, Clone, PartialEq)]
pub struct Discard {
    /// Index of the checkpoint; not one that is pinned.
    pub checkpoint: u32,
    /// At least one.
    pub reasons: Vec<Reason>,
}

/// A policy's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Take one now.
    pub take: Option<Take>,
    /// Drop these, each once, after the new one is there.
    pub discards: Vec<Discard>,
    /// Ask again after this time, or earlier when something changes; 1 to [`WAIT_MS_MAX`].
    pub next_call_ms: u64,
    /// Opaque, at most [`STATE_BYTES_MAX`].
    pub state: Vec<u8>,
}

/// One checkpoint of a [`History`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name.
    pub name: String,
    /// Milliseconds since 1970.
    pub taken_ms: u64,
    /// Bytes that dropping it alone would free.
    pub size_bytes: u64,
    /// It holds memory.
    pub with_memory: bool,
    /// See [`cause`].
    pub cause: u8,
    /// A person forbade to drop it.
    pub pinned: bool,
    /// See [`verified`].
    pub verified: u8,
}

/// Checkpoints made of rows, for a policy's native tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(Vec<Checkpoint>);

impl History {
    /// These checkpoints, sorted by their instants and names.
    #[must_use]
    pub fn new(mut rows: Vec<Checkpoint>) -> Self {
        rows.sort_by(|a, b| (a.taken_ms, &a.name).cmp(&(b.taken_ms, &b.name)));
        Self(rows)
    }

    /// The checkpoints, oldest first.
    #[must_use]
    pub fn rows(&self) -> &[Checkpoint] {
        &self.0
    }

    fn column<T>(&self, of: impl Fn(&Checkpoint) -> T) -> Vec<T> {
        self.0.iter().map(of).collect()
    }
}

impl Checkpoints for History {
    fn checkpoint_count(&self) -> usize {
        self.0.len()
    }
    fn checkpoint_name(&self, checkpoint: u32) -> String {
        self.0[checkpoint as usize].name.clone()
    }
    fn taken(&self) -> Vec<u64> {
        self.column(|row| row.taken_ms)
    }
    fn sizes_bytes(&self) -> Vec<u64> {
        self.column(|row| row.size_bytes)
    }
    fn with_memory(&self) -> Vec<u8> {
        self.column(|row| row.with_memory.into())
    }
    fn causes(&self) -> Vec<u8> {
        self.column(|row| row.cause)
    }
    fn pinned(&self) -> Vec<u8> {
        self.column(|row| row.pinned.into())
    }
    fn verified(&self) -> Vec<u8> {
        self.column(|row| row.verified)
    }
}
