//! Asking a policy: who answers, what happens if nobody does, what is written down.
//!
//! Generic over the kinds. A caller brings a [`Question`] and gets [`Decided`]: the answer, if there is one, and all
//! that is to be kept with it. [`keep`] writes it down together with what follows from it, in one transaction; then
//! the policy's candidate is asked the same, which nobody waits for. A failure is never an answer.

mod checkpoint;
mod placement;
mod update;

use crate::app::App;
use crate::ledger::Writes;
use crate::policies::Policies;
use crate::problem::{Answer, Refused};
use crate::shadow;
use chassis::clock::unix_ms;
use chassis::telemetry::chain;
use controller_api::policy::{DecisionView, FallbackView, OnFailure, PolicyKind, PolicyRelease};
use controller_model::placement::DECISIONS_MAX;
use controller_model::{Cluster, name, record};
use plugins_runtime::{LogLevel, LogLine, Policy, PolicyError};
use serde::Serialize;
use std::sync::Arc;
use types::{Digest, InstanceId, PolicyName};

/// Bytes of decisions' inputs kept: the oldest leave earlier than their decisions.
const INPUTS_BYTES_MAX: usize = 64 << 20;
/// The whole answer of a kind is kept with its decision up to this size in bytes.
const ANSWER_LEN_MAX: usize = 64 << 10;
/// Log lines kept with a decision.
const LOG_LINES_MAX: usize = 32;

/// What a policy of some kind is asked.
pub(crate) trait Question: Clone + Serialize + Send + Sync + 'static {
    /// What it answers.
    type Verdict: Serialize + Send + 'static;
    /// The kind of policy that can answer.
    const KIND: PolicyKind;
    /// Sets the decision's number, and the settings of whoever is asked: null for the component's defaults.
    fn address(&mut self, decision: u64, settings: serde_json::Value);
    /// SHA-256 of its canonical JSON.
    fn digest(&self) -> Digest;
    /// Asks. Blocks for the policy's deadline at most.
    ///
    /// # Errors
    /// Why there is no answer.
    fn ask(&self, policy: &Policy) -> Result<Answered<Self::Verdict>, PolicyError>;
    /// The verdict in one word.
    fn word(verdict: &Self::Verdict) -> &'static str;
    /// The verdict with what it is about, in one line: two answers with the same one have the same effect.
    fn outcome(verdict: &Self::Verdict) -> String;
}

/// One component's answer.
pub(crate) struct Answered<V> {
    pub(crate) verdict: V,
    pub(crate) took_us: u64,
    pub(crate) logs: Vec<LogLine>,
}

/// Who is asked about what.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The policy by its name.
    pub(crate) policy: PolicyName,
    /// `instance/office/gateway`.
    pub(crate) name: String,
    /// The instance, if it is about one.
    pub(crate) instance: Option<InstanceId>,
}

/// A decision that is not yet written down.
pub(crate) struct Decided<Q: Question> {
    /// All that is kept of it. The caller adds what it did with the answer.
    pub(crate) view: DecisionView,
    /// None: nobody had an answer, and the view says why.
    pub(crate) verdict: Option<Q::Verdict>,
    question: Q,
    input: Vec<u8>,
    candidate: Option<PolicyRelease>,
}

