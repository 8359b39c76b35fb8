//! Whether a connection's thread looks again for the next request before it sleeps.
//!
//! A thread that sleeps between two requests costs an idle processor's wake-up, which on a virtual machine is more than
//! the read itself. Looking again costs the processor. So it is done only while requests follow each other briskly, and
//! not for a while once somebody else was seen to need the processor: a busy one is not asleep, and wakes nobody.

use std::time::Duration;

/// How long is looked; what comes later is slept for.
const LOOK: Duration = Duration::from_micros(50);
/// A processor given away for longer than this was wanted by somebody.
const SHARED: Duration = Duration::from_micros(10);
/// Waits that are slept through after that.
const RESTS: u32 = 1000;

#[derive(Debug, Default)]
pub(crate) struct Patience {
    brisk: bool,
    rests: u32,
}

impl Patience {
    /// To look once more, having waited this long.
    pub(crate) fn looks(&self, waited: Duration) -> bool {
        self.brisk && self.rests == 0 && waited < LOOK
    }

    /// The processor was offered to others, and came back after this long.
    pub(crate) fn offered(&mut self, away: Duration) {
        if away > SHARED {
            self.rests = RESTS;
        }
    }

    /// A request came after this long.
    pub(crate) fn came(&mut self, waited: Duration) {
        self.brisk = waited < LOOK;
        self.rests = self.rests.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(5);

    #[test]
    fn it_sleeps_until_requests_follow_briskly_and_again_when_they_do_not() {
        let mut patience = Patience::default();
        assert!(!patience.looks(Duration::ZERO));
        patience.came(SOON);
        assert!(patience.looks(Duration::ZERO));
        assert!(!patience.looks(LOOK), "it looks forever");
        patience.came(LOOK);
        assert!(!patience.looks(Duration::ZERO));
    }

    #[test]
    fn it_rests_when_somebody_needs_the_processor() {
        let mut patience = Patience::default();
        patience.came(SOON);
        patience.offered(SHARED);
        assert!(patience.looks(Duration::ZERO));
        patience.offered(SHARED * 2);
        for rest in 0..RESTS {
            assert!(!patience.looks(Duration::ZERO), "after {rest} rests");
            patience.came(SOON);
        }
        assert!(patience.looks(Duration::ZERO));
    }
}
