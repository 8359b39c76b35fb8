//! Networks, and what is interposed, as the API shows them: what hosts were told beside what they say.

use crate::app::{App, is_ready};
use crate::views;
use controller_api::document::{BundleSpec, LanUplink, NetworkSpec, NetworkUplink};
use controller_api::interpose::{InterpositionPhase as Phase, InterpositionView};
use controller_api::network::{
    NetworkHost, NetworkPort, NetworkView, TopologyLink, TopologyMember, TopologyMirror, TopologyNetwork,
    TopologyRouter, TopologyView,
};
use controller_api::rest::InstanceView;
use controller_model::{Cluster, interpose, record};
use netd_api::{Network, PortStatus};
use std::collections::BTreeMap;
use types::{DeploymentName, HostName, InstanceId, NetworkName};

/// Networks and wires of the deployments that `wanted` picks, in name order.
pub(crate) fn networks(
    app: &App,
    cluster: &Cluster,
    wanted: impl Fn(&DeploymentName) -> bool,
) -> Vec<NetworkView> {
    let mut told: BTreeMap<(DeploymentName, NetworkName), Vec<(&HostName, &Network)>> = BTreeMap::new();
    for name in cluster.deployments.keys().filter(|name| wanted(name)) {
        let bundle = bundle_of(cluster, name);
        for network in bundle.into_iter().flat_map(|bundle| bundle.networks.keys()) {
            told.entry((name.clone(), network.clone())).or_default();
        }
    }
    for (host, document) in &cluster.desired {
        for network in &document.networks {
            let Some((Ok(deployment), Ok(name))) =
                network.id.split_once('/').map(|(deployment, name)| (deployment.parse(), name.parse()))
            else {
                continue;
            };
            if wanted(&deployment) {
                told.entry((deployment, name)).or_default().push((host, network));
            }
        }
    }
    told.into_iter()
        .map(|((deployment, name), hosts)| network(app, cluster, deployment, name, &hosts))
        .collect()
}

fn bundle_of<'a>(cluster: &'a Cluster, deployment: &DeploymentName) -> Option<&'a BundleSpec> {
    cluster.bundles.get(&cluster.deployments.get(deployment)?.bundle).map(|bundle| &bundle.value)
}

fn network(
    app: &App,
    cluster: &Cluster,
    deployment: DeploymentName,
    name: NetworkName,
    told: &[(&HostName, &Network)],
) -> NetworkView {
    let spec = bundle_of(cluster, &deployment).and_then(|bundle| bundle.networks.get(&name));
    let subnets = match (told.first(), spec) {
        (Some((_, network)), _) => network.subnets.iter().map(ToString::to_string).collect(),
        (None, Some(spec)) => spec.subnet.iter().chain(&spec.subnet6).map(ToString::to_string).collect(),
        (None, None) => Vec::new(),
    };
    let hosts: Vec<NetworkHost> =
        told.iter().map(|(host, network)| network_host(app, host, network)).collect();
    // Every host of the network is told of its router, also those that do not hold it.
    let router = told.iter().find_map(|(_, network)| network.router.as_ref()?.outside.as_ref());
    let outside = router.into_iter().flat_map(|outside| &outside.addresses);
    let ready = |host: &NetworkHost| {
        host.online && host.up && host.ports.iter().all(|p| p.status.as_ref().is_some_and(|s| s.ready))
    };
    NetworkView {
        ready: !hosts.is_empty() && hosts.iter().all(ready),
        mtu: told.first().map_or(0, |(_, network)| network.mtu),
        wire: told.iter().any(|(_, network)| network.wire),
        outside: outside.map(|address| address.addr().to_string()).collect(),
        deployment,
        name,
        subnets,
        hosts,
    }
}

