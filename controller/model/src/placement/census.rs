//! The hosts, counted once for many questions.

use super::CPU_OVERCOMMIT;
use crate::cluster::Cluster;
use crate::{moving, network, record};
use controller_api::agent::HostStatus;
use controller_api::host::HostService;
use std::collections::{BTreeMap, BTreeSet};
use types::{HostName, InstanceId, MemberName, SiteName};

/// What hosts say of themselves now.
pub type Observed = BTreeMap<HostName, HostStatus>;

/// Whether a host takes instances now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HostState {
    /// It does.
    #[default]
    Ready,
    /// Somebody said no new ones.
    Cordoned,
    /// Somebody wants it empty.
    Draining,
    /// Its agent is not connected.
    Unreachable,
    /// Somebody works on it.
    Maintenance,
}

/// One host as a policy sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: HostName,
    /// Its site.
    pub site: SiteName,
    /// Whether it takes instances. One that is out of reach is that before all else.
    pub state: HostState,
    /// Somebody vouches for it.
    pub attested: bool,
    /// What people say it is.
    pub labels: BTreeMap<String, String>,
    /// Memory guests may use, in bytes.
    pub memory_total: u64,
    /// Of that, not promised to instances, in bytes.
    pub memory_free: u64,
    /// Size of the file system of overlays and volumes, in bytes.
    pub disk_total: u64,
    /// Free on it, in bytes.
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
    /// Other instances of the same deployment placed on it.
    pub peers: u32,
    /// Of those, that the instance wishes to be apart from.
    pub rivals: u32,
    /// Largest packet of a network that crosses hosts, in bytes, as far as its link to them is known.
    pub packet_max: Option<u16>,
}

/// What one host holds, whichever instance is asked about.
#[derive(Debug, Clone, PartialEq)]
struct Count {
    /// All that does not depend on the instance.
    base: Candidate,
    /// Bytes by image, under any of its names.
    images: BTreeMap<String, u64>,
}

/// Every host that can hold instances, counted at one time. It costs a walk over all placements: make it once for many
/// questions, and [`Census::moved`] what an answer changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Census {
    hosts: BTreeMap<HostName, Count>,
}

impl Census {
    /// Counts.
    #[must_use]
    pub fn new(cluster: &Cluster, observed: &Observed, online: &BTreeSet<HostName>) -> Self {
        let here = cluster.hosts.iter().filter(|(_, host)| host.role == "host");
        let hosts =
            here.map(|(name, host)| (name.clone(), count(cluster, name, host, observed, online))).collect();
        let mut census = Self { hosts };
        for (id, placement) in &cluster.placements {
            if let Some(instance) = cluster.instances.get(id) {
                census.promise(&placement.host, instance);
            }
        }
        // What is on its way needs its place at both ends.
        for (id, host) in
            cluster.moves.keys().filter_map(|id| Some((id, moving::of(cluster, id)?.to.clone())))
        {
            let instance = cluster.instances.get(id);
            let there = cluster.placements.get(id).is_some_and(|placement| placement.host == host);
            if let Some(instance) = instance.filter(|_| !there) {
                census.promise(&host, instance);
            }
        }
        census
    }

    /// An instance went from one host to another, or came.
    pub fn moved(&mut self, instance: &record::Instance, from: Option<&HostName>, to: &HostName) {
        if let Some(count) = from.and_then(|from| self.hosts.get_mut(from)) {
            release(&mut count.base, instance);
        }
        self.promise(to, instance);
    }

    /// Sets a host's state, to ask what would be if it were so.
    pub fn set_state(&mut self, host: &HostName, state: HostState) {
        if let Some(count) = self.hosts.get_mut(host) {
            count.base.state = state;
        }
    }

    /// A host's state; none if it holds no instances.
    #[must_use]
    pub fn state(&self, host: &HostName) -> Option<HostState> {
        self.hosts.get(host).map(|count| count.base.state)
    }

