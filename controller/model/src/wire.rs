//! A deployment's wiring: which port may do what, and what its gateways are told.

use crate::access::{End, Listen, Meaning, listens, meanings, members_on};
use crate::record;
use crate::{address, network, validate};
use controller_api::document::{BundleSpec, LanSpec, LimitsSpec, PortSpec, PublishSpec};
use ipnet::IpNet;
use netd_api::{Accept, Direction, Protocol, Rate};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use types::{MacAddress, MemberName, NetworkName, PortName};

/// UDP port of DHCP servers.
const DHCP_SERVER: u16 = 67;

/// One member's part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Member {
    /// By port.
    pub ports: BTreeMap<PortName, Port>,
    /// If it is a gateway.
    pub gateway: Option<Gateway>,
    /// If it stands in the path of another member's port.
    pub interposed: Option<Interposed>,
}

/// What an interposed instance is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Interposed {
    /// Its port on the network.
    pub outer: PortName,
    /// Its port on the wire to the guest.
    pub inner: PortName,
    /// `office/workspace/eth0`.
    pub at: String,
    /// That port: what the outer one says, it says in its name.
    pub port: record::Port,
    /// The other end's port, and the secret of the two.
    pub pair: Option<(record::Port, String)>,
}

/// One port's part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Port {
    /// Connections that may be opened.
    pub accept: BTreeSet<Accept>,
    /// It carries others' addresses.
    pub routes: bool,
    /// Where everything else is, at most one a version of IP.
    pub routers: Vec<IpAddr>,
    /// Who answers names, and which domain they are in.
    pub names: Option<Names>,
    /// At most so much.
    pub rate: Option<Rate>,
}

impl Port {
    /// Where everything else is, for an address.
    #[must_use]
    pub fn router(&self, address: IpAddr) -> Option<IpAddr> {
        self.routers.iter().copied().find(|router| router.is_ipv4() == address.is_ipv4())
    }
}

/// A name server of a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Names {
    /// Its addresses.
    pub servers: Vec<IpAddr>,
    /// Domain of the members' names.
    pub domain: String,
}

/// What a gateway is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Port of the protected side.
    pub from: PortName,
    /// Port of the far side.
    pub to: PortName,
    /// Members of the protected side.
    pub leases: Vec<Lease>,
    /// `tcp:80:10.20.0.10:80`.
    pub forwards: BTreeSet<String>,
    /// `10.20.0.10=tcp:443`.
    pub outbound: BTreeSet<String>,
}

/// A member that a gateway serves.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its address.
    pub address: IpAddr,
    /// Its name.
    pub name: MemberName,
}

/// The ports of every member, as decided.
pub type Ports = BTreeMap<MemberName, Vec<record::Port>>;

struct Loom<'a> {
    spec: &'a BundleSpec,
    lan: Option<&'a LanSpec>,
    ports: &'a Ports,
    members: BTreeMap<MemberName, Member>,
}

/// Wires a valid bundle whose ports have addresses.
#[must_use]
pub fn wire(spec: &BundleSpec, lan: Option<&LanSpec>, ports: &Ports) -> BTreeMap<MemberName, Member> {
    let members = ports
        .iter()
        .map(|(name, ports)| {
            let ports = ports.iter().map(|port| (port.name.clone(), Port::default())).collect();
            (name.clone(), Member { ports, ..Member::default() })
        })
        .collect();
    let mut loom = Loom { spec, lan, ports, members };
    loom.limits();
    loom.gateways();
    loom.routers();
    loom.names();
    loom.publish();
    for rule in &spec.access {
        for meaning in meanings(spec, rule).unwrap_or_default() {
            for listen in listens(rule) {
                loom.rule(&meaning, listen);
            }
        }
    }
    loom.members
}

fn protocol(listen: Listen) -> Protocol {
    match listen {
        Listen::Tcp(listen_port) => Protocol::Tcp { listen_port },
        Listen::Udp(listen_port) => Protocol::Udp { listen_port },
    }
}

