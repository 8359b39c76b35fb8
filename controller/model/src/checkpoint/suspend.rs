//! Suspend here, resume there: a checkpoint with memory into which a deployment is switched off.

use super::order::{self, Order, find};
use super::restore::{Restore, restore};
use super::{of, out_of_reach};
use crate::apply::Refusal;
use crate::cluster::{Cluster, Stored};
use crate::draft::Draft;
use crate::expand;
use crate::placement::{self, Census};
use crate::record::{self, Checkpoint, CheckpointCause, Then};
use crate::standing::Sight;
use controller_api::life::{DiskName, Power};
use std::collections::BTreeSet;
use types::{DeploymentName, HostName, InstanceId, SiteName, VolumeName};

/// Where a deployment is resumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Where {
    /// Where it was.
    #[default]
    Here,
    /// All of it on this host.
    Host(HostName),
    /// Where it fits at this site.
    Site(SiteName),
}

/// Orders a checkpoint with memory after which the deployment is off. Answers its name.
///
/// # Errors
/// As [`order::request`], or it is off already.
pub fn suspend(
    draft: &mut Draft,
    deployment: &DeploymentName,
    name: Option<String>,
    now_ms: u64,
    fresh: &mut dyn FnMut() -> String,
) -> Result<String, Refusal> {
    let is_off = |(_, instance): (_, &Stored<record::Instance>)| instance.power == Power::Off;
    let members = draft.cluster.instances_of(deployment).count();
    if members > 0 && draft.cluster.instances_of(deployment).all(is_off) {
        return Err(Refusal::Conflict(format!("deployment {deployment} is off already: nothing to suspend")));
    }
    let order = Order { name, then: Then::Off, ..Order::new(CheckpointCause::Person, true) };
    order::request(draft, deployment, order, now_ms, fresh)
}

/// The checkpoint that a deployment is suspended into, if it is.
#[must_use]
pub fn suspended_into<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
) -> Option<(&'a str, &'a Checkpoint)> {
    let mut instances = cluster.instances_of(deployment);
    if !instances.any(|(_, instance)| instance.power == Power::Off) {
        return None;
    }
    of(cluster, deployment).filter(|(_, held)| held.then == Then::Off).max_by_key(|(_, held)| held.taken_ms)
}

/// Lets a suspended deployment go on, from its memory unless told not to. Answers the checkpoint's name.
///
/// # Errors
/// It runs, it is suspended into nothing, a host does not fit or is out of reach, or as [`restore`].
pub fn resume(
    draft: &mut Draft,
    deployment: &DeploymentName,
    (checkpoint, without_memory): (Option<String>, bool),
    to: &Where,
    sight: Sight<'_>,
    fresh: &mut dyn FnMut() -> String,
) -> Result<String, Refusal> {
    let cluster = &draft.cluster;
    if !cluster.deployments.contains_key(deployment) {
        return Err(Refusal::NotFound(format!("there is no deployment {deployment}")));
    }
    if cluster.instances_of(deployment).any(|(_, instance)| instance.power == Power::On) {
        return Err(Refusal::Conflict(format!(
            "deployment {deployment} is not suspended: to go back, use `collective checkpoint restore`"
        )));
    }
    let name = match checkpoint {
        Some(name) => name,
        None => suspended_into(cluster, deployment).map(|(name, _)| name.to_owned()).ok_or_else(|| {
            Refusal::Conflict(format!("deployment {deployment} is suspended into no checkpoint: name one"))
        })?,
    };
    let held = find(cluster, deployment, &name)?.clone();
    if let Some(why) = uncaptured(cluster, deployment, &held).filter(|_| *to != Where::Here) {
        return Err(Refusal::Conflict(why));
    }
    match to {
        Where::Here => {
            if let Some(refusal) = out_of_reach(cluster, sight, deployment, &BTreeSet::new()) {
                return Err(refusal);
            }
        }
        Where::Site(site) => at_site(draft, deployment, site, fresh)?,
        Where::Host(host) => leave(draft, deployment, |now| now != host),
    }
    let with_memory = held.with_memory && !without_memory;
    restore(draft, deployment, &name, &Restore { members: BTreeSet::new(), with_memory }, fresh)?;
    if let Where::Host(host) = to {
        onto(draft, deployment, host, sight)?;
    }
    // What is interposed has no memory to go on from: it boots.
    power_on(draft, deployment);
    if held.then == Then::Off {
        let done = Checkpoint { then: Then::Nothing, ..held };
        draft.put(record::checkpoint_key(deployment, &name), &done);
    }
    Ok(name)
}

/// A volume that would be left behind, and removed there: the checkpoint does not know it.
fn uncaptured(cluster: &Cluster, deployment: &DeploymentName, held: &Checkpoint) -> Option<String> {
    let unknown = |(id, name): &&(InstanceId, VolumeName)| {
        let disks = held.parts.get(&id.member).map(|part| part.disks.as_slice()).unwrap_or_default();
        !disks.iter().any(|disk| disk.disk == DiskName::Volume(name.clone()))
    };
    let mut own = cluster.volumes.iter().filter(|((id, _), volume)| {
        id.deployment == *deployment && cluster.instances.contains_key(id) && volume.host.is_some()
    });
    let (id, name) = own.find(|(key, _)| unknown(key)).map(|(key, _)| key)?;
    Some(format!(
        "volume {id}/{name} is in no file of the checkpoint: resume where it is, or name another one"
    ))
}

