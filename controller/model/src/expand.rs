//! From a deployment to its instances: versions, addresses, numbers, volumes.

use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::validate::{self, Finding, Findings, port_target};
use crate::{address, config_disk, name, record, wire};
use controller_api::document::{BundleSpec, DeploymentSpec, LanSpec, MemberSpec, NetworkUplink};
use std::collections::BTreeSet;
use std::net::IpAddr;
use types::{DeploymentName, InstanceId, MemberName, NetworkName, PortName, SiteName};

/// Largest frame payload on a site's LAN, in bytes.
const LAN_MTU: u16 = 1_500;
/// What a VXLAN over IPv4 takes of it.
const VXLAN_OVERHEAD: u16 = 50;

/// Everything of a deployment that can be known before it is expanded.
struct Subject<'a> {
    name: &'a DeploymentName,
    bundle: &'a BundleSpec,
    lan: Option<&'a LanSpec>,
    site: Option<SiteName>,
}

/// What is wrong with a deployment in this cluster.
pub(crate) fn check(spec: &DeploymentSpec, cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Findings::default();
    let Some(bundle) = cluster.bundles.get(&spec.bundle) else {
        let known = validate::choices(cluster.bundles.keys(), "apply it first, or together with this");
        findings.add("spec.bundle", format!("there is no bundle {}: {known}", spec.bundle));
        return findings.0;
    };
    if let Some(site) = spec.site.as_ref().filter(|site| !cluster.sites.contains_key(site)) {
        let known = validate::choices(cluster.sites.keys(), "apply a Site first");
        findings.add("spec.site", format!("there is no site {site}: {known}"));
        return findings.0;
    }
    let site = cluster.site_of(spec);
    if site.is_none() && cluster.sites.len() > 1 {
        let known = validate::choices(cluster.sites.keys(), "");
        findings.add("spec.site", format!("there are {} sites: {known}", cluster.sites.len()));
    }
    let lan = site.and_then(|site| cluster.sites.get(&site)).map(|site| &site.value.lan);
    for (network, spec) in &bundle.networks {
        match (spec.uplink, lan, spec.subnet) {
            (Some(NetworkUplink::Site), None, _) => {
                let message = format!(
                    "its network {network} is a site's LAN, and there is no site: apply a Site first"
                );
                findings.add("spec.bundle", message);
            }
            (None, Some(lan), Some(subnet)) if address::overlap(lan.subnet, subnet) => {
                let message =
                    format!("its network {network} ({subnet}) overlaps the site's LAN {}", lan.subnet);
                findings.add("spec.bundle", message);
            }
            _ => {}
        }
    }
    findings.0
}

