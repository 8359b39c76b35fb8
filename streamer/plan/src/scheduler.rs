//! The scheduler of one image's pieces.
//!
//! Rooms: `attempt` (pieces on their way), `urgent` (somebody waits), `prefetch` (nobody does yet), `wanted` (the
//! profile), `rarest` (the background's order), `site` (who fetches across the WAN), `send` and `flow` (how much is in
//! flight), `peer`.

mod attempt;
mod flow;
mod peer;
mod prefetch;
mod rarest;
mod send;
mod site;
mod tuning;
mod urgent;
mod wanted;
mod words;

pub use tuning::Tuning;
pub use words::{Action, Background, Outcome, PeerFacts, PeerKey, PeerKind, Received};

use crate::{Block, Geometry, Pieces};
use attempt::{Active, BlockState};
use peer::{Peer, Sides};
use prefetch::Run;
use rarest::Rarest;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;
use urgent::Waiting;
use wanted::Wanted;

/// A peer that was asked for what somebody waits for and sends nothing for so long is no longer waited for alone.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// A peer that owes anything and sends nothing for so long is given up for what another has. A shorter silence is a
/// queue; and giving up sooner makes peers on a fast network steal in circles.
pub const STEAL_AGE: Duration = Duration::from_secs(1);

/// Blocks asked of one peer at a time for pieces somebody waits for.
pub const URGENT_WINDOW_BLOCKS: u32 = 64;

/// Decides what is asked of whom, for one image.
#[derive(Debug)]
pub struct Scheduler {
    geometry: Geometry,
    identity: u64,
    tuning: Tuning,
    held: Pieces,
    active: BTreeMap<u32, Active>,
    peers: BTreeMap<PeerKey, Peer>,
    sides: Sides,
    rarest: Rarest,
    /// Pieces somebody waits for: first ours, then near peers', in order of asking.
    urgent: Vec<Waiting>,
    /// What sequential readers will want next.
    ahead: VecDeque<u32>,
    runs: VecDeque<Run>,
    wanted: Wanted,
    background: Background,
    /// Since when background has had room and found nothing it may take.
    background_idle: Option<Duration>,
    /// Attempts at pieces nobody waits for, with blocks to ask for, the oldest first.
    started: VecDeque<(u32, PeerKey)>,
    /// Pieces of the profile left to another host of the site, and since when.
    blocked: HashMap<u32, Duration>,
    /// Pieces that peers have just announced.
    fresh: Vec<(PeerKey, u32)>,
    /// A guest waited at the last planning.
    waits: bool,
    /// Something changed: look for pieces to start.
    rescan: bool,
    /// The last look left something for want of room.
    busy: bool,
    room_changed: bool,
    /// The last look started nothing.
    quiet_until: Duration,
    /// Look again then.
    retry_at: Option<Duration>,
    cancels: Vec<Action>,
    /// The latest time we were told.
    clock: Duration,
    random: u64,
}

impl Scheduler {
    /// A scheduler that holds `held` already. `identity` names us to the peers of our site, `seed` makes random ties
    /// repeatable.
    #[must_use]
    pub fn new(geometry: Geometry, held: Pieces, identity: u64, seed: u64) -> Self {
        Self::with_tuning(geometry, held, identity, seed, Tuning::default())
    }

    /// The same, with other figures than the chosen ones.
    #[must_use]
    pub fn with_tuning(geometry: Geometry, held: Pieces, identity: u64, seed: u64, tuning: Tuning) -> Self {
        let mut rarest = Rarest::new(geometry.pieces());
        (0..geometry.pieces()).filter(|piece| !held.contains(*piece)).for_each(|piece| rarest.put(piece));
        Self {
            geometry,
            identity,
            tuning,
            held,
            active: BTreeMap::new(),
            peers: BTreeMap::new(),
            sides: Sides::default(),
            rarest,
            urgent: Vec::new(),
            ahead: VecDeque::new(),
            runs: VecDeque::new(),
            wanted: Wanted::default(),
            background: Background::Off,
            background_idle: None,
            started: VecDeque::new(),
            blocked: HashMap::new(),
            fresh: Vec::new(),
            waits: false,
            rescan: false,
            busy: false,
            room_changed: false,
            quiet_until: Duration::ZERO,
            retry_at: None,
            cancels: Vec::new(),
            clock: Duration::ZERO,
            random: seed | 1,
        }
    }

