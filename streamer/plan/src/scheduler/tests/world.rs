//! The scheduler against a model of the wire.

use super::super::attempt::Active;
use super::super::peer::Peer;
use super::super::*;
use super::{MS, Near, Origin, WebSeed, all, fresh, join};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Debug, Clone)]
enum Event {
    Join(PeerKey, PeerFacts),
    Leave(PeerKey),
    Choke(PeerKey, bool),
    Has(PeerKey, u32),
    Demand(u32, u32),
    Release(u32),
    Deliver(usize),
    Junk(PeerKey, u32, u32),
    Verify(bool),
    Background(Background),
    Profile(Vec<u32>),
    Wants(PeerKey, u32),
    Pass(u64),
    Lose(u32),
}

const PIECES: u32 = 12;
/// Of a piece.
const BLOCKS: u32 = 4;

fn facts() -> impl Strategy<Value = PeerFacts> {
    let kind = (0usize..4).prop_map(|at| [Near, PeerKind::Far, Origin, WebSeed][at]);
    (kind, prop::option::of(any::<u64>())).prop_map(|(kind, identity)| PeerFacts { kind, identity })
}

fn event() -> impl Strategy<Value = Event> {
    let peer = 0u64..5;
    prop_oneof![
        (peer.clone(), facts()).prop_map(|(p, f)| Event::Join(p, f)),
        peer.clone().prop_map(Event::Leave),
        (peer.clone(), any::<bool>()).prop_map(|(p, c)| Event::Choke(p, c)),
        (peer.clone(), 0..PIECES + 2).prop_map(|(p, i)| Event::Has(p, i)),
        (0..PIECES + 2, 1u32..4).prop_map(|(i, n)| Event::Demand(i, n)),
        (0..PIECES).prop_map(Event::Release),
        (0usize..40).prop_map(Event::Deliver),
        (0usize..40).prop_map(Event::Deliver),
        (peer, any::<u32>(), any::<u32>()).prop_map(|(p, i, b)| Event::Junk(p, i, b)),
        any::<bool>().prop_map(Event::Verify),
        (0usize..3)
            .prop_map(|at| Event::Background([Background::Off, Background::Idle, Background::Full][at])),
        prop::collection::vec(0..PIECES + 2, 0..PIECES as usize).prop_map(Event::Profile),
        (0u64..5, 0..PIECES + 2).prop_map(|(p, i)| Event::Wants(p, i)),
        (0u64..1500).prop_map(Event::Pass),
        (0..PIECES).prop_map(Event::Lose),
    ]
}

/// Runs the scheduler against a model of the wire and checks every promise after every step.
struct World {
    scheduler: Scheduler,
    now: Duration,
    wire: Vec<(PeerKey, Block, bool)>,
    /// Pieces somebody has waited for: those may be asked of two peers.
    waited: BTreeSet<u32>,
    verifying: Vec<u32>,
}

impl World {
    fn new() -> Self {
        Self {
            scheduler: fresh(PIECES),
            now: MS,
            wire: Vec::new(),
            verifying: Vec::new(),
            waited: BTreeSet::new(),
        }
    }

    fn apply(&mut self, event: &Event) {
        match event.clone() {
            Event::Join(peer, facts) => {
                if !self.scheduler.peers.contains_key(&peer) {
                    self.scheduler.peer_joined(peer, facts, self.now);
                    self.scheduler.peer_choking(peer, false);
                }
            }
            Event::Leave(peer) => self.leave(peer),
            Event::Choke(peer, choking) => {
                self.scheduler.peer_choking(peer, choking);
                if choking {
                    self.wire.retain(|(owing, ..)| *owing != peer);
                }
            }
            Event::Has(peer, piece) if piece < PIECES => self.scheduler.peer_has(peer, piece),
            Event::Has(..) => {}
            Event::Demand(piece, count) => self.scheduler.demand(piece..piece + count, self.now),
            Event::Release(piece) => self.scheduler.release(piece),
            Event::Deliver(at) => self.deliver(at),
            Event::Junk(peer, piece, begin) => {
                let junk = Block { piece, begin, length: 1 };
                assert_eq!(self.scheduler.received(peer, junk, self.now), Received::Unasked);
            }
            Event::Verify(good) => {
                if let Some(piece) = self.verifying.pop() {
                    let outcome = if good { Outcome::Held } else { Outcome::Refused };
                    self.scheduler.verified(piece, outcome);
                }
            }
            Event::Background(background) => self.scheduler.set_background(background),
            Event::Profile(pieces) => self.scheduler.set_profile(pieces),
            Event::Wants(peer, piece) => self.scheduler.peer_wants(peer, piece, self.now),
            Event::Pass(ms) => self.now += Duration::from_millis(ms),
            Event::Lose(piece) => self.scheduler.lost(piece),
        }
        self.step();
    }

    fn leave(&mut self, peer: PeerKey) {
        self.scheduler.peer_left(peer);
        self.wire.retain(|(owing, ..)| *owing != peer);
    }

    fn deliver(&mut self, at: usize) {
        if self.wire.is_empty() {
            return;
        }
        let (peer, block, _) = self.wire.remove(at % self.wire.len());
        match self.scheduler.received(peer, block, self.now) {
            Received::Unasked => panic!("a block on the wire was asked for"),
            Received::Progress => {}
            Received::Complete => self.verifying.push(block.piece),
        }
    }

    /// The oldest request of one peer is served; the others are as silent as they please.
    fn serve(&mut self, peer: PeerKey) {
        if let Some(at) = self.wire.iter().position(|(to, ..)| *to == peer) {
            self.deliver(at);
            self.step();
        }
    }

