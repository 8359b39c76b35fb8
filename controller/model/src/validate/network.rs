//! What a network may not be.

use super::{Findings, LISTEN_PORTS_MAX, choices};
use crate::{access, address, network};
use controller_api::document::{
    BundleSpec, DnsSpec, LanUplink, NetworkSpec, NetworkUplink, PublishSpec, VlanUplink,
};
use ipnet::IpNet;
use std::collections::BTreeMap;
use types::{MemberName, NetworkName};

/// Numbers of VLANs: 1 is what switches send untagged, 4,095 is reserved.
const VLANS: std::ops::RangeInclusive<u16> = 2..=4_094;
/// Most servers a name server asks.
const FORWARD_MAX: usize = 8;
/// Longest names of trunks.
const TRUNK_LEN_MAX: usize = 63;

pub(super) fn check(spec: &BundleSpec, findings: &mut Findings) {
    let mut seen: Vec<(&NetworkName, IpNet)> = Vec::new();
    let mut vlans: BTreeMap<(&str, u16), &NetworkName> = BTreeMap::new();
    for (name, network) in &spec.networks {
        let path = format!("spec.networks.{name}");
        if spec.members.keys().any(|member| member.as_str() == name.as_str()) {
            findings
                .add(&path, format!("{name} is also a member: access rules could mean either, rename one"));
        }
        check_subnets(&path, name, network, &mut seen, findings);
        if let Some(NetworkUplink::Vlan(vlan)) = &network.uplink {
            check_vlan(&path, name, vlan, &mut vlans, findings);
        }
        check_publish(spec, &path, name, network, findings);
        check_services(spec, &path, name, network, findings);
    }
}

fn check_subnets<'a>(
    path: &str,
    name: &'a NetworkName,
    network: &NetworkSpec,
    seen: &mut Vec<(&'a NetworkName, IpNet)>,
    findings: &mut Findings,
) {
    if network::is_site(network) {
        for (field, _) in [("subnet", network.subnet), ("subnet6", network.subnet6)]
            .iter()
            .filter(|(_, subnet)| subnet.is_some())
        {
            let message = "a network with `uplink: site` has the site's own subnet: remove this line";
            findings.add(format!("{path}.{field}"), message);
        }
        return;
    }
    match network.subnet {
        Some(subnet) => check_subnet(&format!("{path}.subnet"), name, subnet, seen, findings),
        None if network.uplink.is_some() => findings.add(path, "write a subnet such as 10.20.0.0/24"),
        None => findings.add(path, "write a subnet such as 10.20.0.0/24, or `uplink: site`"),
    }
    let Some(subnet6) = network.subnet6 else { return };
    let path = format!("{path}.subnet6");
    if subnet6.addr().is_ipv4() {
        findings.add(&path, format!("{subnet6} is no IPv6 subnet: write one such as fd00:20::/64"));
    } else if network.subnet.is_some_and(|subnet| subnet.addr().is_ipv6()) {
        findings.add(&path, "`subnet` is an IPv6 subnet already: remove this line");
    }
    check_subnet(&path, name, subnet6, seen, findings);
}

fn check_subnet<'a>(
    path: &str,
    name: &'a NetworkName,
    subnet: IpNet,
    seen: &mut Vec<(&'a NetworkName, IpNet)>,
    findings: &mut Findings,
) {
    if subnet != subnet.trunc() {
        findings.add(path, format!("{subnet} has bits set after its prefix: write {}", subnet.trunc()));
    }
    if subnet.prefix_len() < 8 || subnet.max_prefix_len() - subnet.prefix_len() < 2 {
        findings.add(
            path,
            format!("{subnet} is too small or too large: write a prefix of 8 to 30 bits (IPv6: to 126)"),
        );
    }
    if let Some((other, taken)) = seen.iter().find(|(_, taken)| address::overlap(*taken, subnet)) {
        findings.add(path, format!("{subnet} overlaps {taken} of network {other}: take another"));
    }
    seen.push((name, subnet));
}

