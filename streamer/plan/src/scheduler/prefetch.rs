//! Pieces nobody waits for yet: a reader's next, the profile's next, and the rarest of the rest.

use super::attempt::{Active, Class};
use super::{Action, Background, PeerKey, PeerKind, STEAL_AGE, Scheduler};
use std::ops::Range;
use std::time::Duration;

/// Pieces asked beyond a sequential reader's miss.
const AHEAD_PIECES_MAX: u32 = 2;

/// Sequential readers told apart.
const RUNS_MAX: usize = 8;

/// Candidates of the background looked at in one planning, and of those with as many copies each.
const CANDIDATES_MAX: usize = 64;
const CANDIDATES_EACH_MAX: usize = 24;

/// Time to the next look, when there was none among them: longer as this goes on.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(25);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// Background waits for so long for the hosts of its site that are to fetch a piece.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(2);

/// After a look that started nothing, room for a block is not worth another for so long: at 1 Gbit/s half a piece.
const SCAN_PAUSE: Duration = Duration::from_millis(1);

/// Times that blocks from outside took us lately, which we grant another.
const QUEUES: u32 = 3;

/// Ranks of a site that wait one after the other.
const RANKS_MAX: u32 = 4;

/// A sequential reader: its next miss would be at `next`.
#[derive(Debug)]
pub(super) struct Run {
    next: u32,
    length: u32,
}

/// Where a piece may be had.
enum Source {
    Peer(PeerKey),
    /// Those that have it have enough to do.
    Busy,
    Nobody,
}

impl Scheduler {
    /// Starts and asks for as much as the windows have room for.
    pub(super) fn prefetch(&mut self, waits: bool, actions: &mut Vec<Action>, now: Duration) {
        self.send_started(waits, actions, now);
        for (_, piece) in std::mem::take(&mut self.fresh) {
            if self.is_missing(piece) {
                let class = self.class_of(piece);
                self.busy |= class.is_some_and(|class| self.try_near(piece, class, waits, actions, now));
            }
        }
        let due = self.retry_at.is_some_and(|at| now >= at);
        let room = self.room_changed && self.busy;
        if self.rescan || due || (room && now >= self.quiet_until) {
            (self.rescan, self.room_changed, self.busy, self.retry_at) = (false, false, false, None);
            self.scan(waits, actions, now);
        } else if room {
            self.look_again(self.quiet_until);
        }
    }

    fn is_missing(&self, piece: u32) -> bool {
        !self.held.contains(piece) && !self.active.contains_key(&piece)
    }

    /// May what nobody is known to need be fetched now?
    fn background_is_open(&self) -> bool {
        match self.background {
            Background::Off => false,
            Background::Idle => self.wanted.is_exhausted(),
            Background::Full => true,
        }
    }

    fn class_of(&self, piece: u32) -> Option<Class> {
        if self.ahead.contains(&piece) {
            Some(Class::Ahead)
        } else if self.wanted.opened().contains(&piece) {
            Some(Class::Profile)
        } else {
            self.background_is_open().then_some(Class::Background)
        }
    }

    fn scan(&mut self, waits: bool, actions: &mut Vec<Action>, now: Duration) {
        let before = self.active.len();
        let (held, active) = (&self.held, &self.active);
        self.ahead.retain(|piece| !held.contains(*piece) && !active.contains_key(piece));
        for piece in self.ahead.clone() {
            self.busy |= self.try_near(piece, Class::Ahead, waits, actions, now);
            self.busy |= self.try_outside(piece, Class::Ahead, waits, actions, now);
        }
        self.scan_profile(waits, actions, now);
        if self.background_is_open() {
            self.scan_background(waits, actions, now);
        }
        if self.active.len() > before {
            // What is started makes place for more in the profile's window.
            self.busy = true;
        } else {
            self.quiet_until = now + SCAN_PAUSE;
        }
    }

    fn scan_profile(&mut self, waits: bool, actions: &mut Vec<Action>, now: Duration) {
        self.open_profile();
        let mut opened = self.wanted.opened().to_vec();
        for piece in &opened {
            if self.room(PeerKind::Near, Class::Profile, waits) == 0 {
                self.busy = true;
                break;
            }
            self.busy |= self.try_near(*piece, Class::Profile, waits, actions, now);
        }
        opened.sort_by_key(|piece| self.wanted.place(*piece));
        for piece in opened {
            if self.room(PeerKind::Origin, Class::Profile, waits) == 0 {
                self.busy = true;
                break;
            }
            self.busy |= self.try_outside(piece, Class::Profile, waits, actions, now);
        }
        self.open_profile();
    }

    /// A lone host takes the profile in order; among others its own random order makes it worth something to them.
    fn open_profile(&mut self) {
        let among = self.peers.values().any(|peer| peer.kind.is_near() && peer.identity.is_some());
        let diversity = if among { self.tuning.diversity_pieces } else { 1 };
        let (held, active, random) = (&self.held, &self.active, &mut self.random);
        let missing = |piece| !held.contains(piece) && !active.contains_key(&piece);
        self.wanted.open(&self.tuning, diversity, missing, || super::next_random(random));
    }

