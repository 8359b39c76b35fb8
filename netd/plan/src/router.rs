//! Routers: netd's own ends of networks, each in a namespace of its own.
//!
//! ```text
//! host:       bridge ── crX          cbs-SITE ── coX
//!                        ║                        ║        (pairs of links)
//! collective-crX:       lan ────── forwards ───── wan      one nftables table, one dnsmasq
//! ```
//!
//! The links on the bridges are ports like any other, with rules of their own; who may open what is decided by the
//! members' ports, and by the router's table where it hides them. The namespace, its rules and its switches come first,
//! then the pairs, then the servers; deletion takes the links, then the servers, then the namespace.

mod firewall;
mod server;

use crate::observed::{Observed, ObservedRules};
use crate::rules::{Element, Set};
use crate::step::Step;
use crate::target::{Host, Target, bridge_of, site_bridge};
use crate::{ROUTER_PREFIX, alias};
use ipnet::IpNet;
use netd_api::{Accept, Direction, Network, Outside, Port, Protocol, Router, RouterStatus};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use types::MacAddress;

/// What a LAN is taken to carry, in bytes, unless its link carries less.
pub(crate) const OUTSIDE_MTU: u32 = 1500;
/// All routers on the link (RFC 4291).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All DHCPv6 servers on the link (RFC 8415).
const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A router to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterTarget {
    /// As desired.
    pub router: Router,
    /// Its bridge.
    pub bridge: String,
    /// In bytes.
    pub mtu: u32,
    /// For people.
    pub alias: String,
    /// Bridge and physical link of the LAN, if it leads outside.
    pub lan: Option<(String, String)>,
}

/// A router as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedRouter {
    /// Whose namespace it is.
    pub namespace: ObservedNamespace,
    /// Its loopback is up and its kernel's switches are as netd sets them.
    pub settled: bool,
    /// The rules in force, if they are as netd wrote them.
    pub rules: Option<String>,
    /// Its end on the network.
    pub lan: Option<ObservedEnd>,
    /// Its end on the site's LAN.
    pub wan: Option<ObservedEnd>,
    /// Of its default routes.
    pub gateways: BTreeSet<IpAddr>,
    /// The configuration of the servers that run in it.
    pub server: Option<String>,
    /// Leases given out now.
    pub leases: u32,
}

/// A namespace under a router's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ObservedNamespace {
    /// There is none; only leftovers of one.
    #[default]
    Absent,
    /// It carries our mark.
    Ours,
    /// It does not.
    Foreign,
}

/// The end of a pair that is in the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedEnd {
    /// Name of its other end on this host, if that is there.
    pub peer: Option<String>,
    /// Its address.
    pub mac: MacAddress,
    /// In bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Without link-local ones.
    pub addresses: BTreeSet<IpNet>,
}

/// Which end of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// On the network.
    Lan,
    /// On the site's LAN.
    Wan,
}

impl End {
    /// Its name inside of the namespace.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
    }
}

/// One change of a router. `router` is the name of its link on the network's bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouterStep {
    /// Makes the namespace, empty, marked from the moment it has its name.
    CreateNamespace {
        /// Whose.
        router: String,
    },
    /// Puts the rules inside in place, atomically.
    ReplaceRules {
        /// Whose.
        router: String,
        /// As `nft` reads them.
        rules: String,
    },
    /// Loopback up and the kernel's switches inside set: it forwards, and believes nobody.
    Settle {
        /// Whose.
        router: String,
    },
    /// Creates a pair of links, down, attached to nothing, one end of it inside.
    Join {
        /// Whose.
        router: String,
        /// Which end.
        end: End,
        /// Name of the end on this host.
        link: String,
        /// Address of the end inside.
        mac: MacAddress,
        /// In bytes, of both.
        mtu: u32,
    },
    /// Changes the addresses inside.
    Address {
        /// Whose.
        router: String,
        /// Which end.
        end: End,
        /// Out first.
        remove: BTreeSet<IpNet>,
        /// Then in.
        add: BTreeSet<IpNet>,
    },
    /// Brings an end up.
    Up {
        /// Whose.
        router: String,
        /// Which.
        end: End,
    },
    /// Changes the default routes.
    Route {
        /// Whose.
        router: String,
        /// Out first.
        remove: BTreeSet<IpAddr>,
        /// Then in.
        add: BTreeSet<IpAddr>,
    },
    /// Starts the servers, in place of those that run.
    Serve {
        /// Whose.
        router: String,
        /// As dnsmasq reads it.
        config: String,
    },
    /// Stops the servers.
    Silence {
        /// Whose.
        router: String,
    },
    /// Stops the servers, removes the namespace and what is kept of it.
    Delete {
        /// Whose.
        router: String,
    },
}

