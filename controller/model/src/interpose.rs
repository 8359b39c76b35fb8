//! Appliances in the path of running ports.
//!
//! Every entry of a deployment's `interpositions` becomes an instance of its own, a *via*, on the host of the port it
//! stands before. Its inner port is on a wire, a network of two ports; its outer port takes the place of the port:
//!
//! ```text
//!   prepared   network ── port ── guest            network ── outer (held)   inner ── wire
//!   spliced    network ── outer ── via ── inner ── wire ── port ── guest
//!   leaving    as prepared, until the host says that it is so; then the via goes
//! ```
//!
//! Several at one port form a chain in the document's order, the first nearest to the guest.
//!
//! Invariants:
//! - The end of the chain on the network has the port's address, permissions and limits, and nothing else has them.
//! - What is spliced is in the path whether it runs or not: without it nothing passes.
//! - A port that never was without its via never is: where the guest has no host yet, a via is spliced from the start.
//! - Only a via whose guest has said that it is ready comes into a path that is in use, and both of a pair at once.
//! - A via goes only after the path without it is reported to be in force.

use crate::apply::Refusal;
use crate::cluster::{Cluster, Stored};
use crate::draft::Draft;
use crate::placement::Observed;
use crate::validate::{self, Finding, Findings};
use crate::{expand, name, record, wire};
use controller_api::agent::{HostStatus, InstanceState};
use controller_api::document::{BundleSpec, DeploymentSpec, MemberSpec, PlacementSpec, PortSpec};
use controller_api::interpose::{InterpositionPhase as Phase, InterpositionSpec, MemberPort};
use netd_api::{Network, Port};
use std::collections::{BTreeMap, BTreeSet};
use types::{
    ApplianceRef, DeploymentName, HostName, InstanceId, MemberName, NAME_LEN_MAX, NetworkName, PortName,
};

/// Most interpositions of a deployment.
pub const INTERPOSITIONS_MAX: usize = 64;
/// Most at one port.
pub const CHAIN_MAX: usize = 8;

/// One place where an entry of a document puts an instance.
#[derive(Debug, Clone, Copy)]
struct End<'a> {
    /// Of the entry.
    index: usize,
    entry: &'a InterpositionSpec,
    /// `port` or `pair`.
    field: &'static str,
    port: &'a MemberPort,
    /// The entry's other port.
    other: Option<&'a MemberPort>,
}

fn ends(spec: &DeploymentSpec) -> impl Iterator<Item = End<'_>> {
    spec.interpositions.iter().enumerate().flat_map(|(index, entry)| {
        let near = End { index, entry, field: "port", port: &entry.port, other: entry.pair.as_ref() };
        let far = entry.pair.as_ref().map(|port| End {
            index,
            entry,
            field: "pair",
            port,
            other: Some(&entry.port),
        });
        std::iter::once(near).chain(far)
    })
}

impl End<'_> {
    fn path(&self, field: &str) -> String {
        format!("spec.interpositions[{}].{field}", self.index)
    }

    fn appliance(&self) -> MemberSpec {
        MemberSpec {
            appliance: self.entry.with.clone(),
            channel: self.entry.channel.clone(),
            version: self.entry.version.clone(),
            ports: BTreeMap::new(),
            gateway: None,
            volumes: BTreeMap::new(),
            memory: None,
            vcpus: None,
            placement: PlacementSpec::default(),
            health: None,
            cloud_init: None,
        }
    }
}

