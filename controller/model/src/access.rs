//! Access rules: who may open connections to whom, and through which gateway.
//!
//! Everything is denied that no rule names. A rule within one network becomes a permission at both ends' ports. A rule
//! through a gateway becomes an order to the gateway (forward a listen port, or let connections out) and a permission
//! at the gateway's far port; inside the protected network every member may speak with the gateway only, which filters.

use crate::network;
use crate::validate::{Findings, choices, gateway_networks, joined};
use controller_api::document::{AccessRule, BundleSpec, LanUplink, MemberSpec};
use std::collections::BTreeMap;
use types::{MemberName, NetworkName};

/// What a rule calls everything behind the router of a network with `uplink: nat` or `uplink: routed`, unless a member
/// or network of that name is there.
const UPLINK: &str = "uplink";

/// What a rule means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// Within one network, from these members to those; the network itself may stand for anybody on it.
    Within { network: &'a NetworkName, from: End<'a>, to: End<'a> },
    /// From the gateway's far side to a member on its protected side.
    Inbound { gateway: &'a MemberName, from: End<'a>, to: &'a MemberName },
    /// From members on the gateway's protected side to its far side.
    Outbound { gateway: &'a MemberName, from: Vec<&'a MemberName> },
    /// From members to what is behind their network's router.
    Outward { network: &'a NetworkName, from: Vec<&'a MemberName> },
    /// From what is behind a network's router to a member.
    Inward { network: &'a NetworkName, to: &'a MemberName },
}

/// One end of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End<'a> {
    Member(&'a MemberName),
    Network(&'a NetworkName),
}

/// A transport and a listen port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Listen {
    Tcp(u16),
    Udp(u16),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp:{port}"),
            Self::Udp(port) => write!(f, "udp:{port}"),
        }
    }
}

/// What a rule opens.
pub(crate) fn listens(rule: &AccessRule) -> impl Iterator<Item = Listen> + '_ {
    rule.tcp.iter().map(|port| Listen::Tcp(*port)).chain(rule.udp.iter().map(|port| Listen::Udp(*port)))
}

fn end<'a>(spec: &'a BundleSpec, name: &str) -> Option<End<'a>> {
    let member = spec.members.keys().find(|member| member.as_str() == name).map(End::Member);
    member.or_else(|| spec.networks.keys().find(|network| network.as_str() == name).map(End::Network))
}

fn joins(member: &MemberSpec, network: &NetworkName) -> bool {
    member.ports.values().any(|target| joined(target) == Some(network))
}

fn on<'a>(spec: &'a BundleSpec, end: End<'a>, network: &NetworkName) -> bool {
    match end {
        End::Network(name) => name == network,
        End::Member(name) => spec.members.get(name).is_some_and(|member| joins(member, network)),
    }
}

/// Members that join a network, in name order.
pub(crate) fn members_on<'a>(
    spec: &'a BundleSpec,
    network: &'a NetworkName,
) -> impl Iterator<Item = &'a MemberName> {
    spec.members.iter().filter(move |(_, member)| joins(member, network)).map(|(name, _)| name)
}

/// What a rule means, or which of its fields is wrong and why.
pub(crate) fn meanings<'a>(
    spec: &'a BundleSpec,
    rule: &'a AccessRule,
) -> Result<Vec<Meaning<'a>>, (&'static str, String)> {
    let known = || {
        let members = spec.members.keys().map(ToString::to_string);
        choices(members.chain(spec.networks.keys().map(ToString::to_string)), "add it")
    };
    let unknown = |name: &str| format!("{name:?} is neither a member nor a network: {}", known());
    let is_uplink = |name: &str| name == UPLINK && end(spec, name).is_none();
    if is_uplink(&rule.to) || is_uplink(&rule.from) {
        return match (is_uplink(&rule.from), &rule.via) {
            (_, Some(_)) => Err(("via", "an uplink's router is no member: remove `via`".to_owned())),
            (false, None) => {
                outward(spec, end(spec, &rule.from).ok_or_else(|| ("from", unknown(&rule.from)))?)
            }
            (true, None) => inward(spec, end(spec, &rule.to).ok_or_else(|| ("to", unknown(&rule.to)))?),
        };
    }
    let from = end(spec, &rule.from).ok_or_else(|| ("from", unknown(&rule.from)))?;
    let to = end(spec, &rule.to).ok_or_else(|| ("to", unknown(&rule.to)))?;
    if from == to {
        return Err(("to", format!("{} to itself needs no rule: remove it", rule.to)));
    }
    match &rule.via {
        Some(via) => through(spec, rule, via, from, to).map(|meaning| vec![meaning]),
        None => within(spec, rule, from, to),
    }
}

fn led_out<'a>(spec: &'a BundleSpec, end: End<'a>) -> impl Iterator<Item = &'a NetworkName> {
    let leads = move |name: &NetworkName| on(spec, end, name);
    spec.networks
        .iter()
        .filter(move |(name, network)| network::leads_out(network) && leads(name))
        .map(|(name, _)| name)
}

fn outward<'a>(spec: &'a BundleSpec, from: End<'a>) -> Result<Vec<Meaning<'a>>, (&'static str, String)> {
    let meanings: Vec<_> = led_out(spec, from)
        .map(|network| {
            let from = match from {
                End::Member(member) => vec![member],
                End::Network(network) => members_on(spec, network).collect(),
            };
            Meaning::Outward { network, from }
        })
        .collect();
    match meanings.is_empty() {
        false => Ok(meanings),
        true => Err(("from", "it is on no network with `uplink: nat` or `uplink: routed`".to_owned())),
    }
}

