//! Policies: what is installed, who is trusted to write it, and what was decided.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use types::{Base64, Digest, HostName, InstanceId, PolicyName};
use utoipa::ToSchema;

/// The operator's name for a key: the same rule as for policies.
pub type TrustName = PolicyName;

/// The decision points.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// On which host an instance runs.
    #[default]
    Placement,
    /// Which instances roll to a version, and when.
    Update,
    /// When a deployment's state is kept, and which states are given up.
    Checkpoint,
    /// What a look into a guest from outside means.
    Introspection,
}

impl PolicyKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Placement, Self::Update, Self::Checkpoint, Self::Introspection];

    /// `placement`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Placement => "placement",
            Self::Update => "update",
            Self::Checkpoint => "checkpoint",
            Self::Introspection => "introspection",
        }
    }
}

impl std::fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for PolicyKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            format!("{text:?} is no kind of policy: write placement, update, checkpoint or introspection")
        })
    }
}

/// Why the controller lets a component run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum PolicyOrigin {
    /// It was installed before signatures were asked for.
    #[default]
    Unsigned,
    /// It came in the controller's own package.
    BuiltIn,
    /// A trusted key signed it.
    Signed {
        /// Name of the trust root.
        root: String,
        /// SHA-256 of the root's public key.
        key: Digest,
    },
}

impl std::fmt::Display for PolicyOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsigned => f.write_str("unsigned"),
            Self::BuiltIn => f.write_str("built-in"),
            Self::Signed { root, .. } => f.write_str(root),
        }
    }
}

/// One component with its settings: what is taken into use, and gone back to, as one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyRelease {
    /// Name the component gives itself.
    pub component: String,
    /// Version the component gives itself.
    pub version: String,
    /// SHA-256 of the component.
    pub digest: Digest,
    /// One line for people.
    pub summary: String,
    /// Size of the component in bytes; 0 if it was not written down.
    #[serde(default)]
    pub size_bytes: u64,
    /// Why it may run.
    #[serde(default)]
    pub origin: PolicyOrigin,
    /// When it was taken into use, milliseconds since 1970 UTC; 0 if that was not written down.
    #[serde(default)]
    pub since_ms: u64,
    /// A JSON object; the component's defaults if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Value>,
}

/// What happens if a policy has no answer. Neither is ever a yes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Nothing happens; it is asked again.
    #[default]
    Refuse,
    /// Another policy of the same kind is asked. If that fails too, nothing happens.
    #[schema(value_type = String)]
    Fallback(PolicyName),
}

impl std::fmt::Display for OnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refuse => f.write_str("refuse"),
            Self::Fallback(name) => write!(f, "fallback: {name}"),
        }
    }
}

/// An installed policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Name bundles use.
    pub name: PolicyName,
    /// What it decides. A name keeps its kind.
    pub kind: PolicyKind,
    /// What answers.
    #[serde(flatten)]
    pub active: PolicyRelease,
    /// What happens if it has no answer.
    pub on_failure: OnFailure,
    /// What answered before, newest first: the first is what a rollback goes back to.
    #[serde(default)]
    pub earlier: Vec<PolicyRelease>,
    /// What is asked beside it, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<PolicyRelease>,
    /// Which bundles and policies name it, such as `bundle/office` or `policy/cautious`.
    #[serde(default)]
    pub used_by: Vec<String>,
    /// How it does since the controller started.
    #[serde(default)]
    pub health: PolicyHealth,
}

