//! What to do next, given what shall be and what is. Pure: values in, steps out; it reads no clock and no file.
//!
//! One step at most per [`Key`], and none for a key that is busy: steps of different keys run beside each other, and
//! each end asks for a new plan. An instance's life, as the plan sees it:
//!
//! ```text
//!   not here ── volumes, image, ports ready ──> Start ──> running ──> (ends by itself) ──> NoteEnd ──> pause ──> Start
//!      named no more, or under another incarnation: Remove, whatever it does; its ports go only after it
//!      power off: SwitchOff, and not started
//! ```

use crate::chain::{Capture, CaptureId, Chains, FileId, FileImage};
use crate::fence;
use crate::lease::Leave;
use crate::store::{Naming, Record, Wires};
use controller_api::agent::{DesiredInstance, DesiredStream, DesiredVolume, HostDesired};
use controller_api::life::CaptureStep;
use controller_hypervisor::{DomainState, VOLUME_NAME_LEN_MAX};
use std::collections::{BTreeMap, BTreeSet};
use streamer_api::Limits;
use types::{Digest, Generation, InstanceId, VolumeName};
use uuid::Uuid;

pub(crate) mod captures;
mod origin;
mod volumes;
mod wires;

pub(crate) use origin::Fetched;
use volumes::{volumes, waits_for_volumes};
pub(crate) use wires::own_wires;
use wires::wanted_networks;

/// A run that lasted this long was a good one: the next pause is the shortest again.
const GOOD_RUN_MS: u64 = 60_000;
/// Pauses before another attempt grow from this...
const PAUSE_MS_MIN: u64 = 1_000;
/// ... to this.
const PAUSE_MS_MAX: u64 = 30_000;
/// What a guest reads belongs to its boot until so long after it said `ready`.
pub(crate) const RUN_AFTER_READY_MS: u64 = 30_000;

/// What a step is about. Two steps about one thing never run at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Networks,
    Image(Digest),
    Limits,
    /// What an instance has read.
    Run(InstanceId),
    Volume(InstanceId, VolumeName),
    Instance(InstanceId),
    /// A capture's files; what changes disks is about the instance.
    Capture(CaptureId),
    /// A frozen file.
    File(FileId),
    /// The memory that an instance's first run goes on from.
    Memory(InstanceId),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Networks => f.write_str("networks"),
            Self::Image(digest) => write!(f, "image {}", digest.short()),
            Self::Limits => f.write_str("limits"),
            Self::Run(id) => write!(f, "run of {id}"),
            Self::Volume(instance, name) => write!(f, "volume {instance}/{name}"),
            Self::Instance(id) => write!(f, "instance {id}"),
            Self::Capture(id) => write!(f, "{id}"),
            Self::File(FileId::Layer(id)) => write!(f, "layer {id}"),
            Self::File(FileId::Memory(id)) => write!(f, "memory of {id}"),
            Self::Memory(id) => write!(f, "memory of instance {id}"),
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Hand netd this document.
    PutNetworks(netd_api::Desired),
    /// Have the streamer export an image, and hold it so.
    NameImage(Digest, Naming),
    /// The streamer need not export it any more.
    DropImage(Digest),
    /// Let the streamer be as fast as this; none takes the controller's word back.
    SetLimits(Option<Limits>),
    /// Tell the controller what an instance has read since its start.
    TellRun(InstanceId, Uuid),
    /// Make a volume, grow it, or make it anew as another disk.
    MakeVolume(Box<DesiredVolume>),
    /// Remove a volume with its bytes.
    DeleteVolume(InstanceId, VolumeName),
    /// Make the disks, define and start. The second part is what its record shall hold of the networks.
    Start(Box<DesiredInstance>, Wires),
    /// It runs and its record does not say so: it was started just before this daemon was killed.
    Adopt(Box<DesiredInstance>, Wires),
    /// Its run has ended by itself.
    NoteEnd(InstanceId, Uuid),
    /// Its disk answers again.
    Resume(InstanceId, Uuid),
    /// It runs without the lease that it needs.
    Fence(InstanceId, Uuid),
    /// It shall not run.
    SwitchOff(InstanceId, Uuid),
    /// Stop it and remove all but its volumes.
    Remove(InstanceId, Uuid),
    /// Remember that the ports of this incarnation are held for a capture.
    NoteHeld(CaptureId, Uuid),
    /// Capture its disks, and its memory if asked. Whether it runs is known.
    TakeCapture { id: CaptureId, instance: Box<DesiredInstance>, with_memory: bool, running: bool },
    /// Find out what became of a capture that was under way when this daemon was killed.
    SettleCapture(CaptureId),
    /// It was not taken and will not be, for this reason.
    FailCapture(CaptureId, String),
    /// Make images of its files.
    PublishCapture(CaptureId),
    /// Forget it; its layers go when nothing stands on them.
    DropCapture(CaptureId),
    /// Remove a frozen file, and what the streamer holds of it under this digest.
    DropFile(FileId, Option<Digest>),
    /// Fetch the memory that an incarnation's first run goes on from: of this image, so many bytes.
    FetchMemory(InstanceId, Uuid, Digest, u64),
}

