//! The loop: what has no host is placed, and every host's desired document follows from what was decided.

use crate::app::App;
use crate::ledger::Writes;
use crate::policies::{self, Placement};
use crate::problem::{Answer, Refused};
use chassis::clock::unix_ms;
use chassis::reconcile::{Pass, Reconciler};
use controller_api::rest::{ChoiceView, DecisionView, ProblemCode};
use controller_model::placement::{self, DECISIONS_MAX, Question};
use controller_model::{Cluster, Draft, desired, interpose, name, record, streams};
use plugins_runtime::placement::{Decision, PlacementInput, Reason, Rejection, Verdict};
use std::sync::Arc;
use std::time::Duration;
use types::{Digest, HostName};

/// Pause before an instance that found no host is asked about again.
const RETRY: Duration = Duration::from_secs(1);

/// The loop's content.
pub(crate) struct Reconcile {
    pub(crate) app: App,
    pub(crate) placement: Arc<dyn Placement>,
}

/// One decision with what it was made from.
struct Decided {
    question: Question,
    view: DecisionView,
    input: Vec<u8>,
}

impl Reconciler for Reconcile {
    type Status = ();
    const NAME: &'static str = "cluster";
    const RESYNC: Duration = Duration::from_secs(30);

    async fn reconcile(&mut self) -> Pass<()> {
        let mut waiting = false;
        match self.interpose().await {
            Ok(on_its_way) => waiting |= on_its_way,
            Err(refused) => {
                waiting = true;
                log(&refused);
            }
        }
        match self.place().await {
            Ok(unplaced) => waiting |= unplaced,
            Err(refused) => {
                waiting = true;
                log(&refused);
            }
        }
        if let Err(refused) = publish_desired(&self.app).await {
            waiting = true;
            log(&refused);
        }
        Pass { status: (), retry_after: waiting.then_some(RETRY) }
    }
}

fn log(refused: &Refused) {
    // These have said so themselves.
    if !matches!(refused.0.code, ProblemCode::Internal | ProblemCode::DiskFull) {
        tracing::warn!(problem = refused.0.message, "a pass was refused");
    }
}

impl Reconcile {
    /// Takes what is interposed one phase on. True if some of it is on its way.
    async fn interpose(&self) -> Answer<bool> {
        let app = &self.app;
        if app.ledger.cluster().vias.is_empty() {
            return Ok(false);
        }
        let (observed, online) = (app.live.statuses(), app.live.online());
        let mut waiting = false;
        app.ledger
            .record(|cluster| {
                let settled = interpose::settle(cluster, &observed, &online);
                waiting = settled.waiting;
                let mut writes = Writes::of(settled.draft);
                for (object, reason, message) in settled.events {
                    writes.event(object, reason, message);
                }
                Ok(writes)
            })
            .await?;
        Ok(waiting)
    }

    /// Asks about every unplaced instance. True if some are still without a host.
    async fn place(&self) -> Answer<bool> {
        let app = &self.app;
        let mut picture = app.ledger.cluster();
        let unplaced = placement::unplaced(&picture);
        let mut waiting = false;
        for id in unplaced {
            let Some(question) = placement::question(&picture, &id, &app.live.statuses(), &app.live.online())
            else {
                continue;
            };
            let Some(decided) = self.ask(&picture, question).await? else {
                waiting = true;
                continue;
            };
            waiting |= decided.view.host.is_none();
            app.ledger.record(|cluster| Ok(write_down(cluster, &decided))).await?;
            // The next question sees this one's answer.
            picture = app.ledger.cluster();
        }
        Ok(waiting)
    }

    /// None if the answer is that of the last time: nothing new is to be written down.
    async fn ask(&self, cluster: &Cluster, question: Question) -> Answer<Option<Decided>> {
        let last_number = cluster.decisions.last_key_value().map_or(0, |(number, _)| *number);
        let (number, now_ms) = (last_number + 1, unix_ms());
        let input = policies::input(&question, number, now_ms, self.app.ledger.revision());
        let installed = cluster.policies.get(&question.policy).map(|policy| policy.digest);
        let answer = match installed {
            None => Err(format!("policy {} is not installed", question.policy)),
            Some(digest) => self.call(digest, input.clone()).await?,
        };
        let mut view = DecisionView {
            id: number,
            at_ms: now_ms,
            instance: question.id.clone(),
            policy: question.policy.clone(),
            component: String::new(),
            digest: installed.unwrap_or(Digest::from_bytes([0; 32])),
            input: input.digest(),
            verdict: "error".into(),
            host: None,
            choices: Vec::new(),
            notes: Vec::new(),
            took_us: 0,
        };
        match answer {
            Ok(decision) => judge(&question, decision, &mut view),
            Err(problem) => view.notes.push(format!("policy {}: {problem}", question.policy)),
        }
        let same = cluster.last_decision(&question.id).is_some_and(|last| {
            (&last.verdict, &last.host, &last.notes, &last.policy, &last.digest)
                == (&view.verdict, &view.host, &view.notes, &view.policy, &view.digest)
        });
        if same && view.host.is_none() {
            return Ok(None);
        }
        let input = serde_json::to_vec(&input).unwrap_or_default();
        Ok(Some(Decided { question, view, input }))
    }

    async fn call(&self, digest: Digest, input: PlacementInput) -> Answer<Result<Decision, String>> {
        let placement = Arc::clone(&self.placement);
        let called = tokio::task::spawn_blocking(move || placement.place(&digest, &input)).await;
        called.map_err(|error| Refused::internal(&error))
    }
}

