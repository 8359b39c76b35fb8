//! What policies have planned for a running cluster: rollouts and checkpoints. Orders are written down and shown; nothing
//! in this release carries them out.

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
    /// Every roll the policy has ordered, oldest first.
    pub orders: Vec<RollOrder>,
    /// The last stored decision.
    pub decision: Option<u64>,
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
    /// When it ended, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub finished_ms: u64,
}

/// How far an order is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Nobody has carried it out.
    #[default]
    Pending,
    /// The instance runs the version and was healthy for as long as was asked.
    Succeeded,
    /// The instance runs the version and has failed.
    Failed,
    /// The instance is gone, or the rollout ended without it.
    Dropped,
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
    /// One is to be taken: ordered and not carried out.
    pub take: Option<TakeOrder>,
    /// These are to be dropped: ordered and not carried out.
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