impl fmt::Display for RouterStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(values: &BTreeSet<T>) -> String {
            let words: Vec<String> = values.iter().map(T::to_string).collect();
            if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }
        }
        match self {
            Self::CreateNamespace { router } => write!(f, "create namespace {}", namespace_name(router)),
            Self::ReplaceRules { router, .. } => write!(f, "replace the rules of router {router}"),
            Self::Settle { router } => write!(f, "settle router {router}"),
            Self::Join { router, end, link, mac, mtu } => {
                write!(f, "join router {router} ({}, {mac}) by {link}, mtu {mtu}", end.name())
            }
            Self::Address { router, end, remove, add } => {
                let (remove, add) = (list(remove), list(add));
                write!(f, "address router {router} ({}): remove {remove}, add {add}", end.name())
            }
            Self::Up { router, end } => write!(f, "bring router {router} ({}) up", end.name()),
            Self::Route { router, remove, add } => {
                let (remove, add) = (list(remove), list(add));
                write!(f, "route router {router} by default: remove {remove}, add {add}")
            }
            Self::Serve { router, .. } => write!(f, "serve router {router}'s names and leases"),
            Self::Silence { router } => write!(f, "stop serving router {router}'s names and leases"),
            Self::Delete { router } => write!(f, "delete namespace {}", namespace_name(router)),
        }
    }
}

/// Name of a router's namespace.
#[must_use]
pub fn namespace_name(router: &str) -> String {
    format!("{NAMESPACE_PREFIX}{router}")
}

const NAMESPACE_PREFIX: &str = "collective-";

/// The router whose namespace has this name, if it is a router's.
#[must_use]
pub fn router_of_namespace(name: &str) -> Option<&str> {
    let router = name.strip_prefix(NAMESPACE_PREFIX)?;
    (router.starts_with(ROUTER_PREFIX) && !router.contains(['/', '.'])).then_some(router)
}

impl RouterTarget {
    /// The router of a network, if this host has it.
    pub(crate) fn of(network: &Network, host: &Host) -> Option<Self> {
        let router = network.router.as_ref().filter(|router| !router.elsewhere)?;
        let lan = router.outside.as_ref().and_then(|outside| {
            let link = host.uplinks.get(&outside.site)?;
            Some((site_bridge(&outside.site), link.clone()))
        });
        Some(Self {
            router: router.clone(),
            bridge: bridge_of(network),
            mtu: u32::from(network.mtu),
            alias: alias("router", &network.id),
            lan,
        })
    }

    /// Its own nftables table.
    #[must_use]
    pub fn rules(&self) -> String {
        firewall::render(&self.router)
    }

    /// The configuration of its servers, if it has any.
    #[must_use]
    pub fn server(&self) -> Option<String> {
        server::render(self)
    }

    /// Name of its link on the LAN's bridge.
    pub(crate) fn outside_link(&self) -> Option<&str> {
        self.router.outside.as_ref().filter(|_| self.lan.is_some()).map(|outside| outside.link.as_str())
    }

