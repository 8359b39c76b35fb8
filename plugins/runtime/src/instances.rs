//! Instances as columns: what update and checkpoint policies are told of them.

mod view;

pub(crate) use view::{InstancesView, check, check_numbers, check_settings};

use serde::{Deserialize, Serialize};

/// Most instances of one input.
pub const INSTANCES_MAX: usize = 20_000;

/// How an instance stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Wanted, and on no host yet.
    #[default]
    Waiting,
    /// On its way up.
    Starting,
    /// The guest runs.
    Running,
    /// Meant to be down.
    Stopped,
    /// Meant to run, and cannot.
    Failed,
    /// Its host has not been heard of.
    Unreachable,
}

impl InstanceState {
    /// The contract's code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Starting => 1,
            Self::Running => 2,
            Self::Stopped => 3,
            Self::Failed => 4,
            Self::Unreachable => 5,
        }
    }
}

/// What the guest says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing.
    #[default]
    Unknown,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

impl Health {
    /// The contract's code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Healthy => 1,
            Self::Unhealthy => 2,
        }
    }
}

/// One instance, before it is a row of [`InstanceColumns`]. Unknown numbers are 0, absent texts empty; all numbers are
/// below 2^53.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    /// `deployment/member`.
    pub name: String,
    /// Its deployment.
    pub deployment: String,
    /// Member of the bundle.
    pub member: String,
    /// Host; empty = none.
    pub host: String,
    /// Site of the host; empty = none.
    pub site: String,
    /// `publisher/appliance`.
    pub appliance: String,
    /// Version that it runs.
    pub version: String,
    /// How it stands.
    pub state: InstanceState,
    /// What the guest says.
    pub health: Health,
    /// Start of the present run, milliseconds since 1970; 0 if it does not run.
    pub started_ms: u64,
    /// Memory of the guest, bytes.
    pub memory_bytes: u64,
    /// Bytes written since its newest checkpoint, or since its start if there is none: an estimate.
    pub dirty_bytes: u64,
    /// Its newest checkpoint, milliseconds since 1970; 0 if there is none.
    pub checkpointed_ms: u64,
}

/// The instances as columns: element *i* of each describes instance *i*. All have the same length, at most
/// [`INSTANCES_MAX`]. Collecting [`Instance`]s makes columns that keep these rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceColumns {
    /// `deployment/member`, ascending, each once.
    pub names: Vec<String>,
    /// Deployments.
    pub deployments: Vec<String>,
    /// Members.
    pub members: Vec<String>,
    /// Hosts; empty = none.
    pub hosts: Vec<String>,
    /// Sites of the hosts; empty = none.
    pub sites: Vec<String>,
    /// `publisher/appliance`.
    pub appliances: Vec<String>,
    /// Versions that run.
    pub versions: Vec<String>,
    /// States.
    pub states: Vec<InstanceState>,
    /// Healths.
    pub healths: Vec<Health>,
    /// Starts of the present runs, milliseconds since 1970; 0 = does not run.
    pub started_ms: Vec<u64>,
    /// Memory, bytes.
    pub memory_bytes: Vec<u64>,
    /// Written since the newest checkpoint, bytes.
    pub dirty_bytes: Vec<u64>,
    /// Newest checkpoints, milliseconds since 1970; 0 = none.
    pub checkpointed_ms: Vec<u64>,
}

impl InstanceColumns {
    /// Number of instances.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Row of that name.
    #[must_use]
    pub fn row_of(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|known| known.as_str().cmp(name)).ok()
    }

    fn push(&mut self, instance: Instance) {
        self.names.push(instance.name);
        self.deployments.push(instance.deployment);
        self.members.push(instance.member);
        self.hosts.push(instance.host);
        self.sites.push(instance.site);
        self.appliances.push(instance.appliance);
        self.versions.push(instance.version);
        self.states.push(instance.state);
        self.healths.push(instance.health);
        self.started_ms.push(instance.started_ms);
        self.memory_bytes.push(instance.memory_bytes);
        self.dirty_bytes.push(instance.dirty_bytes);
        self.checkpointed_ms.push(instance.checkpointed_ms);
    }
}

/// Sorts by name.
impl FromIterator<Instance> for InstanceColumns {
    fn from_iter<I: IntoIterator<Item = Instance>>(instances: I) -> Self {
        let mut rows: Vec<_> = instances.into_iter().collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let mut columns = Self::default();
        rows.into_iter().for_each(|row| columns.push(row));
        columns
    }
}
