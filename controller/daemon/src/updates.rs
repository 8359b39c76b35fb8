//! The pass that asks update policies and carries out what they order, and what people say to rollouts.

use crate::app::App;
use crate::auth::Caller;
use crate::decide::{self, Decided, Subject};
use crate::ledger::{Act, Writes};
use crate::planned::differs;
use crate::problem::{Answer, Refused};
use crate::questions;
use crate::reconcile::reason;
use chassis::clock::unix_ms;
use controller_api::planned::{RefusalView, RolloutPause, RolloutView};
use controller_model::apply::Refusal;
use controller_model::standing::Sight;
use controller_model::update::{self, Bounds};
use controller_model::{Cluster, Draft, record};
use plugins_runtime::update::{Step, UpdateInput, UpdatePlan};
use std::time::Duration;
use types::{Base64, InstanceId};

/// Pause before a policy that had no answer is asked again, in milliseconds.
const FAILED_RETRY_MS: u64 = 60_000;
/// Longest reason that people may give, in characters.
const WHY_LEN_MAX: usize = 1_024;

/// Carries orders out, asks every policy whose time has come, and begins what they order. Says when to look again.
///
/// # Errors
/// The store fails, or a policy's thread cannot be run.
pub(crate) async fn pass(app: &App) -> Answer<Option<Duration>> {
    let mut again = settle(app).await?;
    if ask(app).await? {
        again = settle(app).await?;
    }
    Ok(again.into_iter().chain(next(&app.ledger.cluster(), unix_ms())).min())
}

/// An order of this instance, or of one it has to wait for, is under way.
pub(crate) fn awaits(cluster: &Cluster, id: &InstanceId) -> bool {
    cluster.rollouts.values().any(|held| {
        held.orders
            .iter()
            .any(|order| order.status.is_under_way() && order.instance.deployment == id.deployment)
    })
}

async fn settle(app: &App) -> Answer<Option<Duration>> {
    if !update::is_busy(&app.ledger.cluster()) {
        return Ok(None);
    }
    let (observed, online) = (app.live.statuses(), app.live.online());
    let mut again = None;
    app.ledger
        .record(|cluster| {
            let sight = Sight { observed: &observed, online: &online, now_ms: unix_ms() };
            let mut fresh = || uuid::Uuid::new_v4().to_string();
            let settled = update::settle(cluster, sight, Bounds::default(), &mut fresh);
            again = settled.look_again_ms;
            let mut writes = Writes::of(settled.draft);
            for (object, reason, message) in settled.events {
                writes.event(object, reason, message);
            }
            Ok(writes)
        })
        .await?;
    Ok(again.map(Duration::from_millis))
}

/// True if a policy was asked.
async fn ask(app: &App) -> Answer<bool> {
    let (observed, online) = (app.live.statuses(), app.live.online());
    let sight = Sight { observed: &observed, online: &online, now_ms: unix_ms() };
    let rollouts = update::questions(&app.ledger.cluster(), sight);
    write_ended(app, &rollouts, sight.now_ms).await?;
    let mut asked = false;
    for question in rollouts.iter().filter(|question| question.due) {
        roll(app, question).await?;
        asked = true;
    }
    Ok(asked)
}

/// How long until somebody is to be asked.
fn next(cluster: &Cluster, now_ms: u64) -> Option<Duration> {
    let running = cluster.rollouts.values().filter(|held| {
        held.paused.is_none() && matches!(held.step.as_str(), "proceed" | "hold" | "error" | update::UNASKED)
    });
    let next_ms = running.map(|held| held.next_call_ms).filter(|at_ms| *at_ms > 0).min()?;
    Some(Duration::from_millis(next_ms.saturating_sub(now_ms).max(update::NEXT_CALL_MS_MIN)))
}

async fn write_ended(app: &App, rollouts: &[update::Question], now_ms: u64) -> Answer<()> {
    if update::ended(&app.ledger.cluster(), rollouts, now_ms).is_empty() {
        return Ok(());
    }
    app.ledger
        .record(|cluster| {
            let mut writes = Writes::default();
            for (id, held) in update::ended(cluster, rollouts, now_ms) {
                match held {
                    Some(held) => writes.put(format!("rollouts/{id}"), &held),
                    None => writes.delete(format!("rollouts/{id}")),
                }
            }
            Ok(writes)
        })
        .await
        .map(drop)
}

/// Asks about a rollout and writes down what follows, unless somebody said something to it meanwhile.
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
    let cluster = app.ledger.cluster();
    let differs = differs(&cluster, &decided.view);
    let held = cluster.rollouts.get(&question.id).and_then(|held| held.decision);
    let decision = if differs { Some(decided.view.id) } else { held };
    let record = update::answered(question, answer, decision, now_ms);
    let mut writes = Writes::default();
    if let Some(refusal) = update::refusal(question, &record, now_ms) {
        let message = format!("{} {} is refused here: {}", record.appliance, record.target, refusal.reason);
        writes.event(name.clone(), "version-refused", message);
        writes.put(record::refusal_key(&record.appliance, &record.target), &refusal);
    }
    writes.put(format!("rollouts/{}", question.id), &record);
    if differs {
        writes.event(name, "rollout-step", format!("{}: {}", question.policy, decided.view.outcome));
        return decide::keep(app, decided, |cluster, _| is_same(cluster, question).then_some(writes)).await;
    }
    let write = |cluster: &Cluster| Ok(if is_same(cluster, question) { writes } else { Writes::default() });
    app.ledger.record(write).await.map(drop)
}

