//! The queue itself: times in, decisions out.

use crate::limits::{Bucket, Limits};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;
use streamer_plan::Block;

/// Number of a connection within its engine.
pub(crate) type Lane = u64;

/// Peers that are sent pieces at a time, of each class.
const SLOTS: usize = 3;
/// A connection that takes no block for so long has a full link, or is dead: another gets its place too.
const STALL: Duration = Duration::from_millis(40);
/// Most bytes that are worth reading from the disk at once.
const RUN_BYTES_MAX: u32 = 64 << 10;

/// A block to send, and how much is asked for right behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) block: Block,
    /// Bytes from the block's beginning that are waited for without a gap.
    pub(crate) run_bytes: u32,
}

#[derive(Debug)]
struct Waiting<D> {
    urgent: VecDeque<Block>,
    other: VecDeque<Block>,
    /// Bytes sent, but no less than those that are next: whoever was idle has no credit.
    served: u64,
    /// Piece of the last block: what was begun is finished first.
    last: Option<u32>,
    far: bool,
    door: D,
}

impl<D> Waiting<D> {
    fn queue(&mut self, urgent: bool) -> &mut VecDeque<Block> {
        if urgent { &mut self.urgent } else { &mut self.other }
    }

    fn front(&self, urgent: bool) -> Option<u32> {
        let queue = if urgent { &self.urgent } else { &self.other };
        let continued = self.last.filter(|last| queue.iter().any(|block| block.piece == *last));
        continued.or_else(|| queue.front().map(|block| block.piece))
    }

    fn length(&self) -> usize {
        self.urgent.len() + self.other.len()
    }
}

/// A peer that is sent a piece now.
#[derive(Debug, Clone, Copy)]
struct Slot {
    lane: Lane,
    piece: u32,
    urgent: bool,
    refused: Option<Refused>,
    /// When it last took a block.
    progress: Duration,
}

/// The limit that holds a slot up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    All,
    /// Nothing to those of our site.
    Far,
}

impl Slot {
    fn is_live(&self, now: Duration, for_far: bool) -> bool {
        match self.refused {
            Some(Refused::All) => true,
            Some(Refused::Far) => for_far,
            None => now < self.progress + STALL,
        }
    }
}

/// See the module above. `D` is what wakes a connection.
#[derive(Debug)]
pub(crate) struct Queue<D> {
    lanes: HashMap<Lane, Waiting<D>>,
    /// Those that asked for something.
    hungry: BTreeSet<Lane>,
    slots: Vec<Slot>,
    /// What the peer that was chosen last had been sent.
    clock: u64,
    all: Bucket,
    far: Bucket,
    /// Refused for a limit.
    thirsty: BTreeSet<Lane>,
    /// Refused because of something urgent.
    stood_back: BTreeSet<Lane>,
    /// To be woken.
    woken: BTreeSet<Lane>,
}

impl<D> Default for Queue<D> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            hungry: BTreeSet::new(),
            slots: Vec::new(),
            clock: 0,
            all: Bucket::default(),
            far: Bucket::default(),
            thirsty: BTreeSet::new(),
            stood_back: BTreeSet::new(),
            woken: BTreeSet::new(),
        }
    }
}

impl<D: Clone> Queue<D> {
    pub(crate) fn join(&mut self, lane: Lane, door: D) {
        let waiting = Waiting {
            urgent: VecDeque::new(),
            other: VecDeque::new(),
            served: self.clock,
            last: None,
            far: true,
            door,
        };
        self.lanes.insert(lane, waiting);
    }

    pub(crate) fn leave(&mut self, lane: Lane, now: Duration) {
        self.lanes.remove(&lane);
        self.hungry.remove(&lane);
        self.thirsty.remove(&lane);
        self.stood_back.remove(&lane);
        self.woken.remove(&lane);
        self.slots.retain(|slot| slot.lane != lane);
        self.grant(now);
    }

    pub(crate) fn place(&mut self, lane: Lane, far: bool) {
        if let Some(waiting) = self.lanes.get_mut(&lane) {
            waiting.far = far;
        }
    }

