//! What people say to rollouts: pause, resume, retry.

use super::{HALT, SUPERSEDED, UNASKED, is_over, is_stopped, refused};
use crate::apply::Refusal;
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::record;
use controller_api::planned::RolloutPause;

fn held(cluster: &Cluster, id: &str) -> Result<record::Rollout, Refusal> {
    let held = cluster.rollouts.get(id).map(|held| held.value.clone());
    held.ok_or_else(|| Refusal::NotFound(format!("there is no rollout {id}")))
}

fn present(cluster: &Cluster, id: &str) -> Result<record::Rollout, Refusal> {
    let held = held(cluster, id)?;
    if held.step == SUPERSEDED {
        return Err(Refusal::Conflict(format!("rollout {id} is over: a version came after it")));
    }
    Ok(held)
}

/// Asks a rollout's policy no more and begins no order; those that have begun end. One that is paused already stays as it
/// was.
///
/// # Errors
/// There is none, or it is over.
pub fn pause(draft: &mut Draft, id: &str, pause: RolloutPause) -> Result<(), Refusal> {
    let mut held = present(&draft.cluster, id)?;
    if is_over(&held.step) {
        return Err(Refusal::Conflict(format!("rollout {id} is over: all instances run its version")));
    }
    if held.paused.is_none() {
        held.paused = Some(pause);
        draft.put(format!("rollouts/{id}"), &held);
    }
    Ok(())
}

/// Pauses every rollout that is not over. Says which were not paused yet.
pub fn halt_all(draft: &mut Draft, pause: &RolloutPause) -> Vec<String> {
    let running: Vec<(String, record::Rollout)> = draft
        .cluster
        .rollouts
        .iter()
        .filter(|(_, held)| !is_over(&held.step) && held.paused.is_none())
        .map(|(id, held)| (id.clone(), held.value.clone()))
        .collect();
    for (id, held) in &running {
        let paused = record::Rollout { paused: Some(pause.clone()), ..held.clone() };
        draft.put(format!("rollouts/{id}"), &paused);
    }
    running.into_iter().map(|(id, _)| id).collect()
}

/// Lets a paused or halted rollout go on. What failed before is forgiven, and its version refused no more if it was
/// refused because of this halt; instances on which it failed stay as they are.
///
/// # Errors
/// There is none, it is over, it was rolled back, or it goes on already.
pub fn resume(draft: &mut Draft, id: &str, now_ms: u64) -> Result<(), Refusal> {
    let mut held = present(&draft.cluster, id)?;
    let halted = held.step == HALT;
    if !halted && is_stopped(&held.step) {
        let how = format!("collective rollout retry {id}");
        return Err(Refusal::Conflict(format!("rollout {id} was rolled back: to try it again, `{how}`")));
    }
    if held.paused.is_none() && !halted {
        return Err(Refusal::Conflict(format!("rollout {id} goes on already")));
    }
    // A pause alone forgives nothing: the policy has not said yet what it makes of the failures.
    if halted {
        held.resumed_ms = now_ms;
        forgive(draft, &held);
        held.step = UNASKED.to_owned();
        held.reasons.clear();
    }
    (held.paused, held.next_call_ms) = (None, now_ms);
    draft.put(format!("rollouts/{id}"), &held);
    Ok(())
}

/// Tries a version again that failed here: it is refused no more, and the rollout begins anew.
///
/// # Errors
/// There is none, it is over, instances of it are on their way, or nothing of it has failed.
pub fn retry(draft: &mut Draft, id: &str, now_ms: u64) -> Result<(), Refusal> {
    let held = present(&draft.cluster, id)?;
    if let Some(order) = held.orders.iter().find(|order| order.status.is_under_way()) {
        let (instance, word) = (&order.instance, order.status.word());
        let message = format!("{instance} of rollout {id} is {word}: try again when that is over");
        return Err(Refusal::Conflict(message));
    }
    let failed = held.orders.iter().any(|order| order.status.is_failure());
    if !failed && !is_stopped(&held.step) && refused(&draft.cluster, &held.appliance, &held.target).is_none()
    {
        return Err(Refusal::Conflict(format!(
            "nothing of rollout {id} has failed: there is nothing to retry"
        )));
    }
    forgive(draft, &held);
    let anew = record::Rollout {
        started_ms: now_ms,
        state: types::Base64::default(),
        step: UNASKED.to_owned(),
        reasons: Vec::new(),
        next_call_ms: now_ms,
        orders: Vec::new(),
        heeded: 0,
        paused: None,
        resumed_ms: 0,
        ..held
    };
    draft.put(format!("rollouts/{id}"), &anew);
    Ok(())
}

fn forgive(draft: &mut Draft, held: &record::Rollout) {
    if refused(&draft.cluster, &held.appliance, &held.target).is_some() {
        draft.delete(record::refusal_key(&held.appliance, &held.target));
    }
}
