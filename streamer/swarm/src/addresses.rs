//! Addresses of peers: whom to dial when, and whom not for a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Waits between attempts at one address that was connected before, and at one that never was.
const REDIAL_MIN: Duration = Duration::from_millis(100);
const REDIAL_MAX: Duration = Duration::from_secs(5);
const REDIAL_STRANGER_MAX: Duration = Duration::from_secs(60);
/// An address the tracker no longer names, and that does not answer, is forgotten after so long.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Addresses of one torrent.
const ADDRESSES_MAX: usize = 1024;
/// First ban for wrong bytes; each further one is twice as long.
const BAN_MIN: Duration = Duration::from_secs(10);
const BAN_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
enum State {
    /// To be dialled then.
    Idle(Duration),
    /// Being dialled, or connected.
    Busy,
    /// It is us.
    Ourselves,
}

#[derive(Debug)]
struct Address {
    state: State,
    wait: Duration,
    named: Duration,
    bans: u32,
    /// It was connected once.
    proven: bool,
}

impl Address {
    /// Whom to dial first: those that were connected once, then those that failed least.
    fn rank(&self) -> (bool, Duration) {
        (!self.proven, self.wait)
    }

    fn may_be_replaced(&self) -> bool {
        matches!(self.state, State::Idle(_)) && !self.proven && self.wait > Duration::ZERO
    }
}

/// The addresses of one torrent. Times are since the torrent began.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: HashMap<SocketAddr, Address>,
    /// Peers, by id, that are not let in until then.
    banned: HashMap<[u8; 20], Duration>,
    /// No address is due before.
    soonest: Option<Duration>,
}

impl Addresses {
    /// The tracker named these. If there are too many, they take the place of those that never answered.
    pub(crate) fn name(&mut self, addresses: Vec<SocketAddr>, now: Duration) {
        let mut fresh = Vec::new();
        for address in addresses {
            match self.known.get_mut(&address) {
                Some(known) => known.named = now,
                None => fresh.push(address),
            }
        }
        let excess = (self.known.len() + fresh.len()).saturating_sub(ADDRESSES_MAX);
        if excess > 0 {
            self.make_room(excess);
        }
        for address in fresh {
            if self.known.len() >= ADDRESSES_MAX {
                break;
            }
            let idle = State::Idle(now);
            let fresh = Address { state: idle, wait: Duration::ZERO, named: now, bans: 0, proven: false };
            self.known.insert(address, fresh);
            self.sooner(now);
        }
    }