/// Takes the policy's first choice that breaks no hard limit.
fn judge(question: &Question, decision: Decision, view: &mut DecisionView) {
    view.component = format!("{} {}", decision.policy, decision.policy_version);
    view.digest = decision.policy_digest;
    view.took_us = decision.took_us;
    match decision.verdict {
        Verdict::Place { choices, rejections } => {
            view.verdict = "place".into();
            for choice in choices {
                let Ok(host) = choice.host.parse::<HostName>() else { continue };
                match placement::forbidden(question, &host) {
                    None if view.host.is_none() => view.host = Some(host.clone()),
                    None => {}
                    Some(why) => view.notes.push(format!("not taken: {why}")),
                }
                let reasons = choice.reasons.iter().map(reason).collect();
                view.choices.push(ChoiceView { host, score: choice.score, reasons });
            }
            view.notes.extend(rejections.iter().map(rejection));
        }
        Verdict::Defer { reasons, rejections, .. } => {
            view.verdict = "defer".into();
            view.notes.extend(reasons.iter().map(reason));
            view.notes.extend(rejections.iter().map(rejection));
        }
        Verdict::Refuse { reasons } => {
            view.verdict = "refuse".into();
            view.notes.extend(reasons.iter().map(reason));
        }
    }
}

fn reason(reason: &Reason) -> String {
    format!("{}: {} ({:+.3})", reason.code, reason.text, reason.weight)
}

fn rejection(rejection: &Rejection) -> String {
    format!("{}: {} hosts, such as {}", rejection.code, rejection.hosts, rejection.examples.join(", "))
}

/// The writes of a decision, unless what it is about has changed meanwhile.
fn write_down(cluster: &Cluster, decided: &Decided) -> Writes {
    let (id, view) = (&decided.question.id, &decided.view);
    let mut writes = Writes::default();
    let current = cluster.instances.get(id).map(|instance| &instance.incarnation);
    if current != Some(&decided.question.instance.incarnation) || cluster.placements.contains_key(id) {
        return writes;
    }
    match &view.host {
        Some(host) if !cluster.hosts.contains_key(host) => return writes,
        Some(host) => {
            let placement = record::Placement { host: host.clone(), decision: view.id };
            writes.put(record::placement_key(id), &placement);
            for volume in &decided.question.instance.volumes {
                let held = cluster.volumes.get(&(id.clone(), volume.clone()));
                if let Some(held) = held.filter(|held| held.host.is_none()) {
                    let placed = record::Volume { size: held.size, host: Some(host.clone()) };
                    writes.put(record::volume_key(id, volume), &placed);
                }
            }
            writes.event(
                format!("instance/{id}"),
                "instance-placed",
                format!("on host {host} by policy {}", view.policy),
            );
        }
        None => {
            let why = view.notes.first().map_or("no host fits", String::as_str);
            writes.event(format!("instance/{id}"), "instance-unplaced", format!("{}: {why}", view.verdict));
        }
    }
    writes.put(record::number_key("decisions", view.id), view);
    if decided.input.len() <= controller_store::VALUE_LEN_MAX {
        writes.records.insert(record::number_key("inputs", view.id), Some(decided.input.clone()));
    }
    let surplus = (cluster.decisions.len() + 1).saturating_sub(DECISIONS_MAX);
    for number in cluster.decisions.keys().take(surplus) {
        writes.delete(record::number_key("decisions", *number));
        writes.delete(record::number_key("inputs", *number));
    }
    writes
}

/// Writes down the desired documents that differ. Sessions send what they see change.
pub(crate) async fn publish_desired(app: &App) -> Answer<()> {
    let online = app.live.online();
    app.ledger
        .record(|cluster| {
            let mut draft = Draft::new(Cluster::default());
            let settled = settled(cluster);
            let cluster = match &settled {
                Some(settled) => {
                    draft.writes.clone_from(&settled.writes);
                    &settled.cluster
                }
                None => cluster,
            };
            for (host, document) in desired::desired(cluster, &online) {
                if cluster.desired.get(&host).map(|held| &held.value) != Some(&document) {
                    draft.put(format!("desired/{host}"), &document);
                }
            }
            Ok(Writes::of(draft))
        })
        .await
        .map(drop)
}

/// The cluster with its prefetches ended where they are done, if any is held at all.
fn settled(cluster: &Cluster) -> Option<Draft> {
    (!cluster.holds.is_empty()).then(|| {
        let mut draft = Draft::new(cluster.clone());
        streams::settle(&mut draft);
        draft
    })
}

/// Lifts a host's generation above the one it holds, if the store is older than the host: a restored backup.
pub(crate) async fn overtake(app: &App, host: &HostName, held: types::Generation) -> Answer<()> {
    let host = host.clone();
    app.ledger
        .record(move |cluster| {
            let mut writes = Writes::default();
            let mut document =
                cluster.desired.get(&host).map(|stored| stored.value.clone()).unwrap_or_default();
            if document.generation < held {
                document.generation = held.next();
                writes.put(format!("desired/{host}"), &document);
                writes.event(
                    format!("host/{host}"),
                    "host-ahead",
                    format!("it held generation {held} of its desired document, newer than the controller's"),
                );
            }
            Ok(writes)
        })
        .await
        .map(drop)
}

/// SHA-256 of bytes; in here so that handlers need no model for it.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    name::digest(bytes)
}