impl Step {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::PutNetworks(_) => Key::Networks,
            Self::NameImage(digest, _) | Self::DropImage(digest) => Key::Image(*digest),
            Self::SetLimits(_) => Key::Limits,
            Self::TellRun(id, _) => Key::Run(id.clone()),
            Self::MakeVolume(volume) => Key::Volume(volume.instance.clone(), volume.name.clone()),
            Self::DeleteVolume(instance, name) => Key::Volume(instance.clone(), name.clone()),
            Self::TakeCapture { id, .. } | Self::SettleCapture(id) | Self::FailCapture(id, _) => {
                Key::Instance(id.instance.clone())
            }
            Self::NoteHeld(id, _) | Self::PublishCapture(id) | Self::DropCapture(id) => {
                Key::Capture(id.clone())
            }
            Self::DropFile(file, _) => Key::File(file.clone()),
            Self::FetchMemory(id, ..) => Key::Memory(id.clone()),
            Self::Start(desired, _) | Self::Adopt(desired, _) => Key::Instance(desired.id.clone()),
            Self::NoteEnd(id, _)
            | Self::Resume(id, _)
            | Self::Fence(id, _)
            | Self::SwitchOff(id, _)
            | Self::Remove(id, _) => Key::Instance(id.clone()),
        }
    }
}

/// A domain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObservedDomain {
    pub(crate) instance: InstanceId,
    pub(crate) state: DomainState,
}

/// What is. `None` where who knows does not answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) domains: Option<BTreeMap<Uuid, ObservedDomain>>,
    pub(crate) records: BTreeMap<Uuid, Record>,
    /// Bytes of every volume, and which disk of its name it is.
    pub(crate) volumes: BTreeMap<(InstanceId, VolumeName), (u64, String)>,
    pub(crate) chains: Chains,
    pub(crate) captures: BTreeMap<CaptureId, Capture>,
    /// For how long each capture has been told to be at this step, in this agent's life.
    pub(crate) held_ms: BTreeMap<(CaptureId, CaptureStep), u64>,
    /// Frozen files on this host.
    pub(crate) files: BTreeSet<FileId>,
    /// What became of them as images.
    pub(crate) images: BTreeMap<FileId, FileImage>,
    /// Memory that was fetched, by incarnation.
    pub(crate) fetched: BTreeMap<Uuid, Fetched>,
    /// Bytes that each running incarnation has written since it was captured, or made.
    pub(crate) dirty_bytes: BTreeMap<Uuid, u64>,
    /// What the streamer exports.
    pub(crate) exported: Option<BTreeSet<Digest>>,
    /// What this agent has named to it at some time, and how.
    pub(crate) named: BTreeMap<Digest, Naming>,
    /// How fast the streamer may be; none if it does not say.
    pub(crate) limits: Option<Limits>,
    /// The controller has said so, and not taken it back.
    pub(crate) limits_set: bool,
    pub(crate) networks: Option<netd_api::Status>,
    /// The document netd took last in this agent's life.
    pub(crate) networks_taken: Option<netd_api::Desired>,
    pub(crate) busy: BTreeSet<Key>,
    /// What may be done with leased instances.
    pub(crate) leave: Leave,
    /// Incarnations on their way from or to another host: nothing here starts, adopts or resumes them.
    pub(crate) moving: BTreeSet<Uuid>,
    /// Those of them that have come: their ports pass.
    pub(crate) arrived: BTreeSet<Uuid>,
    pub(crate) now_ms: u64,
}

