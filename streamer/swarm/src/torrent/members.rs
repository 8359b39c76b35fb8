//! Who is connected: letting peers in, telling them apart, and what becomes of those that leave.

use super::{DIALS_MAX, PEERS_MAX, Report, Task, identity};
use crate::Notice;
use crate::connection::{self, Connection, Ended, Sent};
use crate::engine::{Greeted, dial};
use crate::meter::Meter;
use crate::uploads::Lane;
use crate::wire::{Hello, Say};
use rand::Rng as _;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use streamer_plan::{PeerFacts, PeerKey, PeerKind};
use tokio::sync::mpsc;

pub(super) struct Peer {
    pub(super) id: [u8; 20],
    pub(super) lane: Lane,
    /// The far end of the connection.
    remote: Option<SocketAddr>,
    /// Where it listens, as far as we know: dialled again when the connection ends.
    pub(super) listens: Option<SocketAddr>,
    /// Of a web seed: where it is, once that is known.
    pub(super) server: Option<Arc<OnceLock<SocketAddr>>>,
    /// We dialled.
    dialled: bool,
    pub(super) is_origin: bool,
    /// Unknown until it has said hello, or will not.
    pub(super) kind: Option<PeerKind>,
    /// Dropping it ends the connection.
    pub(super) say: mpsc::UnboundedSender<Say>,
    pub(super) bytes_down: u64,
    pub(super) received: Meter,
    pub(super) sent: Arc<Sent>,
    /// Requests taken back: their blocks may come all the same.
    pub(super) taken_back: u64,
    /// Blocks that came unasked.
    pub(super) unasked: u64,
    /// Pieces it waits for that we have not.
    pub(super) wants: u32,
}

impl Peer {
    pub(super) fn web_seed(
        say: mpsc::UnboundedSender<Say>,
        server: Arc<OnceLock<SocketAddr>>,
        lane: Lane,
    ) -> Self {
        Self {
            id: [0; 20],
            lane,
            remote: None,
            listens: None,
            server: Some(server),
            dialled: false,
            is_origin: false,
            kind: None,
            say,
            bytes_down: 0,
            received: Meter::default(),
            sent: Arc::default(),
            taken_back: 0,
            unasked: 0,
            wants: 0,
        }
    }

    /// Its address to people.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let server = || self.server.as_ref().and_then(|server| server.get().copied());
        self.listens.or(self.remote).or_else(server)
    }

    pub(super) fn tell(&self, say: Say) {
        // Its connection may have ended; we shall hear of it.
        let _ = self.say.send(say);
    }
}

impl Task {
    /// Connected peers without the web seed.
    pub(super) fn hosts(&self) -> usize {
        self.peers.len() - usize::from(self.peers.values().any(|peer| peer.server.is_some()))
    }

    pub(super) fn may_dial(&self) -> bool {
        self.swarm
            && !self.scheduler.held().is_full()
            && self.dialling < DIALS_MAX
            && self.hosts() + self.dialling < PEERS_MAX
    }

    pub(super) fn dial(&mut self, address: SocketAddr) {
        self.dialling += 1;
        let (shared, reports, info_hash) = (Arc::clone(&self.shared), self.reports.clone(), self.info_hash);
        self.shared.tasks.spawn(async move {
            let result = dial(&shared, info_hash, address).await;
            // The torrent may have ended.
            let _ = reports.send(Report::Dialled(address, result));
        });
    }

    /// Lets a peer in, unless it is us, banned, or here already.
    ///
    /// Two peers that dial each other keep the connection that the smaller id dialled: both come to the same answer.
    pub(super) fn admit(&mut self, greeted: Greeted, dialled: Option<SocketAddr>) {
        let now = self.now();
        if greeted.peer_id == self.shared.peer_id {
            dialled.into_iter().for_each(|address| self.addresses.ourselves(address));
            return;
        }
        let full = !self.swarm || self.hosts() >= PEERS_MAX;
        if full || self.addresses.is_banned(&greeted.peer_id, now) {
            dialled.into_iter().for_each(|address| self.addresses.lost(address, now, rand::rng().random()));
            return;
        }
        let mut listens = dialled;
        let same = |peer: &Peer| peer.id == greeted.peer_id && peer.server.is_none();
        if let Some((key, here)) = self.peers.iter_mut().find(|(_, peer)| same(peer)) {
            let ours_wins = self.shared.peer_id < greeted.peer_id;
            match (here.dialled, dialled) {
                // It has two addresses; the new one is tried again later, should this connection end.
                (true, Some(address)) => {
                    self.addresses.lost(address, now, 1.0);
                    return;
                }
                (false, Some(address)) if !ours_wins => {
                    here.listens = Some(address);
                    return;
                }
                (true, None) if ours_wins => return,
                // It dialled twice: the older connection is dead, or it will drop one.
                (false, None) => {}
                (false, Some(_)) | (true, None) => {
                    listens = listens.or(here.listens);
                    let key = *key;
                    self.forget(key, &Ended::Dropped);
                }
            }
        }
        self.connect(greeted, dialled, listens);
    }

