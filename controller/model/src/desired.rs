//! What each host shall hold: a function of what was decided.

use crate::cluster::Cluster;
use crate::{checkpoint, config_disk, expand, interpose, lease, moving, record, streams, wire};
use controller_api::agent::{DesiredInstance, DesiredPort, DesiredVolume, HostDesired};
use std::collections::{BTreeMap, BTreeSet};
use types::{DeploymentName, Digest, Generation, HostName, InstanceId, MemberName};

mod mirrors;
mod networks;
mod watches;

type Wiring = BTreeMap<MemberName, wire::Member>;
type Wirings<'a> = BTreeMap<&'a DeploymentName, Wiring>;

/// The desired documents of all hosts that can hold instances. A document's generation is the one before, or the next
/// one if its content differs. Those that are `online` share their site's limits.
#[must_use]
pub fn desired(cluster: &Cluster, online: &BTreeSet<HostName>) -> BTreeMap<HostName, HostDesired> {
    let deployments: BTreeSet<&DeploymentName> = cluster.placements.keys().map(|id| &id.deployment).collect();
    let wirings: Wirings<'_> =
        deployments.into_iter().map(|deployment| (deployment, expand::wiring(cluster, deployment))).collect();
    cluster
        .hosts
        .iter()
        .filter(|(_, host)| host.role == "host")
        .map(|(host, _)| (host.clone(), of_host(cluster, host, &wirings, online)))
        .collect()
}

fn of_host(
    cluster: &Cluster,
    host: &HostName,
    wirings: &Wirings<'_>,
    online: &BTreeSet<HostName>,
) -> HostDesired {
    let here: Vec<(&InstanceId, &record::Instance)> = cluster
        .placements
        .iter()
        .filter(|(id, placement)| placement.host == *host && interpose::stands(cluster, id, host))
        .filter_map(|(id, _)| Some((id, &cluster.instances.get(id)?.value)))
        .collect();
    // Those on their way here have their networks, images and disks here already.
    let arriving =
        moving::arrivals(cluster, host).filter_map(|id| Some((id, &cluster.instances.get(id)?.value)));
    let with_arriving: Vec<(&InstanceId, &record::Instance)> = here.iter().copied().chain(arriving).collect();
    let comes = |id: &InstanceId| moving::coming_to(cluster, id) == Some(host);
    let part = |id: &InstanceId| wirings.get(&id.deployment).and_then(|wiring| wiring.get(&id.member));
    let volumes = cluster
        .volumes
        .iter()
        .filter(|((id, _), volume)| volume.host.as_ref() == Some(host) || comes(id))
        .map(|((instance, name), volume)| DesiredVolume {
            instance: instance.clone(),
            name: name.clone(),
            size: volume.size,
            incarnation: volume.incarnation.clone(),
            layers: volume.layers.clone(),
        })
        .collect();
    let mut images: BTreeSet<Digest> = with_arriving.iter().map(|(_, instance)| instance.image).collect();
    images.extend(with_arriving.iter().flat_map(|(_, instance)| needed_files(instance)));
    let own_volumes = cluster.volumes.values().filter(|volume| volume.host.as_ref() == Some(host));
    images.extend(own_volumes.flat_map(|volume| volume.layers.iter().filter_map(|layer| layer.image)));
    let streams = streams::held(cluster, host, &images);
    images.extend(streams.keys());
    let mut document = HostDesired {
        generation: Generation::default(),
        networks: networks::networks(cluster, host, &with_arriving, wirings),
        watchers: mirrors::watchers(&with_arriving),
        mirrors: mirrors::mirrors(cluster, host),
        images: images.into_iter().collect(),
        streams: streams.into_values().collect(),
        limits: streams::limits(cluster, host, online),
        instances: with_arriving
            .iter()
            .map(|(id, instance)| desired_instance(cluster, id, instance, part(id)))
            .collect(),
        volumes,
        watches: watches::of_host(cluster, &here),
        captures: checkpoint::captures(cluster, host),
        moves: moving::ends(cluster, host),
        lease_ms: lease::of_host(cluster, host),
    };
    match cluster.desired.get(host) {
        Some(held) => {
            document.generation = held.generation;
            if document != held.value {
                document.generation = held.generation.next();
            }
        }
        None => document.generation = Generation(1),
    }
    document
}

/// Images of what an instance was made from.
fn needed_files(instance: &record::Instance) -> impl Iterator<Item = Digest> + '_ {
    let memory = instance.memory_from.as_ref().and_then(|memory| memory.image);
    instance.layers.iter().filter_map(|layer| layer.image).chain(memory)
}

fn desired_instance(
    cluster: &Cluster,
    id: &InstanceId,
    instance: &record::Instance,
    part: Option<&wire::Member>,
) -> DesiredInstance {
    let nothing = wire::Member::default();
    let ports = instance.ports.iter().map(|port| DesiredPort {
        name: port.name.clone(),
        tap: port.tap.clone(),
        mac: port.mac,
        mtu: port.mtu,
    });
    DesiredInstance {
        id: id.clone(),
        incarnation: instance.incarnation.clone(),
        vcpus: instance.vcpus,
        memory: instance.memory,
        image: instance.image,
        image_size_bytes: instance.image_size_bytes,
        ports: ports.collect(),
        volumes: instance.volumes.clone(),
        config: config_disk::files(id, instance, part.unwrap_or(&nothing)),
        power: instance.power,
        leased: lease::is_leased(cluster, id),
        layers: instance.layers.clone(),
        memory_from: instance.memory_from.clone(),
    }
}
