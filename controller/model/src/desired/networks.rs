//! One host's networks: who joins them there, how they reach the other hosts, whose router is there.

use super::Wirings;
use crate::cluster::Cluster;
use crate::{access::Listen, interpose, moving, name, network, record, wire};
use controller_api::agent::HostDesired;
use controller_api::document::{LanUplink, NetworkSpec};
use netd_api::{Dhcp, Dns, Lease, Outside, Published, Router, Transport, Uplink};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use types::{DeploymentName, HostName, InstanceId, NetworkName};

/// Leases are good for so long, in seconds.
const LEASE_SECONDS: u32 = 3_600;

/// One network as one host sees it.
struct Seen<'a> {
    cluster: &'a Cluster,
    host: &'a HostName,
    deployment: &'a DeploymentName,
    network: &'a NetworkName,
}

pub(super) fn networks(
    cluster: &Cluster,
    host: &HostName,
    here: &[(&InstanceId, &record::Instance)],
    wirings: &Wirings<'_>,
) -> Vec<netd_api::Network> {
    let mut networks: BTreeMap<(&DeploymentName, &NetworkName), netd_api::Network> = BTreeMap::new();
    for (id, instance) in here.iter().filter(|(id, _)| !cluster.vias.contains_key(*id)) {
        for port in instance.ports.iter().filter(|port| port.watches.is_none()) {
            let seen = Seen { cluster, host, deployment: &id.deployment, network: &port.network };
            let network =
                networks.entry((&id.deployment, &port.network)).or_insert_with(|| seen.network(port.mtu));
            let part = wirings.get(&id.deployment).and_then(|wiring| wiring.get(&id.member));
            network.ports.push(desired_port(id, port, part.and_then(|part| part.ports.get(&port.name))));
        }
    }
    let mut networks = networks.into_values().collect();
    interpose::weave(cluster, host, &mut networks);
    moving::hold(cluster, host, &mut networks);
    networks
}

/// A port nothing is known about stays closed.
fn desired_port(id: &InstanceId, port: &record::Port, part: Option<&wire::Port>) -> netd_api::Port {
    netd_api::Port {
        addresses: port.ips().collect(),
        routes: part.is_some_and(|part| part.routes),
        accept: part.map(|part| part.accept.iter().cloned().collect()).unwrap_or_default(),
        rate: part.and_then(|part| part.rate),
        ..netd_api::Port::closed(format!("{id}/{}", port.name), port.tap.clone(), port.mac)
    }
}

/// Hosts that have a port on a network, or shall have one for a guest on its way.
pub(super) fn hosts_on<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
    network: &NetworkName,
) -> BTreeSet<&'a HostName> {
    cluster
        .instances_of(deployment)
        .filter(|(_, instance)| instance.ports.iter().any(|port| port.joins(network)))
        .flat_map(|(id, _)| {
            let placed = cluster.placements.get(id).map(|placement| &placement.value.host);
            placed.into_iter().chain(moving::coming_to(cluster, id))
        })
        .collect()
}

