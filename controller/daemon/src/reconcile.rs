//! The loop: what has no host is placed, and every host's desired document follows from what was decided.

use crate::app::App;
use crate::decide::{self, Decided, Subject};
use crate::ledger::Writes;
use crate::problem::{Answer, Refused};
use crate::{checkpoints, moving, planned, questions, recovery, updates};
use chassis::clock::unix_ms;
use chassis::reconcile::{Pass, Reconciler};
use controller_api::rest::{ChoiceView, DecisionView, ProblemCode};
use controller_model::placement::{self, Census, Question};
use controller_model::{Cluster, Draft, desired, interpose, lease, name, record, streams};
use plugins_runtime::placement::{PlacementInput, Reason, Rejection, Verdict};
use std::time::Duration;
use types::{Digest, HostName};

/// Pause before an instance that found no host is asked about again.
const RETRY: Duration = Duration::from_secs(1);

/// The loop's content.
pub(crate) struct Reconcile {
    pub(crate) app: App,
}

impl Reconciler for Reconcile {
    type Status = ();
    const NAME: &'static str = "cluster";
    const RESYNC: Duration = Duration::from_secs(30);

    async fn reconcile(&mut self) -> Pass<()> {
        let mut waiting = false;
        let recovered = recovery::pass(&self.app).await.unwrap_or_else(|refused| {
            log(&refused);
            Some(RETRY)
        });
        match self.interpose().await {
            Ok(on_its_way) => waiting |= on_its_way,
            Err(refused) => {
                waiting = true;
                log(&refused);
            }
        }
        let updated = updates::pass(&self.app).await.unwrap_or_else(|refused| {
            log(&refused);
            Some(RETRY)
        });
        let kept = checkpoints::pass(&self.app).await.unwrap_or_else(|refused| {
            log(&refused);
            Some(RETRY)
        });
        let moved = moving::pass(&self.app).await.unwrap_or_else(|refused| {
            log(&refused);
            Some(RETRY)
        });
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
        let planned = planned::pass(&self.app).await.unwrap_or_else(|refused| {
            log(&refused);
            Some(RETRY)
        });
        let retry = waiting.then_some(RETRY);
        Pass {
            status: (),
            retry_after: retry
                .into_iter()
                .chain(recovered)
                .chain(moved)
                .chain(updated)
                .chain(planned)
                .chain(kept)
                .min(),
        }
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
            let census = Census::new(&picture, &app.live.statuses(), &app.live.online());
            let Some(question) = placement::question(&picture, &census, &id) else { continue };
            let Some(decided) = self.ask(&picture, &question).await? else {
                waiting = true;
                continue;
            };
            waiting |= decided.view.host.is_none();
            decide::keep(app, decided, |cluster, view| write_down(cluster, &question, view)).await?;
            // The next question sees this one's answer.
            picture = app.ledger.cluster();
        }
        Ok(waiting)
    }

    /// None if the answer is that of the last time: nothing new is to be written down.
    async fn ask(&self, cluster: &Cluster, question: &Question) -> Answer<Option<Decided<PlacementInput>>> {
        let input = questions::placement(question, unix_ms(), self.app.ledger.revision());
        let subject = Subject {
            policy: question.policy.clone(),
            name: format!("instance/{}", question.id),
            instance: Some(question.id.clone()),
        };
        let mut decided = decide::ask(&self.app, subject, input).await?;
        if let Some(verdict) = decided.verdict.take() {
            judge(question, verdict, &mut decided.view);
        }
        let view = &decided.view;
        let same = cluster.last_decision(&question.id).is_some_and(|last| {
            (&last.verdict, &last.host, &last.notes, &last.policy, &last.digest)
                == (&view.verdict, &view.host, &view.notes, &view.policy, &view.digest)
        });
        Ok((!same || view.host.is_some()).then_some(decided))
    }
}

/// Takes the policy's first choice that breaks no hard limit.
pub(crate) fn judge(question: &Question, verdict: Verdict, view: &mut DecisionView) {
    // The choices say it all.
    view.answer = None;
    match verdict {
        Verdict::Place { choices, rejections } => {
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
            view.notes.extend(reasons.iter().map(reason));
            view.notes.extend(rejections.iter().map(rejection));
        }
        Verdict::Refuse { reasons } => {
            view.notes.extend(reasons.iter().map(reason));
        }
    }
}

pub(crate) fn reason(reason: &Reason) -> String {
    format!("{}: {} ({:+.3})", reason.code, reason.text, reason.weight)
}

fn rejection(rejection: &Rejection) -> String {
    format!("{}: {} hosts, such as {}", rejection.code, rejection.hosts, rejection.examples.join(", "))
}

/// What follows from a decision; none if what it is about has changed meanwhile.
fn write_down(cluster: &Cluster, question: &Question, view: &DecisionView) -> Option<Writes> {
    let (id, mut writes) = (&question.id, Writes::default());
    let current = cluster.instances.get(id).map(|instance| &instance.incarnation);
    if current != Some(&question.instance.incarnation) || cluster.placements.contains_key(id) {
        return None;
    }
    match &view.host {
        Some(host) if !cluster.hosts.contains_key(host) => return None,
        Some(host) => {
            let placement = record::Placement { host: host.clone(), decision: view.id };
            writes.put(record::placement_key(id), &placement);
            for volume in &question.instance.volumes {
                let held = cluster.volumes.get(&(id.clone(), volume.clone()));
                if let Some(held) = held.filter(|held| held.host.is_none()) {
                    let placed = record::Volume { host: Some(host.clone()), ..held.value.clone() };
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
    Some(writes)
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
                let old = cluster.desired.get(&host).map(|held| &held.value);
                if old != Some(&document) {
                    let held = cluster.leases.get(&host).map(|held| &held.value);
                    let promised = lease::published(held, old, &document);
                    if held.cloned().unwrap_or_default() != promised {
                        draft.put(format!("leases/{host}"), &promised);
                    }
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
