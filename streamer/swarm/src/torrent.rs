//! One torrent: joins the scheduler, the peers, the tracker and the storage. One task; nothing in here waits for a peer
//! or a disk.

mod arrivals;
mod members;
mod status;
mod web;

pub use status::{PeerStatus, TorrentStatus};

use crate::addresses::Addresses;
use crate::asks::Ask;
use crate::connection::{Ended, Event};
use crate::engine::{Greeted, Shared};
use crate::tracker::{Announcer, News, Totals};
use crate::wire::Say;
use crate::{Notice, Presence, Storage};
use arrivals::{Pieces, Verified};
use members::Peer;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use streamer_plan::{Action, Background, Geometry, PeerKey, PeerKind, Scheduler};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use web::Web;

/// Peers of one torrent: all hosts of a large site, and some more.
const PEERS_MAX: usize = 128;
/// Addresses dialled at a time.
const DIALS_MAX: usize = 32;
/// Events of peers waiting for the torrent: a few windows of blocks.
const EVENTS_MAX: usize = 128;

/// What the outside asks of a torrent.
pub(crate) enum Command {
    Fetch { read: Range<u32>, waits: Vec<(u32, oneshot::Sender<()>)> },
    Release(Vec<u32>),
    Found(u32),
    Lost(Vec<u32>),
    Background(Background),
    Profile(Vec<u32>),
    Tracker(String),
    WebSeed(Option<String>),
    Swarm(bool),
    Status(oneshot::Sender<TorrentStatus>),
    Accepted(Greeted),
}

/// What the torrent's own helpers report.
enum Report {
    Dialled(SocketAddr, io::Result<Greeted>),
    Verified(Verified),
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
    pieces: Pieces,
    waits: HashMap<u32, Vec<oneshot::Sender<()>>>,
    addresses: Addresses,
    dialling: usize,
    /// Peers are asked and served; else only the web seed.
    swarm: bool,
    web: Option<Web>,
    tracker: String,
    tracking: Option<Tracking>,
    trackers: TaskTracker,
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
            info_hash,
            geometry,
            scheduler: Scheduler::new(geometry, held, identity(&shared.peer_id), rand::rng().random()),
            shared,
            storage,
            peers: BTreeMap::new(),
            next_key: 0,
            pieces: Pieces::default(),
            waits: HashMap::new(),
            addresses: Addresses::default(),
            dialling: 0,
            swarm: true,
            web: None,
            tracker,
            tracking: None,
            trackers: TaskTracker::new(),
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
        self.track();
        loop {
            let deadline = self.deadline();
            tokio::select! {
                Some(command) = commands.recv() => self.command(command),
                Some((peer, event)) = self.event_queue.recv() => self.event(peer, event),
                Some(report) = self.report_queue.recv() => self.report(report),
                Some(news) = self.news_queue.recv() => self.heard(news),
                () = sleep_until(deadline) => {}
                () = stop.cancelled() => break,
            }
            // What has come meanwhile is planned for at once.
            while let Ok(command) = commands.try_recv() {
                self.command(command);
            }
            while let Ok(report) = self.report_queue.try_recv() {
                self.report(report);
            }
            for _ in 0..EVENTS_MAX {
                let Ok((peer, event)) = self.event_queue.try_recv() else { break };
                self.event(peer, event);
            }
            self.step();
        }
        // Connections end when their senders go; the tracker is told.
        for peer in self.peers.values() {
            self.shared.asks.leave(peer.lane);
        }
        self.peers.clear();
        self.untrack();
        drop(self.news_queue);
        self.trackers.close();
        self.trackers.wait().await;
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn deadline(&self) -> Option<Instant> {
        let dial = self.may_dial().then(|| self.addresses.deadline()).flatten();
        let plan = self.scheduler.deadline(self.now());
        let web = self.web_due();
        let told = self.pieces.tell_at;
        [dial, plan, web, told].into_iter().flatten().min().map(|at| self.began + at)
    }

