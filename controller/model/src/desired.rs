//! What each host shall hold: a function of what was decided.

use crate::cluster::Cluster;
use crate::{config_disk, expand, name, record, streams, wire};
use controller_api::agent::{DesiredInstance, DesiredPort, DesiredVolume, HostDesired};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use types::{DeploymentName, Digest, Generation, HostName, InstanceId, MemberName, NetworkName};

type Wiring = BTreeMap<MemberName, wire::Member>;

/// The desired documents of all hosts that can hold instances. A document's generation is the one before, or the next
/// one if its content differs. Those that are `online` share their site's limits.
#[must_use]
pub fn desired(cluster: &Cluster, online: &BTreeSet<HostName>) -> BTreeMap<HostName, HostDesired> {
    let deployments: BTreeSet<&DeploymentName> = cluster.placements.keys().map(|id| &id.deployment).collect();
    let wirings: BTreeMap<&DeploymentName, Wiring> =
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
    wirings: &BTreeMap<&DeploymentName, Wiring>,
    online: &BTreeSet<HostName>,
) -> HostDesired {
    let here: Vec<(&InstanceId, &record::Instance)> = cluster
        .placements
        .iter()
        .filter(|(_, placement)| placement.host == *host)
        .filter_map(|(id, _)| Some((id, &cluster.instances.get(id)?.value)))
        .collect();
    let part = |id: &InstanceId| wirings.get(&id.deployment).and_then(|wiring| wiring.get(&id.member));
    let volumes = cluster
        .volumes
        .iter()
        .filter(|(_, volume)| volume.host.as_ref() == Some(host))
        .map(|((instance, name), volume)| DesiredVolume {
            instance: instance.clone(),
            name: name.clone(),
            size: volume.size,
        })
        .collect();
    let mut images: BTreeSet<Digest> = here.iter().map(|(_, instance)| instance.image).collect();
    let streams = streams::held(cluster, host, &images);
    images.extend(streams.keys());
    let mut document = HostDesired {
        generation: Generation::default(),
        networks: networks(cluster, host, &here, wirings),
        images: images.into_iter().collect(),
        streams: streams.into_values().collect(),
        limits: streams::limits(cluster, host, online),
        instances: here.iter().map(|(id, instance)| desired_instance(id, instance, part(id))).collect(),
        volumes,
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

fn desired_instance(
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
    }
}

fn networks(
    cluster: &Cluster,
    host: &HostName,
    here: &[(&InstanceId, &record::Instance)],
    wirings: &BTreeMap<&DeploymentName, Wiring>,
) -> Vec<netd_api::Network> {
    let mut networks: BTreeMap<(&DeploymentName, &NetworkName), netd_api::Network> = BTreeMap::new();
    for (id, instance) in here {
        for port in &instance.ports {
            let network =
                networks.entry((&id.deployment, &port.network)).or_insert_with(|| netd_api::Network {
                    id: format!("{}/{}", id.deployment, port.network),
                    bridge: name::bridge(&id.deployment, &port.network),
                    mtu: port.mtu,
                    uplink: uplink(cluster, host, &id.deployment, &port.network),
                    ..netd_api::Network::default()
                });
            let part = wirings.get(&id.deployment).and_then(|wiring| wiring.get(&id.member));
            network.ports.push(desired_port(id, port, part.and_then(|part| part.ports.get(&port.name))));
        }
    }
    networks.into_values().collect()
}

/// A port nothing is known about stays closed.
fn desired_port(id: &InstanceId, port: &record::Port, part: Option<&wire::Port>) -> netd_api::Port {
    netd_api::Port {
        addresses: vec![port.address],
        routes: part.is_some_and(|part| part.routes),
        accept: part.map(|part| part.accept.iter().cloned().collect()).unwrap_or_default(),
        ..netd_api::Port::closed(format!("{id}/{}", port.name), port.tap.clone(), port.mac)
    }
}

fn uplink(
    cluster: &Cluster,
    host: &HostName,
    deployment: &DeploymentName,
    network: &NetworkName,
) -> netd_api::Uplink {
    if let Some(record) = cluster.networks.get(&(deployment.clone(), network.clone())) {
        return netd_api::Uplink::Vxlan {
            vni: record.vni,
            link: name::vxlan_link(deployment, network),
            peers: peers(cluster, host, deployment, network),
        };
    }
    let site = cluster.deployments.get(deployment).and_then(|spec| cluster.site_of(spec));
    match site {
        Some(site) => netd_api::Uplink::Site { site },
        None => netd_api::Uplink::None,
    }
}

/// Underlay addresses of the other hosts that have a port on a network.
fn peers(
    cluster: &Cluster,
    host: &HostName,
    deployment: &DeploymentName,
    network: &NetworkName,
) -> Vec<IpAddr> {
    let hosts: BTreeSet<&HostName> = cluster
        .instances_of(deployment)
        .filter(|(_, instance)| instance.ports.iter().any(|port| port.network == *network))
        .filter_map(|(id, _)| cluster.placements.get(id).map(|placement| &placement.host))
        .filter(|other| *other != host)
        .collect();
    hosts.into_iter().filter_map(|other| cluster.facts.get(other)?.underlay_address).collect()
}
