//! One torrent: joins the scheduler, the peers, the tracker and the storage. One task; nothing in here waits for a peer
//! or a disk.

use crate::addresses::Addresses;
use crate::connection::{self, Connection, Ended, Event};
use crate::engine::{Greeted, PeerStatus, Shared, TorrentStatus, dial};
use crate::tracker::{Announcer, News, Totals};
use crate::wire::Say;
use crate::{From, Presence, Storage, Verdict};
use bytes::{Bytes, BytesMut};
use rand::Rng as _;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use streamer_plan::{
    Action, Background, Block, Geometry, Outcome, PeerFacts, PeerKey, PeerKind, Received, Scheduler,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Peers of one torrent.
const PEERS_MAX: usize = 64;
/// Addresses dialled at a time.
const DIALS_MAX: usize = 16;
/// Events of peers waiting for the torrent: a few windows of blocks.
const EVENTS_MAX: usize = 128;

/// What the outside asks of a torrent.
pub(crate) enum Command {
    Fetch { read: Range<u32>, waits: Vec<(u32, oneshot::Sender<()>)> },
    Release(Vec<u32>),
    Found(u32),
    Lost(Vec<u32>),
    Prefetch(bool),
    Tracker(String),
    Status(oneshot::Sender<TorrentStatus>),
    Accepted(Greeted),
}

/// What the torrent's own helpers report.
enum Report {
    Dialled(SocketAddr, io::Result<Greeted>),
    Verified { piece: u32, peer: PeerKey, verdict: Option<Verdict> },
}

struct Peer {
    id: [u8; 20],
    remote: SocketAddr,
    /// Where it listens, as far as we know: dialled again when the connection ends.
    listens: Option<SocketAddr>,
    /// We dialled.
    dialled: bool,
    origin: bool,
    /// Dropping it ends the connection.
    say: mpsc::UnboundedSender<Say>,
    bytes_down: u64,
    bytes_up: Arc<AtomicU64>,
}

struct Tracking {
    stop: CancellationToken,
    hurry: Arc<Notify>,
    trouble: Option<String>,
}

/// The state of one torrent's task.
pub(crate) struct Task {
    shared: Arc<Shared>,
    info_hash: [u8; 20],
    storage: Arc<dyn Storage>,
    geometry: Geometry,
    scheduler: Scheduler,
    peers: BTreeMap<PeerKey, Peer>,
    next_key: PeerKey,
    /// Pieces being put together.
    buffers: HashMap<(u32, PeerKey), BytesMut>,
    /// Who sent the pieces that are being verified.
    senders: HashMap<u32, ([u8; 20], Option<SocketAddr>)>,
    waits: HashMap<u32, Vec<oneshot::Sender<()>>>,
    addresses: Addresses,
    dialling: usize,
    tracker: String,
    tracking: Option<Tracking>,
    totals: Arc<Totals>,
    began: Instant,
    events: mpsc::Sender<(PeerKey, Event)>,
    event_queue: mpsc::Receiver<(PeerKey, Event)>,
    reports: mpsc::UnboundedSender<Report>,
    report_queue: mpsc::UnboundedReceiver<Report>,
    news: mpsc::Sender<News>,
    news_queue: mpsc::Receiver<News>,
}

impl Task {
    pub(crate) fn new(
        shared: Arc<Shared>,
        info_hash: [u8; 20],
        storage: Arc<dyn Storage>,
        tracker: String,
    ) -> Self {
        let geometry = storage.geometry();
        let held = storage.held();
        let here: u64 = held.iter().map(|piece| u64::from(geometry.length(piece))).sum();
        let totals = Totals { left: AtomicU64::new(geometry.size_bytes() - here), ..Totals::default() };
        let (events, event_queue) = mpsc::channel(EVENTS_MAX);
        let (reports, report_queue) = mpsc::unbounded_channel();
        let (news, news_queue) = mpsc::channel(4);
        Self {
            shared,
            info_hash,
            geometry,
            scheduler: Scheduler::new(geometry, held, rand::rng().random(), rand::rng().random()),
            storage,
            peers: BTreeMap::new(),
            next_key: 0,
            buffers: HashMap::new(),
            senders: HashMap::new(),
            waits: HashMap::new(),
            addresses: Addresses::default(),
            dialling: 0,
            tracker,
            tracking: None,
            totals: Arc::new(totals),
            began: Instant::now(),
            events,
            event_queue,
            reports,
            report_queue,
            news,
            news_queue,
        }
    }

    /// Runs until stopped.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        stop: CancellationToken,
    ) {
        let trackers = tokio_util::task::TaskTracker::new();
        self.track(&trackers);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                Some(command) = commands.recv() => self.command(command, &trackers),
                Some((peer, event)) = self.event_queue.recv() => self.event(peer, event),
                Some(report) = self.report_queue.recv() => self.report(report),
                Some(news) = self.news_queue.recv() => self.heard(news),
                () = sleep_until(deadline) => {}
                () = stop.cancelled() => break,
            }
            // What has come meanwhile is planned for at once.
            while let Ok((peer, event)) = self.event_queue.try_recv() {
                self.event(peer, event);
            }
            self.step();
        }
        // Connections end when their senders go; the tracker is told.
        self.peers.clear();
        if let Some(tracking) = &self.tracking {
            tracking.stop.cancel();
        }
        drop(self.news_queue);
        trackers.close();
        trackers.wait().await;
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn deadline(&self) -> Option<Instant> {
        let dial = (self.may_dial()).then(|| self.addresses.deadline()).flatten();
        let plan = self.scheduler.deadline(self.now());
        dial.into_iter().chain(plan).min().map(|at| self.began + at)
    }

    fn may_dial(&self) -> bool {
        !self.scheduler.held().is_full()
            && self.dialling < DIALS_MAX
            && self.peers.len() + self.dialling < PEERS_MAX
    }

    /// Carries out what the scheduler wants now.
    fn step(&mut self) {
        for action in self.scheduler.plan(self.now()) {
            let (peer, say) = match action {
                Action::Request { peer, block, urgent: _ } => (peer, Say::Ask(block)),
                Action::Cancel { peer, block } => {
                    self.buffers.remove(&(block.piece, peer));
                    (peer, Say::TakeBack(block))
                }
                Action::Want { .. } => continue,
            };
            self.tell(peer, say);
        }
        if self.may_dial() {
            let room = (DIALS_MAX - self.dialling).min(PEERS_MAX - self.peers.len() - self.dialling);
            for address in self.addresses.due(self.now(), room) {
                self.dial(address);
            }
        }
        if let Some(tracking) = self.tracking.as_ref().filter(|_| self.scheduler.lacks_sources()) {
            tracking.hurry.notify_one();
        }
    }

    fn command(&mut self, command: Command, trackers: &tokio_util::task::TaskTracker) {
        match command {
            Command::Fetch { read, waits } => self.fetch(read, waits),
            Command::Release(pieces) => self.release(&pieces),
            Command::Found(piece) => self.arrived(piece, Presence::Held),
            Command::Lost(pieces) => self.lost(&pieces),
            Command::Prefetch(everything) => {
                self.scheduler.set_background(if everything { Background::Full } else { Background::Off });
            }
            Command::Tracker(url) if url == self.tracker => {}
            Command::Tracker(url) => {
                self.tracker = url;
                self.track(trackers);
            }
            Command::Status(tell) => {
                // Whoever asked may have gone.
                let _ = tell.send(self.status());
            }
            Command::Accepted(greeted) => self.admit(greeted, None),
        }
    }

    fn fetch(&mut self, read: Range<u32>, waits: Vec<(u32, oneshot::Sender<()>)>) {
        for (piece, tell) in waits {
            if self.storage.presence(piece) == Presence::Absent {
                if self.scheduler.held().contains(piece) {
                    self.scheduler.lost(piece);
                }
                self.waits.entry(piece).or_default().push(tell);
            } else {
                // The read may have been given up.
                let _ = tell.send(());
            }
        }
        let now = self.now();
        self.scheduler.demand(read.clone(), now);
        for piece in read.filter(|piece| !self.waits.contains_key(piece)) {
            self.scheduler.release(piece);
        }
    }

    fn lost(&mut self, pieces: &[u32]) {
        for piece in pieces.iter().copied() {
            if self.storage.presence(piece) == Presence::Absent && self.scheduler.held().contains(piece) {
                self.scheduler.lost(piece);
            }
        }
    }

    fn release(&mut self, pieces: &[u32]) {
        for piece in pieces {
            let Some(waits) = self.waits.get_mut(piece) else { continue };
            waits.retain(|wait| !wait.is_closed());
            if waits.is_empty() {
                self.waits.remove(piece);
                self.scheduler.release(*piece);
            }
        }
    }

    fn event(&mut self, key: PeerKey, event: Event) {
        if !self.peers.contains_key(&key) {
            return;
        }
        match event {
            Event::Choking(choking) => {
                if choking {
                    self.buffers.retain(|(_, peer), _| *peer != key);
                }
                self.scheduler.peer_choking(key, choking);
            }
            Event::Has(piece) => self.scheduler.peer_has(key, piece),
            Event::HasAll(pieces) => self.scheduler.peer_pieces(key, pieces),
            Event::Block(block, bytes) => self.block(key, block, &bytes),
            Event::Gone(ended) => self.gone(key, &ended),
        }
    }

    fn block(&mut self, key: PeerKey, block: Block, bytes: &Bytes) {
        let now = self.now();
        let received = self.scheduler.received(key, block, now);
        if received == Received::Unasked {
            return;
        }
        let length = self.geometry.length(block.piece) as usize;
        let buffer = self.buffers.entry((block.piece, key)).or_insert_with(|| BytesMut::zeroed(length));
        let begin = block.begin as usize;
        buffer[begin..begin + bytes.len()].copy_from_slice(bytes);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.bytes_down += u64::from(block.length);
        if received == Received::Progress {
            return;
        }
        let from = if peer.origin { From::Origin } else { From::Peer };
        self.senders.insert(block.piece, (peer.id, peer.listens));
        let whole = self.buffers.remove(&(block.piece, key)).unwrap_or_default().freeze();
        self.buffers.retain(|(piece, _), _| *piece != block.piece);
        self.verify(block.piece, key, whole, from);
    }

    fn verify(&self, piece: u32, peer: PeerKey, whole: Bytes, from: From) {
        let storage = Arc::clone(&self.storage);
        let reports = self.reports.clone();
        self.shared.tasks.spawn(async move {
            let stored = tokio::task::spawn_blocking(move || storage.store(piece, whole, from)).await;
            if let Err(error) = &stored {
                tracing::error!(%error, piece, "storing a piece failed");
            }
            // The torrent may have ended.
            let _ = reports.send(Report::Verified { piece, peer, verdict: stored.ok() });
        });
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Dialled(address, result) => {
                self.dialling -= 1;
                match result {
                    Ok(greeted) => self.admit(greeted, Some(address)),
                    Err(error) => {
                        tracing::debug!(%address, %error, "a peer does not answer");
                        self.addresses.lost(address, self.now(), rand::rng().random());
                    }
                }
            }
            Report::Verified { piece, peer, verdict } => self.verified(piece, peer, verdict),
        }
    }

    fn verified(&mut self, piece: u32, key: PeerKey, verdict: Option<Verdict>) {
        let sender = self.senders.remove(&piece);
        match verdict {
            Some(Verdict::Taken(presence)) => {
                self.scheduler.verified(piece, Outcome::Held);
                let length = u64::from(self.geometry.length(piece));
                self.totals.downloaded.fetch_add(length, Ordering::Relaxed);
                self.arrived(piece, presence);
            }
            Some(Verdict::Poisoned) => {
                self.scheduler.verified(piece, Outcome::Refused);
                if let Some((id, listens)) = sender {
                    tracing::warn!(piece, address = ?self.peers.get(&key).map(|peer| peer.remote), "a peer sent wrong bytes; it is banned for a while");
                    self.forget(key);
                    self.addresses.ban(id, listens, self.now());
                }
            }
            None => self.scheduler.verified(piece, Outcome::Refused),
        }
    }

    /// A piece is here: whoever waits reads it, whoever lacks it is told.
    fn arrived(&mut self, piece: u32, presence: Presence) {
        self.scheduler.found(piece);
        for wait in self.waits.remove(&piece).unwrap_or_default() {
            // The read may have been given up.
            let _ = wait.send(());
        }
        if presence != Presence::Held {
            return;
        }
        let length = u64::from(self.geometry.length(piece));
        let less = |left: u64| Some(left.saturating_sub(length));
        let _ = self.totals.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        for (key, peer) in &self.peers {
            if !self.scheduler.peer_holds(*key, piece) {
                // Its connection may have ended; we shall hear of it.
                let _ = peer.say.send(Say::Has(piece));
            }
        }
    }

    fn heard(&mut self, news: News) {
        let trouble = match news {
            Ok(addresses) => {
                let now = self.now();
                for address in addresses.into_iter().filter(|address| *address != self.shared.announce) {
                    self.addresses.name(address, now);
                }
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(tracking) = &mut self.tracking {
            tracking.trouble = trouble;
        }
    }

    /// Announces to the torrent's tracker, and no longer to the one before.
    fn track(&mut self, trackers: &tokio_util::task::TaskTracker) {
        if let Some(before) = self.tracking.take() {
            before.stop.cancel();
        }
        let tracking =
            Tracking { stop: CancellationToken::new(), hurry: Arc::new(Notify::new()), trouble: None };
        let announcer = Announcer {
            http: self.shared.http.clone(),
            url: self.tracker.clone(),
            info_hash: self.info_hash,
            peer_id: self.shared.peer_id,
            address: self.shared.announce,
            totals: Arc::clone(&self.totals),
            hurry: Arc::clone(&tracking.hurry),
        };
        trackers.spawn(announcer.run(self.news.clone(), tracking.stop.clone()));
        self.tracking = Some(tracking);
    }

    fn dial(&mut self, address: SocketAddr) {
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
    fn admit(&mut self, greeted: Greeted, dialled: Option<SocketAddr>) {
        let now = self.now();
        if greeted.peer_id == self.shared.peer_id {
            dialled.into_iter().for_each(|address| self.addresses.ourselves(address));
            return;
        }
        let full = self.peers.len() >= PEERS_MAX;
        if full || self.addresses.is_banned(&greeted.peer_id, now) {
            dialled.into_iter().for_each(|address| self.addresses.lost(address, now, rand::rng().random()));
            return;
        }
        let mut listens = dialled;
        let here = self.peers.iter_mut().find(|(_, peer)| peer.id == greeted.peer_id);
        if let Some((key, here)) = here {
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
                    self.peers.remove(&key);
                    self.buffers.retain(|(_, peer), _| *peer != key);
                    self.scheduler.peer_left(key);
                }
            }
        }
        self.connect(greeted, dialled, listens);
    }

    fn connect(&mut self, greeted: Greeted, dialled: Option<SocketAddr>, listens: Option<SocketAddr>) {
        dialled.into_iter().for_each(|address| self.addresses.connected(address));
        let key = self.next_key;
        self.next_key += 1;
        let (say, queue) = mpsc::unbounded_channel();
        let peer = Peer {
            id: greeted.peer_id,
            remote: greeted.remote,
            listens,
            dialled: dialled.is_some(),
            origin: greeted.is_origin(),
            say,
            bytes_down: 0,
            bytes_up: Arc::default(),
        };
        tracing::debug!(address = %peer.remote, origin = peer.origin, "a peer is connected");
        let kind = if peer.origin { PeerKind::Origin } else { PeerKind::Near };
        self.scheduler.peer_joined(key, PeerFacts { kind, identity: None }, self.now());
        let held = self.storage.held();
        let complete = held.is_full();
        let mut hello = vec![Say::Unchoke];
        if held.count() > 0 {
            hello.insert(0, Say::HasAll(held));
        }
        if !complete {
            hello.push(Say::Interested);
        }
        for say in hello {
            // The receiver is here.
            let _ = peer.say.send(say);
        }
        let connection = Connection {
            key,
            ours: greeted.is_ours(),
            stream: greeted.stream,
            storage: Arc::clone(&self.storage),
            disk: Arc::clone(&self.shared.disk),
            say: queue,
            events: self.events.clone(),
            uploaded: Arc::clone(&peer.bytes_up),
        };
        self.peers.insert(key, peer);
        self.shared.tasks.spawn(connection::run(connection));
    }

    fn gone(&mut self, key: PeerKey, ended: &Ended) {
        let Some(peer) = self.forget(key) else { return };
        match ended {
            Ended::Violation(violation) => {
                tracing::warn!(address = %peer.remote, %violation, "a peer broke the protocol; it is banned for a while");
                self.addresses.ban(peer.id, peer.listens, self.now());
            }
            ended => {
                tracing::debug!(address = %peer.remote, %ended, "a peer is gone");
                if let Some(address) = peer.listens {
                    self.addresses.lost(address, self.now(), rand::rng().random());
                }
            }
        }
    }

    fn forget(&mut self, key: PeerKey) -> Option<Peer> {
        self.buffers.retain(|(_, peer), _| *peer != key);
        self.scheduler.peer_left(key);
        let peer = self.peers.remove(&key)?;
        self.totals.uploaded.fetch_add(peer.bytes_up.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(peer)
    }

    fn tell(&self, peer: PeerKey, say: Say) {
        if let Some(peer) = self.peers.get(&peer) {
            // Its connection may have ended; we shall hear of it.
            let _ = peer.say.send(say);
        }
    }

    fn status(&self) -> TorrentStatus {
        let peers = self.peers.iter().map(|(key, peer)| PeerStatus {
            address: peer.listens.unwrap_or(peer.remote),
            origin: peer.origin,
            pieces: self.scheduler.peer_count(*key),
            bytes_down: peer.bytes_down,
            bytes_up: peer.bytes_up.load(Ordering::Relaxed),
        });
        TorrentStatus {
            peers: peers.collect(),
            fetching: self.scheduler.in_flight().collect(),
            tracker_trouble: self.tracking.as_ref().and_then(|tracking| tracking.trouble.clone()),
            lacks_sources: self.scheduler.lacks_sources(),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
