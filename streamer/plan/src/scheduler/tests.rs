use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MS: Duration = Duration::from_millis(1);

fn geometry(pieces: u32) -> Geometry {
    Geometry::new(u64::from(pieces) * 65536, 65536).unwrap()
}

fn all(pieces: u32) -> Pieces {
    let mut set = Pieces::none(pieces);
    (0..pieces).for_each(|piece| {
        set.insert(piece);
    });
    set
}

fn join(scheduler: &mut Scheduler, peer: PeerKey, origin: bool, pieces: Pieces) {
    scheduler.peer_joined(peer, facts(origin), Duration::ZERO);
    scheduler.peer_choking(peer, false);
    scheduler.peer_pieces(peer, pieces);
}

fn facts(origin: bool) -> PeerFacts {
    PeerFacts { kind: if origin { PeerKind::Origin } else { PeerKind::Near }, identity: None }
}

fn fresh(pieces: u32) -> Scheduler {
    Scheduler::new(geometry(pieces), Pieces::none(pieces), 1, 7)
}

fn asked(actions: &[Action]) -> BTreeSet<(PeerKey, u32)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Request { peer, block, .. } => Some((*peer, block.piece)),
            Action::Cancel { .. } | Action::Want { .. } => None,
        })
        .collect()
}

fn deliver(scheduler: &mut Scheduler, actions: &[Action], now: Duration) {
    for action in actions {
        let Action::Request { peer, block, .. } = action else { continue };
        if scheduler.received(*peer, *block, now) == Received::Complete {
            scheduler.verified(block.piece, Outcome::Held);
        }
    }
}

