//! What the controller is told. Pure.

use crate::chain::{FileId, Stage};
use crate::plan::captures::{captured, id_of, image_of, is_published, ports};
use crate::plan::{Key, Observed, Plan, wanted};
use crate::store::Record;
use controller_api::agent::{DesiredInstance, HostDesired, InstanceState, InstanceStatus};
use controller_api::life::{CaptureState, CaptureStatus, CapturedDisk, DesiredCapture, Layer, SavedMemory};
use controller_hypervisor::DomainState;
use std::collections::BTreeMap;
use types::InstanceId;
use uuid::Uuid;

/// Every desired instance, and those being removed.
pub(crate) fn instances(desired: &HostDesired, observed: &Observed, plan: &Plan) -> Vec<InstanceStatus> {
    let mut all: Vec<InstanceStatus> =
        desired.instances.iter().map(|instance| desired_status(instance, observed, plan)).collect();
    let known: BTreeMap<Uuid, &InstanceId> = observed
        .domains
        .iter()
        .flatten()
        .map(|(incarnation, domain)| (*incarnation, &domain.instance))
        .chain(observed.records.iter().map(|(incarnation, record)| (*incarnation, &record.instance)))
        .collect();
    for (incarnation, id) in known {
        if wanted(desired, incarnation).is_none() {
            let record = observed.records.get(&incarnation);
            all.push(status(id, incarnation.to_string(), record, InstanceState::Removing, None));
        }
    }
    all
}

/// Whether all of the document is so.
pub(crate) fn converged(
    desired: &HostDesired,
    observed: &Observed,
    plan: &Plan,
    instances: &[InstanceStatus],
) -> bool {
    let runs = |state| matches!(state, InstanceState::Booting | InstanceState::Ready);
    // What guests read is told by the way.
    let work = |key: &Key| !matches!(key, Key::Run(_));
    !plan.steps.iter().any(|step| work(&step.key()))
        && plan.waits.is_empty()
        && plan.refusals.is_empty()
        && !observed.busy.iter().any(work)
        && observed.exported.is_some()
        && observed.networks.as_ref().is_some_and(|networks| networks.converged)
        && instances.iter().all(|instance| runs(instance.state) || is_off(desired, observed, instance))
}

/// It is switched off, and shall be.
fn is_off(desired: &HostDesired, observed: &Observed, status: &InstanceStatus) -> bool {
    let off = desired.instances.iter().any(|i| i.incarnation == status.incarnation && !i.power.is_on());
    off && observed.domains.is_some() && status.state == InstanceState::Stopped
}

/// Every desired capture. `problems` are what failed last.
pub(crate) fn captures(
    desired: &HostDesired,
    observed: &Observed,
    problems: &BTreeMap<Key, String>,
) -> Vec<CaptureStatus> {
    desired.captures.iter().map(|capture| capture_status(desired, capture, observed, problems)).collect()
}

fn capture_status(
    desired: &HostDesired,
    capture: &DesiredCapture,
    observed: &Observed,
    problems: &BTreeMap<Key, String>,
) -> CaptureStatus {
    let blank = |state, reason: Option<String>| CaptureStatus {
        checkpoint: capture.checkpoint.clone(),
        instance: capture.instance.clone(),
        state,
        reason,
        taken_ms: 0,
        pause_us: 0,
        disks: Vec::new(),
        memory: None,
        new_bytes: 0,
    };
    let Some(id) = id_of(capture) else {
        let reason = format!("its checkpoint {:?} is no UUID", capture.checkpoint);
        return blank(CaptureState::Failed, Some(reason));
    };
    let problem = |key: Key| problems.get(&key).cloned();
    let doing = || problem(Key::Instance(id.instance.clone()));
    let Some(held) = observed.captures.get(&id) else {
        let reason = match captured(desired, capture) {
            None => Some("its incarnation is not on this host".to_owned()),
            Some(instance) => ports(desired, instance, observed).map(str::to_owned),
        };
        return blank(CaptureState::Waiting, reason.or_else(|| problem(Key::Capture(id))));
    };
    match &held.stage {
        Stage::Failed { reason } => blank(CaptureState::Failed, Some(reason.clone())),
        Stage::Held | Stage::Intended { .. } => blank(CaptureState::Held, doing()),
        Stage::Taken => {
            let published = is_published(&id, held, observed);
            CaptureStatus {
                taken_ms: held.taken_ms,
                pause_us: held.pause_us,
                disks: held.disks.iter().map(|disk| with_images(disk, observed)).collect(),
                memory: held.memory_bytes.map(|file_bytes| SavedMemory {
                    checkpoint: capture.checkpoint.clone(),
                    instance: capture.instance.clone(),
                    file_bytes,
                    image: observed.images.get(&FileId::Memory(id.clone())).and_then(|image| image.digest),
                }),
                new_bytes: held.new_bytes,
                ..match published {
                    true => blank(CaptureState::Published, None),
                    false => blank(CaptureState::Taken, problem(Key::Capture(id))),
                }
            }
        }
    }
}

