//! Reading what is.

use crate::link::{self, Address, Forwarding, Told};
use crate::route::{Route, RouteError};
use crate::{Kernel, NftError, RouterError, mirror, shape, sysctl};
use netd_plan::{DOOMED, Link, LinkKind, Observed, ObservedShape};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

/// Why the kernel cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A dump failed.
    #[error("cannot list {what}")]
    Dump {
        /// Of what.
        what: &'static str,
        /// Why.
        #[source]
        source: RouteError,
    },
    /// The routers cannot be read.
    #[error("cannot read the routers")]
    Routers(#[source] RouterError),
    /// The rules cannot be read.
    #[error("cannot read the rules")]
    Rules(#[source] NftError),
}

/// Links and the addresses on them.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// As in [`Observed`].
    pub links: BTreeMap<String, Link>,
    /// As in [`Observed`].
    pub addresses: BTreeMap<IpAddr, String>,
    /// As in [`Observed`].
    pub shapes: BTreeMap<String, ObservedShape>,
}

impl Kernel {
    /// Reads everything the planner looks at.
    ///
    /// # Errors
    /// [`ObserveError`]; a half observation is never returned.
    pub async fn observe(&self) -> Result<Observed, ObserveError> {
        let listing = self.tables.observe().await.map_err(ObserveError::Rules)?;
        Ok(Observed {
            rules: listing.rules,
            counters: listing.counters,
            used: listing.used,
            flows: listing.flows,
            ..self.observe_but_rules().await?
        })
    }

    /// Reads the same without our rules: for a caller who knows them, see [`Kernel::rules_are_as_left`].
    ///
    /// # Errors
    /// [`ObserveError`]; a half observation is never returned.
    pub async fn observe_but_rules(&self) -> Result<Observed, ObserveError> {
        let Links { links, addresses, shapes } = self.links()?;
        let mut observed = Observed {
            links,
            addresses,
            bridge_netfilter: sysctl::bridge_netfilter(),
            shapes,
            routers: self.observe_routers().await.map_err(ObserveError::Routers)?,
            ..Observed::default()
        };
        if mirror::concerned(&observed) {
            observed.mirrors = mirror::observe().await.map_err(ObserveError::Rules)?;
        }
        Ok(observed)
    }

    /// Reads what the planner looks at of the links of these names. The rules are left to the caller, who knows what
    /// they are.
    ///
    /// # Errors
    /// [`ObserveError`]; a half observation is never returned.
    pub fn observe_named(&self, names: &BTreeSet<String>) -> Result<Observed, ObserveError> {
        let Links { links, addresses, shapes } = self.links_named(names)?;
        let bridge_netfilter = sysctl::bridge_netfilter();
        Ok(Observed { links, addresses, shapes, bridge_netfilter, ..Observed::default() })
    }

    /// Reads all links, and no rules.
    ///
    /// # Errors
    /// [`ObserveError`]; a half observation is never returned.
    pub fn links(&self) -> Result<Links, ObserveError> {
        let mut host = self.host();
        let told = list_links(&mut host.route)?;
        let entries =
            if told.iter().any(is_our_tunnel) { forwarding(&mut host.route, None)? } else { Vec::new() };
        let addresses = list_addresses(&mut host.route, None)?;
        host.names = told.iter().map(|told| (told.index, told.name.clone())).collect();
        host.ours =
            told.iter().filter(|t| t.link.is_ours(&t.name)).map(|t| (t.name.clone(), t.index)).collect();
        host.strangers_doomed = told.iter().any(|t| t.link.group == DOOMED && !t.link.is_ours(&t.name));
        let shapes = list_shapes(&mut host.route, &told)?;
        Ok(Links { shapes, ..join(told, &addresses, &entries, &host.names) })
    }

