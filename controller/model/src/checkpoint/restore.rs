//! Ways back: instances made anew from a checkpoint's files.
//!
//! What is restored is another incarnation, at the version and with the hardware of then, upon the layers of then; its
//! volumes are other disks of the same names. It stays so until the documents say something else, as whatever they say
//! now is what its shape was made from. Members are restored together or not at all.

use super::order::find;
use crate::apply::Refusal;
use crate::cluster::{Cluster, Stored};
use crate::draft::Draft;
use crate::record::{self, Checkpoint, Part, Verified};
use crate::standing::Sight;
use crate::{expand, name};
use controller_api::life::{DiskName, Layer, Power};
use std::collections::{BTreeMap, BTreeSet};
use types::{ByteSize, DeploymentName, InstanceId, MemberName, VolumeName};

/// What of a checkpoint is gone back to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restore {
    /// Only these members; all if empty.
    pub members: BTreeSet<MemberName>,
    /// Guests go on from their saved memory; those that have none boot.
    pub with_memory: bool,
}

/// Takes a deployment back to a checkpoint. Instances keep their hosts if those have the files or can fetch them; an
/// instance without a host gets one by placement, its volumes with it.
///
/// # Errors
/// There is no such deployment, checkpoint or member, it was not taken or is damaged, memory is asked for and cannot go
/// on with what the documents say now, or files are only on a host that is gone.
pub fn restore(
    draft: &mut Draft,
    deployment: &DeploymentName,
    checkpoint: &str,
    wish: &Restore,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    let held = restorable(&draft.cluster, deployment, checkpoint)?.clone();
    if wish.with_memory && !held.with_memory {
        return Err(Refusal::Unfit(format!(
            "checkpoint {checkpoint} holds no memory: restore it without, its guests boot from their disks"
        )));
    }
    let chosen = chosen(&draft.cluster, deployment, checkpoint, &held, &wish.members)?;
    rebuild(draft, deployment, &chosen, wish.with_memory, fresh)
}

/// Takes one member back, its deployment's other members stay as they are.
///
/// # Errors
/// As [`restore`].
pub fn restore_member(
    draft: &mut Draft,
    id: &InstanceId,
    checkpoint: &str,
    with_memory: bool,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    let wish = Restore { members: [id.member.clone()].into(), with_memory };
    restore(draft, &id.deployment, checkpoint, &wish, fresh)
}

/// Makes a new deployment of the same bundle whose disks are those of a checkpoint. Its guests boot: their addresses are
/// others than those that saved memory knows.
///
/// # Errors
/// As [`restore`], or the new deployment cannot be: it is there, or stands in the way of others.
pub fn restore_as_new(
    draft: &mut Draft,
    deployment: &DeploymentName,
    checkpoint: &str,
    new: &DeploymentName,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    let held = restorable(&draft.cluster, deployment, checkpoint)?.clone();
    if draft.cluster.deployments.contains_key(new) {
        return Err(Refusal::Conflict(format!("there is a deployment {new} already: choose another name")));
    }
    let Some(spec) = draft.cluster.deployments.get(deployment).map(|spec| spec.value.clone()) else {
        return Err(Refusal::NotFound(format!("there is no deployment {deployment}")));
    };
    if let Some(finding) = expand::check(&spec, &draft.cluster).into_iter().next() {
        return Err(Refusal::Conflict(format!("deployment {new}: {}: {}", finding.path, finding.message)));
    }
    draft.put(format!("deployments/{new}"), &spec);
    expanded(draft, new, fresh)?;
    let chosen = chosen(&draft.cluster, new, checkpoint, &held, &BTreeSet::new())?;
    rebuild(draft, new, &chosen, false, fresh)
}

/// A member whose host is out of reach: it may run there still, and is not made anew elsewhere before that is known.
#[must_use]
pub fn out_of_reach(
    cluster: &Cluster,
    sight: Sight<'_>,
    deployment: &DeploymentName,
    members: &BTreeSet<MemberName>,
) -> Option<Refusal> {
    let of_wish = |id: &&InstanceId| members.is_empty() || members.contains(&id.member);
    cluster.instances_of(deployment).map(|(id, _)| id).filter(of_wish).find_map(|id| {
        let host = &cluster.placements.get(id)?.host;
        (!sight.online.contains(host)).then(|| {
            Refusal::Conflict(format!(
                "host {host} is out of reach, and {id} may run there still: bring it back, or remove it with \
                 `collective host remove {host} --force` if it never will be"
            ))
        })
    })
}

