//! The model's questions in the runtime's words.

use controller_model::name;
use controller_model::placement::{self, Candidate};
use plugins_runtime::placement::{Columns, HostState, PlacementInput, Request};
use std::collections::{BTreeMap, BTreeSet};
use types::Revision;

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
