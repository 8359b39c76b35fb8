//! Why a connection would pass or not: what each place on the way does with its first frame and with the reply.
//!
//! Nothing is asked but the document and the counters. [`Experiment`] is the same question put so that `netd-kernel`
//! can ask the kernel: the two ports, cut out of the host, and the frames to send.
//!
//! What is not known here is said: gateways between networks, and whatever lies beyond an uplink.

mod door;
mod frame;
mod points;
#[cfg(test)]
mod tests;

pub use frame::{Frame, Payload};
pub use points::{CapturePoint, capture_points};

use crate::rules::{L4, Rules, Set};
use crate::target::{BridgeTarget, SiteTarget, TapTarget, Target, bridge_of};
use door::{Door, Permission, Permitted, Reason, Ruling};
use netd_api::{
    Accept, Counter, Desired, Direction, End, Explanation, Network, NetworkStatus, Port, PortStatus,
    Protocol, Question, Service, Stage, Uplink, Verdict,
};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use types::{MacAddress, SiteName};

/// Source ports of those who open connections (RFC 6335).
const DYNAMIC_PORT_MIN: u16 = 49_152;
/// Of whoever is outside; locally administered.
const OUTSIDE_MAC: MacAddress = MacAddress([0x06, 0xc0, 0xff, 0xff, 0xff, 0xfe]);

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// A port that this host does not have.
    #[error("port {0} is not on this host; collective-netd status lists those that are")]
    UnknownPort(String),
    /// Neither end is a port.
    #[error("neither end is a port of this host; name at least one by its id")]
    NoPort,
    /// Two addresses that cannot talk.
    #[error("{from} and {to} are of different versions of IP; name two of the same")]
    Versions {
        /// Of who opens.
        from: IpAddr,
        /// Of the other end.
        to: IpAddr,
    },
    /// A port number of zero.
    #[error("listen_port 0 cannot be opened; use 1 to 65535")]
    ListenPort,
}

/// An answer, and how to check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The answer, not proven.
    pub explanation: Explanation,
    /// Absent if there is nothing to send: an end has no address of the other's version, or no link.
    pub experiment: Option<Experiment>,
}

/// A question for the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// The two ends and their rules, and nothing else of the host. Uplinks are links that the prober makes, given to
    /// their bridges as a site's link is.
    pub target: Target,
    /// Links of the ends that are uplinks, to be made first.
    pub uplinks: BTreeSet<String>,
    /// Link on which the first frame goes in, and the reply comes out.
    pub from: String,
    /// Link on which the first frame comes out, and the reply goes in.
    pub to: String,
    /// What the one sends.
    pub first: Frame,
    /// What the other answers.
    pub reply: Frame,
}

/// One end, found in the document.
struct Party<'a> {
    network: &'a Network,
    /// None: outside.
    port: Option<&'a Port>,
    /// Tap or uplink; None: outside of a network without an uplink.
    link: Option<String>,
    bridge: String,
    address: IpAddr,
}

impl Party<'_> {
    fn name(&self) -> String {
        self.port.map_or_else(|| format!("{} outside", self.address), |port| port.id.clone())
    }

    fn mac(&self) -> MacAddress {
        self.port.map_or(OUTSIDE_MAC, |port| port.mac)
    }
}

/// Answers a question about a checked document; `networks` gives the counters.
///
/// # Errors
/// [`Unanswerable`].
pub fn explain(
    desired: &Desired,
    target: &Target,
    networks: &[NetworkStatus],
    question: &Question,
) -> Result<Explained, Unanswerable> {
    if let Service::Tcp { listen_port: 0 } | Service::Udp { listen_port: 0 } = question.service {
        return Err(Unanswerable::ListenPort);
    }
    let [from, to] = [find(desired, &question.from)?, find(desired, &question.to)?];
    let Some((network, _)) = from.or(to) else { return Err(Unanswerable::NoPort) };
    let (from_address, to_address) = match addresses(question, from, to)? {
        Ok(addresses) => addresses,
        Err(missing) => return Ok(nothing_to_send(missing)),
    };
    let from = party(target, from, to.map_or(network, |(n, _)| n), from_address);
    let to = party(target, to, from.network, to_address);
    let (first, reply) = frames(question.service, &from, &to);
    let rules = rules_of(target, [&from, &to]);
    let judge = Judge { networks, rules: &rules };
    let mut stages = judge.way(Leg::First, &from, &to, &first);
    if passes(&stages) {
        stages.extend(judge.way(Leg::Reply, &to, &from, &reply));
    }
    let verdict = if passes(&stages) { Verdict::Pass } else { Verdict::Drop };
    let experiment = experiment(target, &from, &to, rules, (first, reply));
    Ok(Explained { explanation: Explanation { verdict, stages, proven: None }, experiment })
}

