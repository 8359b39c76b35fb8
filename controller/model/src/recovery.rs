//! What follows when hosts are lost: their leased instances start elsewhere.

use crate::apply::Refusal;
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::{checkpoint, lease, moving, record};
use controller_api::recovery::{RecoverFrom, RemovedHost, Restored};
use std::collections::{BTreeMap, BTreeSet};
use types::{Digest, HostName, InstanceId};

/// What came of it.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The change.
    pub draft: Draft,
    /// Object, reason and message of what happened.
    pub events: Vec<(String, &'static str, String)>,
    /// Instances that stay where they were, and why.
    pub held: BTreeMap<InstanceId, String>,
}

/// Whether an image can be had without the lost hosts: another one holds it wholly.
pub type Reach<'a> = &'a dyn Fn(&Digest) -> bool;

/// From what an instance goes on elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This checkpoint of its deployment.
    Checkpoint(String),
    /// Its version's image, and blank volumes if it has some.
    Fresh,
}

/// Hosts that leased instances are on, with the lease each was promised, in milliseconds. They may be no members any
/// more.
#[must_use]
pub fn promised(cluster: &Cluster) -> BTreeMap<HostName, u64> {
    let leased = cluster.placements.iter().filter_map(|(id, placement)| {
        let wished = lease::recovery(cluster, id)?.lease.ms;
        let promised = cluster.leases.get(&placement.host).map_or(0, |held| held.longest_ms);
        Some((placement.host.clone(), promised.max(wished)))
    });
    leased.fold(BTreeMap::new(), |mut hosts, (host, ms)| {
        let held = hosts.entry(host).or_default();
        *held = ms.max(*held);
        hosts
    })
}

/// Starts the leased instances of hosts that are lost elsewhere: new incarnations without a placement.
#[must_use]
pub fn settle(
    cluster: &Cluster,
    lost: &BTreeSet<HostName>,
    reach: Reach<'_>,
    fresh: &mut dyn FnMut() -> String,
) -> Settled {
    let mut draft = Draft::new(cluster.clone());
    let (mut events, mut held) = (Vec::new(), BTreeMap::new());
    for host in lost {
        let mut recovered = Vec::new();
        for id in leased_on(cluster, host) {
            match recover(&mut draft, &id, reach, fresh) {
                Ok(source) => {
                    let message = format!("host {host} is lost: it starts elsewhere {}", source.text());
                    events.push((format!("instance/{id}"), "instance-recovered", message));
                    recovered.push(id.to_string());
                }
                Err(why) => drop(held.insert(id, why)),
            }
        }
        if !recovered.is_empty() {
            let held = draft.cluster.leases.get(host).map(|held| held.value.clone()).unwrap_or_default();
            draft.put(format!("leases/{host}"), &record::HostLease { lost: true, ..held });
            let message =
                format!("host {host} was not heard for its lease: {} start elsewhere", recovered.join(", "));
            events.push((format!("host/{host}"), "host-lost", message));
        }
    }
    Settled { draft, events, held }
}

impl Source {
    fn text(&self) -> String {
        match self {
            Self::Checkpoint(name) => format!("from checkpoint {name}"),
            Self::Fresh => "afresh".to_owned(),
        }
    }
}

/// Instances that a host runs under its lease only, and knows it.
fn leased_on(cluster: &Cluster, host: &HostName) -> Vec<InstanceId> {
    let loose = cluster.leases.get(host).map(|held| &held.loose);
    let here = cluster.placements.iter().filter(|(_, placement)| placement.host == *host);
    let leased = here.filter(|(id, _)| {
        lease::is_leased(cluster, id)
            && cluster.instances.contains_key(id)
            && !loose.is_some_and(|loose| loose.contains(id))
    });
    leased.map(|(id, _)| id.clone()).collect()
}

fn recover(
    draft: &mut Draft,
    id: &InstanceId,
    reach: Reach<'_>,
    fresh: &mut dyn FnMut() -> String,
) -> Result<Source, String> {
    let spec = lease::recovery(&draft.cluster, id).ok_or("it is not leased")?;
    if let Some(moving) = moving::of(&draft.cluster, id) {
        return Err(format!("it may have come to host {} by now: its move has to end first", moving.to));
    }
    match spec.from {
        RecoverFrom::Fresh => {
            start_afresh(draft, id, fresh);
            Ok(Source::Fresh)
        }
        RecoverFrom::NewestCheckpoint => match newest_with(&draft.cluster, id, reach) {
            Some(name) => from_checkpoint(draft, id, name, fresh),
            None if has_no_volumes(&draft.cluster, id) => {
                start_afresh(draft, id, fresh);
                Ok(Source::Fresh)
            }
            // It will not come back with them.
            None if is_removed(&draft.cluster, id) => {
                start_afresh(draft, id, fresh);
                Ok(Source::Fresh)
            }
            None => {
                Err("its volumes are on the lost host, and no checkpoint of them is elsewhere".to_owned())
            }
        },
    }
}

fn is_removed(cluster: &Cluster, id: &InstanceId) -> bool {
    cluster.placements.get(id).is_some_and(|placement| !cluster.hosts.contains_key(&placement.host))
}

