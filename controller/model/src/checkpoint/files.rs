//! Files of checkpoints as images: who needs them, and who holds them beside the host that made them.

use super::{all, newest};
use crate::cluster::Cluster;
use crate::name;
use crate::record::{self, Checkpoint};
use controller_api::checkpoint::CheckpointPhase;
use controller_api::host::HostService;
use std::collections::{BTreeMap, BTreeSet};
use types::{DeploymentName, Digest, HostName, InstanceId};

/// How long an image that nothing needs stays after it was uploaded, in milliseconds: the host that uploads it says
/// later what it is for.
pub const LAYER_GRACE_MS: u64 = 600_000;

/// Images of checkpoints' files that something needs: a checkpoint, what was restored from one, or a disk in use.
#[must_use]
pub fn needed(cluster: &Cluster) -> BTreeSet<Digest> {
    let held = cluster.checkpoints.values().filter(|held| held.phase != CheckpointPhase::Failed);
    let checkpoints = held.flat_map(|held| held.parts.values().flat_map(record::Part::files).flatten());
    let instances = cluster.instances.values().flat_map(|instance| {
        let memory = instance.memory_from.iter().filter_map(|memory| memory.image);
        instance.layers.iter().filter_map(|layer| layer.image).chain(memory)
    });
    let volumes =
        cluster.volumes.values().flat_map(|volume| volume.layers.iter().filter_map(|layer| layer.image));
    checkpoints.chain(instances).chain(volumes).collect()
}

/// Images of checkpoints' files that nothing needs, by their names in the store.
#[must_use]
pub fn unneeded(cluster: &Cluster, now_ms: u64) -> Vec<Digest> {
    let old = |image: &record::Image| {
        image.layer_ms.is_some_and(|at_ms| at_ms.saturating_add(LAYER_GRACE_MS) < now_ms)
    };
    let mut candidates = cluster.images.iter().filter(|(_, image)| old(image)).peekable();
    if candidates.peek().is_none() {
        return Vec::new();
    }
    let mut kept = needed(cluster);
    kept.extend(cluster.versions.values().map(|version| version.image));
    candidates
        .filter_map(|(hex, _)| format!("sha256:{hex}").parse::<Digest>().ok())
        .filter(|digest| !kept.contains(digest))
        .collect()
}

/// A guest that runs stands on its layers, and no later checkpoint says so: chains of later ones name all earlier layers.
pub(super) fn carries_a_running_disk(
    cluster: &Cluster,
    deployment: &DeploymentName,
    name: &str,
    held: &Checkpoint,
) -> bool {
    let later = |(other, held_later): (&str, &Checkpoint)| {
        other != name && held_later.is_restorable() && held_later.taken_ms >= held.taken_ms
    };
    let present = held.parts.iter().any(|(member, part)| {
        let id = InstanceId { deployment: deployment.clone(), member: member.clone() };
        cluster.instances.get(&id).is_some_and(|instance| instance.incarnation == part.incarnation)
    });
    present
        && matches!(
            held.phase,
            CheckpointPhase::Keeping | CheckpointPhase::Complete | CheckpointPhase::Dropped
        )
        && !all(cluster, deployment).any(later)
}

/// Images of checkpoints that a host holds for others: those of the newest checkpoint of each deployment, for parts whose
/// files are on another host of its site. One host is chosen for each member, and stays it as long as it takes part.
#[must_use]
pub fn replicas(cluster: &Cluster, host: &HostName) -> BTreeSet<Digest> {
    let Some(own) = cluster.hosts.get(host).filter(|own| holds(own)) else { return BTreeSet::new() };
    let mut images = BTreeSet::new();
    let mut last: Option<&DeploymentName> = None;
    for (deployment, _) in cluster.checkpoints.keys() {
        if last.replace(deployment) == Some(deployment) {
            continue;
        }
        let Some((_, held)) = newest(cluster, deployment) else { continue };
        for (member, part) in held.parts.iter().filter(|(_, part)| part.host != *host) {
            let same_site = cluster.hosts.get(&part.host).is_none_or(|there| there.site == own.site);
            let id = InstanceId { deployment: deployment.clone(), member: member.clone() };
            if same_site && holder(cluster, &id, part, &own.site) == Some(host) {
                images.extend(part.files().flatten());
            }
        }
    }
    images
}

fn holds(host: &record::Host) -> bool {
    host.role == "host" && matches!(host.service, HostService::InService | HostService::Cordoned)
}

/// The host whose name weighs most with the instance's (rendezvous hashing): others that come or go change nothing.
fn holder<'a>(
    cluster: &'a Cluster,
    id: &InstanceId,
    part: &record::Part,
    site: &types::SiteName,
) -> Option<&'a HostName> {
    let fits = |(name, host): &(&HostName, &crate::cluster::Stored<record::Host>)| {
        **name != part.host && host.site == *site && holds(host)
    };
    let weight = |name: &HostName| *name::digest(format!("{id} {name}").as_bytes()).as_bytes();
    cluster.hosts.iter().filter(fits).map(|(name, _)| name).max_by_key(|name| weight(name))
}

/// Where each member's files are wholly, as hosts say: `(bytes here, bytes of all)` is for those who show it.
#[must_use]
pub fn replica_hosts(
    cluster: &Cluster,
    observed: &crate::placement::Observed,
    part: &record::Part,
) -> Vec<HostName> {
    let wanted: BTreeMap<String, Digest> =
        part.files().flatten().map(|digest| (digest.to_string(), digest)).collect();
    if wanted.is_empty() || part.files().any(|file| file.is_none()) {
        return Vec::new();
    }
    let whole = |status: &controller_api::agent::HostStatus, name: &str, digest: &Digest| {
        let image = status.images.get(name).or_else(|| status.images.get(&digest.hex()));
        image.is_some_and(|image| image.pieces_local.saturating_add(image.pieces_zero) >= image.pieces)
    };
    cluster
        .hosts
        .keys()
        .filter(|host| **host != part.host)
        .filter(|host| {
            observed
                .get(*host)
                .is_some_and(|status| wanted.iter().all(|(name, digest)| whole(status, name, digest)))
        })
        .cloned()
        .collect()
}
