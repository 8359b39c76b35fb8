//! What a port joins or watches.

use super::{Findings, choices};
use crate::{address, network, record};
use controller_api::document::{BundleSpec, FixedPort, LimitsSpec, PortSpec};
use std::net::IpAddr;
use types::{BitRate, MemberName, NetworkName, PortName};

/// A NIC's rates in bits a second.
const RATE_BITS: std::ops::RangeInclusive<u64> = 64_000..=100_000_000_000;

/// What a port watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched<'a> {
    /// All of a network.
    Network(&'a NetworkName),
    /// One guest's frames there.
    Port { member: &'a MemberName, port: &'a PortName, network: &'a NetworkName },
}

impl Watched<'_> {
    pub(crate) fn record(self) -> record::Watched {
        match self {
            Self::Network(_) => record::Watched::Network,
            Self::Port { member, port, .. } => {
                record::Watched::Port { member: member.clone(), port: port.clone() }
            }
        }
    }
}

/// The network a port joins; none if it watches.
pub(crate) fn joined(port: &PortSpec) -> Option<&NetworkName> {
    match port {
        PortSpec::Network(network) => Some(network),
        PortSpec::Fixed(fixed) => Some(&fixed.network),
        PortSpec::Mirror(_) => None,
    }
}

/// The addresses it asks for.
pub(crate) fn chosen(port: &PortSpec) -> impl Iterator<Item = IpAddr> {
    fields(port).map(|(_, address)| address)
}

/// The addresses it asks for, with the field that says so.
pub(super) fn fields(port: &PortSpec) -> impl Iterator<Item = (&'static str, IpAddr)> {
    let (address, address6) = match port {
        PortSpec::Fixed(fixed) => (fixed.address, fixed.address6),
        PortSpec::Network(_) | PortSpec::Mirror(_) => (None, None),
    };
    let named = |field| move |address| (field, address);
    address.map(named("address")).into_iter().chain(address6.map(named("address6")))
}

/// What a port watches, if it does and that is there.
pub(crate) fn watched<'a>(spec: &'a BundleSpec, port: &PortSpec) -> Option<Watched<'a>> {
    let PortSpec::Mirror(mirror) = port else { return None };
    let Some((member, port)) = mirror.mirror.split_once('/') else {
        let network = spec.networks.keys().find(|network| network.as_str() == mirror.mirror)?;
        return Some(Watched::Network(network));
    };
    let (member, at) = spec.members.iter().find(|(name, _)| name.as_str() == member)?;
    let (port, target) = at.ports.iter().find(|(name, _)| name.as_str() == port)?;
    Some(Watched::Port { member, port, network: joined(target)? })
}

pub(super) fn check(spec: &BundleSpec, path: &str, target: &PortSpec, findings: &mut Findings) {
    if let PortSpec::Mirror(mirror) = target {
        if watched(spec, target).is_none() {
            let message = format!("there is nothing to watch at {:?}: {}", mirror.mirror, watchable(spec));
            findings.add(format!("{path}.mirror"), message);
        }
        return;
    }
    let Some(network) = joined(target) else { return };
    if !spec.networks.contains_key(network) {
        let known = choices(spec.networks.keys(), "add it under spec.networks");
        findings.add(path, format!("there is no network {network}: {known}"));
    }
    if let PortSpec::Fixed(fixed) = target {
        check_fixed(spec, path, fixed, findings);
    }
}

fn watchable(spec: &BundleSpec) -> String {
    let ports = super::every_port(spec).filter(|(_, _, target)| joined(target).is_some());
    let ports = ports.map(|(member, port, _)| format!("{member}/{port}"));
    choices(spec.networks.keys().map(ToString::to_string).chain(ports), "add a network under spec.networks")
}

fn check_fixed(spec: &BundleSpec, path: &str, fixed: &FixedPort, findings: &mut Findings) {
    if let Some(network) = spec.networks.get(&fixed.network).filter(|network| !network::is_site(network)) {
        let routers = network::router_addresses(network);
        for (field, address, subnet) in
            [("address", fixed.address, network.subnet), ("address6", fixed.address6, network.subnet6)]
        {
            let Some(address) = address else { continue };
            let path = format!("{path}.{field}");
            match subnet {
                None if field == "address6" => {
                    findings.add(path, format!("network {} has no subnet6: remove this line", fixed.network));
                }
                None => {}
                Some(subnet) => {
                    if let Some(message) = address::unusable(address, subnet) {
                        findings.add(path, message);
                    } else if routers.iter().any(|router| router.addr() == address) {
                        let message =
                            format!("{address} is the address of the network's own router: take another");
                        findings.add(path, message);
                    }
                }
            }
        }
    } else if fixed.address6.is_some() {
        findings.add(format!("{path}.address6"), "a site's LAN has one subnet: write address");
    }
    if let Some(limits) = &fixed.limits {
        check_limits(&format!("{path}.limits"), limits, findings);
    }
}

fn check_limits(path: &str, limits: &LimitsSpec, findings: &mut Findings) {
    if limits.up.is_none() && limits.down.is_none() {
        findings.add(path, "it limits nothing: write up: 100Mbit/s or down: 1Gbit/s");
    }
    for (field, rate) in [("up", limits.up), ("down", limits.down)] {
        if let Some(rate) = rate.filter(|BitRate(bits)| !RATE_BITS.contains(bits)) {
            findings.add(format!("{path}.{field}"), format!("{rate} is not 64kbit/s to 100Gbit/s"));
        }
    }
}
