//! What a document may not say. Pure questions to the document and to the catalogue; every answer names a field.

use crate::cluster::Cluster;
use crate::{access, address, record};
use controller_api::document::{
    BundleSpec, GatewaySpec, LanSpec, MemberSpec, NetworkSpec, NetworkUplink, PortSpec,
};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use types::{ApplianceRef, ByteSize, ChannelName, MemberName, NetworkName, PortName, VersionName};

/// Most members of a bundle.
pub const MEMBERS_MAX: usize = 64;
/// Most networks of a bundle.
pub const NETWORKS_MAX: usize = 32;
/// Most ports of a member.
pub const PORTS_MAX: usize = 8;
/// Most volumes of a member.
pub const VOLUMES_MAX: usize = 8;
/// Most access rules of a bundle.
pub const ACCESS_MAX: usize = 256;
/// Most listen ports of an access rule.
pub const LISTEN_PORTS_MAX: usize = 64;
/// Sizes of volumes in bytes.
const VOLUME_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=16 << 40;
/// Largest memory of a member in bytes.
const MEMORY_BYTES_MAX: u64 = 1 << 40;
/// Most processors of a member.
const VCPUS_MAX: u32 = 64;

/// Something wrong at a path such as `spec.members.gateway.appliance`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { path: path.into(), message: message.into() });
    }

    fn limit(&mut self, path: &str, what: &str, count: usize, max: usize) {
        if count > max {
            self.add(path, format!("{count} {what} are more than {max}"));
        }
    }
}

/// The network a port joins and the address it asks for.
pub(crate) fn port_target(port: &PortSpec) -> (&NetworkName, Option<IpAddr>) {
    match port {
        PortSpec::Network(network) => (network, None),
        PortSpec::Fixed(fixed) => (&fixed.network, fixed.address),
    }
}

/// Which version a member runs, if the catalogue knows it.
///
/// # Errors
/// The field (`appliance`, `channel`, `version`) and what is wrong with it.
pub fn resolve<'a>(
    cluster: &'a Cluster,
    member: &MemberSpec,
) -> Result<(VersionName, &'a record::Version), (&'static str, String)> {
    let appliance = &member.appliance;
    if !cluster.versions.keys().any(|(name, _)| name == appliance) {
        return Err(("appliance", unknown_appliance(cluster, appliance)));
    }
    let version = match (&member.version, &member.channel) {
        (Some(_), Some(_)) => return Err(("version", "write either channel or version, not both".into())),
        (Some(version), None) => version.clone(),
        (None, channel) => {
            let stable = || "stable".parse::<ChannelName>().ok();
            let Some(channel) = channel.clone().or_else(stable) else {
                return Err(("channel", "write a channel".into()));
            };
            match cluster.channels.get(&(appliance.clone(), channel.clone())) {
                Some(pointer) => pointer.version.clone(),
                None => return Err(("channel", unknown_channel(cluster, appliance, &channel))),
            }
        }
    };
    match cluster.versions.get(&(appliance.clone(), version.clone())) {
        Some(record) => Ok((version, &record.value)),
        None => Err(("version", unknown_version(cluster, appliance, &version))),
    }
}

fn unknown_appliance(cluster: &Cluster, appliance: &ApplianceRef) -> String {
    let known: BTreeSet<String> = cluster.versions.keys().map(|(name, _)| name.to_string()).collect();
    format!("{appliance} is not in the catalogue: {}", choices(&known, "publish it first"))
}

fn unknown_channel(cluster: &Cluster, appliance: &ApplianceRef, channel: &ChannelName) -> String {
    let known: BTreeSet<String> =
        cluster.channels.keys().filter(|(name, _)| name == appliance).map(|(_, c)| c.to_string()).collect();
    format!(
        "{appliance} has no channel {channel}: {}",
        choices(&known, "its maker publishes with --channel, or write a version")
    )
}