fn passes(stages: &[Stage]) -> bool {
    stages.iter().all(|stage| stage.verdict == Verdict::Pass)
}

type Found<'a> = Option<(&'a Network, &'a Port)>;

fn find<'a>(desired: &'a Desired, end: &End) -> Result<Found<'a>, Unanswerable> {
    let End::Port { id, .. } = end else { return Ok(None) };
    let mut ports = desired.networks.iter().flat_map(|n| n.ports.iter().map(move |p| (n, p)));
    match ports.find(|(_, port)| port.id == *id) {
        Some(found) => Ok(Some(found)),
        None => Err(Unanswerable::UnknownPort(id.clone())),
    }
}

/// The addresses that are given, or the first of a version that both have; else why there are none.
fn addresses(
    question: &Question,
    from: Found<'_>,
    to: Found<'_>,
) -> Result<Result<(IpAddr, IpAddr), Stage>, Unanswerable> {
    let candidates = |end: &End, found: Found<'_>| match end {
        End::Outside { address } | End::Port { address: Some(address), .. } => vec![*address],
        End::Port { address: None, .. } => found.map(|(_, p)| p.addresses.clone()).unwrap_or_default(),
    };
    let (ours, theirs) = (candidates(&question.from, from), candidates(&question.to, to));
    let pair = ours.iter().find_map(|a| theirs.iter().find(|b| a.is_ipv4() == b.is_ipv4()).map(|b| (*a, *b)));
    if let Some(pair) = pair {
        return Ok(Ok(pair));
    }
    let given = |end: &End| !matches!(end, End::Port { address: None, .. });
    if let (true, true, Some(from), Some(to)) =
        (given(&question.from), given(&question.to), ours.first(), theirs.first())
    {
        return Err(Unanswerable::Versions { from: *from, to: *to });
    }
    let name = |end: &End| match end {
        End::Port { id, .. } => id.clone(),
        End::Outside { address } => address.to_string(),
    };
    let (from, to) = (name(&question.from), name(&question.to));
    let why = format!("{from} and {to} have no addresses of the same version of IP: nothing can be sent");
    let place = format!("first frame, {from} sends");
    Ok(Err(Stage { place, verdict: Verdict::Drop, why, counter: None }))
}

fn nothing_to_send(stage: Stage) -> Explained {
    let explanation = Explanation { verdict: Verdict::Drop, stages: vec![stage], proven: None };
    Explained { explanation, experiment: None }
}

/// An outside end is behind the uplink of the other's network.
fn party<'a>(target: &Target, found: Found<'a>, others: &'a Network, address: IpAddr) -> Party<'a> {
    let (network, port) = found.map_or((others, None), |(network, port)| (network, Some(port)));
    let bridge = bridge_of(network);
    let link = match port {
        Some(port) => Some(port.tap.clone()),
        None => uplink_of(target, network, &bridge),
    };
    Party { network, port, link, bridge, address }
}

fn uplink_of(target: &Target, network: &Network, bridge: &str) -> Option<String> {
    match &network.uplink {
        Uplink::None => None,
        Uplink::Vxlan { link, .. } | Uplink::Vlan { link, .. } => Some(link.clone()),
        Uplink::Site { .. } => {
            target.bridges.get(bridge).and_then(|b| b.site.as_ref()).map(|site| site.link.clone())
        }
    }
}

fn frames(service: Service, from: &Party<'_>, to: &Party<'_>) -> (Frame, Frame) {
    let (ask, answer) = match service {
        Service::Resolve => (Payload::Ask, Payload::Tell),
        Service::Echo => (Payload::Ping, Payload::Pong),
        Service::Tcp { listen_port } => {
            let source = dynamic_port(from, to);
            let ask = Payload::Tcp { from: source, to: listen_port, answers: false };
            (ask, Payload::Tcp { from: listen_port, to: source, answers: true })
        }
        Service::Udp { listen_port } => {
            let source = dynamic_port(from, to);
            let ask = Payload::Udp { from: source, to: listen_port };
            (ask, Payload::Udp { from: listen_port, to: source })
        }
    };
    let frame = |from: &Party<'_>, to: &Party<'_>, payload| Frame {
        from: from.mac(),
        to: to.mac(),
        source: from.address,
        destination: to.address,
        payload,
    };
    (frame(from, to, ask), frame(to, from, answer))
}

