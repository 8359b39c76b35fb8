//! Addresses of peers: whom to dial when, and whom not for a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Waits between attempts at one address.
const REDIAL_MIN: Duration = Duration::from_millis(100);
const REDIAL_MAX: Duration = Duration::from_secs(5);
/// An address the tracker no longer names, and that does not answer, is forgotten after so long.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Addresses of one torrent.
const ADDRESSES_MAX: usize = 256;
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
}

/// The addresses of one torrent. Times are since the torrent began.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: HashMap<SocketAddr, Address>,
    /// Peers, by id, that are not let in until then.
    banned: HashMap<[u8; 20], Duration>,
}

impl Addresses {
    /// The tracker named it.
    pub(crate) fn name(&mut self, address: SocketAddr, now: Duration) {
        if let Some(known) = self.known.get_mut(&address) {
            known.named = now;
            return;
        }
        if self.known.len() >= ADDRESSES_MAX {
            self.known.retain(|_, known| {
                !matches!(known.state, State::Idle(_)) || now < known.named + FORGET_AFTER
            });
        }
        if self.known.len() < ADDRESSES_MAX {
            let fresh = Address { state: State::Idle(now), wait: Duration::ZERO, named: now, bans: 0 };
            self.known.insert(address, fresh);
        }
    }

    /// Addresses to dial now, `limit` at most; they count as busy from here on.
    pub(crate) fn due(&mut self, now: Duration, limit: usize) -> Vec<SocketAddr> {
        let due =
            self.known.iter_mut().filter(|(_, known)| matches!(known.state, State::Idle(at) if at <= now));
        due.take(limit)
            .map(|(address, known)| {
                known.state = State::Busy;
                *address
            })
            .collect()
    }

    /// When the next is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.known
            .values()
            .filter_map(|known| match known.state {
                State::Idle(at) => Some(at),
                State::Busy | State::Ourselves => None,
            })
            .min()
    }

    /// It answered.
    pub(crate) fn connected(&mut self, address: SocketAddr) {
        if let Some(known) = self.known.get_mut(&address) {
            known.wait = Duration::ZERO;
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
        known.state = State::Idle(now + known.wait.mul_f64(0.5 + jitter / 2.0));
        known.wait = (known.wait * 2).clamp(REDIAL_MIN, REDIAL_MAX);
    }

    /// It sent wrong bytes.
    pub(crate) fn ban(&mut self, peer_id: [u8; 20], address: Option<SocketAddr>, now: Duration) {
        let mut ban = BAN_MIN;
        if let Some(known) = address.and_then(|address| self.known.get_mut(&address)) {
            ban = (BAN_MIN * 2u32.saturating_pow(known.bans.min(8))).min(BAN_MAX);
            known.bans += 1;
            known.state = State::Idle(now + ban);
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
        addresses.name(address(), S);
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
        addresses.name(address(), S);
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
        addresses.name(address(), S);
        addresses.due(S, 9);
        addresses.ourselves(address());
        addresses.name(address(), 2 * S);
        assert!(addresses.due(9 * S, 9).is_empty());
    }
}
