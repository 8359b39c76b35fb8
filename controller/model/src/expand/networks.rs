//! The numbers and LAN addresses that a deployment's networks and watchers have for themselves.

use super::Subject;
use super::addresses::{lan_forbids, on_lan};
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::validate::{self, Finding, Watched};
use crate::{address, name, network, record, wire};
use controller_api::document::LanUplink;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use types::{DeploymentName, InstanceId, MemberName, NetworkName, PortName};

fn blame(message: String) -> Finding {
    Finding { path: "spec.bundle".into(), message }
}

/// What another deployment has that this one asks for as well.
pub(super) fn conflicts(cluster: &Cluster, subject: &Subject<'_>) -> Result<(), Finding> {
    let neighbours = cluster
        .deployments
        .iter()
        .filter(|(name, spec)| *name != subject.name && cluster.site_of(spec) == subject.site)
        .filter_map(|(name, spec)| Some((name, cluster.bundles.get(&spec.bundle)?)));
    for (other, bundle) in neighbours {
        for (theirs, their) in &bundle.networks {
            for (ours, our) in &subject.bundle.networks {
                let vlan = network::vlan(our).filter(|vlan| network::vlan(their) == Some(*vlan));
                if let Some(vlan) = vlan {
                    return Err(blame(format!(
                        "its network {ours} is VLAN {} of trunk {}, which is network {theirs} of deployment {other} already",
                        vlan.vlan, vlan.trunk
                    )));
                }
                if network::lan(our) == Some(LanUplink::Routed)
                    && network::lan(their) == Some(LanUplink::Routed)
                    && let Some((a, b)) =
                        overlapping(&network::subnets(our, None), &network::subnets(their, None))
                {
                    return Err(blame(format!(
                        "its routed network {ours} ({a}) overlaps {b} of network {theirs} of deployment {other}: \
                         the LAN could not tell them apart"
                    )));
                }
            }
        }
    }
    Ok(())
}

fn overlapping(ours: &[IpNet], theirs: &[IpNet]) -> Option<(IpNet, IpNet)> {
    let pairs = ours.iter().flat_map(|a| theirs.iter().map(move |b| (*a, *b)));
    pairs.into_iter().find(|(a, b)| address::overlap(*a, *b))
}

/// Every number of a VXLAN that is given out.
fn vnis(cluster: &Cluster) -> BTreeSet<u32> {
    let networks = cluster.networks.values().map(|network| network.vni);
    networks.chain(cluster.mirrors.values().flat_map(|mirror| mirror.tunnels.values().copied())).collect()
}

fn full() -> Finding {
    blame("no VXLAN number is free: delete a deployment".into())
}

/// A number for each network that crosses hosts.
pub(super) fn numbers(draft: &mut Draft, subject: &Subject<'_>) -> Result<(), Finding> {
    let networks = subject.bundle.networks.iter();
    let wanted: BTreeSet<&NetworkName> =
        networks.filter(|(_, spec)| network::is_tunnelled(spec)).map(|(name, _)| name).collect();
    let held: Vec<_> = draft.cluster.networks.keys().filter(|(d, _)| d == subject.name).cloned().collect();
    for (deployment, network) in held.iter().filter(|(_, network)| !wanted.contains(network)) {
        draft.delete(record::network_key(deployment, network));
    }
    for network in wanted {
        if held.iter().any(|(_, name)| name == network) {
            continue;
        }
        let vni = name::vni(subject.name, network, &vnis(&draft.cluster)).ok_or_else(full)?;
        draft.put(record::network_key(subject.name, network), &record::Network { vni, outside: None });
    }
    Ok(())
}

