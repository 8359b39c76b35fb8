//! What a placement policy is told, and what its answer may not do.
//!
//! The policy is asked for a ranking and believed about wisdom only: which hosts are there, what is free on them, who
//! vouches for them and where a volume lies is known here, and a choice that breaks a hard limit is passed over with its
//! reason ([`forbidden`]). It is asked about what has no host ([`unplaced`]), and about what might have another one
//! ([`moves`]).

mod census;
mod limits;
pub mod moves;

pub use census::{Candidate, Census, HostState, Observed};
pub use limits::forbidden;

use crate::cluster::Cluster;
use crate::{interpose, record};
use controller_api::document::PlacementSpec;
use std::collections::BTreeMap;
use types::{HostName, InstanceId, MemberName, PolicyName, SiteName, VolumeName};

/// Policy of bundles that name none.
pub const DEFAULT_POLICY: &str = "balanced";
/// Virtual processors promised for each processor of a host: guests seldom all compute at once.
pub const CPU_OVERCOMMIT: u32 = 4;
/// Decisions kept.
pub const DECISIONS_MAX: usize = 10_000;
/// Bytes of recorded inputs kept, of the newest decisions.
pub const INPUTS_BYTES_MAX: usize = 256 << 20;

/// A question to a placement policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Which policy is asked.
    pub policy: PolicyName,
    /// About which instance.
    pub id: InstanceId,
    /// What it needs.
    pub instance: record::Instance,
    /// Where it is, if it is asked about again.
    pub current: Option<HostName>,
    /// Where it has to be, if its volumes lie somewhere, or the instance it follows is there.
    pub pinned: Option<HostName>,
    /// The instance it follows, if it is interposed at one's port.
    pub follows: Option<InstanceId>,
    /// Bytes of memory that those need which follow it.
    pub followers_memory: u64,
    /// Bytes of its volumes that are nowhere yet.
    pub disk_bytes: u64,
    /// Largest packet of its networks that cross hosts, in bytes; 0 if it has none.
    pub packet: u16,
    /// At which site it has to be, if its deployment is at one, or it wishes so.
    pub site: Option<SiteName>,
    /// What its member wishes. `apart_from` also names those who wish to be apart from it.
    pub wishes: PlacementSpec,
    /// Every host that can hold instances, in name order.
    pub candidates: Vec<Candidate>,
}

/// Instances without a placement: those that wish something of their host first, then those that need most memory, as
/// both fit in fewer places; equals in name order. Those that follow another one come after all others.
#[must_use]
pub fn unplaced(cluster: &Cluster) -> Vec<InstanceId> {
    let mut unplaced: Vec<_> =
        cluster.instances.iter().filter(|(id, _)| !cluster.placements.contains_key(id)).collect();
    unplaced.sort_by_cached_key(|(id, instance)| {
        let (follows, free) = (cluster.vias.contains_key(id), !is_choosy(cluster, id));
        (follows, free, std::cmp::Reverse(instance.memory), (*id).clone())
    });
    unplaced.into_iter().map(|(id, _)| id.clone()).collect()
}

/// Not every host with room will do.
fn is_choosy(cluster: &Cluster, id: &InstanceId) -> bool {
    let wishes = || {
        let deployment = cluster.deployments.get(&id.deployment)?;
        Some(&cluster.bundles.get(&deployment.bundle)?.members.get(&id.member)?.placement)
    };
    wishes().is_some_and(|wishes| wishes.attested || wishes.site.is_some() || !wishes.labels.is_empty())
}

/// The question about one instance; none if it or its bundle is gone, or what it follows has no host yet. Of an
/// instance that has a host, what it takes there counts as free: it is asked as if it came anew.
#[must_use]
pub fn question(cluster: &Cluster, census: &Census, id: &InstanceId) -> Option<Question> {
    let instance = cluster.instances.get(id)?;
    let deployment = cluster.deployments.get(&id.deployment)?;
    let bundle = cluster.bundles.get(&deployment.bundle)?;
    let (follows, beside) = interpose::follows(cluster, id).ok()?.unzip();
    let policy = match &bundle.policies.placement {
        Some(policy) => policy.clone(),
        None => DEFAULT_POLICY.parse().ok()?,
    };
    let wishes = wishes(&bundle.members, &id.member);
    Some(Question {
        policy,
        id: id.clone(),
        instance: instance.value.clone(),
        current: cluster.placements.get(id).map(|placement| placement.host.clone()),
        pinned: beside.or_else(|| pinned(cluster, id, &instance.volumes)),
        follows,
        followers_memory: interpose::followers_memory(cluster, id),
        disk_bytes: new_bytes(cluster, id, &instance.volumes),
        packet: packet(cluster, id, &instance.value),
        site: cluster.site_of(deployment).or_else(|| wishes.site.clone()),
        candidates: census.candidates(cluster, id, &instance.value, &wishes.apart_from),
        wishes,
    })
}

/// A member's wishes; `apart_from` holds both ways.
fn wishes(
    members: &BTreeMap<MemberName, controller_api::document::MemberSpec>,
    member: &MemberName,
) -> PlacementSpec {
    let mut wishes = members.get(member).map(|spec| spec.placement.clone()).unwrap_or_default();
    let others = members.iter().filter(|(_, spec)| spec.placement.apart_from.contains(member));
    wishes.apart_from.extend(others.map(|(name, _)| name.clone()));
    wishes
}

fn packet(cluster: &Cluster, id: &InstanceId, instance: &record::Instance) -> u16 {
    let crosses =
        |port: &&record::Port| cluster.networks.contains_key(&(id.deployment.clone(), port.network.clone()));
    instance.ports.iter().filter(crosses).map(|port| port.mtu).max().unwrap_or_default()
}

/// The host that holds one of its volumes.
pub(crate) fn pinned(cluster: &Cluster, id: &InstanceId, volumes: &[VolumeName]) -> Option<HostName> {
    volumes.iter().find_map(|name| cluster.volumes.get(&(id.clone(), name.clone()))?.host.clone())
}

fn new_bytes(cluster: &Cluster, id: &InstanceId, volumes: &[VolumeName]) -> u64 {
    let held = volumes.iter().filter_map(|name| cluster.volumes.get(&(id.clone(), name.clone())));
    held.filter(|volume| volume.host.is_none()).fold(0, |sum, volume| sum.saturating_add(volume.size.0))
}
