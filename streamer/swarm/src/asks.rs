//! What we ask of peers, inside the download limits: what somebody waits for first.
//!
//! Without a limit nothing is kept here. With one, requests wait for their turn rather than the bytes that come in: a
//! request can be passed by an urgent one, bytes cannot.

use crate::limits::{Bucket, Limits};
use crate::uploads::Lane;
use crate::wire::Say;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use streamer_plan::Block;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// A request that waits.
pub(crate) struct Ask {
    pub(crate) lane: Lane,
    pub(crate) block: Block,
    pub(crate) urgent: bool,
    /// Of another site, the origin or a web seed.
    pub(crate) far: bool,
    pub(crate) say: mpsc::UnboundedSender<Say>,
}

/// Requests of all torrents.
pub(crate) struct Asks {
    state: Mutex<State>,
    sooner: Notify,
    began: Instant,
}

#[derive(Default)]
struct State {
    all: Bucket,
    far: Bucket,
    /// Urgent ones of near peers, of far ones; then the others.
    queues: [VecDeque<Ask>; 4],
}

impl Asks {
    pub(crate) fn new(began: Instant) -> Self {
        Self { state: Mutex::default(), sooner: Notify::new(), began }
    }

    /// Asks now, or when the limits allow.
    pub(crate) fn ask(&self, ask: Ask) {
        let mut state = self.lock();
        if !state.all.is_limited() && !state.far.is_limited() {
            drop(state);
            tell(&ask);
            return;
        }
        let queue = usize::from(!ask.urgent) * 2 + usize::from(ask.far);
        state.queues[queue].push_back(ask);
        self.release(state);
    }

    /// Takes a request back; `false` if it went out already.
    pub(crate) fn take_back(&self, lane: Lane, block: Block) -> bool {
        let mut state = self.lock();
        let waits = |ask: &Ask| ask.lane == lane && ask.block == block;
        for queue in &mut state.queues {
            if let Some(at) = queue.iter().position(waits) {
                queue.remove(at);
                return true;
            }
        }
        false
    }

    /// Somebody waits for this piece now.
    pub(crate) fn urge(&self, lane: Lane, piece: u32) {
        let mut state = self.lock();
        for (from, to) in [(2, 0), (3, 1)] {
            let (urged, rest): (VecDeque<Ask>, VecDeque<Ask>) = std::mem::take(&mut state.queues[from])
                .into_iter()
                .partition(|ask| ask.lane == lane && ask.block.piece == piece);
            state.queues[from] = rest;
            state.queues[to].extend(urged.into_iter().map(|ask| Ask { urgent: true, ..ask }));
        }
    }

    /// A connection ended: nothing is asked of it.
    pub(crate) fn leave(&self, lane: Lane) {
        for queue in &mut self.lock().queues {
            queue.retain(|ask| ask.lane != lane);
        }
    }

    /// Other limits from now on.
    pub(crate) fn set_limits(&self, limits: Limits) {
        let now = self.began.elapsed();
        let mut state = self.lock();
        state.all.set(limits.download, now);
        state.far.set(limits.far_download, now);
        self.release(state);
    }

    /// Asks when the limits allow; runs until it is dropped.
    pub(crate) async fn keep_time(&self) {
        loop {
            let deadline = {
                let mut state = self.lock();
                state.release(self.began.elapsed());
                state.deadline()
            };
            match deadline {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(self.began + at) => {}
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }

    fn release(&self, mut state: MutexGuard<'_, State>) {
        state.release(self.began.elapsed());
        if state.deadline().is_some() {
            self.sooner.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn release(&mut self, now: Duration) {
        for queue in 0..self.queues.len() {
            let far = queue % 2 == 1;
            while self.all.is_ready(now) && (!far || self.far.is_ready(now)) {
                let Some(ask) = self.queues[queue].pop_front() else { break };
                self.all.spend(ask.block.length);
                if far {
                    self.far.spend(ask.block.length);
                }
                tell(&ask);
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let near = !self.queues[0].is_empty() || !self.queues[2].is_empty();
        let far = !self.queues[1].is_empty() || !self.queues[3].is_empty();
        let all = self.all.ready_at();
        match (near, far) {
            (true, _) => Some(all),
            (false, true) => Some(all.max(self.far.ready_at())),
            (false, false) => None,
        }
    }
}

fn tell(ask: &Ask) {
    // Its connection may have ended; the torrent will hear of it.
    let _ = ask.say.send(Say::Ask { block: ask.block, urgent: ask.urgent });
}