/// One that no rule of the ends names: such a rule would take the frame for somebody's answer.
fn dynamic_port(from: &Party<'_>, to: &Party<'_>) -> u16 {
    let ports = from.port.into_iter().chain(to.port);
    let named: BTreeSet<u16> = ports
        .flat_map(|port| &port.accept)
        .filter_map(|rule| match rule.protocol {
            Protocol::Tcp { listen_port } | Protocol::Udp { listen_port } => Some(listen_port),
            Protocol::Any | Protocol::Icmp => None,
        })
        .collect();
    (DYNAMIC_PORT_MIN..=u16::MAX).find(|number| !named.contains(number)).unwrap_or(DYNAMIC_PORT_MIN)
}

fn rules_of(target: &Target, ends: [&Party<'_>; 2]) -> Rules {
    let links: BTreeSet<&str> = ends.iter().filter_map(|end| end.link.as_deref()).collect();
    let elements = target.rules.iter().flat_map(|rules| &rules.elements);
    let elements = elements.filter(|(_, element)| links.contains(element.link()));
    Rules { elements: elements.cloned().collect() }
}

fn experiment(
    target: &Target,
    from: &Party<'_>,
    to: &Party<'_>,
    rules: Rules,
    (first, reply): (Frame, Frame),
) -> Option<Experiment> {
    let (from_link, to_link) = (from.link.clone()?, to.link.clone()?);
    let mut cut = Target { rules: Some(rules), ..Target::default() };
    let mut uplinks = BTreeSet::new();
    for (party, link) in [(from, &from_link), (to, &to_link)] {
        let bridge = target.bridges.get(&party.bridge)?;
        let entry = cut.bridges.entry(party.bridge.clone());
        let entry = entry.or_insert_with(|| BridgeTarget { site: None, ..bridge.clone() });
        match target.taps.get(link) {
            Some(tap) => {
                // Nobody there needs to be told where the guest is.
                cut.taps.insert(link.clone(), TapTarget { announcement: None, ..tap.clone() });
            }
            None => {
                entry.site = Some(SiteTarget { site: SiteName::new("probe").ok()?, link: link.clone() });
                uplinks.insert(link.clone());
            }
        }
    }
    Some(Experiment { target: cut, uplinks, from: from_link, to: to_link, first, reply })
}

/// Which of the two frames.
#[derive(Debug, Clone, Copy)]
enum Leg {
    First,
    Reply,
}

impl Leg {
    /// The port number of who is called.
    fn listener(self, from: u16, to: u16) -> u16 {
        match self {
            Self::First => to,
            Self::Reply => from,
        }
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first frame",
            Self::Reply => "reply",
        })
    }
}

/// Words and counters for what the doors do.
struct Judge<'a> {
    networks: &'a [NetworkStatus],
    rules: &'a Rules,
}

