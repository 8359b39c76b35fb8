//! The model's questions in the runtime's words.

use controller_api::planned::OrderStatus;
use controller_model::placement::{self, Candidate};
use controller_model::record::{CheckpointCause, Verified};
use controller_model::standing::{Condition, Standing};
use controller_model::{checkpoint, name, update};
use plugins_runtime::State;
use plugins_runtime::checkpoint::{Cause, Checkpoint, CheckpointInput, Subject, Verified as Proven};
use plugins_runtime::instances::{Health, Instance, InstanceState};
use plugins_runtime::placement::{Columns, HostState, PlacementInput, Request};
use plugins_runtime::update::{OUTCOMES_MAX, Outcome, RollStatus, Rollout, UpdateInput};
use std::collections::{BTreeMap, BTreeSet};
use types::Revision;

/// Most bytes of an outcome's detail.
const DETAIL_LEN_MAX: usize = 1_024;

/// Where an instance goes. Who is asked, and the decision's number, are said later.
pub(crate) fn placement(question: &placement::Question, now_ms: u64, revision: Revision) -> PlacementInput {
    let instance = &question.instance;
    PlacementInput {
        decision_id: String::new(),
        seed: seed(&format!("{} {}", question.id, instance.incarnation)),
        now_ms,
        revision,
        settings: serde_json::Value::Null,
        request: Request {
            instance: question.id.to_string(),
            deployment: question.id.deployment.to_string(),
            member: question.id.member.to_string(),
            appliance: instance.appliance.to_string(),
            version: instance.version.to_string(),
            vcpus_milli: instance.vcpus.saturating_mul(1_000),
            memory_bytes: instance.memory.0,
            disk_bytes: question.disk_bytes,
            image_bytes: instance.image_size_bytes,
            current_host: question.current.as_ref().map(ToString::to_string),
            pinned_host: question.pinned.as_ref().map(ToString::to_string),
            choices_max: 0,
            attributes: attributes(question),
        },
        hosts: columns(&question.candidates),
    }
}

