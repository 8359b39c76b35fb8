//! A desired document that has been checked against this host: what the planner works towards.

use crate::rules::Rules;
use crate::{BRIDGE_PREFIX, SITE_BRIDGE_PREFIX, TAP_PREFIX, VXLAN_PREFIX, alias};
use netd_api::{Desired, LINK_NAME_LEN_MAX, Network, Port, Protocol, Uplink};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use thiserror::Error;
use types::SiteName;

const MTU_MIN: u16 = 576;
const MTU_MAX: u16 = 65_521;
const VNI_MAX: u32 = 0x00ff_ffff;

/// What the operator of this host has granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// This host's address towards the other hosts.
    pub underlay: Option<IpAddr>,
    /// The physical link of each site.
    pub uplinks: BTreeMap<SiteName, String>,
}

/// Why a document is refused. Nothing of it has been applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A link name the kernel or our mark does not allow.
    #[error("{owner}: {field} {name:?} {problem}")]
    LinkName {
        /// Network or port.
        owner: String,
        /// `bridge`, `link` or `tap`.
        field: &'static str,
        /// As given.
        name: String,
        /// And what to do.
        problem: String,
    },
    /// A value that must be unique is not.
    #[error("{second}: {what} {value} is already used by {first}; each needs its own")]
    Duplicate {
        /// What must be unique.
        what: &'static str,
        /// The value.
        value: String,
        /// First owner.
        first: String,
        /// Second owner.
        second: String,
    },
    /// An MTU out of range.
    #[error("network {network}: mtu {mtu} is out of range; use {MTU_MIN} to {MTU_MAX}")]
    Mtu {
        /// Whose.
        network: String,
        /// As given.
        mtu: u16,
    },
    /// A VNI out of range.
    #[error("network {network}: vni {vni} is out of range; use 1 to {VNI_MAX}")]
    Vni {
        /// Whose.
        network: String,
        /// As given.
        vni: u32,
    },
    /// A tunnel on a host without an underlay address.
    #[error(
        "network {network}: this host has no underlay address; set underlay_address in netd's configuration"
    )]
    NoUnderlay {
        /// Whose.
        network: String,
    },
    /// A peer that cannot be one.
    #[error("network {network}: peer {peer} {problem}")]
    Peer {
        /// Whose.
        network: String,
        /// As given.
        peer: IpAddr,
        /// And what to do.
        problem: &'static str,
    },
    /// A site whose link was not granted.
    #[error(
        "network {network}: no link is granted for site {site}; name it under [uplinks] in netd's configuration"
    )]
    UnknownSite {
        /// Whose.
        network: String,
        /// As given.
        site: SiteName,
    },
    /// An address no guest can have.
    #[error("port {port}: address {address} is no unicast address of one guest")]
    Address {
        /// Whose.
        port: String,
        /// As given.
        address: IpAddr,
    },
    /// A listen port of zero.
    #[error("port {port}: listen_port 0 cannot be opened; use 1 to 65535")]
    ListenPort {
        /// Whose.
        port: String,
    },
    /// An id nobody can read.
    #[error("{what} id {id:?} is empty, longer than 128 bytes, or has control characters")]
    Id {
        /// `network` or `port`.
        what: &'static str,
        /// As given.
        id: String,
    },
}

/// A checked document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// By name.
    pub bridges: BTreeMap<String, BridgeTarget>,
    /// By name.
    pub vxlans: BTreeMap<String, VxlanTarget>,
    /// By name.
    pub taps: BTreeMap<String, TapTarget>,
    /// Absent when there is no network: then not even the table stays.
    pub rules: Option<Rules>,
}

/// A bridge to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeTarget {
    /// In bytes.
    pub mtu: u32,
    /// For people. A site's bridge has its found state there instead, see [`SiteTarget`].
    pub alias: String,
    /// The physical link it holds.
    pub site: Option<SiteTarget>,
}

/// The physical link of a site's bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteTarget {
    /// Whose LAN.
    pub site: SiteName,
    /// Name of the link.
    pub link: String,
}

impl SiteTarget {
    /// The bridge's alias: the only place that survives us and says how the link was found.
    pub(crate) fn alias(&self, found_up: bool) -> String {
        format!(
            "collective site {} over {} found {}",
            self.site,
            self.link,
            if found_up { "up" } else { "down" }
        )
    }
}

/// Reads what [`SiteTarget::alias`] wrote: the link, and whether it was found up.
pub(crate) fn read_site_alias(alias: &str) -> Option<(&str, bool)> {
    let words: Vec<&str> = alias.split(' ').collect();
    match words.as_slice() {
        ["collective", "site", _, "over", link, "found", state] => Some((link, *state == "up")),
        _ => None,
    }
}

/// A tunnel to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanTarget {
    /// Network identifier.
    pub vni: u32,
    /// Source address.
    pub local: IpAddr,
    /// Flood list.
    pub peers: BTreeSet<IpAddr>,
    /// In bytes.
    pub mtu: u32,
    /// Its bridge.
    pub bridge: String,
    /// For people.
    pub alias: String,
}

