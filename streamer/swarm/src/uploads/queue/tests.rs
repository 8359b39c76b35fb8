//! Tests of the queue, with peers whose links are as fast as the test says.

use super::*;
use proptest::prelude::*;
use std::num::NonZeroU64;

const BLOCK: u32 = 16 << 10;
const MS: Duration = Duration::from_millis(1);

fn block(piece: u32, index: u32) -> Block {
    Block { piece, begin: index * BLOCK, length: BLOCK }
}

/// Peers that take blocks as soon as they are woken, one after the other.
struct Stand {
    queue: Queue<Lane>,
    now: Duration,
    /// Those that wait for a bell.
    asleep: BTreeSet<Lane>,
    sent: Vec<(Lane, Block)>,
    /// How much later in their order each round begins than the last one.
    shift: usize,
    rounds: usize,
}

impl Stand {
    fn new(peers: Lane) -> Self {
        let mut queue = Queue::default();
        (0..peers).for_each(|lane| queue.join(lane, lane));
        Self {
            queue,
            now: Duration::ZERO,
            asleep: (0..peers).collect(),
            sent: Vec::new(),
            shift: 0,
            rounds: 0,
        }
    }

    fn ask_piece(&mut self, lane: Lane, piece: u32, blocks: u32) {
        for index in 0..blocks {
            self.queue.ask(lane, block(piece, index), self.now);
        }
    }

    /// Every peer that is awake takes a block, once.
    fn round(&mut self) -> bool {
        for lane in self.queue.woken() {
            self.asleep.remove(&lane);
        }
        let mut awake: Vec<Lane> =
            self.queue.lanes.keys().filter(|lane| !self.asleep.contains(lane)).copied().collect();
        awake.sort_unstable();
        if !awake.is_empty() {
            let begin = self.rounds * self.shift % awake.len();
            awake.rotate_left(begin);
            self.rounds += 1;
        }
        for lane in &awake {
            match self.queue.next(*lane, self.now) {
                Some(turn) => self.sent.push((*lane, turn.block)),
                None => drop(self.asleep.insert(*lane)),
            }
        }
        !awake.is_empty()
    }

    /// Until nothing is left to send.
    fn drain(&mut self) {
        for _ in 0..100_000 {
            if self.round() {
                continue;
            }
            let Some(at) = self.queue.deadline(self.now) else { return };
            assert!(at > self.now);
            self.now = at;
            self.queue.tick(self.now);
        }
        panic!("no end: {:?}", self.queue);
    }

    fn order_of_pieces(&self) -> Vec<(Lane, u32)> {
        let mut order: Vec<_> = self.sent.iter().map(|(lane, block)| (*lane, block.piece)).collect();
        order.dedup();
        order
    }
}

#[test]
fn what_is_urgent_passes_all_that_was_asked_before() {
    let mut stand = Stand::new(9);
    for lane in 0..8 {
        stand.ask_piece(lane, u32::try_from(lane).unwrap(), 64);
    }
    for _ in 0..10 {
        stand.round();
    }
    let before = stand.sent.len();
    stand.ask_piece(8, 77, 4);
    (0..4).for_each(|index| stand.queue.urge(8, block(77, index), stand.now));
    stand.drain();
    let urgent: Vec<_> = stand.sent[before..].iter().map(|(lane, _)| *lane).take(4).collect();
    assert_eq!(urgent, [8; 4]);
    assert_eq!(stand.sent.len(), 8 * 64 + 4);
}

#[test]
fn a_few_peers_get_whole_pieces_rather_than_all_a_little() {
    let mut stand = Stand::new(20);
    for lane in 0..20 {
        stand.ask_piece(lane, 5, 16);
    }
    while stand.sent.len() < SLOTS * 16 {
        stand.round();
    }
    let served: BTreeSet<Lane> = stand.sent.iter().map(|(lane, _)| *lane).collect();
    assert_eq!(served.len(), SLOTS);
}

#[test]
fn a_peer_that_was_sent_less_is_next() {
    for (shift, rounds) in (0..6).flat_map(|shift| (0..32).map(move |rounds| (shift, rounds))) {
        let mut stand = Stand::new(6);
        stand.shift = shift;
        for lane in 0..4 {
            for piece in 0..32 {
                stand.ask_piece(lane, piece, 4);
            }
        }
        for _ in 0..rounds {
            stand.round();
        }
        stand.ask_piece(5, 0, 4);
        let before = stand.sent.len();
        stand.drain();
        let first = stand.sent[before..].iter().position(|(lane, _)| *lane == 5).unwrap();
        // Behind the pieces that are being sent and one of each of the others, of the 32 of each.
        assert!(first <= 4 * (SLOTS + 4), "{first}, shift {shift}, after {rounds} rounds");
    }
}

#[test]
fn a_request_taken_back_is_not_sent() {
    let mut stand = Stand::new(2);
    stand.ask_piece(0, 1, 8);
    stand.round();
    (1..8).for_each(|index| stand.queue.take_back(0, block(1, index), stand.now));
    stand.ask_piece(1, 2, 2);
    stand.drain();
    assert_eq!(stand.order_of_pieces(), [(0, 1), (1, 2)]);
    assert_eq!(stand.sent.len(), 3);
}

#[test]
fn a_peer_that_takes_nothing_loses_its_place() {
    let mut stand = Stand::new(10);
    for lane in 0..SLOTS as Lane {
        stand.ask_piece(lane, 1, 4);
        // Its link is full: it does not come back for more.
        stand.queue.woken();
        stand.queue.next(lane, stand.now);
    }
    stand.ask_piece(9, 2, 4);
    assert!(!stand.queue.woken().contains(&9));
    stand.now += STALL;
    stand.queue.tick(stand.now);
    assert!(stand.queue.woken().contains(&9));
}

