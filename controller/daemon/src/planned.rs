//! The passes that ask policies of updates and checkpoints. What they order is written down and shown; nothing here
//! carries it out.

use crate::app::App;
use crate::decide::{self, Decided, Subject};
use crate::ledger::Writes;
use crate::problem::Answer;
use crate::questions;
use crate::reconcile::reason;
use chassis::clock::unix_ms;
use controller_api::planned::{OrderStatus, RollOrder, RolloutView, ScheduleView, TakeOrder};
use controller_api::policy::DecisionView;
use controller_model::standing::Sight;
use controller_model::{Cluster, checkpoint, record, update};
use plugins_runtime::checkpoint::{CheckpointInput, CheckpointPlan};
use plugins_runtime::update::{Step, UpdateInput, UpdatePlan};
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
    let rollouts = update::questions(&cluster, sight);
    write_ended(app, &cluster, &rollouts, sight.now_ms).await?;
    for question in rollouts {
        if question.due {
            roll(app, &question).await?;
        }
    }
    for question in checkpoint::questions(&cluster, sight) {
        schedule(app, &question).await?;
    }
    Ok(next(&app.ledger.cluster(), unix_ms()))
}

/// Something is to happen once an instance is otherwise than before: it was ordered to roll, or its deployment's
/// checkpoints are looked after from when it serves.
pub(crate) fn awaits(cluster: &Cluster, id: &InstanceId) -> bool {
    let pending = |order: &RollOrder| order.status == OrderStatus::Pending && order.instance == *id;
    let scheduled = cluster.schedules.contains_key(&id.deployment);
    (!scheduled && checkpoint::policy_of(cluster, &id.deployment).is_some())
        || cluster.rollouts.values().any(|held| held.orders.iter().any(pending))
}

/// How long until somebody is to be asked.
fn next(cluster: &Cluster, now_ms: u64) -> Option<Duration> {
    let running =
        cluster.rollouts.values().filter(|held| matches!(held.step.as_str(), "proceed" | "hold" | "error"));
    let rollouts = running.map(|held| held.next_call_ms);
    let schedules = cluster.schedules.values().map(|held| held.next_call_ms);
    let next_ms = rollouts.chain(schedules).filter(|at_ms| *at_ms > 0).min()?;
    Some(Duration::from_millis(next_ms.saturating_sub(now_ms).max(update::NEXT_CALL_MS_MIN)))
}

async fn write_ended(app: &App, cluster: &Cluster, rollouts: &[update::Question], now_ms: u64) -> Answer<()> {
    let (over, gone) = (update::ended(cluster, rollouts, now_ms), checkpoint::ended(cluster));
    if over.is_empty() && gone.is_empty() {
        return Ok(());
    }
    app.ledger
        .record(|cluster| {
            let mut writes = Writes::default();
            for (id, held) in over.iter().filter(|(id, _)| cluster.rollouts.contains_key(id)) {
                match held {
                    Some(held) => writes.put(format!("rollouts/{id}"), held),
                    None => writes.delete(format!("rollouts/{id}")),
                }
            }
            for deployment in gone.iter().filter(|name| !cluster.deployments.contains_key(*name)) {
                writes.delete(format!("schedules/{deployment}"));
            }
            Ok(writes)
        })
        .await
        .map(drop)
}

/// Asks about a rollout and writes down what follows.
async fn roll(app: &App, question: &update::Question) -> Answer<()> {
    let now_ms = unix_ms();
    let input = questions::update(question, now_ms, app.ledger.revision());
    let name = format!("rollout/{}", question.id);
    let subject = Subject { policy: question.policy.clone(), name: name.clone(), instance: None };
    let mut decided: Decided<UpdateInput> = decide::ask(app, subject, input).await?;
    let answer = match decided.verdict.take() {
        Some(plan) => step(plan),
        None => update::Answer {
            step: "error".into(),
            reasons: decided.view.notes.clone(),
            rolls: Vec::new(),
            next_call_ms: FAILED_RETRY_MS,
            state: question.state.clone(),
        },
    };
    decided.view.notes.extend(answer.reasons.iter().filter(|_| answer.step != "error").cloned());
    let differs = differs(&app.ledger.cluster(), &decided.view);
    let decision = if differs { Some(decided.view.id) } else { held_rollout(app, &question.id) };
    let record = update::answered(question, answer, decision, now_ms);
    let event = format!("{}: {}", question.policy, decided.view.outcome);
    let key = format!("rollouts/{}", question.id);
    finish(app, decided, differs, (key, &record), (name, "rollout-step", event)).await
}

fn held_rollout(app: &App, id: &str) -> Option<u64> {
    app.ledger.cluster().rollouts.get(id).and_then(|held| held.decision)
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
    finish(app, decided, differs, (key, &record), (name, "checkpoint-plan", event)).await
}

/// A decision that says what the last one about its subject said is not kept once more.
fn differs(cluster: &Cluster, view: &DecisionView) -> bool {
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

fn step(plan: UpdatePlan) -> update::Answer {
    let texts = |reasons: &[plugins_runtime::Reason]| reasons.iter().map(reason).collect::<Vec<_>>();
    let (word, reasons, rolls) = match &plan.step {
        Step::Proceed { rolls, .. } => {
            let why = rolls.iter().flat_map(|roll| {
                roll.reasons.iter().map(move |why| format!("{}: {}", roll.instance, reason(why)))
            });
            let ordered = rolls
                .iter()
                .filter_map(|roll| Some((roll.instance.parse().ok()?, roll.soak_ms, roll.checkpoint)));
            ("proceed", why.collect(), ordered.collect())
        }
        Step::Hold { reasons, .. } => ("hold", texts(reasons), Vec::new()),
        Step::Halt { reasons } => ("halt", texts(reasons), Vec::new()),
        Step::RollBack { reasons } => ("roll_back", texts(reasons), Vec::new()),
        Step::Complete { reasons } => ("complete", texts(reasons), Vec::new()),
    };
    let next_call_ms = match &plan.step {
        Step::Hold { retry_after_ms, .. } => plan.next_call_ms.min(*retry_after_ms),
        _ => plan.next_call_ms,
    };
    update::Answer { step: word.into(), reasons, rolls, next_call_ms, state: Base64(plan.state.0) }
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

/// All rollouts, newest first.
pub(crate) fn rollouts(cluster: &Cluster) -> Vec<RolloutView> {
    let mut views: Vec<_> =
        cluster.rollouts.iter().map(|(id, held)| rollout(cluster, id, &held.value)).collect();
    views.sort_by_key(|view| std::cmp::Reverse(view.started_ms));
    views
}

fn rollout(cluster: &Cluster, id: &str, held: &record::Rollout) -> RolloutView {
    let following = update::following(cluster, &held.appliance, &held.channel, &held.policy);
    let at_target = following.iter().filter(|instance| instance.version == held.target).count();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    RolloutView {
        id: id.to_owned(),
        appliance: held.appliance.clone(),
        channel: held.channel.clone(),
        target: held.target.clone(),
        policy: held.policy.clone(),
        started_ms: held.started_ms,
        instances: count(following.len()),
        at_target: count(at_target),
        step: held.step.clone(),
        reasons: held.reasons.clone(),
        next_call_ms: held.next_call_ms,
        orders: held.orders.clone(),
        decision: held.decision,
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
