//! Live moves: taking them on from what hosts say, ordering and calling them off, and how far they are.

use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused};
use chassis::clock::unix_ms;
use controller_api::host::MovesView;
use controller_api::life::MoveStatus;
use controller_api::moving::{MoveCause, MovePhase, MoveProgress};
use controller_model::moving::{self, Move, Sight};
use controller_model::{Cluster, Draft};
use std::time::Duration;
use types::InstanceId;

/// Pause before hosts' words are looked at again while a guest is on its way.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Takes every move one step on.
///
/// # Errors
/// The store fails.
pub(crate) async fn pass(app: &App) -> Answer<Option<Duration>> {
    if app.ledger.cluster().moves.is_empty() {
        return Ok(None);
    }
    let (observed, online) = (app.live.statuses(), app.live.online());
    let sight = Sight { observed: &observed, online: &online, now_ms: unix_ms() };
    let mut waiting = false;
    app.ledger
        .record(|cluster| {
            let settled = moving::settle(cluster, sight, app.moves_max);
            waiting = settled.waiting;
            let mut writes = Writes::of(settled.draft);
            for (object, reason, message) in settled.events {
                writes.event(object, reason, message);
            }
            Ok(writes)
        })
        .await?;
    Ok(waiting.then_some(LOOK_PAUSE))
}

/// Orders the moves of a plan; those that cannot be ordered have no target any more, and the reason first.
///
/// # Errors
/// The store fails.
pub(crate) async fn order(
    app: &App,
    caller: &Caller,
    object: String,
    cause: MoveCause,
    view: &mut MovesView,
) -> Answer<()> {
    let act = Act { who: &caller.who, action: "move", object };
    let planned = &mut view.moves;
    app.ledger
        .change(&act, |cluster| {
            let mut draft = Draft::new(cluster.clone());
            let mut ordered = Vec::new();
            let mut fresh = || uuid::Uuid::new_v4().to_string();
            for one in planned.iter_mut() {
                let Some(to) = one.to.clone() else { continue };
                let why = (cause, one.decision.unwrap_or_default());
                match moving::request(&mut draft, &one.instance, &to, why, unix_ms(), &mut fresh) {
                    Ok(()) => ordered.push((one.instance.clone(), one.from.clone(), to)),
                    Err(refusal) => {
                        one.to = None;
                        one.reasons.insert(0, refusal.to_string());
                    }
                }
            }
            let mut writes = Writes::of(draft);
            for (id, from, to) in ordered {
                writes.event(
                    format!("instance/{id}"),
                    "instance-move-ordered",
                    format!("from {from} to {to}"),
                );
            }
            Ok((writes, ()))
        })
        .await?;
    view.executed = true;
    app.wake();
    Ok(())
}

/// Calls a move off.
///
/// # Errors
/// There is none, or it is too late.
pub(crate) async fn cancel(app: &App, caller: &Caller, id: &InstanceId) -> Answer<MoveProgress> {
    let act = Act { who: &caller.who, action: "move-cancel", object: format!("instance/{id}") };
    app.ledger
        .change(&act, |cluster| {
            let mut draft = Draft::new(cluster.clone());
            moving::cancel(&mut draft, id, unix_ms())?;
            let mut writes = Writes::of(draft);
            writes.event(
                format!("instance/{id}"),
                "instance-move-cancelled",
                "somebody called it off".to_owned(),
            );
            Ok((writes, ()))
        })
        .await?;
    app.wake();
    let held = app.ledger.cluster().moves.get(id).map(|held| progress(app, id, held));
    held.ok_or_else(|| Refused::not_found(format!("{id} is not on its way")))
}

/// Every guest on its way, and the last move of all others.
pub(crate) fn all(app: &App, cluster: &Cluster) -> Vec<MoveProgress> {
    cluster.moves.iter().map(|(id, held)| progress(app, id, held)).collect()
}

/// How far a move is: what is stored, and what its source says now.
fn progress(app: &App, id: &InstanceId, held: &Move) -> MoveProgress {
    let on_its_way = matches!(held.phase, MovePhase::Moving | MovePhase::Stopping);
    let statuses = if on_its_way { app.live.statuses() } else { Default::default() };
    let said =
        statuses.get(&held.from).and_then(|status| status.moves.iter().find(|said| said.id == held.id));
    let number = |stored: u64, now: fn(&MoveStatus) -> u64| said.map_or(stored, now);
    MoveProgress {
        id: held.id.clone(),
        instance: id.clone(),
        from: held.from.clone(),
        to: held.to.clone(),
        phase: held.phase,
        reason: held.reason.clone().or_else(|| said.and_then(|said| said.reason.clone())),
        cause: held.cause,
        asked_ms: held.asked_ms,
        began_ms: held.began_ms,
        ended_ms: held.ended_ms,
        sent_bytes: number(held.sent_bytes, |said| said.sent_bytes),
        total_bytes: number(held.total_bytes, |said| said.total_bytes),
        downtime_ms: held.downtime_ms,
    }
}
