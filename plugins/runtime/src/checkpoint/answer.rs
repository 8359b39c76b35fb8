//! Whether an answer keeps the contract's rules. Pure: the guest is gone by now.

use super::{CheckpointColumns, CheckpointPlan, Discard, Take};
use crate::bindings::checkpoint::exports::collective::policy::checkpoint as wire;
use crate::reasons::why;
use crate::state::State;
use std::collections::HashSet;

const WAIT_MS_MAX: u64 = 86_400_000;
const PAUSE_MS_MAX: u64 = 60_000;
const STATE_BYTES_MAX: usize = 64 << 10;

/// Turns an answer about these checkpoints into a plan, or says which rule it breaks.
pub(crate) fn check(plan: wire::Plan, checkpoints: &CheckpointColumns) -> Result<CheckpointPlan, String> {
    let wire::Plan { take, discards, next_call, state } = plan;
    if !(1..=WAIT_MS_MAX).contains(&next_call) {
        return Err(format!("next-call: {next_call} ms is not in 1 ..= {WAIT_MS_MAX}"));
    }
    if state.len() > STATE_BYTES_MAX {
        return Err(format!("state: {} bytes are more than {STATE_BYTES_MAX}", state.len()));
    }
    Ok(CheckpointPlan {
        take: take.map(check_take).transpose()?,
        discards: check_discards(discards, checkpoints)?,
        next_call_ms: next_call,
        state: State(state),
    })
}

fn check_take(take: wire::Take) -> Result<Take, String> {
    let wire::Take { with_memory, pause_max, reasons } = take;
    if !(1..=PAUSE_MS_MAX).contains(&pause_max) {
        return Err(format!("take.pause-max: {pause_max} ms is not in 1 ..= {PAUSE_MS_MAX}"));
    }
    let reasons = why(reasons).map_err(|problem| format!("take: {problem}"))?;
    Ok(Take { with_memory, pause_max_ms: pause_max, reasons })
}

fn check_discards(list: Vec<wire::Discard>, checkpoints: &CheckpointColumns) -> Result<Vec<Discard>, String> {
    let mut seen = HashSet::new();
    let checked = list.into_iter().enumerate().map(|(position, discard)| {
        let at = |problem: String| format!("discards[{position}]: {problem}");
        let row = discard.checkpoint as usize;
        let Some(name) = checkpoints.names.get(row) else {
            return Err(at(format!("there is no checkpoint {row} of {}", checkpoints.names.len())));
        };
        if !seen.insert(row) {
            return Err(at(format!("{name} is dropped twice")));
        }
        if checkpoints.pinned[row] {
            return Err(at(format!("{name} is pinned")));
        }
        Ok(Discard { checkpoint: name.clone(), reasons: why(discard.reasons).map_err(at)? })
    });
    checked.collect()
}

#[cfg(test)]
mod tests;