/// Removes a host that will never come back. What it ran under a lease stays placed there until that has run out, all
/// else starts elsewhere now: with `restore` from its newest checkpoint, if another host has that.
///
/// # Errors
/// There is no such host.
pub fn remove_host(
    cluster: &Cluster,
    host: &HostName,
    restore: bool,
    reach: Reach<'_>,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(Draft, RemovedHost), Refusal> {
    if !cluster.hosts.contains_key(host) {
        return Err(Refusal::NotFound(format!("there is no host {host}")));
    }
    let mut draft = Draft::new(cluster.clone());
    let mut removed = RemovedHost { recovering: leased_on(cluster, host), ..RemovedHost::default() };
    draft.delete(format!("hosts/{host}"));
    draft.delete(format!("facts/{host}"));
    let here = cluster.placements.iter().filter(|(_, placement)| placement.host == *host);
    for (id, _) in here.filter(|(id, _)| !removed.recovering.contains(id)) {
        let source = if restore { start_elsewhere(&mut draft, id, reach, fresh) } else { Source::Fresh };
        match source {
            Source::Checkpoint(checkpoint) => {
                removed.restored.push(Restored { instance: id.clone(), checkpoint });
            }
            Source::Fresh => {
                if !restore {
                    start_afresh(&mut draft, id, fresh);
                }
                removed.afresh.push(id.clone());
            }
        }
    }
    for ((id, name), volume) in
        cluster.volumes.iter().filter(|(_, volume)| volume.host.as_ref() == Some(host))
    {
        let restored = removed.restored.iter().any(|restored| restored.instance == *id);
        let recovers = removed.recovering.contains(id) && newest_with(cluster, id, reach).is_some();
        if !restored && !recovers {
            removed.lost_volumes.push(format!("{id}/{name}"));
        }
        if !cluster.instances.get(id).is_some_and(|instance| instance.volumes.contains(name)) {
            draft.delete(record::volume_key(id, name));
        } else if volume.host
            == draft.cluster.volumes.get(&(id.clone(), name.clone())).and_then(|v| v.host.clone())
            && !removed.recovering.contains(id)
        {
            // Its instance has no host yet.
            let blank =
                record::Volume { size: volume.size, host: None, incarnation: fresh(), layers: Vec::new() };
            draft.put(record::volume_key(id, name), &blank);
        }
    }
    Ok((draft, removed))
}

fn has_no_volumes(cluster: &Cluster, id: &InstanceId) -> bool {
    cluster.instances.get(id).is_none_or(|instance| instance.volumes.is_empty())
}

/// Starts an instance elsewhere whose host is gone, from its newest checkpoint if it is in one. What was on its volumes
/// and is in no checkpoint is lost.
pub fn start_elsewhere(
    draft: &mut Draft,
    id: &InstanceId,
    reach: Reach<'_>,
    fresh: &mut dyn FnMut() -> String,
) -> Source {
    if let Some(name) = newest_with(&draft.cluster, id, reach)
        && let Ok(source) = from_checkpoint(draft, id, name, fresh)
    {
        return source;
    }
    start_afresh(draft, id, fresh);
    Source::Fresh
}

/// Makes a new incarnation from nothing but its version, and blank volumes, without a host.
pub fn start_afresh(draft: &mut Draft, id: &InstanceId, fresh: &mut dyn FnMut() -> String) {
    let Some(instance) = draft.cluster.instances.get(id).map(|held| held.value.clone()) else { return };
    for name in &instance.volumes {
        let held = draft.cluster.volumes.get(&(id.clone(), name.clone())).map(|held| held.value.clone());
        if let Some(volume) = held {
            let blank =
                record::Volume { size: volume.size, host: None, incarnation: fresh(), layers: Vec::new() };
            draft.put(record::volume_key(id, name), &blank);
        }
    }
    draft.delete(record::placement_key(id));
    let anew = record::Instance { incarnation: fresh(), layers: Vec::new(), memory_from: None, ..instance };
    draft.put(record::instance_key(id), &anew);
}

/// The newest checkpoint of its deployment that it is part of and whose files can be had without the lost host.
fn newest_with(cluster: &Cluster, id: &InstanceId, reach: Reach<'_>) -> Option<String> {
    let whole = |part: &record::Part| part.files().all(|file| file.is_some_and(|digest| reach(&digest)));
    let good = |checkpoint: &record::Checkpoint| {
        checkpoint.is_restorable()
            && checkpoint.verified != record::Verified::Damaged
            && checkpoint.parts.get(&id.member).is_some_and(whole)
    };
    let fitting = checkpoint::of(cluster, &id.deployment).filter(|(_, checkpoint)| good(checkpoint));
    fitting.max_by_key(|(_, checkpoint)| checkpoint.taken_ms).map(|(name, _)| name.to_owned())
}

/// Its memory is left behind: the others of its deployment have gone on since.
fn from_checkpoint(
    draft: &mut Draft,
    id: &InstanceId,
    name: String,
    fresh: &mut dyn FnMut() -> String,
) -> Result<Source, String> {
    // The attempt is thrown away with what it changed.
    let mut attempt = draft.clone();
    attempt.delete(record::placement_key(id));
    checkpoint::restore_member(&mut attempt, id, &name, false, fresh)
        .map_err(|refusal| refusal.to_string())?;
    let incarnation = |draft: &Draft| draft.cluster.instances.get(id).map(|held| held.incarnation.clone());
    if incarnation(&attempt) == incarnation(draft) {
        // Under its old name it could be taken for the guest that is given up.
        return Err(format!("checkpoint {name} was not restored: its bundle is gone"));
    }
    *draft = attempt;
    Ok(Source::Checkpoint(name))
}

#[cfg(test)]
mod tests;
