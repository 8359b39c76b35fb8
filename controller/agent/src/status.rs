//! What the controller is told. Pure.

use crate::plan::{Key, Observed, Plan, wanted};
use crate::store::Record;
use controller_api::agent::{DesiredInstance, HostDesired, InstanceState, InstanceStatus};
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
pub(crate) fn converged(observed: &Observed, plan: &Plan, instances: &[InstanceStatus]) -> bool {
    let runs = |state| matches!(state, InstanceState::Booting | InstanceState::Ready);
    // What guests read is told by the way.
    let work = |key: &Key| !matches!(key, Key::Run(_));
    !plan.steps.iter().any(|step| work(&step.key()))
        && plan.waits.is_empty()
        && plan.refusals.is_empty()
        && !observed.busy.iter().any(work)
        && observed.exported.is_some()
        && observed.networks.as_ref().is_some_and(|networks| networks.converged)
        && instances.iter().all(|instance| runs(instance.state))
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
        Some(DomainState::Stopped { .. }) | None if instance.leased && !observed.leave.run => {
            (InstanceState::Stopped, wait)
        }
        Some(DomainState::Stopped { .. }) | None => stopped(instance, record, domain, plan, wait),
    };
    status(&instance.id, instance.incarnation.clone(), record, state, reason)
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