fn unknown_version(cluster: &Cluster, appliance: &ApplianceRef, version: &VersionName) -> String {
    let known: BTreeSet<String> = cluster.versions_of(appliance).map(|(v, _)| v.to_string()).collect();
    format!("{appliance} has no version {version}: {}", choices(&known, "publish it first"))
}

/// `write one of a, b`, or what to do if there is nothing to choose from.
pub(crate) fn choices<T: ToString>(known: impl IntoIterator<Item = T>, otherwise: &str) -> String {
    let known: Vec<String> = known.into_iter().take(12).map(|name| name.to_string()).collect();
    match known.as_slice() {
        [] => otherwise.to_owned(),
        [one] => format!("write {one}"),
        many => format!("write one of {}", many.join(", ")),
    }
}

/// Everything that is wrong with a bundle.
#[must_use]
pub fn bundle(spec: &BundleSpec, cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.limit("spec.members", "members", spec.members.len(), MEMBERS_MAX);
    findings.limit("spec.networks", "networks", spec.networks.len(), NETWORKS_MAX);
    findings.limit("spec.access", "access rules", spec.access.len(), ACCESS_MAX);
    if spec.members.is_empty() {
        findings.add("spec.members", "a bundle has at least one member");
    }
    networks(spec, &mut findings);
    for (name, member) in &spec.members {
        self::member(spec, name, member, cluster, &mut findings);
    }
    addresses(spec, &mut findings);
    gateways(spec, &mut findings);
    if let Some(policy) = &spec.policies.placement
        && !cluster.policies.contains_key(policy)
    {
        let known = choices(cluster.policies.keys(), "install it with `collective policy install`");
        findings.add("spec.policies.placement", format!("{policy} is not an installed policy: {known}"));
    }
    // A rule that stands on a wrong member or network would only be blamed for their faults.
    if findings.0.is_empty() {
        access::check(spec, &mut findings);
    }
    findings.0
}

fn networks(spec: &BundleSpec, findings: &mut Findings) {
    let mut seen: Vec<(&NetworkName, IpNet)> = Vec::new();
    for (name, network) in &spec.networks {
        let path = format!("spec.networks.{name}");
        if spec.members.keys().any(|member| member.as_str() == name.as_str()) {
            findings
                .add(&path, format!("{name} is also a member: access rules could mean either, rename one"));
        }
        match (network.uplink, network.subnet) {
            (Some(NetworkUplink::Site), Some(_)) => {
                let message = "a network with `uplink: site` has the site's own subnet: remove this line";
                findings.add(format!("{path}.subnet"), message);
            }
            (Some(NetworkUplink::Site), None) => {}
            (None, None) => {
                findings.add(&path, "write a subnet such as 10.20.0.0/24, or `uplink: site`");
            }
            (None, Some(subnet)) => subnet_of(&path, name, subnet, &mut seen, findings),
        }
    }
}

fn subnet_of<'a>(
    path: &str,
    name: &'a NetworkName,
    subnet: IpNet,
    seen: &mut Vec<(&'a NetworkName, IpNet)>,
    findings: &mut Findings,
) {
    let path = format!("{path}.subnet");
    if subnet != subnet.trunc() {
        findings.add(&path, format!("{subnet} has bits set after its prefix: write {}", subnet.trunc()));
    }
    if subnet.prefix_len() < 8 || subnet.max_prefix_len() - subnet.prefix_len() < 2 {
        findings.add(
            &path,
            format!("{subnet} is too small or too large: write a prefix of 8 to 30 bits (IPv6: to 126)"),
        );
    }
    if let Some((other, taken)) = seen.iter().find(|(_, taken)| address::overlap(*taken, subnet)) {
        findings.add(&path, format!("{subnet} overlaps {taken} of network {other}: take another"));
    }
    seen.push((name, subnet));
}

