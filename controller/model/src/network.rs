//! What follows from how a network is written: its subnets, who routes it, how large its packets are.

use crate::address;
use crate::cluster::{Cluster, Stored};
use controller_api::agent::HostFacts;
use controller_api::document::{BundleSpec, LanSpec, LanUplink, NetworkSpec, NetworkUplink, VlanUplink};
use ipnet::IpNet;
use std::net::IpAddr;
use types::{DeploymentName, NetworkName, SiteName};

/// Largest packet in bytes on a LAN or between hosts, where nobody says otherwise.
const MTU: u16 = 1_500;
/// What a VXLAN over IPv4 takes of a packet between hosts.
const VXLAN_OVERHEAD: u16 = 50;
/// What a VXLAN over IPv6 takes.
const VXLAN_OVERHEAD6: u16 = 70;

/// What the site's LAN is to it.
pub(crate) fn lan(spec: &NetworkSpec) -> Option<LanUplink> {
    match spec.uplink {
        Some(NetworkUplink::Lan(lan)) => Some(lan),
        Some(NetworkUplink::Vlan(_)) | None => None,
    }
}

/// It is the site's LAN.
pub(crate) fn is_site(spec: &NetworkSpec) -> bool {
    lan(spec) == Some(LanUplink::Site)
}

/// The VLAN it is.
pub(crate) fn vlan(spec: &NetworkSpec) -> Option<&VlanUplink> {
    match &spec.uplink {
        Some(NetworkUplink::Vlan(vlan)) => Some(vlan),
        Some(NetworkUplink::Lan(_)) | None => None,
    }
}

/// It crosses hosts by VXLAN.
pub(crate) fn is_tunnelled(spec: &NetworkSpec) -> bool {
    !is_site(spec) && vlan(spec).is_none()
}

/// A router leads from it to the site's LAN.
pub(crate) fn leads_out(spec: &NetworkSpec) -> bool {
    matches!(lan(spec), Some(LanUplink::Nat | LanUplink::Routed))
}

/// A host has an end of its own on it, for routing or services.
pub(crate) fn has_router(spec: &NetworkSpec) -> bool {
    leads_out(spec) || !spec.services.is_none()
}

/// The subnets its members have addresses of: its own, or the LAN's.
pub(crate) fn subnets(spec: &NetworkSpec, lan: Option<&LanSpec>) -> Vec<IpNet> {
    match is_site(spec) {
        true => lan.map(|lan| lan.subnet).into_iter().collect(),
        false => spec.subnet.into_iter().chain(spec.subnet6).collect(),
    }
}

/// The router's addresses, if it has one: the first of each subnet, with the subnet's bits.
pub(crate) fn router_addresses(spec: &NetworkSpec) -> Vec<IpNet> {
    let first = |subnet: IpNet| IpNet::new(address::first(subnet)?, subnet.prefix_len()).ok();
    match has_router(spec) {
        true => subnets(spec, None).into_iter().filter_map(first).collect(),
        false => Vec::new(),
    }
}

/// The router's addresses by which members reach the LAN: those of the LAN's version of IP.
pub(crate) fn ways_out<'a>(
    spec: &'a NetworkSpec,
    lan: Option<&'a LanSpec>,
) -> impl Iterator<Item = IpAddr> + 'a {
    let lan = lan.filter(|_| leads_out(spec));
    let same = move |router: &IpAddr| lan.is_some_and(|lan| lan.subnet.addr().is_ipv4() == router.is_ipv4());
    router_addresses(spec).into_iter().map(|router| router.addr()).filter(same)
}

/// How a deployment writes one of its networks.
pub(crate) fn spec_of<'a>(
    cluster: &'a Cluster,
    deployment: &DeploymentName,
    network: &NetworkName,
) -> Option<&'a NetworkSpec> {
    bundle_of(cluster, deployment)?.networks.get(network)
}

/// What a deployment runs.
pub(crate) fn bundle_of<'a>(cluster: &'a Cluster, deployment: &DeploymentName) -> Option<&'a BundleSpec> {
    let spec = cluster.deployments.get(deployment)?;
    cluster.bundles.get(&spec.bundle).map(|bundle| &bundle.value)
}

/// The LAN a deployment is at.
pub(crate) fn lan_of<'a>(cluster: &'a Cluster, deployment: &DeploymentName) -> Option<&'a LanSpec> {
    let site = cluster.site_of(cluster.deployments.get(deployment)?)?;
    cluster.sites.get(&site).map(|site| &site.value.lan)
}

/// Largest packet on a network in bytes.
pub(crate) fn mtu(spec: &NetworkSpec, cluster: &Cluster, site: Option<&SiteName>) -> u16 {
    match is_tunnelled(spec) {
        true => tunnelled_mtu(cluster, site),
        false => {
            let site = site.and_then(|site| cluster.sites.get(site));
            site.and_then(|site| site.value.lan.mtu).unwrap_or(MTU)
        }
    }
}

/// Largest packet in bytes that a VXLAN between hosts of a site carries, of all hosts if there is no site.
fn tunnelled_mtu(cluster: &Cluster, site: Option<&SiteName>) -> u16 {
    let facts = || {
        let here = |(name, facts): (_, &'_ Stored<HostFacts>)| {
            let host = cluster.hosts.get(name)?;
            (host.role == "host" && site.is_none_or(|site| *site == host.site))
                .then_some((facts.value.underlay_address, facts.value.underlay_mtu))
        };
        cluster.facts.iter().filter_map(here)
    };
    let written = site.and_then(|site| cluster.sites.get(site)).and_then(|site| site.value.underlay_mtu);
    // A host that carries more does not raise it: the next one to join may be an ordinary one.
    let said = || facts().filter_map(|(_, mtu)| mtu).fold(MTU, u16::min);
    let over_ipv6 = facts().any(|(address, _)| address.is_some_and(|address| address.is_ipv6()));
    written.unwrap_or_else(said).saturating_sub(if over_ipv6 { VXLAN_OVERHEAD6 } else { VXLAN_OVERHEAD })
}

/// Largest packet in bytes that a VXLAN of a host carries, if it knows its link.
pub(crate) fn packet_max(facts: &HostFacts) -> Option<u16> {
    let overhead = if facts.underlay_address?.is_ipv6() { VXLAN_OVERHEAD6 } else { VXLAN_OVERHEAD };
    Some(facts.underlay_mtu?.saturating_sub(overhead))
}
