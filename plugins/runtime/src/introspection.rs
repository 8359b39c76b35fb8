//! Watching one guest from outside: the world `introspection-policy`.
//!
//! The guest's content is not part of the input: it is read through [`GuestViews`] while the call runs, is not recorded,
//! and so a call cannot be replayed. Everything else is as for every other kind. Start with [`IntrospectionInput`],
//! [`Report`] and `views.rs`.

mod access;
mod answer;
mod ask;
#[cfg(test)]
pub(crate) mod fake;
mod pages;
mod search;
mod views;

pub use access::Grant;
pub(crate) use ask::View;
pub use views::{Disk, Flow, GuestViews, Paging, Region, ViewError};

use crate::bindings::types::Attribute;
use crate::decision::Reason;
use crate::state::State;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use types::Revision;

/// Bytes of guest memory and disks that a call may read, search and hash if the operator says nothing.
pub const BYTES_MAX_DEFAULT: u64 = 1 << 30;
/// Attributes of a guest, and of a trigger.
pub const ATTRIBUTES_MAX: usize = 64;
/// Bytes of state that go from one call to the next.
pub const STATE_LEN_MAX: usize = 1 << 20;

/// One question about a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionInput {
    /// Identifier of the call, as in logs.
    pub decision_id: String,
    /// The only source of chance.
    pub seed: u32,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Revision of the desired document that asks for the watch.
    pub revision: Revision,
    /// A JSON object, or null for the policy's defaults.
    pub settings: serde_json::Value,
    /// Whom it is about.
    pub guest: GuestFacts,
    /// What the operator lets it see.
    pub grants: BTreeSet<Grant>,
    /// Bytes it may read, search and hash.
    pub bytes_max: u64,
    /// Why it is asked now.
    pub trigger: Trigger,
    /// More about the trigger, at most [`ATTRIBUTES_MAX`].
    #[serde(default)]
    pub trigger_attributes: BTreeMap<String, String>,
    /// What it gave back at the call before; empty at the first.
    #[serde(default)]
    pub state: State,
}

/// What is known of a guest without looking inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestFacts {
    /// `deployment/member`.
    pub instance: String,
    /// `publisher/appliance`; empty if it is not known here.
    pub appliance: String,
    /// Version of it; empty if it is not known here.
    pub version: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Start of its present run, milliseconds since 1970.
    pub started_ms: u64,
    /// It stands still during the call.
    pub paused: bool,
    /// What its maker and operators say of it, at most [`ATTRIBUTES_MAX`].
    pub attributes: BTreeMap<String, String>,
}

/// Why a policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Its time has come.
    Time,
    /// A person asks.
    Person,
    /// The guest started.
    Started,
    /// A checkpoint is about to be taken.
    BeforeCheckpoint,
}

/// What a policy saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// At most 256.
    pub findings: Vec<Finding>,
    /// What was looked at.
    pub reasons: Vec<Reason>,
    /// It wants to look again after this time, 100 ..= 86,400,000 ms.
    pub next_call_ms: u64,
    /// For the next call; at most [`STATE_LEN_MAX`] bytes.
    pub state: State,
}

/// Something that should not be so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable identifier.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// 0.0 ..= 1.0.
    pub confidence: f32,
    /// One sentence.
    pub title: String,
    /// Equal: the same finding seen again. Never empty.
    pub fingerprint: String,
    /// What was seen.
    pub evidence: Vec<Evidence>,
    /// What the policy would do: `alert`, `checkpoint`, `isolate`, `pause`, `stop`.
    pub proposals: Vec<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Odd.
    Low,
    /// Suspicious.
    Medium,
    /// Most likely an attack or a fault.
    High,
    /// The guest is not itself any more.
    Critical,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What was seen, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// `memory`, `disk`, `flow`, `register`, `note` or `vendor/kind`.
    pub kind: String,
    /// Guest address or offset where that applies.
    pub address: Option<u64>,
    /// A sentence.
    pub text: String,
    /// At most 4 KiB.
    pub bytes: Vec<u8>,
}

pub(crate) fn attributes(all: &BTreeMap<String, String>) -> impl Iterator<Item = Attribute> {
    all.iter().map(|(key, value)| Attribute { key: key.clone(), value: value.clone() })
}

/// Which rule of the contract an input breaks, if one.
fn check_input(input: &IntrospectionInput) -> Result<(), String> {
    let attributes =
        [("guest.attributes", &input.guest.attributes), ("trigger_attributes", &input.trigger_attributes)];
    for (name, attributes) in attributes {
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(format!("{name}: {} are more than {ATTRIBUTES_MAX}", attributes.len()));
        }
    }
    if input.state.0.len() > STATE_LEN_MAX {
        return Err(format!("state: {} bytes are more than {STATE_LEN_MAX}", input.state.0.len()));
    }
    if !input.settings.is_null() && !input.settings.is_object() {
        return Err("settings: give an object".to_owned());
    }
    Ok(())
}