/// An address on the LAN for each network's router that leads there.
pub(super) fn outsides(draft: &mut Draft, subject: &Subject<'_>, ports: &wire::Ports) -> Result<(), Finding> {
    let mut taken = on_lan(&draft.cluster, subject);
    taken.extend(own_lan_ports(subject, ports));
    for (name, spec) in &subject.bundle.networks {
        let Some(held) = draft.cluster.networks.get(&(subject.name.clone(), name.clone())) else { continue };
        let outside = match subject.lan.filter(|_| network::leads_out(spec)) {
            None => None,
            Some(lan) => {
                let fits = |outside: &IpNet| {
                    let address = outside.addr();
                    !lan_forbids(subject, true, address)
                        && !taken.contains(&address)
                        && outside.prefix_len() == lan.subnet.prefix_len()
                };
                let own = |name| held_outside(&draft.cluster, subject.name, name);
                let others = subject.bundle.networks.keys().filter(|other| *other != name).filter_map(own);
                let mut busy: BTreeSet<IpAddr> = taken.iter().copied().chain(lan.router).collect();
                busy.extend(others.map(|outside| outside.addr()));
                let free = || address::free(lan.first, lan.last, &busy);
                let address = held.outside.filter(fits).map(|outside| outside.addr()).or_else(free);
                let address = address.ok_or_else(|| {
                    blame(format!(
                        "no address is free on the site's LAN for the router of network {name}: give it a larger range"
                    ))
                })?;
                taken.insert(address);
                IpNet::new(address, lan.subnet.prefix_len()).ok()
            }
        };
        let new = record::Network { vni: held.vni, outside };
        if new != held.value {
            draft.put(record::network_key(subject.name, name), &new);
        }
    }
    Ok(())
}

fn held_outside(cluster: &Cluster, deployment: &DeploymentName, network: &NetworkName) -> Option<IpNet> {
    cluster.networks.get(&(deployment.clone(), network.clone()))?.outside
}

fn own_lan_ports(subject: &Subject<'_>, ports: &wire::Ports) -> Vec<IpAddr> {
    let is_site = |port: &&record::Port| {
        port.watches.is_none() && subject.bundle.networks.get(&port.network).is_some_and(network::is_site)
    };
    ports.values().flatten().filter(is_site).flat_map(record::Port::ips).collect()
}

/// A number for the copies of each member that a watcher may have to get from another host: a host sends them under
/// the number of the first of its members.
pub(super) fn tunnels(draft: &mut Draft, subject: &Subject<'_>) -> Result<(), Finding> {
    let wanted = watchers(subject);
    let held: Vec<_> =
        draft.cluster.mirrors.keys().filter(|(id, _)| id.deployment == *subject.name).cloned().collect();
    for (id, port) in held.iter().filter(|key| !wanted.contains_key(key)) {
        draft.delete(record::mirror_key(id, port));
    }
    for (key, members) in wanted {
        let held = draft.cluster.mirrors.get(&key).map(|held| held.value.clone()).unwrap_or_default();
        let mut taken = vnis(&draft.cluster);
        let mut new = record::Mirror::default();
        for member in members {
            let vni = match held.tunnels.get(member) {
                Some(vni) => *vni,
                None => name::mirror_vni(&key.0, &key.1, member, &taken).ok_or_else(full)?,
            };
            taken.insert(vni);
            new.tunnels.insert(member.clone(), vni);
        }
        if draft.cluster.mirrors.get(&key).map(|held| &held.value) != Some(&new) {
            draft.put(record::mirror_key(&key.0, &key.1), &new);
        }
    }
    Ok(())
}

type Watchers<'a> = BTreeMap<(InstanceId, PortName), BTreeSet<&'a MemberName>>;

/// Whom each watching port watches.
fn watchers<'a>(subject: &Subject<'a>) -> Watchers<'a> {
    let mut watchers = Watchers::new();
    for (member, port, target) in validate::every_port(subject.bundle) {
        let Some(watched) = validate::watched(subject.bundle, target) else { continue };
        let id = InstanceId { deployment: subject.name.clone(), member: member.clone() };
        let members = match watched {
            Watched::Port { member, .. } => BTreeSet::from([member]),
            Watched::Network(network) => crate::access::members_on(subject.bundle, network).collect(),
        };
        // Its own frames never come from another host.
        let others = members.into_iter().filter(|other| *other != member).collect();
        watchers.insert((id, port.clone()), others);
    }
    watchers
}
