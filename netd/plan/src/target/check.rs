//! What a document must fulfil before anything of it is planned.

use super::{Host, Invalid, bridge_of};
use crate::{BRIDGE_PREFIX, SITE_BRIDGE_PREFIX, TAP_PREFIX, VXLAN_PREFIX};
use netd_api::{LINK_NAME_LEN_MAX, Network, Port, Protocol, Uplink};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

pub(super) const MTU_MIN: u16 = 576;
pub(super) const MTU_MAX: u16 = 65_521;
pub(super) const VNI_MAX: u32 = 0x00ff_ffff;

/// What must be unique, and whose it is.
#[derive(Default)]
pub(super) struct Seen {
    values: BTreeMap<(&'static str, String), String>,
}

impl Seen {
    fn once(&mut self, what: &'static str, value: &str, owner: &str) -> Result<(), Invalid> {
        self.once_in(what, "", value, owner)
    }

    /// Unique within `scope` only.
    fn once_in(&mut self, what: &'static str, scope: &str, value: &str, owner: &str) -> Result<(), Invalid> {
        match self.values.insert((what, format!("{scope}\0{value}")), owner.to_owned()) {
            None => Ok(()),
            Some(first) => {
                Err(Invalid::Duplicate { what, value: value.to_owned(), first, second: owner.to_owned() })
            }
        }
    }
}

pub(super) fn network(network: &Network, host: &Host, seen: &mut Seen) -> Result<(), Invalid> {
    id("network", &network.id)?;
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
    uplink(network, host, seen, &owner)?;
    let segment = bridge_of(network);
    for joined in &network.ports {
        port(joined, &segment, seen)?;
    }
    Ok(())
}

fn uplink(network: &Network, host: &Host, seen: &mut Seen, owner: &str) -> Result<(), Invalid> {
    let Uplink::Vxlan { vni, link, peers } = &network.uplink else {
        return Ok(());
    };
    if *vni == 0 || *vni > VNI_MAX {
        return Err(Invalid::Vni { network: network.id.clone(), vni: *vni });
    }
    seen.once("vni", &vni.to_string(), owner)?;
    link_name(owner, "link", link, VXLAN_PREFIX)?;
    seen.once("link", link, owner)?;
    let local = host.underlay.ok_or_else(|| Invalid::NoUnderlay { network: network.id.clone() })?;
    let mut once = HashSet::new();
    for peer in peers {
        let fail = |problem| Err(Invalid::Peer { network: network.id.clone(), peer: *peer, problem });
        if peer.is_ipv4() != local.is_ipv4() {
            return fail(
                "is of another IP version than this host's underlay address; use the same on all hosts",
            );
        }
        if *peer == local {
            return fail("is this host itself; name the other hosts only");
        }
        if peer.is_unspecified() || peer.is_multicast() || peer.is_loopback() {
            return fail("is no unicast address of a host");
        }
        if !once.insert(peer) {
            return fail("is named twice; name it once");
        }
    }
    Ok(())
}

fn port(port: &Port, segment: &str, seen: &mut Seen) -> Result<(), Invalid> {
    id("port", &port.id)?;
    let owner = format!("port {}", port.id);
    seen.once("port id", &port.id, &owner)?;
    link_name(&owner, "tap", &port.tap, TAP_PREFIX)?;
    seen.once("tap", &port.tap, &owner)?;
    seen.once_in("mac", segment, &port.mac.to_string(), &owner)?;
    for address in &port.addresses {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
            return Err(Invalid::Address { port: port.id.clone(), address: *address });
        }
        seen.once_in("address", segment, &address.to_string(), &owner)?;
    }
    for rule in &port.accept {
        if matches!(rule.protocol, Protocol::Tcp { listen_port: 0 } | Protocol::Udp { listen_port: 0 }) {
            return Err(Invalid::ListenPort { port: port.id.clone() });
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