/// What to do, and what has to wait.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Why an instance is not started yet.
    pub(crate) waits: BTreeMap<InstanceId, String>,
    /// What the document asks and cannot be done.
    pub(crate) refusals: BTreeMap<InstanceId, String>,
}

/// Makes the plan.
pub(crate) fn plan(desired: &HostDesired, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    networks(&mut plan, desired, observed);
    images(&mut plan, desired, observed);
    limits(&mut plan, desired, observed);
    runs(&mut plan, observed);
    volumes(&mut plan, desired, observed);
    // First of what is about an instance: it takes turns with its start and its end.
    captures::captures(&mut plan, desired, observed);
    origin::memories(&mut plan, desired, observed);
    removals(&mut plan, desired, observed);
    for instance in &desired.instances {
        start(&mut plan, desired, instance, observed);
    }
    let mut taken = observed.busy.clone();
    plan.steps.retain(|step| taken.insert(step.key()));
    plan
}

/// The pause before attempt number `tries + 1`, in milliseconds.
pub(crate) fn pause_ms(tries: u32) -> u64 {
    match tries {
        0 => 0,
        tries => (PAUSE_MS_MIN << (tries - 1).min(10)).min(PAUSE_MS_MAX),
    }
}

/// Notes in a record that its run has ended or could not begin.
pub(crate) fn note_end(record: &mut Record, failure: Option<String>, now_ms: u64) {
    let lasted = record.started_ms.map_or(0, |started| now_ms.saturating_sub(started));
    let good = failure.is_none() && lasted >= GOOD_RUN_MS;
    record.tries = if good { 1 } else { record.tries.saturating_add(1) };
    record.not_before_ms = now_ms + pause_ms(record.tries);
    record.ended = true;
    record.failure = failure;
}

/// The document's instance of this incarnation.
pub(crate) fn wanted(desired: &HostDesired, incarnation: Uuid) -> Option<&DesiredInstance> {
    desired.instances.iter().find(|instance| instance.incarnation.parse() == Ok(incarnation))
}

fn networks(plan: &mut Plan, desired: &HostDesired, observed: &Observed) {
    let Some(status) = &observed.networks else { return };
    let wanted = wanted_networks(desired, observed);
    if taken(&wanted, status, observed) {
        return;
    }
    // Numbered here: while an instance goes, one document of the controller means several for netd.
    let generation = status
        .generation
        .max(observed.networks_taken.as_ref().map_or_else(Generation::default, |d| d.generation));
    plan.steps.push(Step::PutNetworks(netd_api::Desired { generation: generation.next(), ..wanted }));
}

/// netd holds this document, and nothing newer from somebody else.
fn taken(wanted: &netd_api::Desired, status: &netd_api::Status, observed: &Observed) -> bool {
    observed.networks_taken.as_ref().is_some_and(|taken| {
        let as_taken = (&taken.networks, &taken.watchers, &taken.mirrors);
        as_taken == (&wanted.networks, &wanted.watchers, &wanted.mirrors)
            && taken.generation == status.generation
    })
}

fn images(plan: &mut Plan, desired: &HostDesired, observed: &Observed) {
    let Some(exported) = &observed.exported else { return };
    let needed: BTreeSet<Digest> = desired
        .images
        .iter()
        .copied()
        .chain(desired.instances.iter().map(|instance| instance.image))
        .chain(observed.records.values().map(|record| record.image))
        .chain(origin::needed_images(desired, observed))
        .collect();
    for digest in &needed {
        let held = observed.named.get(digest);
        let naming = match (exported.contains(digest), held) {
            // As it was: what it shall be may have to be fetched from a controller that is away.
            (false, Some(held)) => *held,
            (true, Some(held)) if *held == wanted_naming(desired, *digest, *held) => continue,
            // Somebody else's, that happens to be the same.
            (true, None) if wanted_naming(desired, *digest, Naming::default()) == Naming::default() => {
                continue;
            }
            (_, held) => wanted_naming(desired, *digest, held.copied().unwrap_or_default()),
        };
        plan.steps.push(Step::NameImage(*digest, naming));
    }
    // Only what this agent has named: an image that somebody publishes here is not ours to drop.
    let dropped = observed.named.keys().filter(|digest| !needed.contains(digest));
    plan.steps.extend(dropped.map(|digest| Step::DropImage(*digest)));
}

