//! A recorded question of any kind, and its answer as JSON.

use super::guest_file::GuestFile;
use crate::failure::Failure;
use plugins_runtime::checkpoint::CheckpointInput;
use plugins_runtime::introspection::{GuestViews, IntrospectionInput};
use plugins_runtime::placement::{PlacementInput, PlacementQuestion, Snapshot};
use plugins_runtime::update::UpdateInput;
use plugins_runtime::{Decision, Kind, Policy, PolicyError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Largest recorded input that is read, in bytes: 20,000 hosts have some 4 MiB.
const INPUT_BYTES_MAX: usize = 64 << 20;

/// A question.
#[derive(Debug)]
pub(super) enum Question {
    Placement(Box<PlacementInput>),
    /// The same about hosts that were looked at before, as a controller asks.
    Among(Arc<Snapshot>, Box<PlacementQuestion>),
    Update(Box<UpdateInput>),
    Checkpoint(Box<CheckpointInput>),
    Introspection(Box<IntrospectionInput>, Arc<dyn GuestViews>),
}

/// An answer.
pub(super) struct Answer {
    pub(super) verdict: Value,
    pub(super) took_us: u64,
    /// Linear memory that the call took.
    pub(super) memory_bytes: u64,
    /// What it logged.
    pub(super) log: Vec<String>,
}

impl Question {
    /// Reads a recorded input; what an introspection policy sees of its guest is beside it, in `NAME.guest.json`.
    pub(super) fn read(kind: Kind, path: &Path) -> Result<Self, Failure> {
        Ok(match kind {
            Kind::Placement => Self::Placement(document(path)?),
            Kind::Update => Self::Update(document(path)?),
            Kind::Checkpoint => Self::Checkpoint(document(path)?),
            Kind::Introspection => {
                let beside = path.with_extension("guest.json");
                let guest: GuestFile =
                    if beside.exists() { document(&beside)? } else { GuestFile::default() };
                Self::Introspection(document(path)?, Arc::new(guest))
            }
        })
    }

    /// Does beforehand what a controller does once for many questions.
    pub(super) fn prepared(self) -> Result<Self, PolicyError> {
        match self {
            Self::Placement(input) => {
                let question = Box::new(PlacementQuestion::of(&input));
                Ok(Self::Among(Snapshot::new(&input.hosts)?, question))
            }
            other => Ok(other),
        }
    }

    /// Asks it.
    pub(super) fn ask(&self, policy: &Policy) -> Result<Answer, PolicyError> {
        match self {
            Self::Placement(input) => policy.place(input).and_then(answer),
            Self::Among(hosts, question) => policy.place_among(hosts, question).and_then(answer),
            Self::Update(input) => policy.next_step(input).and_then(answer),
            Self::Checkpoint(input) => policy.schedule(input).and_then(answer),
            Self::Introspection(input, guest) => policy.inspect(input, Arc::clone(guest)).and_then(answer),
        }
    }
}

fn answer<V: Serialize>(decision: Decision<V>) -> Result<Answer, PolicyError> {
    let verdict = serde_json::to_value(&decision.verdict)
        .map_err(|error| PolicyError::BadAnswer { detail: error.to_string() })?;
    let log = decision.logs.into_iter().map(|line| line.message).collect();
    Ok(Answer { verdict, took_us: decision.took_us, memory_bytes: decision.memory_bytes, log })
}

fn document<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let bytes = super::component::read(path, INPUT_BYTES_MAX)?;
    let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
    serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| Failure::refused(vec![format!("{}: {error}", path.display())]))
}
