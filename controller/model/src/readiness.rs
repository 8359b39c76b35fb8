//! What a site could start if it were cut off from everything else: a function of what was decided and what its hosts
//! say that they hold.

use crate::cluster::Cluster;
use crate::placement::{CPU_OVERCOMMIT, Observed};
use crate::{interpose, record};
use controller_api::agent::HostStatus;
use controller_api::recovery::{DeploymentReadiness, MissingImage, SiteReadiness};
use std::collections::{BTreeMap, BTreeSet};
use streamer_api::ImageStatus;
use types::{DeploymentName, Digest, HostName, InstanceId, SiteName};

/// Bytes of an image that one host has not got; all that is known of its size if it says nothing of it.
#[must_use]
pub fn missing_bytes(status: &HostStatus, image: &Digest, size_bytes: u64) -> u64 {
    let held = [image.to_string(), image.hex()];
    let held = held.iter().find_map(|name| status.images.get(name));
    held.map_or(size_bytes, missing)
}

fn missing(image: &ImageStatus) -> u64 {
    let absent = image.pieces.saturating_sub(image.pieces_local.saturating_add(image.pieces_zero));
    // The last piece may be shorter.
    u64::from(absent).saturating_mul(u64::from(image.piece_bytes)).min(image.size_bytes)
}

/// Some host holds all of an image.
#[must_use]
pub fn is_whole<'a>(statuses: impl IntoIterator<Item = &'a HostStatus>, image: &Digest) -> bool {
    statuses.into_iter().any(|status| missing_bytes(status, image, u64::MAX) == 0)
}

/// How a site stands; none if there is none of that name.
#[must_use]
pub fn site(
    cluster: &Cluster,
    observed: &Observed,
    online: &BTreeSet<HostName>,
    site: &SiteName,
) -> Option<SiteReadiness> {
    let here = |host: &record::Host| host.site == *site && host.role == "host";
    let hosts: BTreeSet<&HostName> =
        cluster.hosts.iter().filter(|(_, host)| here(host)).map(|(name, _)| name).collect();
    if hosts.is_empty() && !cluster.sites.contains_key(site) {
        return None;
    }
    let sight = Sight { cluster, observed, online, hosts: &hosts };
    let at_site = |name: &&DeploymentName| {
        cluster.deployments.get(*name).is_some_and(|spec| cluster.site_of(spec).as_ref() == Some(site))
            || cluster
                .instances_of(name)
                .any(|(id, _)| sight.host_of(id).is_some_and(|host| hosts.contains(host)))
    };
    let deployments: Vec<_> =
        cluster.deployments.keys().filter(at_site).map(|name| sight.deployment(name)).collect();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Some(SiteReadiness {
        site: site.clone(),
        ready: deployments.iter().all(|deployment| deployment.ready),
        hosts: count(hosts.len()),
        hosts_online: count(hosts.iter().filter(|host| online.contains(**host)).count()),
        deployments,
    })
}

#[derive(Clone, Copy)]
struct Sight<'a> {
    cluster: &'a Cluster,
    observed: &'a Observed,
    online: &'a BTreeSet<HostName>,
    /// Of the site.
    hosts: &'a BTreeSet<&'a HostName>,
}

