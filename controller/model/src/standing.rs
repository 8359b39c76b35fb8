//! How instances stand, as policies of updates and checkpoints are told.

use crate::cluster::Cluster;
use crate::placement::Observed;
use controller_api::agent::{InstanceState, InstanceStatus};
use std::collections::BTreeSet;
use types::{ApplianceRef, DeploymentName, HostName, InstanceId, SiteName, VersionName};

/// What hosts say, and which of them are in reach.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// What hosts last said.
    pub observed: &'a Observed,
    /// Hosts whose agents are connected.
    pub online: &'a BTreeSet<HostName>,
    /// Milliseconds since 1970 UTC.
    pub now_ms: u64,
}

/// How an instance is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Condition {
    /// It has no host.
    #[default]
    Waiting,
    /// Its host prepares it.
    Starting,
    /// The guest runs and has not said that it serves.
    Booting,
    /// The guest has said that it serves.
    Serving,
    /// It was stopped, or goes.
    Stopped,
    /// It cannot run.
    Failed,
    /// Its host is out of reach.
    Unreachable,
}

/// One instance and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub id: InstanceId,
    /// Where, if it has a host.
    pub host: Option<HostName>,
    /// Where that is.
    pub site: Option<SiteName>,
    /// What it runs.
    pub appliance: ApplianceRef,
    /// Which version of it.
    pub version: VersionName,
    /// How it is.
    pub condition: Condition,
    /// Start of its present run, milliseconds since 1970 UTC; 0 if it does not run.
    pub started_ms: u64,
    /// When the guest said that it serves, milliseconds since 1970 UTC; 0 if it did not.
    pub ready_ms: u64,
    /// Starts of its present incarnation.
    pub starts: u32,
    /// What its host says of its state: why it waits or failed.
    pub reason: Option<String>,
    /// Which of its health probes fails, and why; none if it has none or all are good.
    pub unhealthy: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Bytes written to its disks since its last capture, as its host last said; 0 if it says nothing of it.
    pub dirty_bytes: u64,
    /// When its deployment's newest checkpoint was taken, milliseconds since 1970 UTC; 0 if there is none.
    pub checkpointed_ms: u64,
}

/// How one instance stands; none if it is gone.
#[must_use]
pub fn of(cluster: &Cluster, id: &InstanceId, sight: Sight<'_>) -> Option<Standing> {
    let instance = cluster.instances.get(id)?;
    let host = cluster.placements.get(id).map(|placement| placement.host.clone());
    let status = host.as_ref().and_then(|host| {
        let said = sight.observed.get(host)?.instances.iter();
        said.into_iter().find(|status| status.id == *id && status.incarnation == instance.incarnation)
    });
    let online = host.as_ref().is_some_and(|host| sight.online.contains(host));
    let runs = |status: &InstanceStatus| {
        online && matches!(status.state, InstanceState::Booting | InstanceState::Ready)
    };
    let running = status.filter(|status| runs(status));
    Some(Standing {
        id: id.clone(),
        site: host.as_ref().and_then(|host| Some(cluster.hosts.get(host)?.site.clone())),
        appliance: instance.appliance.clone(),
        version: instance.version.clone(),
        condition: condition(host.is_some(), online, status),
        started_ms: running.and_then(|status| status.started_ms).unwrap_or_default(),
        ready_ms: running.and_then(|status| status.ready_ms).unwrap_or_default(),
        starts: status.map_or(0, |status| status.starts),
        reason: status.and_then(|status| status.reason.clone()),
        unhealthy: running.and_then(unhealthy),
        memory_bytes: instance.memory.0,
        dirty_bytes: status.map_or(0, |status| status.dirty_bytes),
        checkpointed_ms: newest_checkpoint(cluster, &id.deployment),
        host,
    })
}

fn unhealthy(status: &InstanceStatus) -> Option<String> {
    let health = status.health.as_ref().filter(|health| !health.healthy)?;
    Some(health.reason.clone().unwrap_or_else(|| "its health probe fails".into()))
}

impl Standing {
    /// It serves, and no probe of its health fails.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.condition == Condition::Serving && self.unhealthy.is_none()
    }
}

fn condition(placed: bool, online: bool, status: Option<&InstanceStatus>) -> Condition {
    match status.map(|status| status.state) {
        _ if !placed => Condition::Waiting,
        _ if !online => Condition::Unreachable,
        None | Some(InstanceState::Pending | InstanceState::Preparing) => Condition::Starting,
        Some(InstanceState::Booting) => Condition::Booting,
        Some(InstanceState::Ready) => Condition::Serving,
        Some(InstanceState::Stopped | InstanceState::Removing) => Condition::Stopped,
        Some(InstanceState::Failed) => Condition::Failed,
    }
}

fn newest_checkpoint(cluster: &Cluster, deployment: &DeploymentName) -> u64 {
    let taken = crate::checkpoint::of(cluster, deployment).map(|(_, checkpoint)| checkpoint.taken_ms);
    taken.max().unwrap_or_default()
}
