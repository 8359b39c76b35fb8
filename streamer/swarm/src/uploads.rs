//! Who is sent what next: one queue for all peers of all torrents.
//!
//! Blocks somebody waits for go first. Others go piece by piece to few peers at a time, not block by block to all: then
//! the first of them has a whole piece early, and serves the next. Among peers the one that was sent least is next. A
//! peer whose link is full counts no longer among the few, so that the slow ones do not hold up the fast.
//!
//! A connection asks for its next block when the one before is in its socket; nothing is decided earlier, so that what
//! is urgent passes all that was asked before, and what was taken back is not sent.

mod queue;

pub(crate) use queue::{Lane, Turn};

use crate::limits::Limits;
use queue::Queue;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use streamer_plan::Block;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The queue, and who is to be woken.
pub(crate) struct Uploads {
    state: Mutex<State>,
    /// A deadline came nearer.
    sooner: Notify,
    began: Instant,
}

#[derive(Default)]
struct State {
    queue: Queue<Arc<Notify>>,
    /// When [`Uploads::keep_time`] looks again.
    armed: Option<Duration>,
}

impl Uploads {
    pub(crate) fn new(began: Instant) -> Self {
        Self { state: Mutex::default(), sooner: Notify::new(), began }
    }

    /// A connection begins; it is woken when [`Self::next`] may have something for it.
    pub(crate) fn join(&self, lane: Lane) -> Arc<Notify> {
        let door = Arc::new(Notify::new());
        self.with(|queue, _| queue.join(lane, Arc::clone(&door)));
        door
    }

    /// A connection ended.
    pub(crate) fn leave(&self, lane: Lane) {
        self.with(|queue, now| queue.leave(lane, now));
    }

    /// It is a peer of our site, or not.
    pub(crate) fn place(&self, lane: Lane, far: bool) {
        self.with(|queue, _| queue.place(lane, far));
    }

    /// A peer asks for a block. Returns how many it waits for.
    pub(crate) fn ask(&self, lane: Lane, block: Block) -> usize {
        self.with(|queue, now| queue.ask(lane, block, now))
    }

    /// Somebody waits for a block the peer asked for.
    pub(crate) fn urge(&self, lane: Lane, block: Block) {
        self.with(|queue, now| queue.urge(lane, block, now));
    }

    /// A peer takes a request back.
    pub(crate) fn take_back(&self, lane: Lane, block: Block) {
        self.with(|queue, now| queue.take_back(lane, block, now));
    }

    /// The block to send now; the one before is in the socket.
    pub(crate) fn next(&self, lane: Lane) -> Option<Turn> {
        self.with(|queue, now| queue.next(lane, now))
    }

    /// Other limits from now on.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.with(|queue, now| queue.set_limits(limits, now));
    }

    /// Lets go on what waits for the clock; runs until it is dropped.
    pub(crate) async fn keep_time(&self) {
        loop {
            let armed = {
                let mut state = self.lock();
                let now = self.began.elapsed();
                state.queue.tick(now);
                state.armed = state.queue.deadline(now);
                wake(&mut state);
                state.armed
            };
            match armed {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(self.began + at) => {}
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Queue<Arc<Notify>>, Duration) -> T) -> T {
        let mut state = self.lock();
        let now = self.began.elapsed();
        let result = change(&mut state.queue, now);
        wake(&mut state);
        if let Some(at) = state.queue.deadline(now)
            && state.armed.is_none_or(|armed| at < armed)
        {
            state.armed = Some(at);
            self.sooner.notify_one();
        }
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(state: &mut State) {
    for door in state.queue.woken() {
        door.notify_one();
    }
}