/// A tap to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapTarget {
    /// In bytes.
    pub mtu: u32,
    /// Its bridge.
    pub bridge: String,
    /// For people.
    pub alias: String,
}

/// Name of the one bridge of a site on this host, at most 15 bytes.
#[must_use]
pub fn site_bridge(site: &SiteName) -> String {
    let room = LINK_NAME_LEN_MAX - SITE_BRIDGE_PREFIX.len();
    let name = site.as_str();
    if name.len() <= room {
        return format!("{SITE_BRIDGE_PREFIX}{name}");
    }
    // FNV-1a: short, stable and good enough to tell the few sites of one host apart.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("{SITE_BRIDGE_PREFIX}{}-{:06x}", &name[..4], hash & 0x00ff_ffff)
}

/// The bridge that carries a network on this host.
pub(crate) fn bridge_of(network: &Network) -> String {
    match &network.uplink {
        Uplink::Site { site } => site_bridge(site),
        Uplink::None | Uplink::Vxlan { .. } => network.bridge.clone(),
    }
}

impl Target {
    /// Checks a document against what this host was granted.
    ///
    /// # Errors
    /// [`Invalid`] names the first problem, where it is, and what to do.
    pub fn new(desired: &Desired, host: &Host) -> Result<Self, Invalid> {
        let mut target = Self::default();
        let mut seen = Seen::default();
        for network in &desired.networks {
            check_network(network, host, &mut seen)?;
            target.add(network, host)?;
        }
        Ok(target)
    }

    fn add(&mut self, network: &Network, host: &Host) -> Result<(), Invalid> {
        let bridge = bridge_of(network);
        let mtu = u32::from(network.mtu);
        let mut uplink = None;
        let mut site_target = None;
        match &network.uplink {
            Uplink::None => {}
            Uplink::Vxlan { vni, link, peers } => {
                let local =
                    host.underlay.ok_or_else(|| Invalid::NoUnderlay { network: network.id.clone() })?;
                self.vxlans.insert(
                    link.clone(),
                    VxlanTarget {
                        vni: *vni,
                        local,
                        peers: peers.iter().copied().collect(),
                        mtu,
                        bridge: bridge.clone(),
                        alias: alias("tunnel", &network.id),
                    },
                );
                uplink = Some(link.as_str());
            }
            Uplink::Site { site } => {
                let link = host.uplinks.get(site).ok_or_else(|| Invalid::UnknownSite {
                    network: network.id.clone(),
                    site: site.clone(),
                })?;
                site_target = Some(SiteTarget { site: site.clone(), link: link.clone() });
                uplink = Some(link.as_str());
            }
        }
        let entry = self.bridges.entry(bridge.clone()).or_insert_with(|| BridgeTarget {
            mtu,
            alias: alias("network", &network.id),
            site: site_target,
        });
        entry.mtu = entry.mtu.max(mtu);
        for port in &network.ports {
            self.taps.insert(
                port.tap.clone(),
                TapTarget { mtu, bridge: bridge.clone(), alias: alias("port", &port.id) },
            );
        }
        self.rules.get_or_insert_default().add_network(network, uplink);
        Ok(())
    }
}

#[derive(Default)]
struct Seen {
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

fn check_network(network: &Network, host: &Host, seen: &mut Seen) -> Result<(), Invalid> {
    check_id("network", &network.id)?;
    let owner = format!("network {}", network.id);
    seen.once("network id", &network.id, &owner)?;
    check_link_name(&owner, "bridge", &network.bridge, BRIDGE_PREFIX)?;
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
    check_uplink(network, host, seen, &owner)?;
    let segment = bridge_of(network);
    for port in &network.ports {
        check_port(port, &segment, seen)?;
    }
    Ok(())
}

fn check_uplink(network: &Network, host: &Host, seen: &mut Seen, owner: &str) -> Result<(), Invalid> {
    let Uplink::Vxlan { vni, link, peers } = &network.uplink else {
        return Ok(());
    };
    if *vni == 0 || *vni > VNI_MAX {
        return Err(Invalid::Vni { network: network.id.clone(), vni: *vni });
    }
    seen.once("vni", &vni.to_string(), owner)?;
    check_link_name(owner, "link", link, VXLAN_PREFIX)?;
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

fn check_port(port: &Port, segment: &str, seen: &mut Seen) -> Result<(), Invalid> {
    check_id("port", &port.id)?;
    let owner = format!("port {}", port.id);
    seen.once("port id", &port.id, &owner)?;
    check_link_name(&owner, "tap", &port.tap, TAP_PREFIX)?;
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

fn check_id(what: &'static str, id: &str) -> Result<(), Invalid> {
    if id.is_empty() || id.len() > 128 || id.chars().any(char::is_control) {
        return Err(Invalid::Id { what, id: id.chars().take(128).collect() });
    }
    Ok(())
}

fn check_link_name(owner: &str, field: &'static str, name: &str, prefix: &str) -> Result<(), Invalid> {
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