    /// Its links on this host's bridges.
    pub(crate) fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        let outside = self.outside_link().zip(self.lan.as_ref().map(|(bridge, _)| bridge.as_str()));
        [(self.router.link.as_str(), self.bridge.as_str())].into_iter().chain(outside)
    }

    /// What the pair of this link is to be.
    fn end(&self, link: &str, observed: &Observed) -> Option<WantedEnd<'_>> {
        if link == self.router.link {
            let Router { mac, addresses, .. } = &self.router;
            return Some(WantedEnd { end: End::Lan, mac: *mac, mtu: self.mtu, addresses });
        }
        let Outside { link: own, mac, addresses, .. } = self.router.outside.as_ref()?;
        let (_, physical) = self.lan.as_ref().filter(|_| own == link)?;
        let carries = observed.links.get(physical).map_or(OUTSIDE_MTU, |link| link.mtu);
        Some(WantedEnd { end: End::Wan, mac: *mac, mtu: carries.min(OUTSIDE_MTU), addresses })
    }

    fn gateways(&self) -> BTreeSet<IpAddr> {
        let outside = self.router.outside.as_ref().filter(|_| self.lan.is_some());
        outside.map(|outside| outside.gateways.iter().copied().collect()).unwrap_or_default()
    }
}

struct WantedEnd<'a> {
    end: End,
    mac: MacAddress,
    mtu: u32,
    addresses: &'a [IpNet],
}

impl ObservedRouter {
    fn end(&self, end: End) -> Option<&ObservedEnd> {
        match end {
            End::Lan => self.lan.as_ref(),
            End::Wan => self.wan.as_ref(),
        }
    }
}

/// The bridge that a router's link belongs to.
pub(crate) fn bridge_wanted_for<'a>(target: &'a Target, link: &str) -> Option<&'a str> {
    let wanted = wanted_for(target, link)?;
    wanted.links().find(|(name, _)| *name == link).map(|(_, bridge)| bridge)
}

fn wanted_for<'a>(target: &'a Target, link: &str) -> Option<&'a RouterTarget> {
    target.routers.get(link).or_else(|| target.routers.get(target.outside_links.get(link)?))
}

fn ours<'a>(observed: &'a Observed, router: &str) -> Option<&'a ObservedRouter> {
    observed.routers.get(router).filter(|found| found.namespace == ObservedNamespace::Ours)
}

/// A router's link of this name is as it should be, inside as outside.
pub(crate) fn keeps(target: &Target, observed: &Observed, link: &str, mtu: u32) -> bool {
    wanted_for(target, link).is_some_and(|wanted| keeps_end(wanted, observed, link, mtu))
}

fn keeps_end(wanted: &RouterTarget, observed: &Observed, link: &str, mtu: u32) -> bool {
    wanted.end(link, observed).is_some_and(|end| {
        let found = ours(observed, &wanted.router.link).and_then(|found| found.end(end.end));
        found.is_some_and(|found| {
            found.peer.as_deref() == Some(link)
                && found.mac == end.mac
                && found.mtu == end.mtu
                && mtu == end.mtu
        })
    })
}

/// Routers of others under our names, of the wanted ones.
pub(crate) fn conflicts<'a>(target: &'a Target, observed: &Observed) -> Vec<(&'a RouterTarget, String)> {
    let foreign = target.routers.iter().filter(|(name, _)| {
        observed.routers.get(*name).is_some_and(|found| found.namespace == ObservedNamespace::Foreign)
    });
    let text = |name: &str| {
        let namespace = namespace_name(name);
        format!("namespace {namespace} exists without this netd's mark; remove or rename it")
    };
    foreign.map(|(name, wanted)| (wanted, text(name))).collect()
}

/// Namespaces that nobody wants any more; their links are gone by then.
pub(crate) fn deletions(target: &Target, observed: &Observed) -> Vec<Step> {
    let unwanted = observed.routers.iter().filter(|(name, found)| {
        found.namespace != ObservedNamespace::Foreign && !target.routers.contains_key(*name)
    });
    unwanted.map(|(name, _)| Step::Router(RouterStep::Delete { router: name.clone() })).collect()
}

