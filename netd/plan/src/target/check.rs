//! What a document must fulfil before anything of it is planned.

mod copies;
mod router;
mod seen;

pub(crate) use copies::copies;
pub(crate) use seen::Seen;

use super::{Host, Invalid, bridge_of};
use crate::{BRIDGE_PREFIX, SITE_BRIDGE_PREFIX, TAP_PREFIX, VLAN_PREFIX, VXLAN_PREFIX};
use ipnet::IpNet;
use netd_api::{LINK_NAME_LEN_MAX, Network, Port, Protocol, Rate, Uplink};
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

pub(super) const MTU_MIN: u16 = 576;
pub(super) const MTU_MAX: u16 = 65_521;
pub(super) const VNI_MAX: u32 = 0x00ff_ffff;
/// 1 is what switches send untagged, 0 and 4,095 are reserved (IEEE 802.1Q).
const VIDS: RangeInclusive<u16> = 2..=4094;
const RATE_BITS: RangeInclusive<u64> = 64_000..=100_000_000_000;

pub(crate) fn network(network: &Network, host: &Host, seen: &mut Seen) -> Result<(), Invalid> {
    id("network", &network.id)?;
    seen.begin(&network.id);
    let owner = format!("network {}", network.id);
    seen.once("network id", &network.id, &owner)?;
    link_name(&owner, "bridge", &network.bridge, BRIDGE_PREFIX)?;
    let is_site = matches!(network.uplink, Uplink::Site { .. });
    if network.bridge.starts_with(SITE_BRIDGE_PREFIX) && !is_site {
        return Err(Invalid::LinkName {
            owner,
            field: "bridge",
            name: network.bridge.clone(),
            problem: format!("begins with {SITE_BRIDGE_PREFIX}, which netd keeps for sites"),
        });
    }
    seen.once("bridge", &network.bridge, &owner)?;
    if !(MTU_MIN..=MTU_MAX).contains(&network.mtu) {
        return Err(Invalid::Mtu { network: network.id.clone(), mtu: network.mtu });
    }
    subnets(network, &owner)?;
    wire(network)?;
    uplink(network, host, seen, &owner)?;
    let segment = bridge_of(network);
    for joined in &network.ports {
        port(joined, network, &segment, seen)?;
    }
    match &network.router {
        Some(own) => router::router(own, network, host, &segment, seen),
        None => Ok(()),
    }
}

fn field(owner: &str, field: &'static str, value: &impl ToString, problem: impl Into<String>) -> Invalid {
    Invalid::Field { owner: owner.to_owned(), field, value: value.to_string(), problem: problem.into() }
}

fn subnets(network: &Network, owner: &str) -> Result<(), Invalid> {
    apart(&network.subnets, owner, "subnets")
}

/// No two of them share an address.
fn apart(nets: &[IpNet], owner: &str, name: &'static str) -> Result<(), Invalid> {
    for (i, net) in nets.iter().enumerate() {
        if let Some(other) = nets[..i].iter().find(|other| other.contains(net) || net.contains(*other)) {
            return Err(field(owner, name, net, format!("overlaps {other}; addresses must be on one side")));
        }
    }
    Ok(())
}

fn wire(network: &Network) -> Result<(), Invalid> {
    let fail = |problem| Err(Invalid::Wire { network: network.id.clone(), problem });
    if !network.wire {
        return Ok(());
    }
    if network.router.is_some() {
        return fail("it has a router; give the router to the network behind it");
    }
    // An end that is alone is closed: its other end is still to come.
    match (&network.uplink, network.ports.len()) {
        (Uplink::Site { .. }, _) => fail("its uplink is a site; let it end at a port or a tunnel"),
        (Uplink::Vlan { .. }, _) => fail("its uplink is a VLAN; let it end at a port or a tunnel"),
        (Uplink::None, ..=2) | (Uplink::Vxlan { .. }, ..=1) => Ok(()),
        (Uplink::None, _) => fail("without a tunnel it has two ports at most"),
        (Uplink::Vxlan { .. }, _) => fail("with a tunnel it has one port at most"),
    }
}

fn uplink(network: &Network, host: &Host, seen: &mut Seen, owner: &str) -> Result<(), Invalid> {
    match &network.uplink {
        Uplink::None => Ok(()),
        Uplink::Vxlan { vni, link, peers } => {
            if *vni == 0 || *vni > VNI_MAX {
                return Err(Invalid::Vni { network: network.id.clone(), vni: *vni });
            }
            seen.once("vni", &vni.to_string(), owner)?;
            link_name(owner, "link", link, VXLAN_PREFIX)?;
            seen.once("link", link, owner)?;
            tunnel_peers(network, host, peers)
        }
        Uplink::Vlan { trunk, vid, link } => {
            if !host.trunks.contains_key(trunk) {
                let (network, trunk) = (network.id.clone(), trunk.clone());
                return Err(Invalid::UnknownTrunk { network, trunk });
            }
            if !VIDS.contains(vid) {
                let (least, most) = (VIDS.start(), VIDS.end());
                return Err(field(owner, "vid", vid, format!("is out of range; use {least} to {most}")));
            }
            seen.once_in("vid", trunk, &vid.to_string(), owner)?;
            link_name(owner, "link", link, VLAN_PREFIX)?;
            seen.once("link", link, owner)
        }
        Uplink::Site { site } if !host.uplinks.contains_key(site) => {
            Err(Invalid::UnknownSite { network: network.id.clone(), site: site.clone() })
        }
        Uplink::Site { .. } => Ok(()),
    }
}

