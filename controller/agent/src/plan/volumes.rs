//! Volumes: made, grown, remade as another disk, removed.

use super::{Key, Observed, Plan, Step};
use controller_api::agent::{DesiredInstance, DesiredVolume, HostDesired};
use controller_hypervisor::DomainState;
use types::{InstanceId, VolumeName};

pub(super) fn volumes(plan: &mut Plan, desired: &HostDesired, observed: &Observed) {
    for volume in &desired.volumes {
        let held = observed.volumes.get(&(volume.instance.clone(), volume.name.clone()));
        let make = match held {
            None => true,
            Some((bytes, incarnation)) => {
                let other = *incarnation != volume.incarnation;
                (other || *bytes < volume.size.0) && !is_here(&volume.instance, observed, true)
            }
        };
        if make {
            plan.steps.push(Step::MakeVolume(Box::new(volume.clone())));
        }
    }
    for (instance, name) in observed.volumes.keys() {
        let named = desired.volumes.iter().any(|volume| &volume.instance == instance && &volume.name == name)
            || desired.instances.iter().any(|wanted| &wanted.id == instance && wanted.volumes.contains(name));
        if !named && !is_here(instance, observed, false) {
            plan.steps.push(Step::DeleteVolume(instance.clone(), name.clone()));
        }
    }
}

/// Whether an instance may have its disks open (`running`), or has any trace here. Not knowing means yes.
fn is_here(instance: &InstanceId, observed: &Observed, running: bool) -> bool {
    let Some(domains) = &observed.domains else { return true };
    let stopped = |state: DomainState| running && matches!(state, DomainState::Stopped { .. });
    domains.values().any(|domain| &domain.instance == instance && !stopped(domain.state))
        || observed.busy.contains(&Key::Instance(instance.clone()))
        || (!running && observed.records.values().any(|record| &record.instance == instance))
}

/// Why an instance waits for its volumes.
pub(super) fn waits_for_volumes(
    desired: &HostDesired,
    instance: &DesiredInstance,
    observed: &Observed,
) -> Option<String> {
    instance.volumes.iter().find_map(|name| {
        let Some(wanted) = wanted_volume(desired, &instance.id, name) else {
            return Some(format!("the document names no size for its volume {name}"));
        };
        let held = observed.volumes.get(&(instance.id.clone(), name.clone()));
        let made = held.is_some_and(|(bytes, incarnation)| {
            *bytes >= wanted.size.0 && *incarnation == wanted.incarnation
        });
        (!made).then(|| format!("its volume {name} is not made yet"))
    })
}

/// The document's volume of this name.
pub(super) fn wanted_volume<'a>(
    desired: &'a HostDesired,
    instance: &InstanceId,
    name: &VolumeName,
) -> Option<&'a DesiredVolume> {
    desired.volumes.iter().find(|volume| &volume.instance == instance && &volume.name == name)
}
