//! What netd found and did.

use crate::{Accept, MirrorFrom};
use serde::{Deserialize, Serialize};
use types::Generation;
use utoipa::ToSchema;

/// What netd found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Of the desired document last taken up; zero before the first.
    pub generation: Generation,
    /// Every network and port of that document is as desired.
    pub converged: bool,
    /// Duration of the last pass that changed something, in milliseconds.
    pub took_ms: u64,
    /// Steps of the last pass that changed something.
    pub steps: u32,
    /// What could not be done, each naming the object and the reason. Retried at every pass.
    pub failures: Vec<String>,
    /// Objects under our names without our mark: reported, never touched.
    pub conflicts: Vec<String>,
    /// In the document's order.
    pub networks: Vec<NetworkStatus>,
    /// In the document's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watchers: Vec<WatcherStatus>,
    /// In the document's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorStatus>,
}

/// One network as observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    /// As desired.
    pub id: String,
    /// The bridge exists, is up, and its uplink is attached.
    pub up: bool,
    /// In the document's order.
    pub ports: Vec<PortStatus>,
    /// Present if it has a router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterStatus>,
}

/// A router as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouterStatus {
    /// Its namespace, for `ip netns exec`.
    pub namespace: String,
    /// It has its links, addresses, routes and rules, and its servers run.
    pub ready: bool,
    /// Leases given out now.
    pub leases: u32,
}

/// A watcher as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatcherStatus {
    /// As desired.
    pub id: String,
    /// Name of the tap.
    pub tap: String,
    /// The tap exists and is up.
    pub ready: bool,
    /// A virtual machine has the tap open.
    pub carrier: bool,
    /// Dropped: whatever the guest sent.
    pub dropped_from_guest: Counter,
}

/// A mirror as observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorStatus {
    /// As desired.
    pub id: String,
    /// As desired.
    pub from: MirrorFrom,
    /// Both ends are there, and copies are made.
    pub ready: bool,
    /// Copies made by this host since the mirror was made.
    pub copied: Counter,
}

/// One port as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortStatus {
    /// As desired.
    pub id: String,
    /// Name of the tap.
    pub tap: String,
    /// The tap exists, is attached, and its rules are in force. Of a held port: it exists, and passes nothing.
    pub ready: bool,
    /// A virtual machine has the tap open.
    pub carrier: bool,
    /// Frames and bytes the guest sent that were passed.
    pub from_guest: Counter,
    /// Frames and bytes passed to the guest.
    pub to_guest: Counter,
    /// Dropped: sent by the guest under an address that is not its own.
    pub dropped_spoofed: Counter,
    /// Dropped: sent by the guest, no rule accepts it.
    pub dropped_from_guest: Counter,
    /// Dropped: sent to the guest, no rule accepts it.
    pub dropped_to_guest: Counter,
    /// Of each accepted remote and service that was used, in the order of the document's rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleStatus>,
}

/// Frames that one permission let through, in both directions: those that open a connection, and those that belong to
/// it. A frame is counted by one permission of each port it passes, or by those that share its remotes and service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleStatus {
    /// As desired; its remote is absent where it said none.
    pub accept: Accept,
    /// Since the permission was given.
    pub counter: Counter,
}

/// Frames and bytes since the port was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counter {
    /// Frames.
    pub frames: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}