    fn scan_background(&mut self, waits: bool, actions: &mut Vec<Action>, now: Duration) {
        while self.rarest.any() {
            let room =
                [PeerKind::Near, PeerKind::Origin].map(|kind| self.room(kind, Class::Background, waits));
            if room == [0, 0] {
                self.busy = true;
                break;
            }
            let random = self.next_random();
            let before = self.active.len();
            for piece in self.rarest.some(CANDIDATES_EACH_MAX, CANDIDATES_MAX, random) {
                if !self.wanted.opened().contains(&piece) {
                    self.busy |= self.try_near(piece, Class::Background, waits, actions, now);
                    self.busy |= self.try_outside(piece, Class::Background, waits, actions, now);
                }
            }
            if self.active.len() == before {
                let since = *self.background_idle.get_or_insert(now);
                let pause = ((now - since) / 4).clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX);
                self.look_again(now + pause);
                return;
            }
        }
        self.background_idle = None;
    }

    fn look_again(&mut self, at: Duration) {
        self.retry_at = Some(self.retry_at.map_or(at, |before| before.min(at)));
    }

    /// Takes a piece from a near peer. `true`: one has it, and has enough to do or we have.
    fn try_near(
        &mut self,
        piece: u32,
        class: Class,
        waits: bool,
        actions: &mut Vec<Action>,
        now: Duration,
    ) -> bool {
        if !self.is_missing(piece) || self.is_urgent(piece) {
            return false;
        }
        match self.source(piece, now, PeerKind::is_near) {
            Source::Nobody => false,
            Source::Peer(peer) if self.room(PeerKind::Near, class, waits) > 0 => {
                self.start(piece, peer, class, now);
                self.ask_other(piece, peer, class, waits, actions, now);
                false
            }
            Source::Busy | Source::Peer(_) => true,
        }
    }

    /// Takes a piece across the WAN that nobody near has, if it is ours to fetch for the site.
    fn try_outside(
        &mut self,
        piece: u32,
        class: Class,
        waits: bool,
        actions: &mut Vec<Action>,
        now: Duration,
    ) -> bool {
        let near = self.has_source(piece, now, PeerKind::is_near);
        if near || !self.is_missing(piece) || self.is_urgent(piece) {
            return false;
        }
        let swarm = |kind: PeerKind| matches!(kind, PeerKind::Far | PeerKind::Origin);
        let source = match self.source(piece, now, swarm) {
            Source::Nobody => self.source(piece, now, |kind| kind == PeerKind::WebSeed),
            source => source,
        };
        let peer = match source {
            Source::Nobody => return false,
            Source::Peer(peer) if self.room(PeerKind::Origin, class, waits) > 0 => peer,
            Source::Busy | Source::Peer(_) => return true,
        };
        if self.may_fetch(piece, class, now) {
            self.start(piece, peer, class, now);
            self.ask_other(piece, peer, class, waits, actions, now);
        }
        false
    }

    fn has_source(&self, piece: u32, now: Duration, side: impl Fn(PeerKind) -> bool) -> bool {
        self.peers.values().any(|peer| side(peer.kind) && peer.offers(piece) && !peer.is_stuck(now))
    }

    fn source(&mut self, piece: u32, now: Duration, side: impl Fn(PeerKind) -> bool) -> Source {
        let salt = self.next_random();
        let holders = self
            .peers
            .iter()
            .filter(|(_, peer)| side(peer.kind) && peer.offers(piece) && !peer.is_stuck(now));
        let best = holders.min_by_key(|(key, peer)| {
            (peer.load(), peer.kind, (**key ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        });
        match best {
            None => Source::Nobody,
            Some((key, peer)) if self.peer_room(*key) > peer.unsent => Source::Peer(*key),
            Some(_) => Source::Busy,
        }
    }

    /// Is it ours to fetch for the site, or has whoever should have done so had time enough?
    fn may_fetch(&mut self, piece: u32, class: Class, now: Duration) -> bool {
        let rank = self.site_rank(piece, now).min(RANKS_MAX);
        if rank == 0 {
            return true;
        }
        if class == Class::Background {
            return self.background_idle.is_some_and(|since| now >= since + BACKGROUND_PATIENCE);
        }
        let since = *self.blocked.entry(piece).or_insert(now);
        // Whoever should fetch it waits in the same queue as we do.
        let queue = self.sides.outside.took(false) * QUEUES;
        let due = since + self.tuning.site_patience.max(queue) * rank;
        if now < due {
            self.look_again(due);
        }
        now >= due
    }

    /// Gives up attempts at pieces nobody waits for whose peer is silent, if another has them.
    pub(super) fn drop_stuck(&mut self, now: Duration) {
        let mut stuck = Vec::new();
        for (piece, active) in &self.active {
            let Active::Fetching(attempts) = active else { continue };
            for attempt in attempts {
                let silent = self.peers.get(&attempt.peer).is_some_and(|peer| peer.is_stuck(now));
                if silent && !self.is_urgent(*piece) && self.has_source(*piece, now, |_| true) {
                    stuck.push((*piece, attempt.peer));
                }
            }
        }
        for (piece, peer) in stuck {
            self.abandon_attempt(piece, peer);
        }
    }

    /// When a silent peer would be given up.
    pub(super) fn stuck_deadlines(&self, deadlines: &mut Vec<Duration>) {
        let owing = self.peers.values().filter(|peer| peer.flow.outstanding > 0);
        deadlines.extend(owing.map(|peer| peer.progress + STEAL_AGE));
        deadlines.extend(self.retry_at);
    }

    /// Asks for a little more when the read continues an earlier one.
    pub(super) fn read_ahead(&mut self, read: &Range<u32>) {
        let known = self.runs.iter().position(|run| run.next == read.start);
        let length = known.and_then(|at| self.runs.remove(at)).map_or(0, |run| run.length + 1);
        let more = read.end..(read.end + length.min(AHEAD_PIECES_MAX)).min(self.geometry.pieces());
        self.runs.push_back(Run { next: more.end.max(read.end), length });
        if self.runs.len() > RUNS_MAX {
            self.runs.pop_front();
        }
        let fresh: Vec<u32> =
            more.filter(|piece| self.is_missing(*piece) && !self.ahead.contains(piece)).collect();
        self.rescan |= !fresh.is_empty();
        self.ahead.extend(fresh);
    }
}
