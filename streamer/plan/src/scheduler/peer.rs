//! What is known of one peer, and of all peers on one side of the WAN.

use super::flow::Flow;
use super::{PATIENCE, PeerFacts, PeerKind, STEAL_AGE};
use crate::Pieces;
use std::time::Duration;

/// A peer that had to be overtaken is relied upon again after so long, or when it sends something.
const AVOIDED_FOR: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) kind: PeerKind,
    pub(super) identity: Option<u64>,
    pub(super) choking: bool,
    pub(super) pieces: Pieces,
    pub(super) flow: Flow,
    /// Blocks of its attempts not yet asked.
    pub(super) unsent: u32,
    /// When it last delivered, or began to owe us something.
    pub(super) progress: Duration,
    /// The same for what somebody waits for.
    pub(super) urgent_progress: Duration,
    pub(super) fetches_until: Duration,
    /// It owed and was silent until another was asked: not relied upon before then.
    avoided_until: Duration,
}

impl Peer {
    pub(super) fn new(facts: PeerFacts, pieces: Pieces, now: Duration) -> Self {
        let mut peer = Self {
            kind: facts.kind,
            identity: facts.identity,
            choking: true,
            pieces,
            flow: Flow::default(),
            unsent: 0,
            progress: now,
            urgent_progress: now,
            fetches_until: now,
            avoided_until: Duration::ZERO,
        };
        peer.shows_life(now);
        peer
    }

    pub(super) fn offers(&self, piece: u32) -> bool {
        !self.choking && self.pieces.contains(piece)
    }

    pub(super) fn load(&self) -> u32 {
        self.flow.outstanding + self.unsent
    }

    /// Blocks in flight that somebody waits for.
    pub(super) fn urgent_outstanding(&self) -> u32 {
        self.flow.outstanding - self.flow.others
    }

    /// It owes what somebody waits for and sends nothing.
    pub(super) fn is_sluggish(&self, now: Duration) -> bool {
        (self.urgent_outstanding() > 0 && now >= self.urgent_progress + PATIENCE) || self.is_stuck(now)
    }

    /// It owes something and has not sent a block for long, or was so a while ago. Shorter silence is a queue.
    pub(super) fn is_stuck(&self, now: Duration) -> bool {
        now < self.avoided_until || (self.flow.outstanding > 0 && now >= self.progress + STEAL_AGE)
    }

    /// Another was asked for what it owed. What it owes is taken back, which would make it look fresh.
    pub(super) fn overtaken(&mut self, now: Duration) {
        if self.is_sluggish(now) {
            self.avoided_until = now + AVOIDED_FOR;
        }
    }

    /// It sent a block that was asked for.
    pub(super) fn delivered(&mut self, urgent: bool, now: Duration) {
        self.progress = now;
        self.avoided_until = Duration::ZERO;
        if urgent {
            self.urgent_progress = now;
        }
    }
}

/// All near peers, and all others: what is fetched across the WAN must not take the room of what is fetched at hand.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) near: Flow,
    pub(super) outside: Flow,
}

impl Sides {
    pub(super) fn of(&mut self, kind: PeerKind) -> &mut Flow {
        if kind.is_near() { &mut self.near } else { &mut self.outside }
    }

    pub(super) fn see(&self, kind: PeerKind) -> &Flow {
        if kind.is_near() { &self.near } else { &self.outside }
    }
}
