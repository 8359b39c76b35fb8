//! What comes in: blocks become pieces, pieces are verified, and whoever waits or lacks them is told.

use super::members::Peer;
use super::{Report, Task};
use crate::connection::Ended;
use crate::wire::{Say, Violation};
use crate::{From, Notice, Presence, Storage, Verdict};
use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use streamer_plan::{BLOCK_BYTES, Block, Outcome, PeerKey, PeerKind, Received};
use tokio::sync::mpsc;

/// Among more peers than these, a piece nobody waits for is told of a little later, with others: a message to each
/// costs more than the piece.
const TELL_AT_ONCE_PEERS: usize = 8;
const TELL_LATER: Duration = Duration::from_millis(25);
/// Blocks that may come unasked before it is no accident.
const UNASKED_MAX: u64 = 256;
/// Pieces a peer may wait for at a time.
const WANTS_MAX: u32 = 256;

/// Pieces on their way here and on.
#[derive(Default)]
pub(super) struct Pieces {
    /// Blocks of pieces that are not complete, by their place in it.
    parts: HashMap<(u32, PeerKey), Vec<Bytes>>,
    /// Who sent the pieces that are being verified.
    senders: HashMap<u32, Sender>,
    /// Of whom pieces were asked while nobody waited for them.
    idly: HashMap<u32, Vec<PeerKey>>,
    /// Peers that wait for a piece we have not.
    wanted: HashMap<u32, Vec<PeerKey>>,
    /// Pieces the peers are told of then.
    untold: Vec<u32>,
    pub(super) tell_at: Option<Duration>,
}

impl Pieces {
    pub(super) fn asked_idly(&mut self, piece: u32, peer: PeerKey) {
        let peers = self.idly.entry(piece).or_default();
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }

    pub(super) fn drop_parts(&mut self, piece: u32, peer: PeerKey) {
        self.parts.remove(&(piece, peer));
    }

    pub(super) fn drop_parts_of(&mut self, peer: PeerKey) {
        self.parts.retain(|(_, sender), _| *sender != peer);
    }

    pub(super) fn drop_peer(&mut self, peer: PeerKey, wants: bool) {
        self.drop_parts_of(peer);
        if wants {
            self.wanted.values_mut().for_each(|peers| peers.retain(|waiting| *waiting != peer));
            self.wanted.retain(|_, peers| !peers.is_empty());
        }
    }

    /// A piece is complete or came another way: what was half of it is thrown away.
    fn complete(&mut self, piece: u32) {
        self.idly.remove(&piece);
        self.parts.retain(|(part, _), _| *part != piece);
    }
}

struct Sender {
    id: [u8; 20],
    listens: Option<SocketAddr>,
    address: Option<SocketAddr>,
    from: From,
}

/// How verification went. Told when dropped, so that it is told also if the storage panics.
pub(super) struct Verified {
    piece: u32,
    peer: PeerKey,
    verdict: Option<Verdict>,
}

struct Verifying {
    verified: Option<Verified>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Drop for Verifying {
    fn drop(&mut self) {
        if let Some(verified) = self.verified.take() {
            // The torrent may have ended.
            let _ = self.reports.send(Report::Verified(verified));
        }
    }
}

impl Task {
    pub(super) fn block(&mut self, key: PeerKey, block: Block, bytes: Bytes) {
        let now = self.now();
        let received = self.scheduler.received(key, block, now);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.bytes_down += u64::from(block.length);
        peer.received.count(u64::from(block.length), self.shared.began.elapsed());
        if received == Received::Unasked {
            peer.unasked += 1;
            if peer.unasked > peer.taken_back + UNASKED_MAX {
                self.gone(key, Ended::Violation(Violation::Unasked));
            }
            return;
        }
        let blocks = self.geometry.blocks(block.piece) as usize;
        let parts = self.pieces.parts.entry((block.piece, key)).or_insert_with(|| vec![Bytes::new(); blocks]);
        parts[(block.begin / BLOCK_BYTES) as usize] = bytes;
        if received == Received::Progress {
            return;
        }
        let sender = peer.sender();
        let parts = self.pieces.parts.remove(&(block.piece, key)).unwrap_or_default();
        self.pieces.complete(block.piece);
        self.verify(block.piece, key, parts, sender.from);
        self.pieces.senders.insert(block.piece, sender);
    }

    fn verify(&self, piece: u32, peer: PeerKey, parts: Vec<Bytes>, from: From) {
        let storage: Arc<dyn Storage> = Arc::clone(&self.storage);
        let mut verifying = Verifying {
            verified: Some(Verified { piece, peer, verdict: None }),
            reports: self.reports.clone(),
        };
        self.shared.tasks.spawn_blocking(move || {
            let verdict = storage.store(piece, whole(parts), from);
            if let Some(verified) = &mut verifying.verified {
                verified.verdict = Some(verdict);
            }
        });
    }