    pub(crate) fn ask(&mut self, lane: Lane, block: Block, now: Duration) -> usize {
        let clock = self.clock;
        let Some(waiting) = self.lanes.get_mut(&lane) else { return 0 };
        if self.hungry.insert(lane) {
            waiting.served = waiting.served.max(clock);
        }
        waiting.other.push_back(block);
        let length = waiting.length();
        self.grant(now);
        if self.slots.iter().any(|slot| slot.lane == lane) {
            self.woken.insert(lane);
        }
        length
    }

    pub(crate) fn urge(&mut self, lane: Lane, block: Block, now: Duration) {
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        let Some(at) = waiting.other.iter().position(|asked| *asked == block) else { return };
        waiting.other.remove(at);
        waiting.urgent.push_back(block);
        self.settle(lane);
        self.grant(now);
        self.woken.insert(lane);
    }

    pub(crate) fn take_back(&mut self, lane: Lane, block: Block, now: Duration) {
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        waiting.urgent.retain(|asked| *asked != block);
        waiting.other.retain(|asked| *asked != block);
        self.settle(lane);
        self.grant(now);
    }

    pub(crate) fn set_limits(&mut self, limits: Limits, now: Duration) {
        self.all.set(limits.upload, now);
        self.far.set(limits.far_upload, now);
        self.quench(now);
    }

    pub(crate) fn next(&mut self, lane: Lane, now: Duration) -> Option<Turn> {
        for slot in self.slots.iter_mut().filter(|slot| slot.lane == lane) {
            slot.progress = now;
        }
        self.settle(lane);
        self.grant(now);
        let slot = self.slot_of(lane, now)?;
        if !self.may_pass(slot, now) {
            // What waits for the limit of other sites makes room for ours.
            self.grant(now);
            return None;
        }
        let waiting = self.lanes.get_mut(&lane)?;
        let queue = waiting.queue(self.slots[slot].urgent);
        let at = queue.iter().position(|block| block.piece == self.slots[slot].piece)?;
        let block = queue.remove(at)?;
        let mut run_bytes = block.length;
        for behind in queue.iter().skip(at) {
            let adjoins = behind.piece == block.piece && behind.begin == block.begin + run_bytes;
            if !adjoins || run_bytes + behind.length > RUN_BYTES_MAX {
                break;
            }
            run_bytes += behind.length;
        }
        waiting.served += u64::from(block.length);
        waiting.last = Some(block.piece);
        let far = waiting.far;
        self.all.spend(block.length);
        if far {
            self.far.spend(block.length);
        }
        Some(Turn { block, run_bytes })
    }

    /// The turn the lane may use now.
    fn slot_of(&mut self, lane: Lane, now: Duration) -> Option<usize> {
        let of = |urgent: bool| self.slots.iter().position(|slot| slot.lane == lane && slot.urgent == urgent);
        let far = self.lanes.get(&lane)?.far;
        let slot = of(true).or_else(|| of(false))?;
        if !self.slots[slot].urgent && self.urgent_first(now, far) {
            self.stood_back.insert(lane);
            return None;
        }
        Some(slot)
    }

    /// Do the limits let a block pass?
    fn may_pass(&mut self, slot: usize, now: Duration) -> bool {
        let lane = self.slots[slot].lane;
        let far = self.lanes.get(&lane).is_some_and(|waiting| waiting.far);
        let refused = if far && !self.far.is_ready(now) {
            Some(Refused::Far)
        } else {
            (!self.all.is_ready(now)).then_some(Refused::All)
        };
        self.slots[slot].refused = refused;
        if refused.is_some() {
            self.thirsty.insert(lane);
        }
        refused.is_none()
    }