impl Judge<'_> {
    /// One frame's stages, up to the first that drops.
    fn way(&self, leg: Leg, from: &Party<'_>, to: &Party<'_>, frame: &Frame) -> Vec<Stage> {
        let mut stages = vec![self.sends(leg, from, frame)];
        if passes(&stages) {
            stages.push(between(leg, from, to));
        }
        if passes(&stages) {
            stages.extend(self.is_sent(leg, to, frame));
        }
        stages
    }

    fn sends(&self, leg: Leg, party: &Party<'_>, frame: &Frame) -> Stage {
        let place = format!("{leg}, {} sends", party.name());
        let Some(port) = party.port else {
            let why = "what comes in by an uplink is checked where a port is sent it".to_owned();
            return Stage { place, verdict: Verdict::Pass, why, counter: None };
        };
        if port.held {
            return held(place, port);
        }
        if party.network.wire {
            let why = "at a wire nothing is checked; that is done where it ends".to_owned();
            return Stage { place, verdict: Verdict::Pass, why, counter: None };
        }
        let ruling = Door { rules: self.rules, tap: &port.tap }.from_guest(frame);
        self.stage(leg, place, port, (frame, ruling))
    }

    fn is_sent(&self, leg: Leg, party: &Party<'_>, frame: &Frame) -> Option<Stage> {
        let port = party.port?;
        let place = format!("{leg}, {} is sent it", party.name());
        if port.held {
            return Some(held(place, port));
        }
        if party.network.wire {
            return None;
        }
        let ruling = Door { rules: self.rules, tap: &port.tap }.to_guest(frame);
        Some(self.stage(leg, place, port, (frame, ruling)))
    }

    fn stage(&self, leg: Leg, place: String, port: &Port, (frame, ruling): (&Frame, Ruling)) -> Stage {
        let verdict = if ruling.passes() { Verdict::Pass } else { Verdict::Drop };
        let rule = match ruling.reason {
            Reason::Rule(permission) => rule_of(port, frame, permission),
            _ => None,
        };
        let why = why(leg, port, frame, ruling, rule);
        Stage { place, verdict, why, counter: self.counter(port, ruling.by, rule) }
    }

    fn counter(&self, port: &Port, by: Set, rule: Option<&Accept>) -> Option<Counter> {
        let mut ports = self.networks.iter().flat_map(|network| &network.ports);
        let status: &PortStatus = ports.find(|status| status.id == port.id)?;
        match by {
            Set::Spoofed => Some(status.dropped_spoofed),
            Set::DroppedFrom => Some(status.dropped_from_guest),
            Set::DroppedTo => Some(status.dropped_to_guest),
            _ => status.rules.iter().find(|r| Some(&r.accept) == rule).map(|r| r.counter),
        }
    }
}

fn held(place: String, port: &Port) -> Stage {
    let why = format!("{} is held: it is attached to nothing until its guest has arrived", port.id);
    Stage { place, verdict: Verdict::Drop, why, counter: None }
}

/// What the bridges do.
fn between(leg: Leg, from: &Party<'_>, to: &Party<'_>) -> Stage {
    let (verdict, why) = crossing(from, to);
    let place = if from.network.id == to.network.id {
        format!("{leg}, network {}", from.network.id)
    } else {
        format!("{leg}, from network {} to {}", from.network.id, to.network.id)
    };
    Stage { place, verdict, why, counter: None }
}

fn crossing(from: &Party<'_>, to: &Party<'_>) -> (Verdict, String) {
    let (here, there) = (&from.network.id, &to.network.id);
    if from.bridge != to.bridge {
        let why = format!(
            "{here} and {there} are two networks, and no frame crosses; a gateway between them is not netd's to know: \
             ask about each of its ports"
        );
        return (Verdict::Drop, why);
    }
    if from.port.is_some() && from.link == to.link {
        return (Verdict::Drop, "a switch sends no frame back where it came from".to_owned());
    }
    if from.network.wire && from.link.is_some() && to.link.is_some() {
        return (Verdict::Pass, format!("{here} is a wire: what goes in at one end comes out at the other"));
    }
    let outside = [from, to].into_iter().find(|party| party.port.is_none());
    let Some(outside) = outside else {
        return (Verdict::Pass, format!("both are on bridge {}{}", from.bridge, beyond(to)));
    };
    if let Some(by) = routed(outside) {
        let way = if to.port.is_none() { "goes to" } else { "comes in by" };
        return (Verdict::Pass, format!("{way} {by}; what is beyond it is not netd's to know"));
    }
    match &outside.link {
        None => (Verdict::Drop, no_uplink(from.network)),
        Some(link) if to.port.is_none() => (
            Verdict::Pass,
            format!("leaves by {link}; what is beyond it is not netd's to know{}", beyond(to)),
        ),
        Some(link) => (Verdict::Pass, format!("comes in by {link}")),
    }
}

fn no_uplink(network: &Network) -> String {
    let id = &network.id;
    match &network.router {
        None => format!("{id} does not leave this host: it has no uplink"),
        Some(router) => format!(
            "{id} does not leave this host but by its router {}, and what that passes on is not explained here",
            router.link
        ),
    }
}

/// Its network has subnets of its version of IP, and it is in none of them.
fn is_beyond(party: &Party<'_>) -> bool {
    let subnets = &party.network.subnets;
    let mut same = subnets.iter().filter(|n| n.addr().is_ipv4() == party.address.is_ipv4()).peekable();
    same.peek().is_some() && !same.any(|net| net.contains(&party.address))
}

