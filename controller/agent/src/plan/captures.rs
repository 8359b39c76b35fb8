//! Captures: when ports are held, what is taken, published and dropped, and which layers nothing stands on any more.
//!
//! ```text
//!   Hold: ports held, Held ─> Take: Intended ──> Taken ──> files published ──> named no more: dropped
//!             └──────────────────────┴──> Failed            (a layer when nothing stands on it)
//!   found Intended after a crash: settled, by what libvirt or the files say
//! ```

use super::{Key, Observed, Plan, Step, is_alive, taken, wanted, wanted_networks};
use crate::chain::{Capture, CaptureId, FileId, FileImage, LayerId, Stage};
use controller_api::agent::{DesiredInstance, HostDesired};
use controller_api::life::{CaptureStep, DesiredCapture, Layer};
use std::collections::BTreeSet;
use types::{Digest, InstanceId};
use uuid::Uuid;

/// A controller that died must not leave guests without a network: so long they are held for a capture that is not
/// taken...
pub(crate) const HOLD_MS_MAX: u64 = 60_000;
/// ... and so long for one that others of its checkpoint are not done with.
pub(crate) const TAKE_MS_MAX: u64 = 120_000;

/// A capture's name; none if its checkpoint is no UUID.
pub(crate) fn id_of(capture: &DesiredCapture) -> Option<CaptureId> {
    Some(CaptureId { checkpoint: capture.checkpoint.parse().ok()?, instance: capture.instance.clone() })
}

/// The desired instance that is to be captured.
pub(crate) fn captured<'a>(
    desired: &'a HostDesired,
    capture: &DesiredCapture,
) -> Option<&'a DesiredInstance> {
    let incarnation: Uuid = capture.incarnation.parse().ok()?;
    wanted(desired, incarnation).filter(|instance| instance.id == capture.instance)
}

pub(super) fn captures(plan: &mut Plan, desired: &HostDesired, observed: &Observed) {
    for (id, capture) in &observed.captures {
        if matches!(capture.stage, Stage::Intended { .. }) && observed.domains.is_some() {
            plan.steps.push(Step::SettleCapture(id.clone()));
        }
    }
    for capture in &desired.captures {
        // The status says why there is nothing to do for one without a proper name.
        let Some(id) = id_of(capture) else { continue };
        plan.steps.extend(step(desired, capture, id, observed));
    }
    let named: BTreeSet<CaptureId> = desired.captures.iter().filter_map(id_of).collect();
    for (id, capture) in &observed.captures {
        if !named.contains(id) && !matches!(capture.stage, Stage::Intended { .. }) {
            plan.steps.push(Step::DropCapture(id.clone()));
        }
    }
    layers(plan, desired, observed);
}

fn step(desired: &HostDesired, capture: &DesiredCapture, id: CaptureId, observed: &Observed) -> Option<Step> {
    let fail = |reason: String| Some(Step::FailCapture(id.clone(), reason));
    let held = observed.captures.get(&id);
    match (held.map(|held| &held.stage), capture.step) {
        (Some(Stage::Intended { .. } | Stage::Failed { .. }), _) => None,
        (None | Some(Stage::Held | Stage::Taken), CaptureStep::Hold | CaptureStep::Take)
            if expired(capture, observed) =>
        {
            fail(format!(
                "its ports were held for {} s without a word to go on: take another one",
                limit_ms(capture) / 1_000
            ))
        }
        (Some(Stage::Taken), _) => {
            let unpublished = held.is_some_and(|held| !is_published(&id, held, observed));
            // While ports are held, nothing shall slow down the captures of others.
            let now = capture.publish && capture.step == CaptureStep::Keep && observed.exported.is_some();
            (now && unpublished).then(|| Step::PublishCapture(id.clone()))
        }
        (Some(Stage::Held), CaptureStep::Hold) => None,
        (None, CaptureStep::Hold) => {
            let instance = captured(desired, capture)?;
            let incarnation = capture.incarnation.parse().ok()?;
            ports(desired, instance, observed).is_none().then(|| Step::NoteHeld(id.clone(), incarnation))
        }
        (Some(Stage::Held), CaptureStep::Take) => match captured(desired, capture) {
            None => fail("its incarnation is not on this host any more".to_owned()),
            Some(instance) => take(desired, capture, id, instance, observed),
        },
        // What its guest has said meanwhile may have reached others that were captured before.
        (None, CaptureStep::Take) => fail("its ports were not held on this host before".to_owned()),
        (None | Some(Stage::Held), CaptureStep::Keep) => fail("it was never taken on this host".to_owned()),
    }
}

fn take(
    desired: &HostDesired,
    capture: &DesiredCapture,
    id: CaptureId,
    instance: &DesiredInstance,
    observed: &Observed,
) -> Option<Step> {
    let domains = observed.domains.as_ref()?;
    // A volume that is being made or grown has no size yet.
    let making = |key: &Key| matches!(key, Key::Volume(owner, _) if *owner == instance.id);
    if observed.busy.iter().any(making) || ports(desired, instance, observed).is_some() {
        return None;
    }
    let incarnation: Uuid = capture.incarnation.parse().ok()?;
    let running = domains.get(&incarnation).is_some_and(|domain| is_alive(domain.state));
    let with_memory = capture.with_memory;
    Some(Step::TakeCapture { id, instance: Box::new(instance.clone()), with_memory, running })
}

