//! From a deployment to its instances: versions, addresses, numbers, volumes.

use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::validate::{self, Finding, Findings};
use crate::{address, config_disk, interpose, name, network, record, update, wire};
use controller_api::document::{BundleSpec, DeploymentSpec, LanSpec, MemberSpec, NetworkSpec};
use controller_api::life::Power;
use types::{DeploymentName, InstanceId, MemberName, NetworkName, SiteName, VersionName};

mod addresses;
mod networks;

/// Smallest MTU of IPv6 (RFC 8200).
const IPV6_MTU_MIN: u16 = 1_280;

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
    for (member, wished) in
        bundle.members.iter().filter_map(|(name, spec)| Some((name, spec.placement.site.as_ref()?)))
    {
        if let Some(site) = site.as_ref().filter(|site| *site != wished) {
            let message =
                format!("its member {member} wishes site {wished}, and the deployment is at {site}");
            findings.add("spec.bundle", message);
        }
    }
    for (network, spec) in &bundle.networks {
        check_network(network, spec, cluster, site.as_ref(), &mut findings);
    }
    findings.0.extend(interpose::check(spec, bundle, cluster));
    validate::cloud_init::deployment(spec, bundle, &mut findings);
    findings.0
}

/// What is wrong with one of its networks at this site.
fn check_network(
    name: &NetworkName,
    spec: &NetworkSpec,
    cluster: &Cluster,
    site: Option<&SiteName>,
    findings: &mut Findings,
) {
    let mut add = |message: String| findings.add("spec.bundle", message);
    let lan = site.and_then(|site| cluster.sites.get(site)).map(|site| &site.value.lan);
    let Some(lan) = lan else {
        let what = match (network::lan(spec), network::vlan(spec)) {
            (None, None) => return,
            (None, Some(_)) => "is a VLAN of a site's trunk",
            (Some(_), _) if network::is_site(spec) => "is a site's LAN",
            (Some(_), _) => "leads to a site's LAN",
        };
        return add(format!("its network {name} {what}, and there is no site: apply a Site first"));
    };
    if network::is_site(spec) {
        return;
    }
    let subnets = network::subnets(spec, None);
    for subnet in subnets.iter().filter(|subnet| address::overlap(lan.subnet, **subnet)) {
        add(format!("its network {name} ({subnet}) overlaps the site's LAN {}", lan.subnet));
    }
    let ipv6 = |subnet: &ipnet::IpNet| subnet.addr().is_ipv6();
    if network::leads_out(spec) && !subnets.iter().any(|subnet| ipv6(subnet) == ipv6(&lan.subnet)) {
        add(format!(
            "its network {name} leads to the site's LAN {}, which has another version of IP: give it a subnet of that",
            lan.subnet
        ));
    }
    let mtu = network::mtu(spec, cluster, site);
    if subnets.iter().any(ipv6) && mtu < IPV6_MTU_MIN {
        add(format!(
            "its network {name} would carry packets of {mtu} bytes, and IPv6 needs {IPV6_MTU_MIN}: raise the site's `underlay_mtu`"
        ));
    }
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
    networks::conflicts(&before, &subject)?;
    let ports = addresses::ports(&before, &subject)?;
    networks::numbers(draft, &subject)?;
    networks::outsides(draft, &subject, &ports)?;
    networks::tunnels(draft, &subject)?;
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
        .filter(|id| !bundle.members.contains_key(&id.member) && !before.vias.contains_key(id))
        .collect();
    for id in gone {
        draft.delete(record::instance_key(&id));
        draft.delete(record::placement_key(&id));
    }
    interpose::expand(draft, deployment, fresh)
}

pub(crate) fn instance(
    draft: &mut Draft,
    before: &Cluster,
    id: &InstanceId,
    spec: &MemberSpec,
    ports: Vec<record::Port>,
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
        None => {
            let (version, release) =
                validate::resolve(before, spec).map_err(|(field, message)| at(field, message))?;
            update::acceptable(before, spec, version, release)
        }
    };
    let mut new = made(id, spec, (version, release), ports, part, user_data(before, id, spec));
    match held {
        Some(held) if held.shape == new.shape => return Ok(()),
        Some(_) => draft.delete(record::placement_key(id)),
        None => {}
    }
    new.incarnation = fresh();
    // What is suspended is not started by a change of its bundle.
    new.power = held.map_or(Power::On, |held| held.power);
    draft.put(record::instance_key(id), &new);
    Ok(())
}

/// What its deployment tells its cloud-init, else its bundle.
fn user_data(cluster: &Cluster, id: &InstanceId, spec: &MemberSpec) -> Option<String> {
    let deployment = cluster.deployments.get(&id.deployment);
    let own = deployment.and_then(|deployment| deployment.cloud_init.get(&id.member));
    own.or(spec.cloud_init.as_ref()).map(|told| told.user_data.clone())
}

/// An instance's record without its incarnation.
fn made(
    id: &InstanceId,
    spec: &MemberSpec,
    (version, release): (VersionName, &record::Version),
    mut ports: Vec<record::Port>,
    part: &wire::Member,
    user_data: Option<String>,
) -> record::Instance {
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
        power: Power::On,
        layers: Vec::new(),
        memory_from: None,
        user_data,
    };
    let visible = serde_json::to_vec(&(&new, config_disk::files(id, &new, part))).unwrap_or_default();
    new.shape = name::digest(&visible);
    new
}

/// The record of a member's instance at another version: another guest with a fresh overlay, its ports and volumes kept.
///
/// # Errors
/// Why there can be none: the version is gone, or it is not what the bundle wires.
pub(crate) fn at_version(
    cluster: &Cluster,
    id: &InstanceId,
    version: &VersionName,
    fresh: &mut dyn FnMut() -> String,
) -> Result<record::Instance, String> {
    let gone = || format!("{id} is no member of a bundle");
    let held = cluster.instances.get(id).ok_or_else(gone)?;
    let deployment = cluster.deployments.get(&id.deployment).ok_or_else(gone)?;
    let bundle = cluster.bundles.get(&deployment.bundle).ok_or_else(gone)?;
    let spec = bundle.members.get(&id.member).ok_or_else(gone)?;
    let key = (spec.appliance.clone(), version.clone());
    let release = cluster
        .versions
        .get(&key)
        .ok_or_else(|| format!("{} {version} is not in the catalogue any more", spec.appliance))?;
    if let Some(problem) = validate::misfit(spec, version, release) {
        return Err(problem);
    }
    let part = wiring(cluster, &id.deployment).remove(&id.member).unwrap_or_default();
    let told = user_data(cluster, id, spec);
    let mut new = made(id, spec, (version.clone(), release), held.ports.clone(), &part, told);
    (new.power, new.incarnation) = (held.power, fresh());
    Ok(new)
}

/// A channel that moved is the update policy's business; only a member that says something else changes here.
pub(crate) fn keeps_version(held: &record::Instance, spec: &MemberSpec) -> bool {
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
        let new = match held {
            Some(held) => record::Volume { size: wanted.size, ..held.value.clone() },
            None => record::Volume {
                size: wanted.size,
                host: None,
                incarnation: String::new(),
                layers: Vec::new(),
            },
        };
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
        .filter(|(id, _)| !cluster.vias.contains_key(id))
        .map(|(id, instance)| (id.member.clone(), instance.ports.clone()))
        .collect();
    let mut wiring = wire::wire(bundle, lan, &ports);
    wiring.extend(interpose::parts(cluster, deployment));
    wiring
}
