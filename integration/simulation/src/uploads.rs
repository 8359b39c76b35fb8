//! What a node sends next: urgent blocks first, then whole pieces to a few peers at a time, fair by bytes.

use std::collections::{BTreeMap, VecDeque};
use streamer_plan::Block;

/// Pieces sent beside one another while nobody waits.
const SLOTS_MAX: usize = 3;

#[derive(Debug, Default)]
struct Lane {
    other: VecDeque<Block>,
    served: u64,
}

/// The queue of one uplink.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    /// In order of arrival; a piece that was begun goes on.
    urgent: VecDeque<(usize, Block)>,
    current: Option<(usize, u32)>,
    lanes: BTreeMap<usize, Lane>,
    slots: VecDeque<(usize, u32)>,
}

impl Uploads {
    pub(crate) fn ask(&mut self, peer: usize, block: Block, urgent: bool) {
        if urgent {
            self.urgent.push_back((peer, block));
            return;
        }
        let least = self.lanes.values().filter(|lane| !lane.other.is_empty()).map(|lane| lane.served).min();
        let lane = self.lanes.entry(peer).or_default();
        if lane.other.is_empty() {
            // Whoever was idle has no credit.
            lane.served = lane.served.max(least.unwrap_or(0));
        }
        lane.other.push_back(block);
    }

    /// Somebody waits now for what was asked for before.
    pub(crate) fn urge(&mut self, peer: usize, piece: u32) {
        let Some(lane) = self.lanes.get_mut(&peer) else { return };
        let (urged, rest) =
            std::mem::take(&mut lane.other).into_iter().partition(|block| block.piece == piece);
        lane.other = rest;
        let urged: VecDeque<Block> = urged;
        self.urgent.extend(urged.into_iter().map(|block| (peer, block)));
    }

    pub(crate) fn take_back(&mut self, peer: usize, block: Block) {
        self.urgent.retain(|waiting| *waiting != (peer, block));
        if let Some(lane) = self.lanes.get_mut(&peer) {
            lane.other.retain(|waiting| *waiting != block);
        }
    }

    pub(crate) fn leave(&mut self, peer: usize) {
        self.urgent.retain(|(waiting, _)| *waiting != peer);
        self.lanes.remove(&peer);
        self.slots.retain(|(slot, _)| *slot != peer);
    }

    pub(crate) fn next(&mut self) -> Option<(usize, Block)> {
        self.next_urgent().or_else(|| self.next_other())
    }

    fn next_urgent(&mut self) -> Option<(usize, Block)> {
        let same = |(peer, block): &(usize, Block)| self.current == Some((*peer, block.piece));
        let at = self.urgent.iter().position(same).unwrap_or(0);
        let (peer, block) = self.urgent.remove(at)?;
        self.current = Some((peer, block.piece));
        Some((peer, block))
    }

    fn next_other(&mut self) -> Option<(usize, Block)> {
        let lanes = &self.lanes;
        let waits = |(peer, piece): &(usize, u32)| {
            lanes.get(peer).is_some_and(|lane| lane.other.iter().any(|block| block.piece == *piece))
        };
        self.slots.retain(waits);
        while self.slots.len() < SLOTS_MAX {
            let taken = |peer: &usize| self.slots.iter().any(|(slot, _)| slot == peer);
            let free = self.lanes.iter().filter(|(peer, lane)| !lane.other.is_empty() && !taken(peer));
            let Some((peer, lane)) = free.min_by_key(|(_, lane)| lane.served) else { break };
            let Some(front) = lane.other.front() else { break };
            self.slots.push_back((*peer, front.piece));
        }
        let (peer, piece) = self.slots.pop_front()?;
        self.slots.push_back((peer, piece));
        let lane = self.lanes.get_mut(&peer)?;
        let at = lane.other.iter().position(|block| block.piece == piece)?;
        lane.served += u64::from(lane.other[at].length);
        Some((peer, lane.other.remove(at)?))
    }
}
