//! Who of a site fetches a piece from outside: one copy crosses the WAN, the others get it from whoever brought it.
//!
//! It is the one with the highest rendezvous hash (Thaler and Ravishankar, 1998) of piece and identity, among us and our
//! near peers that fetch: every host comes to the same answer without a word, and each leads for its share of pieces.

use super::peer::Peer;
use super::{PeerKey, Scheduler};
use std::time::Duration;

/// A near peer counts as one that fetches for so long after it joined or announced a piece. One whose image is merely
/// kept would be waited for in vain.
const FETCHES_FOR: Duration = Duration::from_secs(15);

impl Peer {
    /// It joined, or announced a piece.
    pub(super) fn shows_life(&mut self, now: Duration) {
        self.fetches_until = now + FETCHES_FOR;
    }

    pub(super) fn showed_life_since(&self, then: Duration) -> bool {
        self.fetches_until > then + FETCHES_FOR
    }

    pub(super) fn fetches(&self, now: Duration) -> Option<u64> {
        let counts = self.kind.is_near() && now < self.fetches_until;
        self.identity.filter(|_| counts)
    }
}

impl Scheduler {
    /// How many of our site would fetch this piece before us.
    pub(super) fn site_rank(&self, piece: u32, now: Duration) -> u32 {
        let ours = rendezvous(piece, self.identity);
        let before = self.peers.values().filter_map(|peer| peer.fetches(now));
        before.fold(0, |rank, identity| rank + u32::from(rendezvous(piece, identity) > ours))
    }

    /// The near peer that fetches this piece for the site; `None`: we do.
    pub(super) fn site_fetcher(&self, piece: u32, now: Duration) -> Option<PeerKey> {
        let ours = rendezvous(piece, self.identity);
        self.peers
            .iter()
            .filter_map(|(key, peer)| Some((rendezvous(piece, peer.fetches(now)?), *key)))
            .filter(|(hash, _)| *hash > ours)
            .max()
            .map(|(_, key)| key)
    }
}

/// `SplitMix64`'s finaliser over piece and identity: any good mix will do, but all hosts must use the same.
fn rendezvous(piece: u32, identity: u64) -> u64 {
    let mut mixed = identity ^ u64::from(piece).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