impl<'a> Sight<'a> {
    fn host_of(self, id: &InstanceId) -> Option<&'a HostName> {
        self.cluster.placements.get(id).map(|placement| &placement.host)
    }

    fn deployment(self, name: &DeploymentName) -> DeploymentReadiness {
        let cluster = self.cluster;
        let mut obstacles = Vec::new();
        let mut images: BTreeMap<Digest, u64> = BTreeMap::new();
        for (id, instance) in cluster.instances_of(name) {
            obstacles.extend(self.obstacle(id, instance));
            images.extend(self.images(id, instance));
        }
        if cluster.instances_of(name).next().is_none() {
            obstacles.push("it has no instances yet".to_owned());
        }
        let missing: Vec<MissingImage> =
            images.into_iter().filter_map(|(image, size)| self.missing(image, size)).collect();
        let spec = cluster.deployments.get(name);
        DeploymentReadiness {
            deployment: name.clone(),
            ready: obstacles.is_empty() && missing.is_empty(),
            leased: spec.and_then(|spec| spec.recovery).is_some_and(|recovery| recovery.is_leased()),
            missing_bytes: missing.iter().fold(0, |sum, image| sum.saturating_add(image.missing_bytes)),
            missing,
            obstacles,
        }
    }

    /// Every image that an instance's disks stand on, with its bytes.
    fn images(self, id: &InstanceId, instance: &record::Instance) -> Vec<(Digest, u64)> {
        let volumes =
            instance.volumes.iter().filter_map(|name| self.cluster.volumes.get(&(id.clone(), name.clone())));
        let layers = instance.layers.iter().chain(volumes.flat_map(|volume| &volume.layers));
        let files = layers.filter_map(|layer| Some((layer.image?, layer.file_bytes)));
        let memory =
            instance.memory_from.iter().filter_map(|memory| Some((memory.image?, memory.file_bytes)));
        std::iter::once((instance.image, instance.image_size_bytes)).chain(files).chain(memory).collect()
    }

    fn missing(self, image: Digest, size_bytes: u64) -> Option<MissingImage> {
        let here = self.hosts.iter().filter_map(|host| Some((*host, self.observed.get(*host)?)));
        let best = here
            .map(|(host, status)| (missing_bytes(status, &image, size_bytes), host))
            .min_by_key(|(bytes, _)| *bytes);
        match best {
            Some((0, _)) => None,
            Some((bytes, host)) => {
                let most_at = (bytes < size_bytes).then(|| host.clone());
                Some(MissingImage { image, missing_bytes: bytes, most_at })
            }
            None => Some(MissingImage { image, missing_bytes: size_bytes, most_at: None }),
        }
    }

    /// What else keeps an instance from starting here.
    fn obstacle(self, id: &InstanceId, instance: &record::Instance) -> Option<String> {
        let Some(host) = self.host_of(id) else {
            return Some(format!("{} has no host yet", id.member));
        };
        if !self.hosts.contains(host) {
            return Some(format!("{} is on host {host}, elsewhere", id.member));
        }
        if !interpose::stands(self.cluster, id, host) {
            return Some(format!("{} waits for the guest that it follows", id.member));
        }
        if !self.online.contains(host) {
            return Some(format!("{} is on host {host}, which is not connected", id.member));
        }
        let taken = self.observed.get(host).map(|status| status.generation);
        let named = self.cluster.desired.get(host).filter(|desired| {
            desired.instances.iter().any(|named| named.id == *id && named.incarnation == instance.incarnation)
        });
        match named {
            Some(desired) if taken >= Some(desired.generation) => self.capacity(host, id),
            _ => Some(format!("host {host} has not taken up its document with {} yet", id.member)),
        }
    }

    /// A host that has promised more than it has starts them in no certain order.
    fn capacity(self, host: &HostName, id: &InstanceId) -> Option<String> {
        let facts = self.cluster.facts.get(host)?;
        let here = self.cluster.placements.iter().filter(|(_, placement)| placement.host == *host);
        let promised = here.filter_map(|(id, _)| self.cluster.instances.get(id));
        let (memory, vcpus) = promised.fold((0_u64, 0_u64), |(memory, vcpus), instance| {
            (memory.saturating_add(instance.memory.0), vcpus + u64::from(instance.vcpus))
        });
        let cpus = u64::from(facts.cpu_total_milli) * u64::from(CPU_OVERCOMMIT);
        let short = memory > facts.memory_total_bytes || vcpus * 1_000 > cpus;
        short.then(|| format!("host {host} has promised more than it has: {} may not fit", id.member))
    }
}
