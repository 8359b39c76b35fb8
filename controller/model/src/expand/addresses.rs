//! Addresses of a deployment's ports: chosen ones, the gateway's, those held already, then the lowest free.

use super::Subject;
use crate::cluster::Cluster;
use crate::validate::{self, Finding, Watched};
use crate::{address, name, network, record, wire};
use controller_api::document::{LanSpec, MemberSpec, NetworkSpec};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use types::{DeploymentName, InstanceId, MemberName, NetworkName, PortName};

/// One subnet of a network.
struct Range<'a> {
    network: &'a NetworkName,
    spec: &'a NetworkSpec,
    subnet: IpNet,
    on_lan: bool,
}

/// A port that wants an address of a range.
struct Joined<'a> {
    member: &'a MemberName,
    spec: &'a MemberSpec,
    port: &'a PortName,
    chosen: Option<IpAddr>,
}

type Given<'a> = BTreeMap<(&'a MemberName, &'a PortName), Vec<IpNet>>;

/// Every member's ports, decided.
pub(super) fn ports(cluster: &Cluster, subject: &Subject<'_>) -> Result<wire::Ports, Finding> {
    let mut given = Given::new();
    let mut on_lan = on_lan(cluster, subject);
    on_lan.extend(own_outsides(cluster, subject));
    for (network, spec) in &subject.bundle.networks {
        for subnet in network::subnets(spec, subject.lan) {
            let range = Range { network, spec, subnet, on_lan: network::is_site(spec) };
            let taken = if range.on_lan { on_lan.clone() } else { BTreeSet::new() };
            for (member, port, address) in addresses(cluster, subject, &range, taken)? {
                if range.on_lan {
                    on_lan.insert(address);
                }
                given.entry((member, port)).or_default().extend(IpNet::new(address, subnet.prefix_len()));
            }
        }
    }
    let mut ports: wire::Ports =
        subject.bundle.members.keys().map(|member| (member.clone(), Vec::new())).collect();
    for (member, port, target) in validate::every_port(subject.bundle) {
        let watched = validate::watched(subject.bundle, target);
        let network = match watched {
            Some(Watched::Network(network) | Watched::Port { network, .. }) => network,
            None => match validate::joined(target) {
                Some(network) => network,
                None => continue,
            },
        };
        let Some(spec) = subject.bundle.networks.get(network) else { continue };
        ports.entry(member.clone()).or_default().push(record::Port {
            name: port.clone(),
            network: network.clone(),
            mac: name::mac(subject.name, member, port),
            tap: name::tap(subject.name, member, port),
            addresses: given.remove(&(member, port)).unwrap_or_default(),
            mtu: network::mtu(spec, cluster, subject.site.as_ref()),
            watches: watched.map(Watched::record),
        });
    }
    Ok(ports)
}

type Addressed<'a> = Vec<(&'a MemberName, &'a PortName, IpAddr)>;

fn addresses<'a>(
    cluster: &Cluster,
    subject: &Subject<'a>,
    range: &Range<'_>,
    mut taken: BTreeSet<IpAddr>,
) -> Result<Addressed<'a>, Finding> {
    taken.extend(network::router_addresses(range.spec).into_iter().map(|router| router.addr()));
    let joined: Vec<Joined<'_>> = subject
        .bundle
        .members
        .iter()
        .flat_map(|(member, spec)| spec.ports.iter().map(move |(port, target)| (member, spec, port, target)))
        .filter(|(_, _, _, target)| validate::joined(target) == Some(range.network))
        .map(|(member, spec, port, target)| {
            let meant = |address: &IpAddr| range.on_lan || range.subnet.contains(address);
            let chosen = validate::chosen(target).find(meant);
            Joined { member, spec, port, chosen }
        })
        .collect();
    let mut given: Vec<Option<IpAddr>> = Vec::with_capacity(joined.len());
    for Joined { member, port, chosen, .. } in &joined {
        if let Some(address) = chosen
            && (!taken.insert(*address) || lan_forbids(subject, range.on_lan, *address))
        {
            return Err(Finding {
                path: "spec.bundle".into(),
                message: format!(
                    "{member}'s port {port} asks for {address}, which is not free on the site's LAN"
                ),
            });
        }
        given.push(*chosen);
    }
    for pass in [gateway_address, held_address] {
        for (joined, slot) in joined.iter().zip(&mut given) {
            if slot.is_none()
                && let Some(address) = pass(cluster, subject, range, joined)
                && !lan_forbids(subject, range.on_lan, address)
                && taken.insert(address)
            {
                *slot = Some(address);
            }
        }
    }
    joined
        .into_iter()
        .zip(given)
        .map(|(Joined { member, port, .. }, address)| {
            let address = match address {
                Some(address) => address,
                None => lowest_free(subject, range, &taken)?,
            };
            taken.insert(address);
            Ok((member, port, address))
        })
        .collect()
}