fn power_on(draft: &mut Draft, deployment: &DeploymentName) {
    let off: Vec<(InstanceId, record::Instance)> = draft
        .cluster
        .instances_of(deployment)
        .filter(|(_, instance)| instance.power == Power::Off)
        .map(|(id, instance)| (id.clone(), instance.value.clone()))
        .collect();
    for (id, instance) in off {
        draft.put(record::instance_key(&id), &record::Instance { power: Power::On, ..instance });
    }
}

/// Its members have no host any more, as far as they are to leave theirs. They are off: nothing runs twice.
fn leave(draft: &mut Draft, deployment: &DeploymentName, leaves: impl Fn(&HostName) -> bool) {
    let placed: Vec<InstanceId> = draft
        .cluster
        .placements
        .iter()
        .filter(|(id, placement)| id.deployment == *deployment && leaves(&placement.host))
        .map(|(id, _)| id.clone())
        .collect();
    for id in placed {
        draft.delete(record::placement_key(&id));
        let own: Vec<_> = draft
            .cluster
            .volumes
            .iter()
            .filter(|((owner, _), _)| *owner == id)
            .map(|((_, name), volume)| (name.clone(), volume.value.clone()))
            .collect();
        for (name, volume) in own {
            draft.put(record::volume_key(&id, &name), &record::Volume { host: None, ..volume });
        }
    }
}

fn at_site(
    draft: &mut Draft,
    deployment: &DeploymentName,
    site: &SiteName,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    if !draft.cluster.sites.contains_key(site) {
        let known = crate::validate::choices(draft.cluster.sites.keys(), "apply a Site first");
        return Err(Refusal::NotFound(format!("there is no site {site}: {known}")));
    }
    leave(draft, deployment, |_| true);
    let Some(held) = draft.cluster.deployments.get(deployment).map(|held| held.value.clone()) else {
        return Ok(());
    };
    if draft.cluster.site_of(&held).as_ref() == Some(site) {
        return Ok(());
    }
    let mut moved = held;
    moved.site = Some(site.clone());
    if let Some(finding) = expand::check(&moved, &draft.cluster).into_iter().next() {
        return Err(Refusal::Conflict(format!("at site {site}: {}: {}", finding.path, finding.message)));
    }
    draft.put(format!("deployments/{deployment}"), &moved);
    expand::expand(draft, deployment, fresh).map_err(|finding| {
        Refusal::Conflict(format!("at site {site}: {}: {}", finding.path, finding.message))
    })
}

/// Places all members on one host, within the hard limits.
fn onto(
    draft: &mut Draft,
    deployment: &DeploymentName,
    host: &HostName,
    sight: Sight<'_>,
) -> Result<(), Refusal> {
    if draft.cluster.hosts.get(host).is_none_or(|held| held.role != "host") {
        return Err(Refusal::NotFound(format!("there is no host {host}")));
    }
    let elsewhere = |(id, _): &(&InstanceId, &Stored<record::Instance>)| {
        draft.cluster.placements.get(*id).is_some_and(|placement| placement.host != *host)
    };
    if let Some((id, _)) = draft.cluster.instances_of(deployment).find(elsewhere) {
        return Err(Refusal::Conflict(format!(
            "{id} cannot be resumed on host {host} yet: its files are not images that other hosts can fetch; see \
             `collective checkpoint list {deployment}`"
        )));
    }
    let mut homeless: Vec<InstanceId> = draft
        .cluster
        .instances_of(deployment)
        .map(|(id, _)| id.clone())
        .filter(|id| !draft.cluster.placements.contains_key(id))
        .collect();
    // What follows another one can only be asked about once that has a host.
    homeless.sort_by_key(|id| draft.cluster.vias.contains_key(id));
    for id in homeless {
        let census = Census::new(&draft.cluster, sight.observed, sight.online);
        let Some(question) = placement::question(&draft.cluster, &census, &id) else { continue };
        if let Some(why) = placement::forbidden(&question, host) {
            return Err(Refusal::Conflict(format!("{id} cannot be resumed on host {host}: {why}")));
        }
        let decision = draft.cluster.last_decision(&id).map(|decision| decision.id).unwrap_or_default();
        draft.put(record::placement_key(&id), &record::Placement { host: host.clone(), decision });
        let volumes: Vec<_> = question
            .instance
            .volumes
            .iter()
            .filter_map(|name| {
                let volume = draft.cluster.volumes.get(&(id.clone(), name.clone()))?;
                volume.host.is_none().then(|| (name.clone(), volume.value.clone()))
            })
            .collect();
        for (name, volume) in volumes {
            let placed = record::Volume { host: Some(host.clone()), ..volume };
            draft.put(record::volume_key(&id, &name), &placed);
        }
    }
    Ok(())
}