fn check_vlan<'a>(
    path: &str,
    name: &'a NetworkName,
    vlan: &'a VlanUplink,
    vlans: &mut BTreeMap<(&'a str, u16), &'a NetworkName>,
    findings: &mut Findings,
) {
    let path = format!("{path}.uplink");
    if !VLANS.contains(&vlan.vlan) {
        let message = format!("{} is no VLAN for guests: write 2 to 4094", vlan.vlan);
        findings.add(format!("{path}.vlan"), message);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if vlan.trunk.is_empty() || vlan.trunk.len() > TRUNK_LEN_MAX || !vlan.trunk.chars().all(plain) {
        let message =
            "write the name of a trunk in the hosts' configuration: 1 to 63 letters, digits, '-' and '_'";
        findings.add(format!("{path}.trunk"), message);
    }
    if let Some(other) = vlans.insert((&vlan.trunk, vlan.vlan), name) {
        let message =
            format!("network {other} is VLAN {} of trunk {} already: take another", vlan.vlan, vlan.trunk);
        findings.add(format!("{path}.vlan"), message);
    }
}

fn check_publish(
    spec: &BundleSpec,
    path: &str,
    name: &NetworkName,
    network: &NetworkSpec,
    findings: &mut Findings,
) {
    if !network.publish.is_empty() && !network::leads_out(network) {
        let message = "nothing leads to this network from outside: write `uplink: nat` or `uplink: routed`";
        findings.add(format!("{path}.publish"), message);
    }
    if network.publish.len() > LISTEN_PORTS_MAX {
        findings.add(format!("{path}.publish"), format!("it publishes more than {LISTEN_PORTS_MAX} ports"));
    }
    let mut listened = BTreeMap::new();
    for (index, published) in network.publish.iter().enumerate() {
        let path = format!("{path}.publish[{index}]");
        check_target(spec, &path, name, published, findings);
        let (field, port) = match (published.tcp, published.udp) {
            (Some(port), None) => ("tcp", port),
            (None, Some(port)) => ("udp", port),
            _ => {
                findings.add(&path, "write either tcp or udp: {tcp: 8080, to: MEMBER, port: 80}");
                continue;
            }
        };
        if port == 0 {
            findings.add(format!("{path}.{field}"), "0 is no port: write 1 to 65535");
        }
        if published.port == Some(0) {
            findings.add(format!("{path}.port"), "0 is no port: write 1 to 65535");
        }
        if let Some(other) = listened.insert((field, port), &published.to) {
            let message =
                format!("{field} {port} leads to {other} already: one published port leads to one member");
            findings.add(format!("{path}.{field}"), message);
        }
    }
}

fn check_target(
    spec: &BundleSpec,
    path: &str,
    name: &NetworkName,
    published: &PublishSpec,
    findings: &mut Findings,
) {
    if !access::members_on(spec, name).any(|member| *member == published.to) {
        let known = choices(access::members_on(spec, name), "add a member with a port on it");
        findings.add(format!("{path}.to"), format!("{} is not on network {name}: {known}", published.to));
    }
}

fn check_services(
    spec: &BundleSpec,
    path: &str,
    name: &NetworkName,
    network: &NetworkSpec,
    findings: &mut Findings,
) {
    if network.services.is_none() {
        return;
    }
    let path = format!("{path}.services");
    if network::is_site(network) {
        return findings.add(path, "a site's LAN has services of its own: remove this line");
    }
    if let Some(gateway) = gateway_of(spec, name) {
        let message = format!("{gateway} is the gateway of {name} and serves it: remove this line");
        findings.add(&path, message);
    }
    if network.services.ra && !network::subnets(network, None).iter().any(|subnet| subnet.addr().is_ipv6()) {
        findings
            .add(format!("{path}.ra"), "there is no IPv6 subnet to advertise: write subnet6: fd00:20::/64");
    }
    let Some(dns) = &network.services.dns else { return };
    if !network.services.dhcp {
        findings.add(format!("{path}.dns"), "it answers the names of leases: write dhcp: true as well");
    }
    check_dns(&format!("{path}.dns"), network, dns, findings);
}

fn check_dns(path: &str, network: &NetworkSpec, dns: &DnsSpec, findings: &mut Findings) {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if dns.domain.len() > 253 - 64 || !dns.domain.split('.').all(label) {
        let message = format!("{:?} is no domain: write one such as office.internal", dns.domain);
        findings.add(format!("{path}.domain"), message);
    }
    if dns.forward.len() > FORWARD_MAX {
        findings.add(format!("{path}.forward"), format!("it names more than {FORWARD_MAX} servers"));
    }
    if !dns.forward.is_empty() && !network::leads_out(network) {
        let message = "nothing leads there: write `uplink: nat` or `uplink: routed`, or remove this line";
        findings.add(format!("{path}.forward"), message);
    }
    for (index, server) in dns.forward.iter().enumerate() {
        if server.is_unspecified() || server.is_multicast() || server.is_loopback() {
            findings.add(format!("{path}.forward[{index}]"), format!("{server} is no server's address"));
        }
    }
}

/// The member that stands between a network and another.
fn gateway_of<'a>(spec: &'a BundleSpec, network: &NetworkName) -> Option<&'a MemberName> {
    let protects = |(_, member): &(&MemberName, &_)| {
        super::gateway_networks(member).is_some_and(|(from, _)| from == network)
    };
    spec.members.iter().find(protects).map(|(name, _)| name)
}

/// Why no member can be the gateway of a network.
pub(super) fn routed_otherwise(network: &NetworkSpec) -> Option<&'static str> {
    match network::lan(network)? {
        LanUplink::Site => Some("is the site's own LAN, which has its own router"),
        LanUplink::Nat | LanUplink::Routed => {
            Some("has an uplink, which has a router: remove the uplink, the gateway leads out")
        }
    }
}
