//! Hosts that run the real scheduler, joined by links, in virtual time.
//!
//! A block leaves over its sender's uplink, one at a time, crosses the wire, and comes in over its receiver's downlink,
//! one at a time: store and forward of 16 KiB. What is said beside blocks takes the way's latency and no bandwidth.

use crate::event::{Event, Said};
use crate::node::{Guest, Node};
use crate::trace::PIECE_BYTES;
use crate::uploads::Uploads;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;
use streamer_plan::{
    Action, Block, Geometry, Outcome, PeerFacts, PeerKey, PeerKind, Pieces, Received, Scheduler, Tuning,
};

/// Hashing and storing a piece.
const VERIFY: Duration = Duration::from_micros(500);

/// A peer that sent wrong bytes is let in again after so long.
const BAN: Duration = Duration::from_secs(60);

/// The origin's place among the nodes.
pub const ORIGIN: usize = 0;

/// What the links are like.
#[derive(Debug, Clone)]
pub struct Links {
    /// Of every host's link and of the origin's, both ways.
    pub bytes_per_s: f64,
    /// One way, inside a site.
    pub near: Duration,
    /// One way, to other sites and the origin.
    pub far: Duration,
}

/// Bytes by where they went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    pub origin_up: u64,
    pub host_up: u64,
    /// Received and of no use.
    pub wasted: u64,
}

pub struct World {
    pub now: Duration,
    pub nodes: Vec<Node>,
    pub totals: Totals,
    geometry: Geometry,
    links: Links,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    turn: u64,
}

impl World {
    /// An origin that has everything, and nobody else.
    #[must_use]
    pub fn new(pieces: u32, links: Links) -> Self {
        let size = u64::from(pieces.max(1)) * u64::from(PIECE_BYTES);
        #[expect(clippy::expect_used, reason = "neither size is zero")]
        let geometry = Geometry::new(size, PIECE_BYTES).expect("a geometry");
        let mut world = Self {
            now: Duration::ZERO,
            nodes: Vec::new(),
            totals: Totals::default(),
            geometry,
            links,
            queue: BinaryHeap::new(),
            turn: 0,
        };
        let mut all = Pieces::none(geometry.pieces());
        (0..geometry.pieces()).for_each(|piece| {
            all.insert(piece);
        });
        let origin = Scheduler::new(geometry, all, 0, 1);
        world.nodes.push(Node::new(origin, usize::MAX));
        world
    }

    /// A host that has nothing and has not joined.
    pub fn add(&mut self, site: usize, seed: u64, tuning: &Tuning) -> usize {
        let node = self.nodes.len();
        let held = Pieces::none(self.geometry.pieces());
        let mut fresh = Node::new(self.scheduler(node, held, seed, tuning), site);
        fresh.alive = false;
        self.nodes.push(fresh);
        node
    }

