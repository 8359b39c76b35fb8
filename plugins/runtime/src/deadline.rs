//! Ends a guest that runs for too long.
//!
//! Compiled code looks at the engine's epoch at each loop and function. A thread advances the epoch every
//! millisecond, but only while calls run: an idle controller is not woken.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wasmtime::{Engine, Store, UpdateDeadline};

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(1);

/// A call may take this many times its deadline by the wall clock before it is ended whatever it used: the
/// machine is too busy to be waited for.
const WALL_PER_DEADLINE: u32 = 20;

/// Why the guest was ended.
#[derive(Debug, thiserror::Error)]
#[error("the deadline has passed")]
pub(crate) struct DeadlinePassed;

/// Ticks without a call after which the thread goes to sleep. Calls in a row need not wake it each time: waking a thread
/// costs more than a small policy.
const IDLE_TICKS: u32 = 20;

/// The thread that advances the epoch.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Calls under way. Raised before `asleep` is read; `asleep` is raised before this is read: one of the two sides
    /// sees the other.
    calls: AtomicUsize,
    asleep: AtomicBool,
    stop: Mutex<bool>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, bool> {
        // A flag is right even if a thread died while it held it.
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, engine: &Engine) {
        let (mut stop, mut idle) = (self.lock(), 0);
        while !*stop {
            idle = if self.calls.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
            stop = if idle < IDLE_TICKS {
                engine.increment_epoch();
                self.changed.wait_timeout(stop, TICK).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.sleep(stop)
            };
        }
    }

    /// Until there is a call. Whoever wakes it takes the lock first, and so comes after the wait has begun.
    fn sleep<'a>(&self, mut stop: MutexGuard<'a, bool>) -> MutexGuard<'a, bool> {
        self.asleep.store(true, Ordering::SeqCst);
        while !*stop && self.calls.load(Ordering::SeqCst) == 0 {
            stop = self.changed.wait(stop).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.store(false, Ordering::SeqCst);
        stop
    }
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (theirs, engine) = (Arc::clone(&shared), engine.clone());
        let thread = std::thread::Builder::new()
            .name("policy-epoch".to_owned())
            .spawn(move || theirs.tick(&engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Ticks for as long as the answer lives.
    pub(crate) fn call(&self) -> Ticking<'_> {
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            drop(self.shared.lock());
            self.shared.changed.notify_one();
        }
        Ticking(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.shared.lock() = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A ticker that panicked has nothing to say.
            let _ = thread.join();
        }
    }
}

/// One call that is under way.
#[derive(Debug)]
pub(crate) struct Ticking<'a>(&'a Shared);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gives the calls of this store `deadline` of this thread's processor time from now on.
pub(crate) fn set<T: 'static>(store: &mut Store<T>, deadline: Duration) {
    let (started, used_before) = (Instant::now(), thread_time());
    store.set_epoch_deadline(ticks(deadline));
    store.epoch_deadline_callback(move |_| {
        let used = thread_time().saturating_sub(used_before);
        if used >= deadline || started.elapsed() >= deadline * WALL_PER_DEADLINE {
            return Err(wasmtime::Error::new(DeadlinePassed));
        }
        Ok(UpdateDeadline::Continue(ticks(deadline.saturating_sub(used))))
    });
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, u64::from(u32::MAX))
}

/// Processor time that this thread has used.
#[must_use]
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer; the call touches nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
