//! A deployment's wiring: which port may do what, and what its gateways are told.

use crate::access::{End, Listen, Meaning, listens, meanings, members_on};
use crate::record;
use crate::{address, validate};
use controller_api::document::{BundleSpec, LanSpec, NetworkUplink};
use ipnet::IpNet;
use netd_api::{Accept, Direction, Protocol};
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
}

/// One port's part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Port {
    /// Connections that may be opened.
    pub accept: BTreeSet<Accept>,
    /// It carries others' addresses.
    pub routes: bool,
    /// Where everything else is.
    pub router: Option<IpAddr>,
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
            (name.clone(), Member { ports, gateway: None })
        })
        .collect();
    let mut loom = Loom { spec, lan, ports, members };
    loom.gateways();
    loom.routers();
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
        self.ports.get(member)?.iter().find(|port| port.network == *network)
    }

    fn accept(
        &mut self,
        member: &MemberName,
        network: &NetworkName,
        direction: Direction,
        remote: Option<IpNet>,
        protocol: Protocol,
    ) {
        let Some(name) = self.record(member, network).map(|port| &port.name) else { return };
        if let Some(port) = self.members.get_mut(member).and_then(|member| member.ports.get_mut(name)) {
            port.accept.insert(Accept { direction, remote, protocol });
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
                    let remote = Some(address::only(inside.address));
                    self.accept(other, inner, direction, remote, Protocol::Any);
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
                Some(Lease { mac: port.mac, address: port.address, name: name.clone() })
            })
            .collect()
    }

    fn routers(&mut self) {
        let mut routers: BTreeMap<&NetworkName, IpAddr> = BTreeMap::new();
        for (name, network) in &self.spec.networks {
            if let (Some(NetworkUplink::Site), Some(router)) =
                (network.uplink, self.lan.and_then(|lan| lan.router))
            {
                routers.insert(name, router);
            }
        }
        for (name, spec) in &self.spec.members {
            if let Some((inner, _)) = validate::gateway_networks(spec)
                && let Some(port) = self.record(name, inner)
            {
                routers.insert(inner, port.address);
            }
        }
        for (name, records) in self.ports {
            for record in records {
                let router =
                    routers.get(&record.network).filter(|router| **router != record.address).copied();
                if let Some(port) = self.members.get_mut(name).and_then(|m| m.ports.get_mut(&record.name)) {
                    port.router = router;
                }
            }
        }
    }

    fn rule(&mut self, meaning: &Meaning<'_>, listen: Listen) {
        match meaning {
            Meaning::Within { network, from, to } => self.within(network, *from, *to, listen),
            Meaning::Inbound { gateway, from, to } => self.inbound(gateway, *from, to, listen),
            Meaning::Outbound { gateway, from } => self.outbound(gateway, from, listen),
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

    fn remote(&self, end: End<'_>, network: &NetworkName) -> Option<IpNet> {
        match end {
            End::Member(member) => self.record(member, network).map(|port| address::only(port.address)),
            // A private network's members are all known by its subnet; a site's LAN leads anywhere.
            End::Network(network) => self.spec.networks.get(network).and_then(|network| network.subnet),
        }
    }

    fn within(&mut self, network: &NetworkName, from: End<'_>, to: End<'_>, listen: Listen) {
        let (from_remote, to_remote) = (self.remote(from, network), self.remote(to, network));
        let (sources, targets) = (self.ends(from, network), self.ends(to, network));
        for member in sources.iter().filter(|member| to != End::Member(member)) {
            self.accept(member, network, Direction::FromGuest, to_remote, protocol(listen));
        }
        for member in targets.iter().filter(|member| from != End::Member(member)) {
            self.accept(member, network, Direction::ToGuest, from_remote, protocol(listen));
        }
    }

    fn inbound(&mut self, gateway: &MemberName, from: End<'_>, to: &MemberName, listen: Listen) {
        let Some((inner, outer)) = self.spec.members.get(gateway).and_then(validate::gateway_networks) else {
            return;
        };
        let Some(target) = self.record(to, inner).map(|port| port.address) else { return };
        let remote = self.remote(from, outer);
        self.accept(gateway, outer, Direction::ToGuest, remote, protocol(listen));
        if let End::Member(member) = from
            && let Some(far) = self.record(gateway, outer)
        {
            self.accept(
                member,
                outer,
                Direction::FromGuest,
                Some(address::only(far.address)),
                protocol(listen),
            );
        }
        for remote in self.far_remotes(gateway, to, inner) {
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
            for remote in self.far_remotes(gateway, member, inner) {
                self.accept(member, inner, Direction::FromGuest, remote, protocol(listen));
            }
            let Some(source) = self.record(member, inner).map(|port| port.address) else { continue };
            if let Some(orders) = self.members.get_mut(gateway).and_then(|member| member.gateway.as_mut()) {
                orders.outbound.insert(format!("{source}={listen}"));
            }
        }
    }

    /// What is beyond the gateway, as a member on its protected side sees it: anything but that network itself, so
    /// that a permission that is meant for the far side opens no way between two members.
    fn far_remotes(
        &self,
        gateway: &MemberName,
        member: &MemberName,
        inner: &NetworkName,
    ) -> Vec<Option<IpNet>> {
        let alone = members_on_count(self.spec, inner, [gateway, member]) == 0;
        match self.spec.networks.get(inner).and_then(|network| network.subnet) {
            Some(subnet) if !alone => address::elsewhere(subnet).into_iter().map(Some).collect(),
            _ => vec![None],
        }
    }
}

fn members_on_count(spec: &BundleSpec, network: &NetworkName, but: [&MemberName; 2]) -> usize {
    spec.members
        .iter()
        .filter(|(name, member)| {
            !but.contains(name) && member.ports.values().any(|port| validate::port_target(port).0 == network)
        })
        .count()
}