fn restorable<'a>(
    cluster: &'a Cluster,
    deployment: &'a DeploymentName,
    name: &str,
) -> Result<&'a Checkpoint, Refusal> {
    let held = find(cluster, deployment, name)?;
    let why = held.reason.as_deref().unwrap_or("nobody knows why");
    if held.is_failed() {
        return Err(Refusal::Conflict(format!("checkpoint {name} was not taken: {why}")));
    }
    if !held.is_restorable() {
        return Err(Refusal::Conflict(format!("checkpoint {name} is being taken: wait for it")));
    }
    if held.verified == Verified::Damaged {
        return Err(Refusal::Conflict(format!("checkpoint {name} is damaged: {why}")));
    }
    if held.parts.is_empty() {
        return Err(Refusal::Conflict(format!(
            "checkpoint {name} is of no member: there is nothing to restore"
        )));
    }
    Ok(held)
}

type Chosen = Vec<(InstanceId, Part)>;

/// The parts that are restored: of members that there still are.
fn chosen(
    cluster: &Cluster,
    deployment: &DeploymentName,
    checkpoint: &str,
    held: &Checkpoint,
    members: &BTreeSet<MemberName>,
) -> Result<Chosen, Refusal> {
    if !cluster.deployments.contains_key(deployment) {
        let message = format!("there is no deployment {deployment}: apply its document, then restore");
        return Err(Refusal::NotFound(message));
    }
    let known = || held.parts.keys().map(MemberName::as_str).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = members.iter().find(|member| !held.parts.contains_key(*member)) {
        let message = format!("checkpoint {checkpoint} has no member {unknown}: it has {}", known());
        return Err(Refusal::Unfit(message));
    }
    let of = |member: &MemberName| InstanceId { deployment: deployment.clone(), member: member.clone() };
    let chosen: Chosen = held
        .parts
        .iter()
        .filter(|(member, _)| members.is_empty() || members.contains(*member))
        .map(|(member, part)| (of(member), part.clone()))
        .filter(|(id, _)| cluster.instances.contains_key(id) && !cluster.vias.contains_key(id))
        .collect();
    if chosen.is_empty() || (!members.is_empty() && chosen.len() < members.len()) {
        return Err(Refusal::Conflict(format!(
            "deployment {deployment} has not all of these members any more: {}",
            known()
        )));
    }
    Ok(chosen)
}

fn rebuild(
    draft: &mut Draft,
    deployment: &DeploymentName,
    chosen: &Chosen,
    with_memory: bool,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    let placements: BTreeMap<InstanceId, record::Placement> = chosen
        .iter()
        .filter_map(|(id, _)| Some((id.clone(), draft.cluster.placements.get(id)?.value.clone())))
        .collect();
    // With a shape that nothing has, each is made anew at the version of then, as far as the documents leave that open.
    for (id, part) in chosen {
        let Some(instance) = draft.cluster.instances.get(id).map(|held| held.value.clone()) else { continue };
        if instance.appliance != part.appliance {
            return Err(Refusal::Conflict(format!(
                "{id} runs {} now, the checkpoint has {}: change the bundle first",
                instance.appliance, part.appliance
            )));
        }
        let asked = record::Instance {
            version: part.version.clone(),
            shape: name::digest(b"to be restored"),
            power: Power::On,
            ..instance
        };
        draft.put(record::instance_key(id), &asked);
    }
    expanded(draft, deployment, fresh)?;
    for (id, part) in chosen {
        let placement = host_of(&draft.cluster, id, part, placements.get(id).cloned())?;
        from_part(draft, id, part, with_memory)?;
        volumes(draft, id, part, placement.as_ref(), fresh);
        if let Some(placement) = placement {
            draft.put(record::placement_key(id), &placement);
        }
    }
    Ok(())
}

fn expanded(
    draft: &mut Draft,
    deployment: &DeploymentName,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    expand::expand(draft, deployment, fresh).map_err(|finding| {
        Refusal::Conflict(format!("deployment {deployment}: {}: {}", finding.path, finding.message))
    })
}