/// What is wrong with the interpositions of a deployment of this bundle.
pub(crate) fn check(spec: &DeploymentSpec, bundle: &BundleSpec, cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Findings::default();
    if spec.interpositions.len() > INTERPOSITIONS_MAX {
        let message =
            format!("{} interpositions are more than {INTERPOSITIONS_MAX}", spec.interpositions.len());
        findings.add("spec.interpositions", message);
    }
    let mut at: BTreeMap<&MemberPort, Vec<&ApplianceRef>> = BTreeMap::new();
    for end in ends(spec) {
        if let Some(message) = no_such_port(bundle, end.port) {
            findings.add(end.path(end.field), message);
            continue;
        }
        if end.other == Some(end.port) {
            findings.add(end.path("pair"), format!("{} is no pair with itself: name another port", end.port));
            continue;
        }
        let with = at.entry(end.port).or_default();
        if with.contains(&&end.entry.with) {
            let message = format!("{} goes through {} already: remove one", end.port, end.entry.with);
            findings.add(end.path(end.field), message);
            continue;
        }
        with.push(&end.entry.with);
        if with.len() > CHAIN_MAX {
            let message = format!("{} goes through more than {CHAIN_MAX} appliances", end.port);
            findings.add(end.path(end.field), message);
        }
        if end.field == "port" {
            appliance(&end, cluster, &mut findings);
        }
    }
    findings.0
}

fn no_such_port(bundle: &BundleSpec, port: &MemberPort) -> Option<String> {
    let Some(member) = bundle.members.get(&port.member) else {
        let known = validate::choices(bundle.members.keys(), "it has no members");
        return Some(format!("there is no member {}: {known}", port.member));
    };
    let Some(target) = member.ports.get(&port.port) else {
        let known = member.ports.keys().map(|name| format!("{}/{name}", port.member));
        let known = validate::choices(known, "it has no ports");
        return Some(format!("{} has no port {}: {known}", port.member, port.port));
    };
    matches!(target, PortSpec::Mirror(_)).then(|| format!("{port} only watches: nothing goes through it"))
}

fn appliance(end: &End<'_>, cluster: &Cluster, findings: &mut Findings) {
    let with = &end.entry.with;
    match validate::resolve(cluster, &end.appliance()) {
        Err((field, message)) => {
            let field = if field == "appliance" { "with" } else { field };
            findings.add(end.path(field), message);
        }
        Ok((version, release)) => {
            if release.spec.ports.len() < 2 {
                let count = release.spec.ports.len();
                let message = format!(
                    "{with} {version} has {count} ports: what is interposed needs an outer and an inner one"
                );
                findings.add(end.path("with"), message);
            }
            if let Some(volume) = release.spec.volumes.first() {
                let message = format!("{with} {version} expects a volume {volume}: it cannot be interposed");
                findings.add(end.path("with"), message);
            }
        }
    }
}

/// The via of an end, if there is one that is not on its way out.
fn held<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
    port: &MemberPort,
    with: &ApplianceRef,
) -> Option<&'a InstanceId> {
    vias_of(cluster, deployment)
        .find(|(_, via)| via.port == *port && via.with == *with && via.phase != Phase::Leaving)
        .map(|(id, _)| id)
}

/// The vias of a deployment, in name order.
pub fn vias_of<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
) -> impl Iterator<Item = (&'a InstanceId, &'a Stored<record::Via>)> {
    cluster.vias.iter().filter(move |(id, _)| id.deployment == *deployment)
}

/// The instance whose port a via stands before.
#[must_use]
pub fn guest(id: &InstanceId, via: &record::Via) -> InstanceId {
    InstanceId { deployment: id.deployment.clone(), member: via.port.member.clone() }
}

fn guest_port<'a>(cluster: &'a Cluster, id: &InstanceId, via: &record::Via) -> Option<&'a record::Port> {
    let guest = cluster.instances.get(&guest(id, via))?;
    guest.value.ports.iter().find(|port| port.name == via.port.port)
}

/// What is spliced into a port, from the guest on.
#[must_use]
pub fn chain<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
    port: &MemberPort,
) -> Vec<&'a InstanceId> {
    let Some(spec) = cluster.deployments.get(deployment) else { return Vec::new() };
    ends(spec)
        .filter(|end| end.port == port)
        .filter_map(|end| held(cluster, deployment, port, &end.entry.with))
        .filter(|id| cluster.vias.get(id).is_some_and(|via| via.phase == Phase::Spliced))
        .collect()
}

