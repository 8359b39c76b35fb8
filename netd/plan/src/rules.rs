//! The port rules as data: elements of named sets. The chains that look them up never change.

use crate::ladder::{self, Ladder};
use crate::router::{self, RouterTarget};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netd_api::{Accept, Counter, Direction, Network, Port, Protocol, Uplink};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use types::MacAddress;

/// A named set of our table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// Taps whose guests are known.
    Ports,
    /// Tunnels and site links.
    Uplinks,
    /// Links at the ends of wires.
    WireEnds,
    /// The two ends of each wire, in both orders.
    Wires,
    /// Ports that may carry addresses not their own.
    Routers,
    /// Tap and its MAC address.
    Macs,
    /// Tap, MAC and IPv4 address.
    Own4,
    /// Tap, MAC and IPv6 address.
    Own6,
    /// Tap and IPv6 address it may advertise.
    Target6,
    /// Anything with these remotes, opened by the guest.
    AnyFrom,
    /// Anything with these remotes, opened by the other end.
    AnyTo,
    /// Echo requests by the guest.
    EchoFrom,
    /// Echo requests to the guest.
    EchoTo,
    /// TCP and UDP opened by the guest.
    OpenFrom,
    /// TCP and UDP opened by the other end.
    OpenTo,
    /// Counts and accepts.
    PassedFrom,
    /// Counts and accepts.
    PassedTo,
    /// Counts and drops.
    Spoofed,
    /// Counts and drops.
    DroppedFrom,
    /// Counts and drops.
    DroppedTo,
}

impl Set {
    /// The five sets whose elements count.
    pub const COUNTING: [Self; 5] =
        [Self::PassedFrom, Self::PassedTo, Self::Spoofed, Self::DroppedFrom, Self::DroppedTo];
}

/// IP protocols with ports that rules can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum L4 {
    /// 6.
    Tcp,
    /// 17.
    Udp,
}

/// One element of a set. The first field is the link's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// A link.
    Link(String),
    /// A link that frames come from, and the one they may go to.
    Pair(String, String),
    /// A link and a MAC address.
    Mac(String, MacAddress),
    /// A link, a MAC address and an IP address.
    MacIp(String, MacAddress, IpAddr),
    /// A link and an IPv6 address.
    Target(String, Ipv6Addr),
    /// A link and remotes: everybody, one address, or a prefix that is a rung of a [`Ladder`].
    Remote(String, IpNet),
    /// A link, such remotes, protocol and port number.
    Service(String, IpNet, L4, u16),
    /// A link and, if the set names services, protocol and port number: some of its remotes are on that ladder.
    Gate(String, Ladder, Option<(L4, u16)>),
}

impl Element {
    /// Name of the link it is about; of a pair the first.
    #[must_use]
    pub fn link(&self) -> &str {
        match self {
            Self::Link(link)
            | Self::Pair(link, _)
            | Self::Mac(link, _)
            | Self::MacIp(link, ..)
            | Self::Target(link, _)
            | Self::Remote(link, _)
            | Self::Service(link, ..)
            | Self::Gate(link, ..) => link,
        }
    }
}

/// All elements of all sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Sorted, so that rendering is stable.
    pub elements: BTreeSet<(Set, Element)>,
}

/// The counters of one port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sent by the guest and passed.
    pub passed_from: Counter,
    /// Passed to the guest.
    pub passed_to: Counter,
    /// Sent by the guest under a wrong address.
    pub spoofed: Counter,
    /// Sent by the guest, not accepted.
    pub dropped_from: Counter,
    /// Sent to the guest, not accepted.
    pub dropped_to: Counter,
}

impl Counters {
    /// The counter that a counting set keeps.
    #[must_use]
    pub fn of(&self, set: Set) -> Counter {
        match set {
            Set::PassedFrom => self.passed_from,
            Set::PassedTo => self.passed_to,
            Set::Spoofed => self.spoofed,
            Set::DroppedFrom => self.dropped_from,
            Set::DroppedTo => self.dropped_to,
            _ => Counter::default(),
        }
    }

    /// Takes a value read from a counting set; others are ignored.
    pub fn set(&mut self, set: Set, value: Counter) {
        match set {
            Set::PassedFrom => self.passed_from = value,
            Set::PassedTo => self.passed_to = value,
            Set::Spoofed => self.spoofed = value,
            Set::DroppedFrom => self.dropped_from = value,
            Set::DroppedTo => self.dropped_to = value,
            _ => {}
        }
    }
}

impl Rules {
    /// Rules of one network; `uplink` is the link that carries it off this host.
    pub(crate) fn add_network(&mut self, network: &Network, uplink: Option<&str>) {
        if network.wire {
            self.add_wire(network, uplink);
            return;
        }
        if let Some(link) = uplink {
            self.elements.insert((Set::Uplinks, Element::Link(link.to_owned())));
        }
        // On a site's LAN nobody routes through us: what is not addressed to the guest itself is refused.
        let may_route = !matches!(network.uplink, Uplink::Site { .. });
        for port in network.ports.iter().filter(|port| !port.held) {
            match &network.router {
                Some(router) => self.add_port(&router::configurable(port, router), may_route),
                None => self.add_port(port, may_route),
            }
        }
    }

