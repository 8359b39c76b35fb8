//! Where an instance goes: the question in the runtime's words, and what an answer comes to.

use super::{Answered, Question};
use controller_api::policy::PolicyKind;
use plugins_runtime::placement::{Columns, HostState, PlacementInput, Request, Verdict};
use plugins_runtime::{Policy, PolicyError};
use types::Digest;

impl Question for PlacementInput {
    type Verdict = Verdict;
    const KIND: PolicyKind = PolicyKind::Placement;

    fn address(&mut self, decision: u64, settings: serde_json::Value) {
        self.decision_id = decision.to_string();
        self.settings = settings;
    }

    fn digest(&self) -> Digest {
        PlacementInput::digest(self)
    }

    fn ask(&self, policy: &Policy) -> Result<Answered<Verdict>, PolicyError> {
        let decision = policy.place(self)?;
        Ok(Answered { verdict: decision.verdict, took_us: decision.took_us, logs: decision.logs })
    }

    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Place { .. } => "place",
            Verdict::Defer { .. } => "defer",
            Verdict::Refuse { .. } => "refuse",
        }
    }

    /// Its first choice counts: reasons and scores may differ.
    fn outcome(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Place { choices, .. } => {
                format!("place on {}", choices.first().map_or("no host", |choice| choice.host.as_str()))
            }
            other => Self::word(other).to_owned(),
        }
    }
}

/// The question in the runtime's words.
pub(crate) fn input(
    question: &controller_model::placement::Question,
    now_ms: u64,
    revision: types::Revision,
) -> PlacementInput {
    let instance = &question.instance;
    let mut hosts = Columns::default();
    for candidate in &question.candidates {
        hosts.names.push(candidate.name.to_string());
        hosts.sites.push(candidate.site.to_string());
        hosts.states.push(if candidate.online { HostState::Ready } else { HostState::Unreachable });
        hosts.memory_total_bytes.push(candidate.memory_total);
        hosts.memory_free_bytes.push(candidate.memory_free);
        hosts.disk_free_bytes.push(candidate.disk_free);
        hosts.cpu_total_milli.push(candidate.cpu_total_milli);
        hosts.cpu_free_milli.push(candidate.cpu_free_milli);
        hosts.instance_counts.push(candidate.instances);
        hosts.loads.push(if candidate.load.is_finite() { candidate.load.clamp(0.0, 1.0) } else { 1.0 });
        hosts.image_cached_bytes.push(candidate.image_cached_bytes);
        hosts.peers.push(candidate.peers);
    }
    let seed = controller_model::name::digest(format!("{} {}", question.id, instance.incarnation).as_bytes());
    let [a, b, c, d, ..] = *seed.as_bytes();
    PlacementInput {
        // These two are said when it is known who is asked.
        decision_id: String::new(),
        seed: u32::from_be_bytes([a, b, c, d]),
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
            disk_bytes: 0,
            image_bytes: instance.image_size_bytes,
            current_host: None,
            pinned_host: question.pinned.as_ref().map(ToString::to_string),
            choices_max: 0,
            attributes: std::collections::BTreeMap::new(),
        },
        hosts,
    }
}