    /// Carries out what the scheduler wants now.
    fn step(&mut self) {
        let now = self.now();
        self.join_web_seed(now);
        for action in self.scheduler.plan(now) {
            match action {
                Action::Request { peer: key, block, urgent } => {
                    let Some(peer) = self.peers.get(&key) else { continue };
                    if !urgent {
                        self.pieces.asked_idly(block.piece, key);
                    }
                    let far = peer.kind != Some(PeerKind::Near);
                    let say = peer.say.clone();
                    self.shared.asks.ask(Ask { lane: peer.lane, block, urgent, far, say });
                }
                Action::Cancel { peer: key, block } => {
                    self.pieces.drop_parts(block.piece, key);
                    let Some(peer) = self.peers.get_mut(&key) else { continue };
                    if !self.shared.asks.take_back(peer.lane, block) {
                        peer.taken_back += 1;
                        peer.tell(Say::TakeBack(block));
                    }
                }
                Action::Want { peer, piece } => self.tell(peer, Say::Want(piece)),
            }
        }
        self.tell_late(now);
        if self.may_dial() {
            let room = (DIALS_MAX - self.dialling).min(PEERS_MAX - self.hosts() - self.dialling);
            for address in self.addresses.due(now, room) {
                self.dial(address);
            }
        }
        if let Some(tracking) = self.tracking.as_ref().filter(|_| self.needs_peers()) {
            tracking.hurry.notify_one();
        }
    }

    /// Somebody waits for a piece that no connected host has.
    fn needs_peers(&self) -> bool {
        self.scheduler.lacks_sources()
            || (self.web.is_some() && self.hosts() == 0 && self.scheduler.waited_for().next().is_some())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Fetch { read, waits } => self.fetch(read, waits),
            Command::Release(pieces) => self.release(&pieces),
            Command::Found(piece) => self.arrived(piece, Presence::Held),
            Command::Lost(pieces) => self.lost(&pieces),
            Command::Background(background) => self.scheduler.set_background(background),
            Command::Profile(pieces) => self.scheduler.set_profile(pieces),
            Command::Tracker(url) => {
                if url != self.tracker {
                    self.tracker = url;
                    self.track();
                }
            }
            Command::WebSeed(url) => self.set_web_seed(url),
            Command::Swarm(swarm) => self.set_swarm(swarm),
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
                self.hurry(piece);
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
            Event::Hello(hello) => self.greet(key, hello),
            Event::Choking(choking) => {
                if choking {
                    self.pieces.drop_parts_of(key);
                }
                self.scheduler.peer_choking(key, choking);
            }
            Event::Has(piece) => self.scheduler.peer_has(key, piece),
            Event::HasAll(pieces) => self.scheduler.peer_pieces(key, pieces),
            Event::Wants(piece) => self.wanted(key, piece),
            Event::Block(block, bytes) => self.block(key, block, bytes),
            Event::Gone(ended) => self.gone(key, ended),
        }
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
            Report::Verified(verified) => self.verified(&verified),
        }
    }

    fn heard(&mut self, news: News) {
        let trouble = match news {
            Ok(mut addresses) => {
                addresses.retain(|address| *address != self.shared.announce);
                // Where there are too many, it is not the tracker that chooses.
                addresses.shuffle(&mut rand::rng());
                self.addresses.name(addresses, self.now());
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(tracking) = &mut self.tracking {
            tracking.trouble = trouble;
        }
    }

    /// Announces to the torrent's tracker, and no longer to the one before.
    fn track(&mut self) {
        self.untrack();
        if !self.swarm {
            return;
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
        self.trackers.spawn(announcer.run(self.news.clone(), tracking.stop.clone()));
        self.tracking = Some(tracking);
    }

    fn untrack(&mut self) {
        if let Some(before) = self.tracking.take() {
            before.stop.cancel();
        }
    }

    fn set_swarm(&mut self, swarm: bool) {
        if self.swarm == swarm {
            return;
        }
        self.swarm = swarm;
        self.track();
        if !swarm {
            let hosts: Vec<PeerKey> =
                self.peers.iter().filter(|(_, peer)| peer.server.is_none()).map(|(key, _)| *key).collect();
            hosts.into_iter().for_each(|key| self.gone(key, Ended::Dropped));
        }
    }

    fn tell(&self, peer: PeerKey, say: Say) {
        if let Some(peer) = self.peers.get(&peer) {
            peer.tell(say);
        }
    }

    fn notice(&self, notice: &Notice) {
        self.storage.noticed(notice);
    }
}

/// By what the peers of a site agree who fetches a piece.
fn identity(peer_id: &[u8; 20]) -> u64 {
    peer_id.last_chunk().map_or(0, |last: &[u8; 8]| u64::from_be_bytes(*last))
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
