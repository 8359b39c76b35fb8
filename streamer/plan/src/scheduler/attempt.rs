//! Pieces on their way: each one or more attempts, each of a whole piece from one peer.

use super::flow::Mark;
use super::{Action, PeerKey, Scheduler};
use std::time::Duration;

/// Attempts at one piece at a time.
pub(super) const ATTEMPTS_MAX: usize = 3;

/// On whose account a piece is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Urgent,
    /// A sequential reader will want it next.
    Ahead,
    Profile,
    Background,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum BlockState {
    Unsent,
    Sent { urgent: bool, peer: Mark, side: Mark },
    Received,
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) peer: PeerKey,
    pub(super) class: Class,
    pub(super) blocks: Vec<BlockState>,
    pub(super) unsent: u32,
    pub(super) started: Duration,
}

impl Attempt {
    pub(super) fn has_bytes(&self) -> bool {
        self.blocks.contains(&BlockState::Received)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.blocks.iter().all(|state| *state == BlockState::Received)
    }
}

#[derive(Debug)]
pub(super) enum Active {
    Fetching(Vec<Attempt>),
    Verifying,
}

impl Scheduler {
    pub(super) fn attempts(&self, piece: u32) -> &[Attempt] {
        match self.active.get(&piece) {
            Some(Active::Fetching(attempts)) => attempts,
            _ => &[],
        }
    }

    /// Asks of the peer begin with the next sending.
    pub(super) fn start(&mut self, piece: u32, peer: PeerKey, class: Class, now: Duration) {
        let blocks = self.geometry.blocks(piece);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let attempts = match self.active.entry(piece).or_insert_with(|| Active::Fetching(Vec::new())) {
            Active::Fetching(attempts) => attempts,
            Active::Verifying => return,
        };
        let states = vec![BlockState::Unsent; blocks as usize];
        attempts.push(Attempt { peer, class, blocks: states, unsent: blocks, started: now });
        state.unsent += blocks;
        self.rarest.take(piece);
        self.blocked.remove(&piece);
        if class != Class::Urgent {
            self.started.push_back((piece, peer));
        }
    }

    /// Ends every attempt at a piece and takes its requests back.
    pub(super) fn abandon(&mut self, piece: u32) {
        let Some(Active::Fetching(attempts)) = self.active.remove(&piece) else { return };
        for attempt in attempts {
            self.end(piece, &attempt, true);
        }
        self.absent_again(piece);
    }

    /// Ends one attempt; the piece is absent if it was the only one.
    pub(super) fn abandon_attempt(&mut self, piece: u32, peer: PeerKey) {
        let Some(Active::Fetching(attempts)) = self.active.get_mut(&piece) else { return };
        let Some(at) = attempts.iter().position(|attempt| attempt.peer == peer) else { return };
        let attempt = attempts.swap_remove(at);
        let last = attempts.is_empty();
        self.overtaken(peer);
        self.end(piece, &attempt, true);
        if last {
            self.active.remove(&piece);
            self.absent_again(piece);
        }
    }

    /// A piece has all its blocks: every attempt ends, and it is neither absent nor asked for.
    pub(super) fn finish(&mut self, piece: u32) {
        if let Some(Active::Fetching(attempts)) = self.active.insert(piece, Active::Verifying) {
            for attempt in attempts {
                self.overtaken(attempt.peer);
                self.end(piece, &attempt, true);
            }
        }
    }

    pub(super) fn drop_attempts_of(&mut self, peer: PeerKey) {
        let (mut ended, mut bare) = (Vec::new(), Vec::new());
        self.active.retain(|piece, active| {
            let Active::Fetching(attempts) = active else { return true };
            while let Some(at) = attempts.iter().position(|attempt| attempt.peer == peer) {
                ended.push((*piece, attempts.swap_remove(at)));
            }
            if attempts.is_empty() {
                bare.push(*piece);
            }
            !attempts.is_empty()
        });
        for (piece, attempt) in ended {
            self.end(piece, &attempt, false);
        }
        for piece in bare {
            self.absent_again(piece);
        }
    }

    fn overtaken(&mut self, peer: PeerKey) {
        let clock = self.clock;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.overtaken(clock);
        }
    }

    /// A piece is neither here nor on its way any more.
    pub(super) fn absent_again(&mut self, piece: u32) {
        if !self.held.contains(piece) && !self.active.contains_key(&piece) {
            self.rarest.put(piece);
            self.wanted.again(piece);
            self.rescan = true;
        }
    }

    fn end(&mut self, piece: u32, attempt: &Attempt, cancel: bool) {
        let Some(peer) = self.peers.get_mut(&attempt.peer) else { return };
        let side = self.sides.of(peer.kind);
        peer.unsent -= attempt.unsent;
        for (index, state) in (0u32..).zip(&attempt.blocks) {
            let BlockState::Sent { urgent, .. } = state else { continue };
            peer.flow.ended(*urgent);
            side.ended(*urgent);
            if cancel {
                let block = self.geometry.block(piece, index);
                self.cancels.push(Action::Cancel { peer: attempt.peer, block });
            }
        }
        self.rescan = true;
    }
}