fn network_host(app: &App, host: &HostName, network: &Network) -> NetworkHost {
    let seen = app.live.seen(host);
    let status = seen.status.as_ref().and_then(|status| status.networks.as_ref());
    let said = status.and_then(|status| status.networks.iter().find(|said| said.id == network.id));
    let port = |port: &netd_api::Port| NetworkPort {
        id: port.id.clone(),
        mac: port.mac,
        addresses: port.addresses.iter().map(ToString::to_string).collect(),
        rules: u32::try_from(port.accept.len()).unwrap_or(u32::MAX),
        held: port.held,
        status: said.and_then(|said| said.ports.iter().find(|said| said.tap == port.tap).cloned()),
    };
    NetworkHost {
        host: host.clone(),
        online: seen.online,
        bridge: network.bridge.clone(),
        uplink: network.uplink.clone(),
        up: said.is_some_and(|said| said.up),
        ports: network.ports.iter().map(port).collect(),
        router: said.and_then(|said| said.router.clone()),
        conflicts: status.map(|status| status.conflicts.clone()).unwrap_or_default(),
        failures: status.map(|status| status.failures.clone()).unwrap_or_default(),
    }
}

/// What is in the paths of a deployment's ports, in the document's order; what leaves comes last.
pub(crate) fn interpositions(
    app: &App,
    cluster: &Cluster,
    deployment: &DeploymentName,
) -> Vec<InterpositionView> {
    let spec = cluster.deployments.get(deployment);
    let order = |via: &record::Via| {
        let entries = spec.map(|spec| spec.interpositions.as_slice()).unwrap_or_default();
        let at = entries.iter().position(|entry| {
            entry.with == via.with && (entry.port == via.port || entry.pair.as_ref() == Some(&via.port))
        });
        (via.phase == Phase::Leaving, at.unwrap_or(usize::MAX))
    };
    let mut vias: Vec<_> = interpose::vias_of(cluster, deployment).collect();
    vias.sort_by_key(|(_, via)| order(via));
    vias.into_iter().map(|(id, via)| interposition(app, cluster, id, via)).collect()
}

fn instance_view(app: &App, cluster: &Cluster, id: &InstanceId) -> Option<InstanceView> {
    cluster.instances.get(id).map(|record| views::instance(app, cluster, id, record))
}

fn interposition(app: &App, cluster: &Cluster, id: &InstanceId, via: &record::Via) -> InterpositionView {
    let not_ready = |id: &InstanceId| {
        let view = instance_view(app, cluster, id);
        match view {
            Some(view) if is_ready(view.state) => None,
            Some(view) => Some(view.reason.unwrap_or_else(|| format!("{:?}", view.state).to_lowercase())),
            None => Some("there is no such instance".into()),
        }
    };
    let chain = interpose::chain(cluster, &id.deployment, &via.port);
    let broken = chain.iter().find_map(|link| not_ready(link).map(|why| (*link, why)));
    let pair = via
        .pair
        .as_ref()
        .map(|pair| InstanceId { deployment: id.deployment.clone(), member: pair.member.clone() });
    let reason = match (&via.phase, &broken) {
        (_, Some((link, why))) => Some(format!("nothing passes until {link} is ready: {why}")),
        (Phase::Prepared, None) => match (not_ready(id), pair.as_ref().and_then(not_ready)) {
            (Some(why), _) => Some(format!("waits until it is ready: {why}")),
            (None, Some(why)) => Some(format!("waits for its other end: {why}")),
            (None, None) => Some("is about to be spliced".into()),
        },
        (Phase::Leaving, None) => Some("waits until its host says that it is out of the path".into()),
        (Phase::Spliced, None) => None,
    };
    InterpositionView {
        port: via.port.clone(),
        with: via.with.clone(),
        instance: id.clone(),
        pair,
        phase: via.phase,
        passes: broken.is_none(),
        reason,
    }
}

/// A deployment as one picture; none if there is none.
pub(crate) fn topology(
    app: &App,
    cluster: &Cluster,
    deployment: &DeploymentName,
    at_ms: u64,
) -> Option<TopologyView> {
    let bundle = bundle_of(cluster, deployment)?;
    let views = networks(app, cluster, |name| name == deployment);
    Some(TopologyView {
        deployment: deployment.clone(),
        at_ms,
        members: cluster
            .instances_of(deployment)
            .map(|(id, record)| member(app, cluster, bundle, &views::instance(app, cluster, id, record)))
            .collect(),
        links: links(cluster, deployment, &views),
        networks: views.iter().map(|view| topology_network(bundle, view, cluster)).collect(),
        interpositions: interpositions(app, cluster, deployment),
        mirrors: mirrors(app, deployment),
    })
}

