//! Choosing a host: the request, the cluster as columns, the verdict, and what every placement policy needs.

mod best;
mod fit;
mod hosts;

pub use best::{Best, verdict};
pub use fit::{Fit, fit, reject};
pub use hosts::{Host, Hosts};

use crate::{Context, Plugin, PolicyError, Reason};

/// The site at which an instance has to be.
const SITE_ATTRIBUTE: &str = "collective/site";
/// Members of the same deployment whose hosts the instance wishes to avoid, with commas between.
const APART_FROM_ATTRIBUTE: &str = "collective/apart-from";
/// `true`: the operator has to vouch for the host.
const ATTESTED_ATTRIBUTE: &str = "collective/attested";
/// Followed by a label's key: the value that is wished.
const LABEL_ATTRIBUTE: &str = "collective/label/";

/// Hosts that are ready have this state; no other takes new instances.
pub const STATE_READY: u8 = 0;

/// Examples that a rejection carries at most.
pub const EXAMPLES_MAX: usize = 8;

/// A placement policy. The function is pure.
pub trait PlacementPolicy: Plugin {
    /// Chooses hosts for one instance, best first.
    ///
    /// # Errors
    /// The policy has no decision.
    fn place(
        settings: &Self::Settings,
        request: &Request,
        cluster: &impl Cluster,
        context: &impl Context,
    ) -> Result<Verdict, PolicyError>;
}

/// The instance that needs a host. Fields as in `placement.request` of the WIT package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Bytes the instance may write on the host.
    pub disk_bytes: u64,
    /// Bytes of the version's images.
    pub image_bytes: u64,
    /// Where the instance is now.
    pub current: Option<u32>,
    /// Where its volumes are: it can be nowhere else.
    pub pinned: Option<u32>,
    /// Most choices of use, at least 1.
    pub choices_max: u32,
    /// Extension point: key and value.
    pub attributes: Vec<(String, String)>,
}

impl Request {
    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The site at which it has to be.
    #[must_use]
    pub fn site(&self) -> Option<&str> {
        self.attribute(SITE_ATTRIBUTE).filter(|site| !site.is_empty())
    }

    /// The operator has to vouch for its host.
    #[must_use]
    pub fn wants_attested(&self) -> bool {
        self.attribute(ATTESTED_ATTRIBUTE) == Some("true")
    }

    /// It wishes to be apart from other members of its deployment: [`Cluster::rivals`] counts them.
    #[must_use]
    pub fn wants_apart(&self) -> bool {
        self.attribute(APART_FROM_ATTRIBUTE).is_some_and(|members| !members.is_empty())
    }

    /// The labels that it wishes of its host: key and value.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let label = |name: &'_ str| name.starts_with(LABEL_ATTRIBUTE);
        let attributes = self.attributes.iter().filter(move |(name, _)| label(name));
        attributes.map(|(name, value)| (&name[LABEL_ATTRIBUTE.len()..], value.as_str()))
    }
}

/// The columns of one host, for short lists.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Row {
    /// Index of the host.
    pub host: u32,
    /// Symbol; 0 = none.
    pub site: u32,
    /// See [`STATE_READY`].
    pub state: u8,
    /// The operator vouches for it.
    pub attested: bool,
    /// Bytes for guests.
    pub memory_total_bytes: u64,
    /// Bytes not promised.
    pub memory_free_bytes: u64,
    /// Bytes for guests and images.
    pub disk_total_bytes: u64,
    /// Bytes not promised.
    pub disk_free_bytes: u64,
    /// Milli-vCPU for guests.
    pub cpu_total_milli: u32,
    /// Milli-vCPU not promised.
    pub cpu_free_milli: u32,
    /// Instances of all deployments.
    pub instance_count: u32,
    /// CPU use, 0.0 ..= 1.0.
    pub load: f32,
    /// Bytes of the requested images already there.
    pub image_cached_bytes: u64,
    /// Other instances of the same deployment.
    pub peers: u32,
    /// Of those, that the request wishes to be apart from.
    pub rivals: u32,
}