/// How a policy does since the controller started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyHealth {
    /// Times it was asked.
    pub calls: u64,
    /// Times it had no answer.
    pub failures: u64,
    /// It failed so often in a row that it is not asked until then, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_until_ms: Option<u64>,
    /// Why it cannot answer now, or should not go on for long; none if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a policy answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionView {
    /// Its number; grows.
    pub id: u64,
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What was decided about it.
    #[serde(default)]
    pub kind: PolicyKind,
    /// About what: `instance/office/gateway`, `rollout/...`, `deployment/office`.
    #[serde(default)]
    pub subject: String,
    /// About which instance, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Which policy was asked.
    pub policy: PolicyName,
    /// Name and version of the component that answered.
    pub component: String,
    /// SHA-256 of the component that answered.
    pub digest: Digest,
    /// SHA-256 of the settings it was given, as canonical JSON; none if they were its defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Digest>,
    /// SHA-256 of the recorded input.
    pub input: Digest,
    /// Bytes of the recorded input.
    #[serde(default)]
    pub input_bytes: u64,
    /// The kind's own word (`place`, `defer`, `refuse`; `proceed`, `hold`, ...), or `error`.
    pub verdict: String,
    /// The verdict with what it is about, in one line.
    #[serde(default)]
    pub outcome: String,
    /// The host the controller took of a placement policy's choices.
    #[serde(default)]
    pub host: Option<HostName>,
    /// Of a placement policy, in its order.
    #[serde(default)]
    pub choices: Vec<ChoiceView>,
    /// The whole answer of another kind, unless it is very large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<serde_json::Value>,
    /// Why the others were not chosen, and problems.
    pub notes: Vec<String>,
    /// What the policy wrote for its author, `level: text`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<String>,
    /// Microseconds inside the policy, instantiation included.
    pub took_us: u64,
    /// Who answered instead of the policy that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackView>,
    /// What the candidate would have answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowView>,
}

/// One host a policy proposed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChoiceView {
    /// The host.
    pub host: HostName,
    /// Higher is better.
    pub score: f64,
    /// `code: text (weight)`.
    pub reasons: Vec<String>,
}

/// Who answered instead of a policy that had no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FallbackView {
    /// Which policy was asked instead.
    pub policy: PolicyName,
    /// Why the first had no answer.
    pub because: String,
}

/// What a candidate answered to the same input. It had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowView {
    /// Of which policy it is the candidate.
    pub policy: PolicyName,
    /// Name and version of the component.
    pub component: String,
    /// SHA-256 of the component.
    pub digest: Digest,
    /// SHA-256 of the settings it was given, as canonical JSON; none if they were its defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Digest>,
    /// It is not what was answered.
    pub differs: bool,
    /// Its verdict in one line, or why it had none.
    pub outcome: String,
    /// Microseconds inside the candidate.
    pub took_us: u64,
}

/// A component to take in, with who vouches for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutPolicy {
    /// The component, at most 32 MiB.
    pub component: Base64,
    /// The signature beside it (`NAME.wasm.sig`): a DSSE envelope.
    pub signature: Base64,
    /// Settings to take into use with it. If absent those in use stay, if it accepts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Value>,
}

/// Settings to take into use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPolicySettings {
    /// A JSON object; null for the component's defaults.
    pub settings: Option<serde_json::Value>,
}

/// What is to happen if a policy has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetOnFailure {
    /// `refuse`, or `{"fallback": "NAME"}`.
    pub on_failure: OnFailure,
}

/// A key to trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutTrustRoot {
    /// Ed25519 public key: base64 of its 32 bytes, or PEM.
    pub key: String,
    /// What it may vouch for, at least one kind.
    pub kinds: BTreeSet<PolicyKind>,
    /// Nothing new is taken in by it from then on, milliseconds since 1970 UTC; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// A key that is trusted with some kinds of policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrustRootView {
    /// The operator's name for it.
    pub name: TrustName,
    /// Ed25519 public key, 32 bytes.
    pub key: Base64,
    /// SHA-256 of the key, as signatures and decisions name it.
    pub key_id: Digest,
    /// What it may vouch for.
    pub kinds: BTreeSet<PolicyKind>,
    /// Nothing new is taken in by it from then on, milliseconds since 1970 UTC; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// When it was added, milliseconds since 1970 UTC.
    pub added_ms: u64,
    /// Active policies that it vouches for.
    pub policies: Vec<PolicyName>,
}

/// What a candidate would have done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShadowReport {
    /// The policy.
    pub policy: PolicyName,
    /// What is asked beside it.
    pub candidate: PolicyRelease,
    /// Kept decisions that it was asked about.
    pub asked: u64,
    /// Of these, those that it would have answered otherwise or not at all.
    pub differed: u64,
    /// Of these, those that it had no answer to.
    pub failed: u64,
    /// The decisions that it would have answered otherwise, newest first, 200 at most.
    pub differences: Vec<DecisionView>,
}
