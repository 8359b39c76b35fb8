//! Turns attempts into requests, as far as the windows allow.

use super::attempt::{Active, BlockState, Class};
use super::{Action, PeerKey, PeerKind, Scheduler, URGENT_WINDOW_BLOCKS};
use std::time::Duration;

/// Blocks in flight for a profile that guests do not follow: what it takes must not be felt.
const DOUBTED_BLOCKS: u32 = 1;

/// Blocks in flight, at least, that a profile keeps while a guest waits.
const WAITING_BLOCKS_MIN: u32 = 2;

impl Scheduler {
    pub(super) fn send_urgent(&mut self, actions: &mut Vec<Action>, now: Duration) {
        for at in 0..self.urgent.len() {
            let piece = self.urgent[at].piece;
            let Some(Active::Fetching(attempts)) = self.active.get(&piece) else { continue };
            let peers: Vec<PeerKey> = attempts.iter().map(|attempt| attempt.peer).collect();
            for peer in peers {
                let owed = self.peers.get(&peer).map_or(0, |peer| peer.urgent_outstanding());
                self.ask(piece, peer, true, URGENT_WINDOW_BLOCKS.saturating_sub(owed), actions, now);
            }
        }
    }

    /// The started attempts at pieces nobody waits for, the oldest first: a whole piece can be passed on, halves cannot.
    pub(super) fn send_started(&mut self, waits: bool, actions: &mut Vec<Action>, now: Duration) {
        if self.started.is_empty() {
            return;
        }
        let mut later = std::collections::VecDeque::with_capacity(self.started.len());
        while let Some((piece, peer)) = self.started.pop_front() {
            let Some(class) = self.unsent_class(piece, peer) else { continue };
            let urgent = self.is_urgent(piece);
            if !urgent {
                self.ask_other(piece, peer, class, waits, actions, now);
            }
            if self.unsent_class(piece, peer).is_some() {
                later.push_back((piece, peer));
            }
        }
        self.started = later;
    }

    pub(super) fn ask_other(
        &mut self,
        piece: u32,
        peer: PeerKey,
        class: Class,
        waits: bool,
        actions: &mut Vec<Action>,
        now: Duration,
    ) {
        let Some(state) = self.peers.get(&peer) else { return };
        let room = self.peer_room(peer).min(self.room(state.kind, class, waits));
        self.ask(piece, peer, false, room, actions, now);
    }

    fn unsent_class(&self, piece: u32, peer: PeerKey) -> Option<Class> {
        let attempt = self.attempts(piece).iter().find(|attempt| attempt.peer == peer)?;
        (attempt.unsent > 0).then_some(attempt.class)
    }

    /// Blocks nobody waits for that may still be asked of a peer.
    pub(super) fn peer_room(&self, peer: PeerKey) -> u32 {
        let Some(peer) = self.peers.get(&peer) else { return 0 };
        peer.flow.window(self.geometry.blocks(0), &self.tuning).saturating_sub(peer.flow.others)
    }

    /// Blocks of a class that may still be asked of all peers on a side. `waits`: a guest waits.
    pub(super) fn room(&self, kind: PeerKind, class: Class, waits: bool) -> u32 {
        let side = self.sides.see(kind);
        let window = side.window(self.geometry.blocks(0), &self.tuning);
        let doubted = self.wanted.is_doubted();
        let allowed = match class {
            Class::Urgent | Class::Ahead => window,
            Class::Background | Class::Profile if waits && (doubted || class == Class::Background) => 0,
            Class::Profile if doubted => {
                return DOUBTED_BLOCKS.saturating_sub(self.sides.near.others + self.sides.outside.others);
            }
            Class::Profile if waits => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of it")]
                let share = (f64::from(window) * self.tuning.waiting_share) as u32;
                if self.tuning.waiting_share > 0.0 { share.max(WAITING_BLOCKS_MIN) } else { 0 }
            }
            Class::Background | Class::Profile => window,
        };
        allowed.saturating_sub(side.others)
    }

    /// Asks for the next blocks of an attempt. What is asked for already and has become urgent counts as urgent.
    fn ask(
        &mut self,
        piece: u32,
        key: PeerKey,
        urgent: bool,
        mut room: u32,
        actions: &mut Vec<Action>,
        now: Duration,
    ) {
        let Some(Active::Fetching(attempts)) = self.active.get_mut(&piece) else { return };
        let Some(attempt) = attempts.iter_mut().find(|attempt| attempt.peer == key) else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let side = self.sides.of(peer.kind);
        for (index, state) in (0u32..).zip(&mut attempt.blocks) {
            match state {
                BlockState::Received | BlockState::Sent { urgent: true, .. } => continue,
                BlockState::Sent { urgent: false, .. } if !urgent => continue,
                BlockState::Sent { .. } | BlockState::Unsent => {}
            }
            if room == 0 {
                return;
            }
            room -= 1;
            if peer.flow.outstanding == 0 {
                peer.progress = now;
            }
            if urgent && peer.urgent_outstanding() == 0 {
                peer.urgent_progress = now;
            }
            if let BlockState::Sent { urgent, .. } = state {
                *urgent = true;
                peer.flow.promoted();
                side.promoted();
                continue;
            }
            *state =
                BlockState::Sent { urgent, peer: peer.flow.sent(urgent, now), side: side.sent(urgent, now) };
            attempt.unsent -= 1;
            peer.unsent -= 1;
            actions.push(Action::Request { peer: key, block: self.geometry.block(piece, index), urgent });
        }
    }
}