#[test]
fn only_what_is_read_is_asked_for() {
    let mut scheduler = fresh(10);
    join(&mut scheduler, 1, true, all(10));
    assert!(scheduler.plan(MS).is_empty());
    scheduler.demand(3..5, MS);
    let actions = scheduler.plan(MS);
    assert_eq!(asked(&actions), BTreeSet::from([(1, 3), (1, 4)]));
    deliver(&mut scheduler, &actions, 2 * MS);
    assert!(scheduler.plan(2 * MS).is_empty());
    assert_eq!(scheduler.held().iter().collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn another_host_is_asked_before_the_origin() {
    let mut scheduler = fresh(4);
    join(&mut scheduler, 1, true, all(4));
    join(&mut scheduler, 2, false, all(4));
    scheduler.demand(0..1, MS);
    assert_eq!(asked(&scheduler.plan(MS)), BTreeSet::from([(2, 0)]));
}

#[test]
fn the_origin_is_asked_too_when_a_host_is_silent() {
    let mut scheduler = fresh(4);
    join(&mut scheduler, 1, true, all(4));
    join(&mut scheduler, 2, false, all(4));
    scheduler.demand(0..1, MS);
    scheduler.plan(MS);
    let deadline = scheduler.deadline(MS).unwrap();
    assert_eq!(deadline, MS + PATIENCE);
    assert!(asked(&scheduler.plan(deadline - MS)).is_empty());
    let second = scheduler.plan(deadline);
    assert_eq!(asked(&second), BTreeSet::from([(1, 0)]));
    deliver(&mut scheduler, &second, deadline + MS);
    let cancels = scheduler.plan(deadline + MS);
    assert_eq!(cancels.len(), 4, "the silent host's requests are taken back: {cancels:?}");
    assert!(cancels.iter().all(|action| matches!(action, Action::Cancel { peer: 2, .. })));
}

#[test]
fn urgent_pieces_go_round_robin() {
    let mut scheduler = fresh(8);
    for peer in 1..=4 {
        join(&mut scheduler, peer, false, all(8));
    }
    scheduler.demand(0..4, MS);
    let peers: BTreeSet<PeerKey> = asked(&scheduler.plan(MS)).into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(peers.len(), 4);
}

#[test]
fn a_sequential_reader_gets_at_most_two_pieces_ahead() {
    let mut scheduler = fresh(64);
    join(&mut scheduler, 1, true, all(64));
    let mut now = MS;
    let mut read_until = 0;
    for piece in 0..40 {
        if !scheduler.held().contains(piece) {
            scheduler.demand(piece..piece + 1, now);
        }
        let actions = scheduler.plan(now);
        deliver(&mut scheduler, &actions, now);
        now += MS;
        read_until = piece;
        let beyond = scheduler.held().iter().filter(|held| *held > piece).count();
        assert!(beyond <= 2, "{beyond} pieces beyond {piece}");
    }
    assert!(scheduler.held().count() > read_until);
}

#[test]
fn a_random_reader_gets_nothing_ahead() {
    let mut scheduler = fresh(64);
    join(&mut scheduler, 1, true, all(64));
    for piece in [3, 40, 12, 55, 7] {
        scheduler.demand(piece..piece + 1, MS);
        let actions = scheduler.plan(MS);
        deliver(&mut scheduler, &actions, MS);
    }
    assert_eq!(scheduler.held().count(), 5);
}

#[test]
fn prefetch_takes_the_rarest_and_stops_while_a_read_waits() {
    let mut scheduler = fresh(32);
    join(&mut scheduler, 1, true, all(32));
    let mut most = all(32);
    most.remove(9);
    join(&mut scheduler, 2, false, most);
    scheduler.set_background(Background::Full);
    let actions = scheduler.plan(MS);
    assert!(asked(&actions).contains(&(1, 9)), "the rarest piece is asked of the only one that has it");
    assert!(
        asked(&actions).iter().all(|(peer, piece)| *peer == 2 || *piece == 9),
        "origin last: {actions:?}"
    );

    let mut waiting = fresh(32);
    join(&mut waiting, 1, true, all(32));
    waiting.set_background(Background::Full);
    waiting.demand(5..6, MS);
    assert_eq!(asked(&waiting.plan(MS)), BTreeSet::from([(1, 5)]));
}

#[test]
fn a_refused_piece_is_asked_again() {
    let mut scheduler = fresh(4);
    join(&mut scheduler, 1, false, all(4));
    scheduler.demand(0..1, MS);
    for action in scheduler.plan(MS) {
        let Action::Request { peer, block, .. } = action else { continue };
        scheduler.received(peer, block, MS);
    }
    assert!(scheduler.plan(MS).is_empty(), "a piece being verified is not asked again");
    scheduler.verified(0, Outcome::Refused);
    scheduler.peer_left(1);
    join(&mut scheduler, 2, false, all(4));
    assert_eq!(asked(&scheduler.plan(MS)), BTreeSet::from([(2, 0)]));
}

#[derive(Debug, Clone)]
enum Event {
    Join(PeerKey, bool),
    Leave(PeerKey),
    Choke(PeerKey, bool),
    Has(PeerKey, u32),
    Demand(u32, u32),
    Release(u32),
    Deliver(usize),
    Junk(PeerKey, u32, u32),
    Verify(bool),
    Prefetch(bool),
    Pass(u64),
    Lose(u32),
}

const PIECES: u32 = 12;

fn event() -> impl Strategy<Value = Event> {
    let peer = 0u64..5;
    prop_oneof![
        (peer.clone(), any::<bool>()).prop_map(|(p, o)| Event::Join(p, o)),
        peer.clone().prop_map(Event::Leave),
        (peer.clone(), any::<bool>()).prop_map(|(p, c)| Event::Choke(p, c)),
        (peer.clone(), 0..PIECES + 2).prop_map(|(p, i)| Event::Has(p, i)),
        (0..PIECES + 2, 1u32..4).prop_map(|(i, n)| Event::Demand(i, n)),
        (0..PIECES).prop_map(Event::Release),
        (0usize..40).prop_map(Event::Deliver),
        (0usize..40).prop_map(Event::Deliver),
        (peer, any::<u32>(), any::<u32>()).prop_map(|(p, i, b)| Event::Junk(p, i, b)),
        any::<bool>().prop_map(Event::Verify),
        any::<bool>().prop_map(Event::Prefetch),
        (0u64..1500).prop_map(Event::Pass),
        (0..PIECES).prop_map(Event::Lose),
    ]
}

/// Runs the scheduler against a model of the wire and checks every promise after every step.
struct World {
    scheduler: Scheduler,
    now: Duration,
    wire: Vec<(PeerKey, Block)>,
    verifying: Vec<u32>,
}

impl World {
    fn new() -> Self {
        Self { scheduler: fresh(PIECES), now: MS, wire: Vec::new(), verifying: Vec::new() }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Join(peer, origin) => {
                if !self.scheduler.peers.contains_key(&peer) {
                    self.scheduler.peer_joined(peer, facts(origin), self.now);
                    self.scheduler.peer_choking(peer, false);
                }
            }
            Event::Leave(peer) => self.leave(peer),
            Event::Choke(peer, choking) => {
                self.scheduler.peer_choking(peer, choking);
                if choking {
                    self.wire.retain(|(owing, _)| *owing != peer);
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
            Event::Prefetch(everything) => {
                self.scheduler.set_background(if everything { Background::Full } else { Background::Off });
            }
            Event::Pass(ms) => self.now += Duration::from_millis(ms),
            Event::Lose(piece) => self.scheduler.lost(piece),
        }
        self.step();
    }

    fn leave(&mut self, peer: PeerKey) {
        self.scheduler.peer_left(peer);
        self.wire.retain(|(owing, _)| *owing != peer);
    }

    fn deliver(&mut self, at: usize) {
        if self.wire.is_empty() {
            return;
        }
        let (peer, block) = self.wire.remove(at % self.wire.len());
        match self.scheduler.received(peer, block, self.now) {
            Received::Unasked => panic!("a block on the wire was asked for"),
            Received::Progress => {}
            Received::Complete => self.verifying.push(block.piece),
        }
    }

    fn step(&mut self) {
        for action in self.scheduler.plan(self.now) {
            match action {
                Action::Request { peer, block, .. } => {
                    let state = &self.scheduler.peers[&peer];
                    assert!(state.pieces.contains(block.piece) && !state.choking);
                    assert!(self.scheduler.geometry.contains(block));
                    assert!(!self.scheduler.held().contains(block.piece));
                    assert!(!self.verifying.contains(&block.piece), "asked while being verified");
                    assert!(!self.wire.contains(&(peer, block)), "asked twice of one peer");
                    self.wire.push((peer, block));
                }
                Action::Cancel { peer, block } => {
                    let at = self.wire.iter().position(|sent| *sent == (peer, block));
                    // A peer that left or choked since has nothing to take back.
                    if let Some(at) = at {
                        self.wire.remove(at);
                    }
                }
                Action::Want { .. } => {}
            }
        }
        self.check();
    }

    fn check(&self) {
        for (key, peer) in &self.scheduler.peers {
            let owed = self.wire.iter().filter(|(owing, _)| owing == key).count();
            assert_eq!(owed, peer.outstanding as usize);
            assert!(peer.outstanding <= URGENT_WINDOW_BLOCKS);
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
        for peer in 0..5 {
            world.leave(peer);
        }
        join(&mut world.scheduler, 9, true, all(PIECES));
        world.step();
        for _ in 0..500 {
            world.apply(&Event::Deliver(0));
            world.apply(&Event::Verify(true));
            world.apply(&Event::Pass(10));
        }
        prop_assert_eq!(world.scheduler.waited_for().count(), 0);
    }

    #[test]
    fn prefetch_fetches_everything(origin in any::<bool>()) {
        let mut world = World::new();
        join(&mut world.scheduler, 1, origin, all(PIECES));
        world.scheduler.set_background(Background::Full);
        world.step();
        for _ in 0..200 {
            world.apply(&Event::Deliver(0));
            world.apply(&Event::Verify(true));
        }
        prop_assert!(world.scheduler.held().is_full());
    }
}