/// The port that stands for `port` on its network, as netd knows it: its own, or the outer one of its last via.
#[must_use]
pub fn face(cluster: &Cluster, deployment: &DeploymentName, port: &MemberPort) -> String {
    let last = chain(cluster, deployment, port).pop();
    let outer = last.and_then(|id| Some((id, cluster.instances.get(id)?.ports.first()?)));
    match outer {
        Some((id, outer)) => format!("{id}/{}", outer.name),
        None => format!("{deployment}/{port}"),
    }
}

/// Brings the vias of a deployment into line with its document. `fresh` gives a new UUID.
pub(crate) fn expand(
    draft: &mut Draft,
    deployment: &DeploymentName,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Finding> {
    let before = draft.cluster.clone();
    let Some(spec) = before.deployments.get(deployment) else { return Ok(()) };
    let Some(bundle) = before.bundles.get(&spec.bundle) else { return Ok(()) };
    let mut named: BTreeMap<(MemberPort, ApplianceRef), InstanceId> = BTreeMap::new();
    let mut taken: BTreeSet<MemberName> =
        vias_of(&before, deployment).map(|(id, _)| id.member.clone()).collect();
    for end in ends(spec) {
        let id = match held(&before, deployment, end.port, &end.entry.with) {
            Some(id) => id.clone(),
            None => {
                let member = free_name(bundle, end.port, &taken).ok_or_else(|| Finding {
                    path: end.path(end.field),
                    message: "no name is free for its instance".into(),
                })?;
                taken.insert(member.clone());
                InstanceId { deployment: deployment.clone(), member }
            }
        };
        named.insert((end.port.clone(), end.entry.with.clone()), id);
    }
    let mut secrets: BTreeMap<usize, String> = BTreeMap::new();
    for end in ends(spec) {
        let Some(id) = named.get(&(end.port.clone(), end.entry.with.clone())) else { continue };
        let pair = end.other.and_then(|other| named.get(&(other.clone(), end.entry.with.clone())));
        let pair = pair.map(|other| {
            let kept = before.vias.get(id).and_then(|via| via.pair.clone());
            let kept = kept.filter(|pair| pair.member == other.member).map(|pair| pair.secret);
            let secret = secrets.entry(end.index).or_insert_with(|| {
                kept.unwrap_or_else(|| format!("{}{}", fresh(), fresh()).replace('-', ""))
            });
            record::Pair { member: other.member.clone(), secret: secret.clone() }
        });
        record(draft, &before, &end, id, pair);
    }
    // What a via is told depends on the records of others.
    for end in ends(spec) {
        let id = named.get(&(end.port.clone(), end.entry.with.clone()));
        if let Some((id, via)) = id.and_then(|id| Some((id, draft.cluster.vias.get(id)?.value.clone()))) {
            instance(draft, &before, &end, id, &via, fresh)?;
        }
    }
    let kept: BTreeSet<&InstanceId> = named.values().collect();
    for (id, via) in vias_of(&before, deployment).filter(|(id, _)| !kept.contains(id)) {
        leave(draft, &before, id, via);
    }
    Ok(())
}

/// `via-workspace-eth0-1`; long names are cut short and told apart by what they name.
fn free_name(bundle: &BundleSpec, port: &MemberPort, taken: &BTreeSet<MemberName>) -> Option<MemberName> {
    (1..=INTERPOSITIONS_MAX * 2).find_map(|number| {
        let plain = format!("via-{}-{}-{number}", port.member, port.port);
        let short = || format!("via-{}-{number}", &name::digest(port.to_string().as_bytes()).hex()[..12]);
        let text = if plain.len() <= NAME_LEN_MAX { plain } else { short() };
        let (member, network) = (text.parse::<MemberName>().ok()?, text.parse::<NetworkName>().ok()?);
        let free = !taken.contains(&member)
            && !bundle.members.contains_key(&member)
            && !bundle.networks.contains_key(&network);
        free.then_some(member)
    })
}

fn record(draft: &mut Draft, before: &Cluster, end: &End<'_>, id: &InstanceId, pair: Option<record::Pair>) {
    let guest = InstanceId { deployment: id.deployment.clone(), member: end.port.member.clone() };
    let phase = match before.vias.get(id) {
        Some(via) => via.phase,
        None if before.placements.contains_key(&guest) => Phase::Prepared,
        None => Phase::Spliced,
    };
    let new = record::Via { port: end.port.clone(), with: end.entry.with.clone(), phase, pair };
    if before.vias.get(id).map(|held| &held.value) != Some(&new) {
        draft.put(record::via_key(id), &new);
    }
}

fn instance(
    draft: &mut Draft,
    before: &Cluster,
    end: &End<'_>,
    id: &InstanceId,
    via: &record::Via,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Finding> {
    let spec = end.appliance();
    let finding = |(field, message): (&str, String)| Finding {
        path: end.path(if field == "appliance" { "with" } else { field }),
        message,
    };
    let names = port_names(before, id, &spec).map_err(finding)?;
    let Some(port) = guest_port(before, id, via) else { return Ok(()) };
    let wire = id.member.as_str().parse::<NetworkName>().ok();
    let (Some(outer), Some(inner), Some(wire)) = (names.first(), names.get(1), wire) else {
        return Err(finding(("appliance", format!("{} has fewer than two ports", end.entry.with))));
    };
    let ports: Vec<record::Port> = [(outer, &port.network), (inner, &wire)]
        .into_iter()
        .map(|(own, network)| record::Port {
            name: own.clone(),
            network: network.clone(),
            mac: name::mac(&id.deployment, &id.member, own),
            tap: name::tap(&id.deployment, &id.member, own),
            addresses: Vec::new(),
            ..port.clone()
        })
        .collect();
    let part = part(&draft.cluster, id, via, &ports);
    expand::instance(draft, before, id, &spec, ports, &part, fresh)
        .map_err(|finding| Finding { path: end.path("with"), message: finding.message })
}

fn port_names(
    before: &Cluster,
    id: &InstanceId,
    spec: &MemberSpec,
) -> Result<Vec<PortName>, (&'static str, String)> {
    let held = before.instances.get(id).filter(|held| expand::keeps_version(held, spec));
    let held = held.and_then(|held| before.versions.get(&(spec.appliance.clone(), held.version.clone())));
    match held {
        Some(release) => Ok(release.spec.ports.clone()),
        None => validate::resolve(before, spec).map(|(_, release)| release.spec.ports.clone()),
    }
}

/// A via that no document names any more leaves the path first, if it may be in one.
fn leave(draft: &mut Draft, before: &Cluster, id: &InstanceId, via: &record::Via) {
    let in_path = via.phase != Phase::Prepared
        && before.placements.contains_key(id)
        && guest_port(before, id, via).is_some();
    if !in_path {
        forget(draft, id);
    } else if via.phase != Phase::Leaving {
        draft.put(record::via_key(id), &record::Via { phase: Phase::Leaving, ..via.clone() });
    }
}

/// Removes a via with its instance.
pub(crate) fn forget(draft: &mut Draft, id: &InstanceId) {
    draft.delete(record::via_key(id));
    draft.delete(record::instance_key(id));
    draft.delete(record::placement_key(id));
}

/// What the vias of a deployment are told.
pub(crate) fn parts(cluster: &Cluster, deployment: &DeploymentName) -> BTreeMap<MemberName, wire::Member> {
    vias_of(cluster, deployment)
        .filter_map(|(id, via)| {
            let ports = &cluster.instances.get(id)?.ports;
            Some((id.member.clone(), part(cluster, id, via, ports)))
        })
        .collect()
}

fn part(cluster: &Cluster, id: &InstanceId, via: &record::Via, ports: &[record::Port]) -> wire::Member {
    let other = via.pair.as_ref().and_then(|pair| {
        let other = InstanceId { deployment: id.deployment.clone(), member: pair.member.clone() };
        let port = guest_port(cluster, &other, &cluster.vias.get(&other)?.value)?;
        Some((port.clone(), pair.secret.clone()))
    });
    let interposed = match (ports, guest_port(cluster, id, via)) {
        ([outer, inner, ..], Some(port)) => Some(wire::Interposed {
            outer: outer.name.clone(),
            inner: inner.name.clone(),
            at: format!("{}/{}", id.deployment, via.port),
            port: port.clone(),
            pair: other,
        }),
        _ => None,
    };
    let ports = ports.iter().map(|port| (port.name.clone(), wire::Port::default())).collect();
    wire::Member { ports, interposed, ..wire::Member::default() }
}

/// Whether an instance may be on the host it is placed on: a via is with its guest, or nowhere.
#[must_use]
pub fn stands(cluster: &Cluster, id: &InstanceId, host: &HostName) -> bool {
    cluster.vias.get(id).is_none_or(|via| {
        cluster.placements.get(&guest(id, via)).is_some_and(|placement| placement.host == *host)
    })
}

/// The host an instance has to be on because of where another one is: `Err` while that one has none.
///
/// # Errors
/// The instance it follows has no host yet.
pub fn follows(cluster: &Cluster, id: &InstanceId) -> Result<Option<(InstanceId, HostName)>, InstanceId> {
    let Some(via) = cluster.vias.get(id) else { return Ok(None) };
    let guest = guest(id, via);
    match cluster.placements.get(&guest) {
        Some(placement) => Ok(Some((guest, placement.host.clone()))),
        None => Err(guest),
    }
}

/// Bytes of memory that instances need which follow this one, and are not on a host yet.
#[must_use]
pub fn followers_memory(cluster: &Cluster, id: &InstanceId) -> u64 {
    vias_of(cluster, &id.deployment)
        .filter(|(other, via)| guest(other, via) == *id)
        .filter_map(|(other, _)| cluster.instances.get(other))
        .fold(0, |sum, instance| sum.saturating_add(instance.memory.0))
}

/// Puts the vias of one host into its networks, which have the members' ports already.
pub(crate) fn weave(cluster: &Cluster, host: &HostName, networks: &mut Vec<Network>) {
    let guests: BTreeSet<(InstanceId, &MemberPort)> = cluster
        .vias
        .iter()
        .map(|(id, via)| (guest(id, via), &via.value.port))
        .filter(|(guest, _)| is_on(cluster, guest, host))
        .collect();
    for (guest, port) in guests {
        let own = cluster.instances.get(&guest).and_then(|i| i.ports.iter().find(|p| p.name == port.port));
        let Some(own) = own else { continue };
        let id = format!("{}/{}", guest.deployment, own.network);
        let Some(network) = networks.iter_mut().find(|network| network.id == id) else { continue };
        let wires = splice(cluster, host, &guest.deployment, port, &own.tap, network);
        networks.extend(wires.into_iter().map(|wire| Network { mtu: own.mtu, ..wire }));
    }
}

fn is_on(cluster: &Cluster, id: &InstanceId, host: &HostName) -> bool {
    cluster.placements.get(id).is_some_and(|placement| placement.host == *host)
}

/// Puts the vias of one port into its network, and returns the wires behind it.
fn splice(
    cluster: &Cluster,
    host: &HostName,
    deployment: &DeploymentName,
    port: &MemberPort,
    tap: &str,
    network: &mut Network,
) -> Vec<Network> {
    let Some(place) = network.ports.iter().position(|port| port.tap == tap) else { return Vec::new() };
    let chain = chain(cluster, deployment, port);
    let mut wires = Vec::new();
    if !chain.is_empty() {
        let face = network.ports.remove(place);
        let mut below = Some(Port::closed(face.id.clone(), face.tap.clone(), face.mac));
        for id in &chain {
            let Some((outer, inner)) = two(cluster, id) else { continue };
            let here = is_on(cluster, id, host);
            let ends: Vec<Port> = below.take().into_iter().chain(here.then(|| bare(id, inner))).collect();
            if !ends.is_empty() {
                wires.push(wire(id, inner, ends));
            }
            below = here.then(|| bare(id, outer));
        }
        if let Some(Port { id, tap, .. }) = below {
            network.ports.insert(place, Port { id, tap, ..face });
        }
    }
    for (id, via) in vias_of(cluster, deployment) {
        let beside = via.port == *port && !chain.contains(&id) && is_on(cluster, id, host);
        if let Some((outer, inner)) = two(cluster, id).filter(|_| beside) {
            wires.push(wire(id, inner, vec![bare(id, inner)]));
            network.ports.push(Port { held: true, ..bare(id, outer) });
        }
    }
    wires
}

fn two<'a>(cluster: &'a Cluster, id: &InstanceId) -> Option<(&'a record::Port, &'a record::Port)> {
    match cluster.instances.get(id)?.value.ports.as_slice() {
        [outer, inner, ..] => Some((outer, inner)),
        _ => None,
    }
}

fn bare(id: &InstanceId, port: &record::Port) -> Port {
    Port::closed(format!("{id}/{}", port.name), port.tap.clone(), port.mac)
}

fn wire(id: &InstanceId, inner: &record::Port, ports: Vec<Port>) -> Network {
    Network {
        id: format!("{}/{}", id.deployment, inner.network),
        bridge: name::bridge(&id.deployment, &inner.network),
        wire: true,
        ports,
        ..Network::default()
    }
}

/// What became of vias.
#[derive(Debug)]
pub struct Settled {
    /// The writes, if any.
    pub draft: Draft,
    /// Object, reason and message of what happened.
    pub events: Vec<(String, &'static str, String)>,
    /// Some are not where they are going yet.
    pub waiting: bool,
}

/// Takes vias one phase on where their hosts say that it is time, and away from hosts that their guests have left.
#[must_use]
pub fn settle(cluster: &Cluster, observed: &Observed, online: &BTreeSet<HostName>) -> Settled {
    let mut settled = Settled { draft: Draft::new(cluster.clone()), events: Vec::new(), waiting: false };
    for (id, via) in &cluster.vias {
        if let Some(placement) = cluster.placements.get(id)
            && !stands(cluster, id, &placement.host)
        {
            settled.draft.delete(record::placement_key(id));
        }
        let done = match via.phase {
            Phase::Spliced => true,
            Phase::Prepared => come(cluster, id, via, observed, online, &mut settled),
            Phase::Leaving => go(cluster, id, via, observed, &mut settled),
        };
        settled.waiting |= !done;
    }
    settled
}

fn come(
    cluster: &Cluster,
    id: &InstanceId,
    via: &record::Via,
    observed: &Observed,
    online: &BTreeSet<HostName>,
    settled: &mut Settled,
) -> bool {
    let ready = |id: &InstanceId| is_ready(cluster, id, observed, online);
    let other = via
        .pair
        .as_ref()
        .map(|pair| InstanceId { deployment: id.deployment.clone(), member: pair.member.clone() });
    // The other end may be in the path already: its guest had no host when it was made.
    let other_ready = other.is_none_or(|other| ready(&other));
    if !ready(id) || !other_ready {
        return false;
    }
    settled.draft.put(record::via_key(id), &record::Via { phase: Phase::Spliced, ..via.clone() });
    let message = format!("{}/{} goes through {id} ({})", id.deployment, via.port, via.with);
    settled.events.push((format!("instance/{id}"), "interposition-spliced", message));
    true
}

/// Its guest has said that it is ready, on the host where it belongs.
#[must_use]
pub fn is_ready(
    cluster: &Cluster,
    id: &InstanceId,
    observed: &Observed,
    online: &BTreeSet<HostName>,
) -> bool {
    let (Some(instance), Some(placement)) = (cluster.instances.get(id), cluster.placements.get(id)) else {
        return false;
    };
    let said = |status: &HostStatus| {
        status.instances.iter().any(|said| {
            said.id == *id && said.incarnation == instance.incarnation && said.state == InstanceState::Ready
        })
    };
    online.contains(&placement.host)
        && stands(cluster, id, &placement.host)
        && observed.get(&placement.host).is_some_and(said)
}

fn go(
    cluster: &Cluster,
    id: &InstanceId,
    via: &record::Via,
    observed: &Observed,
    settled: &mut Settled,
) -> bool {
    if !is_out(cluster, id, via, observed) {
        return false;
    }
    forget(&mut settled.draft, id);
    let message = format!("{}/{} does not go through {id} any more", id.deployment, via.port);
    settled.events.push((format!("instance/{id}"), "interposition-removed", message));
    true
}

/// The host says that every port of the way without this via is where it shall be.
fn is_out(cluster: &Cluster, id: &InstanceId, via: &record::Via, observed: &Observed) -> bool {
    let (Some(placement), Some(own)) = (cluster.placements.get(id), guest_port(cluster, id, via)) else {
        return true;
    };
    let host = &placement.host;
    if !stands(cluster, id, host) || !cluster.hosts.contains_key(host) {
        return true;
    }
    let Some((outer, _)) = two(cluster, id) else { return true };
    let (Some(desired), Some(status)) =
        (cluster.desired.get(host), observed.get(host).and_then(|status| status.networks.as_ref()))
    else {
        return false;
    };
    let place = |tap: &str| {
        let mut all = desired.networks.iter().flat_map(|n| n.ports.iter().map(move |port| (&n.id, port)));
        all.find(|(_, port)| port.tap == tap)
    };
    let in_force = |tap: &str| {
        place(tap).is_some_and(|(network, _)| {
            let network = status.networks.iter().find(|said| said.id == *network);
            network.is_some_and(|said| said.ports.iter().any(|port| port.tap == tap && port.ready))
        })
    };
    let way = chain(cluster, &id.deployment, &via.port);
    let mut way = way.into_iter().filter_map(|id| two(cluster, id)).map(|(outer, _)| outer.tap.as_str());
    place(&outer.tap).is_some_and(|(_, port)| port.held) && in_force(&own.tap) && way.all(in_force)
}

/// Adds an entry to a deployment's document, or changes the one of the same port and appliance.
///
/// # Errors
/// [`Refusal`]; the message says what to write instead.
pub fn add(
    draft: &mut Draft,
    deployment: &DeploymentName,
    entry: InterpositionSpec,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    edit(draft, deployment, fresh, |entries| {
        match entries.iter_mut().find(|held| held.port == entry.port && held.with == entry.with) {
            Some(held) => *held = entry,
            None => entries.push(entry),
        }
        Ok(())
    })
}

/// Removes the entries of a port from a deployment's document: those with this appliance, or all. An entry is also
/// found by its other end.
///
/// # Errors
/// [`Refusal::NotFound`].
pub fn remove(
    draft: &mut Draft,
    deployment: &DeploymentName,
    port: &MemberPort,
    with: Option<&ApplianceRef>,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    edit(draft, deployment, fresh, |entries| {
        let before = entries.len();
        entries.retain(|entry| {
            let here = entry.port == *port || entry.pair.as_ref() == Some(port);
            !(here && with.is_none_or(|with| entry.with == *with))
        });
        let what = with.map_or_else(|| "nothing".to_owned(), |with| format!("no {with}"));
        match entries.len() == before {
            true => Err(Refusal::NotFound(format!("{what} is interposed at {deployment}/{port}"))),
            false => Ok(()),
        }
    })
}

fn edit(
    draft: &mut Draft,
    deployment: &DeploymentName,
    fresh: &mut dyn FnMut() -> String,
    change: impl FnOnce(&mut Vec<InterpositionSpec>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let unknown = || Refusal::NotFound(format!("there is no deployment {deployment}"));
    let held = draft.cluster.deployments.get(deployment).ok_or_else(unknown)?.value.clone();
    let mut spec = held.clone();
    change(&mut spec.interpositions)?;
    let bundle = draft.cluster.bundles.get(&spec.bundle).map(|bundle| bundle.value.clone());
    let bundle = bundle.ok_or_else(|| Refusal::NotFound(format!("there is no bundle {}", spec.bundle)))?;
    if let Some(finding) = check(&spec, &bundle, &draft.cluster).into_iter().next() {
        return Err(Refusal::Unfit(finding.message));
    }
    if spec == held {
        return Ok(());
    }
    draft.put(format!("deployments/{deployment}"), &spec);
    expand::expand(draft, deployment, fresh).map_err(|finding| Refusal::Unfit(finding.message))
}
