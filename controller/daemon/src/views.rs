//! Records and reports as the API shows them.

use crate::app::{App, is_ready};
use crate::live::Seen;
use crate::networks;
use chassis::clock::unix_ms;
use controller_api::agent::{InstanceState, InstanceStatus};
use controller_api::host::AttestationView;
use controller_api::policy::{DecisionView, PolicyOrigin, PolicyView, TrustName, TrustRootView};
use controller_api::rest::{
    ApplianceView, BundleView, CatalogueVersion, DeploymentView, HostView, InstanceView, PortView, SiteView,
    VolumeView,
};
use controller_api::stream::{HoldProgress, HoldView};
use controller_model::cluster::Stored;
use controller_model::{Cluster, policy, record, streams, update};
use std::collections::{BTreeMap, BTreeSet};
use types::{
    ApplianceRef, BundleName, DeploymentName, HostName, InstanceId, PolicyName, SiteName, VersionName,
};

pub(crate) fn bundle(cluster: &Cluster, name: &BundleName) -> Option<BundleView> {
    let held = cluster.bundles.get(name)?;
    Some(BundleView {
        name: name.clone(),
        revision: held.revision,
        spec: held.value.clone(),
        deployments: cluster.deployments_of(name).cloned().collect(),
    })
}

pub(crate) fn deployment(app: &App, cluster: &Cluster, name: &DeploymentName) -> Option<DeploymentView> {
    let held = cluster.deployments.get(name)?;
    let instances: Vec<InstanceView> =
        cluster.instances_of(name).map(|(id, record)| instance(app, cluster, id, record)).collect();
    let mut problems: Vec<String> = instances
        .iter()
        .filter(|instance| !is_ready(instance.state))
        .map(|instance| {
            let why = instance.reason.as_deref().unwrap_or(match instance.state {
                InstanceState::Preparing => "its host prepares it",
                InstanceState::Booting => "it boots",
                _ => "it waits",
            });
            format!("{}: {why}", instance.id)
        })
        .collect();
    problems.extend(update::runs_refused(cluster, name));
    Some(DeploymentView {
        name: name.clone(),
        revision: held.revision,
        spec: held.value.clone(),
        ready: !instances.is_empty() && instances.iter().all(|instance| is_ready(instance.state)),
        instances,
        interpositions: networks::interpositions(app, cluster, name),
        problems,
    })
}

/// What an instance's host says of it, and why that is not all.
fn observed(
    cluster: &Cluster,
    id: &InstanceId,
    record: &record::Instance,
    placed: Option<(&HostName, &Seen)>,
) -> (Option<InstanceStatus>, InstanceState, Option<String>) {
    let Some((host, seen)) = placed else {
        let reason = cluster.last_decision(id).and_then(|decision| decision.notes.first().cloned());
        return (None, InstanceState::Pending, Some(reason.unwrap_or_else(|| "it waits for a host".into())));
    };
    let status = seen.instances.get(id).filter(|status| status.incarnation == record.incarnation).cloned();
    if !seen.online {
        let reason = match seen.seen_ms {
            0 => format!("host {host} has not been heard of since the controller started"),
            _ => format!("host {host} is offline"),
        };
        let state = status.as_ref().map_or(InstanceState::Pending, |status| status.state);
        // What an unreachable host served may serve still, but nobody can say so.
        let state = if is_ready(state) { InstanceState::Booting } else { state };
        return (status, state, Some(reason));
    }
    match status {
        Some(status) => {
            let (state, reason) = (status.state, status.reason.clone());
            (Some(status), state, reason)
        }
        None => (None, InstanceState::Pending, Some(format!("host {host} has not taken it up yet"))),
    }
}