impl<'a> Seen<'a> {
    fn spec(&self) -> Option<&'a NetworkSpec> {
        network::spec_of(self.cluster, self.deployment, self.network)
    }

    fn network(&self, mtu: u16) -> netd_api::Network {
        let lan = network::lan_of(self.cluster, self.deployment);
        netd_api::Network {
            id: format!("{}/{}", self.deployment, self.network),
            bridge: name::bridge(self.deployment, self.network),
            mtu,
            subnets: self.spec().map(|spec| network::subnets(spec, lan)).unwrap_or_default(),
            uplink: self.uplink(),
            router: self.router(),
            flows: self.spec().is_some_and(|spec| spec.flows),
            ..netd_api::Network::default()
        }
    }

    fn uplink(&self) -> Uplink {
        if let Some(vlan) = self.spec().and_then(network::vlan) {
            return Uplink::Vlan {
                trunk: vlan.trunk.clone(),
                vid: vlan.vlan,
                link: name::vlan_link(self.deployment, self.network),
            };
        }
        if let Some(record) = self.record() {
            return Uplink::Vxlan {
                vni: record.vni,
                link: name::vxlan_link(self.deployment, self.network),
                peers: self.peers(),
            };
        }
        let site = self.cluster.deployments.get(self.deployment).and_then(|spec| self.cluster.site_of(spec));
        match site {
            Some(site) => Uplink::Site { site },
            None => Uplink::None,
        }
    }

    fn record(&self) -> Option<&'a record::Network> {
        let key = (self.deployment.clone(), self.network.clone());
        self.cluster.networks.get(&key).map(|record| &record.value)
    }

    /// Underlay addresses of the other hosts that have a port on it.
    fn peers(&self) -> Vec<IpAddr> {
        let hosts = hosts_on(self.cluster, self.deployment, self.network);
        let others = hosts.into_iter().filter(|other| *other != self.host);
        others.filter_map(|other| self.cluster.facts.get(other)?.underlay_address).collect()
    }

    fn router(&self) -> Option<Router> {
        let spec = self.spec().filter(|spec| network::has_router(spec))?;
        let dhcp = Dhcp { lease_seconds: LEASE_SECONDS, leases: self.leases() };
        Some(Router {
            link: name::router_link(self.deployment, self.network),
            elsewhere: self.router_host() != Some(self.host),
            mac: name::router_mac(self.deployment, self.network),
            addresses: network::router_addresses(spec),
            dhcp: spec.services.dhcp.then_some(dhcp),
            dns: spec
                .services
                .dns
                .as_ref()
                .map(|dns| Dns { domain: dns.domain.clone(), forward: dns.forward.clone() }),
            advertises: spec.services.ra,
            outside: self.outside(spec),
        })
    }

    /// One of the hosts that have a port on it: the one that has the router, else the first. None that is lost if there
    /// is another one.
    fn router_host(&self) -> Option<&'a HostName> {
        let mut hosts = hosts_on(self.cluster, self.deployment, self.network);
        let lost = |host: &&HostName| self.cluster.leases.get(*host).is_some_and(|held| held.lost);
        if !hosts.iter().all(lost) {
            hosts.retain(|host| !lost(host));
        }
        let id = format!("{}/{}", self.deployment, self.network);
        let own = |router: &Router| !router.elsewhere;
        let routes = |held: &HostDesired| {
            held.networks.iter().any(|n| n.id == id && n.router.as_ref().is_some_and(own))
        };
        let has = |host: &&HostName| self.cluster.desired.get(*host).is_some_and(|held| routes(&held.value));
        hosts.iter().copied().find(has).or_else(|| hosts.first().copied())
    }

    /// Every member's, wherever it is. What is interposed has no addresses and no name.
    fn leases(&self) -> Vec<Lease> {
        let ports = self.cluster.instances_of(self.deployment).flat_map(|(id, instance)| {
            let joined = instance.value.ports.iter().filter(|port| port.joins(self.network));
            joined.filter(|port| !port.addresses.is_empty()).map(move |port| (id, port))
        });
        let lease = |(id, port): (&InstanceId, &record::Port)| Lease {
            mac: port.mac,
            addresses: port.ips().collect(),
            name: id.member.to_string(),
        };
        ports.map(lease).collect()
    }

    fn outside(&self, spec: &NetworkSpec) -> Option<Outside> {
        let address = self.record()?.outside.filter(|_| network::leads_out(spec))?;
        let site = self.cluster.site_of(self.cluster.deployments.get(self.deployment)?)?;
        let lan = network::lan_of(self.cluster, self.deployment)?;
        Some(Outside {
            site,
            link: name::outside_link(self.deployment, self.network),
            mac: name::outside_mac(self.deployment, self.network),
            addresses: vec![address],
            gateways: lan.router.into_iter().collect(),
            nat: network::lan(spec) == Some(LanUplink::Nat),
            published: self.published(spec, address.addr()),
        })
    }

    fn published(&self, spec: &NetworkSpec, outside: IpAddr) -> Vec<Published> {
        let published = spec.publish.iter().filter_map(|published| {
            let (listens, leads_to) = wire::published_listen(published)?;
            let id = InstanceId { deployment: self.deployment.clone(), member: published.to.clone() };
            let ports = &self.cluster.instances.get(&id)?.value.ports;
            let mut addresses =
                ports.iter().filter(|port| port.joins(self.network)).flat_map(record::Port::ips);
            let address = addresses.find(|address| address.is_ipv4() == outside.is_ipv4())?;
            let (transport, listen_port) = transport(listens);
            Some(Published { transport, listen_port, to: SocketAddr::new(address, transport_port(leads_to)) })
        });
        published.collect()
    }
}

fn transport(listen: Listen) -> (Transport, u16) {
    match listen {
        Listen::Tcp(port) => (Transport::Tcp, port),
        Listen::Udp(port) => (Transport::Udp, port),
    }
}

fn transport_port(listen: Listen) -> u16 {
    transport(listen).1
}
