//! Links as the kernel tells of them, in lists and in news.
//!
//! Ten thousand of them are read at every pass, so they are read where they lie, without a tree of attributes.

use crate::route::{Part, attributes, text, u16_at, u32_at};
use crate::shape;
use netd_plan::{Link, LinkKind};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWNEIGH: u16 = 28;

const AF_UNSPEC: u8 = 0;
const AF_INET6: u16 = 10;
const IFF_UP: u32 = 1;

/// Of the headers that precede the attributes (`linux/rtnetlink.h`, `linux/neighbour.h`).
const LINK_HEADER_BYTES: usize = 16;
const ADDRESS_HEADER_BYTES: usize = 8;
const NEIGHBOUR_HEADER_BYTES: usize = 12;

/// Attributes of links (`linux/if_link.h`).
mod ifla {
    pub(super) const IFNAME: u16 = 3;
    pub(super) const MTU: u16 = 4;
    pub(super) const QDISC: u16 = 6;
    pub(super) const LINK: u16 = 5;
    pub(super) const MASTER: u16 = 10;
    pub(super) const LINKINFO: u16 = 18;
    pub(super) const IFALIAS: u16 = 20;
    pub(super) const AF_SPEC: u16 = 26;
    pub(super) const GROUP: u16 = 27;
    pub(super) const CARRIER: u16 = 33;
    pub(super) const LINK_NETNSID: u16 = 37;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_DATA: u16 = 2;
    pub(super) const INET6_CONF: u16 = 2;
    pub(super) const BR_STP_STATE: u16 = 5;
    pub(super) const BR_AGEING_TIME: u16 = 4;
    pub(super) const BR_GROUP_FWD_MASK: u16 = 9;
    pub(super) const BR_MCAST_SNOOPING: u16 = 23;
    pub(super) const VXLAN_ID: u16 = 1;
    pub(super) const VXLAN_LOCAL: u16 = 4;
    pub(super) const VXLAN_PORT: u16 = 15;
    pub(super) const VXLAN_LOCAL6: u16 = 17;
    pub(super) const VLAN_ID: u16 = 1;
    pub(super) const TUN_TYPE: u16 = 3;
    pub(super) const TUN_TYPE_TAP: u8 = 2;
    /// Place of `disable_ipv6` in `INET6_CONF`, an array of 32-bit numbers (`linux/ipv6.h`).
    pub(super) const DEVCONF_DISABLE_IPV6: usize = 26;
}

/// A link as told, before the names of others are known.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Without [`Link::master`], [`Link::addressed`] and a VLAN's parent.
    pub(crate) link: Link,
    pub(crate) master: Option<u32>,
    /// What it sends is limited.
    pub(crate) limited: bool,
    /// The link a VLAN is on, if it is in this namespace.
    pub(crate) parent: Option<u32>,
}

/// An address of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
}

/// An entry of a forwarding table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forwarding {
    pub(crate) index: u32,
    pub(crate) mac: [u8; 6],
    /// The host behind a tunnel.
    pub(crate) peer: Option<IpAddr>,
}

/// Asks for links without their statistics.
pub(crate) fn request(name: Option<&str>) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    if let Some(name) = name {
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    }
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// Reads one message of a list or of news; none for a bridge's own word about its ports.
pub(crate) fn read(part: Part<'_>) -> Option<Told> {
    if !matches!(part.kind, RTM_NEWLINK | RTM_DELLINK) || part.payload.first() != Some(&AF_UNSPEC) {
        return None;
    }
    let mut told = Told {
        index: u32_at(part.payload, 4)?,
        name: String::new(),
        link: Link {
            group: 0,
            kind: LinkKind::Other("physical".to_owned()),
            mtu: 0,
            master: None,
            up: u32_at(part.payload, 8)? & IFF_UP != 0,
            carrier: false,
            alias: None,
            addressed: false,
            ipv6: false,
        },
        master: None,
        limited: false,
        parent: None,
    };
    let (mut elsewhere, mut parent) = (false, None);
    for (kind, value) in attributes(part.payload.get(LINK_HEADER_BYTES..)?) {
        match kind {
            ifla::IFNAME => told.name = text(value),
            ifla::MTU => told.link.mtu = u32_at(value, 0)?,
            ifla::QDISC => told.limited = text(value) == shape::KIND,
            ifla::LINK => parent = u32_at(value, 0),
            ifla::LINK_NETNSID => elsewhere = true,
            ifla::MASTER => told.master = u32_at(value, 0),
            ifla::LINKINFO => told.link.kind = read_kind(value),
            ifla::IFALIAS => told.link.alias = Some(text(value)),
            ifla::AF_SPEC => told.link.ipv6 = speaks_ipv6(value),
            ifla::GROUP => told.link.group = u32_at(value, 0)?,
            ifla::CARRIER => told.link.carrier = value == [1],
            _ => {}
        }
    }
    told.parent = parent.filter(|_| !elsewhere);
    Some(told)
}