/// What comes before a router's links: its namespace, rules and switches. `lan_kept`: its link on the network stays.
pub(crate) fn preparations(wanted: &RouterTarget, observed: &Observed, lan_kept: bool) -> Vec<Step> {
    let router = || wanted.router.link.clone();
    let found = ours(observed, &wanted.router.link);
    let mut steps = Vec::new();
    if found.is_none() {
        steps.push(RouterStep::CreateNamespace { router: router() });
    }
    let rules = wanted.rules();
    if found.is_none_or(|found| found.rules.as_ref() != Some(&rules)) {
        steps.push(RouterStep::ReplaceRules { router: router(), rules });
    }
    if found.is_none_or(|found| !found.settled) {
        steps.push(RouterStep::Settle { router: router() });
    }
    // The servers hold on to the link they were started on.
    if !lan_kept && found.is_some_and(|found| found.server.is_some()) {
        steps.push(RouterStep::Silence { router: router() });
    }
    steps.into_iter().map(Step::Router).collect()
}

/// Creates one of the router's links.
pub(crate) fn join(wanted: &RouterTarget, link: &str, observed: &Observed) -> Option<(Step, u32)> {
    let WantedEnd { end, mac, mtu, .. } = wanted.end(link, observed)?;
    let router = wanted.router.link.clone();
    Some((Step::Router(RouterStep::Join { router, end, link: link.to_owned(), mac, mtu }), mtu))
}

/// What comes after a router's links: addresses and routes. `kept`: the links of it that stay.
/// `blocked`: those that cannot be.
pub(crate) fn completions(
    wanted: &RouterTarget,
    observed: &Observed,
    kept: &BTreeSet<&str>,
    blocked: &BTreeSet<String>,
) -> Vec<Step> {
    let router = || wanted.router.link.clone();
    let found = ours(observed, &wanted.router.link);
    let mut steps = Vec::new();
    let mut gateways = found.map(|found| found.gateways.clone()).unwrap_or_default();
    for (link, _) in wanted.links().filter(|(link, _)| !blocked.contains(*link)) {
        let Some(WantedEnd { end, addresses, .. }) = wanted.end(link, observed) else { continue };
        let there = found.and_then(|found| found.end(end)).filter(|_| kept.contains(link));
        let has = there.map(|there| there.addresses.clone()).unwrap_or_default();
        let wants: BTreeSet<IpNet> = addresses.iter().copied().collect();
        if there.is_none_or(|there| !there.up) {
            steps.push(RouterStep::Up { router: router(), end });
        }
        if has != wants {
            let (remove, add) = (&has - &wants, &wants - &has);
            steps.push(RouterStep::Address { router: router(), end, remove, add });
        }
        // A route goes with the link, and may go with the address, that it leads over.
        if end == End::Wan && there.is_none_or(|there| !there.up || has != wants) {
            gateways.retain(|gateway| there.is_some() && !wanted.gateways().contains(gateway));
        }
    }
    let leads_out = wanted.outside_link().is_some_and(|link| !blocked.contains(link));
    let wants = if leads_out { wanted.gateways() } else { BTreeSet::new() };
    if gateways != wants {
        let (remove, add) = (&gateways - &wants, &wants - &gateways);
        steps.push(RouterStep::Route { router: router(), remove, add });
    }
    steps.into_iter().map(Step::Router).collect()
}

/// Starts and stops servers, once everything else is there. `lan_kept` as in [`preparations`].
pub(crate) fn services(wanted: &RouterTarget, observed: &Observed, lan_kept: bool) -> Option<Step> {
    let router = wanted.router.link.clone();
    let running = ours(observed, &router).filter(|_| lan_kept).and_then(|found| found.server.clone());
    let step = match wanted.server() {
        Some(config) if running.as_ref() != Some(&config) => RouterStep::Serve { router, config },
        None if running.is_some() => RouterStep::Silence { router },
        _ => return None,
    };
    Some(Step::Router(step))
}