/// Brings the instances, networks and volumes of a deployment into line with its bundle. `fresh` gives a new UUID.
pub(crate) fn expand(
    draft: &mut Draft,
    deployment: &DeploymentName,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Finding> {
    let before = draft.cluster.clone();
    let Some(spec) = before.deployments.get(deployment) else { return Ok(()) };
    let Some(bundle) = before.bundles.get(&spec.bundle) else { return Ok(()) };
    let site = before.site_of(spec);
    let lan = site.as_ref().and_then(|site| before.sites.get(site)).map(|site| &site.value.lan);
    let subject = Subject { name: deployment, bundle, lan, site };
    networks(draft, &subject)?;
    let ports = ports(&before, &subject)?;
    let wiring = wire::wire(bundle, lan, &ports);
    for (member, spec) in &bundle.members {
        let id = InstanceId { deployment: deployment.clone(), member: member.clone() };
        let part = wiring.get(member).cloned().unwrap_or_default();
        let own = ports.get(member).cloned().unwrap_or_default();
        instance(draft, &before, &id, spec, own, &part, fresh)?;
        volumes(draft, &before, &id, spec)?;
    }
    let gone: Vec<_> = before
        .instances_of(deployment)
        .map(|(id, _)| id.clone())
        .filter(|id| !bundle.members.contains_key(&id.member))
        .collect();
    for id in gone {
        draft.delete(record::instance_key(&id));
        draft.delete(record::placement_key(&id));
    }
    Ok(())
}

fn networks(draft: &mut Draft, subject: &Subject<'_>) -> Result<(), Finding> {
    let wanted: BTreeSet<&NetworkName> =
        subject.bundle.networks.iter().filter(|(_, n)| n.uplink.is_none()).map(|(name, _)| name).collect();
    let held: Vec<_> = draft.cluster.networks.keys().filter(|(d, _)| d == subject.name).cloned().collect();
    for (deployment, network) in held.iter().filter(|(_, network)| !wanted.contains(network)) {
        draft.delete(record::network_key(deployment, network));
    }
    for network in wanted {
        if held.iter().any(|(_, name)| name == network) {
            continue;
        }
        let taken = draft.cluster.networks.values().map(|record| record.vni).collect();
        let vni = name::vni(subject.name, network, &taken).ok_or_else(|| Finding {
            path: "spec.bundle".into(),
            message: "no VXLAN number is free: delete a deployment".into(),
        })?;
        draft.put(record::network_key(subject.name, network), &record::Network { vni });
    }
    Ok(())
}

fn ports(cluster: &Cluster, subject: &Subject<'_>) -> Result<wire::Ports, Finding> {
    let mut ports = wire::Ports::new();
    for member in subject.bundle.members.keys() {
        ports.insert(member.clone(), Vec::new());
    }
    for (network, spec) in &subject.bundle.networks {
        let on_lan = spec.uplink.is_some();
        let (subnet, mtu) = match (spec.subnet, subject.lan) {
            (Some(subnet), _) => (subnet, LAN_MTU - VXLAN_OVERHEAD),
            (None, Some(lan)) => (lan.subnet, LAN_MTU),
            (None, None) => continue,
        };
        for (member, port, address) in addresses(cluster, subject, network, on_lan)? {
            ports.entry(member.clone()).or_default().push(record::Port {
                name: port.clone(),
                network: network.clone(),
                mac: name::mac(subject.name, member, port),
                tap: name::tap(subject.name, member, port),
                address,
                prefix_len: subnet.prefix_len(),
                mtu,
            });
        }
    }
    Ok(ports)
}

type Addressed<'a> = Vec<(&'a MemberName, &'a PortName, IpAddr)>;

/// Addresses on one network: chosen ones, the gateway's, those held already, then the lowest free.
fn addresses<'a>(
    cluster: &Cluster,
    subject: &Subject<'a>,
    network: &NetworkName,
    on_lan: bool,
) -> Result<Addressed<'a>, Finding> {
    let mut taken: BTreeSet<IpAddr> = if on_lan { others_on_lan(cluster, subject) } else { BTreeSet::new() };
    let joined: Vec<(&MemberName, &MemberSpec, &PortName, Option<IpAddr>)> = subject
        .bundle
        .members
        .iter()
        .flat_map(|(member, spec)| spec.ports.iter().map(move |(port, target)| (member, spec, port, target)))
        .filter(|(_, _, _, target)| port_target(target).0 == network)
        .map(|(member, spec, port, target)| (member, spec, port, port_target(target).1))
        .collect();
    let mut given: Vec<Option<IpAddr>> = Vec::with_capacity(joined.len());
    for (member, _, port, fixed) in &joined {
        if let Some(address) = fixed
            && (!taken.insert(*address) || lan_forbids(subject, on_lan, *address))
        {
            return Err(Finding {
                path: "spec.bundle".into(),
                message: format!(
                    "{member}'s port {port} asks for {address}, which is not free on the site's LAN"
                ),
            });
        }
        given.push(*fixed);
    }
    for pass in [gateway_address, held_address] {
        for ((member, spec, port, _), slot) in joined.iter().zip(&mut given) {
            if slot.is_none()
                && let Some(address) = pass(cluster, subject, network, (*member, *spec, *port))
                && !lan_forbids(subject, on_lan, address)
                && taken.insert(address)
            {
                *slot = Some(address);
            }
        }
    }
    joined
        .into_iter()
        .zip(given)
        .map(|((member, _, port, _), address)| {
            let address = match address {
                Some(address) => address,
                None => lowest_free(subject, network, on_lan, &taken)?,
            };
            taken.insert(address);
            Ok((member, port, address))
        })
        .collect()
}

type Joined<'a> = (&'a MemberName, &'a MemberSpec, &'a PortName);

/// `.1` for the protected side of a gateway.
fn gateway_address(
    _: &Cluster,
    subject: &Subject<'_>,
    network: &NetworkName,
    (_, spec, port): Joined<'_>,
) -> Option<IpAddr> {
    let gateway = spec.gateway.as_ref().filter(|gateway| gateway.from == *port)?;
    let _ = gateway;
    address::first(subject.bundle.networks.get(network)?.subnet?)
}

/// What the port has already, if it still fits.
fn held_address(
    cluster: &Cluster,
    subject: &Subject<'_>,
    network: &NetworkName,
    (member, _, port): Joined<'_>,
) -> Option<IpAddr> {
    let id = InstanceId { deployment: subject.name.clone(), member: member.clone() };
    let held = cluster
        .instances
        .get(&id)?
        .ports
        .iter()
        .find(|held| held.name == *port && held.network == *network)?;
    let subnet = subject.bundle.networks.get(network)?.subnet;
    match subnet {
        Some(subnet) => address::unusable(held.address, subnet).is_none().then_some(held.address),
        None => Some(held.address),
    }
}

fn lan_forbids(subject: &Subject<'_>, on_lan: bool, address: IpAddr) -> bool {
    let outside = |lan: &LanSpec| !(lan.first..=lan.last).contains(&address) || lan.router == Some(address);
    on_lan && subject.lan.is_some_and(outside)
}

