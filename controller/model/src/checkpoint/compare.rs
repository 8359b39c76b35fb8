//! What differs between two checkpoints of a deployment.

use super::order::find;
use crate::apply::Refusal;
use crate::cluster::Cluster;
use crate::record::{Checkpoint, Part};
use controller_api::checkpoint::{CheckpointDiff, DiskDiff, MemberDiff};
use controller_api::life::{DiskName, Layer};
use std::collections::BTreeSet;
use types::{DeploymentName, MemberName};

/// By member and disk: what only the later one holds, and what it lacks.
///
/// # Errors
/// One of them is not there, or was not taken.
pub fn compare(
    cluster: &Cluster,
    deployment: &DeploymentName,
    from: &str,
    to: &str,
) -> Result<CheckpointDiff, Refusal> {
    let taken = |name: &str| {
        let held = find(cluster, deployment, name)?;
        match held.is_restorable() {
            true => Ok(held),
            false => {
                Err(Refusal::Conflict(format!("checkpoint {name} is not taken: there is nothing to compare")))
            }
        }
    };
    let (earlier, later) = (taken(from)?, taken(to)?);
    let members: BTreeSet<&MemberName> = earlier.parts.keys().chain(later.parts.keys()).collect();
    let members = members.into_iter().map(|name| member(name, earlier, later)).collect();
    Ok(CheckpointDiff { from: from.to_owned(), to: to.to_owned(), members })
}

fn member(name: &MemberName, earlier: &Checkpoint, later: &Checkpoint) -> MemberDiff {
    let (before, after) = (earlier.parts.get(name), later.parts.get(name));
    let disks: BTreeSet<&DiskName> = [before, after]
        .into_iter()
        .flatten()
        .flat_map(|part| part.disks.iter().map(|disk| &disk.disk))
        .collect();
    MemberDiff {
        member: name.clone(),
        version_from: before.map(|part| part.version.clone()),
        version_to: after.map(|part| part.version.clone()),
        remade: matches!((before, after), (Some(a), Some(b)) if a.incarnation != b.incarnation),
        disks: disks.into_iter().map(|disk| differs(disk, before, after)).collect(),
    }
}

fn layers<'a>(part: Option<&'a Part>, disk: &DiskName) -> Vec<&'a Layer> {
    let own = part.into_iter().flat_map(|part| &part.disks).filter(|own| own.disk == *disk);
    own.flat_map(|own| &own.layers).collect()
}

fn differs(disk: &DiskName, before: Option<&Part>, after: Option<&Part>) -> DiskDiff {
    let (before, after) = (layers(before, disk), layers(after, disk));
    let same =
        |a: &Layer, b: &Layer| (&a.checkpoint, &a.instance, &a.disk) == (&b.checkpoint, &b.instance, &b.disk);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let added = || after.iter().filter(|layer| !before.iter().any(|old| same(old, layer)));
    DiskDiff {
        disk: disk.clone(),
        written_bytes: added().fold(0_u64, |sum, layer| sum.saturating_add(layer.file_bytes)),
        layers_added: count(added().count()),
        layers_gone: count(before.iter().filter(|layer| !after.iter().any(|new| same(new, layer))).count()),
    }
}