/// The rollout's record is the one that the question was made of.
fn is_same(cluster: &Cluster, question: &update::Question) -> bool {
    cluster.rollouts.get(&question.id).map(|held| held.revision) == question.revision
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
        Step::Halt { reasons } => (update::HALT, texts(reasons), Vec::new()),
        Step::RollBack { reasons } => (update::ROLL_BACK, texts(reasons), Vec::new()),
        Step::Complete { reasons } => (update::COMPLETE, texts(reasons), Vec::new()),
    };
    let next_call_ms = match &plan.step {
        Step::Hold { retry_after_ms, .. } => plan.next_call_ms.min(*retry_after_ms),
        _ => plan.next_call_ms,
    };
    update::Answer { step: word.into(), reasons, rolls, next_call_ms, state: Base64(plan.state.0) }
}

/// What people say to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Pause,
    Resume,
    Retry,
}

impl Word {
    fn action(self) -> &'static str {
        match self {
            Self::Pause => "rollout-pause",
            Self::Resume => "rollout-resume",
            Self::Retry => "rollout-retry",
        }
    }
}

/// Does what somebody says to a rollout.
///
/// # Errors
/// There is none, or it cannot be now; the reason is too long.
pub(crate) async fn say(
    app: &App,
    caller: &Caller,
    (id, word): (&str, Word),
    why: Option<String>,
) -> Answer<RolloutView> {
    check_why(why.as_deref())?;
    let object = format!("rollout/{id}");
    let act = Act { who: &caller.who, action: word.action(), object: object.clone() };
    app.ledger
        .change_because(&act, why.as_deref(), |cluster| {
            let mut draft = Draft::new(cluster.clone());
            let now_ms = unix_ms();
            match word {
                Word::Pause => update::pause(&mut draft, id, pause(caller, now_ms, why.clone()))?,
                Word::Resume => update::resume(&mut draft, id, now_ms)?,
                Word::Retry => update::retry(&mut draft, id, now_ms)?,
            }
            let mut writes = Writes::of(draft);
            if !writes.records.is_empty() {
                writes.event(object, word.action(), said(caller, why.as_deref()));
            }
            Ok((writes, ()))
        })
        .await?;
    app.wake();
    let cluster = app.ledger.cluster();
    let held = cluster.rollouts.get(id);
    held.map(|held| view(&cluster, id, &held.value))
        .ok_or_else(|| Refusal::NotFound(format!("there is no rollout {id}")).into())
}

/// Pauses all rollouts at once. Answers those that were not paused yet.
///
/// # Errors
/// The reason is too long.
pub(crate) async fn halt_all(app: &App, caller: &Caller, why: Option<String>) -> Answer<Vec<String>> {
    check_why(why.as_deref())?;
    let act = Act { who: &caller.who, action: "rollout-halt-all", object: "rollouts".into() };
    let (_, halted) = app
        .ledger
        .change_because(&act, why.as_deref(), |cluster| {
            let mut draft = Draft::new(cluster.clone());
            let halted = update::halt_all(&mut draft, &pause(caller, unix_ms(), why.clone()));
            let mut writes = Writes::of(draft);
            for id in &halted {
                writes.event(format!("rollout/{id}"), "rollout-pause", said(caller, why.as_deref()));
            }
            Ok((writes, halted))
        })
        .await?;
    app.wake();
    Ok(halted)
}

fn check_why(why: Option<&str>) -> Answer<()> {
    match why.map(|why| why.chars().count()) {
        Some(0) => Err(Refused::invalid("why: write a reason, or leave it out")),
        Some(length) if length > WHY_LEN_MAX => {
            Err(Refused::invalid(format!("why: {length} characters are more than {WHY_LEN_MAX}")))
        }
        _ => Ok(()),
    }
}

fn pause(caller: &Caller, at_ms: u64, why: Option<String>) -> RolloutPause {
    RolloutPause { who: caller.who.to_string(), at_ms, why }
}

fn said(caller: &Caller, why: Option<&str>) -> String {
    match why {
        Some(why) => format!("by {}: {why}", caller.who),
        None => format!("by {}", caller.who),
    }
}

/// All rollouts, newest first.
pub(crate) fn rollouts(cluster: &Cluster) -> Vec<RolloutView> {
    let mut views: Vec<_> =
        cluster.rollouts.iter().map(|(id, held)| view(cluster, id, &held.value)).collect();
    views.sort_by_key(|view| std::cmp::Reverse(view.started_ms));
    views
}

pub(crate) fn view(cluster: &Cluster, id: &str, held: &record::Rollout) -> RolloutView {
    let following = update::following(cluster, &held.appliance, &held.channel, &held.policy);
    let at_target = following.iter().filter(|instance| instance.version == held.target).count();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let refusal = update::refused(cluster, &held.appliance, &held.target);
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
        paused: held.paused.clone(),
        resumed_ms: held.resumed_ms,
        refused: refusal.map(|refusal| format!("{}: {}", refusal.instance, refusal.reason)),
        decision: held.decision,
    }
}

/// All versions that are refused here, by name.
pub(crate) fn refusals(cluster: &Cluster) -> Vec<RefusalView> {
    let view =
        |((appliance, version), held): (&(types::ApplianceRef, types::VersionName), &record::Refusal)| {
            RefusalView {
                appliance: appliance.clone(),
                version: version.clone(),
                reason: held.reason.clone(),
                instance: held.instance.clone(),
                at_ms: held.at_ms,
                before: held.before.clone(),
                rollout: held.rollout.clone(),
            }
        };
    cluster.refusals.iter().map(|(key, held)| view((key, &held.value))).collect()
}