/// How an image shall be held; one that only something on its way out needs stays as it is.
fn wanted_naming(desired: &HostDesired, image: Digest, held: Naming) -> Naming {
    let named = desired.images.contains(&image);
    match desired.streams.iter().find(|stream| stream.image == image) {
        Some(DesiredStream { source, prefetch, pin, .. }) => {
            Naming { source: *source, prefetch: *prefetch, pin: *pin }
        }
        None if named => Naming::default(),
        None => held,
    }
}

fn limits(plan: &mut Plan, desired: &HostDesired, observed: &Observed) {
    let Some(limits) = observed.limits else { return };
    match desired.limits {
        Some(wanted) if wanted != limits || !observed.limits_set => {
            plan.steps.push(Step::SetLimits(Some(wanted)));
        }
        // What somebody set at the streamer itself is not ours to take back.
        None if observed.limits_set => plan.steps.push(Step::SetLimits(None)),
        _ => {}
    }
}

/// Each start that became ready is told once, when its boot is surely over.
fn runs(plan: &mut Plan, observed: &Observed) {
    if observed.exported.is_none() {
        return;
    }
    for (incarnation, record) in &observed.records {
        let over = record
            .ready_ms
            .is_some_and(|ready| record.ended || observed.now_ms >= ready + RUN_AFTER_READY_MS);
        if over && record.run_told != record.starts && observed.now_ms >= record.run_not_before_ms {
            plan.steps.push(Step::TellRun(record.instance.clone(), *incarnation));
        }
    }
}

/// Its disks are open.
fn is_alive(state: DomainState) -> bool {
    !matches!(state, DomainState::Stopped { .. })
}

fn removals(plan: &mut Plan, desired: &HostDesired, observed: &Observed) {
    let Some(domains) = &observed.domains else { return };
    let all = domains
        .iter()
        .map(|(incarnation, domain)| (*incarnation, &domain.instance))
        .chain(observed.records.iter().map(|(incarnation, record)| (*incarnation, &record.instance)));
    for (incarnation, instance) in all {
        if wanted(desired, incarnation).is_none() {
            plan.steps.push(Step::Remove(instance.clone(), incarnation));
        }
    }
}

fn start(plan: &mut Plan, desired: &HostDesired, instance: &DesiredInstance, observed: &Observed) {
    let id = &instance.id;
    let Ok(incarnation) = instance.incarnation.parse::<Uuid>() else {
        plan.refusals.insert(id.clone(), format!("its incarnation {:?} is no UUID", instance.incarnation));
        return;
    };
    if let Some(name) = instance.volumes.iter().find(|name| name.as_str().len() > VOLUME_NAME_LEN_MAX) {
        plan.refusals.insert(
            id.clone(),
            format!(
                "the volume name {name} is longer than {VOLUME_NAME_LEN_MAX} bytes: guests could not tell it"
            ),
        );
        return;
    }
    let Some(domains) = &observed.domains else {
        plan.waits.insert(id.clone(), "libvirt does not answer".to_owned());
        return;
    };
    let record = observed.records.get(&incarnation);
    let state = domains.get(&incarnation).map(|domain| domain.state);
    if instance.leased && !observed.leave.run {
        let stopped = matches!(state, None | Some(DomainState::Stopped { .. }));
        if !stopped || record.is_some_and(|record| record.started_ms.is_some() && !record.ended) {
            plan.steps.push(Step::Fence(id.clone(), incarnation));
        }
        plan.waits.insert(id.clone(), fence::why_not(id));
        return;
    }
    if observed.moving.contains(&incarnation) {
        return;
    }
    match state {
        Some(state) if is_alive(state) && !instance.power.is_on() => {
            plan.steps.push(Step::SwitchOff(id.clone(), incarnation));
        }
        Some(DomainState::PausedByIoError) => {
            if observed.exported.as_ref().is_some_and(|exported| exported.contains(&instance.image)) {
                plan.steps.push(Step::Resume(id.clone(), incarnation));
            }
        }
        Some(DomainState::Running | DomainState::Paused) => {
            if record.is_none_or(|record| record.started_ms.is_none() || record.ended) {
                plan.steps.push(Step::Adopt(Box::new(instance.clone()), own_wires(desired, instance)));
            }
        }
        Some(DomainState::Stopped { .. }) | None => match record {
            Some(record) if record.started_ms.is_some() && !record.ended => {
                plan.steps.push(Step::NoteEnd(id.clone(), incarnation));
            }
            _ if !instance.power.is_on() => {}
            record => match waits(desired, instance, incarnation, record, observed) {
                Some(reason) => drop(plan.waits.insert(id.clone(), reason)),
                None => {
                    plan.steps.push(Step::Start(Box::new(instance.clone()), own_wires(desired, instance)));
                }
            },
        },
    }
}