fn speaks_ipv6(families: &[u8]) -> bool {
    let Some((_, six)) = attributes(families).find(|(family, _)| *family == AF_INET6) else { return false };
    let conf = attributes(six).find(|(kind, _)| *kind == ifla::INET6_CONF);
    conf.and_then(|(_, conf)| u32_at(conf, 4 * ifla::DEVCONF_DISABLE_IPV6)) == Some(0)
}

fn read_kind(info: &[u8]) -> LinkKind {
    let (mut kind, mut data) = (String::new(), Default::default());
    for (part, value) in attributes(info) {
        match part {
            ifla::INFO_KIND => kind = text(value),
            ifla::INFO_DATA => data = value,
            _ => {}
        }
    }
    match kind.as_str() {
        "bridge" => read_bridge(data),
        "vxlan" => read_vxlan(data),
        "vlan" => {
            let vid = attributes(data).find(|(part, _)| *part == ifla::VLAN_ID);
            LinkKind::Vlan {
                vid: vid.and_then(|(_, vid)| u16_at(vid, 0)).unwrap_or_default(),
                parent: String::new(),
            }
        }
        "tun" if attributes(data).any(|a| a == (ifla::TUN_TYPE, [ifla::TUN_TYPE_TAP].as_slice())) => {
            LinkKind::Tap
        }
        "veth" => LinkKind::Veth,
        "ifb" => LinkKind::Ifb,
        _ => LinkKind::Other(kind),
    }
}

fn read_bridge(data: &[u8]) -> LinkKind {
    let (mut stp, mut snooping, mut passes) = (false, false, (0, 0));
    for (part, value) in attributes(data) {
        match part {
            ifla::BR_STP_STATE => stp = u32_at(value, 0) != Some(0),
            ifla::BR_AGEING_TIME => passes.0 = u32_at(value, 0).unwrap_or_default(),
            ifla::BR_GROUP_FWD_MASK => passes.1 = u16_at(value, 0).unwrap_or_default(),
            ifla::BR_MCAST_SNOOPING => snooping = value != [0],
            _ => {}
        }
    }
    LinkKind::Bridge { stp, snooping, wire: passes == crate::apply::WIRE }
}

fn read_vxlan(data: &[u8]) -> LinkKind {
    let (mut vni, mut local, mut port) = (0, None, 0);
    for (part, value) in attributes(data) {
        match part {
            ifla::VXLAN_ID => vni = u32_at(value, 0).unwrap_or_default(),
            ifla::VXLAN_LOCAL | ifla::VXLAN_LOCAL6 => local = address(value),
            ifla::VXLAN_PORT => port = value.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes)),
            _ => {}
        }
    }
    LinkKind::Vxlan { vni, local, port, flood: BTreeSet::new() }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Reads an address; none for link-local ones, which every link of the host has.
pub(crate) fn read_address(part: Part<'_>) -> Option<Address> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    if part.kind != RTM_NEWADDR {
        return None;
    }
    let index = u32_at(part.payload, 4)?;
    let (mut own, mut given) = (None, None);
    for (kind, value) in attributes(part.payload.get(ADDRESS_HEADER_BYTES..)?) {
        match kind {
            IFA_LOCAL => own = address(value),
            // The other end of a point-to-point link, if there is an own one besides.
            IFA_ADDRESS => given = address(value),
            _ => {}
        }
    }
    let address = own.or(given)?;
    let is_local = matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
    (!is_local).then_some(Address { index, address })
}

/// Reads an entry of a forwarding table.
pub(crate) fn read_forwarding(part: Part<'_>) -> Option<Forwarding> {
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    if part.kind != RTM_NEWNEIGH {
        return None;
    }
    let index = u32_at(part.payload, 4)?;
    let (mut mac, mut peer) = (None, None);
    for (kind, value) in attributes(part.payload.get(NEIGHBOUR_HEADER_BYTES..)?) {
        match kind {
            NDA_DST => peer = address(value),
            NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some(Forwarding { index, mac: mac?, peer })
}