/// Asks the policy, or its fallback if it has no answer.
///
/// # Errors
/// Only if the thread that asks cannot be run: that a policy fails is in the [`Decided`].
pub(crate) async fn ask<Q: Question>(app: &App, subject: Subject, mut question: Q) -> Answer<Decided<Q>> {
    let cluster = app.ledger.cluster();
    let number = app.policies.next_decision(&cluster);
    let asked = cluster.policies.get(&subject.policy).map(|stored| &stored.value);
    let settings = asked.and_then(|policy| policy.active.settings.clone());
    question.address(number, settings.unwrap_or_default());
    let mut view = DecisionView {
        id: number,
        at_ms: unix_ms(),
        kind: Q::KIND,
        subject: subject.name,
        instance: subject.instance,
        policy: subject.policy.clone(),
        component: String::new(),
        digest: Digest::from_bytes([0; 32]),
        settings: None,
        input: Digest::from_bytes([0; 32]),
        input_bytes: 0,
        verdict: "error".into(),
        outcome: String::new(),
        host: None,
        choices: Vec::new(),
        answer: None,
        notes: Vec::new(),
        logs: Vec::new(),
        took_us: 0,
        fallback: None,
        shadow: None,
    };
    let mut verdict = None;
    match asked {
        None => view.notes.push(format!("policy {0}: policy {0} is not installed", subject.policy)),
        Some(policy) => {
            let first = one(&app.policies, &subject.policy, policy, &question, &mut view).await?;
            verdict = match (first, &policy.on_failure) {
                (Ok(verdict), _) => Some(verdict),
                (Err(because), OnFailure::Refuse) => {
                    view.notes.push(format!("policy {}: {because}", subject.policy));
                    None
                }
                (Err(because), OnFailure::Fallback(other)) => {
                    fall_back(app, &cluster, other, because, &mut question, &mut view).await?
                }
            };
        }
    }
    view.input = question.digest();
    let input = serde_json::to_vec(&question).unwrap_or_default();
    view.input_bytes = input.len() as u64;
    match &verdict {
        Some(verdict) => {
            view.verdict = Q::word(verdict).to_owned();
            view.outcome = Q::outcome(verdict);
            view.answer = serde_json::to_value(verdict).ok();
            if view.answer.as_ref().is_some_and(|answer| answer.to_string().len() > ANSWER_LEN_MAX) {
                view.answer = None;
            }
        }
        None => view.outcome = format!("error: {}", view.notes.last().map_or("no answer", String::as_str)),
    }
    let candidate = asked.and_then(|policy| policy.candidate.clone());
    Ok(Decided { view, verdict, question, input, candidate })
}

async fn fall_back<Q: Question>(
    app: &App,
    cluster: &Cluster,
    other: &PolicyName,
    because: String,
    question: &mut Q,
    view: &mut DecisionView,
) -> Answer<Option<Q::Verdict>> {
    view.notes.push(format!("policy {}: {because}; {other} was asked instead", view.policy));
    view.fallback = Some(FallbackView { policy: other.clone(), because });
    let Some(policy) = cluster.policies.get(other) else {
        view.notes.push(format!("policy {other}: policy {other} is not installed"));
        return Ok(None);
    };
    question.address(view.id, policy.active.settings.clone().unwrap_or_default());
    // What the fallback's own failure mode is does not matter: there is no chain.
    match one(&app.policies, other, policy, question, view).await? {
        Ok(verdict) => Ok(Some(verdict)),
        Err(problem) => {
            view.notes.push(format!("policy {other}: {problem}"));
            Ok(None)
        }
    }
}

/// Asks one policy's active component, where that may block.
async fn one<Q: Question>(
    policies: &Arc<Policies>,
    policy_name: &PolicyName,
    policy: &record::Policy,
    question: &Q,
    view: &mut DecisionView,
) -> Answer<Result<Q::Verdict, String>> {
    let release = &policy.active;
    view.component = format!("{} {}", release.component, release.version);
    view.digest = release.digest;
    view.settings = release.settings.as_ref().map(settings_digest);
    if policy.kind != Q::KIND {
        let problem = format!("{policy_name} is a policy of {}, not of {}", policy.kind, Q::KIND);
        return Ok(Err(problem));
    }
    if let Err(problem) = policies.health.may_ask(policy_name, &release.digest, unix_ms()) {
        return Ok(Err(problem));
    }
    let (shared, digest, asked) = (Arc::clone(policies), release.digest, question.clone());
    let called = tokio::task::spawn_blocking(move || call(&shared, &digest, &asked)).await;
    let answer = match called {
        Ok(answer) => answer,
        Err(error) => {
            policies.health.forget(policy_name, &release.digest);
            return Err(Refused::internal(&error));
        }
    };
    policies.health.note(policy_name, release, &answer, unix_ms());
    match answer {
        Ok(answered) => {
            view.took_us = answered.took_us;
            view.logs = answered.logs.iter().take(LOG_LINES_MAX).map(log_line).collect();
            Ok(Ok(answered.verdict))
        }
        Err(failure) => Ok(Err(failure.text)),
    }
}