fn member(
    spec: &BundleSpec,
    name: &MemberName,
    member: &MemberSpec,
    cluster: &Cluster,
    findings: &mut Findings,
) {
    let path = format!("spec.members.{name}");
    findings.limit(&format!("{path}.ports"), "ports", member.ports.len(), PORTS_MAX);
    findings.limit(&format!("{path}.volumes"), "volumes", member.volumes.len(), VOLUMES_MAX);
    for (port, target) in &member.ports {
        port_network(spec, &format!("{path}.ports.{port}"), target, findings);
    }
    one_port_per_network(&path, member, findings);
    if let Some(gateway) = &member.gateway {
        gateway_ports(&path, member, gateway, findings);
    }
    for (volume, size) in &member.volumes {
        if !VOLUME_BYTES.contains(&size.size.0) {
            findings
                .add(format!("{path}.volumes.{volume}.size"), format!("{} is not 1MiB to 16TiB", size.size));
        }
    }
    match resolve(cluster, member) {
        Ok((version, record)) => hardware(&path, member, &version, record, findings),
        Err((field, message)) => findings.add(format!("{path}.{field}"), message),
    }
}

fn port_network(spec: &BundleSpec, path: &str, target: &PortSpec, findings: &mut Findings) {
    let (network, fixed) = port_target(target);
    let Some(network_spec) = spec.networks.get(network) else {
        let known = choices(spec.networks.keys(), "add it under spec.networks");
        return findings.add(path, format!("there is no network {network}: {known}"));
    };
    if let (Some(address), NetworkSpec { subnet: Some(subnet), .. }) = (fixed, network_spec)
        && let Some(message) = address::unusable(address, *subnet)
    {
        findings.add(format!("{path}.address"), message);
    }
}

fn one_port_per_network(path: &str, member: &MemberSpec, findings: &mut Findings) {
    let mut joined: BTreeMap<&NetworkName, &PortName> = BTreeMap::new();
    for (port, target) in &member.ports {
        let (network, _) = port_target(target);
        if let Some(other) = joined.insert(network, port) {
            findings.add(
                format!("{path}.ports.{port}"),
                format!("ports {other} and {port} both join {network}: give each its own network"),
            );
        }
    }
}

fn gateway_ports(path: &str, member: &MemberSpec, gateway: &GatewaySpec, findings: &mut Findings) {
    for (field, port) in [("from", &gateway.from), ("to", &gateway.to)] {
        if !member.ports.contains_key(port) {
            let known = choices(member.ports.keys(), "add it under ports");
            findings
                .add(format!("{path}.gateway.{field}"), format!("this member has no port {port}: {known}"));
        }
    }
    if gateway.from == gateway.to {
        findings.add(
            format!("{path}.gateway.to"),
            format!("it leads from {} to itself: write the port of the other side", gateway.from),
        );
    }
}

fn hardware(
    path: &str,
    member: &MemberSpec,
    version: &VersionName,
    record: &record::Version,
    findings: &mut Findings,
) {
    let (spec, appliance) = (&record.spec, &member.appliance);
    for port in member.ports.keys().filter(|port| !spec.ports.contains(port)) {
        let known = choices(&spec.ports, "it has none");
        findings.add(
            format!("{path}.ports.{port}"),
            format!("{appliance} {version} has no port {port}: {known}"),
        );
    }
    for port in spec.ports.iter().filter(|port| !member.ports.contains_key(port)) {
        let message = format!("port {port} of {appliance} {version} joins no network: write {port}: NETWORK");
        findings.add(format!("{path}.ports"), message);
    }
    for volume in member.volumes.keys().filter(|volume| !spec.volumes.contains(volume)) {
        let known = choices(&spec.volumes, "remove it, it expects none");
        let message = format!("{appliance} {version} expects no volume {volume}: {known}");
        findings.add(format!("{path}.volumes.{volume}"), message);
    }
    for volume in spec.volumes.iter().filter(|volume| !member.volumes.contains_key(volume)) {
        let message = format!(
            "{appliance} {version} expects a volume {volume}: write volumes: {{{volume}: {{size: 1GiB}}}}"
        );
        findings.add(path, message);
    }
    if let Some(ByteSize(bytes)) = member.memory
        && !(spec.hardware.memory.0..=MEMORY_BYTES_MAX).contains(&bytes)
    {
        let message = format!("{appliance} needs {} to 1TiB", spec.hardware.memory);
        findings.add(format!("{path}.memory"), message);
    }
    if let Some(vcpus) = member.vcpus
        && !(spec.hardware.vcpus..=VCPUS_MAX).contains(&vcpus)
    {
        findings.add(
            format!("{path}.vcpus"),
            format!("{appliance} needs {} to {VCPUS_MAX}", spec.hardware.vcpus),
        );
    }
}

