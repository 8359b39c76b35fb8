//! What the skeleton's chains do with a [`Frame`] at one port. Each function is the chain of its name in
//! `skeleton.nft`, rule by rule in its order; a test in `netd-kernel` compares the two with random questions.

use super::frame::{Frame, Payload};
use crate::rules::{Element, L4, Rules, Set};
use ipnet::IpNet;
use netd_api::Direction;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The elements of one port.
pub(super) struct Door<'a> {
    pub(super) rules: &'a Rules,
    pub(super) tap: &'a str,
}

/// What a port does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ruling {
    /// The counting set that decided.
    pub(super) by: Set,
    pub(super) reason: Reason,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Address resolution of the port's own addresses.
    Resolution,
    /// A permission, used by who may open or by who answers.
    Rule(Permission),
    /// Nothing accepts it.
    NoRule,
    /// The Ethernet source is not the port's.
    ForeignMac,
    /// The IP source is not the port's.
    ForeignAddress,
    /// Answers of DHCP servers come from ports that route only.
    DhcpServer,
    /// IPv6 addresses that guests choose for themselves.
    LinkLocal,
    /// The IP destination is not the port's.
    NotForIt,
}

/// Which permission let a frame pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Permission {
    pub(super) direction: Direction,
    pub(super) service: Permitted,
    pub(super) answers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permitted {
    Any,
    Echo,
    Open(L4, u16),
}

impl Ruling {
    pub(super) fn passes(&self) -> bool {
        matches!(self.by, Set::PassedFrom | Set::PassedTo)
    }
}

/// Which way a frame goes through a port, and the sets of that way: `mine` are those of who sends.
struct Way {
    remote: IpAddr,
    direction: Direction,
    any: [Set; 2],
    open: [Set; 2],
    echo: [Set; 2],
    passed: Set,
    dropped: Set,
}

impl Way {
    fn out(frame: &Frame) -> Self {
        Self {
            remote: frame.destination,
            direction: Direction::FromGuest,
            any: [Set::AnyFrom, Set::AnyTo],
            open: [Set::OpenFrom, Set::OpenTo],
            echo: [Set::EchoFrom, Set::EchoTo],
            passed: Set::PassedFrom,
            dropped: Set::DroppedFrom,
        }
    }

    fn into(frame: &Frame) -> Self {
        Self {
            remote: frame.source,
            direction: Direction::ToGuest,
            any: [Set::AnyTo, Set::AnyFrom],
            open: [Set::OpenTo, Set::OpenFrom],
            echo: [Set::EchoTo, Set::EchoFrom],
            passed: Set::PassedTo,
            dropped: Set::DroppedTo,
        }
    }

    fn pass(&self, service: Permitted, answers: bool) -> Ruling {
        let direction = match (self.direction, answers) {
            (Direction::FromGuest, false) | (Direction::ToGuest, true) => Direction::FromGuest,
            (Direction::ToGuest, false) | (Direction::FromGuest, true) => Direction::ToGuest,
        };
        Ruling { by: self.passed, reason: Reason::Rule(Permission { direction, service, answers }) }
    }

    fn close(&self, reason: Reason) -> Ruling {
        Ruling { by: self.dropped, reason }
    }
}

fn spoof(reason: Reason) -> Ruling {
    Ruling { by: Set::Spoofed, reason }
}