fn others_on_lan(cluster: &Cluster, subject: &Subject<'_>) -> BTreeSet<IpAddr> {
    let same_lan = |deployment: &DeploymentName| {
        cluster.deployments.get(deployment).is_some_and(|spec| cluster.site_of(spec) == subject.site)
    };
    cluster
        .instances
        .iter()
        .filter(|(id, _)| id.deployment != *subject.name && same_lan(&id.deployment))
        .flat_map(|(id, instance)| instance.ports.iter().map(move |port| (id, port)))
        .filter(|(id, port)| is_lan(cluster, &id.deployment, &port.network))
        .map(|(_, port)| port.address)
        .collect()
}

/// Whether a network of a deployment is its site's LAN.
pub(crate) fn is_lan(cluster: &Cluster, deployment: &DeploymentName, network: &NetworkName) -> bool {
    !cluster.networks.contains_key(&(deployment.clone(), network.clone()))
}

fn lowest_free(
    subject: &Subject<'_>,
    network: &NetworkName,
    on_lan: bool,
    taken: &BTreeSet<IpAddr>,
) -> Result<IpAddr, Finding> {
    let found = match (on_lan, subject.lan, subject.bundle.networks.get(network).and_then(|n| n.subnet)) {
        (true, Some(lan), _) => {
            let mut taken = taken.clone();
            taken.extend(lan.router);
            address::free(lan.first, lan.last, &taken)
        }
        (false, _, Some(subnet)) => address::free_in(subnet, taken),
        _ => None,
    };
    found.ok_or_else(|| Finding {
        path: "spec.bundle".into(),
        message: format!("no address is free on network {network}: give it a larger range"),
    })
}

fn instance(
    draft: &mut Draft,
    before: &Cluster,
    id: &InstanceId,
    spec: &MemberSpec,
    mut ports: Vec<record::Port>,
    part: &wire::Member,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Finding> {
    let at = |field: &str, message: String| Finding {
        path: format!("spec.members.{}.{field}", id.member),
        message,
    };
    let held = before.instances.get(id);
    let (version, release) = match held.filter(|held| keeps_version(held, spec)) {
        Some(held) => {
            let key = (spec.appliance.clone(), held.version.clone());
            let release = before.versions.get(&key).map(|release| (held.version.clone(), &release.value));
            release.ok_or_else(|| at("appliance", format!("version {} is gone", held.version)))?
        }
        None => validate::resolve(before, spec).map_err(|(field, message)| at(field, message))?,
    };
    ports.sort_by_key(|port| release.spec.ports.iter().position(|name| *name == port.name));
    let mut new = record::Instance {
        incarnation: String::new(),
        appliance: spec.appliance.clone(),
        version,
        image: release.image,
        image_size_bytes: release.size_bytes,
        vcpus: spec.vcpus.unwrap_or(release.spec.hardware.vcpus),
        memory: spec.memory.unwrap_or(release.spec.hardware.memory),
        ports,
        volumes: spec.volumes.keys().cloned().collect(),
        shape: name::digest(b""),
    };
    let visible = serde_json::to_vec(&(&new, config_disk::files(id, &new, part))).unwrap_or_default();
    new.shape = name::digest(&visible);
    match held {
        Some(held) if held.shape == new.shape => return Ok(()),
        Some(_) => draft.delete(record::placement_key(id)),
        None => {}
    }
    new.incarnation = fresh();
    draft.put(record::instance_key(id), &new);
    Ok(())
}

/// A channel that moved is the update policy's business; only a member that says something else changes here.
fn keeps_version(held: &record::Instance, spec: &MemberSpec) -> bool {
    held.appliance == spec.appliance && spec.version.as_ref().is_none_or(|version| *version == held.version)
}

fn volumes(draft: &mut Draft, before: &Cluster, id: &InstanceId, spec: &MemberSpec) -> Result<(), Finding> {
    for (volume, wanted) in &spec.volumes {
        let held = before.volumes.get(&(id.clone(), volume.clone()));
        if let Some(held) = held.filter(|held| held.size > wanted.size) {
            return Err(Finding {
                path: format!("spec.members.{}.volumes.{volume}.size", id.member),
                message: format!(
                    "volume {id}/{volume} has {} already: a volume grows, never shrinks",
                    held.size
                ),
            });
        }
        let new = record::Volume { size: wanted.size, host: held.and_then(|held| held.host.clone()) };
        if held.map(|held| &held.value) != Some(&new) {
            draft.put(record::volume_key(id, volume), &new);
        }
    }
    Ok(())
}

/// The wiring of a deployment as it was expanded.
#[must_use]
pub fn wiring(
    cluster: &Cluster,
    deployment: &DeploymentName,
) -> std::collections::BTreeMap<MemberName, wire::Member> {
    let Some(spec) = cluster.deployments.get(deployment) else { return Default::default() };
    let Some(bundle) = cluster.bundles.get(&spec.bundle) else { return Default::default() };
    let lan = cluster.site_of(spec).and_then(|site| cluster.sites.get(&site)).map(|site| &site.value.lan);
    let ports = cluster
        .instances_of(deployment)
        .map(|(id, instance)| (id.member.clone(), instance.ports.clone()))
        .collect();
    wire::wire(bundle, lan, &ports)
}