/// Chance that is the same whenever the same is asked.
pub(crate) fn seed(about: &str) -> u32 {
    let digest = name::digest(about.as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// A member's wishes as the contract names them, and those for policies of other makers as they were written.
fn attributes(question: &placement::Question) -> BTreeMap<String, String> {
    let wishes = &question.wishes;
    let mut attributes = wishes.attributes.clone();
    let labels = wishes.labels.iter();
    attributes.extend(labels.map(|(key, value)| (format!("collective/label/{key}"), value.clone())));
    if let Some(site) = &question.site {
        attributes.insert("collective/site".into(), site.to_string());
    }
    if !wishes.apart_from.is_empty() {
        let members: Vec<&str> = wishes.apart_from.iter().map(types::MemberName::as_str).collect();
        attributes.insert("collective/apart-from".into(), members.join(","));
    }
    if wishes.attested {
        attributes.insert("collective/attested".into(), "true".into());
    }
    attributes
}

fn columns(candidates: &[Candidate]) -> Columns {
    let mut hosts = Columns::default();
    let keys: BTreeSet<&String> = candidates.iter().flat_map(|candidate| candidate.labels.keys()).collect();
    for key in keys {
        let value = |candidate: &Candidate| candidate.labels.get(key).cloned().unwrap_or_default();
        hosts.labels.insert(key.clone(), candidates.iter().map(value).collect());
    }
    for candidate in candidates {
        hosts.names.push(candidate.name.to_string());
        hosts.sites.push(candidate.site.to_string());
        hosts.states.push(state(candidate.state));
        hosts.memory_total_bytes.push(candidate.memory_total);
        hosts.memory_free_bytes.push(candidate.memory_free);
        hosts.disk_total_bytes.push(candidate.disk_total);
        hosts.disk_free_bytes.push(candidate.disk_free);
        hosts.cpu_total_milli.push(candidate.cpu_total_milli);
        hosts.cpu_free_milli.push(candidate.cpu_free_milli);
        hosts.instance_counts.push(candidate.instances);
        hosts.loads.push(if candidate.load.is_finite() { candidate.load.clamp(0.0, 1.0) } else { 1.0 });
        hosts.image_cached_bytes.push(candidate.image_cached_bytes);
        hosts.peers.push(candidate.peers);
        hosts.rivals.push(candidate.rivals);
        hosts.attested.push(candidate.attested);
    }
    hosts
}

fn state(state: placement::HostState) -> HostState {
    match state {
        placement::HostState::Ready => HostState::Ready,
        placement::HostState::Cordoned => HostState::Cordoned,
        placement::HostState::Draining => HostState::Draining,
        placement::HostState::Unreachable => HostState::Unreachable,
        placement::HostState::Maintenance => HostState::Maintenance,
    }
}

/// What happens next in a rollout.
pub(crate) fn update(question: &update::Question, now_ms: u64, revision: Revision) -> UpdateInput {
    // The oldest are of least use.
    let surplus = question.orders.len().saturating_sub(OUTCOMES_MAX);
    let outcomes = question.orders.iter().skip(surplus).map(|order| Outcome {
        instance: order.instance.to_string(),
        ordered_ms: order.ordered_ms,
        finished_ms: order.finished_ms,
        status: match order.status {
            OrderStatus::Succeeded => RollStatus::Succeeded,
            OrderStatus::Failed => RollStatus::Failed,
            OrderStatus::RolledBack => RollStatus::RolledBack,
            OrderStatus::Dropped => RollStatus::GivenUp,
            _ => RollStatus::UnderWay,
        },
        detail: detail(order.reason.as_deref().unwrap_or_default()),
    });
    let resumed = (question.resumed_ms > 0)
        .then(|| ("collective/resumed".to_owned(), question.resumed_ms.to_string()))
        .into_iter();
    UpdateInput {
        decision_id: String::new(),
        seed: seed(&question.id),
        now_ms,
        revision,
        settings: serde_json::Value::Null,
        rollout: Rollout {
            id: question.id.clone(),
            appliance: question.appliance.to_string(),
            channel: question.channel.to_string(),
            target: question.target.to_string(),
            started_ms: question.started_ms,
            unavailable_max: question.unavailable_max,
            outcomes: outcomes.collect(),
            attributes: resumed.collect(),
        },
        instances: question.instances.iter().map(instance).collect(),
        state: State(question.state.0.clone()),
    }
}

/// As much of an order's reason as the contract takes.
fn detail(reason: &str) -> String {
    let end = reason.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= DETAIL_LEN_MAX);
    reason[..end.last().unwrap_or(0)].to_owned()
}

/// What happens to a deployment's checkpoints.
pub(crate) fn checkpoint(
    question: &checkpoint::Question,
    now_ms: u64,
    revision: Revision,
) -> CheckpointInput {
    let used = question.checkpoints.iter().fold(0_u64, |sum, (_, held)| sum.saturating_add(held.size_bytes));
    CheckpointInput {
        decision_id: String::new(),
        seed: seed(question.deployment.as_str()),
        now_ms,
        revision,
        settings: serde_json::Value::Null,
        subject: Subject {
            deployment: question.deployment.to_string(),
            created_ms: question.created_ms,
            used_bytes: used,
            quota_bytes: 0,
            attributes: BTreeMap::new(),
        },
        instances: question.instances.iter().map(instance).collect(),
        checkpoints: question.checkpoints.iter().map(kept).collect(),
        state: State(question.state.0.clone()),
    }
}

fn kept((name, held): &(String, controller_model::record::Checkpoint)) -> Checkpoint {
    Checkpoint {
        name: name.clone(),
        taken_ms: held.taken_ms,
        size_bytes: held.size_bytes,
        with_memory: held.with_memory,
        cause: match held.cause {
            CheckpointCause::Policy => Cause::Policy,
            CheckpointCause::Person => Cause::Person,
            CheckpointCause::Update | CheckpointCause::Restore => Cause::Update,
        },
        pinned: held.pinned,
        verified: match held.verified {
            Verified::Untried => Proven::Never,
            Verified::Good => Proven::Restored,
            Verified::Damaged => Proven::Damaged,
        },
    }
}

fn instance(standing: &Standing) -> Instance {
    let (state, health) = match standing.condition {
        Condition::Waiting => (InstanceState::Waiting, Health::Unknown),
        Condition::Starting => (InstanceState::Starting, Health::Unknown),
        Condition::Booting => (InstanceState::Running, Health::Unknown),
        Condition::Serving if standing.unhealthy.is_some() => (InstanceState::Running, Health::Unhealthy),
        Condition::Serving => (InstanceState::Running, Health::Healthy),
        Condition::Stopped => (InstanceState::Stopped, Health::Unknown),
        Condition::Failed => (InstanceState::Failed, Health::Unhealthy),
        Condition::Unreachable => (InstanceState::Unreachable, Health::Unknown),
    };
    Instance {
        name: standing.id.to_string(),
        deployment: standing.id.deployment.to_string(),
        member: standing.id.member.to_string(),
        host: standing.host.as_ref().map(ToString::to_string).unwrap_or_default(),
        site: standing.site.as_ref().map(ToString::to_string).unwrap_or_default(),
        appliance: standing.appliance.to_string(),
        version: standing.version.to_string(),
        state,
        health,
        started_ms: standing.started_ms,
        memory_bytes: standing.memory_bytes,
        dirty_bytes: standing.dirty_bytes,
        checkpointed_ms: standing.checkpointed_ms,
    }
}