/// Why a component gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For counters: the runtime's class, or `component` if it could not be loaded.
    pub(crate) class: String,
    /// For people.
    pub(crate) text: String,
    /// Of the runtime, if it came to a call.
    pub(crate) error: Option<PolicyError>,
}

/// Asks a component by its digest. Blocks.
///
/// # Errors
/// It cannot be loaded, or has no answer.
pub(crate) fn call<Q: Question>(
    policies: &Policies,
    digest: &Digest,
    question: &Q,
) -> Result<Answered<Q::Verdict>, Failure> {
    let policy =
        policies.get(digest).map_err(|text| Failure { class: "component".into(), text, error: None })?;
    question.ask(&policy).map_err(|error| {
        let text = chain(&error).to_string();
        Failure { class: class(&error), text, error: Some(error) }
    })
}

/// `deadline`, `memory`, ...: the tag that the error has in JSON.
fn class(error: &PolicyError) -> String {
    let value = serde_json::to_value(error).unwrap_or_default();
    value.get("kind").and_then(|kind| kind.as_str()).unwrap_or("other").to_owned()
}

fn log_line(line: &LogLine) -> String {
    let level = match line.level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    format!("{level}: {}", line.message)
}

/// SHA-256 of settings as JSON with sorted keys.
pub(crate) fn settings_digest(settings: &serde_json::Value) -> Digest {
    name::digest(settings.to_string().as_bytes())
}

/// Writes a decision down together with what follows from it, and lets the candidate see the same question. `make` may
/// say that what it is about has changed meanwhile: then nothing is kept.
///
/// # Errors
/// The store fails: nothing is written then.
pub(crate) async fn keep<Q: Question>(
    app: &App,
    decided: Decided<Q>,
    make: impl FnOnce(&Cluster, &DecisionView) -> Option<Writes> + Send,
) -> Answer<()> {
    let Decided { view, question, input, candidate, .. } = decided;
    let mut kept = false;
    app.ledger
        .record(|cluster| {
            let Some(mut writes) = make(cluster, &view) else { return Ok(Writes::default()) };
            kept = true;
            write_down(cluster, &view, input, &mut writes);
            Ok(writes)
        })
        .await?;
    if let Some(candidate) = candidate.filter(|_| kept) {
        shadow::ask(app, view, candidate, question);
    }
    Ok(())
}

/// The decision, its input, and the oldest ones that leave.
fn write_down(cluster: &Cluster, view: &DecisionView, input: Vec<u8>, writes: &mut Writes) {
    writes.put(record::number_key("decisions", view.id), view);
    let surplus = (cluster.decisions.len() + 1).saturating_sub(DECISIONS_MAX);
    for number in cluster.decisions.keys().take(surplus) {
        for collection in ["decisions", "inputs", "shadows"] {
            writes.delete(record::number_key(collection, *number));
        }
    }
    if input.len() > controller_store::VALUE_LEN_MAX {
        return;
    }
    let mut bytes = cluster.inputs.values().sum::<usize>() + input.len();
    for (number, len) in &cluster.inputs {
        if bytes <= INPUTS_BYTES_MAX {
            break;
        }
        writes.delete(record::number_key("inputs", *number));
        bytes -= len;
    }
    writes.records.insert(record::number_key("inputs", view.id), Some(input));
}