    fn step(&mut self) {
        for action in self.scheduler.plan(self.now) {
            match action {
                Action::Request { peer, block, urgent } => self.request(peer, block, urgent),
                Action::Cancel { peer, block } => {
                    let at = self.wire.iter().position(|(to, sent, _)| (*to, *sent) == (peer, block));
                    // A peer that left or choked since has nothing to take back.
                    if let Some(at) = at {
                        self.wire.remove(at);
                    }
                }
                Action::Want { peer, piece } => {
                    let state = &self.scheduler.peers[&peer];
                    assert!(state.kind == Near && state.identity.is_some());
                    assert!(self.scheduler.waited_for().any(|waited| waited == piece));
                }
            }
        }
        self.check();
    }

    fn request(&mut self, peer: PeerKey, block: Block, urgent: bool) {
        let state = &self.scheduler.peers[&peer];
        assert!(state.pieces.contains(block.piece) && !state.choking);
        assert!(self.scheduler.geometry.contains(block));
        assert!(!self.scheduler.held().contains(block.piece));
        assert!(!self.verifying.contains(&block.piece), "asked while being verified");
        if urgent {
            self.waited.insert(block.piece);
        }
        if state.kind == WebSeed && !urgent && block.begin == 0 {
            let others = self.scheduler.peers.values().filter(|peer| peer.kind != WebSeed);
            let able = |peer: &Peer| peer.offers(block.piece) && !peer.is_stuck(self.now);
            assert!(!others.clone().any(able), "the web seed is the last resort");
        }
        match self.wire.iter().find(|(to, sent, _)| (*to, *sent) == (peer, block)) {
            Some(_) => panic!("asked twice of one peer"),
            None => self.wire.push((peer, block, urgent)),
        }
    }

    fn check(&self) {
        for (key, peer) in &self.scheduler.peers {
            let owed = self.wire.iter().filter(|(owing, ..)| owing == key).count();
            assert_eq!(owed, peer.flow.outstanding as usize);
            assert!(peer.urgent_outstanding() <= URGENT_WINDOW_BLOCKS);
            let window = peer.flow.window(BLOCKS, &self.scheduler.tuning);
            assert!((2..=192).contains(&window), "{window}");
        }
        for side in [&self.scheduler.sides.near, &self.scheduler.sides.outside] {
            assert!(side.others <= side.outstanding);
        }
        let peers = self.scheduler.peers.values();
        let sides = self.scheduler.sides.near.outstanding + self.scheduler.sides.outside.outstanding;
        assert_eq!(peers.map(|peer| peer.flow.outstanding).sum::<u32>(), sides);
        for (piece, active) in &self.scheduler.active {
            let Active::Fetching(attempts) = active else { continue };
            assert!(attempts.len() == 1 || self.waited.contains(piece), "{piece} is fetched twice");
            assert!(!self.scheduler.rarest.contains(*piece));
        }
        for piece in 0..PIECES {
            let absent =
                !self.scheduler.held().contains(piece) && !self.scheduler.active.contains_key(&piece);
            assert_eq!(self.scheduler.rarest.contains(piece), absent);
        }
        for piece in self.scheduler.in_flight() {
            assert!(!self.scheduler.held().contains(piece), "a piece is in exactly one state");
        }
        if let Some(deadline) = self.scheduler.deadline(self.now) {
            assert!(deadline > self.now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_promise_breaks_whatever_happens(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
    }

    #[test]
    fn every_read_ends_once_an_honest_peer_is_there(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        world.scheduler.set_background(Background::Off);
        world.scheduler.set_profile(Vec::new());
        for peer in 0..5 {
            world.leave(peer);
        }
        join(&mut world.scheduler, 9, Origin, all(PIECES));
        world.step();
        for _ in 0..500 {
            world.apply(&Event::Deliver(0));
            world.apply(&Event::Verify(true));
            world.apply(&Event::Pass(10));
        }
        prop_assert_eq!(world.scheduler.waited_for().count(), 0);
    }

    #[test]
    fn everything_wanted_arrives_once_an_honest_peer_is_there(
        events in prop::collection::vec(event(), 1..60),
        full in any::<bool>(),
        profile in prop::collection::vec(0..PIECES, 0..PIECES as usize),
    ) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        let wanted: BTreeSet<u32> = if full { (0..PIECES).collect() } else { profile.iter().copied().collect() };
        world.scheduler.set_background(if full { Background::Full } else { Background::Off });
        world.scheduler.set_profile(profile);
        join(&mut world.scheduler, 9, Origin, all(PIECES));
        world.now += Duration::from_secs(20);
        world.step();
        for _ in 0..600 {
            world.serve(9);
            world.apply(&Event::Verify(true));
            world.apply(&Event::Pass(25));
        }
        let held: BTreeSet<u32> = world.scheduler.held().iter().collect();
        prop_assert!(wanted.is_subset(&held), "{wanted:?} of {held:?}");
    }

    #[test]
    fn only_what_the_latest_profile_names_is_started(
        steps in prop::collection::vec((event(), prop::option::of(prop::collection::vec(0..PIECES, 0..8))), 1..60)
    ) {
        let mut world = World::new();
        let mut named = BTreeSet::new();
        for (event, profile) in steps {
            let before: BTreeSet<u32> = world.scheduler.in_flight().collect();
            if let Some(profile) = profile {
                named = profile.iter().copied().collect();
                world.apply(&Event::Profile(profile));
            }
            if matches!(event, Event::Join(..) | Event::Has(..) | Event::Deliver(_) | Event::Verify(_) | Event::Pass(_)) {
                world.apply(&event);
            }
            let started = world.scheduler.in_flight().filter(|piece| !before.contains(piece));
            prop_assert!(started.into_iter().all(|piece| named.contains(&piece)));
        }
    }
}