    fn scheduler(&self, node: usize, held: Pieces, seed: u64, tuning: &Tuning) -> Scheduler {
        let identity = (node as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Scheduler::with_tuning(self.geometry, held, identity, seed ^ identity, tuning.clone())
    }

    /// A node comes, with what it holds, and is connected to everybody who is there.
    pub fn join(&mut self, node: usize) {
        self.nodes[node].alive = true;
        for other in 0..self.nodes.len() {
            if other != node && self.nodes[other].alive && !self.is_banned(node, other) {
                self.meet(node, other);
                self.meet(other, node);
            }
        }
        self.step_all();
    }

    /// A node comes back as a new process with the pieces it held, or without.
    pub fn restart(&mut self, node: usize, keeps: bool, seed: u64, tuning: &Tuning) {
        let held = self.nodes[node].scheduler.held().clone();
        let held = if keeps { held } else { Pieces::none(self.geometry.pieces()) };
        self.nodes[node].scheduler = self.scheduler(node, held, seed, tuning);
        self.nodes[node].frozen = false;
        self.join(node);
    }

    /// A node is gone without a word.
    pub fn leave(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.nodes[node].epoch += 1;
        self.nodes[node].uploads = Uploads::default();
        self.nodes[node].sending = false;
        self.nodes[node].senders.clear();
        for other in 0..self.nodes.len() {
            if other != node {
                self.part(other, node);
                self.part(node, other);
            }
        }
        self.step_all();
    }

    pub fn thaw(&mut self, node: usize) {
        self.nodes[node].frozen = false;
        self.send(node);
        self.step(node);
    }

    /// A guest begins to run.
    pub fn boot(&mut self, node: usize, steps: Vec<(u32, Duration)>) {
        self.nodes[node].guest = Guest { steps, ..Guest::default() };
        self.think(node);
        self.step(node);
    }

    /// Runs until nothing is left to happen, or until `end`.
    pub fn run(&mut self, end: Duration) {
        while let Some(Reverse((at, _, _))) = self.queue.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, event))) = self.queue.pop() else { break };
            self.now = at;
            self.happen(event);
        }
        self.now = self.now.max(end);
    }

    /// Runs until every guest has read everything; `false`: it was not so by `end`.
    pub fn run_guests(&mut self, end: Duration) -> bool {
        let busy = |world: &Self| world.nodes[1..].iter().any(|node| node.guest.done.is_none());
        while busy(self) {
            let Some(Reverse((at, _, event))) = self.queue.pop() else { return false };
            if at > end {
                return false;
            }
            self.now = at;
            self.happen(event);
        }
        true
    }

    /// Changes something at a scheduler and carries out what it makes of it.
    pub fn with(&mut self, node: usize, change: impl FnOnce(&mut Scheduler)) {
        change(&mut self.nodes[node].scheduler);
        self.step(node);
    }

    pub(crate) fn is_banned(&self, one: usize, two: usize) -> bool {
        let bans =
            |by: usize, of: usize| self.nodes[by].banned.get(&of).is_some_and(|until| self.now < *until);
        bans(one, two) || bans(two, one)
    }

    pub(crate) fn meet(&mut self, node: usize, other: usize) {
        let pieces = self.nodes[other].scheduler.held().clone();
        let kind = match other {
            ORIGIN => PeerKind::Origin,
            other if self.nodes[other].site == self.nodes[node].site => PeerKind::Near,
            _ => PeerKind::Far,
        };
        let identity = Some((other as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let key = other as PeerKey;
        let scheduler = &mut self.nodes[node].scheduler;
        scheduler.peer_joined(key, PeerFacts { kind, identity }, self.now);
        scheduler.peer_choking(key, false);
        scheduler.peer_pieces(key, pieces);
    }

    pub(crate) fn part(&mut self, node: usize, other: usize) {
        self.nodes[node].scheduler.peer_left(other as PeerKey);
        self.nodes[node].uploads.leave(other);
    }

    pub(crate) fn step_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.step(node));
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.turn += 1;
        self.queue.push(Reverse((at, self.turn, event)));
    }

    fn say(&mut self, from: usize, to: usize, said: Said) {
        let latency =
            if self.nodes[from].site == self.nodes[to].site { self.links.near } else { self.links.far };
        let epochs = (self.nodes[from].epoch, self.nodes[to].epoch);
        self.at(self.now + latency, Event::Said { from, to, epochs, said });
    }

    /// Asks a scheduler what to do, and does it.
    fn step(&mut self, node: usize) {
        if node == ORIGIN || !self.nodes[node].alive || self.nodes[node].frozen {
            return;
        }
        let now = self.now;
        for action in self.nodes[node].scheduler.plan(now) {
            let (peer, said) = match action {
                Action::Request { peer, block, urgent } => (peer, Said::Ask(block, urgent)),
                Action::Cancel { peer, block } => (peer, Said::TakeBack(block)),
                Action::Want { peer, piece } => (peer, Said::Want(piece)),
            };
            if let Ok(peer) = usize::try_from(peer) {
                self.say(node, peer, said);
            }
        }
        let deadline = self.nodes[node].scheduler.deadline(now);
        let wake = self.nodes[node].wake.filter(|wake| *wake > now);
        if let Some(deadline) = deadline.filter(|deadline| wake.is_none_or(|wake| *deadline < wake)) {
            self.nodes[node].wake = Some(deadline);
            self.at(deadline, Event::Wake(node));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Said { from, to, epochs, said } => {
                let here = self.nodes[from].alive && self.nodes[to].alive && !self.is_banned(from, to);
                if here && epochs == (self.nodes[from].epoch, self.nodes[to].epoch) {
                    self.hear(from, to, said);
                }
            }
            Event::Sent(node, epoch) if self.nodes[node].epoch == epoch => {
                self.nodes[node].sending = false;
                self.send(node);
            }
            Event::Verified(node, piece, epoch) if self.nodes[node].epoch == epoch => {
                self.verified(node, piece);
            }
            Event::Wake(node) => {
                if self.nodes[node].wake == Some(self.now) {
                    self.nodes[node].wake = None;
                    self.step(node);
                }
            }
            Event::Reads(node, epoch) if self.nodes[node].epoch == epoch => self.read(node),
            Event::Sent(..) | Event::Verified(..) | Event::Reads(..) => {}
        }
    }

    fn hear(&mut self, from: usize, to: usize, said: Said) {
        let (now, key) = (self.now, from as PeerKey);
        match said {
            Said::Ask(block, urgent) => {
                assert!(self.nodes[to].scheduler.held().contains(block.piece), "{to} has no {block:?}");
                self.nodes[to].uploads.ask(from, block, urgent);
                self.send(to);
            }
            Said::Urge(piece) => self.nodes[to].uploads.urge(from, piece),
            Said::TakeBack(block) => self.nodes[to].uploads.take_back(from, block),
            Said::Has(piece) => {
                self.nodes[to].scheduler.peer_has(key, piece);
                if !self.nodes[to].scheduler.held().contains(piece) {
                    self.step(to);
                }
            }
            Said::Want(piece) => {
                self.nodes[to].scheduler.peer_wants(key, piece, now);
                self.step(to);
            }
            Said::Arrives(block) => {
                let free = self.nodes[to].down_free.max(now) + self.on_wire(block);
                self.nodes[to].down_free = free;
                let epochs = (self.nodes[from].epoch, self.nodes[to].epoch);
                self.at(free, Event::Said { from, to, epochs, said: Said::Sends(block) });
            }
            Said::Sends(block) => self.receive(from, to, block),
        }
    }

    fn receive(&mut self, from: usize, to: usize, block: Block) {
        match self.nodes[to].scheduler.received(from as PeerKey, block, self.now) {
            Received::Unasked => self.totals.wasted += u64::from(block.length),
            Received::Progress => {}
            Received::Complete => {
                self.nodes[to].senders.insert(block.piece, from);
                let epoch = self.nodes[to].epoch;
                self.at(self.now + VERIFY, Event::Verified(to, block.piece, epoch));
            }
        }
        self.step(to);
    }

    fn verified(&mut self, node: usize, piece: u32) {
        let sender = self.nodes[node].senders.remove(&piece);
        let poisoned = sender.filter(|sender| self.nodes[*sender].poisonous);
        if let Some(sender) = poisoned {
            self.nodes[node].scheduler.verified(piece, Outcome::Refused);
            let until = self.now + BAN;
            self.nodes[node].banned.insert(sender, until);
            self.part(node, sender);
            self.part(sender, node);
            self.step(sender);
        } else {
            self.nodes[node].scheduler.verified(piece, Outcome::Held);
            for other in 1..self.nodes.len() {
                if other != node && self.nodes[other].alive && !self.is_banned(node, other) {
                    self.say(node, other, Said::Has(piece));
                }
            }
            let waits = self.nodes[node].guest.waits_since;
            let reads = self.nodes[node].guest.steps.get(self.nodes[node].guest.at).map(|step| step.0);
            if let Some(since) = waits.filter(|_| reads == Some(piece)) {
                self.nodes[node].guest.stalls.push(self.now - since);
                self.nodes[node].guest.waits_since = None;
                self.nodes[node].guest.at += 1;
                self.think(node);
            }
        }
        self.step(node);
    }

    /// The guest thinks until its next read.
    fn think(&mut self, node: usize) {
        let guest = &mut self.nodes[node].guest;
        match guest.steps.get(guest.at) {
            None => guest.done = Some(self.now),
            Some((_, think)) => {
                let (think, epoch) = (*think, self.nodes[node].epoch);
                self.at(self.now + think, Event::Reads(node, epoch));
            }
        }
    }

    fn read(&mut self, node: usize) {
        let Node { guest, scheduler, .. } = &mut self.nodes[node];
        let Some((piece, _)) = guest.steps.get(guest.at).copied() else { return };
        if scheduler.held().contains(piece) {
            guest.at += 1;
            self.think(node);
            return;
        }
        guest.waits_since = Some(self.now);
        let begun = scheduler.in_flight().any(|active| active == piece);
        scheduler.demand(piece..piece + 1, self.now);
        // Whoever was asked for it before is told that somebody waits.
        for other in 0..self.nodes.len() {
            if begun && other != node && self.nodes[other].alive {
                self.say(node, other, Said::Urge(piece));
            }
        }
        self.step(node);
    }

    fn on_wire(&self, block: Block) -> Duration {
        Duration::from_secs_f64(f64::from(block.length) / self.links.bytes_per_s)
    }

    /// The uplink takes the next block.
    fn send(&mut self, node: usize) {
        if self.nodes[node].sending || self.nodes[node].frozen || !self.nodes[node].alive {
            return;
        }
        let Some((to, block)) = self.nodes[node].uploads.next() else { return };
        let bytes = u64::from(block.length);
        *(if node == ORIGIN { &mut self.totals.origin_up } else { &mut self.totals.host_up }) += bytes;
        self.nodes[node].sending = true;
        let (took, epoch) = (self.on_wire(block), self.nodes[node].epoch);
        self.at(self.now + took, Event::Sent(node, epoch));
        let latency =
            if self.nodes[node].site == self.nodes[to].site { self.links.near } else { self.links.far };
        let epochs = (epoch, self.nodes[to].epoch);
        let said = Said::Arrives(block);
        self.at(self.now + took + latency, Event::Said { from: node, to, epochs, said });
    }
}