/// The hosts as columns. Every list has [`host_count`](Self::host_count) elements; units as in `cluster` of the WIT
/// package.
pub trait Cluster {
    /// Number of hosts.
    fn host_count(&self) -> usize;
    /// Name of a host; an index out of range traps.
    fn host_name(&self, host: u32) -> String;
    /// Site symbols, 0 = none.
    fn sites(&self) -> Vec<u32>;
    /// States, see [`STATE_READY`].
    fn states(&self) -> Vec<u8>;
    /// Bytes for guests.
    fn memory_total_bytes(&self) -> Vec<u64>;
    /// Bytes not promised.
    fn memory_free_bytes(&self) -> Vec<u64>;
    /// Bytes not promised.
    fn disk_free_bytes(&self) -> Vec<u64>;
    /// Milli-vCPU for guests.
    fn cpu_total_milli(&self) -> Vec<u32>;
    /// Milli-vCPU not promised.
    fn cpu_free_milli(&self) -> Vec<u32>;
    /// Instances of all deployments.
    fn instance_counts(&self) -> Vec<u32>;
    /// CPU use, 0.0 ..= 1.0.
    fn loads(&self) -> Vec<f32>;
    /// Bytes of the requested images already there.
    fn image_cached_bytes(&self) -> Vec<u64>;
    /// Other instances of the same deployment.
    fn peers(&self) -> Vec<u32>;

    /// Bytes for guests and images.
    fn disk_total_bytes(&self) -> Vec<u64> {
        vec![0; self.host_count()]
    }
    /// 1 where the operator vouches for the host.
    fn attested(&self) -> Vec<u8> {
        vec![0; self.host_count()]
    }
    /// Symbols of one label's values, 0 = the host has none of that key.
    fn labels(&self, _key: &str) -> Vec<u32> {
        vec![0; self.host_count()]
    }
    /// Instances that the request wishes to be apart from.
    fn rivals(&self) -> Vec<u32> {
        vec![0; self.host_count()]
    }

    /// 1 where a host meets every hard limit of the request of this call, which a stand-in has to be told again. Empty:
    /// not known, look at the columns.
    fn feasible_mask(&self, _request: &Request) -> Vec<u8> {
        Vec::new()
    }
    /// At most `limit` hosts that meet every hard limit of the request of this call, drawn by the seed. Empty: none does,
    /// or it is not known.
    fn feasible(&self, _request: &Request, _limit: u32) -> Vec<u32> {
        Vec::new()
    }
    /// The columns of these hosts, in this order; an index out of range traps.
    fn rows(&self, hosts: &[u32]) -> Vec<Row> {
        rows(self, hosts)
    }
}

/// Rows out of whole columns: what a stand-in does.
fn rows(cluster: &(impl Cluster + ?Sized), hosts: &[u32]) -> Vec<Row> {
    let (sites, states, attested) = (cluster.sites(), cluster.states(), cluster.attested());
    let (memory_total, memory_free) = (cluster.memory_total_bytes(), cluster.memory_free_bytes());
    let (disk_total, disk_free) = (cluster.disk_total_bytes(), cluster.disk_free_bytes());
    let (cpu_total, cpu_free) = (cluster.cpu_total_milli(), cluster.cpu_free_milli());
    let (counts, loads, cached) = (cluster.instance_counts(), cluster.loads(), cluster.image_cached_bytes());
    let (peers, rivals) = (cluster.peers(), cluster.rivals());
    let one = |&host: &u32| {
        let row = host as usize;
        Row {
            host,
            site: sites[row],
            state: states[row],
            attested: attested[row] == 1,
            memory_total_bytes: memory_total[row],
            memory_free_bytes: memory_free[row],
            disk_total_bytes: disk_total[row],
            disk_free_bytes: disk_free[row],
            cpu_total_milli: cpu_total[row],
            cpu_free_milli: cpu_free[row],
            instance_count: counts[row],
            load: loads[row],
            image_cached_bytes: cached[row],
            peers: peers[row],
            rivals: rivals[row],
        }
    };
    hosts.iter().map(one).collect()
}

/// One host that would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Index of the host.
    pub host: u32,
    /// Higher is better.
    pub score: f64,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// How many hosts dropped out for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// As [`Reason::code`].
    pub code: String,
    /// How many hosts.
    pub hosts: u32,
    /// Some of them, at most [`EXAMPLES_MAX`].
    pub examples: Vec<u32>,
}

/// Hosts, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// At least one.
    pub choices: Vec<Choice>,
    /// Why the others are not among them.
    pub rejections: Vec<Rejection>,
}

/// A policy's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// These hosts would do.
    Place(Placed),
    /// Nothing fits now.
    Defer {
        /// Ask again after this time.
        retry_after_ms: u64,
        /// Why.
        reasons: Vec<Reason>,
        /// Which hosts dropped out.
        rejections: Vec<Rejection>,
    },
    /// Must never be placed as requested.
    Refuse(Vec<Reason>),
}

/// `part` of `whole` as a ratio in 0.0 ..= 1.0; nothing of nothing is 0.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "values are below 2^53")]
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

#[cfg(test)]
mod tests;
