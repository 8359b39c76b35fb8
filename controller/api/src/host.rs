//! What people say of a host, and what moving its instances would be.

use crate::rest::DecisionView;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use types::{HostName, InstanceId};
use utoipa::ToSchema;

/// Whether a host takes instances, as people say it. What is on it runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostService {
    /// It takes instances.
    #[default]
    InService,
    /// It takes no new ones.
    Cordoned,
    /// It takes no new ones, and those on it are to go elsewhere.
    Draining,
    /// Somebody works on it: as draining, and it may be gone at any time.
    Maintenance,
}

impl HostService {
    /// It is the one that needs no word.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        *self == Self::InService
    }

    /// As in JSON, with spaces.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::InService => "in service",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }
}

/// Sets a host's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetService {
    /// To this.
    pub service: HostService,
}

/// Changes a host's labels: those that are not named stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeLabels {
    /// New or other values. Keys: 1 to 63 of `a-z 0-9 . _ - /`, starting with a letter or digit; values: 1 to 63 of
    /// `A-Z a-z 0-9 . _ -`. A host has 64 at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// These go; it does not matter whether they are there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<String>,
}

/// An operator vouches for a host's firmware and software.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attest {
    /// What was looked at, and how; 1 to 1,024 bytes.
    pub note: String,
}

/// Somebody vouched for a host. It holds for the certificate that the host had then: one that joins anew has lost it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttestationView {
    /// What was looked at, and how.
    pub note: String,
    /// Who: `token:<id>`.
    pub who: String,
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
}

/// Asks where instances would go. The answers are stored as decisions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AskMoves {
    /// Most moves of the answer, 1 to 1,000; 1,000 if absent for an evacuation, 10 for a rebalance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_max: Option<u32>,
    /// Only for a rebalance: the least gain worth a move, as a share of the present host's score, 0 to 10; 0.1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain_min: Option<f64>,
    /// They are sent there, alive, one after the other; otherwise nothing moves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub execute: bool,
}

/// Where instances would go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MovesView {
    /// The moves are ordered: `GET /v1/moves` says how far they are. If not, instances are where they were.
    pub executed: bool,
    /// Instances that were asked about, or are bound to their host.
    pub considered: u32,
    /// In the order in which they would be made.
    pub moves: Vec<MoveView>,
}

/// One instance that would move, or cannot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MoveView {
    /// Which.
    pub instance: InstanceId,
    /// Where it is.
    pub from: HostName,
    /// Where it would be; none if nowhere.
    pub to: Option<HostName>,
    /// Score of the new host less that of the present one, in the policy's points; none if the policy did not rank the
    /// present one.
    pub gain: Option<f64>,
    /// Why, `code: text (weight)`, or what stands against it.
    pub reasons: Vec<String>,
    /// The stored decision; none if no policy was asked.
    pub decision: Option<u64>,
}

/// Where an apply would place a new instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedPlacement {
    /// Which.
    pub instance: InstanceId,
    /// The policy's answer, as it would be stored; its number is 0.
    pub decision: DecisionView,
}