fn with_images(disk: &CapturedDisk, observed: &Observed) -> CapturedDisk {
    let layers = disk.layers.iter();
    let layers = layers.map(|layer| Layer { image: image_of(layer, observed), ..layer.clone() }).collect();
    CapturedDisk { disk: disk.disk.clone(), layers }
}

fn desired_status(instance: &DesiredInstance, observed: &Observed, plan: &Plan) -> InstanceStatus {
    let incarnation = instance.incarnation.parse::<Uuid>().ok();
    let record = incarnation.and_then(|incarnation| observed.records.get(&incarnation));
    let domain = incarnation
        .and_then(|incarnation| observed.domains.as_ref()?.get(&incarnation))
        .map(|domain| domain.state);
    let ready = record.is_some_and(|record| record.ready_ms.is_some() && !record.ended);
    let alive = if ready { InstanceState::Ready } else { InstanceState::Booting };
    let wait = plan.waits.get(&instance.id).cloned();
    let (state, reason) = match domain {
        Some(DomainState::Running) => (alive, None),
        Some(DomainState::Paused) => (alive, Some("it was paused by somebody: virsh resume".to_owned())),
        Some(DomainState::PausedByIoError) => {
            (alive, Some("its disk does not answer; it goes on by itself once the streamer does".to_owned()))
        }
        // Nothing is known: it runs on if it ran.
        None if observed.domains.is_none() && record.is_some_and(|r| r.started_ms.is_some() && !r.ended) => {
            (alive, wait)
        }
        Some(DomainState::Stopped { .. }) | None if !instance.power.is_on() => {
            (InstanceState::Stopped, Some("off as asked".to_owned()))
        }
        Some(DomainState::Stopped { .. }) | None if instance.leased && !observed.leave.run => {
            (InstanceState::Stopped, wait)
        }
        Some(DomainState::Stopped { .. }) | None => stopped(instance, record, domain, plan, wait),
    };
    let dirty = incarnation.and_then(|incarnation| observed.dirty_bytes.get(&incarnation));
    InstanceStatus {
        dirty_bytes: dirty.copied().unwrap_or(0),
        ..status(&instance.id, instance.incarnation.clone(), record, state, reason)
    }
}

fn stopped(
    instance: &DesiredInstance,
    record: Option<&Record>,
    domain: Option<DomainState>,
    plan: &Plan,
    wait: Option<String>,
) -> (InstanceState, Option<String>) {
    if let Some(refusal) = plan.refusals.get(&instance.id) {
        return (InstanceState::Failed, Some(refusal.clone()));
    }
    let and_wait = |text: String| match &wait {
        Some(wait) => format!("{text}; {wait}"),
        None => text,
    };
    match record {
        Some(Record { failure: Some(failure), .. }) => {
            (InstanceState::Failed, Some(and_wait(failure.clone())))
        }
        Some(record) if record.ended => {
            let how = match domain {
                Some(DomainState::Stopped { reason }) => format!("it ended by itself ({reason})"),
                _ => "it ended by itself".to_owned(),
            };
            (InstanceState::Stopped, Some(and_wait(how)))
        }
        _ => (InstanceState::Preparing, wait),
    }
}

fn status(
    id: &InstanceId,
    incarnation: String,
    record: Option<&Record>,
    state: InstanceState,
    reason: Option<String>,
) -> InstanceStatus {
    let present = record.filter(|record| !record.ended);
    InstanceStatus {
        id: id.clone(),
        incarnation,
        state,
        reason,
        started_ms: present.and_then(|record| record.started_ms),
        ready_ms: present.and_then(|record| record.ready_ms),
        starts: record.map_or(0, |record| record.starts),
        dirty_bytes: 0,
        health: None,
    }
}
