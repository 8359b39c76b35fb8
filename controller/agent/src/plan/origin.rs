//! What an instance is made from before its first start: the layers under its disks, and the memory it goes on from.
//! What is not on this host is read from the streamer's exports.

use super::captures::{image_of, is_local};
use super::{Observed, Plan, Step};
use crate::chain::{CaptureId, Chain, DiskId, FileId};
use crate::store::Record;
use controller_api::agent::{DesiredInstance, HostDesired};
use controller_api::life::{DiskName, Layer, SavedMemory};
use std::collections::BTreeSet;
use types::Digest;
use uuid::Uuid;

/// Images beside those of versions that what is on this host stands on.
pub(super) fn needed_images(desired: &HostDesired, observed: &Observed) -> BTreeSet<Digest> {
    let layers = observed.chains.values().flat_map(|chain| &chain.layers);
    let absent = layers.filter(|layer| !is_local(layer, observed));
    let memories = desired.instances.iter().filter_map(|instance| {
        let memory = instance.memory_from.as_ref()?;
        let incarnation = instance.incarnation.parse().ok()?;
        fetches(memory, incarnation, observed.records.get(&incarnation), observed).then_some(memory.image?)
    });
    absent.filter_map(|layer| image_of(layer, observed)).chain(memories).collect()
}

/// Fetches the memory of instances whose first run goes on from it.
pub(super) fn memories(plan: &mut Plan, desired: &HostDesired, observed: &Observed) {
    let Some(exported) = &observed.exported else { return };
    for instance in desired.instances.iter().filter(|instance| instance.power.is_on()) {
        let (Some(memory), Ok(incarnation)) = (&instance.memory_from, instance.incarnation.parse::<Uuid>())
        else {
            continue;
        };
        let record = observed.records.get(&incarnation);
        let image = memory.image.filter(|image| exported.contains(image));
        if let Some(image) = image.filter(|_| fetches(memory, incarnation, record, observed)) {
            plan.steps.push(Step::FetchMemory(instance.id.clone(), incarnation, image, memory.file_bytes));
        }
    }
}

/// It has to be fetched: it is needed still, and neither here nor fetched.
fn fetches(memory: &SavedMemory, incarnation: Uuid, record: Option<&Record>, observed: &Observed) -> bool {
    !record.is_some_and(|record| record.resumed)
        && !is_memory_local(memory, observed)
        && observed.fetched.get(&incarnation) != Some(&Fetched::Whole)
}

fn is_memory_local(memory: &SavedMemory, observed: &Observed) -> bool {
    let Ok(checkpoint) = memory.checkpoint.parse() else { return false };
    observed.files.contains(&FileId::Memory(CaptureId { checkpoint, instance: memory.instance.clone() }))
}

/// How much of an incarnation's memory was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// So many bytes.
    Bytes(u64),
    /// All.
    Whole,
}

/// Why an instance waits for what it is made from, or cannot be made.
pub(super) fn waits_for_origin(
    desired: &HostDesired,
    instance: &DesiredInstance,
    incarnation: Uuid,
    record: Option<&Record>,
    observed: &Observed,
) -> Option<String> {
    let system = layers(&DiskName::System, instance, incarnation, &instance.layers, observed);
    let volumes = instance.volumes.iter().flat_map(|name| {
        let wanted = super::volumes::wanted_volume(desired, &instance.id, name);
        let from = wanted.map_or(&[][..], |volume| &volume.layers);
        layers(&DiskName::Volume(name.clone()), instance, incarnation, from, observed)
    });
    let exported = observed.exported.as_ref();
    let exported = |image: &Digest| exported.is_some_and(|exported| exported.contains(image));
    system
        .iter()
        .chain(volumes)
        .filter(|layer| !is_local(layer, observed))
        .find_map(|layer| match image_of(layer, observed) {
            None => Some(format!(
                "a layer of its disk {} of checkpoint {} is neither on this host nor an image to be fetched",
                layer.disk, layer.checkpoint
            )),
            Some(image) if !exported(&image) => {
                Some(format!("image {} of a layer is not exported yet", image.short()))
            }
            Some(_) => None,
        })
        .or_else(|| waits_for_memory(instance.memory_from.as_ref()?, incarnation, record, observed))
}

fn waits_for_memory(
    memory: &SavedMemory,
    incarnation: Uuid,
    record: Option<&Record>,
    observed: &Observed,
) -> Option<String> {
    if !fetches(memory, incarnation, record, observed) {
        return None;
    }
    if memory.image.is_none() {
        return Some(
            "the memory it goes on from is neither on this host nor an image to be fetched".to_owned(),
        );
    }
    let bytes = match observed.fetched.get(&incarnation) {
        Some(Fetched::Bytes(bytes)) => *bytes,
        _ => 0,
    };
    Some(format!("its memory is being fetched: {} of {} MiB", bytes >> 20, memory.file_bytes >> 20))
}

/// The layers of a disk that is made, or those that it will be made from.
fn layers<'a>(
    disk: &DiskName,
    instance: &DesiredInstance,
    incarnation: Uuid,
    from: &'a [Layer],
    observed: &'a Observed,
) -> &'a [Layer] {
    let chain: Option<&Chain> = observed.chains.get(&DiskId::of(disk, &instance.id, incarnation));
    chain.map_or(from, |chain| &chain.layers)
}
