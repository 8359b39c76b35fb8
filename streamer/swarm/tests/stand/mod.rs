//! What the tests stand on: engines on loopback, storage in memory, a tracker that may lie, and peers that misbehave.

#![allow(dead_code, reason = "no test uses all of it")]

pub(crate) mod puppet;
pub(crate) mod tracker;
pub(crate) mod web;

use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamer_plan::{Block, Geometry, Pieces};
use streamer_swarm::{Config, Engine, From, Notice, PeerStatus, Presence, Role, Storage, Torrent, Verdict};
use tokio::time::Instant;
use tracker::Tracker;

pub(crate) const PIECE: u32 = 64 << 10;
pub(crate) const HASH: [u8; 20] = [7; 20];
/// Longest wait for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that are different everywhere.
pub(crate) fn image(pieces: u32) -> Arc<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..u64::from(pieces) * u64::from(PIECE) / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    Arc::new(words.collect())
}

/// A storage in memory that knows what is right.
pub(crate) struct Shelf {
    truth: Arc<Vec<u8>>,
    geometry: Geometry,
    pub(crate) held: Mutex<Pieces>,
    pub(crate) notices: Mutex<Vec<Notice>>,
    pub(crate) stored: AtomicU64,
    pub(crate) sent: AtomicU64,
}

impl Shelf {
    pub(crate) fn new(truth: &Arc<Vec<u8>>, full: bool) -> Arc<Self> {
        let geometry = Geometry::new(truth.len() as u64, PIECE).unwrap();
        let mut held = Pieces::none(geometry.pieces());
        for piece in (0..geometry.pieces()).filter(|_| full) {
            held.insert(piece);
        }
        Arc::new(Self {
            truth: Arc::clone(truth),
            geometry,
            held: Mutex::new(held),
            notices: Mutex::default(),
            stored: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        })
    }

    fn slice(&self, block: Block) -> &[u8] {
        let from = usize::try_from(self.geometry.offset(block.piece)).unwrap() + block.begin as usize;
        &self.truth[from..from + block.length as usize]
    }

    pub(crate) fn holds(&self, piece: u32) -> bool {
        self.held.lock().unwrap().contains(piece)
    }

    /// Pieces by who sent them.
    pub(crate) fn pieces_from(&self, source: From) -> usize {
        let notices = self.notices.lock().unwrap();
        notices
            .iter()
            .filter(|notice| matches!(notice, Notice::Piece { from, .. } if *from == source))
            .count()
    }

    pub(crate) fn poisoned(&self) -> usize {
        let notices = self.notices.lock().unwrap();
        notices.iter().filter(|notice| matches!(notice, Notice::Poisoned { .. })).count()
    }
}

impl Storage for Shelf {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn held(&self) -> Pieces {
        self.held.lock().unwrap().clone()
    }

    fn presence(&self, piece: u32) -> Presence {
        if self.holds(piece) { Presence::Held } else { Presence::Absent }
    }

    fn read_block(&self, block: Block) -> Option<Bytes> {
        self.holds(block.piece).then(|| Bytes::copy_from_slice(self.slice(block)))
    }

    fn store(&self, piece: u32, bytes: Bytes, _from: From) -> Verdict {
        let length = self.geometry.length(piece);
        if bytes != self.slice(Block { piece, begin: 0, length }) {
            return Verdict::Poisoned;
        }
        self.held.lock().unwrap().insert(piece);
        self.stored.fetch_add(u64::from(length), Ordering::Relaxed);
        Verdict::Taken(Presence::Held)
    }

    fn uploaded(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn noticed(&self, notice: &Notice) {
        self.notices.lock().unwrap().push(notice.clone());
    }
}

/// One streamer: an engine with one torrent.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) torrent: Torrent,
    pub(crate) shelf: Arc<Shelf>,
}

impl Host {
    pub(crate) async fn start(truth: &Arc<Vec<u8>>, tracker: &str, role: Role, site: Option<&str>) -> Self {
        let shelf = Shelf::new(truth, role == Role::Origin);
        Self::with(shelf, tracker, role, site).await
    }

    pub(crate) async fn with(shelf: Arc<Shelf>, tracker: &str, role: Role, site: Option<&str>) -> Self {
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            announce: None,
            role,
            site: site.map(str::to_owned),
            tls: None,
            http: http(),
        };
        let engine = Engine::start(config).await.unwrap();
        let torrent = engine.add(HASH, Arc::clone(&shelf) as _, tracker.to_owned());
        Self { engine, torrent, shelf }
    }

    /// Reads a piece as a guest does. Returns how long it waited.
    pub(crate) async fn read(&self, piece: u32) -> Duration {
        let began = Instant::now();
        let read = self.torrent.fetch(piece..piece + 1, vec![piece]);
        tokio::time::timeout(PATIENCE, read).await.expect("the piece never came");
        assert!(self.shelf.holds(piece));
        began.elapsed()
    }

    /// Waits until it has peers that are as wanted.
    pub(crate) async fn peers(&self, what: &str, wanted: impl Fn(&[PeerStatus]) -> bool) -> Vec<PeerStatus> {
        until(what, async || {
            let peers = self.torrent.status().await.peers;
            wanted(&peers).then_some(peers)
        })
        .await
    }

    /// Waits until it has so many peers with every piece.
    pub(crate) async fn seeders(&self, count: usize) {
        let full = self.shelf.geometry.pieces();
        self.peers("seeders", |peers| peers.iter().filter(|peer| peer.pieces == full).count() >= count).await;
    }
}

/// Waits for a condition.
pub(crate) async fn until<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn http() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

/// An origin, a host that has nothing, and their tracker.
pub(crate) struct Stand {
    pub(crate) truth: Arc<Vec<u8>>,
    pub(crate) tracker: Tracker,
    pub(crate) origin: Host,
    pub(crate) host: Host,
}

impl Stand {
    pub(crate) async fn new(pieces: u32) -> Self {
        let (truth, tracker) = (image(pieces), Tracker::start().await);
        let origin = Host::start(&truth, &tracker.url, Role::Origin, None).await;
        let host = Host::start(&truth, &tracker.url, Role::Host, None).await;
        Self { truth, tracker, origin, host }
    }
}
