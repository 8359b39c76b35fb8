//! From a question about a connection to the questions for the hosts on its way.
//!
//! Each host knows its own ports only: the sender's is asked about the sending half, the receiver's about the receiving
//! half, each with the other end as somebody outside. On one host it is one question. Where something is interposed, the
//! port on the network is not the guest's own any more, so that is the one asked about.

use crate::apply::Refusal;
use crate::cluster::Cluster;
use crate::{interpose, record, validate};
use controller_api::interpose::MemberPort;
use netd_api::{End, Question, Service};
use std::net::IpAddr;
use types::{DeploymentName, HostName, InstanceId};

/// One port of a deployment, as people name it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place<'a> {
    /// Whose.
    pub instance: InstanceId,
    /// Its record.
    pub port: &'a record::Port,
}

impl Place<'_> {
    /// `member/port`.
    #[must_use]
    pub fn member_port(&self) -> MemberPort {
        MemberPort { member: self.instance.member.clone(), port: self.port.name.clone() }
    }

    /// `deployment/member/port`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.instance, self.port.name)
    }

    /// Where it is.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if it has no host yet.
    pub fn host(&self, cluster: &Cluster) -> Result<HostName, Refusal> {
        let placement = cluster.placements.get(&self.instance);
        let missing = || Refusal::Conflict(format!("instance {} has no host yet", self.instance));
        placement.map(|placement| placement.host.clone()).ok_or_else(missing)
    }
}

/// What `deployment/member/port` names, or `deployment/member` of a member with one port.
///
/// # Errors
/// [`Refusal::NotFound`] with what there is, [`Refusal::Unfit`] if the port has to be said.
pub fn place<'a>(cluster: &'a Cluster, text: &str) -> Result<Place<'a>, Refusal> {
    let wrong = || {
        let shown: String = text.chars().take(128).collect();
        Refusal::Unfit(format!("{shown:?} is no port: write DEPLOYMENT/MEMBER/PORT"))
    };
    let parts: Vec<&str> = text.split('/').collect();
    let (deployment, member, port) = match parts.as_slice() {
        [deployment, member] => (deployment, member, None),
        [deployment, member, port] => (deployment, member, Some(*port)),
        _ => return Err(wrong()),
    };
    let instance: InstanceId = format!("{deployment}/{member}").parse().map_err(|_| wrong())?;
    let Some(held) = cluster.instances.get(&instance) else {
        let known = cluster.instances_of(&instance.deployment).map(|(id, _)| id.to_string());
        let known = validate::choices(known, "`collective get instances` lists what there is");
        return Err(Refusal::NotFound(format!("there is no instance {instance}: {known}")));
    };
    let ports = &held.value.ports;
    let known =
        || validate::choices(ports.iter().map(|port| format!("{instance}/{}", port.name)), "it has none");
    match (port, ports.as_slice()) {
        (None, [port]) => Ok(Place { instance, port }),
        (None, _) => Err(Refusal::Unfit(format!("{instance} has {} ports: {}", ports.len(), known()))),
        (Some(name), _) => {
            let found = ports.iter().find(|port| port.name.as_str() == name);
            let missing = || Refusal::NotFound(format!("{instance} has no port {name}: {}", known()));
            found.map(|port| Place { instance: instance.clone(), port }).ok_or_else(missing)
        }
    }
}

/// A question for one host.
#[derive(Debug, Clone, PartialEq)]
pub struct Leg {
    /// Whom to ask.
    pub host: HostName,
    /// For people.
    pub about: String,
    /// What.
    pub question: Question,
}

/// What is interposed on the way, which hosts' rules do not know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Between {
    /// At which port, for people.
    pub at: String,
    /// From the port's guest on.
    pub vias: Vec<InstanceId>,
}

/// The way of a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    /// At the sender.
    pub out: Between,
    /// Whom to ask, the sender's host first.
    pub legs: Vec<Leg>,
    /// At the receiver, from the network on.
    pub into: Between,
}

enum Spot<'a> {
    Port(Place<'a>),
    Outside(IpAddr),
}