#[test]
fn inside_a_limit_what_is_urgent_goes_first() {
    let mut stand = Stand::new(5);
    let limits = Limits { upload: NonZeroU64::new(10 * u64::from(BLOCK)), ..Limits::default() };
    stand.queue.set_limits(limits, stand.now);
    (0..4).for_each(|lane| stand.ask_piece(lane, 1, 16));
    while stand.now < 1000 * MS {
        while stand.round() {}
        stand.now = stand.queue.deadline(stand.now).unwrap();
        stand.queue.tick(stand.now);
    }
    stand.ask_piece(4, 2, 8);
    (0..8).for_each(|index| stand.queue.urge(4, block(2, index), stand.now));
    let before = stand.sent.len();
    stand.drain();
    let late = stand.sent[before..].iter().take(9).filter(|(lane, _)| *lane != 4).count();
    assert!(late <= 1, "{:?}", &stand.sent[before..]);
    assert!(stand.now > 6 * 1000 * MS && stand.now < 8 * 1000 * MS, "{:?}", stand.now);
}

#[test]
fn the_limit_of_other_sites_holds_nobody_of_ours_up() {
    let mut stand = Stand::new(6);
    (3..6).for_each(|lane| stand.queue.place(lane, false));
    let limits = Limits { far_upload: NonZeroU64::new(u64::from(BLOCK)), ..Limits::default() };
    stand.queue.set_limits(limits, stand.now);
    for lane in 0..6 {
        stand.ask_piece(lane, 1, 16);
    }
    for lane in 0..3 {
        (0..16).for_each(|index| stand.queue.urge(lane, block(1, index), stand.now));
    }
    while stand.round() {}
    let near = stand.sent.iter().filter(|(lane, _)| *lane >= 3).count();
    assert_eq!(near, 3 * 16, "without a tick of the clock");
    stand.drain();
    assert!(stand.now > 40 * 1000 * MS, "{:?}", stand.now);
}

#[derive(Debug, Clone)]
enum Op {
    Ask(Lane, u32, u32),
    Urge(Lane, u32, u32),
    TakeBack(Lane, u32, u32),
    Round,
    Wait(u64),
    Leave(Lane),
    Limit(Option<u64>, Option<u64>),
    Place(Lane, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let rate = || prop::option::of(16_384u64..1 << 24);
    prop_oneof![
        8 => (0u64..6, 0u32..3, 0u32..8).prop_map(|(lane, piece, index)| Op::Ask(lane, piece, index)),
        4 => (0u64..6, 0u32..3, 0u32..8).prop_map(|(lane, piece, index)| Op::Urge(lane, piece, index)),
        2 => (0u64..6, 0u32..3, 0u32..8).prop_map(|(lane, piece, index)| Op::TakeBack(lane, piece, index)),
        4 => Just(Op::Round),
        2 => (0u64..100).prop_map(Op::Wait),
        1 => (0u64..6).prop_map(Op::Leave),
        1 => (rate(), rate()).prop_map(|(all, far)| Op::Limit(all, far)),
        1 => (0u64..6, any::<bool>()).prop_map(|(lane, far)| Op::Place(lane, far)),
    ]
}

proptest! {
    // Also: nobody sleeps for ever although something waits for it.
    #[test]
    fn every_request_is_answered_once_unless_it_is_taken_back(ops in prop::collection::vec(op(), 0..200)) {
        let mut stand = Stand::new(6);
        let mut open: Vec<(Lane, Block)> = Vec::new();
        for op in ops {
            let sent = stand.sent.len();
            match op {
                Op::Ask(lane, piece, index) => {
                    if stand.queue.lanes.contains_key(&lane) {
                        stand.queue.ask(lane, block(piece, index), stand.now);
                        open.push((lane, block(piece, index)));
                    }
                }
                Op::Urge(lane, piece, index) => stand.queue.urge(lane, block(piece, index), stand.now),
                Op::TakeBack(lane, piece, index) => {
                    stand.queue.take_back(lane, block(piece, index), stand.now);
                    open.retain(|asked| *asked != (lane, block(piece, index)));
                }
                Op::Round => {
                    stand.round();
                }
                Op::Wait(ms) => {
                    stand.now += MS * u32::try_from(ms).unwrap();
                    stand.queue.tick(stand.now);
                }
                Op::Leave(lane) => {
                    stand.queue.leave(lane, stand.now);
                    open.retain(|(asker, _)| *asker != lane);
                }
                Op::Limit(all, far) => {
                    let rate = |rate: Option<u64>| rate.and_then(NonZeroU64::new);
                    let limits = Limits { upload: rate(all), far_upload: rate(far), ..Limits::default() };
                    stand.queue.set_limits(limits, stand.now);
                }
                Op::Place(lane, far) => stand.queue.place(lane, far),
            }
            for sent in &stand.sent[sent..] {
                let at = open.iter().position(|asked| asked == sent);
                prop_assert!(at.is_some(), "nobody asked for {:?}", sent);
                if let Some(at) = at {
                    open.remove(at);
                }
            }
        }
        let before = stand.sent.len();
        stand.drain();
        let mut rest = stand.sent.split_off(before);
        rest.sort();
        open.sort();
        prop_assert_eq!(rest, open);
    }
}
