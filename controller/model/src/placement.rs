//! What a placement policy is told, and what its answer may not do.
//!
//! The policy is asked for a ranking and believed about wisdom only: which hosts are there, what is free on them and
//! where a volume lies is known here, and a choice that breaks a hard limit is passed over with its reason.

use crate::cluster::Cluster;
use crate::{interpose, network, record};
use controller_api::agent::HostStatus;
use std::collections::{BTreeMap, BTreeSet};
use types::{HostName, InstanceId, PolicyName, SiteName, VolumeName};

/// Policy of bundles that name none.
pub const DEFAULT_POLICY: &str = "balanced";
/// Virtual processors promised for each processor of a host: guests seldom all compute at once.
pub const CPU_OVERCOMMIT: u32 = 4;
/// Decisions kept.
pub const DECISIONS_MAX: usize = 10_000;

/// What hosts say of themselves now.
pub type Observed = BTreeMap<HostName, HostStatus>;

/// One host as a policy sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: HostName,
    /// Its site.
    pub site: SiteName,
    /// Its agent is connected.
    pub online: bool,
    /// Memory guests may use, in bytes.
    pub memory_total: u64,
    /// Of that, not promised to instances, in bytes.
    pub memory_free: u64,
    /// Free on the file system of overlays and volumes, in bytes.
    pub disk_free: u64,
    /// Virtual processors that may be promised, in thousandths: [`CPU_OVERCOMMIT`] for each of the host's.
    pub cpu_total_milli: u32,
    /// Of that, not promised to instances.
    pub cpu_free_milli: u32,
    /// Instances placed on it.
    pub instances: u32,
    /// One-minute load divided by processors.
    pub load: f32,
    /// Bytes of the instance's image that are there.
    pub image_cached_bytes: u64,
    /// Instances of the same deployment placed on it.
    pub peers: u32,
    /// Largest packet of a network that crosses hosts, in bytes, as far as its link to them is known.
    pub packet_max: Option<u16>,
}

/// A question to a placement policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Which policy is asked.
    pub policy: PolicyName,
    /// About which instance.
    pub id: InstanceId,
    /// What it needs.
    pub instance: record::Instance,
    /// Where it has to be, if its volumes lie somewhere, or the instance it follows is there.
    pub pinned: Option<HostName>,
    /// The instance it follows, if it is interposed at one's port.
    pub follows: Option<InstanceId>,
    /// Bytes of memory that those need which follow it.
    pub followers_memory: u64,
    /// Largest packet of its networks that cross hosts, in bytes; 0 if it has none.
    pub packet: u16,
    /// At which site it has to be, if its deployment is at one.
    pub site: Option<SiteName>,
    /// Every host that can hold instances, in name order.
    pub candidates: Vec<Candidate>,
}

/// Instances without a placement: those that need most memory first, as a large one fits in fewer places; equals in
/// name order. Those that follow another one come after all others.
#[must_use]
pub fn unplaced(cluster: &Cluster) -> Vec<InstanceId> {
    let mut unplaced: Vec<_> =
        cluster.instances.iter().filter(|(id, _)| !cluster.placements.contains_key(id)).collect();
    unplaced.sort_by_key(|(id, instance)| {
        (cluster.vias.contains_key(id), std::cmp::Reverse(instance.memory), (*id).clone())
    });
    unplaced.into_iter().map(|(id, _)| id.clone()).collect()
}

/// The question about one instance; none if it or its bundle is gone, or what it follows has no host yet.
#[must_use]
pub fn question(
    cluster: &Cluster,
    id: &InstanceId,
    observed: &Observed,
    online: &BTreeSet<HostName>,
) -> Option<Question> {
    let instance = cluster.instances.get(id)?;
    let deployment = cluster.deployments.get(&id.deployment)?;
    let bundle = cluster.bundles.get(&deployment.bundle)?;
    let (follows, beside) = interpose::follows(cluster, id).ok()?.unzip();
    let policy = match &bundle.policies.placement {
        Some(policy) => policy.clone(),
        None => DEFAULT_POLICY.parse().ok()?,
    };
    let candidates = cluster
        .hosts
        .iter()
        .filter(|(_, host)| host.role == "host")
        .map(|(name, host)| candidate(cluster, id, &instance.value, name, &host.site, observed, online))
        .collect();
    Some(Question {
        policy,
        id: id.clone(),
        instance: instance.value.clone(),
        pinned: beside.or_else(|| pinned(cluster, id, &instance.volumes)),
        follows,
        followers_memory: interpose::followers_memory(cluster, id),
        packet: packet(cluster, id, &instance.value),
        site: cluster.site_of(deployment),
        candidates,
    })
}