/// Why an instance's ports are not held yet, if so.
pub(crate) fn ports(
    desired: &HostDesired,
    instance: &DesiredInstance,
    observed: &Observed,
) -> Option<&'static str> {
    let wired = |tap: &str| desired.networks.iter().flat_map(|n| &n.ports).any(|port| port.tap == tap);
    let own: Vec<&str> = instance.ports.iter().map(|p| p.tap.as_str()).filter(|tap| wired(tap)).collect();
    if own.is_empty() {
        return None;
    }
    let Some(status) = &observed.networks else { return Some("netd does not answer") };
    let wanted = wanted_networks(desired, observed);
    if !taken(&wanted, status, observed) {
        return Some("netd has not taken up its networks yet");
    }
    let held = wanted.networks.iter().flat_map(|network| &network.ports).filter(|port| port.held);
    let held: BTreeSet<&str> = held.map(|port| port.tap.as_str()).collect();
    let ready = |tap: &str| status.networks.iter().flat_map(|n| &n.ports).any(|p| p.tap == tap && p.ready);
    (!own.iter().all(|tap| held.contains(tap) && ready(tap))).then_some("its ports are not held yet")
}

/// Taps that pass nothing while captures are taken.
pub(super) fn held_taps<'a>(desired: &'a HostDesired, observed: &Observed) -> BTreeSet<&'a str> {
    let holds = |capture: &&DesiredCapture| {
        let stage = id_of(capture).and_then(|id| observed.captures.get(&id)).map(|held| &held.stage);
        let over = match stage {
            Some(Stage::Failed { .. }) => true,
            // What libvirt is at has an end of its own.
            Some(Stage::Intended { .. }) => false,
            Some(Stage::Held | Stage::Taken) => expired(capture, observed),
            // One that was not held in time is not taken any more.
            None => capture.step == CaptureStep::Take || expired(capture, observed),
        };
        capture.step != CaptureStep::Keep && !over
    };
    let instances = desired.captures.iter().filter(holds).filter_map(|capture| captured(desired, capture));
    instances.flat_map(|instance| &instance.ports).map(|port| port.tap.as_str()).collect()
}

fn expired(capture: &DesiredCapture, observed: &Observed) -> bool {
    let held = id_of(capture).and_then(|id| observed.held_ms.get(&(id, capture.step)));
    held.is_some_and(|ms| *ms > limit_ms(capture))
}

fn limit_ms(capture: &DesiredCapture) -> u64 {
    if capture.step == CaptureStep::Hold { HOLD_MS_MAX } else { TAKE_MS_MAX }
}

/// A layer's image: as it was told, or as it was made here since.
pub(crate) fn image_of(layer: &Layer, observed: &Observed) -> Option<Digest> {
    let made = LayerId::of(layer).and_then(|id| observed.images.get(&FileId::Layer(id))?.digest);
    made.or(layer.image)
}

/// All files of a capture are images.
pub(crate) fn is_published(id: &CaptureId, capture: &Capture, observed: &Observed) -> bool {
    let memory =
        || observed.images.get(&FileId::Memory(id.clone())).is_some_and(|image| image.digest.is_some());
    let mut layers = capture.disks.iter().flat_map(|disk| &disk.layers);
    layers.all(|layer| image_of(layer, observed).is_some()) && (capture.memory_bytes.is_none() || memory())
}

/// Whether a layer's file is on this host.
pub(super) fn is_local(layer: &Layer, observed: &Observed) -> bool {
    LayerId::of(layer).is_some_and(|id| observed.files.contains(&FileId::Layer(id)))
}

/// Frozen files that nothing stands on and nobody keeps go.
fn layers(plan: &mut Plan, desired: &HostDesired, observed: &Observed) {
    // The controller may name what is here for a reason that this host learns later.
    let instances = desired.instances.iter().flat_map(|instance| &instance.layers);
    let volumes = desired.volumes.iter().flat_map(|volume| &volume.layers);
    let chains = observed.chains.values().flat_map(|chain| &chain.layers);
    let mut kept: BTreeSet<FileId> =
        instances.chain(volumes).chain(chains).filter_map(LayerId::of).map(FileId::Layer).collect();
    for (id, capture) in &observed.captures {
        kept.extend(capture.keeps(id).map(FileId::Layer));
        let memory = capture.memory_bytes.is_some() || matches!(capture.stage, Stage::Intended { .. });
        kept.extend(memory.then(|| FileId::Memory(id.clone())));
    }
    kept.extend(desired.instances.iter().filter_map(|instance| {
        let memory = instance.memory_from.as_ref()?;
        // Its guest has gone on from it: from now on it boots.
        let resumed = |incarnation| observed.records.get(&incarnation).is_some_and(|record| record.resumed);
        if instance.incarnation.parse().is_ok_and(resumed) {
            return None;
        }
        let checkpoint = memory.checkpoint.parse().ok()?;
        Some(FileId::Memory(CaptureId { checkpoint, instance: memory.instance.clone() }))
    }));
    for file in observed.files.difference(&kept) {
        // A capture under way has files before it has a word about them.
        if !is_busy(file, observed) {
            let made = |image: &FileImage| image.digest.or(image.draft.as_ref().map(|draft| draft.digest));
            let image = observed.images.get(file).and_then(made);
            let named =
                |digest: &Digest| desired.images.contains(digest) || observed.named.contains_key(digest);
            plan.steps.push(Step::DropFile(file.clone(), image.filter(|digest| !named(digest))));
        }
    }
}

fn is_busy(file: &FileId, observed: &Observed) -> bool {
    let instance: &InstanceId = match file {
        FileId::Layer(layer) => &layer.instance,
        FileId::Memory(capture) => &capture.instance,
    };
    let capture = |key: &Key| matches!(key, Key::Capture(id) if id.instance == *instance);
    observed.busy.contains(&Key::Instance(instance.clone())) || observed.busy.iter().any(capture)
}
