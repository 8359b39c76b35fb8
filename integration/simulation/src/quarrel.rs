//! Hosts that parted because one sent wrong bytes, and what is missing in the end.

use crate::world::World;
use std::collections::BTreeSet;

impl World {
    /// Pieces that live hosts want and lack.
    #[must_use]
    pub fn missing(&self, wanted: &BTreeSet<u32>) -> Vec<(usize, Vec<u32>)> {
        let live = (1..self.nodes.len()).filter(|node| self.nodes[*node].alive);
        live.filter_map(|node| {
            let held = self.nodes[node].scheduler.held();
            let lacks: Vec<u32> = wanted.iter().copied().filter(|piece| !held.contains(*piece)).collect();
            (!lacks.is_empty()).then_some((node, lacks))
        })
        .collect()
    }

    /// Connects again what was kept apart and is not any more.
    pub fn make_peace(&mut self) {
        for one in 0..self.nodes.len() {
            let now = self.now;
            let over: Vec<usize> = self.nodes[one]
                .banned
                .iter()
                .filter(|(_, until)| now >= **until)
                .map(|(of, _)| *of)
                .collect();
            for two in over {
                self.nodes[one].banned.remove(&two);
                if self.nodes[one].alive && self.nodes[two].alive && !self.is_banned(one, two) {
                    self.part(one, two);
                    self.part(two, one);
                    self.meet(one, two);
                    self.meet(two, one);
                }
            }
        }
        self.step_all();
    }
}