    fn make_room(&mut self, count: usize) {
        let mut worst: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| known.may_be_replaced())
            .map(|(address, known)| (known.wait, *address))
            .collect();
        worst.sort_unstable_by(|a, b| b.cmp(a));
        for (_, address) in worst.into_iter().take(count) {
            self.known.remove(&address);
        }
    }

    fn sooner(&mut self, at: Duration) {
        self.soonest = Some(self.soonest.map_or(at, |soonest| soonest.min(at)));
    }

    /// Addresses to dial now, `limit` at most; they count as busy from here on.
    pub(crate) fn due(&mut self, now: Duration, limit: usize) -> Vec<SocketAddr> {
        if self.soonest.is_none_or(|soonest| now < soonest) {
            return Vec::new();
        }
        let mut due: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| matches!(known.state, State::Idle(at) if at <= now))
            .map(|(address, known)| (known.rank(), *address))
            .collect();
        due.sort_unstable();
        due.truncate(limit);
        for (_, address) in &due {
            self.known.entry(*address).and_modify(|known| known.state = State::Busy);
        }
        self.soonest = self
            .known
            .values()
            .filter_map(|known| match known.state {
                State::Idle(at) => Some(at),
                State::Busy | State::Ourselves => None,
            })
            .min();
        due.into_iter().map(|(_, address)| address).collect()
    }

    /// The next is not due before.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.soonest
    }

    /// It answered.
    pub(crate) fn connected(&mut self, address: SocketAddr) {
        if let Some(known) = self.known.get_mut(&address) {
            known.wait = Duration::ZERO;
            known.proven = true;
        }
    }

    /// It is us.
    pub(crate) fn ourselves(&mut self, address: SocketAddr) {
        if let Some(known) = self.known.get_mut(&address) {
            known.state = State::Ourselves;
        }
    }

    /// It did not answer, or the connection is gone: dial again, at once the first time.
    pub(crate) fn lost(&mut self, address: SocketAddr, now: Duration, jitter: f64) {
        let Some(known) = self.known.get_mut(&address) else { return };
        if now >= known.named + FORGET_AFTER && known.wait >= REDIAL_MAX {
            self.known.remove(&address);
            return;
        }
        let at = now + known.wait.mul_f64(0.5 + jitter / 2.0);
        known.state = State::Idle(at);
        let max = if known.proven { REDIAL_MAX } else { REDIAL_STRANGER_MAX };
        known.wait = (known.wait * 2).clamp(REDIAL_MIN, max);
        self.sooner(at);
    }

    /// It sent wrong bytes.
    pub(crate) fn ban(&mut self, peer_id: [u8; 20], address: Option<SocketAddr>, now: Duration) {
        let mut ban = BAN_MIN;
        if let Some(known) = address.and_then(|address| self.known.get_mut(&address)) {
            ban = (BAN_MIN * 2u32.saturating_pow(known.bans.min(8))).min(BAN_MAX);
            known.bans += 1;
            known.state = State::Idle(now + ban);
            self.sooner(now + ban);
        }
        self.banned.retain(|_, until| *until > now);
        self.banned.insert(peer_id, now + ban);
    }

    pub(crate) fn is_banned(&self, peer_id: &[u8; 20], now: Duration) -> bool {
        self.banned.get(peer_id).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn address() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 6881))
    }

    #[test]
    fn a_lost_peer_is_dialled_at_once_and_then_ever_less() {
        let mut addresses = Addresses::default();
        addresses.name(vec![address()], S);
        assert_eq!(addresses.due(S, 9), [address()]);
        addresses.connected(address());
        addresses.lost(address(), S, 1.0);
        assert_eq!(addresses.due(S, 9), [address()]);
        let mut now = S;
        for _ in 0..20 {
            addresses.lost(address(), now, 1.0);
            let next = addresses.deadline().unwrap();
            assert!(next > now && next <= now + REDIAL_MAX);
            now = next;
            assert_eq!(addresses.due(now, 9).len(), 1);
        }
    }

    #[test]
    fn a_banned_peer_is_left_alone_for_a_while() {
        let mut addresses = Addresses::default();
        addresses.name(vec![address()], S);
        addresses.due(S, 9);
        addresses.ban([1; 20], Some(address()), S);
        assert!(addresses.is_banned(&[1; 20], 2 * S));
        assert!(addresses.due(2 * S, 9).is_empty());
        assert!(!addresses.is_banned(&[1; 20], 60 * S));
        assert_eq!(addresses.due(60 * S, 9), [address()]);
    }

    #[test]
    fn we_do_not_dial_ourselves_again() {
        let mut addresses = Addresses::default();
        addresses.name(vec![address()], S);
        addresses.due(S, 9);
        addresses.ourselves(address());
        addresses.name(vec![address()], 2 * S);
        assert!(addresses.due(9 * S, 9).is_empty());
    }
    // A tracker that lies names thousands of addresses where nobody is.
    #[test]
    fn dead_addresses_crowd_out_nobody_who_answers() {
        let mut addresses = Addresses::default();
        let dead = |from: u16| (from..from + 2_000).map(|port| SocketAddr::from(([10, 9, 9, 9], port)));
        addresses.name(dead(1).collect(), S);
        let mut now = S;
        for _ in 0..100 {
            for address in addresses.due(now, 32) {
                addresses.lost(address, now, 1.0);
            }
            now += Duration::from_millis(50);
        }
        addresses.name(dead(3_000).take(50).chain([address()]).collect(), now);
        assert!(addresses.known.len() <= ADDRESSES_MAX);
        let mut dialled = Vec::new();
        for _ in 0..2 {
            dialled.extend(addresses.due(now, 32));
        }
        assert!(dialled.contains(&address()), "what is new goes first");
        addresses.connected(address());
        addresses.name(dead(10_000).collect(), now);
        addresses.lost(address(), now, 1.0);
        assert_eq!(addresses.due(now, 1), [address()], "who answered before is never replaced");
    }
}