/// Why an instance could not run here now.
pub(crate) fn wait_of(
    desired: &HostDesired,
    instance: &DesiredInstance,
    incarnation: Uuid,
    observed: &Observed,
) -> Option<String> {
    waits(desired, instance, incarnation, observed.records.get(&incarnation), observed)
}

/// Why an instance cannot be started now.
fn waits(
    desired: &HostDesired,
    instance: &DesiredInstance,
    incarnation: Uuid,
    record: Option<&Record>,
    observed: &Observed,
) -> Option<String> {
    let older = |other: Uuid, id: &InstanceId| other != incarnation && id == &instance.id;
    let domains = observed.domains.iter().flatten();
    if domains.into_iter().any(|(other, domain)| older(*other, &domain.instance))
        || observed.records.iter().any(|(other, record)| older(*other, &record.instance))
    {
        return Some("its earlier incarnation is being removed".to_owned());
    }
    if instance.leased && !observed.leave.start {
        return Some(fence::why_not(&instance.id));
    }
    if let Some(pause) =
        record.and_then(|r| r.not_before_ms.checked_sub(observed.now_ms)).filter(|ms| *ms > 0)
    {
        return Some(format!("it is started again in {} s", pause.div_ceil(1_000)));
    }
    waits_for_volumes(desired, instance, observed)
        .or_else(|| waits_for_image(instance, observed))
        .or_else(|| origin::waits_for_origin(desired, instance, incarnation, record, observed))
        .or_else(|| waits_for_ports(desired, instance, observed))
}

fn waits_for_image(instance: &DesiredInstance, observed: &Observed) -> Option<String> {
    match &observed.exported {
        None => Some("the streamer does not answer".to_owned()),
        Some(exported) if !exported.contains(&instance.image) => {
            Some(format!("image {} is not exported yet", instance.image.short()))
        }
        Some(_) => None,
    }
}

fn waits_for_ports(desired: &HostDesired, instance: &DesiredInstance, observed: &Observed) -> Option<String> {
    if instance.ports.is_empty() {
        return None;
    }
    let Some(status) = &observed.networks else { return Some("netd does not answer".to_owned()) };
    if !taken(&wanted_networks(desired, observed), status, observed) {
        return Some("netd has not taken up its networks yet".to_owned());
    }
    let ready = |tap: &str| {
        status.networks.iter().flat_map(|n| &n.ports).any(|p| p.tap == tap && p.ready)
            || status.watchers.iter().any(|watcher| watcher.tap == tap && watcher.ready)
    };
    let port = instance.ports.iter().find(|port| !ready(&port.tap))?;
    Some(match status.failures.first().or(status.conflicts.first()) {
        Some(failure) => format!("its port {} is not ready: {failure}", port.name),
        None => format!("its port {} is not ready yet", port.name),
    })
}

#[cfg(test)]
mod tests;
