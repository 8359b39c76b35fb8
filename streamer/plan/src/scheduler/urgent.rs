//! Pieces somebody waits for: asked for at once, of whoever is likely to send them first.

use super::attempt::{ATTEMPTS_MAX, Active, Attempt, Class};
use super::peer::Peer;
use super::{Action, PATIENCE, PeerKey, PeerKind, STEAL_AGE, Scheduler, URGENT_WINDOW_BLOCKS};
use std::time::Duration;

/// Pieces fetched because near peers wait for them. More are theirs to fetch.
const WANTS_MAX: usize = 64;

/// A near peer's wish is kept for so long: by then it has helped itself.
const WANT_KEPT: Duration = Duration::from_secs(10);

/// Near peers asked to fetch a piece for the site before we do.
const FETCHERS_MAX: u8 = 2;

/// Piece times a near peer may take to fetch a piece across the WAN: one to bring it, one for what is before it.
const FETCH_PIECES: u32 = 2;

/// Hosts of a site whose queueing is allowed for.
const CROWD_MAX: u32 = 20;

/// Younger requests are not moved to a peer that has just got the piece: their blocks may be on the way.
const MOVE_AGE: Duration = Duration::from_millis(4);

/// A piece somebody waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) piece: u32,
    since: Duration,
    /// A guest of ours waits; if not, one of a near peer's.
    pub(super) own: bool,
    /// The near peer that is to fetch it for the site, and since when.
    asked: Option<(PeerKey, Duration)>,
    asks: u8,
}

impl Scheduler {
    pub(super) fn wait_for(&mut self, piece: u32, own: bool, now: Duration) -> bool {
        let fresh = Waiting { piece, since: now, own, asked: None, asks: 0 };
        let wants = self.urgent.iter().filter(|waiting| !waiting.own).count();
        match self.urgent.iter_mut().find(|waiting| waiting.piece == piece) {
            Some(waiting) if own && !waiting.own => *waiting = fresh,
            Some(_) => return false,
            None if !own && wants >= WANTS_MAX => return false,
            None => self.urgent.push(fresh),
        }
        true
    }

    pub(super) fn is_urgent(&self, piece: u32) -> bool {
        self.urgent.iter().any(|waiting| waiting.piece == piece)
    }

    /// Starts attempts at pieces somebody waits for; `true` while one of ours is on its way or could be.
    pub(super) fn start_urgent(&mut self, actions: &mut Vec<Action>, now: Duration) -> bool {
        self.urgent.retain(|waiting| waiting.own || now < waiting.since + WANT_KEPT);
        self.urgent.sort_by_key(|waiting| !waiting.own);
        let mut guest_waits = false;
        for at in 0..self.urgent.len() {
            let waiting = self.urgent[at];
            let source = match self.active.get(&waiting.piece) {
                Some(Active::Verifying) => continue,
                Some(Active::Fetching(attempts)) => {
                    guest_waits |= waiting.own;
                    self.second_source(waiting, attempts, now)
                }
                None => {
                    guest_waits |= waiting.own && self.rarest.copies(waiting.piece) > 0;
                    self.first_source(at, actions, now)
                }
            };
            if let Some(peer) = source {
                self.start(waiting.piece, peer, Class::Urgent, now);
            }
        }
        guest_waits
    }

    fn first_source(&mut self, at: usize, actions: &mut Vec<Action>, now: Duration) -> Option<PeerKey> {
        let waiting = self.urgent[at];
        let patient = now < waiting.since + PATIENCE;
        let salt = self.next_random();
        let answers = |peer: &&Peer| peer.offers(waiting.piece) && !peer.is_sluggish(now);
        let near_has_it = self.peers.values().any(|peer| peer.kind.is_near() && peer.offers(waiting.piece));
        if near_has_it {
            let best = self.best(waiting.piece, salt, now, |peer| peer.kind.is_near());
            if best.is_some() || now < waiting.since + self.near_patience(now) {
                return best;
            }
        } else if waiting.own && self.another_fetches(at, actions, now) {
            return None;
        }
        let best = self.best(waiting.piece, salt, now, |_| true)?;
        let seed = self.peers.get(&best).is_some_and(|peer| peer.kind == PeerKind::WebSeed);
        let others = || self.peers.values().filter(|peer| peer.kind != PeerKind::WebSeed);
        (!(seed && patient && others().any(|peer| answers(&peer)))).then_some(best)
    }

    /// Another peer, when none of those asked moves. A near one if one is awake; for the third attempt whoever is
    /// outside first: what is wrong at hand may be wrong with all.
    fn second_source(&self, waiting: Waiting, attempts: &[Attempt], now: Duration) -> Option<PeerKey> {
        let stuck = |attempt: &Attempt| {
            now >= attempt.started.max(waiting.since) + STEAL_AGE
                || self.peers.get(&attempt.peer).is_none_or(|peer| peer.is_sluggish(now))
        };
        if attempts.len() >= ATTEMPTS_MAX || !attempts.iter().all(stuck) {
            return None;
        }
        let outside = now >= waiting.since + self.near_patience(now);
        let outside_first = attempts.len() > 1 && outside;
        let near_asked = attempts
            .iter()
            .any(|attempt| self.peers.get(&attempt.peer).is_some_and(|peer| peer.kind.is_near()));
        let tried = |key: &PeerKey| attempts.iter().any(|attempt| attempt.peer == *key);
        self.peers
            .iter()
            .filter(|(key, peer)| peer.offers(waiting.piece) && !tried(key))
            .filter(|(_, peer)| peer.urgent_outstanding() + peer.unsent < URGENT_WINDOW_BLOCKS)
            .filter(|(_, peer)| peer.kind.is_near() || outside || !near_asked)
            .min_by_key(|(_, peer)| {
                let outside_last = peer.kind.is_near() == outside_first;
                (peer.is_sluggish(now), outside_last, peer.kind, peer.urgent_outstanding())
            })
            .map(|(key, _)| *key)
    }