    /// A router's links: the first on its network, the second on a site's LAN, where it routes if it does not hide.
    pub(crate) fn add_router(&mut self, network: &Network, wanted: &RouterTarget) {
        let on_site = matches!(network.uplink, Uplink::Site { .. });
        for port in router::ports(wanted) {
            self.add_port(&port, !on_site || port.tap != wanted.router.link);
        }
        if let Some((_, link)) = &wanted.lan {
            self.elements.insert((Set::Uplinks, Element::Link(link.clone())));
        }
    }

    /// Names both ends, so that an end passes nothing but to its other end, whatever bridge it is on.
    fn add_wire(&mut self, network: &Network, uplink: Option<&str>) {
        let taps = network.ports.iter().filter(|port| !port.held).map(|port| port.tap.as_str());
        let ends: Vec<&str> = taps.clone().chain(uplink).collect();
        for end in &ends {
            self.elements.insert((Set::WireEnds, Element::Link((*end).to_owned())));
            for other in ends.iter().filter(|other| *other != end) {
                self.elements.insert((Set::Wires, Element::Pair((*end).to_owned(), (*other).to_owned())));
            }
        }
        for tap in taps {
            for set in Set::COUNTING {
                self.elements.insert((set, Element::Link(tap.to_owned())));
            }
        }
    }

    fn add_port(&mut self, port: &Port, may_route: bool) {
        let tap = || port.tap.clone();
        let mut add = |set, element| {
            self.elements.insert((set, element));
        };
        add(Set::Ports, Element::Link(tap()));
        for set in Set::COUNTING {
            add(set, Element::Link(tap()));
        }
        if port.routes && may_route {
            add(Set::Routers, Element::Link(tap()));
        }
        add(Set::Macs, Element::Mac(tap(), port.mac));
        for address in &port.addresses {
            match address {
                IpAddr::V4(_) => add(Set::Own4, Element::MacIp(tap(), port.mac, *address)),
                IpAddr::V6(v6) => {
                    add(Set::Own6, Element::MacIp(tap(), port.mac, *address));
                    add(Set::Target6, Element::Target(tap(), *v6));
                }
            }
        }
        for ((set, service), remotes) in remotes_by_rule(&port.accept) {
            // Nested remotes of one rule say nothing new, and a frame is counted once.
            let rungs: Vec<IpNet> =
                IpNet::aggregate(&remotes).into_iter().flat_map(ladder::on_rungs).collect();
            for ladder in ladder::gates(&rungs) {
                add(set, Element::Gate(tap(), ladder, service));
            }
            for net in rungs {
                let element = match service {
                    Some((l4, number)) => Element::Service(tap(), net, l4, number),
                    None => Element::Remote(tap(), net),
                };
                add(set, element);
            }
        }
    }
}

type RuleKey = (Set, Option<(L4, u16)>);

/// What the elements that let a permission's frames through have counted. Several permissions may share an element: the
/// kernel holds nested and neighbouring remotes of one service as one, and a permission's remotes as several rungs.
pub(crate) fn use_of(accept: &Accept, tap: &str, used: &BTreeMap<(Set, Element), Counter>) -> Counter {
    let mut sum = Counter::default();
    for ((set, service), remotes) in remotes_by_rule(std::slice::from_ref(accept)) {
        let everybody = IpNet::from(Ipv4Net::default());
        let first = match service {
            Some(_) => Element::Service(tap.to_owned(), everybody, L4::Tcp, 0),
            None => Element::Remote(tap.to_owned(), everybody),
        };
        let of_port =
            used.range((set, first)..).take_while(|((s, element), _)| *s == set && element.link() == tap);
        for ((_, element), counter) in of_port {
            let shared = |net: &IpNet| remotes.iter().any(|r| net.contains(r) || r.contains(net));
            let counted = match element {
                Element::Remote(_, net) => service.is_none() && shared(net),
                Element::Service(_, net, l4, number) => service == Some((*l4, *number)) && shared(net),
                _ => false,
            };
            if counted {
                sum.frames = sum.frames.saturating_add(counter.frames);
                sum.bytes = sum.bytes.saturating_add(counter.bytes);
            }
        }
    }
    sum
}

fn remotes_by_rule(accept: &[Accept]) -> BTreeMap<RuleKey, Vec<IpNet>> {
    let mut rules: BTreeMap<RuleKey, Vec<IpNet>> = BTreeMap::new();
    for rule in accept {
        let from = rule.direction == Direction::FromGuest;
        let pick = |of_guest, of_other| if from { of_guest } else { of_other };
        let key = match rule.protocol {
            Protocol::Any => (pick(Set::AnyFrom, Set::AnyTo), None),
            Protocol::Icmp => (pick(Set::EchoFrom, Set::EchoTo), None),
            Protocol::Tcp { listen_port } => (pick(Set::OpenFrom, Set::OpenTo), Some((L4::Tcp, listen_port))),
            Protocol::Udp { listen_port } => (pick(Set::OpenFrom, Set::OpenTo), Some((L4::Udp, listen_port))),
        };
        let remotes = rules.entry(key).or_default();
        match rule.remote {
            Some(net) => remotes.push(net.trunc()),
            None => remotes.extend([IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())]),
        }
    }
    rules
}