#[expect(clippy::wrong_self_convention, reason = "named as the chains are")]
impl Door<'_> {
    /// `from_guest`.
    pub(super) fn from_guest(&self, frame: &Frame) -> Ruling {
        if !self.has(Set::Macs, Element::Mac(self.tap.to_owned(), frame.from)) {
            return spoof(Reason::ForeignMac);
        }
        match (frame.source, frame.payload) {
            (IpAddr::V4(_), Payload::Ask | Payload::Tell) => self.from_arp(frame),
            (IpAddr::V4(source), _) => self.from_ip4(frame, source),
            (IpAddr::V6(source), _) => self.from_ip6(frame, source),
        }
    }

    fn from_arp(&self, frame: &Frame) -> Ruling {
        let probes = frame.payload == Payload::Ask && frame.source.is_unspecified();
        if self.owns(Set::Own4, frame.from, frame.source) || probes {
            return Ruling { by: Set::PassedFrom, reason: Reason::Resolution };
        }
        spoof(Reason::ForeignAddress)
    }

    fn from_ip4(&self, frame: &Frame, source: Ipv4Addr) -> Ruling {
        let asks_for_lease = source.is_unspecified()
            && frame.destination == IpAddr::V4(Ipv4Addr::BROADCAST)
            && matches!(frame.payload, Payload::Udp { from: 68, to: 67 });
        if self.owns(Set::Own4, frame.from, frame.source) || asks_for_lease || self.is_router() {
            return self.accept_from(frame);
        }
        spoof(Reason::ForeignAddress)
    }

    fn from_ip6(&self, frame: &Frame, source: Ipv6Addr) -> Ruling {
        let own = self.owns(Set::Own6, frame.from, frame.source);
        let may_claim = |address| self.has(Set::Target6, Element::Target(self.tap.to_owned(), address));
        let resolved = Ruling { by: Set::PassedFrom, reason: Reason::Resolution };
        match (frame.payload, frame.destination) {
            // The target of an advertisement is its sender, that of a solicitation whom it is for.
            (Payload::Tell, _) if may_claim(source) && own => return resolved,
            (Payload::Tell, _) => return spoof(Reason::ForeignAddress),
            (Payload::Ask, _) if own => return resolved,
            (Payload::Ask, IpAddr::V6(target)) if source.is_unspecified() && may_claim(target) => {
                return resolved;
            }
            (Payload::Ask, _) => return Way::out(frame).close(Reason::ForeignAddress),
            _ => {}
        }
        if own || self.is_router() {
            return self.accept_from(frame);
        }
        if source.is_unspecified() || source.is_unicast_link_local() {
            return Way::out(frame).close(Reason::LinkLocal);
        }
        spoof(Reason::ForeignAddress)
    }

    /// `to_guest`, for frames to the port's own MAC address or to a group.
    pub(super) fn to_guest(&self, frame: &Frame) -> Ruling {
        if matches!(frame.payload, Payload::Ask | Payload::Tell) {
            return Ruling { by: Set::PassedTo, reason: Reason::Resolution };
        }
        let (set, group) = match frame.destination {
            IpAddr::V4(v4) => (Set::Own4, v4.is_broadcast()),
            IpAddr::V6(v6) => (Set::Own6, v6.is_multicast()),
        };
        if self.owns(set, frame.to, frame.destination) || group || self.is_router() {
            return self.accept(frame, &Way::into(frame));
        }
        Way::into(frame).close(Reason::NotForIt)
    }

    fn accept_from(&self, frame: &Frame) -> Ruling {
        let server = if frame.source.is_ipv4() { 67 } else { 547 };
        let serves = matches!(frame.payload, Payload::Udp { from, .. } if from == server);
        if serves && !self.is_router() {
            return Way::out(frame).close(Reason::DhcpServer);
        }
        self.accept(frame, &Way::out(frame))
    }

    /// `accept4_from`, `accept6_from`, `accept4_to`, `accept6_to`: the same rules with the sets of their way.
    fn accept(&self, frame: &Frame, way: &Way) -> Ruling {
        let [any_mine, any_theirs] = way.any;
        let [open_mine, open_theirs] = way.open;
        let [echo_mine, echo_theirs] = way.echo;
        if self.covers(any_mine, way.remote) {
            return way.pass(Permitted::Any, false);
        }
        match frame.payload {
            Payload::Tcp { from, to, answers } => {
                if self.opens(open_mine, way.remote, L4::Tcp, to) {
                    return way.pass(Permitted::Open(L4::Tcp, to), false);
                }
                if answers && self.opens(open_theirs, way.remote, L4::Tcp, from) {
                    return way.pass(Permitted::Open(L4::Tcp, from), true);
                }
            }
            Payload::Udp { from, to } => {
                if self.opens(open_mine, way.remote, L4::Udp, to) {
                    return way.pass(Permitted::Open(L4::Udp, to), false);
                }
                if self.opens(open_theirs, way.remote, L4::Udp, from) {
                    return way.pass(Permitted::Open(L4::Udp, from), true);
                }
            }
            Payload::Ping if self.covers(echo_mine, way.remote) => return way.pass(Permitted::Echo, false),
            Payload::Pong if self.covers(echo_theirs, way.remote) => return way.pass(Permitted::Echo, true),
            Payload::Ping | Payload::Pong | Payload::Ask | Payload::Tell => {}
        }
        if self.covers(any_theirs, way.remote) && may_be_reply(frame.payload) {
            return way.pass(Permitted::Any, true);
        }
        way.close(Reason::NoRule)
    }

    fn is_router(&self) -> bool {
        self.has(Set::Routers, Element::Link(self.tap.to_owned()))
    }

    fn owns(&self, set: Set, mac: types::MacAddress, address: IpAddr) -> bool {
        self.has(set, Element::MacIp(self.tap.to_owned(), mac, address))
    }

    fn has(&self, set: Set, element: Element) -> bool {
        self.rules.elements.contains(&(set, element))
    }

    fn covers(&self, set: Set, remote: IpAddr) -> bool {
        self.rules.elements.iter().any(|(s, element)| {
            *s == set
                && matches!(element, Element::Remote(tap, net) if tap == self.tap && contains(net, remote))
        })
    }

    fn opens(&self, set: Set, remote: IpAddr, l4: L4, number: u16) -> bool {
        self.rules.elements.iter().any(|(s, element)| {
            *s == set
                && matches!(element, Element::Service(tap, net, found, port)
                    if tap == self.tap && *found == l4 && *port == number && contains(net, remote))
        })
    }
}

fn contains(net: &IpNet, address: IpAddr) -> bool {
    net.contains(&address)
}

/// `reply_from` and `reply_to`.
fn may_be_reply(payload: Payload) -> bool {
    match payload {
        Payload::Tcp { answers, .. } => answers,
        Payload::Ping => false,
        Payload::Pong | Payload::Ask | Payload::Tell | Payload::Udp { .. } => true,
    }
}