    pub(super) fn verified(&mut self, verified: &Verified) {
        let piece = verified.piece;
        let Some(sender) = self.pieces.senders.remove(&piece) else { return };
        match verified.verdict {
            Some(Verdict::Taken(presence)) => {
                self.scheduler.verified(piece, Outcome::Held);
                let length = u64::from(self.geometry.length(piece));
                self.totals.downloaded.fetch_add(length, Ordering::Relaxed);
                if sender.from == From::WebSeed {
                    self.web_seed_helped();
                }
                self.notice(&Notice::Piece { piece, from: sender.from, address: sender.address });
                self.arrived(piece, presence);
            }
            Some(Verdict::Poisoned) => {
                self.scheduler.verified(piece, Outcome::Refused);
                tracing::warn!(piece, address = ?sender.address, "a peer sent wrong bytes; it is banned for a while");
                self.notice(&Notice::Poisoned { piece, address: sender.address });
                self.ban(verified.peer, sender.id, sender.listens);
            }
            None => {
                tracing::error!(piece, "storing a piece failed");
                self.scheduler.verified(piece, Outcome::Refused);
            }
        }
    }

    /// A piece is here: whoever waits reads it, whoever lacks it is told.
    pub(super) fn arrived(&mut self, piece: u32, presence: Presence) {
        self.scheduler.found(piece);
        self.pieces.complete(piece);
        let waits = self.waits.remove(&piece).unwrap_or_default();
        let urgent = !waits.is_empty();
        for wait in waits {
            // The read may have been given up.
            let _ = wait.send(());
        }
        if presence != Presence::Held {
            return;
        }
        let length = u64::from(self.geometry.length(piece));
        let less = |left: u64| Some(left.saturating_sub(length));
        let _ = self.totals.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        for key in self.pieces.wanted.remove(&piece).unwrap_or_default() {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.wants -= 1;
                peer.tell(Say::Has(piece));
            }
        }
        self.pieces.untold.push(piece);
        let now = self.now();
        let at_once = urgent || self.peers.len() <= TELL_AT_ONCE_PEERS;
        let at = if at_once { now } else { now + TELL_LATER };
        self.pieces.tell_at = Some(self.pieces.tell_at.map_or(at, |before| before.min(at)));
    }

    /// Tells the peers of what came, if it is time.
    pub(super) fn tell_late(&mut self, now: Duration) {
        if self.pieces.tell_at.is_none_or(|at| now < at) {
            return;
        }
        self.pieces.tell_at = None;
        for piece in std::mem::take(&mut self.pieces.untold) {
            for (key, peer) in &self.peers {
                if !self.scheduler.peer_holds(*key, piece) {
                    peer.tell(Say::Has(piece));
                }
            }
        }
    }

    /// Somebody waits now for a piece: whoever was asked for it idly is told.
    pub(super) fn hurry(&mut self, piece: u32) {
        for key in self.pieces.idly.remove(&piece).unwrap_or_default() {
            let Some(peer) = self.peers.get(&key) else { continue };
            self.shared.asks.urge(peer.lane, piece);
            for index in 0..self.geometry.blocks(piece) {
                peer.tell(Say::Urge(self.geometry.block(piece, index)));
            }
        }
    }

    /// A peer has a guest that waits for a piece, and thinks that we fetch it for the site.
    pub(super) fn wanted(&mut self, key: PeerKey, piece: u32) {
        let now = self.now();
        let here = self.scheduler.held().contains(piece) && self.storage.presence(piece) == Presence::Held;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if here {
            peer.tell(Say::Has(piece));
            return;
        }
        let peers = self.pieces.wanted.entry(piece).or_default();
        if peer.wants < WANTS_MAX && !peers.contains(&key) {
            peers.push(key);
            peer.wants += 1;
        }
        if peers.is_empty() {
            self.pieces.wanted.remove(&piece);
        } else if peer.kind == Some(PeerKind::Near) {
            self.scheduler.peer_wants(key, piece, now);
        }
    }
}

impl Peer {
    fn sender(&self) -> Sender {
        let from = match (&self.server, self.is_origin) {
            (Some(_), _) => From::WebSeed,
            (None, true) => From::Origin,
            (None, false) => From::Peer,
        };
        Sender { id: self.id, listens: self.listens, address: self.address(), from }
    }
}

/// A piece's bytes in one: copied here, away from the torrent's task.
fn whole(mut parts: Vec<Bytes>) -> Bytes {
    if let [part] = &mut parts[..] {
        return std::mem::take(part);
    }
    parts.concat().into()
}
