//! One host's part in what is watched: its watchers, and the copies it makes, sends on or gets.
//!
//! Every host copies its own guests' frames. Those of a watcher's own host go to it at once, those of another go through
//! a tunnel that bears the number of the first of that host's members that are watched.

use super::networks::hosts_on;
use crate::cluster::{Cluster, Stored};
use crate::{name, record};
use netd_api::{Mirror, MirrorFrom, MirrorTo, MirrorTunnel, Watcher};
use std::collections::BTreeSet;
use types::{HostName, InstanceId, MemberName, NetworkName};

/// A port that watches, and where it is.
struct Watching<'a> {
    cluster: &'a Cluster,
    id: &'a InstanceId,
    port: &'a record::Port,
    at: &'a HostName,
}

pub(super) fn watchers(here: &[(&InstanceId, &record::Instance)]) -> Vec<Watcher> {
    let ports = here.iter().flat_map(|(id, instance)| instance.ports.iter().map(move |port| (id, port)));
    ports
        .filter(|(_, port)| port.watches.is_some())
        .map(|(id, port)| Watcher { id: format!("{id}/{}", port.name), tap: port.tap.clone(), mtu: port.mtu })
        .collect()
}

/// What `host` copies, and what it gets for its watchers.
pub(super) fn mirrors(cluster: &Cluster, host: &HostName) -> Vec<Mirror> {
    let placed = cluster
        .placements
        .iter()
        .filter_map(|(id, placement)| Some((id, &cluster.instances.get(id)?.value, &placement.value.host)));
    placed
        .flat_map(|(id, instance, at)| instance.ports.iter().map(move |port| (id, port, at)))
        .filter_map(|(id, port, at)| {
            let watched = port.watches.as_ref()?;
            Some((Watching { cluster, id, port, at }, watched))
        })
        .flat_map(|(watching, watched)| watching.mirrors(host, watched))
        .collect()
}

impl<'a> Watching<'a> {
    fn mirrors(&self, host: &'a HostName, watched: &record::Watched) -> Vec<Mirror> {
        let sources = self.sources(watched);
        let mut mirrors = Vec::new();
        if sources.contains(host)
            && let (Some(from), Some(to)) = (self.from(watched), self.way(host))
        {
            mirrors.push(self.mirror(from, to));
        }
        if self.at == host {
            let to = MirrorTo::Watcher { tap: self.port.tap.clone() };
            let tunnels = sources.iter().filter(|source| **source != host);
            let tunnels = tunnels.filter_map(|source| self.tunnel(source, source, watched));
            mirrors.extend(tunnels.map(|tunnel| self.mirror(MirrorFrom::Tunnel(tunnel), to.clone())));
        }
        mirrors
    }

    fn mirror(&self, from: MirrorFrom, to: MirrorTo) -> Mirror {
        Mirror { id: format!("{}/{}", self.id, self.port.name), from, to }
    }

    /// Hosts with guests whose frames are watched.
    fn sources(&self, watched: &record::Watched) -> BTreeSet<&'a HostName> {
        match watched {
            record::Watched::Network => hosts_on(self.cluster, &self.id.deployment, &self.port.network),
            record::Watched::Port { member, .. } => self.host_of(member).into_iter().collect(),
        }
    }

    fn host_of(&self, member: &MemberName) -> Option<&'a HostName> {
        let id = InstanceId { deployment: self.id.deployment.clone(), member: member.clone() };
        self.cluster.placements.get(&id).map(|placement: &Stored<_>| &placement.value.host)
    }

    fn from(&self, watched: &record::Watched) -> Option<MirrorFrom> {
        match watched {
            record::Watched::Network => {
                Some(MirrorFrom::Network { id: format!("{}/{}", self.id.deployment, self.port.network) })
            }
            record::Watched::Port { member, port } => {
                let id = InstanceId { deployment: self.id.deployment.clone(), member: member.clone() };
                let ports = &self.cluster.instances.get(&id)?.value.ports;
                let tap = ports.iter().find(|held| held.name == *port)?.tap.clone();
                Some(MirrorFrom::Port { tap })
            }
        }
    }

    /// How copies come from `host` to the watcher.
    fn way(&self, host: &HostName) -> Option<MirrorTo> {
        if self.at == host {
            return Some(MirrorTo::Watcher { tap: self.port.tap.clone() });
        }
        let watched = self.port.watches.as_ref()?;
        self.tunnel(host, self.at, watched).map(MirrorTo::Tunnel)
    }

    /// From `source` to the watcher, as the host at the other end of `peer` sees it.
    fn tunnel(&self, source: &HostName, peer: &HostName, watched: &record::Watched) -> Option<MirrorTunnel> {
        let numbers = self.cluster.mirrors.get(&(self.id.clone(), self.port.name.clone()))?;
        let watches = |member: &MemberName| match watched {
            record::Watched::Network => self.joins(member, &self.port.network),
            record::Watched::Port { member: only, .. } => member == only,
        };
        let mut here =
            numbers.value.tunnels.iter().filter(|(member, _)| self.host_of(member) == Some(source));
        let (member, vni) = here.find(|(member, _)| watches(member))?;
        Some(MirrorTunnel {
            vni: *vni,
            link: name::mirror_link(self.id, &self.port.name, member),
            peer: self.cluster.facts.get(peer)?.value.underlay_address?,
        })
    }

    fn joins(&self, member: &MemberName, network: &NetworkName) -> bool {
        let id = InstanceId { deployment: self.id.deployment.clone(), member: member.clone() };
        let instance = self.cluster.instances.get(&id);
        instance.is_some_and(|instance| instance.value.ports.iter().any(|port| port.joins(network)))
    }
}