    /// Memory that is not promised, in thousandths of the host's; 0 if it is unknown.
    #[must_use]
    pub fn free_permille(&self, host: &HostName) -> u64 {
        let base = self.hosts.get(host).map(|count| &count.base);
        let share = |base: &Candidate| base.memory_free.saturating_mul(1_000).checked_div(base.memory_total);
        base.and_then(share).unwrap_or_default()
    }

    fn promise(&mut self, host: &HostName, instance: &record::Instance) {
        let Some(Count { base, .. }) = self.hosts.get_mut(host) else { return };
        base.memory_free = base.memory_free.saturating_sub(instance.memory.0);
        base.cpu_free_milli = base.cpu_free_milli.saturating_sub(instance.vcpus.saturating_mul(1_000));
        base.instances += 1;
    }

    /// The hosts as they are for one instance.
    pub(super) fn candidates(
        &self,
        cluster: &Cluster,
        id: &InstanceId,
        instance: &record::Instance,
        apart_from: &BTreeSet<MemberName>,
    ) -> Vec<Candidate> {
        let current = cluster.placements.get(id).map(|placement| &placement.host);
        let mut peers: BTreeMap<&HostName, (u32, u32)> = BTreeMap::new();
        for (other, _) in cluster.instances_of(&id.deployment).filter(|(other, _)| *other != id) {
            let Some(placement) = cluster.placements.get(other) else { continue };
            let (peers, rivals) = peers.entry(&placement.host).or_default();
            *peers += 1;
            *rivals += u32::from(apart_from.contains(&other.member));
        }
        let names = [instance.image.to_string(), instance.image.hex()];
        let one = |(name, count): (&HostName, &Count)| {
            let mut here = count.base.clone();
            (here.peers, here.rivals) = peers.get(name).copied().unwrap_or_default();
            here.image_cached_bytes =
                names.iter().find_map(|name| count.images.get(name)).copied().unwrap_or_default();
            if current == Some(name) {
                release(&mut here, instance);
            }
            here
        };
        self.hosts.iter().map(one).collect()
    }
}

fn release(base: &mut Candidate, instance: &record::Instance) {
    base.memory_free = base.memory_free.saturating_add(instance.memory.0).min(base.memory_total);
    let cpu = base.cpu_free_milli.saturating_add(instance.vcpus.saturating_mul(1_000));
    base.cpu_free_milli = cpu.min(base.cpu_total_milli);
    base.instances = base.instances.saturating_sub(1);
}

fn count(
    cluster: &Cluster,
    name: &HostName,
    host: &record::Host,
    observed: &Observed,
    online: &BTreeSet<HostName>,
) -> Count {
    let facts = cluster.facts.get(name).map(|facts| &facts.value);
    let status = observed.get(name);
    let memory = facts.map_or(0, |facts| facts.memory_total_bytes);
    let cpu = facts.map_or(0, |facts| facts.cpu_total_milli.saturating_mul(CPU_OVERCOMMIT));
    let base = Candidate {
        name: name.clone(),
        site: host.site.clone(),
        state: state(host, online.contains(name)),
        attested: host.attested().is_some(),
        labels: host.labels.clone(),
        memory_total: memory,
        memory_free: memory,
        disk_total: facts.map_or(0, |facts| facts.disk_total_bytes),
        disk_free: status.map_or(0, |status| status.disk_free_bytes),
        cpu_total_milli: cpu,
        cpu_free_milli: cpu,
        instances: 0,
        load: status.map_or(0.0, |status| status.load),
        image_cached_bytes: 0,
        peers: 0,
        rivals: 0,
        packet_max: facts.and_then(network::packet_max),
    };
    let bytes =
        |image: &streamer_api::ImageStatus| u64::from(image.pieces_local) * u64::from(image.piece_bytes);
    let images = status.map(|status| status.images.iter().map(|(name, image)| (name.clone(), bytes(image))));
    Count { base, images: images.into_iter().flatten().collect() }
}

fn state(host: &record::Host, online: bool) -> HostState {
    match host.service {
        _ if !online => HostState::Unreachable,
        HostService::InService => HostState::Ready,
        HostService::Cordoned => HostState::Cordoned,
        HostService::Draining => HostState::Draining,
        HostService::Maintenance => HostState::Maintenance,
    }
}
