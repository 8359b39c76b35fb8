//! Links, addresses, routes and switches inside a router's namespace. Everything here runs on a thread that is in it.

use super::RouterError;
use super::namespace::Entered;
use crate::link;
use crate::route::{Part, Route, attributes, u32_at};
use crate::{Kernel, RouteError};
use ipnet::IpNet;
use netd_plan::{End, GROUP, ObservedEnd};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::{fs, io};
use types::MacAddress;

/// Switches of each link, those to come and all: (folder, name, value).
const SWITCHES: [(&str, &str, &str); 14] = [
    ("ipv4", "rp_filter", "1"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv4", "accept_source_route", "0"),
    // An address is one of one link: nobody outside learns that there is an inside.
    ("ipv4", "arp_ignore", "1"),
    ("ipv4", "arp_announce", "2"),
    ("ipv4", "promote_secondaries", "1"),
    ("ipv6", "disable_ipv6", "0"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "autoconf", "0"),
    ("ipv6", "accept_redirects", "0"),
    ("ipv6", "accept_source_route", "0"),
    // Its addresses are known to be its own by the rules of the bridge's ports.
    ("ipv6", "accept_dad", "0"),
    ("ipv6", "addr_gen_mode", "0"),
];

/// Switches of the namespace. The first resets some of those above.
const FORWARDING: [(&str, &str); 3] =
    [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/default/forwarding", "1")];

/// Of a kernel that has them.
const BRIDGE_NETFILTER: [(&str, &str); 3] = [
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
];

/// What is inside.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) loopback_up: bool,
    pub(super) lan: Option<ObservedEnd>,
    pub(super) wan: Option<ObservedEnd>,
    pub(super) gateways: BTreeSet<IpAddr>,
}

fn switches() -> impl Iterator<Item = (String, &'static str)> {
    let all = |(path, value): (&str, _)| (format!("/proc/sys/net/{path}"), value);
    let each = SWITCHES.into_iter().flat_map(|(folder, name, value)| {
        ["all", "default"].map(|which| (format!("/proc/sys/net/{folder}/conf/{which}/{name}"), value))
    });
    FORWARDING.into_iter().map(all).chain(each).chain(BRIDGE_NETFILTER.into_iter().map(all))
}

/// A switch the kernel does not have is as wanted.
pub(super) fn is_settled() -> bool {
    switches().all(|(path, value)| match fs::read_to_string(path) {
        Ok(text) => text.trim() == value,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    })
}

pub(super) fn settle() -> Result<(), RouterError> {
    for (path, value) in switches() {
        match fs::write(&path, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(|source| RouterError::File { path: path.into(), source })?,
        }
    }
    up("lo")
}

fn failed(what: &'static str) -> impl FnOnce(RouteError) -> RouterError {
    move |source| RouterError::Inside { what, source }
}

fn open() -> Result<Route, RouterError> {
    Route::open().map_err(RouteError::Socket).map_err(failed("open a netlink socket"))
}

fn index_of(route: &mut Route, name: &'static str) -> Result<u32, RouterError> {
    let mut found = None;
    match route.ask(&link::request(Some(name)), |part| found = link::read(part)) {
        Err(error) if error.code() != Some(libc::ENODEV) => Err(failed("find a link")(error)),
        _ => found.map(|told| told.index).ok_or(RouterError::NoLink(name)),
    }
}

pub(super) fn up(name: &'static str) -> Result<(), RouterError> {
    let mut route = open()?;
    let message = LinkUnspec::new_with_index(index_of(&mut route, name)?).up().build();
    route.change(&RouteNetlinkMessage::SetLink(message), 0).map_err(failed("bring a link up"))
}

pub(super) fn address(
    name: &'static str,
    remove: &BTreeSet<IpNet>,
    add: &BTreeSet<IpNet>,
) -> Result<(), RouterError> {
    let mut route = open()?;
    let index = index_of(&mut route, name)?;
    for net in remove {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, *net));
        match route.change(&message, 0) {
            Err(error) if error.code() != Some(libc::EADDRNOTAVAIL) => {
                return Err(failed("remove an address")(error));
            }
            _ => {}
        }
    }
    for net in add {
        let message = RouteNetlinkMessage::NewAddress(address_message(index, *net));
        route.change(&message, NLM_F_CREATE | NLM_F_REPLACE).map_err(failed("add an address"))?;
    }
    Ok(())
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    match net {
        IpNet::V4(v4) => {
            let builder = AddressMessageBuilder::<Ipv4Addr>::new();
            builder.index(index).address(v4.addr(), v4.prefix_len()).build()
        }
        IpNet::V6(v6) => {
            let builder = AddressMessageBuilder::<Ipv6Addr>::new();
            builder.index(index).address(v6.addr(), v6.prefix_len()).build()
        }
    }
}