    fn connect(&mut self, greeted: Greeted, dialled: Option<SocketAddr>, listens: Option<SocketAddr>) {
        dialled.into_iter().for_each(|address| self.addresses.connected(address));
        let (say, queue) = mpsc::unbounded_channel();
        let peer = Peer {
            id: greeted.peer_id,
            remote: Some(greeted.remote),
            listens,
            server: None,
            dialled: dialled.is_some(),
            is_origin: greeted.is_origin(),
            ..Peer::web_seed(say, Arc::default(), self.shared.lane())
        };
        tracing::debug!(address = %greeted.remote, origin = peer.is_origin, "a peer is connected");
        let held = self.storage.held();
        if greeted.extensible {
            peer.tell(Say::Hello(self.shared.site.clone()));
        }
        let complete = held.is_full();
        if held.count() > 0 {
            peer.tell(Say::HasAll(held));
        }
        peer.tell(Say::Unchoke);
        if !complete {
            peer.tell(Say::Interested);
        }
        let (lane, sent) = (peer.lane, Arc::clone(&peer.sent));
        let key = self.insert(peer);
        let connection = Connection {
            key,
            lane,
            ours: greeted.is_ours(),
            extensible: greeted.extensible,
            stream: greeted.stream,
            shared: Arc::clone(&self.shared),
            storage: Arc::clone(&self.storage),
            say: queue,
            events: self.events.clone(),
            sent,
        };
        self.shared.tasks.spawn(connection::run(connection));
    }

    /// A peer is connected; it has said nothing yet.
    pub(super) fn insert(&mut self, peer: Peer) -> PeerKey {
        let key = self.next_key;
        self.next_key += 1;
        if let Some(address) = peer.address() {
            self.notice(&Notice::Joined { address });
        }
        self.peers.insert(key, peer);
        key
    }

    /// A peer said how it speaks, and where it is.
    pub(super) fn greet(&mut self, key: PeerKey, hello: Option<Hello>) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.kind.is_none()) else { return };
        let ours = hello.filter(|hello| hello.numbers.want != 0);
        let same_site = ours.as_ref().is_some_and(|hello| hello.site == self.shared.site);
        let kind = match (&peer.server, peer.is_origin) {
            (Some(_), _) => PeerKind::WebSeed,
            (None, true) => PeerKind::Origin,
            (None, false) if same_site => PeerKind::Near,
            (None, false) => PeerKind::Far,
        };
        peer.kind = Some(kind);
        let identity = ours.map(|_| identity(&peer.id));
        self.shared.uploads.place(peer.lane, kind != PeerKind::Near);
        self.scheduler.peer_joined(key, PeerFacts { kind, identity }, now);
    }

    pub(super) fn gone(&mut self, key: PeerKey, ended: Ended) {
        let Some(peer) = self.forget(key, &ended) else { return };
        match ended {
            Ended::WebSeed(error) => self.web_seed_failed(&error),
            Ended::Violation(violation) => {
                tracing::warn!(address = ?peer.remote, %violation, "a peer broke the protocol; it is banned for a while");
                self.addresses.ban(peer.id, peer.listens, self.now());
            }
            ended => {
                tracing::debug!(address = ?peer.remote, %ended, "a peer is gone");
                if let Some(address) = peer.listens {
                    self.addresses.lost(address, self.now(), rand::rng().random());
                }
            }
        }
    }

    /// A peer sent wrong bytes.
    pub(super) fn ban(&mut self, key: PeerKey, id: [u8; 20], listens: Option<SocketAddr>) {
        let why = Ended::Poisoned;
        match self.forget(key, &why) {
            Some(peer) if peer.server.is_some() => self.web_seed_lied(),
            _ => self.addresses.ban(id, listens, self.now()),
        }
    }

    /// A peer is no longer here. Its address is for the caller to deal with.
    pub(super) fn forget(&mut self, key: PeerKey, why: &Ended) -> Option<Peer> {
        let peer = self.peers.remove(&key)?;
        self.pieces.drop_peer(key, peer.wants > 0);
        self.scheduler.peer_left(key);
        self.shared.asks.leave(peer.lane);
        self.totals.uploaded.fetch_add(peer.sent.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        if let Some(address) = peer.address() {
            self.notice(&Notice::Left { address, why: why.to_string() });
        }
        Some(peer)
    }
}