impl<'a> Loom<'a> {
    fn record(&self, member: &MemberName, network: &NetworkName) -> Option<&'a record::Port> {
        self.ports.get(member)?.iter().find(|port| port.joins(network))
    }

    fn port(&mut self, member: &MemberName, network: &NetworkName) -> Option<&mut Port> {
        let name = &self.record(member, network)?.name;
        self.members.get_mut(member)?.ports.get_mut(name)
    }

    fn accept(
        &mut self,
        member: &MemberName,
        network: &NetworkName,
        direction: Direction,
        remote: Option<IpNet>,
        protocol: Protocol,
    ) {
        if let Some(port) = self.port(member, network) {
            port.accept.insert(Accept { direction, remote, protocol });
        }
    }

    fn limits(&mut self) {
        for (name, port, target) in validate::every_port(self.spec) {
            let PortSpec::Fixed(fixed) = target else { continue };
            if let Some(port) = self.members.get_mut(name).and_then(|member| member.ports.get_mut(port)) {
                port.rate = fixed.limits.as_ref().map(rate);
            }
        }
    }

    /// Everybody on a protected network may speak with its gateway, which filters, and with nobody else.
    fn gateways(&mut self) {
        for (name, spec) in &self.spec.members {
            let (Some((inner, _)), Some(gateway)) = (validate::gateway_networks(spec), &spec.gateway) else {
                continue;
            };
            let Some(inside) = self.record(name, inner) else { continue };
            let leases = self.leases(name, inner);
            if let Some(member) = self.members.get_mut(name) {
                if let Some(port) = member.ports.get_mut(&inside.name) {
                    port.routes = true;
                }
                member.gateway = Some(Gateway {
                    from: gateway.from.clone(),
                    to: gateway.to.clone(),
                    leases,
                    forwards: BTreeSet::new(),
                    outbound: BTreeSet::new(),
                });
            }
            for direction in [Direction::ToGuest, Direction::FromGuest] {
                self.accept(name, inner, direction, None, Protocol::Any);
                for other in members_on(self.spec, inner).filter(|other| *other != name) {
                    for address in inside.ips() {
                        self.accept(other, inner, direction, Some(address::only(address)), Protocol::Any);
                    }
                }
            }
            for other in members_on(self.spec, inner).filter(|other| *other != name) {
                // The question goes to everybody, so the gateway's address cannot stand for it.
                let protocol = Protocol::Udp { listen_port: DHCP_SERVER };
                self.accept(other, inner, Direction::FromGuest, None, protocol);
            }
        }
    }

    fn leases(&self, gateway: &MemberName, inner: &'a NetworkName) -> Vec<Lease> {
        members_on(self.spec, inner)
            .filter(|name| *name != gateway)
            .filter_map(|name| {
                let port = self.record(name, inner)?;
                Some(Lease { mac: port.mac, address: port.ips().next()?, name: name.clone() })
            })
            .collect()
    }

    fn routers(&mut self) {
        let mut routers: BTreeMap<&NetworkName, Vec<IpAddr>> = BTreeMap::new();
        for (name, spec) in &self.spec.networks {
            let lan = self.lan.and_then(|lan| lan.router).filter(|_| network::is_site(spec));
            routers.insert(name, lan.into_iter().chain(network::ways_out(spec, self.lan)).collect());
        }
        for (name, spec) in &self.spec.members {
            if let Some((inner, _)) = validate::gateway_networks(spec)
                && let Some(port) = self.record(name, inner)
            {
                routers.insert(inner, port.ips().collect());
            }
        }
        for (name, record) in self.ports.iter().flat_map(|(name, ports)| ports.iter().map(move |p| (name, p)))
        {
            let own = |router: &IpAddr| record.ips().any(|address| address == *router);
            let routers: Vec<IpAddr> = match routers.get(&record.network) {
                Some(routers) if record.watches.is_none() => {
                    routers.iter().copied().filter(|r| !own(r)).collect()
                }
                _ => Vec::new(),
            };
            if let Some(port) = self.members.get_mut(name).and_then(|m| m.ports.get_mut(&record.name)) {
                port.routers = routers;
            }
        }
    }

    /// Who answers names. That its members may ask needs no permission of theirs: netd lets them.
    fn names(&mut self) {
        for (name, spec) in &self.spec.networks {
            let Some(dns) = &spec.services.dns else { continue };
            let servers: Vec<IpAddr> = network::router_addresses(spec).iter().map(IpNet::addr).collect();
            for member in members_on(self.spec, name) {
                if let Some(port) = self.port(member, name) {
                    port.names = Some(Names { servers: servers.clone(), domain: dns.domain.clone() });
                }
            }
        }
    }

    /// Who is published is open to what is behind the router.
    fn publish(&mut self) {
        for (name, spec) in &self.spec.networks {
            for published in &spec.publish {
                let Some((_, listen)) = published_listen(published) else { continue };
                self.beyond(name, &published.to, Direction::ToGuest, listen);
            }
        }
    }

    /// Between a member and what is behind its network's router.
    fn beyond(&mut self, network: &NetworkName, member: &MemberName, direction: Direction, listen: Listen) {
        for remote in self.far_remotes(&[member], network) {
            self.accept(member, network, direction, remote, protocol(listen));
        }
    }

    fn rule(&mut self, meaning: &Meaning<'_>, listen: Listen) {
        match meaning {
            Meaning::Within { network, from, to } => self.within(network, *from, *to, listen),
            Meaning::Inbound { gateway, from, to } => self.inbound(gateway, *from, to, listen),
            Meaning::Outbound { gateway, from } => self.outbound(gateway, from, listen),
            Meaning::Outward { network, from } => {
                for member in from {
                    self.beyond(network, member, Direction::FromGuest, listen);
                }
            }
            Meaning::Inward { network, to } => self.beyond(network, to, Direction::ToGuest, listen),
        }
    }

    /// The members an end stands for on a network, and the address their peers see; none is anybody.
    fn ends(&self, end: End<'_>, network: &NetworkName) -> Vec<MemberName> {
        match end {
            End::Member(member) => vec![member.clone()],
            End::Network(_) => self
                .spec
                .members
                .keys()
                .filter(|name| self.record(name, network).is_some())
                .cloned()
                .collect(),
        }
    }

    /// The addresses an end stands for on a network; `None` among them is any.
    fn remotes(&self, end: End<'_>, network: &NetworkName) -> Vec<Option<IpNet>> {
        match (end, self.spec.networks.get(network)) {
            (End::Member(member), _) => {
                let port = self.record(member, network);
                port.into_iter().flat_map(record::Port::ips).map(|ip| Some(address::only(ip))).collect()
            }
            // A private network's members are all known by its subnets; a site's LAN leads anywhere.
            (End::Network(_), Some(spec)) if network::is_site(spec) => vec![None],
            (End::Network(_), Some(spec)) => network::subnets(spec, None).into_iter().map(Some).collect(),
            (End::Network(_), None) => Vec::new(),
        }
    }

    fn within(&mut self, network: &NetworkName, from: End<'_>, to: End<'_>, listen: Listen) {
        let (from_remotes, to_remotes) = (self.remotes(from, network), self.remotes(to, network));
        let (sources, targets) = (self.ends(from, network), self.ends(to, network));
        for member in sources.iter().filter(|member| to != End::Member(member)) {
            for remote in &to_remotes {
                self.accept(member, network, Direction::FromGuest, *remote, protocol(listen));
            }
        }
        for member in targets.iter().filter(|member| from != End::Member(member)) {
            for remote in &from_remotes {
                self.accept(member, network, Direction::ToGuest, *remote, protocol(listen));
            }
        }
    }

    fn inbound(&mut self, gateway: &MemberName, from: End<'_>, to: &MemberName, listen: Listen) {
        let Some((inner, outer)) = self.spec.members.get(gateway).and_then(validate::gateway_networks) else {
            return;
        };
        let Some(target) = self.record(to, inner).and_then(|port| port.ips().next()) else { return };
        for remote in self.remotes(from, outer) {
            self.accept(gateway, outer, Direction::ToGuest, remote, protocol(listen));
        }
        if let End::Member(member) = from {
            for remote in self.remotes(End::Member(gateway), outer) {
                self.accept(member, outer, Direction::FromGuest, remote, protocol(listen));
            }
        }
        for remote in self.far_remotes(&[gateway, to], inner) {
            self.accept(to, inner, Direction::ToGuest, remote, protocol(listen));
        }
        if let Some(orders) = self.members.get_mut(gateway).and_then(|member| member.gateway.as_mut()) {
            let (Listen::Tcp(port) | Listen::Udp(port)) = listen;
            orders.forwards.insert(format!("{listen}:{target}:{port}"));
        }
    }

    fn outbound(&mut self, gateway: &MemberName, from: &[&MemberName], listen: Listen) {
        let Some((inner, outer)) = self.spec.members.get(gateway).and_then(validate::gateway_networks) else {
            return;
        };
        self.accept(gateway, outer, Direction::FromGuest, None, protocol(listen));
        for member in from {
            for remote in self.far_remotes(&[gateway, member], inner) {
                self.accept(member, inner, Direction::FromGuest, remote, protocol(listen));
            }
            let Some(source) = self.record(member, inner).and_then(|port| port.ips().next()) else {
                continue;
            };
            if let Some(orders) = self.members.get_mut(gateway).and_then(|member| member.gateway.as_mut()) {
                orders.outbound.insert(format!("{source}={listen}"));
            }
        }
    }

    /// What is beyond a network's gateway or router, as a member sees it: anything but that network itself, so that a
    /// permission that is meant for the far side opens no way between two members. `but` are the member and the gateway.
    fn far_remotes(&self, but: &[&MemberName], inner: &NetworkName) -> Vec<Option<IpNet>> {
        let alone = members_on(self.spec, inner).all(|member| but.contains(&member));
        match self.spec.networks.get(inner).map(|spec| network::subnets(spec, None)) {
            Some(subnets) if !alone && !subnets.is_empty() => {
                subnets.into_iter().flat_map(address::elsewhere).map(Some).collect()
            }
            _ => vec![None],
        }
    }
}

fn rate(limits: &LimitsSpec) -> Rate {
    Rate { from_guest_bits: limits.up.map(|rate| rate.0), to_guest_bits: limits.down.map(|rate| rate.0) }
}

/// What the router listens for, and what the member does.
pub(crate) fn published_listen(published: &PublishSpec) -> Option<(Listen, Listen)> {
    match (published.tcp, published.udp) {
        (Some(port), None) => Some((Listen::Tcp(port), Listen::Tcp(published.port.unwrap_or(port)))),
        (None, Some(port)) => Some((Listen::Udp(port), Listen::Udp(published.port.unwrap_or(port)))),
        _ => None,
    }
}
