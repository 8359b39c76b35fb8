//! Which instances might go to another host, and whether going there is worth it.
//!
//! A host that is to be empty ([`evacuees`]) and a cluster that might be better balanced ([`movable`]) are asked about
//! one instance after the other, each question with the answers before it taken as done ([`Scene::take`]). Nothing in
//! here moves a guest.

use super::{Census, HostState, Observed};
use crate::cluster::{Cluster, Stored};
use crate::{interpose, moving, record};
use std::collections::BTreeSet;
use types::{HostName, InstanceId, Revision};

/// Most instances that one rebalance asks about.
pub const ASKED_MAX: usize = 2_000;
/// Most moves of one answer.
pub const MOVES_MAX: u32 = 1_000;
/// Moves of a rebalance, if nobody says how many.
pub const REBALANCE_MOVES: u32 = 10;
/// The least gain worth a move, as a share of the present host's score, if nobody says so: a guest is not moved for a
/// difference that the next decision takes back.
pub const GAIN_MIN: f64 = 0.1;

/// The cluster as it would be after the answers so far.
#[derive(Debug, Clone)]
pub struct Scene {
    /// With the instances where they would be.
    pub cluster: Cluster,
    /// Counted accordingly.
    pub census: Census,
}

impl Scene {
    /// As it is.
    #[must_use]
    pub fn new(cluster: Cluster, observed: &Observed, online: &BTreeSet<HostName>) -> Self {
        let census = Census::new(&cluster, observed, online);
        Self { cluster, census }
    }

    /// Lets an instance's volumes go where it goes.
    pub fn release(&mut self, id: &InstanceId) {
        for ((_, _), volume) in self.cluster.volumes.iter_mut().filter(|((owner, _), _)| owner == id) {
            volume.value.host = None;
        }
    }

    /// Lets an instance be on a host from here on.
    pub fn take(&mut self, id: &InstanceId, host: &HostName) {
        let Some(instance) = self.cluster.instances.get(id) else { return };
        let held = self.cluster.placements.get(id);
        let (from, decision) = (held.map(|held| held.host.clone()), held.map_or(0, |held| held.decision));
        self.census.moved(&instance.value, from.as_ref(), host);
        for (_, volume) in self.cluster.volumes.iter_mut().filter(|((owner, _), _)| owner == id) {
            volume.value.host = Some(host.clone());
        }
        let value = record::Placement { host: host.clone(), decision };
        self.cluster.placements.insert(id.clone(), Stored { revision: Revision::default(), value });
    }
}

/// What is to leave a host for it to be empty: those that need most memory first, those that follow another one last.
#[must_use]
pub fn evacuees(cluster: &Cluster, host: &HostName) -> Vec<InstanceId> {
    let mut here: Vec<_> = cluster
        .placements
        .iter()
        .filter(|(_, placement)| placement.host == *host)
        .filter_map(|(id, _)| Some((id, cluster.instances.get(id)?)))
        .collect();
    here.sort_by_key(|(id, instance)| {
        (cluster.vias.contains_key(id), std::cmp::Reverse(instance.memory), (*id).clone())
    });
    here.into_iter().map(|(id, _)| id.clone()).collect()
}

/// Why an instance stays with its host, whatever a policy says.
#[must_use]
pub fn bound(cluster: &Cluster, id: &InstanceId) -> Option<String> {
    let under_way = moving::of(cluster, id).map(|held| format!("it is on its way to {} already", held.to));
    under_way.or_else(|| moving::bound(cluster, id))
}

/// The host of the instance that this one follows, if it follows one.
#[must_use]
pub fn follows_to(cluster: &Cluster, id: &InstanceId) -> Option<HostName> {
    interpose::follows(cluster, id).ok()?.map(|(_, host)| host)
}

/// Instances that a rebalance may ask about: on hosts in reach and bound to none. Those of hosts with the least memory
/// left come first, and there those that need most.
#[must_use]
pub fn movable(scene: &Scene) -> Vec<InstanceId> {
    let cluster = &scene.cluster;
    let mut found: Vec<_> = cluster
        .placements
        .iter()
        .filter(|(_, placement)| {
            scene.census.state(&placement.host).is_some_and(|state| state != HostState::Unreachable)
        })
        .filter(|(id, _)| bound(cluster, id).is_none())
        .filter_map(|(id, placement)| {
            let memory = cluster.instances.get(id)?.memory;
            Some((scene.census.free_permille(&placement.host), std::cmp::Reverse(memory), id))
        })
        .collect();
    found.sort();
    found.into_iter().take(ASKED_MAX).map(|(.., id)| id.clone()).collect()
}

/// What a policy's ranking says about leaving the present host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// Score of the new host less that of the present one; at least so much if the present one is below the ranking's end.
    pub points: f64,
    /// The same as a share of the present host's score.
    pub share: f64,
}

/// The gain of going to `to`; none if it is the present host. `ranked` are the policy's hosts with their scores, best
/// first. A present host that is not among them is taken for as good as the last of them, and `share` for endless if there
/// is nothing to compare with.
#[must_use]
pub fn gain(ranked: &[(HostName, f64)], present: &HostName, to: &HostName) -> Option<Gain> {
    if present == to {
        return None;
    }
    let score = |host: &HostName| ranked.iter().find(|(name, _)| name == host).map(|(_, score)| *score);
    let new = score(to)?;
    let old = score(present).or_else(|| ranked.last().map(|(_, score)| *score))?;
    let points = new - old;
    let share = if old.abs() < f64::EPSILON { f64::INFINITY } else { points / old.abs() };
    Some(Gain { points, share: if points > 0.0 { share } else { 0.0 } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(name: &str) -> HostName {
        name.parse().unwrap()
    }

    #[test]
    fn staying_gains_nothing_and_leaving_gains_the_difference() {
        let ranked = [(host("a"), 120.0), (host("b"), 100.0), (host("c"), 60.0)];
        assert_eq!(gain(&ranked, &host("a"), &host("a")), None);
        let gained = gain(&ranked, &host("b"), &host("a")).unwrap();
        assert!((gained.points - 20.0).abs() < 1e-9 && (gained.share - 0.2).abs() < 1e-9);
        // A host beyond the ranking's end is as good as its last one at best.
        assert!((gain(&ranked, &host("z"), &host("a")).unwrap().points - 60.0).abs() < 1e-9);
        assert_eq!(gain(&ranked, &host("b"), &host("nowhere")), None);
    }

    proptest! {
        // What one rebalance moves, the next one with the same scores does not move back.
        #[test]
        fn no_ranking_is_worth_leaving_both_ways(a in -1e6f64..1e6, b in -1e6f64..1e6) {
            let ranked = [(host("a"), a), (host("b"), b)];
            let worth = |from: &str, to: &str| {
                gain(&ranked, &host(from), &host(to)).is_some_and(|gain| gain.share > GAIN_MIN)
            };
            prop_assert!(!(worth("a", "b") && worth("b", "a")));
        }
    }
}