/// The questions about a connection from `from` to `to`, each a port as for [`place`], or an address.
///
/// # Errors
/// [`Refusal`] says what to ask instead.
pub fn way(cluster: &Cluster, from: &str, to: &str, service: Service, prove: bool) -> Result<Way, Refusal> {
    let (from, to) = (spot(cluster, from)?, spot(cluster, to)?);
    let (from, to) = match (from, to) {
        (Spot::Outside(address), Spot::Port(to)) => (named(cluster, address, &to), Spot::Port(to)),
        (Spot::Port(from), Spot::Outside(address)) => {
            let to = named(cluster, address, &from);
            (Spot::Port(from), to)
        }
        ends => ends,
    };
    let ask = |from, to| Question { from, to, service, prove };
    let (out, into) = (between(cluster, &from), between(cluster, &to));
    let legs = match (&from, &to) {
        (Spot::Outside(_), Spot::Outside(_)) => {
            return Err(Refusal::Unfit(
                "both ends are addresses: name a port, DEPLOYMENT/MEMBER/PORT".into(),
            ));
        }
        (Spot::Port(port), Spot::Outside(address)) => vec![Leg {
            host: port.host(cluster)?,
            about: format!("{} sends to {address}", port.id()),
            question: ask(end(cluster, port), End::Outside { address: *address }),
        }],
        (Spot::Outside(address), Spot::Port(port)) => vec![Leg {
            host: port.host(cluster)?,
            about: format!("{} is sent to by {address}", port.id()),
            question: ask(End::Outside { address: *address }, end(cluster, port)),
        }],
        (Spot::Port(from), Spot::Port(to)) => between_ports(cluster, from, to, ask)?,
    };
    Ok(Way { out, legs, into })
}

fn spot<'a>(cluster: &'a Cluster, text: &str) -> Result<Spot<'a>, Refusal> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Spot::Outside(address)),
        Err(_) => place(cluster, text).map(Spot::Port),
    }
}

fn between_ports(
    cluster: &Cluster,
    from: &Place<'_>,
    to: &Place<'_>,
    ask: impl Fn(End, End) -> Question,
) -> Result<Vec<Leg>, Refusal> {
    let same = from.instance.deployment == to.instance.deployment && from.port.network == to.port.network;
    if !same {
        return Err(Refusal::Unfit(format!(
            "{} is on {}/{}, {} on {}/{}: ask about each network on the way by itself",
            from.id(),
            from.instance.deployment,
            from.port.network,
            to.id(),
            to.instance.deployment,
            to.port.network
        )));
    }
    let (sender, receiver) = (from.host(cluster)?, to.host(cluster)?);
    if sender == receiver {
        let about = format!("{} sends to {}", from.id(), to.id());
        let question = ask(end(cluster, from), end(cluster, to));
        return Ok(vec![Leg { host: sender, about, question }]);
    }
    let (Some(source), Some(target)) = common(from.port, to.port) else {
        return Err(Refusal::Unfit(format!("{} and {} share no version of IP", from.id(), to.id())));
    };
    Ok(vec![
        Leg {
            host: sender,
            about: format!("{} sends to {}", from.id(), to.id()),
            question: ask(end(cluster, from), End::Outside { address: target }),
        },
        Leg {
            host: receiver,
            about: format!("{} is sent to by {}", to.id(), from.id()),
            question: ask(End::Outside { address: source }, end(cluster, to)),
        },
    ])
}

/// Addresses of both that are of one version of IP: of the first port's first address with such a partner.
fn common(from: &record::Port, to: &record::Port) -> (Option<IpAddr>, Option<IpAddr>) {
    let pair = from.ips().find_map(|source| {
        to.ips().find(|target| target.is_ipv4() == source.is_ipv4()).map(|target| (source, target))
    });
    pair.unzip()
}

fn end(cluster: &Cluster, place: &Place<'_>) -> End {
    let id = interpose::face(cluster, &place.instance.deployment, &place.member_port());
    End::Port { id, address: None }
}

fn between(cluster: &Cluster, spot: &Spot<'_>) -> Between {
    match spot {
        Spot::Outside(address) => Between { at: address.to_string(), vias: Vec::new() },
        Spot::Port(place) => {
            let deployment: &DeploymentName = &place.instance.deployment;
            let vias = interpose::chain(cluster, deployment, &place.member_port());
            Between { at: place.id(), vias: vias.into_iter().cloned().collect() }
        }
    }
}

/// The port whose address it is on the other end's network; else somebody outside.
fn named<'a>(cluster: &'a Cluster, address: IpAddr, other: &Place<'_>) -> Spot<'a> {
    let deployment = &other.instance.deployment;
    let members = cluster.instances.iter().filter(|(id, _)| id.deployment == *deployment);
    let mut ports = members.flat_map(|(id, instance)| instance.ports.iter().map(move |port| (id, port)));
    let found = ports.find(|(_, port)| port.joins(&other.port.network) && port.ips().any(|ip| ip == address));
    match found {
        Some((id, port)) => Spot::Port(Place { instance: id.clone(), port }),
        None => Spot::Outside(address),
    }
}
