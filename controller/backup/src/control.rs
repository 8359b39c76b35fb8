use crate::Error;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The hand that a caller keeps on work under way: it looks how far it is, slows it down, and calls it off.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    bytes_per_s: Option<NonZeroU64>,
    /// When the storage is free for the next bytes.
    free_at: Mutex<Option<Instant>>,
    /// Wakes those that wait for it when the work is called off.
    called_off: Condvar,
}

/// How far work is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of files that it is about; 0 while that is not known.
    pub total_bytes: u64,
    /// Of those, how many are dealt with.
    pub done_bytes: u64,
    /// Bytes sent to the storage.
    pub sent_bytes: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
}

impl Control {
    /// Sends and receives no more bytes of files per second than this, in the mean; a file is sent in one go.
    #[must_use]
    pub fn limited(bytes_per_s: Option<NonZeroU64>) -> Self {
        Self { bytes_per_s, ..Self::default() }
    }

    /// Calls the work off. It ends with [`Error::Cancelled`] at its next touch of the storage or of a file.
    pub fn cancel(&self) {
        // Under the lock: nobody is between looking and waiting.
        let _free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.cancelled.store(true, Ordering::Relaxed);
        self.called_off.notify_all();
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn expect(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
        self.done_bytes.store(0, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Waits until these bytes may be sent.
    pub(crate) fn send(&self, bytes: u64) -> Result<(), Error> {
        self.wait(bytes)?;
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until these bytes may be asked for.
    pub(crate) fn receive(&self, bytes: u64) -> Result<(), Error> {
        self.wait(bytes)?;
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn wait(&self, bytes: u64) -> Result<(), Error> {
        self.check()?;
        let Some(rate) = self.bytes_per_s else { return Ok(()) };
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let start = free_at.map_or(now, |free| free.max(now));
        let takes_us = u128::from(bytes) * 1_000_000 / u128::from(rate.get());
        *free_at = start.checked_add(Duration::from_micros(u64::try_from(takes_us).unwrap_or(u64::MAX)));
        loop {
            self.check()?;
            let Some(left) = start.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return Ok(());
            };
            free_at = self.called_off.wait_timeout(free_at, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_to_its_rate_in_the_mean() {
        let control = Control::limited(NonZeroU64::new(1_000_000));
        let began = Instant::now();
        for _ in 0..5 {
            control.send(50_000).expect("not called off");
        }
        // The first goes at once, each other one after those before it.
        assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
        assert_eq!(control.progress().sent_bytes, 250_000);
    }

    #[test]
    fn a_throttled_wait_is_called_off() {
        let control = Control::limited(NonZeroU64::new(1));
        control.send(1_000_000).expect("the first goes at once");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| control.send(1));
            control.cancel();
            assert!(matches!(waiting.join().expect("no panic"), Err(Error::Cancelled)));
        });
    }
}
