//! Who rolls now: in which order instances come, and which bounds they keep.

use crate::fleet::{Candidate, Fleet};
use crate::settings::{Settings, percent_of};
use crate::stage::Stage;
use plugins_sdk::update::{ROLLS_MAX, Roll, Rollout};
use plugins_sdk::{Context, Instances, Reason};
use std::collections::{BTreeMap, BTreeSet};

const MINUTE_MS: u64 = 60_000;

/// What stopped instances from rolling, counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Obstacles {
    /// Too many are down.
    pub(crate) down: usize,
    /// Others of their deployment, host or site roll.
    pub(crate) neighbours: usize,
    /// They cannot roll now.
    pub(crate) blocked: usize,
}

/// The rolls of this step and why there are no more.
pub(crate) fn choose(
    settings: &Settings,
    rollout: &Rollout,
    stage: Stage,
    fleet: &Fleet,
    instances: &impl Instances,
    context: &impl Context,
) -> (Vec<Roll>, Obstacles) {
    let mut rolls = Vec::new();
    let mut obstacles = Obstacles::default();
    let room = stage.touched_max.saturating_sub(fleet.touched.all).min(ROLLS_MAX);
    let percent = percent_of(settings.unavailable_percent_max, fleet.down.len()).max(1);
    let most_down = (rollout.unavailable_max as usize).min(percent);
    let mut room_down = most_down.saturating_sub(fleet.down_count());
    let mut neighbours = Neighbours::read(settings, fleet);
    let pilots = Pilots::read(settings, fleet, instances, context);

    for (row, candidate) in ordered(rollout, stage, fleet, &pilots) {
        if candidate == Candidate::Blocked {
            obstacles.blocked += 1;
            continue;
        }
        if rolls.len() == room {
            break;
        }
        let costs = usize::from(!fleet.down[row as usize]);
        if costs > room_down {
            obstacles.down += 1;
        } else if !neighbours.admit(settings, fleet, row) {
            obstacles.neighbours += 1;
        } else {
            room_down -= costs;
            rolls.push(roll(settings, stage, row, candidate, pilots.contains(row)));
        }
    }
    (rolls, obstacles)
}

fn roll(settings: &Settings, stage: Stage, row: u32, candidate: Candidate, is_pilot: bool) -> Roll {
    let minutes = if stage.is_canary() { settings.canary_soak_minutes } else { settings.soak_minutes };
    // What is stopped on purpose does not become healthy.
    let soak_ms = if candidate == Candidate::Stopped { 0 } else { u64::from(minutes) * MINUTE_MS };
    let code = if stage.is_canary() { "canary" } else { "wave" };
    let mut reasons = vec![Reason::plain(code, format!("part of {}", stage.name(settings)))];
    if is_pilot {
        reasons.push(Reason::plain("pilot", "named to go first".to_owned()));
    }
    match candidate {
        Candidate::Ill => reasons.push(Reason::plain("unwell", "it does not work as it is".to_owned())),
        Candidate::Stopped => reasons.push(Reason::plain("stopped", "nobody uses it now".to_owned())),
        Candidate::Well | Candidate::Blocked => {}
    }
    Roll { instance: row, soak_ms, checkpoint: settings.checkpoint, reasons }
}

/// Candidates, those that go first at the front. A canary has to show something, so that what runs and is well comes
/// first in it; in a wave what is unwell loses nothing. Beyond that the order is arbitrary, another one for each
/// rollout, lest the same people are the canary every time.
fn ordered(rollout: &Rollout, stage: Stage, fleet: &Fleet, pilots: &Pilots) -> Vec<(u32, Candidate)> {
    let rank = |candidate| match (candidate, stage.is_canary()) {
        (Candidate::Well, true) | (Candidate::Ill, false) => 0,
        (Candidate::Ill, true) | (Candidate::Well, false) => 1,
        (Candidate::Stopped, _) => 2,
        (Candidate::Blocked, _) => 3,
    };
    let mut ordered = fleet.candidates.clone();
    ordered.sort_by_cached_key(|(row, candidate)| {
        // A pilot that is stopped shows nothing either.
        let is_pilot = pilots.contains(*row) && rank(*candidate) < 2;
        (!is_pilot, rank(*candidate), shuffled(&rollout.id, *row), *row)
    });
    ordered
}

/// FNV-1a over the rollout and the row, and a last stir, because the row's bytes come last.
fn shuffled(rollout: &str, row: u32) -> u64 {
    let bytes = rollout.bytes().chain(row.to_le_bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let stirred = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    stirred ^ (stirred >> 29)
}

/// Rows that go first.
struct Pilots(BTreeSet<u32>);

impl Pilots {
    fn read(settings: &Settings, fleet: &Fleet, instances: &impl Instances, context: &impl Context) -> Self {
        if settings.pilots.is_empty() {
            return Self(BTreeSet::new());
        }
        let members = instances.members();
        let mut rows = BTreeSet::new();
        for pilot in &settings.pilots {
            let (deployment, member) =
                pilot.split_once('/').map_or((pilot.as_str(), None), |(d, m)| (d, Some(m)));
            let deployment = context.find_symbol(deployment);
            let member = member.map(|member| context.find_symbol(member));
            if deployment == 0 || member == Some(0) {
                continue;
            }
            let meant = |row: &u32| {
                let index = *row as usize;
                fleet.deployments[index] == deployment && member.is_none_or(|member| members[index] == member)
            };
            rows.extend(fleet.candidates.iter().map(|(row, _)| *row).filter(meant));
        }
        Self(rows)
    }

    fn contains(&self, row: u32) -> bool {
        self.0.contains(&row)
    }
}

/// How many roll in each deployment, host and site.
struct Neighbours {
    counts: [BTreeMap<u32, u32>; 3],
}

impl Neighbours {
    fn read(settings: &Settings, fleet: &Fleet) -> Self {
        let mut neighbours = Self { counts: Default::default() };
        for row in &fleet.under_way {
            neighbours.add(settings, fleet, *row);
        }
        neighbours
    }

    /// Counts the row if every bound leaves room for it.
    fn admit(&mut self, settings: &Settings, fleet: &Fleet, row: u32) -> bool {
        let bounds = bounds(settings, fleet, row);
        let fits = |(counts, (key, most)): (&BTreeMap<u32, u32>, &(u32, u32))| {
            *most == 0 || *key == 0 || counts.get(key).copied().unwrap_or(0) < *most
        };
        let admitted = self.counts.iter().zip(&bounds).all(fits);
        if admitted {
            self.add(settings, fleet, row);
        }
        admitted
    }

    fn add(&mut self, settings: &Settings, fleet: &Fleet, row: u32) {
        for (counts, (key, most)) in self.counts.iter_mut().zip(bounds(settings, fleet, row)) {
            if most > 0 {
                *counts.entry(key).or_default() += 1;
            }
        }
    }
}

/// Symbol and bound of the row's deployment, host and site.
fn bounds(settings: &Settings, fleet: &Fleet, row: u32) -> [(u32, u32); 3] {
    let row = row as usize;
    [
        (fleet.deployments[row], settings.per_deployment_max),
        (fleet.hosts[row], settings.per_host_max),
        (fleet.sites[row], settings.per_site_max),
    ]
}
