//! The pass that asks policies of checkpoints. What they order is written down and shown.

use crate::app::App;
use crate::decide::{self, Decided, Subject};
use crate::ledger::Writes;
use crate::problem::Answer;
use crate::reconcile::reason;
use crate::{questions, updates};
use chassis::clock::unix_ms;
use controller_api::planned::{ScheduleView, TakeOrder};
use controller_api::policy::DecisionView;
use controller_model::standing::Sight;
use controller_model::{Cluster, checkpoint};
use plugins_runtime::checkpoint::{CheckpointInput, CheckpointPlan};
use serde::Serialize;
use std::time::Duration;
use types::{Base64, InstanceId};

/// Pause before a policy that had no answer is asked again, in milliseconds.
const FAILED_RETRY_MS: u64 = 60_000;

/// Asks every policy whose time has come. Says when the next one's will be.
///
/// # Errors
/// The store fails, or a policy's thread cannot be run.
pub(crate) async fn pass(app: &App) -> Answer<Option<Duration>> {
    let (observed, online) = (app.live.statuses(), app.live.online());
    let sight = Sight { observed: &observed, online: &online, now_ms: unix_ms() };
    let cluster = app.ledger.cluster();
    write_ended(app, &cluster).await?;
    for question in checkpoint::questions(&cluster, sight) {
        schedule(app, &question).await?;
    }
    Ok(next(&app.ledger.cluster(), unix_ms()))
}

/// Something is to happen once an instance is otherwise than before: it rolls, or its deployment's checkpoints are looked
/// after from when it serves.
pub(crate) fn awaits(cluster: &Cluster, id: &InstanceId) -> bool {
    let scheduled = cluster.schedules.contains_key(&id.deployment);
    (!scheduled && checkpoint::policy_of(cluster, &id.deployment).is_some()) || updates::awaits(cluster, id)
}

/// How long until somebody is to be asked.
fn next(cluster: &Cluster, now_ms: u64) -> Option<Duration> {
    let schedules = cluster.schedules.values().map(|held| held.next_call_ms);
    let next_ms = schedules.filter(|at_ms| *at_ms > 0).min()?;
    Some(Duration::from_millis(next_ms.saturating_sub(now_ms).max(checkpoint::NEXT_CALL_MS_MIN)))
}

async fn write_ended(app: &App, cluster: &Cluster) -> Answer<()> {
    let gone = checkpoint::ended(cluster);
    if gone.is_empty() {
        return Ok(());
    }
    app.ledger
        .record(|cluster| {
            let mut writes = Writes::default();
            for deployment in gone.iter().filter(|name| !cluster.deployments.contains_key(*name)) {
                writes.delete(format!("schedules/{deployment}"));
            }
            Ok(writes)
        })
        .await
        .map(drop)
}

/// Asks about a deployment's checkpoints and writes down what follows.
async fn schedule(app: &App, question: &checkpoint::Question) -> Answer<()> {
    let now_ms = unix_ms();
    let input = questions::checkpoint(question, now_ms, app.ledger.revision());
    let name = format!("deployment/{}", question.deployment);
    let subject = Subject { policy: question.policy.clone(), name: name.clone(), instance: None };
    let mut decided: Decided<CheckpointInput> = decide::ask(app, subject, input).await?;
    let answer = match decided.verdict.take() {
        Some(plan) => orders(plan, now_ms),
        None => checkpoint::Answer {
            take: None,
            discards: Default::default(),
            next_call_ms: FAILED_RETRY_MS,
            state: question.state.clone(),
            problem: decided.view.notes.first().cloned(),
        },
    };
    if let Some(take) = &answer.take {
        decided.view.notes.extend(take.reasons.iter().cloned());
    }
    let cluster = app.ledger.cluster();
    let differs = differs(&cluster, &decided.view);
    let held = cluster.schedules.get(&question.deployment).and_then(|held| held.decision);
    let decision = if differs { Some(decided.view.id) } else { held };
    let record = checkpoint::answered(question, answer, decision, now_ms);
    let event = format!("{}: {}", question.policy, decided.view.outcome);
    let key = format!("schedules/{}", question.deployment);
    let ordered = record.take.is_some() || !record.discards.is_empty();
    finish(app, decided, differs, (key, &record), (name, "checkpoint-plan", event)).await?;
    if ordered {
        // The pass that carries orders out came before this one.
        app.wake();
    }
    Ok(())
}

/// A decision that says what the last one about its subject said is not kept once more.
pub(crate) fn differs(cluster: &Cluster, view: &DecisionView) -> bool {
    cluster.last_decision_about(&view.subject).is_none_or(|last| {
        (&last.kind, &last.verdict, &last.outcome, &last.policy, &last.digest)
            != (&view.kind, &view.verdict, &view.outcome, &view.policy, &view.digest)
    })
}

async fn finish<Q: decide::Question, R: Serialize + Sync>(
    app: &App,
    decided: Decided<Q>,
    differs: bool,
    (key, record): (String, &R),
    (object, what, message): (String, &'static str, String),
) -> Answer<()> {
    let mut writes = Writes::default();
    writes.put(key, record);
    if differs {
        writes.event(object, what, message);
        return decide::keep(app, decided, |_, _| Some(writes)).await;
    }
    app.ledger.record(|_| Ok(writes)).await.map(drop)
}

fn orders(plan: CheckpointPlan, now_ms: u64) -> checkpoint::Answer {
    checkpoint::Answer {
        take: plan.take.map(|take| TakeOrder {
            ordered_ms: now_ms,
            with_memory: take.with_memory,
            pause_max_ms: take.pause_max_ms,
            reasons: take.reasons.iter().map(reason).collect(),
        }),
        discards: plan.discards.into_iter().map(|discard| discard.checkpoint).collect(),
        next_call_ms: plan.next_call_ms,
        state: Base64(plan.state.0),
        problem: None,
    }
}

/// What the checkpoint policies of all deployments have planned.
pub(crate) fn schedules(cluster: &Cluster) -> Vec<ScheduleView> {
    let count = |deployment| u32::try_from(checkpoint::of(cluster, deployment).count()).unwrap_or(u32::MAX);
    cluster
        .schedules
        .iter()
        .map(|(deployment, held)| ScheduleView {
            deployment: deployment.clone(),
            policy: held.policy.clone(),
            checkpoints: count(deployment),
            take: held.take.clone(),
            discards: held.discards.iter().cloned().collect(),
            problem: held.problem.clone(),
            next_call_ms: held.next_call_ms,
            decision: held.decision,
        })
        .collect()
}