    /// Something happens by the clock alone.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.grant(now);
        self.quench(now);
    }

    /// When [`Self::tick`] is due; `None` while nobody waits for the clock.
    pub(crate) fn deadline(&self, now: Duration) -> Option<Duration> {
        let with_slot = |lane: &Lane| self.slots.iter().any(|slot| slot.lane == *lane);
        let others_wait = !self.stood_back.is_empty() || !self.hungry.iter().all(with_slot);
        let stalls = self.slots.iter().filter(|slot| slot.refused.is_none());
        let stalls = stalls.map(|slot| slot.progress + STALL).filter(|at| *at > now);
        let stalled = stalls.min().filter(|_| others_wait);
        let limit = (!self.thirsty.is_empty()).then(|| {
            let far_only = |lane: &Lane| self.lanes.get(lane).is_some_and(|waiting| waiting.far);
            let far = if self.thirsty.iter().all(far_only) { self.far.ready_at() } else { Duration::ZERO };
            self.all.ready_at().max(far).max(now + Duration::from_micros(100))
        });
        stalled.into_iter().chain(limit).min()
    }

    /// Connections to be woken.
    pub(crate) fn woken(&mut self) -> Vec<D> {
        if self.woken.is_empty() {
            return Vec::new();
        }
        let woken = std::mem::take(&mut self.woken);
        woken.iter().filter_map(|lane| Some(self.lanes.get(lane)?.door.clone())).collect()
    }

    /// Wakes those that the limits let go on.
    fn quench(&mut self, now: Duration) {
        if self.thirsty.is_empty() || !self.all.is_ready(now) {
            return;
        }
        let far_ready = self.far.is_ready(now);
        let (lanes, woken) = (&self.lanes, &mut self.woken);
        self.thirsty.retain(|lane| {
            let stays = !far_ready && lanes.get(lane).is_some_and(|waiting| waiting.far);
            if !stays {
                woken.insert(*lane);
            }
            stays
        });
    }

    /// Ends the turns of a lane that have nothing left to send.
    fn settle(&mut self, lane: Lane) {
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        if waiting.length() == 0 {
            self.hungry.remove(&lane);
            self.thirsty.remove(&lane);
        }
        self.slots.retain(|slot| {
            slot.lane != lane || waiting.queue(slot.urgent).iter().any(|block| block.piece == slot.piece)
        });
    }

    /// Somebody waits for a block that is about to go, so that all else stands back.
    fn urgent_first(&self, now: Duration, for_far: bool) -> bool {
        self.slots.iter().any(|slot| slot.urgent && slot.is_live(now, for_far))
    }

    /// Gives turns to those who are next, while there are any.
    fn grant(&mut self, now: Duration) {
        while self.grant_one(true, now) {}
        while self.grant_one(false, now) {}
        if !self.stood_back.is_empty() {
            let (near, far) = (self.urgent_first(now, false), self.urgent_first(now, true));
            let (lanes, woken) = (&self.lanes, &mut self.woken);
            self.stood_back.retain(|lane| {
                let stays = if lanes.get(lane).is_some_and(|waiting| waiting.far) { far } else { near };
                if !stays {
                    woken.insert(*lane);
                }
                stays
            });
        }
    }

    fn grant_one(&mut self, urgent: bool, now: Duration) -> bool {
        let live = |for_far: bool| {
            self.slots.iter().filter(|slot| slot.urgent == urgent && slot.is_live(now, for_far)).count()
        };
        let (live_near, live_far) = (live(false), live(true));
        if live_near >= SLOTS {
            return false;
        }
        let next = self
            .hungry
            .iter()
            .filter_map(|lane| {
                let waiting = self.lanes.get(lane)?;
                let piece = waiting.front(urgent)?;
                let live = if waiting.far { live_far } else { live_near };
                let waits = live < SLOTS
                    && (urgent || !self.urgent_first(now, waiting.far))
                    && !self.slots.iter().any(|slot| slot.lane == *lane && slot.urgent == urgent);
                waits.then_some((waiting.last != Some(piece), waiting.served, *lane, piece))
            })
            .min();
        let Some((_, served, lane, piece)) = next else { return false };
        self.clock = self.clock.max(served);
        self.slots.push(Slot { lane, piece, urgent, refused: None, progress: now });
        self.woken.insert(lane);
        true
    }
}

#[cfg(test)]
mod tests;
