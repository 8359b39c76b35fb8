//! A desired document that has been checked against this host: what the planner works towards.

mod check;
mod invalid;

pub(crate) use check::{Seen, copies, network as network_check};
pub use invalid::Invalid;

use crate::document::Document;
use crate::mirror::MirrorsTarget;
use crate::router::{OUTSIDE_MTU, RouterTarget};
use crate::rules::Rules;
use crate::{SITE_BRIDGE_PREFIX, alias};
use netd_api::{Desired, LINK_NAME_LEN_MAX, Network, Rate, Uplink};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use types::{MacAddress, SiteName};

/// What the operator of this host has granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// This host's address towards the other hosts.
    pub underlay: Option<IpAddr>,
    /// The physical link of each site.
    pub uplinks: BTreeMap<SiteName, String>,
    /// The physical link of each trunk.
    pub trunks: BTreeMap<String, String>,
}

/// A checked document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// By name.
    pub bridges: BTreeMap<String, BridgeTarget>,
    /// By name.
    pub vxlans: BTreeMap<String, VxlanTarget>,
    /// By name.
    pub vlans: BTreeMap<String, VlanTarget>,
    /// By name.
    pub taps: BTreeMap<String, TapTarget>,
    /// By name of their link on the bridge.
    pub routers: BTreeMap<String, RouterTarget>,
    /// Routers' links on sites' bridges, and their links on their networks'.
    pub outside_links: BTreeMap<String, String>,
    /// Watchers and what they are sent.
    pub mirrors: MirrorsTarget,
    /// By tap.
    pub rates: BTreeMap<String, Rate>,
    /// Taps at which conversations are counted.
    pub flows: BTreeSet<String>,
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
    /// It has two ends and passes everything between them.
    pub wire: bool,
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

/// A VLAN's link to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanTarget {
    /// VLAN identifier.
    pub vid: u16,
    /// The trunk's physical link.
    pub parent: String,
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
    /// The alias until its network knows where it is: the only place that survives us and says that it must be told.
    pub arriving_alias: String,
    /// It stays down and attached to nothing.
    pub held: bool,
    /// Absent on a wire, which knows no addresses.
    pub announcement: Option<Announcement>,
}

/// What a network is told when a guest has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The guest's.
    pub mac: MacAddress,
    /// The guest's.
    pub addresses: Vec<IpAddr>,
    /// Links that lead off this host.
    pub uplinks: Vec<String>,
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
        Uplink::None | Uplink::Vxlan { .. } | Uplink::Vlan { .. } => network.bridge.clone(),
    }
}

impl Target {
    /// Checks a document against what this host was granted.
    ///
    /// # Errors
    /// [`Invalid`] names the first problem, where it is, and what to do.
    pub fn new(desired: &Desired, host: &Host) -> Result<Self, Invalid> {
        Document::new(desired.clone(), host)?.target(host)
    }

    /// Of a document that was checked.
    pub(crate) fn of(desired: &Desired, host: &Host) -> Result<Self, Invalid> {
        let mut target = Self::default();
        for network in &desired.networks {
            target.add(network, host)?;
            if network.flows {
                target.flows.extend(network.ports.iter().map(|port| port.tap.clone()));
            }
        }
        target.mirrors = MirrorsTarget::new(desired, host, &target)?;
        Ok(target)
    }

    /// What becomes of it by a change within a scope: what was of `before` goes, what is of `after` comes.
    pub fn replace(&mut self, before: &Self, after: Self) {
        fn swap<T>(of: &mut BTreeMap<String, T>, before: &BTreeMap<String, T>, after: BTreeMap<String, T>) {
            for name in before.keys() {
                of.remove(name);
            }
            of.extend(after);
        }
        swap(&mut self.bridges, &before.bridges, after.bridges);
        swap(&mut self.vxlans, &before.vxlans, after.vxlans);
        swap(&mut self.vlans, &before.vlans, after.vlans);
        swap(&mut self.taps, &before.taps, after.taps);
        let rules = self.rules.get_or_insert_default();
        for element in before.rules.iter().flat_map(|rules| &rules.elements) {
            rules.elements.remove(element);
        }
        rules.elements.extend(after.rules.into_iter().flat_map(|rules| rules.elements));
    }

    /// Names of the links that it asks for or works on.
    #[must_use]
    pub fn link_names(&self) -> BTreeSet<String> {
        let sites = self.bridges.values().filter_map(|bridge| Some(&bridge.site.as_ref()?.link));
        let made =
            self.bridges.keys().chain(self.vxlans.keys()).chain(self.vlans.keys()).chain(self.taps.keys());
        made.chain(sites).chain(self.vlans.values().map(|vlan| &vlan.parent)).cloned().collect()
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
            Uplink::Vlan { trunk, vid, link } => {
                let parent = host.trunks.get(trunk).ok_or_else(|| Invalid::UnknownTrunk {
                    network: network.id.clone(),
                    trunk: trunk.clone(),
                })?;
                self.vlans.insert(
                    link.clone(),
                    VlanTarget {
                        vid: *vid,
                        parent: parent.clone(),
                        mtu,
                        bridge: bridge.clone(),
                        alias: alias("vlan", &network.id),
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
            wire: network.wire,
        });
        entry.mtu = entry.mtu.max(mtu);
        for port in &network.ports {
            if let Some(rate) = port.rate {
                self.rates.insert(port.tap.clone(), rate);
            }
            let announcement = (!network.wire).then(|| Announcement {
                mac: port.mac,
                addresses: port.addresses.clone(),
                uplinks: uplink.map(str::to_owned).into_iter().collect(),
            });
            self.taps.insert(
                port.tap.clone(),
                TapTarget {
                    mtu,
                    bridge: bridge.clone(),
                    alias: alias("port", &port.id),
                    arriving_alias: alias("arriving port", &port.id),
                    held: port.held,
                    announcement,
                },
            );
        }
        self.rules.get_or_insert_default().add_network(network, uplink);
        self.add_router(network, host)
    }

    fn add_router(&mut self, network: &Network, host: &Host) -> Result<(), Invalid> {
        let Some(wanted) = RouterTarget::of(network, host) else { return Ok(()) };
        if let Some(outside) = &wanted.router.outside {
            let Some((bridge, link)) = &wanted.lan else {
                return Err(Invalid::UnknownSite { network: network.id.clone(), site: outside.site.clone() });
            };
            let site = SiteTarget { site: outside.site.clone(), link: link.clone() };
            let entry = self.bridges.entry(bridge.clone()).or_insert_with(|| BridgeTarget {
                mtu: OUTSIDE_MTU,
                alias: alias("site", outside.site.as_str()),
                site: Some(site),
                wire: false,
            });
            entry.mtu = entry.mtu.max(OUTSIDE_MTU);
            self.outside_links.insert(outside.link.clone(), wanted.router.link.clone());
        }
        self.rules.get_or_insert_default().add_router(network, &wanted);
        self.routers.insert(wanted.router.link.clone(), wanted);
        Ok(())
    }
}
