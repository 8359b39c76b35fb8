//! Reading what is.

use crate::{Kernel, NftError, REQUEST_TIMEOUT, nft, sysctl};
use futures::{Stream, TryStreamExt as _};
use netd_plan::{Link, LinkKind, Observed};
use netlink_packet_core::Nla as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, InfoTun, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

/// Number of `IFLA_TUN_TYPE` in `linux/if_link.h`, and its value for a tap.
const IFLA_TUN_TYPE: u16 = 3;
const TUN_TYPE_TAP: u8 = 2;

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
        source: rtnetlink::Error,
    },
    /// A dump does not end.
    #[error("the kernel did not list {0} within {s} s", s = REQUEST_TIMEOUT.as_secs())]
    Timeout(&'static str),
    /// The rules cannot be read.
    #[error("cannot read the rules")]
    Rules(#[source] NftError),
}

impl Kernel {
    /// Reads everything the planner looks at.
    ///
    /// # Errors
    /// [`ObserveError`]; a half observation is never returned.
    pub async fn observe(&self) -> Result<Observed, ObserveError> {
        let (links, listing) = tokio::join!(self.links(), nft::observe());
        let listing = listing.map_err(ObserveError::Rules)?;
        Ok(Observed {
            links: links?,
            rules: listing.rules,
            counters: listing.counters,
            bridge_netfilter: sysctl::bridge_netfilter(),
            ..Observed::default()
        })
    }

    async fn links(&self) -> Result<BTreeMap<String, Link>, ObserveError> {
        let messages: Vec<LinkMessage> = collect("links", self.handle.link().get().execute()).await?;
        let addresses = collect("addresses", self.handle.address().get().execute()).await?;
        let addressed: HashSet<u32> =
            addresses.iter().filter(|a| is_routable(a)).map(|a| a.header.index).collect();
        let names: HashMap<u32, &str> = messages.iter().map(|m| (m.header.index, name_of(m))).collect();
        let mut links = BTreeMap::new();
        for message in &messages {
            let mut link = read_link(message, &names);
            let name = name_of(message);
            link.addressed = addressed.contains(&message.header.index);
            if link.is_ours(name) {
                link.ipv6 = sysctl::speaks_ipv6(name);
            }
            links.insert(name.to_owned(), link);
        }
        let has_vxlan = links.iter().any(|(n, l)| l.is_ours(n) && matches!(l.kind, LinkKind::Vxlan { .. }));
        if has_vxlan {
            for entry in self.forwarding().await? {
                let Some(name) = names.get(&entry.header.ifindex) else { continue };
                let Some(LinkKind::Vxlan { flood, .. }) = links.get_mut(*name).map(|l| &mut l.kind) else {
                    continue;
                };
                if let (Some([0, 0, 0, 0, 0, 0]), Some(peer)) = (mac_of(&entry), peer_of(&entry)) {
                    flood.insert(peer);
                }
            }
        }
        Ok(links)
    }

    /// The forwarding tables of bridges and tunnels.
    pub(crate) async fn forwarding(&self) -> Result<Vec<NeighbourMessage>, ObserveError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        collect("forwarding entries", request.execute()).await
    }
}

async fn collect<T>(
    what: &'static str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, ObserveError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, stream.try_collect()).await {
        Ok(result) => result.map_err(|source| ObserveError::Dump { what, source }),
        Err(_) => Err(ObserveError::Timeout(what)),
    }
}

pub(crate) fn name_of(message: &LinkMessage) -> &str {
    fn pick(attribute: &LinkAttribute) -> Option<&str> {
        if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None }
    }
    message.attributes.iter().find_map(pick).unwrap_or_default()
}

pub(crate) fn group_of(message: &LinkMessage) -> u32 {
    let group = |a: &LinkAttribute| if let LinkAttribute::Group(group) = a { Some(*group) } else { None };
    message.attributes.iter().find_map(group).unwrap_or_default()
}

pub(crate) fn mac_of(entry: &NeighbourMessage) -> Option<[u8; 6]> {
    let mac = |a: &NeighbourAttribute| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    };
    entry.attributes.iter().find_map(mac)
}

/// Forwarding entries give the far host as bare bytes.
pub(crate) fn peer_of(entry: &NeighbourMessage) -> Option<IpAddr> {
    let peer = |a: &NeighbourAttribute| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
        },
        _ => None,
    };
    entry.attributes.iter().find_map(peer)
}

fn is_routable(message: &AddressMessage) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V6(v6)) => !v6.is_unicast_link_local(),
        AddressAttribute::Address(IpAddr::V4(_)) => true,
        _ => false,
    })
}

fn read_link(message: &LinkMessage, names: &HashMap<u32, &str>) -> Link {
    let mut link = Link {
        group: 0,
        kind: LinkKind::Other("physical".to_owned()),
        mtu: 0,
        master: None,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: false,
        alias: None,
        addressed: false,
        ipv6: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.master = names.get(index).map(|name| (*name).to_owned()),
            LinkAttribute::Carrier(carrier) => link.carrier = *carrier == 1,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::LinkInfo(info) => link.kind = read_kind(info),
            _ => {}
        }
    }
    link
}

fn read_kind(info: &[LinkInfo]) -> LinkKind {
    let mut kind = LinkKind::Other(String::new());
    for part in info {
        match part {
            LinkInfo::Kind(InfoKind::Bridge) => kind = LinkKind::Bridge { stp: false, snooping: false },
            LinkInfo::Kind(other) => kind = LinkKind::Other(other.to_string()),
            LinkInfo::Data(InfoData::Bridge(data)) => kind = read_bridge(data),
            LinkInfo::Data(InfoData::Vxlan(data)) => kind = read_vxlan(data),
            LinkInfo::Data(InfoData::Tun(data)) if data.iter().any(is_tap) => kind = LinkKind::Tap,
            _ => {}
        }
    }
    kind
}

fn is_tap(attribute: &InfoTun) -> bool {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    attribute.kind() == IFLA_TUN_TYPE && value == [TUN_TYPE_TAP]
}

fn read_bridge(data: &[InfoBridge]) -> LinkKind {
    let (mut stp, mut snooping) = (false, false);
    for attribute in data {
        match attribute {
            InfoBridge::StpState(state) => stp = *state != BridgeStpState::Disabled,
            InfoBridge::MulticastSnooping(on) => snooping = *on,
            _ => {}
        }
    }
    LinkKind::Bridge { stp, snooping }
}

fn read_vxlan(data: &[InfoVxlan]) -> LinkKind {
    let (mut vni, mut local, mut port) = (0, None, 0);
    for attribute in data {
        match attribute {
            InfoVxlan::Id(id) => vni = *id,
            InfoVxlan::Local(v4) => local = Some(IpAddr::V4(*v4)),
            InfoVxlan::Local6(v6) => local = Some(IpAddr::V6(*v6)),
            InfoVxlan::Port(number) => port = *number,
            _ => {}
        }
    }
    LinkKind::Vxlan { vni, local, port, flood: BTreeSet::new() }
}