fn member(app: &App, cluster: &Cluster, bundle: &BundleSpec, view: &InstanceView) -> TopologyMember {
    let name = &view.id.member;
    TopologyMember {
        name: name.clone(),
        appliance: view.appliance.clone(),
        host: view.host.clone(),
        online: view.host.as_ref().is_some_and(|host| app.live.seen(host).online),
        state: view.state,
        gateway: bundle.members.get(name).is_some_and(|member| member.gateway.is_some()),
        interposed: cluster.vias.contains_key(&view.id),
    }
}

fn topology_network(bundle: &BundleSpec, view: &NetworkView, cluster: &Cluster) -> TopologyNetwork {
    let kind = |spec: &NetworkSpec| match &spec.uplink {
        None => "private",
        Some(NetworkUplink::Lan(LanUplink::Site)) => "site",
        Some(NetworkUplink::Lan(LanUplink::Nat)) => "nat",
        Some(NetworkUplink::Lan(LanUplink::Routed)) => "routed",
        Some(NetworkUplink::Vlan(_)) => "vlan",
    };
    let routes = |host: &HostName| {
        let id = format!("{}/{}", view.deployment, view.name);
        let networks = cluster.desired.get(host).map(|document| document.networks.as_slice());
        let routes = |network: &Network| network.router.as_ref().is_some_and(|router| !router.elsewhere);
        networks.unwrap_or_default().iter().any(|network| network.id == id && routes(network))
    };
    TopologyNetwork {
        name: view.name.clone(),
        kind: bundle.networks.get(&view.name).map_or("wire", kind).into(),
        subnets: view.subnets.clone(),
        ready: view.ready,
        hosts: view.hosts.iter().map(|host| host.host.clone()).collect(),
        router: view.hosts.iter().find(|host| routes(&host.host)).map(|host| TopologyRouter {
            host: host.host.clone(),
            ready: host.router.as_ref().is_some_and(|router| router.ready),
        }),
    }
}

/// Every NIC of the deployment, where it is now; those that are nowhere yet where they belong.
fn links(cluster: &Cluster, deployment: &DeploymentName, views: &[NetworkView]) -> Vec<TopologyLink> {
    let told: BTreeMap<&str, (&NetworkView, &NetworkPort)> = views
        .iter()
        .flat_map(|view| view.hosts.iter().flat_map(|host| &host.ports).map(move |port| (view, port)))
        .map(|(view, port)| (port.id.as_str(), (view, port)))
        .collect();
    let ports = cluster
        .instances_of(deployment)
        .flat_map(|(id, instance)| instance.ports.iter().map(move |port| (id, port)))
        .filter(|(_, port)| port.watches.is_none());
    ports
        .map(|(id, port)| {
            let at = told.get(format!("{id}/{}", port.name).as_str());
            let status = at.and_then(|(_, port)| port.status.clone()).unwrap_or_default();
            TopologyLink {
                member: id.member.clone(),
                port: port.name.clone(),
                network: at.map_or_else(|| port.network.clone(), |(view, _)| view.name.clone()),
                addresses: match at {
                    Some((_, port)) => port.addresses.clone(),
                    None => port.ips().map(|address| address.to_string()).collect(),
                },
                held: at.is_some_and(|(_, port)| port.held),
                ready: status.ready,
                carrier: status.carrier,
                from_guest: status.from_guest,
                to_guest: status.to_guest,
                dropped_frames: dropped(&status),
            }
        })
        .collect()
}

fn dropped(status: &PortStatus) -> u64 {
    [status.dropped_spoofed, status.dropped_from_guest, status.dropped_to_guest]
        .iter()
        .fold(0, |sum, counter| sum.saturating_add(counter.frames))
}

fn mirrors(app: &App, deployment: &DeploymentName) -> Vec<TopologyMirror> {
    let own = |id: &str| id.split_once('/').is_some_and(|(name, _)| name == deployment.as_str());
    app.live
        .statuses()
        .into_iter()
        .flat_map(|(host, status)| {
            let mirrors = status.networks.map(|networks| networks.mirrors).unwrap_or_default();
            mirrors.into_iter().map(move |status| (host.clone(), status))
        })
        .filter(|(_, status)| own(&status.id))
        .map(|(host, status)| TopologyMirror { id: status.id.clone(), host, status })
        .collect()
}