/// Where it goes: it stays where it is, unless only the host that took it has its files.
fn host_of(
    cluster: &Cluster,
    id: &InstanceId,
    part: &Part,
    now: Option<record::Placement>,
) -> Result<Option<record::Placement>, Refusal> {
    let anywhere = part.files().all(|file| file.is_some());
    if anywhere || now.as_ref().is_some_and(|placement| placement.host == part.host) {
        return Ok(now);
    }
    if !cluster.hosts.contains_key(&part.host) {
        return Err(Refusal::Conflict(format!(
            "the files of {id} were only on host {}, which is gone: choose another checkpoint",
            part.host
        )));
    }
    let stays = |((owner, name), volume): &(&(InstanceId, VolumeName), &Stored<record::Volume>)| {
        let captured = part.disks.iter().any(|disk| disk.disk == DiskName::Volume(name.clone()));
        owner == id && !captured && volume.host.as_ref().is_some_and(|host| *host != part.host)
    };
    if let Some(((_, name), _)) = cluster.volumes.iter().find(stays) {
        return Err(Refusal::Conflict(format!(
            "the files of {id} are only on host {} yet, and its volume {name}, which they do not hold, is on another: \
             wait until the checkpoint is complete",
            part.host
        )));
    }
    let decision = now.map(|placement| placement.decision).unwrap_or_default();
    Ok(Some(record::Placement { host: part.host.clone(), decision }))
}

fn from_part(draft: &mut Draft, id: &InstanceId, part: &Part, with_memory: bool) -> Result<(), Refusal> {
    let Some(expanded) = draft.cluster.instances.get(id).map(|held| held.value.clone()) else {
        return Err(Refusal::NotFound(format!("there is no instance {id}")));
    };
    let memory_from = part.saved.clone().filter(|_| with_memory);
    if memory_from.is_some()
        && let Some(what) = other_hardware(&expanded, part)
    {
        return Err(Refusal::Conflict(format!(
            "the memory of {id} cannot go on: {what} now; restore without memory, or change the bundle back"
        )));
    }
    let restored = record::Instance {
        version: part.version.clone(),
        image: part.image,
        image_size_bytes: part.image_size_bytes,
        vcpus: part.vcpus,
        memory: part.memory,
        layers: layers_of(part, &DiskName::System),
        memory_from,
        power: Power::On,
        ..expanded
    };
    draft.put(record::instance_key(id), &restored);
    Ok(())
}

/// What a guest that goes on would find otherwise than it left it.
fn other_hardware(now: &record::Instance, part: &Part) -> Option<String> {
    let then: Vec<_> = part.ports.iter().map(|port| (&port.name, port.mac, &port.addresses)).collect();
    let here: Vec<_> = now.ports.iter().map(|port| (&port.name, port.mac, &port.addresses)).collect();
    if then != here {
        return Some("its ports or their addresses are others".into());
    }
    (now.volumes != part.volumes).then(|| "its volumes are others".into())
}

fn layers_of(part: &Part, disk: &DiskName) -> Vec<Layer> {
    let own = part.disks.iter().find(|own| own.disk == *disk);
    own.map(|own| own.layers.clone()).unwrap_or_default()
}

fn volumes(
    draft: &mut Draft,
    id: &InstanceId,
    part: &Part,
    placement: Option<&record::Placement>,
    fresh: &mut dyn FnMut() -> String,
) {
    let captured: Vec<(VolumeName, Vec<Layer>)> = part
        .disks
        .iter()
        .filter_map(|disk| match &disk.disk {
            DiskName::Volume(volume) => Some((volume.clone(), disk.layers.clone())),
            DiskName::System => None,
        })
        .collect();
    for (volume, layers) in captured {
        let Some(held) = draft.cluster.volumes.get(&(id.clone(), volume.clone())) else { continue };
        let then = layers.last().map_or(0, |layer| layer.disk_bytes);
        let restored = record::Volume {
            size: ByteSize(held.size.0.max(then)),
            host: placement.map(|placement| placement.host.clone()),
            incarnation: fresh(),
            layers,
        };
        draft.put(record::volume_key(id, &volume), &restored);
    }
}