    /// Reads the links of these names that exist, and no others: their masters are named, but not among them.
    ///
    /// # Errors
    /// [`ObserveError`]; a half observation is never returned.
    pub fn links_named(&self, names: &BTreeSet<String>) -> Result<Links, ObserveError> {
        let mut host = self.host();
        let (mut found, mut entries) = (Vec::new(), Vec::new());
        for name in names {
            match host.find(name) {
                Ok(told) => {
                    if is_our_tunnel(&told) {
                        entries.extend(forwarding(&mut host.route, Some(told.index))?);
                    }
                    found.push(told);
                }
                Err(error) if error.code() == Some(nix::libc::ENODEV) => {}
                Err(source) => return Err(ObserveError::Dump { what: "links", source }),
            }
        }
        let near: Vec<u32> = found.iter().flat_map(|told| [told.master, told.parent]).flatten().collect();
        for index in near {
            host.learn_name(index)?;
        }
        // Only links of others, such as a site's, are looked at for addresses; those of ten thousand links take 10 ms to list.
        let mut addresses = Vec::new();
        for told in found.iter().filter(|told| !told.link.is_ours(&told.name)) {
            addresses.extend(list_addresses(&mut host.route, Some(told.index))?);
        }
        let shapes = list_shapes(&mut host.route, &found)?;
        Ok(Links { shapes, ..join(found, &addresses, &entries, &host.names) })
    }

    /// The forwarding entries of one tunnel.
    pub(crate) fn forwarding_of(&self, index: u32) -> Result<Vec<Forwarding>, ObserveError> {
        forwarding(&mut self.host().route, Some(index))
    }
}

/// The limits of those of our links that have one: most hosts have none, and are not asked for ten thousand queues.
fn list_shapes(route: &mut Route, told: &[Told]) -> Result<BTreeMap<String, ObservedShape>, ObserveError> {
    let limited = |told: &&Told| told.limited && told.link.is_ours(&told.name);
    if !told.iter().any(|told| limited(&told)) {
        return Ok(BTreeMap::new());
    }
    let all = shape::list(route).map_err(|source| ObserveError::Dump { what: "limits", source })?;
    let pairs = told.iter().filter(limited).map(|t| Some((t.name.clone(), *all.get(&t.index)?)));
    Ok(pairs.flatten().collect())
}

fn is_our_tunnel(told: &Told) -> bool {
    matches!(told.link.kind, LinkKind::Vxlan { .. }) && told.link.is_ours(&told.name)
}

fn list_links(route: &mut Route) -> Result<Vec<Told>, ObserveError> {
    let list = route.dump(&link::request(None), |list: &mut Vec<Told>, part| list.extend(link::read(part)));
    list.map_err(|source| ObserveError::Dump { what: "links", source })
}

/// All addresses, or those of one link.
fn list_addresses(route: &mut Route, index: Option<u32>) -> Result<Vec<Address>, ObserveError> {
    let mut request = AddressMessage::default();
    request.header.index = index.unwrap_or_default();
    let request = RouteNetlinkMessage::GetAddress(request);
    let list = route.dump(&request, |list: &mut Vec<Address>, part| {
        list.extend(link::read_address(part).filter(|found| index.is_none_or(|index| found.index == index)));
    });
    list.map_err(|source| ObserveError::Dump { what: "addresses", source })
}

/// The forwarding tables of bridges and tunnels, or the entries of one link.
fn forwarding(route: &mut Route, index: Option<u32>) -> Result<Vec<Forwarding>, ObserveError> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Bridge;
    request.header.ifindex = index.unwrap_or_default();
    let request = RouteNetlinkMessage::GetNeighbour(request);
    let list = route.dump(&request, |list: &mut Vec<Forwarding>, part| {
        list.extend(
            link::read_forwarding(part).filter(|entry| index.is_none_or(|index| entry.index == index)),
        );
    });
    list.map_err(|source| ObserveError::Dump { what: "forwarding entries", source })
}

fn join(
    told: Vec<Told>,
    addresses: &[Address],
    entries: &[Forwarding],
    names: &HashMap<u32, String>,
) -> Links {
    let name_of = |index: u32| names.get(&index).cloned();
    let mut floods: HashMap<u32, BTreeSet<IpAddr>> = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.mac == [0; 6]) {
        floods.entry(entry.index).or_default().extend(entry.peer);
    }
    let addressed: HashSet<u32> = addresses.iter().map(|address| address.index).collect();
    let mut found = Links::default();
    for Address { index, address } in addresses {
        found.addresses.extend(name_of(*index).map(|name| (*address, name)));
    }
    for Told { index, name, mut link, master, parent: below, .. } in told {
        link.master = master.and_then(name_of);
        link.addressed = addressed.contains(&index);
        match &mut link.kind {
            LinkKind::Vxlan { flood, .. } => *flood = floods.remove(&index).unwrap_or_default(),
            LinkKind::Vlan { parent, .. } => *parent = below.and_then(name_of).unwrap_or_default(),
            _ => {}
        }
        found.links.insert(name, link);
    }
    found
}