fn addresses(spec: &BundleSpec, findings: &mut Findings) {
    let mut taken: BTreeMap<(&NetworkName, IpAddr), (&MemberName, &PortName)> = BTreeMap::new();
    for (member, port, target) in every_port(spec) {
        let (network, Some(address)) = port_target(target) else { continue };
        if let Some((other, other_port)) = taken.insert((network, address), (member, port)) {
            findings.add(
                format!("spec.members.{member}.ports.{port}.address"),
                format!("{address} is already the address of {other}'s port {other_port}: take another"),
            );
        }
    }
}

fn every_port(spec: &BundleSpec) -> impl Iterator<Item = (&MemberName, &PortName, &PortSpec)> {
    spec.members
        .iter()
        .flat_map(|(member, spec)| spec.ports.iter().map(move |(port, target)| (member, port, target)))
}

/// The networks a gateway member joins: protected side, far side.
pub(crate) fn gateway_networks(member: &MemberSpec) -> Option<(&NetworkName, &NetworkName)> {
    let gateway = member.gateway.as_ref()?;
    let network = |port: &PortName| member.ports.get(port).map(|target| port_target(target).0);
    Some((network(&gateway.from)?, network(&gateway.to)?))
}

fn gateways(spec: &BundleSpec, findings: &mut Findings) {
    let mut leads: BTreeMap<&NetworkName, (&NetworkName, &MemberName)> = BTreeMap::new();
    for (name, member) in &spec.members {
        let Some((from, to)) = gateway_networks(member) else { continue };
        if from == to {
            continue;
        }
        let path = format!("spec.members.{name}.gateway");
        if spec.networks.get(from).is_some_and(|network| network.uplink.is_some()) {
            findings.add(
                format!("{path}.from"),
                format!("{from} is the site's own LAN, which has its own router"),
            );
        }
        if let Some((_, other)) = leads.insert(from, (to, name)) {
            findings.add(format!("{path}.from"), format!("{other} is already the gateway of {from}"));
        }
    }
    for (start, (_, name)) in &leads {
        let mut at = *start;
        for _ in 0..=leads.len() {
            match leads.get(at) {
                Some((next, _)) if next == start => {
                    let path = format!("spec.members.{name}.gateway");
                    findings.add(path, format!("gateways lead in a circle from {start} back to {start}"));
                    return;
                }
                Some((next, _)) => at = next,
                None => break,
            }
        }
    }
}

/// Everything that is wrong with a site's LAN.
#[must_use]
pub fn site(lan: &LanSpec) -> Vec<Finding> {
    let mut findings = Findings::default();
    if lan.subnet != lan.subnet.trunc() {
        let message = format!("{} has bits set after its prefix: write {}", lan.subnet, lan.subnet.trunc());
        findings.add("spec.lan.subnet", message);
    }
    let named = [("first", Some(lan.first)), ("last", Some(lan.last)), ("router", lan.router)];
    for (field, address) in named {
        if let Some(message) = address.and_then(|address| address::unusable(address, lan.subnet)) {
            findings.add(format!("spec.lan.{field}"), message);
        }
    }
    if lan.last < lan.first {
        findings.add("spec.lan.last", format!("{} is before {}", lan.last, lan.first));
    }
    findings.0
}