fn tunnel_peers(network: &Network, host: &Host, peers: &[IpAddr]) -> Result<(), Invalid> {
    let local = host.underlay.ok_or_else(|| Invalid::NoUnderlay { network: network.id.clone() })?;
    let mut once = HashSet::new();
    for peer in peers {
        let fail = |problem| Err(Invalid::Peer { network: network.id.clone(), peer: *peer, problem });
        if let Some(problem) = no_peer(*peer, local) {
            return fail(problem);
        }
        if !once.insert(peer) {
            return fail("is named twice; name it once");
        }
    }
    Ok(())
}

/// Why an address cannot be another host's.
fn no_peer(peer: IpAddr, local: IpAddr) -> Option<&'static str> {
    if peer.is_ipv4() != local.is_ipv4() {
        return Some("is of another IP version than this host's underlay address; use the same on all hosts");
    }
    if peer == local {
        return Some("is this host itself; name the other hosts only");
    }
    let is_none = peer.is_unspecified() || peer.is_multicast() || peer.is_loopback();
    is_none.then_some("is no unicast address of a host")
}

fn port(port: &Port, network: &Network, segment: &str, seen: &mut Seen) -> Result<(), Invalid> {
    id("port", &port.id)?;
    let owner = format!("port {}", port.id);
    seen.once("port id", &port.id, &owner)?;
    link_name(&owner, "tap", &port.tap, TAP_PREFIX)?;
    seen.once("tap", &port.tap, &owner)?;
    // A port that is held stands in for the one it takes over from.
    let held = if port.held { "held mac" } else { "mac" };
    seen.once_in(held, segment, &port.mac.to_string(), &owner)?;
    for address in &port.addresses {
        if !is_guest(*address) {
            return Err(Invalid::Address { port: port.id.clone(), address: *address });
        }
        if !port.routes && !network.wire {
            inside(*address, &network.subnets, &owner, "address")?;
        }
        let held = if port.held { "held address" } else { "address" };
        seen.once_in(held, segment, &address.to_string(), &owner)?;
    }
    for rule in &port.accept {
        if matches!(rule.protocol, Protocol::Tcp { listen_port: 0 } | Protocol::Udp { listen_port: 0 }) {
            return Err(Invalid::ListenPort { port: port.id.clone() });
        }
    }
    rate(port.rate.as_ref(), &owner)
}

/// An address that one NIC can have.
fn is_guest(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

/// The address is one that a guest of these subnets can have. No subnets: any.
fn inside(address: IpAddr, subnets: &[IpNet], owner: &str, name: &'static str) -> Result<(), Invalid> {
    if subnets.is_empty() {
        return Ok(());
    }
    let Some(subnet) = subnets.iter().find(|subnet| subnet.contains(&address)) else {
        let all: Vec<String> = subnets.iter().map(ToString::to_string).collect();
        return Err(field(
            owner,
            name,
            &address,
            format!("is outside of {}; use one inside", all.join(", ")),
        ));
    };
    let IpNet::V4(subnet) = subnet else { return Ok(()) };
    let ends = [IpAddr::V4(subnet.network()), IpAddr::V4(subnet.broadcast())];
    if subnet.prefix_len() < 31 && ends.contains(&address) {
        return Err(field(
            owner,
            name,
            &address,
            format!("is {subnet}'s own first or last; use one between"),
        ));
    }
    Ok(())
}

fn rate(rate: Option<&Rate>, owner: &str) -> Result<(), Invalid> {
    let Some(Rate { from_guest_bits, to_guest_bits }) = rate else { return Ok(()) };
    for (name, bits) in [("rate.from_guest_bits", from_guest_bits), ("rate.to_guest_bits", to_guest_bits)] {
        if let Some(bits) = bits.filter(|bits| !RATE_BITS.contains(bits)) {
            let (least, most) = (RATE_BITS.start(), RATE_BITS.end());
            return Err(field(owner, name, &bits, format!("is out of range; use {least} to {most} bits/s")));
        }
    }
    Ok(())
}

fn id(what: &'static str, id: &str) -> Result<(), Invalid> {
    if id.is_empty() || id.len() > 128 || id.chars().any(char::is_control) {
        return Err(Invalid::Id { what, id: id.chars().take(128).collect() });
    }
    Ok(())
}

fn link_name(owner: &str, field: &'static str, name: &str, prefix: &str) -> Result<(), Invalid> {
    let fail = |problem: String| {
        let name = name.chars().take(64).collect();
        Err(Invalid::LinkName { owner: owner.to_owned(), field, name, problem })
    };
    if name.len() > LINK_NAME_LEN_MAX {
        return fail(format!("is longer than {LINK_NAME_LEN_MAX} bytes; shorten it"));
    }
    if !name.starts_with(prefix) || name.len() == prefix.len() {
        return fail(format!("does not begin with {prefix} and go on; every {field} does"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return fail("has other characters than letters, digits, '-' and '_'".to_owned());
    }
    Ok(())
}