/// The network's router, where it is this one that carries frames to and from an address outside.
fn routed(outside: &Party<'_>) -> Option<String> {
    let router = outside.network.router.as_ref().filter(|_| is_beyond(outside))?;
    let out = router.outside.as_ref()?;
    if router.elsewhere {
        let link = outside.link.as_ref()?;
        return Some(format!("the network's router on another host, by {link}"));
    }
    let lends = if out.nat { " and lends its own address there" } else { "" };
    Some(format!("the network's router {}, which joins the LAN of site {}{lends}", router.link, out.site))
}

/// Addresses that only a gateway can reach.
fn beyond(to: &Party<'_>) -> String {
    if !is_beyond(to) {
        return String::new();
    }
    format!("; {} is in no subnet of {}: a gateway must carry it on", to.address, to.network.id)
}

/// The document's rule behind a permission.
fn rule_of<'a>(port: &'a Port, frame: &Frame, permission: Permission) -> Option<&'a Accept> {
    let sends = frame.from == port.mac;
    let remote = if sends { frame.destination } else { frame.source };
    port.accept.iter().find(|rule| {
        let same = match (&rule.protocol, permission.service) {
            (Protocol::Any, Permitted::Any) | (Protocol::Icmp, Permitted::Echo) => true,
            (Protocol::Tcp { listen_port }, Permitted::Open(L4::Tcp, number))
            | (Protocol::Udp { listen_port }, Permitted::Open(L4::Udp, number)) => *listen_port == number,
            _ => false,
        };
        same && rule.direction == permission.direction && rule.remote.is_none_or(|net| net.contains(&remote))
    })
}

fn why(leg: Leg, port: &Port, frame: &Frame, ruling: Ruling, rule: Option<&Accept>) -> String {
    let id = &port.id;
    match ruling.reason {
        Reason::Resolution => "address resolution always passes".to_owned(),
        Reason::Rule(permission) => {
            let words = rule
                .map_or_else(|| "netd's own rule for the network's router".to_owned(), |r| in_words(r, id));
            match (permission.answers, permission.service) {
                (false, _) => format!("accepted: {words}"),
                (true, Permitted::Any) => format!("may be a reply, and is taken for one: {words}"),
                (true, _) => format!("a reply: {words}"),
            }
        }
        Reason::NoRule => no_rule(leg, id, frame, ruling.by == Set::DroppedFrom),
        Reason::ForeignMac => format!("{} is not {id}'s MAC address", frame.from),
        Reason::ForeignAddress => format!("{} is no address of {id}, and it may use no other", frame.source),
        Reason::DhcpServer => {
            format!("{id} does not route, and only who routes may answer as a DHCP server does")
        }
        Reason::LinkLocal => {
            format!(
                "{} is an address {id} may choose, but not in the document: only resolution uses it",
                frame.source
            )
        }
        Reason::NotForIt => format!("{} is no address of {id}, and it does not route", frame.destination),
    }
}

fn in_words(rule: &Accept, id: &str) -> String {
    let what = match rule.protocol {
        Protocol::Any => "anything".to_owned(),
        Protocol::Icmp => "echo".to_owned(),
        Protocol::Tcp { listen_port } => format!("tcp {listen_port}"),
        Protocol::Udp { listen_port } => format!("udp {listen_port}"),
    };
    match (rule.direction, rule.remote) {
        (Direction::FromGuest, None) => format!("{id} may open {what} to anybody"),
        (Direction::FromGuest, Some(net)) => format!("{id} may open {what} to {net}"),
        (Direction::ToGuest, None) => format!("anybody may open {what} to {id}"),
        (Direction::ToGuest, Some(net)) => format!("{net} may open {what} to {id}"),
    }
}

fn no_rule(leg: Leg, id: &str, frame: &Frame, sends: bool) -> String {
    let what = match frame.payload {
        Payload::Ask | Payload::Tell => "address resolution".to_owned(),
        Payload::Ping | Payload::Pong => "echo".to_owned(),
        Payload::Tcp { from, to, .. } => format!("tcp {}", leg.listener(from, to)),
        Payload::Udp { from, to } => format!("udp {}", leg.listener(from, to)),
    };
    let verb = match leg {
        Leg::First => "open",
        Leg::Reply => "answer",
    };
    if sends {
        format!("no accept rule lets {id} {verb} {what} to {}", frame.destination)
    } else {
        format!("no accept rule lets {} {verb} {what} to {id}", frame.source)
    }
}
