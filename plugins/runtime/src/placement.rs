//! The decision where an instance goes: what a placement policy is given, and what it may answer.
//!
//! These are values to store: an input with its digest explains a decision and replays it. The WIT records never
//! leave this crate.

mod answer;
mod ask;
mod digest;
mod feasible;
mod question;
mod snapshot;
mod view;

pub use question::PlacementQuestion;
pub use snapshot::{HostFree, Snapshot};
pub(crate) use view::View;

pub use crate::decision::Reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{Digest, Revision};

/// Most hosts of one input.
pub const HOSTS_MAX: usize = 20_000;

/// Most choices of one answer.
pub const CHOICES_MAX: u32 = 64;

/// Most keys of labels.
pub const LABELS_MAX: usize = 256;

/// Attribute of a request: the site it has to be at.
pub const SITE_ATTRIBUTE: &str = "collective/site";

/// Attribute of a request: `true` if only attested hosts will do.
pub const ATTESTED_ATTRIBUTE: &str = "collective/attested";

/// Everything that a placement policy is told. A function of it and of nothing else is the verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementInput {
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
    /// The instance that needs a host.
    pub request: Request,
    /// The hosts.
    pub hosts: Columns,
}

/// The instance that needs a host. All numbers are below 2^53.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// `deployment/member`.
    pub instance: String,
    /// The deployment's name.
    pub deployment: String,
    /// The member's name.
    pub member: String,
    /// `publisher/appliance`.
    pub appliance: String,
    /// Version of the appliance.
    pub version: String,
    /// Milli-vCPU.
    pub vcpus_milli: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes the instance may write on the host: overlay, scratch, volumes that are new there.
    pub disk_bytes: u64,
    /// Bytes of the version's images.
    pub image_bytes: u64,
    /// Host on which it is now, if any; one that is not among the hosts is not told.
    #[serde(default)]
    pub current_host: Option<String>,
    /// Host that holds its volumes: it can be nowhere else.
    #[serde(default)]
    pub pinned_host: Option<String>,
    /// Choices wanted, 1 ..= [`CHOICES_MAX`]; 0 stands for 8.
    #[serde(default)]
    pub choices_max: u32,
    /// Extension point, `vendor/key` and value.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// Whether a host takes instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It does.
    #[default]
    Ready,
    /// An operator said no new ones.
    Cordoned,
    /// It is being emptied.
    Draining,
    /// It has not been heard of.
    Unreachable,
    /// An operator works on it.
    Maintenance,
}

impl HostState {
    /// The state of a code of the contract.
    pub(crate) fn of_code(code: u8) -> Self {
        match code {
            0 => Self::Ready,
            1 => Self::Cordoned,
            2 => Self::Draining,
            3 => Self::Unreachable,
            _ => Self::Maintenance,
        }
    }

    /// The contract's code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Cordoned => 1,
            Self::Draining => 2,
            Self::Unreachable => 3,
            Self::Maintenance => 4,
        }
    }
}

/// The hosts as columns: element *i* of each describes host *i*. All have the same length, at most [`HOSTS_MAX`]; all
/// numbers are below 2^53. Sort the hosts by name: policies break ties in favour of the first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// Names, each once.
    pub names: Vec<String>,
    /// Sites; empty = none.
    pub sites: Vec<String>,
    /// States.
    pub states: Vec<HostState>,
    /// Memory for guests, bytes.
    pub memory_total_bytes: Vec<u64>,
    /// Memory not promised, bytes.
    pub memory_free_bytes: Vec<u64>,
    /// Disk not promised, bytes.
    pub disk_free_bytes: Vec<u64>,
    /// CPU for guests, milli-vCPU.
    pub cpu_total_milli: Vec<u32>,
    /// CPU not promised, milli-vCPU.
    pub cpu_free_milli: Vec<u32>,
    /// Instances of all deployments.
    pub instance_counts: Vec<u32>,
    /// Mean CPU use, 0.0 ..= 1.0.
    pub loads: Vec<f32>,
    /// Bytes of the request's images that the host holds; more than there are counts as all.
    pub image_cached_bytes: Vec<u64>,
    /// Other instances of the request's deployment.
    pub peers: Vec<u32>,
    /// Disk for guests and images, bytes. Empty = not known of any host: 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk_total_bytes: Vec<u64>,
    /// Whether the operator vouches for the host. Empty = for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attested: Vec<bool>,
    /// Values by key of a label; an empty value = the host has no label of that key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Vec<String>>,
    /// Instances that the request wants to be apart from. Empty = none anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rivals: Vec<u32>,
}

/// What the policy says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// These hosts would do.
    Place {
        /// At least one, best first.
        choices: Vec<Choice>,
        /// Why the others are not among them.
        rejections: Vec<Rejection>,
    },
    /// Nothing fits now.
    Defer {
        /// Ask again after this time, milliseconds.
        retry_after_ms: u64,
        /// Why.
        reasons: Vec<Reason>,
        /// Which hosts dropped out.
        rejections: Vec<Rejection>,
    },
    /// Must never be placed as requested.
    Refuse {
        /// Why.
        reasons: Vec<Reason>,
    },
}

/// One host that would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Name of the host.
    pub host: String,
    /// Higher is better. Finite.
    pub score: f64,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// How many hosts dropped out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// As [`Reason::code`].
    pub code: String,
    /// How many hosts.
    pub hosts: u32,
    /// Names of some of them.
    pub examples: Vec<String>,
}

/// The answer to a placement.
pub type Decision = crate::decision::Decision<Verdict>;

impl PlacementInput {
    /// What the verdict is a function of, in 32 bytes; see `placement/digest.rs` for what is hashed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest::input(self)
    }
}