pub(crate) fn instance(
    app: &App,
    cluster: &Cluster,
    id: &InstanceId,
    record: &Stored<record::Instance>,
) -> InstanceView {
    let host = cluster.placements.get(id).map(|placement| placement.host.clone());
    let seen = host.as_ref().map(|host| (host, app.live.seen(host)));
    let placed = seen.as_ref().map(|(host, seen)| (*host, seen));
    let watches = placed
        .and_then(|(_, seen)| seen.status.as_ref())
        .map(|status| status.watches.iter().filter(|watch| watch.instance == *id).cloned().collect());
    let (status, state, reason) = observed(cluster, id, record, placed);
    let placement = match cluster.placements.get(id) {
        Some(placement) => cluster.decisions.get(&placement.decision).map(|decision| decision.value.clone()),
        None => cluster.last_decision(id).cloned(),
    };
    InstanceView {
        id: id.clone(),
        incarnation: record.incarnation.clone(),
        appliance: record.appliance.clone(),
        version: record.version.clone(),
        image: record.image,
        host,
        state,
        reason,
        started_ms: status.as_ref().and_then(|status| status.started_ms),
        ready_ms: status.as_ref().and_then(|status| status.ready_ms),
        starts: status.map_or(0, |status| status.starts),
        ports: record
            .ports
            .iter()
            .map(|port| PortView {
                name: port.name.clone(),
                network: port.network.clone(),
                address: port.ips().next(),
                addresses: port.ips().collect(),
                watches: port.watched(),
                mac: port.mac,
                tap: port.tap.clone(),
            })
            .collect(),
        volumes: record.volumes.clone(),
        placement,
        watches: watches.unwrap_or_default(),
        vcpus: record.vcpus,
        memory: record.memory,
    }
}

pub(crate) fn host(app: &App, cluster: &Cluster, name: &HostName) -> Option<HostView> {
    let held = cluster.hosts.get(name)?;
    let seen = app.live.seen(name);
    let status = seen.status.map(|status| {
        let mut status = controller_api::agent::HostStatus::clone(&status);
        // Piece maps are for the view of one boot.
        status.images.values_mut().for_each(|image| image.piece_map = None);
        status
    });
    Some(HostView {
        name: name.clone(),
        site: held.site.clone(),
        role: held.role.clone(),
        service: held.service,
        labels: held.labels.clone(),
        attestation: held.attested().map(|attestation| AttestationView {
            note: attestation.note.clone(),
            who: attestation.who.clone(),
            at_ms: attestation.at_ms,
        }),
        online: seen.online,
        seen_ms: (seen.seen_ms > 0).then_some(seen.seen_ms),
        facts: cluster.facts.get(name).map(|facts| facts.value.clone()),
        status,
    })
}

pub(crate) fn sites(cluster: &Cluster) -> Vec<SiteView> {
    let hosts = |site: &SiteName| {
        let here = cluster.hosts.iter().filter(|(_, host)| host.site == *site && host.role == "host");
        here.map(|(name, _)| name.clone()).collect()
    };
    cluster
        .sites
        .iter()
        .map(|(name, spec)| SiteView { name: name.clone(), spec: spec.value.clone(), hosts: hosts(name) })
        .collect()
}

pub(crate) fn volumes(cluster: &Cluster) -> Vec<VolumeView> {
    let uses = |id: &InstanceId, volume| {
        cluster.instances.get(id).is_some_and(|instance| instance.volumes.contains(volume))
    };
    cluster
        .volumes
        .iter()
        .filter_map(|((instance, name), volume)| {
            Some(VolumeView {
                instance: instance.clone(),
                name: name.clone(),
                size: volume.size,
                host: volume.host.clone()?,
                in_use: uses(instance, name),
            })
        })
        .collect()
}

