//! The scheduler of one image's pieces.

mod words;

pub use words::{Action, Background, Outcome, PeerFacts, PeerKey, PeerKind, Received};

use crate::{Block, Geometry, Pieces};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

/// A peer that was asked and sends nothing for so long is no longer waited for alone.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Youngest attempt that is given to another peer although its blocks still trickle in. Younger ones make peers on a fast
/// network steal in circles.
pub const STEAL_AGE: Duration = Duration::from_secs(1);

/// Blocks asked of one peer at a time while nobody waits. Small, so that an urgent request is not stuck behind many.
pub const BACKGROUND_WINDOW_BLOCKS: u32 = 16;

/// Blocks asked of one peer at a time for pieces somebody waits for.
pub const URGENT_WINDOW_BLOCKS: u32 = 32;

/// Attempts at one piece at a time.
const ATTEMPTS_MAX: usize = 3;

/// Pieces asked beyond a sequential reader's miss.
const AHEAD_PIECES_MAX: u32 = 2;

/// Sequential readers told apart.
const RUNS_MAX: usize = 8;

/// Background pieces chosen by one walk over all pieces.
const BACKGROUND_BATCH_PIECES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockState {
    Unsent,
    Sent,
    Received,
}

#[derive(Debug)]
struct Attempt {
    peer: PeerKey,
    blocks: Vec<BlockState>,
    started: Duration,
}

#[derive(Debug)]
enum Active {
    Fetching(Vec<Attempt>),
    Verifying,
}

#[derive(Debug)]
struct Peer {
    kind: PeerKind,
    identity: Option<u64>,
    choking: bool,
    pieces: Pieces,
    /// Blocks asked and not yet received.
    outstanding: u32,
    /// Blocks of its attempts not yet asked.
    unsent: u32,
    /// When it last delivered, or began to owe us something.
    progress: Duration,
    /// Turn of its last attempt, for round-robin.
    turn: u64,
}

impl Peer {
    fn load(&self) -> u32 {
        self.outstanding + self.unsent
    }

    fn is_sluggish(&self, now: Duration) -> bool {
        self.outstanding > 0 && now >= self.progress + PATIENCE
    }
}

/// A sequential reader: its next miss would be at `next`.
#[derive(Debug)]
struct Run {
    next: u32,
    length: u32,
}

/// Decides what is asked of whom, for one image.
#[derive(Debug)]
pub struct Scheduler {
    geometry: Geometry,
    held: Pieces,
    active: BTreeMap<u32, Active>,
    /// Pieces somebody waits for, in order of asking.
    urgent: Vec<(u32, Duration)>,
    ahead: VecDeque<u32>,
    background: Vec<u32>,
    /// A walk found nothing to fetch; no use in another before something changes.
    background_empty: bool,
    profile: VecDeque<u32>,
    prefetch: Background,
    identity: u64,
    peers: BTreeMap<PeerKey, Peer>,
    availability: Vec<u16>,
    runs: VecDeque<Run>,
    cancels: Vec<Action>,
    turn: u64,
    random: u64,
}

