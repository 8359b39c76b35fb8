//! What policies have planned for a running cluster, rollouts and checkpoints, and how far it has been carried out.

use serde::{Deserialize, Serialize};
use types::{ApplianceRef, ChannelName, DeploymentName, InstanceId, PolicyName, VersionName};
use utoipa::ToSchema;

/// A version that is to replace others of its appliance, on the instances that follow its channel under one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// `publisher/appliance/channel/version/policy`.
    pub id: String,
    /// `publisher/appliance`.
    pub appliance: ApplianceRef,
    /// The channel that moved.
    pub channel: ChannelName,
    /// To this version.
    pub target: VersionName,
    /// Who decides.
    pub policy: PolicyName,
    /// Since when, milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// Instances that follow the channel under this policy.
    pub instances: u32,
    /// Of those, that run the version.
    pub at_target: u32,
    /// What the policy last said: `proceed`, `hold`, `halt`, `roll_back`, `complete`; `unasked` or `error`.
    pub step: String,
    /// Why, for people.
    pub reasons: Vec<String>,
    /// When it is asked again, milliseconds since 1970 UTC; 0: when something changes.
    pub next_call_ms: u64,
    /// Every roll the policy has ordered, oldest first. Those ordered by one answer are a wave.
    pub orders: Vec<RollOrder>,
    /// Somebody paused it: its policy is not asked, and no order begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<RolloutPause>,
    /// When somebody last let it go on, milliseconds since 1970 UTC; 0 if nobody did.
    #[serde(default)]
    pub resumed_ms: u64,
    /// Why its version is refused here, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The last stored decision.
    pub decision: Option<u64>,
}

/// Somebody paused a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutPause {
    /// `token:<id>`.
    pub who: String,
    /// Milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Body of what people say to a rollout, or to all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutWord {
    /// For people; at most 1,024 characters. It stands in the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A version that failed here and is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusalView {
    /// `publisher/appliance`.
    pub appliance: ApplianceRef,
    /// Which version of it.
    pub version: VersionName,
    /// What went wrong.
    pub reason: String,
    /// On which instance first.
    pub instance: InstanceId,
    /// Since when, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What new instances run instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<VersionName>,
    /// The rollout that found it out.
    pub rollout: String,
}

/// A roll that a policy has ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RollOrder {
    /// Which instance.
    pub instance: InstanceId,
    /// When, milliseconds since 1970 UTC.
    pub ordered_ms: u64,
    /// Milliseconds it has to be healthy afterwards.
    pub soak_ms: u64,
    /// A checkpoint is taken first.
    pub checkpoint: bool,
    /// How far it is.
    pub status: OrderStatus,
    /// Since when it is so, milliseconds since 1970 UTC; 0 in orders of before there was this.
    #[serde(default)]
    pub since_ms: u64,
    /// What it waits for, or why it went back, failed or was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The version that the instance had before it rolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<VersionName>,
    /// Name of the checkpoint of its deployment that was taken first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<String>,
    /// When the instance was made anew, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub rolled_ms: u64,
    /// When the run that proves the version began, by its host's clock, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub run_ms: u64,
    /// When it ended, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub finished_ms: u64,
}

/// How far an order is.
///
/// ```text
///   pending -> checkpointing -> prefetching -> rolling <-> proving -> succeeded
///      |             |               |            |          |            | (the policy rolls all back)
///      v             v               v            v          v            v
///   dropped     failed: it runs as before      returning -> rolling_back -> rolled_back
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// It has not begun.
    #[default]
    Pending,
    /// A checkpoint of its deployment is being taken; the instance runs on.
    Checkpointing,
    /// Its host fetches the version's image; the instance runs on.
    Prefetching,
    /// The instance is made anew with the version and is not ready yet.
    Rolling,
    /// It is ready with the version and has to stay healthy.
    Proving,
    /// The instance runs the version and was healthy for as long as was asked.
    Succeeded,
    /// It is to go back, and waits for its turn.
    Returning,
    /// It is made anew as it was before and is not ready yet.
    RollingBack,
    /// It runs what it ran before.
    RolledBack,
    /// It was not rolled, or it could not go back; the reason says which.
    Failed,
    /// The instance is gone, or the rollout ended without it.
    Dropped,
}

impl OrderStatus {
    /// Something is still to happen.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        self == Self::Pending || self == Self::Returning || self.is_active()
    }

    /// It has begun and has not ended: the instance is its own until then.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(
            self,
            Self::Checkpointing | Self::Prefetching | Self::Rolling | Self::Proving | Self::RollingBack
        )
    }

    /// The version did not come through on this instance.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Returning | Self::RollingBack | Self::RolledBack | Self::Failed)
    }

    /// As people and programs write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Checkpointing => "checkpointing",
            Self::Prefetching => "prefetching",
            Self::Rolling => "rolling",
            Self::Proving => "proving",
            Self::Succeeded => "succeeded",
            Self::Returning => "returning",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// What the checkpoint policy of a deployment has planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleView {
    /// Whose checkpoints.
    pub deployment: DeploymentName,
    /// Who decides.
    pub policy: PolicyName,
    /// Checkpoints that are there.
    pub checkpoints: u32,
    /// One is to be taken: ordered, and not there yet.
    pub take: Option<TakeOrder>,
    /// These are to be dropped: ordered, and still there.
    pub discards: Vec<String>,
    /// Why it cannot be said, if so.
    pub problem: Option<String>,
    /// When the policy is asked again, milliseconds since 1970 UTC; 0: when something changes.
    pub next_call_ms: u64,
    /// The last stored decision.
    pub decision: Option<u64>,
}

/// A checkpoint that a policy has ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TakeOrder {
    /// When, milliseconds since 1970 UTC.
    pub ordered_ms: u64,
    /// With the guests' memory.
    pub with_memory: bool,
    /// Longest pause of the guests, milliseconds.
    pub pause_max_ms: u64,
    /// Why, for people.
    pub reasons: Vec<String>,
}