fn packet(cluster: &Cluster, id: &InstanceId, instance: &record::Instance) -> u16 {
    let crosses =
        |port: &&record::Port| cluster.networks.contains_key(&(id.deployment.clone(), port.network.clone()));
    instance.ports.iter().filter(crosses).map(|port| port.mtu).max().unwrap_or_default()
}

fn pinned(cluster: &Cluster, id: &InstanceId, volumes: &[VolumeName]) -> Option<HostName> {
    volumes.iter().find_map(|name| cluster.volumes.get(&(id.clone(), name.clone()))?.host.clone())
}

fn candidate(
    cluster: &Cluster,
    id: &InstanceId,
    instance: &record::Instance,
    name: &HostName,
    site: &SiteName,
    observed: &Observed,
    online: &BTreeSet<HostName>,
) -> Candidate {
    let mut here = Candidate {
        name: name.clone(),
        site: site.clone(),
        online: online.contains(name),
        memory_total: 0,
        memory_free: 0,
        disk_free: 0,
        cpu_total_milli: 0,
        cpu_free_milli: 0,
        instances: 0,
        load: 0.0,
        image_cached_bytes: 0,
        peers: 0,
        packet_max: cluster.facts.get(name).and_then(|facts| network::packet_max(&facts.value)),
    };
    let (mut memory, mut cpu) = (0_u64, 0_u32);
    for (other, _) in cluster.placements.iter().filter(|(_, placement)| placement.host == *name) {
        let Some(placed) = cluster.instances.get(other) else { continue };
        memory = memory.saturating_add(placed.memory.0);
        cpu = cpu.saturating_add(placed.vcpus.saturating_mul(1_000));
        here.instances += 1;
        here.peers += u32::from(other.deployment == id.deployment);
    }
    if let Some(facts) = cluster.facts.get(name) {
        here.memory_total = facts.memory_total_bytes;
        here.memory_free = facts.memory_total_bytes.saturating_sub(memory);
        here.cpu_total_milli = facts.cpu_total_milli.saturating_mul(CPU_OVERCOMMIT);
        here.cpu_free_milli = here.cpu_total_milli.saturating_sub(cpu);
    }
    if let Some(status) = observed.get(name) {
        here.disk_free = status.disk_free_bytes;
        here.load = status.load;
        let image = status
            .images
            .get(&instance.image.to_string())
            .or_else(|| status.images.get(&instance.image.hex()));
        here.image_cached_bytes =
            image.map_or(0, |image| u64::from(image.pieces_local) * u64::from(image.piece_bytes));
    }
    here
}

/// Why a host may not have an instance, whatever a policy says.
#[must_use]
pub fn forbidden(question: &Question, host: &HostName) -> Option<String> {
    let Some(candidate) = question.candidates.iter().find(|candidate| candidate.name == *host) else {
        return Some(format!("{host} is no host of this cluster"));
    };
    if let Some(pinned) = question.pinned.as_ref().filter(|pinned| *pinned != host) {
        if let Some(follows) = &question.follows {
            return Some(format!("{host} does not have {follows}, {pinned} does"));
        }
        return Some(format!("{host} does not hold the instance's volumes, {pinned} does"));
    }
    if let Some(site) = question.site.as_ref().filter(|site| **site != candidate.site) {
        return Some(format!("{host} is at site {}, the deployment at {site}", candidate.site));
    }
    if !candidate.online {
        return Some(format!("{host} is offline"));
    }
    if let Some(most) = candidate.packet_max.filter(|most| *most < question.packet) {
        return Some(format!(
            "{host} carries packets of {most} bytes between hosts, the instance's networks have {}: write what all \
             hosts carry as the site's underlay_mtu",
            question.packet
        ));
    }
    let needed = question.instance.memory.0.saturating_add(question.followers_memory);
    if candidate.memory_free < needed {
        let free_mib = candidate.memory_free >> 20;
        return Some(format!(
            "{host} has {free_mib}MiB of memory free, {} are needed",
            types::ByteSize(needed)
        ));
    }
    None
}