    /// The one that owes the fewest urgent blocks, at random among equals: hosts that wait for the same piece must not
    /// all choose the same holder.
    fn best(&self, piece: u32, salt: u64, now: Duration, may: impl Fn(&Peer) -> bool) -> Option<PeerKey> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.offers(piece) && may(peer))
            .filter(|(_, peer)| peer.urgent_outstanding() + peer.unsent < URGENT_WINDOW_BLOCKS)
            .min_by_key(|(key, peer)| {
                let load = peer.urgent_outstanding() + peer.unsent;
                (peer.is_sluggish(now), peer.kind, load, (**key ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            })
            .map(|(key, _)| *key)
    }

    /// Does another host of the site fetch it for us? Tells it that we wait, and the next one if it does not.
    fn another_fetches(&mut self, at: usize, actions: &mut Vec<Action>, now: Duration) -> bool {
        let Waiting { piece, asked, asks, .. } = self.urgent[at];
        let patience = self.fetch_patience(now);
        if let Some((peer, since)) = asked {
            match self.peers.get_mut(&peer) {
                Some(_) if now < since + patience => return true,
                // Busy, if it has announced something meanwhile; else deaf.
                Some(deaf) if !deaf.showed_life_since(since) => deaf.fetches_until = now,
                Some(_) => {}
                None => {}
            }
        }
        let fetcher = self.site_fetcher(piece, now).filter(|_| asks < FETCHERS_MAX);
        if let Some(peer) = fetcher {
            actions.push(Action::Want { peer, piece });
            self.urgent[at].asked = Some((peer, now));
            self.urgent[at].asks += 1;
        }
        fetcher.is_some()
    }

    /// How long hosts of our site that have a piece may take before whoever is outside is asked: many that wait for the
    /// same piece queue at the first that has it, and asking the origin instead would only make its queue the longer one.
    fn near_patience(&self, now: Duration) -> Duration {
        let fetching = self.peers.values().filter(|peer| peer.fetches(now).is_some()).count();
        let crowd = PATIENCE * u32::try_from(fetching).unwrap_or(u32::MAX).clamp(1, CROWD_MAX);
        crowd.max(self.sides.near.took(true) * 3)
    }

    fn fetch_patience(&self, now: Duration) -> Duration {
        let blocks = self.geometry.blocks(0);
        let flows = [&self.sides.outside, &self.sides.near];
        let piece = flows.iter().find_map(|flow| flow.piece_time(blocks)).unwrap_or(PATIENCE);
        let queue = self.sides.outside.took(true);
        (PATIENCE + piece * FETCH_PIECES + queue).max(self.near_patience(now))
    }

    /// A peer has got a piece we have asked another for and not begun to receive: from the WAN it is taken back at
    /// once, from a near peer by so many of those that wait that each holder keeps an equal part of them.
    pub(super) fn move_to(&mut self, fresh: PeerKey, piece: u32, now: Duration) {
        let [attempt] = self.attempts(piece) else { return };
        let (from, class, started) = (attempt.peer, attempt.class, attempt.started);
        let served = attempt.has_bytes() || from == fresh;
        let near = |key: PeerKey| self.peers.get(&key).is_some_and(|peer| peer.kind.is_near());
        let willing = self.peers.get(&fresh).is_some_and(|peer| peer.offers(piece) && !peer.is_sluggish(now));
        if served || !willing || !near(fresh) {
            return;
        }
        if near(from) {
            let holders =
                self.peers.values().filter(|peer| peer.kind.is_near() && peer.offers(piece)).count();
            if now < started + MOVE_AGE || !self.next_random().is_multiple_of(holders.max(1) as u64) {
                return;
            }
        }
        self.abandon_attempt(piece, from);
        self.start(piece, fresh, class, now);
    }

    /// When the next of the pieces somebody waits for would be asked of another.
    pub(super) fn urgent_deadlines(&self, deadlines: &mut Vec<Duration>, now: Duration) {
        for waiting in &self.urgent {
            match self.active.get(&waiting.piece) {
                None => {
                    deadlines.push(waiting.since + PATIENCE);
                    deadlines.push(waiting.since + self.near_patience(now));
                    deadlines.extend(waiting.asked.map(|(_, since)| since + self.fetch_patience(now)));
                    let holders = self.peers.values().filter(|peer| peer.offers(waiting.piece));
                    deadlines.extend(holders.map(|peer| peer.urgent_progress + PATIENCE));
                }
                Some(Active::Verifying) => {}
                Some(Active::Fetching(attempts)) => {
                    deadlines.push(waiting.since + self.near_patience(now));
                    for attempt in attempts {
                        deadlines.push(attempt.started.max(waiting.since) + STEAL_AGE);
                        let peer = self.peers.get(&attempt.peer);
                        deadlines.extend(peer.map(|peer| peer.urgent_progress + PATIENCE));
                    }
                }
            }
        }
    }
}
