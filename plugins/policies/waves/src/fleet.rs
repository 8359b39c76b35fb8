//! What a rollout looks like now: which instances were touched, which are left, and who is down.

use crate::settings::{Settings, Stopped};
use plugins_sdk::Instances;
use plugins_sdk::instances::{health, state};
use plugins_sdk::update::{Outcome, Rollout, Status, is_down};
use std::collections::BTreeMap;

/// How an instance that was not touched can roll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// It runs and is well, so that it shows what the version is worth.
    Well,
    /// It does not work as it is: a new version cannot take anything away.
    Ill,
    /// Stopped on purpose.
    Stopped,
    /// Not now: on its way, out of reach, or in a state that this policy does not know.
    Blocked,
}

/// The columns this policy reads, and what follows from them.
pub(crate) struct Fleet {
    pub(crate) deployments: Vec<u32>,
    pub(crate) sites: Vec<u32>,
    pub(crate) hosts: Vec<u32>,
    /// Rows that are left, with how they can roll; ascending.
    pub(crate) candidates: Vec<(u32, Candidate)>,
    /// Rows that roll at present.
    pub(crate) under_way: Vec<u32>,
    /// Which rows count against the bound of unavailable instances.
    pub(crate) down: Vec<bool>,
    pub(crate) touched: Touched,
    /// Stopped instances that the settings leave alone.
    pub(crate) left_stopped: usize,
}

/// Instances that this rollout has ordered to roll, once each, by how their last roll stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// All of them.
    pub(crate) all: usize,
    pub(crate) under_way: usize,
    pub(crate) succeeded: usize,
    /// Failed or rolled back.
    pub(crate) failed: usize,
    /// The same for rolls that ended since an operator let the rollout go on: what failed before is forgiven.
    pub(crate) failed_unforgiven: usize,
    /// Succeeded since then, is still at the target, and does not work.
    pub(crate) ill: usize,
    /// Succeeded since then and is still there.
    pub(crate) watched: usize,
    /// End of the last roll, milliseconds since 1970; 0 if none has ended.
    pub(crate) last_finished_ms: u64,
}

impl Fleet {
    pub(crate) fn read(
        settings: &Settings,
        rollout: &Rollout,
        instances: &impl Instances,
        target: u32,
    ) -> Self {
        let (states, healths, versions) = (instances.states(), instances.healths(), instances.versions());
        let is_ill = |row: usize| states[row] == state::FAILED || healths[row] == health::UNHEALTHY;
        let mut down: Vec<bool> =
            states.iter().zip(&healths).map(|(state, health)| is_down(*state, *health)).collect();

        let mut last: BTreeMap<&str, &Outcome> = BTreeMap::new();
        for outcome in &rollout.outcomes {
            last.insert(&outcome.instance, outcome);
        }
        let mut touched = Touched { all: last.len(), ..Touched::default() };
        let mut is_touched = vec![false; states.len()];
        let mut under_way = Vec::new();
        let resumed_ms = resumed_ms(rollout);
        for outcome in last.values() {
            // A row beyond the columns cannot be: the runtime gave both.
            let row = outcome.row.filter(|row| (*row as usize) < states.len());
            if let Some(row) = row {
                is_touched[row as usize] = true;
            }
            touched.last_finished_ms = touched.last_finished_ms.max(outcome.finished_ms);
            let forgiven = outcome.finished_ms.max(outcome.ordered_ms) <= resumed_ms;
            match outcome.status {
                Status::UnderWay => {
                    // One that is no longer there never ends: nobody waits for it.
                    if let Some(row) = row {
                        touched.under_way += 1;
                        under_way.push(row);
                        down[row as usize] = true;
                    }
                }
                Status::Succeeded => {
                    touched.succeeded += 1;
                    let row = row.map(|row| row as usize);
                    if let Some(row) = row.filter(|row| !forgiven && versions[*row] == target) {
                        touched.watched += 1;
                        touched.ill += usize::from(is_ill(row));
                    }
                }
                Status::Failed | Status::RolledBack => {
                    touched.failed += 1;
                    touched.failed_unforgiven += usize::from(!forgiven);
                }
                Status::GivenUp | Status::Other(_) => {}
            }
        }
        let mut left_stopped = 0;
        let mut candidates = Vec::new();
        for (row, index) in (0u32..).enumerate().take(states.len()) {
            if is_touched[row] || (target != 0 && versions[row] == target) {
                continue;
            }
            let candidate = match states[row] {
                state::STOPPED if settings.stopped == Stopped::Leave => {
                    left_stopped += 1;
                    continue;
                }
                state::STOPPED => Candidate::Stopped,
                state::FAILED => Candidate::Ill,
                state::RUNNING => match healths[row] {
                    health::UNKNOWN | health::HEALTHY => Candidate::Well,
                    health::UNHEALTHY => Candidate::Ill,
                    _ => Candidate::Blocked,
                },
                _ => Candidate::Blocked,
            };
            candidates.push((index, candidate));
        }
        let (deployments, sites, hosts) = (instances.deployments(), instances.sites(), instances.hosts());
        Self { deployments, sites, hosts, candidates, under_way, down, touched, left_stopped }
    }

    /// Instances that are part of this rollout.
    pub(crate) fn total(&self) -> usize {
        self.touched.all + self.candidates.len()
    }

    /// Instances that count against the bound now.
    pub(crate) fn down_count(&self) -> usize {
        self.down.iter().filter(|down| **down).count()
    }
}

/// When an operator last let the rollout go on, milliseconds since 1970; 0 if never.
fn resumed_ms(rollout: &Rollout) -> u64 {
    let resumed = rollout.attributes.iter().find(|(key, _)| key == "collective/resumed");
    resumed.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}