    /// Pieces held: verified, or known to be zero.
    #[must_use]
    pub fn held(&self) -> &Pieces {
        &self.held
    }

    /// Pieces being fetched or verified, in ascending order.
    pub fn in_flight(&self) -> impl Iterator<Item = u32> + '_ {
        self.active.keys().copied()
    }

    /// Pieces a guest of ours waits for.
    pub fn waited_for(&self) -> impl Iterator<Item = u32> + '_ {
        self.urgent.iter().filter(|waiting| waiting.own).map(|waiting| waiting.piece)
    }

    /// Is there a piece a guest waits for that no connected peer has, or something to prefetch and nobody to ask?
    #[must_use]
    pub fn lacks_sources(&self) -> bool {
        let prefetches = self.background != Background::Off || !self.wanted.is_exhausted();
        self.waited_for().any(|piece| self.rarest.copies(piece) == 0)
            || (prefetches && !self.held.is_full() && self.peers.is_empty())
    }

    /// How much is fetched that nobody asked for.
    pub fn set_background(&mut self, background: Background) {
        self.background = background;
        self.background_idle = None;
        self.rescan = true;
    }

    /// Pieces wanted soon, in order; none if empty. Replaces what was wanted before: what of that is on its way may
    /// arrive, nothing more of it is started.
    pub fn set_profile(&mut self, pieces: Vec<u32>) {
        let there = |piece: &u32| *piece < self.geometry.pieces();
        self.wanted.replace(pieces.into_iter().filter(there).collect());
        self.blocked.clear();
        self.rescan = true;
    }

    /// A near peer has a guest waiting for the piece, and we are the one to fetch it for the site.
    pub fn peer_wants(&mut self, peer: PeerKey, piece: u32, now: Duration) {
        self.clock = now;
        let near = self.peers.get(&peer).is_some_and(|peer| peer.kind.is_near() && peer.identity.is_some());
        if near && piece < self.geometry.pieces() && !self.held.contains(piece) {
            self.wait_for(piece, false, now);
        }
    }

    /// A peer connected; it has told nothing yet.
    pub fn peer_joined(&mut self, peer: PeerKey, facts: PeerFacts, now: Duration) {
        self.clock = now;
        let joined = Peer::new(facts, Pieces::none(self.geometry.pieces()), now);
        self.peers.insert(peer, joined);
    }

    /// A peer is gone, with all it owed.
    pub fn peer_left(&mut self, peer: PeerKey) {
        self.drop_attempts_of(peer);
        if let Some(left) = self.peers.remove(&peer) {
            left.pieces.iter().for_each(|piece| self.rarest.one_less(piece));
        }
        self.rescan = true;
    }

    /// A peer lets us ask, or no longer: then what it owed is forgotten.
    pub fn peer_choking(&mut self, peer: PeerKey, choking: bool) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.choking = choking;
        }
        if choking {
            self.drop_attempts_of(peer);
        }
        self.rescan = true;
    }

    /// A peer has these pieces, and only these.
    pub fn peer_pieces(&mut self, peer: PeerKey, pieces: Pieces) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.pieces.iter().for_each(|piece| self.rarest.one_less(piece));
        pieces.iter().for_each(|piece| self.rarest.one_more(piece));
        state.pieces = pieces;
        self.rescan = true;
    }

    /// A peer has one more piece.
    pub fn peer_has(&mut self, peer: PeerKey, piece: u32) {
        let clock = self.clock;
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.shows_life(clock);
        if state.pieces.insert(piece) {
            self.rarest.one_more(piece);
            if !self.held.contains(piece) {
                self.fresh.push((peer, piece));
            }
        }
    }

    /// Number of pieces a peer has.
    #[must_use]
    pub fn peer_count(&self, peer: PeerKey) -> u32 {
        self.peers.get(&peer).map_or(0, |peer| peer.pieces.count())
    }

    /// Does a peer have the piece, as far as it told?
    #[must_use]
    pub fn peer_holds(&self, peer: PeerKey, piece: u32) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.pieces.contains(piece))
    }

    /// A read waits for these pieces; those held are left out. One call is one read.
    pub fn demand(&mut self, pieces: Range<u32>, now: Duration) {
        self.clock = now;
        let pieces = pieces.start..pieces.end.min(self.geometry.pieces());
        let mut missed = false;
        for piece in pieces.clone() {
            if !self.held.contains(piece) && self.wait_for(piece, true, now) {
                self.wanted.missed(piece);
                missed = true;
            }
        }
        if missed {
            self.read_ahead(&pieces);
        }
    }

    /// Nobody waits for the piece any more.
    pub fn release(&mut self, piece: u32) {
        let before = self.urgent.len();
        self.urgent.retain(|waiting| waiting.piece != piece);
        if self.urgent.len() == before {
            return;
        }
        // What was begun is finished, without haste.
        let begun: Vec<PeerKey> = self.attempts(piece).iter().map(|attempt| attempt.peer).collect();
        for peer in begun {
            if !self.started.contains(&(piece, peer)) {
                self.started.push_back((piece, peer));
            }
        }
        self.rescan = true;
    }

    /// A piece came by another way, or was verified on disk.
    pub fn found(&mut self, piece: u32) {
        self.abandon(piece);
        self.held.insert(piece);
        self.rarest.take(piece);
        self.blocked.remove(&piece);
        self.release(piece);
    }

    /// A held piece turned out to be missing or wrong.
    pub fn lost(&mut self, piece: u32) {
        if self.held.remove(piece) {
            self.absent_again(piece);
        }
    }

    /// A block came in.
    pub fn received(&mut self, peer: PeerKey, block: Block, now: Duration) -> Received {
        self.clock = now;
        let Some(Active::Fetching(attempts)) = self.active.get_mut(&block.piece) else {
            return Received::Unasked;
        };
        let Some(attempt) = attempts.iter_mut().find(|attempt| attempt.peer == peer) else {
            return Received::Unasked;
        };
        let index = block.begin / crate::BLOCK_BYTES;
        let Some(state) = attempt.blocks.get_mut(index as usize) else { return Received::Unasked };
        let BlockState::Sent { urgent, peer: peer_mark, side: side_mark } = *state else {
            return Received::Unasked;
        };
        if self.geometry.block(block.piece, index) != block {
            return Received::Unasked;
        }
        *state = BlockState::Received;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.flow.received(peer_mark, urgent, now);
            self.sides.of(peer.kind).received(side_mark, urgent, now);
            peer.delivered(urgent, now);
            self.room_changed = true;
        }
        if !attempt.is_complete() {
            return Received::Progress;
        }
        self.finish(block.piece);
        Received::Complete
    }

    /// A piece was verified, for better or worse.
    pub fn verified(&mut self, piece: u32, outcome: Outcome) {
        if matches!(self.active.get(&piece), Some(Active::Verifying)) {
            self.active.remove(&piece);
        }
        match outcome {
            Outcome::Held => self.found(piece),
            Outcome::Refused => self.absent_again(piece),
        }
    }

    /// What to send now. Call it after any of the above, and when [`Scheduler::deadline`] has passed.
    pub fn plan(&mut self, now: Duration) -> Vec<Action> {
        self.clock = now;
        for at in 0..self.fresh.len() {
            let (peer, piece) = self.fresh[at];
            self.move_to(peer, piece, now);
        }
        self.drop_stuck(now);
        let mut actions = Vec::new();
        let waits = self.start_urgent(&mut actions, now);
        self.send_urgent(&mut actions, now);
        self.rescan |= waits != std::mem::replace(&mut self.waits, waits);
        self.prefetch(waits, &mut actions, now);
        // Cancels go first: they make room at the peer.
        let mut all = std::mem::take(&mut self.cancels);
        all.append(&mut actions);
        all
    }

    /// When [`Scheduler::plan`] would decide something new although nothing happens; `None`: never.
    #[must_use]
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let mut deadlines = Vec::new();
        self.urgent_deadlines(&mut deadlines, now);
        self.stuck_deadlines(&mut deadlines);
        deadlines.into_iter().filter(|deadline| *deadline > now).min()
    }

    fn next_random(&mut self) -> u64 {
        next_random(&mut self.random)
    }
}

fn next_random(state: &mut u64) -> u64 {
    // Xorshift: enough to break ties.
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[cfg(test)]
mod tests;
