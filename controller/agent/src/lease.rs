//! This host's lease: how long leased instances may run here without the controller being heard. Pure: it is told the
//! time, in milliseconds of a clock that is never set and that counts while the machine sleeps.
//!
//! ```text
//!   status n sent at t ──────> heard ──> may run until t + lease
//!                                        └─ nothing heard: the guests are killed (fence.rs), and nothing leased starts
//!   after that: connected, newest document kept, heard ──> may run, and start what the document still names
//! ```
//!
//! The controller sends every document that is older than its answer before the answer. So whoever has a lease knows
//! what was given away before it, and a start that was under way when the lease ran out is undone before there is
//! another one.

use std::collections::VecDeque;

/// Statuses that were sent and not answered yet; the oldest are forgotten.
const UNANSWERED_MAX: usize = 64;

/// What the plan may do with leased instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Leave {
    /// Those that run may run on.
    pub(crate) run: bool,
    /// Those that do not may be started.
    pub(crate) start: bool,
}

/// The lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    until_ms: Option<u64>,
    /// This process has been heard: it does not only know of a lease from a file.
    heard: bool,
    /// The present connection has brought a document.
    document: bool,
    beat: u64,
    sent: VecDeque<(u64, u64)>,
    /// Starts of leased instances under way.
    starting: u32,
}

impl Lease {
    /// One that an earlier process of this boot was granted.
    pub(crate) fn inherited(until_ms: Option<u64>) -> Self {
        Self { until_ms, ..Self::default() }
    }

    pub(crate) fn until_ms(&self) -> Option<u64> {
        self.until_ms
    }

    /// A connection begins: what was sent on another one is answered no more.
    pub(crate) fn connected(&mut self) {
        self.sent.clear();
        self.document = false;
    }

    /// The connection has brought a document.
    pub(crate) fn told(&mut self) {
        self.document = true;
    }

    /// The number of a status that is sent now or later.
    pub(crate) fn beat(&mut self, now_ms: u64) -> u64 {
        self.beat += 1;
        self.sent.push_back((self.beat, now_ms));
        if self.sent.len() > UNANSWERED_MAX {
            self.sent.pop_front();
        }
        self.beat
    }

    /// A status was heard. `kept`: the newest document that came is the one that is acted on.
    pub(crate) fn heard(&mut self, beat: u64, lease_ms: u64, kept: bool, now_ms: u64) {
        let sent_ms = self.sent.iter().find(|(number, _)| *number == beat).map(|(_, at_ms)| *at_ms);
        self.sent.retain(|(number, _)| *number > beat);
        let Some(sent_ms) = sent_ms.filter(|_| self.document && kept) else { return };
        // What is being started may have been given away since its start began.
        if self.starting > 0 && !self.runs(now_ms) {
            return;
        }
        let until_ms = sent_ms.saturating_add(lease_ms);
        self.until_ms = self.until_ms.max(Some(until_ms));
        self.heard = true;
    }

    pub(crate) fn leave(&self, now_ms: u64) -> Leave {
        let run = self.runs(now_ms);
        Leave { run, start: run && self.heard }
    }

    fn runs(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until_ms| now_ms < until_ms)
    }

    /// A start of a leased instance begins, if it may. `named`: the document that is acted on now still names it.
    pub(crate) fn begin_start(&mut self, named: bool, now_ms: u64) -> bool {
        let may = self.leave(now_ms).start && named;
        self.starting += u32::from(may);
        may
    }

    /// Whether the guest whose start is over may run: there was a lease all the time. If not, it has to be gone before
    /// [`Self::end_start`].
    pub(crate) fn may_run_on(&self, now_ms: u64) -> bool {
        self.runs(now_ms)
    }

    /// A start that began is over, and what it started runs with leave or not at all.
    pub(crate) fn end_start(&mut self) {
        self.starting = self.starting.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
