//! Checkpoints as people ask for them and are told of them.

use crate::agent::InstanceState;
use crate::life::DiskName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use types::{ApplianceRef, Base64, DeploymentName, HostName, MemberName, SiteName, VersionName};
use utoipa::ToSchema;

/// Longest that guests may be without a network for a checkpoint, in milliseconds, if nobody says otherwise; with memory,
/// more by [`PAUSE_MS_PER_GIB`].
pub const PAUSE_MS_DEFAULT: u64 = 5_000;
/// Longer by this for every GiB of memory that is saved, in milliseconds.
pub const PAUSE_MS_PER_GIB: u64 = 10_000;
/// Bounds of what can be asked for, in milliseconds.
pub const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=600_000;

/// How far a checkpoint is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointPhase {
    /// It is ordered; nothing has happened to the guests.
    Requested,
    /// The ports of all members are being held.
    Holding,
    /// All ports are held; the members are being captured.
    Taking,
    /// It is taken and on its hosts' disks, and can be gone back to; its files are on their way to be images.
    Keeping,
    /// Every host of the cluster can fetch its files.
    #[default]
    Complete,
    /// It was not taken and will not be.
    Failed,
    /// Nobody can go back to it; a running guest's disk stands on its files.
    Dropped,
}

/// Who wanted a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointOrigin {
    /// The deployment's checkpoint policy.
    Policy,
    /// A person.
    Person,
    /// An update, to come back to.
    Update,
    /// A restore or a suspend, of what was there before.
    Restore,
}

/// Body of `POST /v1/deployments/{name}/checkpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCheckpoint {
    /// Its name: lower-case letters, digits and dashes, at most 63; `YYYYMMDD-HHMMSS` (UTC) if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// With the guests' memory.
    #[serde(default)]
    pub with_memory: bool,
    /// Longest time that the guests may be without a network for it, in milliseconds: 100 to 600,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_max_ms: Option<u64>,
    /// No policy drops it.
    #[serde(default)]
    pub pinned: bool,
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointView {
    /// Whose.
    pub deployment: DeploymentName,
    /// Its name, unique in the deployment.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// How far it is.
    pub phase: CheckpointPhase,
    /// Why it failed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who wanted it.
    pub cause: CheckpointOrigin,
    /// When, milliseconds since 1970 UTC.
    pub requested_ms: u64,
    /// When its last member was taken, milliseconds since 1970 UTC; 0 before.
    pub taken_ms: u64,
    /// It holds the memory of the guests that ran.
    pub with_memory: bool,
    /// No policy drops it, nor `DELETE`.
    pub pinned: bool,
    /// It was restored, and its guests served.
    pub verified: bool,
    /// Why it cannot be restored, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// Bytes that were written for it.
    pub size_bytes: u64,
    /// How long the controller held the ports of its guests, in milliseconds.
    pub hold_ms: u64,
    /// By member.
    pub parts: Vec<PartView>,
}

/// One member's part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PartView {
    /// Whose.
    pub member: MemberName,
    /// Which host holds its files.
    pub host: HostName,
    /// What it ran.
    pub appliance: ApplianceRef,
    /// Which version of it.
    pub version: VersionName,
    /// The guest ran when it was captured.
    pub ran: bool,
    /// How far it is: `waiting`, `held`, `taken`, `published`, `failed`.
    pub state: String,
    /// How long its processors stood, in microseconds.
    pub pause_us: u64,
    /// Bytes that were written for it.
    pub new_bytes: u64,
    /// Bytes of its saved memory; 0 if there is none.
    pub memory_bytes: u64,
    /// Its disks.
    pub disks: Vec<DiskView>,
    /// Where its files are wholly, beside its host.
    pub replicas: Vec<HostName>,
}

/// One disk of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DiskView {
    /// Which.
    #[schema(value_type = String, example = "volume/home")]
    pub disk: DiskName,
    /// Layers it consists of.
    pub layers: u32,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Of those, that this checkpoint froze.
    pub new_bytes: u64,
}

/// Body of `POST .../checkpoints/{checkpoint}/restore`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreCheckpoint {
    /// Only these members; all if empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub members: BTreeSet<MemberName>,
    /// Go on from the saved memory instead of booting; only if the checkpoint has it.
    #[serde(default)]
    pub with_memory: bool,
    /// Take no checkpoint of what is there now: it is lost.
    #[serde(default)]
    pub discard_current: bool,
    /// Make a new deployment of this name from it, of the same bundle, instead of going back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_new: Option<DeploymentName>,
}

/// What a restore, suspend or resume began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RestoreView {
    /// The deployment that is made so.
    pub deployment: DeploymentName,
    /// From this checkpoint; of a suspend, into it.
    pub checkpoint: String,
    /// The checkpoint of what was there, taken first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// It is decided; else it is once `before` is taken.
    pub decided: bool,
}

/// Body of `PUT .../checkpoints/{checkpoint}/pin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinCheckpoint {
    /// No policy drops it, nor `DELETE`.
    pub pinned: bool,
}

/// Body of `POST /v1/deployments/{name}/resume`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// From this checkpoint; the one that it was suspended into if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// All members on this host. Where they were, if neither this nor a site is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// At this site, wherever they fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// Boot from the disks, without the memory.
    #[serde(default)]
    pub without_memory: bool,
}

/// What differs between two checkpoints of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointDiff {
    /// The earlier one.
    pub from: String,
    /// The later one.
    pub to: String,
    /// By member.
    pub members: Vec<MemberDiff>,
}

/// What differs of one member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberDiff {
    /// Which.
    pub member: MemberName,
    /// Its version then; none if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_from: Option<VersionName>,
    /// Its version later; none if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_to: Option<VersionName>,
    /// It was made anew, or restored, between them.
    pub remade: bool,
    /// By disk.
    pub disks: Vec<DiskDiff>,
}

/// What differs of one disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DiskDiff {
    /// Which.
    #[schema(value_type = String, example = "volume/home")]
    pub disk: DiskName,
    /// Bytes of layers that only the later one has: no less than what was written between.
    pub written_bytes: u64,
    /// Layers that only the later one has.
    pub layers_added: u32,
    /// Layers that only the earlier one has: what was written there is not in the later one.
    pub layers_gone: u32,
}

/// Body of `PUT /agent/v1/layers/{digest}`: what describes a file of a checkpoint as an image. The digest is its manifest's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerSource {
    /// BitTorrent metainfo.
    pub metainfo: Base64,
    /// Our manifest, JSON.
    pub manifest: Base64,
}

/// A state counts as one of a guest that runs.
#[must_use]
pub fn runs(state: InstanceState) -> bool {
    matches!(state, InstanceState::Booting | InstanceState::Ready)
}
