//! Whether an answer keeps the contract's rules, and how much of it the operator's bound lets through. Pure: the guest
//! is gone by now.

use super::{ROLLS_MAX, Roll, RollStatus, Step, UpdateInput, UpdatePlan};
use crate::bindings::update::exports::collective::policy::update as wire;
use crate::instances::{Health, InstanceState};
use crate::reasons::{reasons, why};
use crate::state::State;
use std::collections::HashSet;

const WAIT_MS_MAX: u64 = 86_400_000;
const STATE_BYTES_MAX: usize = 64 << 10;

/// Turns an answer into a plan, or says which rule it breaks.
pub(crate) fn check(plan: wire::Plan, input: &UpdateInput) -> Result<UpdatePlan, String> {
    let wire::Plan { next, next_call, state } = plan;
    check_wait("next-call", next_call)?;
    if state.len() > STATE_BYTES_MAX {
        return Err(format!("state: {} bytes are more than {STATE_BYTES_MAX}", state.len()));
    }
    let step = match next {
        wire::Step::Proceed(list) => cut(rolls(list, input)?, input),
        wire::Step::Hold(pause) => {
            check_wait("hold.retry-after", pause.retry_after)?;
            Step::Hold { retry_after_ms: pause.retry_after, reasons: why(pause.reasons)? }
        }
        wire::Step::Halt(list) => Step::Halt { reasons: why(list)? },
        wire::Step::RollBack(list) => Step::RollBack { reasons: why(list)? },
        wire::Step::Complete(list) => Step::Complete { reasons: reasons(list)? },
    };
    Ok(UpdatePlan { step, next_call_ms: next_call, state: State(state) })
}

fn check_wait(what: &str, wait_ms: u64) -> Result<(), String> {
    if (1..=WAIT_MS_MAX).contains(&wait_ms) {
        return Ok(());
    }
    Err(format!("{what}: {wait_ms} ms is not in 1 ..= {WAIT_MS_MAX}"))
}

fn rolls(list: Vec<wire::Roll>, input: &UpdateInput) -> Result<Vec<(usize, Roll)>, String> {
    if list.is_empty() {
        return Err("proceed: nobody rolls".to_owned());
    }
    if list.len() > ROLLS_MAX {
        return Err(format!("proceed: {} rolls are more than {ROLLS_MAX}", list.len()));
    }
    let instances = &input.instances;
    let under_way = under_way(input);
    let mut seen = HashSet::new();
    let checked = list.into_iter().enumerate().map(|(position, roll)| {
        let at = |problem: String| format!("proceed[{position}]: {problem}");
        let row = roll.instance as usize;
        let Some(name) = instances.names.get(row) else {
            return Err(at(format!("there is no instance {row} of {}", instances.len())));
        };
        if !seen.insert(row) {
            return Err(at(format!("{name} rolls twice")));
        }
        if under_way.contains(&row) {
            return Err(at(format!("{name} is under way")));
        }
        if instances.versions[row] == input.rollout.target {
            return Err(at(format!("{name} runs {} already", input.rollout.target)));
        }
        if roll.soak > WAIT_MS_MAX {
            return Err(at(format!("the soak of {} ms is above {WAIT_MS_MAX}", roll.soak)));
        }
        let reasons = reasons(roll.reasons).map_err(at)?;
        let roll = Roll { instance: name.clone(), soak_ms: roll.soak, checkpoint: roll.checkpoint, reasons };
        Ok((row, roll))
    });
    checked.collect()
}

/// Rows whose last outcome is under way.
fn under_way(input: &UpdateInput) -> HashSet<usize> {
    let mut rows = HashSet::new();
    for outcome in &input.rollout.outcomes {
        let Some(row) = input.instances.row_of(&outcome.instance) else { continue };
        if outcome.status == RollStatus::UnderWay {
            rows.insert(row);
        } else {
            rows.remove(&row);
        }
    }
    rows
}

/// Lets as many roll, in the policy's order, as the operator's bound has room for. One that is down anyway needs none.
fn cut(rolls: Vec<(usize, Roll)>, input: &UpdateInput) -> Step {
    let under_way = under_way(input);
    let instances = &input.instances;
    let down: Vec<bool> = (0..instances.len())
        .map(|row| under_way.contains(&row) || is_down(instances.states[row], instances.healths[row]))
        .collect();
    let count = down.iter().filter(|down| **down).count();
    let mut room = (input.rollout.unavailable_max as usize).saturating_sub(count);
    let wanted = rolls.len();
    let mut kept = Vec::with_capacity(wanted);
    for (row, roll) in rolls {
        if down[row] {
            kept.push(roll);
        } else if room > 0 {
            room -= 1;
            kept.push(roll);
        }
    }
    let cut = u32::try_from(wanted - kept.len()).unwrap_or(u32::MAX);
    Step::Proceed { rolls: kept, cut }
}

/// Whether an instance is meant to run, and does not run or is not well.
fn is_down(state: InstanceState, health: Health) -> bool {
    match state {
        InstanceState::Stopped => false,
        InstanceState::Running => health == Health::Unhealthy,
        InstanceState::Waiting
        | InstanceState::Starting
        | InstanceState::Failed
        | InstanceState::Unreachable => true,
    }
}

#[cfg(test)]
mod tests;