impl Scheduler {
    /// A scheduler that holds `held` already. `identity` names us to the peers of our site, `seed` makes random ties
    /// repeatable.
    #[must_use]
    pub fn new(geometry: Geometry, held: Pieces, identity: u64, seed: u64) -> Self {
        Self {
            availability: vec![0; geometry.pieces() as usize],
            geometry,
            held,
            active: BTreeMap::new(),
            urgent: Vec::new(),
            ahead: VecDeque::new(),
            background: Vec::new(),
            background_empty: false,
            profile: VecDeque::new(),
            prefetch: Background::Off,
            identity,
            peers: BTreeMap::new(),
            runs: VecDeque::new(),
            cancels: Vec::new(),
            turn: 0,
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

    /// Pieces somebody waits for.
    pub fn waited_for(&self) -> impl Iterator<Item = u32> + '_ {
        self.urgent.iter().map(|(piece, _)| *piece)
    }

    /// Is there a piece somebody waits for, or prefetch wants, that no connected peer has?
    #[must_use]
    pub fn lacks_sources(&self) -> bool {
        let unavailable = |piece: u32| self.availability[piece as usize] == 0;
        self.urgent.iter().any(|(piece, _)| unavailable(*piece))
            || (self.prefetch != Background::Off && !self.held.is_full() && self.peers.is_empty())
    }

    /// How much is fetched that nobody asked for.
    pub fn set_background(&mut self, background: Background) {
        self.prefetch = background;
        self.background_empty = false;
        if background == Background::Off {
            self.background.clear();
        }
    }

    /// Pieces wanted soon, in order; none if empty. Replaces what was wanted before: of that nothing more is started.
    pub fn set_profile(&mut self, pieces: Vec<u32>) {
        self.profile = pieces.into_iter().filter(|piece| *piece < self.geometry.pieces()).collect();
    }

    /// A near peer has a guest waiting for the piece, and we are the one to fetch it for the site.
    pub fn peer_wants(&mut self, peer: PeerKey, piece: u32, now: Duration) {
        let near = self.peers.get(&peer).is_some_and(|peer| peer.kind.is_near());
        let wanted = piece < self.geometry.pieces() && !self.held.contains(piece);
        if near && wanted && !self.is_urgent(piece) {
            self.urgent.push((piece, now));
        }
    }

    /// Are we the one of our site that fetches this piece from outside? The highest rendezvous hash of piece and
    /// identity wins, among us and our near peers.
    #[must_use]
    pub fn fetches_for_site(&self, piece: u32) -> bool {
        let ours = rendezvous(piece, self.identity);
        let near = self.peers.values().filter(|peer| peer.kind.is_near());
        near.filter_map(|peer| peer.identity).all(|identity| rendezvous(piece, identity) <= ours)
    }

    /// A peer connected; it has told nothing yet.
    pub fn peer_joined(&mut self, peer: PeerKey, facts: PeerFacts, now: Duration) {
        let PeerFacts { kind, identity } = facts;
        let pieces = Pieces::none(self.geometry.pieces());
        let joined =
            Peer { kind, identity, choking: true, pieces, outstanding: 0, unsent: 0, progress: now, turn: 0 };
        self.peers.insert(peer, joined);
    }

    /// A peer is gone, with all it owed.
    pub fn peer_left(&mut self, peer: PeerKey) {
        self.drop_attempts_of(peer);
        if let Some(left) = self.peers.remove(&peer) {
            for piece in left.pieces.iter() {
                self.availability[piece as usize] = self.availability[piece as usize].saturating_sub(1);
            }
        }
    }

    /// A peer lets us ask, or no longer: then what it owed is forgotten.
    pub fn peer_choking(&mut self, peer: PeerKey, choking: bool) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.choking = choking;
        }
        if choking {
            self.drop_attempts_of(peer);
        }
    }

    /// A peer has these pieces, and only these.
    pub fn peer_pieces(&mut self, peer: PeerKey, pieces: Pieces) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        for piece in state.pieces.iter() {
            self.availability[piece as usize] = self.availability[piece as usize].saturating_sub(1);
        }
        for piece in pieces.iter() {
            self.availability[piece as usize] = self.availability[piece as usize].saturating_add(1);
        }
        state.pieces = pieces;
        self.background_empty = false;
    }

    /// A peer has one more piece.
    pub fn peer_has(&mut self, peer: PeerKey, piece: u32) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.pieces.insert(piece) {
            self.availability[piece as usize] = self.availability[piece as usize].saturating_add(1);
            self.background_empty = false;
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
        let pieces = pieces.start..pieces.end.min(self.geometry.pieces());
        let mut missed = false;
        for piece in pieces.clone().filter(|piece| !self.held.contains(*piece)) {
            if !self.urgent.iter().any(|(waited, _)| *waited == piece) {
                self.urgent.push((piece, now));
                missed = true;
            }
        }
        if missed {
            self.read_ahead(&pieces);
        }
    }

    /// Nobody waits for the piece any more.
    pub fn release(&mut self, piece: u32) {
        self.urgent.retain(|(waited, _)| *waited != piece);
    }

    /// A piece came by another way, or was verified on disk.
    pub fn found(&mut self, piece: u32) {
        self.abandon(piece);
        self.held.insert(piece);
        self.release(piece);
    }

    /// A held piece turned out to be missing or wrong.
    pub fn lost(&mut self, piece: u32) {
        self.held.remove(piece);
        self.background_empty = false;
    }

    /// A block came in.
    pub fn received(&mut self, peer: PeerKey, block: Block, now: Duration) -> Received {
        let Some(Active::Fetching(attempts)) = self.active.get_mut(&block.piece) else {
            return Received::Unasked;
        };
        let Some(attempt) = attempts.iter_mut().find(|attempt| attempt.peer == peer) else {
            return Received::Unasked;
        };
        let index = block.begin / crate::BLOCK_BYTES;
        let state = attempt.blocks.get_mut(index as usize);
        match state {
            Some(state) if *state == BlockState::Sent && self.geometry.block(block.piece, index) == block => {
                *state = BlockState::Received;
            }
            _ => return Received::Unasked,
        }
        let complete = attempt.blocks.iter().all(|state| *state == BlockState::Received);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.outstanding = peer.outstanding.saturating_sub(1);
            peer.progress = now;
        }
        if !complete {
            return Received::Progress;
        }
        self.abandon(block.piece);
        self.active.insert(block.piece, Active::Verifying);
        Received::Complete
    }

    /// A piece was verified, for better or worse.
    pub fn verified(&mut self, piece: u32, outcome: Outcome) {
        if matches!(self.active.get(&piece), Some(Active::Verifying)) {
            self.active.remove(&piece);
        }
        match outcome {
            Outcome::Held => self.found(piece),
            Outcome::Refused => self.background_empty = false,
        }
    }

    /// What to send now. Call it after any of the above, and when [`Scheduler::deadline`] has passed.
    pub fn plan(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.drop_stuck_background(now);
        let waiting = self.start_urgent(now);
        self.send(&mut actions, now, Priority::Urgent);
        self.start_ahead(now);
        if !waiting {
            self.start_profile(now);
        }
        if self.prefetch != Background::Off && !waiting {
            self.start_background(now);
        }
        self.send(&mut actions, now, Priority::Other);
        // Cancels go first: they make room at the peer.
        let mut all = std::mem::take(&mut self.cancels);
        all.append(&mut actions);
        all
    }

    /// When [`Scheduler::plan`] would decide something new although nothing happens; `None`: never.
    #[must_use]
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let mut deadlines = Vec::new();
        for (piece, since) in &self.urgent {
            match self.active.get(piece) {
                None => deadlines.push(*since + PATIENCE),
                Some(Active::Verifying) => {}
                Some(Active::Fetching(attempts)) => {
                    for attempt in attempts {
                        deadlines.push(attempt.started + STEAL_AGE);
                        deadlines.extend(self.peers.get(&attempt.peer).map(|peer| peer.progress + PATIENCE));
                    }
                }
            }
        }
        for active in self.active.values() {
            if let Active::Fetching(attempts) = active {
                deadlines.extend(
                    attempts
                        .iter()
                        .filter_map(|attempt| self.peers.get(&attempt.peer).map(|p| p.progress + STEAL_AGE)),
                );
            }
        }
        deadlines.into_iter().filter(|deadline| *deadline > now).min()
    }

    fn is_urgent(&self, piece: u32) -> bool {
        self.urgent.iter().any(|(waited, _)| *waited == piece)
    }

    /// Starts attempts at pieces somebody waits for; `true` while one of them can make progress.
    fn start_urgent(&mut self, now: Duration) -> bool {
        let mut waiting = false;
        for (piece, since) in self.urgent.clone() {
            let tried: Vec<PeerKey> = match self.active.get(&piece) {
                Some(Active::Verifying) => {
                    waiting = true;
                    continue;
                }
                Some(Active::Fetching(attempts)) => {
                    waiting = true;
                    let stuck = |attempt: &Attempt| {
                        now >= attempt.started + STEAL_AGE
                            || self.peers.get(&attempt.peer).is_none_or(|peer| peer.is_sluggish(now))
                    };
                    if attempts.len() >= ATTEMPTS_MAX || !attempts.iter().all(stuck) {
                        continue;
                    }
                    attempts.iter().map(|attempt| attempt.peer).collect()
                }
                None => Vec::new(),
            };
            waiting |= self.availability[piece as usize] > 0;
            if let Some(peer) = self.urgent_source(piece, since, &tried, now) {
                self.start(piece, peer, now);
            }
        }
        waiting
    }

    /// Another host if one has it and answers; the origin if not, or if those that have it are busy for too long.
    fn urgent_source(
        &self,
        piece: u32,
        since: Duration,
        tried: &[PeerKey],
        now: Duration,
    ) -> Option<PeerKey> {
        let has = |(key, peer): &(&PeerKey, &Peer)| {
            !peer.choking && peer.pieces.contains(piece) && !tried.contains(key)
        };
        let free = |(_, peer): &(&PeerKey, &Peer)| peer.load() < URGENT_WINDOW_BLOCKS;
        let again = !tried.is_empty();
        let best = self
            .peers
            .iter()
            .filter(has)
            .filter(free)
            // A second attempt goes to the origin first: somebody has waited long enough.
            .min_by_key(|(_, peer)| {
                (peer.is_sluggish(now), (peer.kind >= PeerKind::Origin) != again, peer.load(), peer.turn)
            })?;
        let patient = !again && best.1.kind >= PeerKind::Origin && now < since + PATIENCE;
        let host_soon = patient
            && self
                .peers
                .iter()
                .filter(has)
                .any(|(_, peer)| peer.kind < PeerKind::Origin && !peer.is_sluggish(now));
        (!host_soon).then_some(*best.0)
    }

    fn start_ahead(&mut self, now: Duration) {
        let mut later = VecDeque::new();
        while let Some(piece) = self.ahead.pop_front() {
            if self.held.contains(piece) || self.active.contains_key(&piece) {
                continue;
            }
            match self.other_source(piece) {
                Some(peer) => self.start(piece, peer, now),
                None if self.availability[piece as usize] > 0 => later.push_back(piece),
                None => {}
            }
        }
        self.ahead = later;
    }

    fn start_profile(&mut self, now: Duration) {
        while let Some(piece) = self.profile.front().copied() {
            if !self.held.contains(piece) && !self.active.contains_key(&piece) {
                let Some(peer) = self.other_source(piece) else { return };
                self.start(piece, peer, now);
            }
            self.profile.pop_front();
        }
    }

    fn start_background(&mut self, now: Duration) {
        let mut walked = false;
        while self.peers.values().any(|peer| !peer.choking && peer.load() < BACKGROUND_WINDOW_BLOCKS) {
            if self.background.is_empty() {
                if walked || self.background_empty {
                    return;
                }
                self.background = self.rarest();
                self.background_empty = self.background.is_empty();
                walked = true;
            }
            let before = self.active.len();
            let mut later = Vec::new();
            while let Some(piece) = self.background.pop() {
                if self.held.contains(piece) || self.active.contains_key(&piece) {
                    continue;
                }
                match self.other_source(piece) {
                    Some(peer) => self.start(piece, peer, now),
                    None => later.push(piece),
                }
            }
            later.reverse();
            self.background = later;
            if self.active.len() == before {
                if walked {
                    return;
                }
                // Those picked earlier wait for busy peers; others may be had from idle ones.
                self.background.clear();
            }
        }
    }

    /// The rarest absent pieces that somebody has, in random order among equals; rarest last.
    fn rarest(&mut self) -> Vec<u32> {
        let mut candidates: Vec<(u16, u64, u32)> = Vec::new();
        for piece in 0..self.geometry.pieces() {
            let copies = self.availability[piece as usize];
            if copies > 0 && !self.held.contains(piece) && !self.active.contains_key(&piece) {
                candidates.push((copies, self.next_random(), piece));
            }
        }
        if candidates.len() > BACKGROUND_BATCH_PIECES {
            candidates.select_nth_unstable(BACKGROUND_BATCH_PIECES);
            candidates.truncate(BACKGROUND_BATCH_PIECES);
        }
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        candidates.into_iter().map(|(_, _, piece)| piece).collect()
    }

    /// A peer with room for a piece nobody waits for; the origin only if no other host has it.
    fn other_source(&self, piece: u32) -> Option<PeerKey> {
        let has = || self.peers.iter().filter(|(_, peer)| !peer.choking && peer.pieces.contains(piece));
        let hosts_have_it = has().any(|(_, peer)| peer.kind < PeerKind::Origin);
        has()
            .filter(|(_, peer)| {
                peer.load() < BACKGROUND_WINDOW_BLOCKS && !(hosts_have_it && peer.kind >= PeerKind::Origin)
            })
            .min_by_key(|(_, peer)| (peer.load(), peer.turn))
            .map(|(key, _)| *key)
    }

    fn start(&mut self, piece: u32, peer: PeerKey, now: Duration) {
        let blocks = self.geometry.blocks(piece);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        self.turn += 1;
        state.turn = self.turn;
        state.unsent += blocks;
        let attempt = Attempt { peer, blocks: vec![BlockState::Unsent; blocks as usize], started: now };
        match self.active.entry(piece).or_insert_with(|| Active::Fetching(Vec::new())) {
            Active::Fetching(attempts) => attempts.push(attempt),
            Active::Verifying => state.unsent -= blocks,
        }
    }

    /// Asks for blocks of started attempts as far as the windows allow.
    fn send(&mut self, actions: &mut Vec<Action>, now: Duration, priority: Priority) {
        let pieces: Vec<u32> = match priority {
            Priority::Urgent => self.urgent.iter().map(|(piece, _)| *piece).collect(),
            Priority::Other => self.active.keys().copied().filter(|piece| !self.is_urgent(*piece)).collect(),
        };
        for piece in pieces {
            let Some(Active::Fetching(attempts)) = self.active.get_mut(&piece) else { continue };
            for attempt in attempts {
                let Some(peer) = self.peers.get_mut(&attempt.peer) else { continue };
                for (index, state) in (0u32..).zip(&mut attempt.blocks) {
                    if *state != BlockState::Unsent {
                        continue;
                    }
                    if peer.outstanding >= priority.window() {
                        break;
                    }
                    if peer.outstanding == 0 {
                        peer.progress = now;
                    }
                    *state = BlockState::Sent;
                    peer.outstanding += 1;
                    peer.unsent -= 1;
                    let urgent = priority == Priority::Urgent;
                    let block = self.geometry.block(piece, index);
                    actions.push(Action::Request { peer: attempt.peer, block, urgent });
                }
            }
        }
    }

    /// Gives up attempts at pieces nobody waits for whose peer has been silent for too long.
    fn drop_stuck_background(&mut self, now: Duration) {
        let stuck: Vec<u32> = self
            .active
            .iter()
            .filter(|(piece, active)| match active {
                Active::Fetching(attempts) => {
                    !self.is_urgent(**piece)
                        && attempts.iter().all(|attempt| {
                            self.peers
                                .get(&attempt.peer)
                                .is_none_or(|peer| peer.outstanding > 0 && now >= peer.progress + STEAL_AGE)
                        })
                }
                Active::Verifying => false,
            })
            .map(|(piece, _)| *piece)
            .collect();
        for piece in stuck {
            self.abandon(piece);
            self.background_empty = false;
        }
    }

    /// Ends every attempt at a piece and takes its requests back.
    fn abandon(&mut self, piece: u32) {
        let Some(Active::Fetching(attempts)) = self.active.remove(&piece) else { return };
        for attempt in attempts {
            self.end(piece, &attempt, true);
        }
    }

    fn drop_attempts_of(&mut self, peer: PeerKey) {
        let mut ended = Vec::new();
        self.active.retain(|piece, active| {
            let Active::Fetching(attempts) = active else { return true };
            while let Some(at) = attempts.iter().position(|attempt| attempt.peer == peer) {
                ended.push((*piece, attempts.swap_remove(at)));
            }
            !attempts.is_empty()
        });
        for (piece, attempt) in ended {
            self.end(piece, &attempt, false);
            self.background_empty = false;
        }
    }

    fn end(&mut self, piece: u32, attempt: &Attempt, cancel: bool) {
        let Some(peer) = self.peers.get_mut(&attempt.peer) else { return };
        for (index, state) in (0u32..).zip(&attempt.blocks) {
            match state {
                BlockState::Unsent => peer.unsent -= 1,
                BlockState::Sent => {
                    peer.outstanding -= 1;
                    if cancel {
                        let block = self.geometry.block(piece, index);
                        self.cancels.push(Action::Cancel { peer: attempt.peer, block });
                    }
                }
                BlockState::Received => {}
            }
        }
    }

    /// Asks for a little more when the read continues an earlier one.
    fn read_ahead(&mut self, read: &Range<u32>) {
        let known = self.runs.iter().position(|run| run.next == read.start);
        let length = known.and_then(|at| self.runs.remove(at)).map_or(0, |run| run.length + 1);
        let more = read.end..(read.end + length.min(AHEAD_PIECES_MAX)).min(self.geometry.pieces());
        self.runs.push_back(Run { next: more.end.max(read.end), length });
        if self.runs.len() > RUNS_MAX {
            self.runs.pop_front();
        }
        let fresh: Vec<u32> =
            more.filter(|piece| !self.held.contains(*piece) && !self.ahead.contains(piece)).collect();
        self.ahead.extend(fresh);
    }

    fn next_random(&mut self) -> u64 {
        // Xorshift: enough to break ties.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// `SplitMix64`'s finaliser over piece and identity: any good mix will do, but all hosts must use the same.
fn rendezvous(piece: u32, identity: u64) -> u64 {
    let mut mixed = identity ^ u64::from(piece).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    Urgent,
    Other,
}

impl Priority {
    fn window(self) -> u32 {
        match self {
            Self::Urgent => URGENT_WINDOW_BLOCKS,
            Self::Other => BACKGROUND_WINDOW_BLOCKS,
        }
    }
}

#[cfg(test)]
mod tests;