pub(crate) fn hold(
    app: &App,
    cluster: &Cluster,
    appliance: &ApplianceRef,
    version: &VersionName,
    hold: &record::Hold,
) -> HoldView {
    let size = cluster.images.get(&hold.image.hex()).map_or(0, |image| image.size_bytes);
    let progress = |host: &HostName| {
        let seen = app.live.seen(host);
        let image = seen.status.as_ref().and_then(|status| status.images.get(&hold.image.to_string()));
        let local = image.map_or(0, |image| {
            let pieces = u64::from(image.pieces_local) + u64::from(image.pieces_zero);
            (pieces * u64::from(image.piece_bytes)).min(image.size_bytes)
        });
        HoldProgress {
            host: host.clone(),
            online: seen.online,
            ran: hold.ran.contains(host),
            bytes_local: local,
            bytes_total: size,
            down_bytes_per_s: image.map_or(0, |image| image.rates.down_bytes_per_s),
            trouble: image.and_then(|image| image.trouble.clone()),
        }
    };
    HoldView {
        appliance: appliance.clone(),
        version: version.clone(),
        image: hold.image,
        prefetch: hold.prefetch,
        pin: hold.pin,
        hosts: streams::hosts_of(cluster, hold).map(progress).collect(),
    }
}

pub(crate) fn policy(app: &App, cluster: &Cluster, name: &PolicyName) -> Option<PolicyView> {
    let held = &cluster.policies.get(name)?.value;
    let now_ms = unix_ms();
    let mut health = app.policies.health.of(name, &held.active.digest, now_ms);
    if health.problem.is_none() {
        health.problem = policy::doubt(cluster, held.kind, &held.active, now_ms);
    }
    Some(PolicyView {
        name: name.clone(),
        kind: held.kind,
        active: held.active.clone(),
        on_failure: held.on_failure.clone(),
        earlier: held.earlier.clone(),
        candidate: held.candidate.clone(),
        used_by: policy::users(cluster, name),
        health,
    })
}

pub(crate) fn trust_root(cluster: &Cluster, name: &TrustName) -> Option<TrustRootView> {
    let held = &cluster.trust.get(name)?.value;
    let vouched = |policy: &record::Policy| matches!(&policy.active.origin, PolicyOrigin::Signed { root, .. } if root == name.as_str());
    let policies = cluster.policies.iter().filter(|(_, policy)| vouched(policy));
    Some(TrustRootView {
        name: name.clone(),
        key: held.key.clone(),
        key_id: controller_model::name::digest(&held.key.0),
        kinds: held.kinds.clone(),
        expires_ms: held.expires_ms,
        added_ms: held.added_ms,
        policies: policies.map(|(policy, _)| policy.clone()).collect(),
    })
}

/// A decision with what the candidate said.
pub(crate) fn decision(cluster: &Cluster, number: u64) -> Option<DecisionView> {
    let mut view = cluster.decisions.get(&number)?.value.clone();
    view.shadow = cluster.shadows.get(&number).map(|shadow| shadow.value.clone());
    Some(view)
}

pub(crate) fn appliance(cluster: &Cluster, name: &ApplianceRef) -> Option<ApplianceView> {
    let mut versions: Vec<CatalogueVersion> = cluster
        .versions_of(name)
        .map(|(version, record)| CatalogueVersion {
            version: version.clone(),
            published_ms: record.published_ms,
            image: record.image,
            size_bytes: record.size_bytes,
            spec: record.spec.clone(),
            yanked: record.yanked.clone(),
            untested: record.untested.clone(),
        })
        .collect();
    if versions.is_empty() {
        return None;
    }
    versions.sort_by_key(|version| version.published_ms);
    let channels: BTreeMap<_, _> = cluster
        .channels
        .iter()
        .filter(|((appliance, _), _)| appliance == name)
        .map(|((_, channel), pointer)| (channel.clone(), pointer.version.clone()))
        .collect();
    Some(ApplianceView { name: name.clone(), channels, versions })
}

pub(crate) fn appliances(cluster: &Cluster) -> Vec<ApplianceView> {
    let names: BTreeSet<&ApplianceRef> = cluster.versions.keys().map(|(name, _)| name).collect();
    names.into_iter().filter_map(|name| appliance(cluster, name)).collect()
}