/// As the kernel shows it.
pub(crate) fn status(wanted: &RouterTarget, observed: &Observed) -> RouterStatus {
    let name = wanted.router.link.as_str();
    let found = ours(observed, name);
    let links: BTreeSet<&str> = wanted.links().map(|(link, _)| link).collect();
    let ruled = |link: &str| match &observed.rules {
        ObservedRules::Intact(rules) => {
            rules.elements.contains(&(Set::Ports, Element::Link(link.to_owned())))
        }
        ObservedRules::Absent | ObservedRules::Altered => false,
    };
    let joined = |link: &str, bridge: &str| {
        observed.links.get(link).is_some_and(|found| {
            let attached = found.up && found.master.as_deref() == Some(bridge);
            found.is_ours(link) && attached && keeps_end(wanted, observed, link, found.mtu) && ruled(link)
        })
    };
    let ready = wanted.links().all(|(link, bridge)| joined(link, bridge))
        && wanted.router.outside.is_some() == wanted.lan.is_some()
        && preparations(wanted, observed, true).is_empty()
        && completions(wanted, observed, &links, &BTreeSet::new()).is_empty()
        && services(wanted, observed, true).is_none();
    RouterStatus { namespace: namespace_name(name), ready, leases: found.map_or(0, |found| found.leases) }
}

/// The link-local address that a MAC address makes (RFC 4291, appendix A).
pub(crate) fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let host = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(host))
}

/// It configures guests over IPv6, or is asked by them.
pub(crate) fn speaks_ipv6(router: &Router) -> bool {
    router.addresses.iter().any(|net| matches!(net, IpNet::V6(_)))
}

/// What the network's ports accept on top of what the document says, so that their guests can be configured.
pub(crate) fn configuring(router: &Router) -> Vec<Accept> {
    let from_guest = |remote: IpAddr, protocol: Protocol| Accept {
        direction: Direction::FromGuest,
        remote: Some(remote.into()),
        protocol,
    };
    let udp = |listen_port| Protocol::Udp { listen_port };
    let own = router.addresses.iter().map(IpNet::addr);
    let near = IpAddr::V6(link_local(router.mac));
    let mut accept = Vec::new();
    if router.dhcp.is_some() {
        let everybody = IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
        accept
            .extend(own.clone().filter(IpAddr::is_ipv4).chain([everybody]).map(|to| from_guest(to, udp(67))));
        if speaks_ipv6(router) {
            let servers = own.clone().filter(IpAddr::is_ipv6).chain([near, ALL_DHCP_SERVERS.into()]);
            accept.extend(servers.map(|to| from_guest(to, udp(547))));
        }
    }
    // An advertisement is the answer to a solicitation, asked for or not.
    if router.advertises {
        accept.extend([near, ALL_ROUTERS.into()].map(|to| from_guest(to, Protocol::Any)));
    }
    if router.dns.is_some() {
        let asked =
            |to| [udp(53), Protocol::Tcp { listen_port: 53 }].map(|protocol| from_guest(to, protocol));
        accept.extend(own.flat_map(asked));
    }
    accept
}

/// A port of the router's network, whose guest is configured by it: its permissions, and for IPv6 its link-local address.
pub(crate) fn configurable(port: &Port, router: &Router) -> Port {
    let mut port = port.clone();
    port.accept.extend(configuring(router));
    if speaks_ipv6(router) && !port.addresses.is_empty() {
        port.addresses.push(IpAddr::V6(link_local(port.mac)));
    }
    port
}

/// A router's links as the ports they are: what they carry is decided inside and at the members' ports.
pub(crate) fn ports(wanted: &RouterTarget) -> Vec<Port> {
    let everything = [Direction::FromGuest, Direction::ToGuest].map(|direction| Accept {
        direction,
        remote: None,
        protocol: Protocol::Any,
    });
    let port = |link: &str, mac: MacAddress, addresses: &[IpNet], routes| Port {
        addresses: addresses.iter().map(IpNet::addr).chain([IpAddr::V6(link_local(mac))]).collect(),
        routes,
        accept: everything.to_vec(),
        ..Port::closed(String::new(), link.to_owned(), mac)
    };
    let Router { link, mac, addresses, outside, .. } = &wanted.router;
    let mut ports = vec![port(link, *mac, addresses, true)];
    if let (Some(Outside { link, mac, addresses, nat, .. }), Some(_)) = (outside, &wanted.lan) {
        // Who hides its network needs no foreign address.
        ports.push(port(link, *mac, addresses, !nat));
    }
    ports
}