fn inward<'a>(spec: &'a BundleSpec, to: End<'a>) -> Result<Vec<Meaning<'a>>, (&'static str, String)> {
    let End::Member(member) = to else {
        return Err(("to", "an uplink leads to one member: write a member".to_owned()));
    };
    let routed = |name: &&NetworkName| {
        spec.networks.get(*name).is_some_and(|network| network::lan(network) == Some(LanUplink::Routed))
    };
    let networks: Vec<_> = led_out(spec, to).collect();
    let meanings: Vec<_> = networks
        .iter()
        .copied()
        .filter(routed)
        .map(|network| Meaning::Inward { network, to: member })
        .collect();
    match (networks.as_slice(), meanings.is_empty()) {
        (_, false) => Ok(meanings),
        ([], true) => Err(("to", format!("{member} is on no network with `uplink: routed`"))),
        ([first, ..], true) => Err((
            "from",
            format!(
                "nothing comes in through NAT but published ports: add it to spec.networks.{first}.publish"
            ),
        )),
    }
}

fn within<'a>(
    spec: &'a BundleSpec,
    rule: &AccessRule,
    from: End<'a>,
    to: End<'a>,
) -> Result<Vec<Meaning<'a>>, (&'static str, String)> {
    let shared: Vec<_> = spec
        .networks
        .keys()
        .filter(|network| on(spec, from, network) && on(spec, to, network))
        .map(|network| Meaning::Within { network, from, to })
        .collect();
    if !shared.is_empty() {
        return Ok(shared);
    }
    let gateways = spec.members.iter().filter(|(_, member)| member.gateway.is_some()).map(|(name, _)| name);
    let hint = choices(gateways.map(|name| format!("`via: {name}`")), "add a gateway between them");
    Err(("", format!("{} and {} share no network: {hint}", rule.from, rule.to)))
}

fn through<'a>(
    spec: &'a BundleSpec,
    rule: &AccessRule,
    via: &MemberName,
    from: End<'a>,
    to: End<'a>,
) -> Result<Meaning<'a>, (&'static str, String)> {
    let Some((gateway, member)) = spec.members.get_key_value(via) else {
        let gateways = spec.members.iter().filter(|(_, m)| m.gateway.is_some()).map(|(name, _)| name);
        return Err(("via", format!("there is no member {via}: {}", choices(gateways, "add a gateway"))));
    };
    let Some((inner, outer)) = gateway_networks(member) else {
        return Err(("via", format!("{via} is no gateway: add `gateway: {{from: PORT, to: PORT}}` to it")));
    };
    let is_gateway = |end: End<'_>| end == End::Member(gateway);
    if is_gateway(from) || is_gateway(to) {
        return Err(("via", format!("{via} is itself an end of this rule: remove `via`")));
    }
    if on(spec, from, outer) && on(spec, to, inner) {
        return match to {
            End::Member(to) => Ok(Meaning::Inbound { gateway, from, to }),
            End::Network(_) => Err((
                "to",
                format!("{via} forwards to one member: write a member of {inner} instead of {}", rule.to),
            )),
        };
    }
    if on(spec, from, inner) && on(spec, to, outer) {
        if let End::Member(_) = to {
            let message =
                format!("{via} lets connections out to a network: write {outer} instead of {}", rule.to);
            return Err(("to", message));
        }
        let from = match from {
            End::Member(member) => vec![member],
            End::Network(_) => members_on(spec, inner).filter(|name| *name != gateway).collect(),
        };
        return Ok(Meaning::Outbound { gateway, from });
    }
    Err((
        "via",
        format!("{via} is not between {} and {}: it stands between {inner} and {outer}", rule.from, rule.to),
    ))
}

/// Everything that is wrong with the rules.
pub(crate) fn check(spec: &BundleSpec, findings: &mut Findings) {
    let mut forwarded: BTreeMap<(&MemberName, Listen), &MemberName> = BTreeMap::new();
    for (index, rule) in spec.access.iter().enumerate() {
        let path = format!("spec.access[{index}]");
        check_listens(&path, rule, findings);
        let meanings = match meanings(spec, rule) {
            Ok(meanings) => meanings,
            Err((field, message)) => {
                let path = if field.is_empty() { path } else { format!("{path}.{field}") };
                findings.add(path, message);
                continue;
            }
        };
        for meaning in meanings {
            let Meaning::Inbound { gateway, to, .. } = meaning else { continue };
            for listen in listens(rule) {
                if let Some(other) = forwarded.insert((gateway, listen), to)
                    && other != to
                {
                    findings.add(
                        &path,
                        format!("{gateway} already forwards {listen} to {other}: one listen port leads to one member"),
                    );
                }
            }
        }
    }
}

fn check_listens(path: &str, rule: &AccessRule, findings: &mut Findings) {
    if rule.tcp.is_empty() && rule.udp.is_empty() {
        findings.add(path, "it opens nothing: write tcp: [80] or udp: [53]");
    }
    if rule.tcp.len() + rule.udp.len() > crate::validate::LISTEN_PORTS_MAX {
        findings.add(path, format!("it names more than {} ports", crate::validate::LISTEN_PORTS_MAX));
    }
    for (kind, ports) in [("tcp", &rule.tcp), ("udp", &rule.udp)] {
        for (index, port) in ports.iter().enumerate() {
            if *port == 0 {
                findings.add(format!("{path}.{kind}[{index}]"), "0 is no port: write 1 to 65535");
            } else if ports[..index].contains(port) {
                findings.add(format!("{path}.{kind}[{index}]"), format!("{port} is there twice: remove one"));
            }
        }
    }
}
