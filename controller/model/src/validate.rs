//! What a document may not say. Pure questions to the document and to the catalogue; every answer names a field.

use crate::cluster::Cluster;
use crate::{access, address, record};
use controller_api::document::{BundleSpec, GatewaySpec, MemberSpec, PortSpec, SiteSpec};
use controller_api::policy::PolicyKind;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use types::{ApplianceRef, ByteSize, ChannelName, MemberName, NetworkName, PortName, VersionName};

pub(crate) mod cloud_init;
mod network;
mod port;
mod watches;
mod wishes;

pub(crate) use port::{Watched, chosen, joined, watched};

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

/// Largest packets of a LAN in bytes.
const LAN_MTU: std::ops::RangeInclusive<u16> = 576..=9_216;
/// Largest packets between hosts in bytes: the smallest leaves 576 in a VXLAN over IPv6.
const UNDERLAY_MTU: std::ops::RangeInclusive<u16> = 646..=u16::MAX;

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
    network::check(spec, &mut findings);
    for (name, member) in &spec.members {
        self::member(spec, name, member, cluster, &mut findings);
    }
    addresses(spec, &mut findings);
    gateways(spec, &mut findings);
    policies(spec, cluster, &mut findings);
    // A rule that stands on a wrong member or network would only be blamed for their faults.
    if findings.0.is_empty() {
        access::check(spec, &mut findings);
    }
    findings.0
}

/// Policies have to be there, and to be of the kind that is asked.
fn policies(spec: &BundleSpec, cluster: &Cluster, findings: &mut Findings) {
    let named = [
        (PolicyKind::Placement, &spec.policies.placement),
        (PolicyKind::Update, &spec.policies.update),
        (PolicyKind::Checkpoint, &spec.policies.checkpoint),
    ];
    for (kind, policy) in named {
        let Some(policy) = policy else { continue };
        let of_kind = cluster.policies.iter().filter(|(_, installed)| installed.kind == kind);
        let known = choices(of_kind.map(|(name, _)| name), "install it with `collective policy install`");
        let path = format!("spec.policies.{kind}");
        match cluster.policies.get(policy) {
            None => findings.add(path, format!("{policy} is not an installed policy: {known}")),
            Some(installed) if installed.kind != kind => {
                findings
                    .add(path, format!("{policy} is a policy of {}, not of {kind}: {known}", installed.kind));
            }
            Some(_) => {}
        }
    }
    watches::check(spec, cluster, findings);
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
        port::check(spec, &format!("{path}.ports.{port}"), target, findings);
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
    wishes::check(spec, name, &member.placement, findings);
    if let Some(told) = &member.cloud_init {
        cloud_init::check(&format!("{path}.cloudInit"), told, findings);
    }
    match resolve(cluster, member) {
        Ok((version, record)) => hardware(&path, member, &version, record, findings),
        Err((field, message)) => findings.add(format!("{path}.{field}"), message),
    }
}

fn one_port_per_network(path: &str, member: &MemberSpec, findings: &mut Findings) {
    let mut joined: BTreeMap<&NetworkName, &PortName> = BTreeMap::new();
    for (port, target) in &member.ports {
        let Some(network) = self::joined(target) else { continue };
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
        let path = format!("{path}.gateway.{field}");
        match member.ports.get(port) {
            None => {
                let known = choices(member.ports.keys(), "add it under ports");
                findings.add(path, format!("this member has no port {port}: {known}"));
            }
            Some(PortSpec::Mirror(_)) => {
                findings.add(
                    path,
                    format!("port {port} watches and sends nothing: write one that joins a network"),
                );
            }
            Some(PortSpec::Network(_) | PortSpec::Fixed(_)) => {}
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

/// Why a member as it is wired cannot run a version.
pub(crate) fn misfit(member: &MemberSpec, version: &VersionName, record: &record::Version) -> Option<String> {
    let mut findings = Findings::default();
    hardware("spec", member, version, record, &mut findings);
    findings.0.into_iter().next().map(|finding| finding.message)
}

fn addresses(spec: &BundleSpec, findings: &mut Findings) {
    let mut taken: BTreeMap<(&NetworkName, IpAddr), (&MemberName, &PortName)> = BTreeMap::new();
    for (member, port, target) in every_port(spec) {
        let Some(network) = joined(target) else { continue };
        for (field, address) in port::fields(target) {
            if let Some((other, other_port)) = taken.insert((network, address), (member, port)) {
                findings.add(
                    format!("spec.members.{member}.ports.{port}.{field}"),
                    format!("{address} is already the address of {other}'s port {other_port}: take another"),
                );
            }
        }
    }
}

pub(crate) fn every_port(spec: &BundleSpec) -> impl Iterator<Item = (&MemberName, &PortName, &PortSpec)> {
    spec.members
        .iter()
        .flat_map(|(member, spec)| spec.ports.iter().map(move |(port, target)| (member, port, target)))
}

/// The networks a gateway member joins: protected side, far side.
pub(crate) fn gateway_networks(member: &MemberSpec) -> Option<(&NetworkName, &NetworkName)> {
    let gateway = member.gateway.as_ref()?;
    let network = |port: &PortName| member.ports.get(port).and_then(joined);
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
        if let Some(problem) = spec.networks.get(from).and_then(network::routed_otherwise) {
            findings.add(format!("{path}.from"), format!("{from} {problem}"));
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

/// Everything that is wrong with a site.
#[must_use]
pub fn site(spec: &SiteSpec) -> Vec<Finding> {
    let mut findings = Findings::default();
    let lan = &spec.lan;
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
    let mtus = [("lan.mtu", lan.mtu, LAN_MTU), ("underlay_mtu", spec.underlay_mtu, UNDERLAY_MTU)];
    for (field, mtu, range) in mtus {
        if let Some(mtu) = mtu.filter(|mtu| !range.contains(mtu)) {
            let message = format!("{mtu} is not {} to {} bytes", range.start(), range.end());
            findings.add(format!("spec.{field}"), message);
        }
    }
    findings.0
}