pub(super) fn route(remove: &BTreeSet<IpAddr>, add: &BTreeSet<IpAddr>) -> Result<(), RouterError> {
    let mut route = open()?;
    for gateway in remove {
        let message = RouteNetlinkMessage::DelRoute(default_route(None, *gateway));
        match route.change(&message, 0) {
            // It went with its link or address.
            Err(error) if error.code() != Some(libc::ESRCH) => return Err(failed("remove a route")(error)),
            _ => {}
        }
    }
    for gateway in add {
        let index = index_of(&mut route, End::Wan.name())?;
        let message = RouteNetlinkMessage::NewRoute(default_route(Some(index), *gateway));
        route.change(&message, NLM_F_CREATE | NLM_F_REPLACE).map_err(failed("add a route"))?;
    }
    Ok(())
}

fn default_route(index: Option<u32>, gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(v4) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).protocol(RouteProtocol::Static);
            index.into_iter().fold(builder, RouteMessageBuilder::output_interface).build()
        }
        IpAddr::V6(v6) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).protocol(RouteProtocol::Static);
            index.into_iter().fold(builder, RouteMessageBuilder::output_interface).build()
        }
    }
}

/// `links`: names of the links of the host, by index.
pub(super) fn look(links: &HashMap<u32, String>) -> Result<Seen, RouterError> {
    let mut route = open()?;
    let ends: Vec<(u32, String, ObservedEnd)> = route
        .dump(&link::request(None), |list: &mut Vec<_>, part| list.extend(read_end(part, links)))
        .map_err(failed("list links"))?;
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let addresses: Vec<(u32, IpNet)> = route
        .dump(&request, |list: &mut Vec<_>, part| list.extend(read_address(part)))
        .map_err(failed("list addresses"))?;
    let mut seen = Seen::default();
    for (index, name, mut end) in ends {
        end.addresses = addresses.iter().filter(|(of, _)| *of == index).map(|(_, net)| *net).collect();
        match name.as_str() {
            "lo" => seen.loopback_up = end.up,
            "lan" => seen.lan = Some(end),
            "wan" => seen.wan = Some(end),
            _ => {}
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let found: Vec<IpAddr> = route
            .dump(&RouteNetlinkMessage::GetRoute(message), |list: &mut Vec<_>, part| {
                list.extend(read_gateway(part));
            })
            .map_err(failed("list routes"))?;
        seen.gateways.extend(found);
    }
    Ok(seen)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn read_end(part: Part<'_>, links: &HashMap<u32, String>) -> Option<(u32, String, ObservedEnd)> {
    const LINK_HEADER_BYTES: usize = 16;
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_LINK: u16 = 5;
    let told = link::read(part)?;
    let (mut mac, mut peer) = ([0; 6], None);
    for (kind, value) in attributes(part.payload.get(LINK_HEADER_BYTES..)?) {
        match kind {
            IFLA_ADDRESS => mac = value.try_into().unwrap_or_default(),
            IFLA_LINK => peer = u32_at(value, 0),
            _ => {}
        }
    }
    let end = ObservedEnd {
        peer: peer.filter(|_| told.link.group == GROUP).and_then(|index| links.get(&index).cloned()),
        mac: MacAddress(mac),
        mtu: told.link.mtu,
        up: told.link.up,
        addresses: BTreeSet::new(),
    };
    Some((told.index, told.name, end))
}

/// None for link-local ones, which the kernel makes.
fn read_address(part: Part<'_>) -> Option<(u32, IpNet)> {
    const ADDRESS_HEADER_BYTES: usize = 8;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let (prefix_len, index) = (*part.payload.get(1)?, u32_at(part.payload, 4)?);
    let mut found = None;
    for (kind, value) in attributes(part.payload.get(ADDRESS_HEADER_BYTES..)?) {
        match kind {
            IFA_LOCAL => found = ip(value),
            IFA_ADDRESS => found = found.or(ip(value)),
            _ => {}
        }
    }
    let address = found.filter(|a| !matches!(a, IpAddr::V6(six) if six.is_unicast_link_local()))?;
    Some((index, IpNet::new(address, prefix_len).ok()?))
}

/// The gateway of a default route.
fn read_gateway(part: Part<'_>) -> Option<IpAddr> {
    const RTM_NEWROUTE: u16 = 24;
    const ROUTE_HEADER_BYTES: usize = 12;
    const RT_TABLE_MAIN: u8 = 254;
    const RTA_GATEWAY: u16 = 5;
    let (prefix_len, table) = (*part.payload.get(1)?, *part.payload.get(4)?);
    if part.kind != RTM_NEWROUTE || prefix_len != 0 || table != RT_TABLE_MAIN {
        return None;
    }
    let mut parts = attributes(part.payload.get(ROUTE_HEADER_BYTES..)?);
    parts.find(|(kind, _)| *kind == RTA_GATEWAY).and_then(|(_, value)| ip(value))
}

impl Kernel {
    /// Makes a pair of links, marked, one end of it in the namespace.
    pub(super) fn make_pair(
        &self,
        link: &str,
        inside: &str,
        mac: MacAddress,
        mtu: u32,
        namespace: &Entered,
    ) -> Result<(), RouterError> {
        let peer = LinkUnspec::new_with_name(inside)
            .address(mac.0.to_vec())
            .mtu(mtu)
            .setns_by_fd(namespace.as_fd().as_raw_fd())
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(link)
            .mtu(mtu)
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let mut host = self.host();
        host.route
            .change(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(failed("join it with the host"))?;
        host.made(link);
        Ok(())
    }
}