/// `.1` for the protected side of a gateway.
fn gateway_address(_: &Cluster, _: &Subject<'_>, range: &Range<'_>, joined: &Joined<'_>) -> Option<IpAddr> {
    let protects = joined.spec.gateway.as_ref().is_some_and(|gateway| gateway.from == *joined.port);
    (protects && !range.on_lan).then(|| address::first(range.subnet)).flatten()
}

/// What the port has already, if it still fits.
fn held_address(
    cluster: &Cluster,
    subject: &Subject<'_>,
    range: &Range<'_>,
    joined: &Joined<'_>,
) -> Option<IpAddr> {
    let id = InstanceId { deployment: subject.name.clone(), member: joined.member.clone() };
    let ports = &cluster.instances.get(&id)?.ports;
    let held = ports.iter().find(|held| held.name == *joined.port && held.joins(range.network))?;
    held.ips().find(|address| address::unusable(*address, range.subnet).is_none())
}

/// The site gives out other addresses of its LAN only.
pub(super) fn lan_forbids(subject: &Subject<'_>, on_lan: bool, address: IpAddr) -> bool {
    let outside = |lan: &LanSpec| !(lan.first..=lan.last).contains(&address) || lan.router == Some(address);
    on_lan && subject.lan.is_some_and(outside)
}

/// Addresses of other deployments on the same LAN.
pub(super) fn on_lan(cluster: &Cluster, subject: &Subject<'_>) -> BTreeSet<IpAddr> {
    let neighbour = |deployment: &DeploymentName| {
        deployment != subject.name
            && cluster.deployments.get(deployment).is_some_and(|spec| cluster.site_of(spec) == subject.site)
    };
    let routers = cluster.networks.iter().filter(|((deployment, _), _)| neighbour(deployment));
    cluster
        .instances
        .iter()
        .filter(|(id, _)| neighbour(&id.deployment))
        .flat_map(|(id, instance)| instance.ports.iter().map(move |port| (id, port)))
        .filter(|(id, port)| is_lan(cluster, &id.deployment, &port.network))
        .flat_map(|(_, port)| port.ips())
        .chain(routers.filter_map(|(_, network)| Some(network.outside?.addr())))
        .collect()
}

fn own_outsides<'a>(cluster: &'a Cluster, subject: &'a Subject<'_>) -> impl Iterator<Item = IpAddr> + 'a {
    let own = cluster.networks.iter().filter(|((deployment, _), _)| deployment == subject.name);
    own.filter_map(|(_, network)| Some(network.outside?.addr()))
}

/// Whether a network of a deployment is its site's LAN.
fn is_lan(cluster: &Cluster, deployment: &DeploymentName, network: &NetworkName) -> bool {
    network::spec_of(cluster, deployment, network).is_some_and(network::is_site)
}

fn lowest_free(
    subject: &Subject<'_>,
    range: &Range<'_>,
    taken: &BTreeSet<IpAddr>,
) -> Result<IpAddr, Finding> {
    let found = match subject.lan.filter(|_| range.on_lan) {
        Some(lan) => {
            let mut taken = taken.clone();
            taken.extend(lan.router);
            address::free(lan.first, lan.last, &taken)
        }
        None => address::free_in(range.subnet, taken),
    };
    found.ok_or_else(|| Finding {
        path: "spec.bundle".into(),
        message: format!("no address is free on network {}: give it a larger range", range.network),
    })
}
