//! The engine: one listening socket, one identity, the table of torrents.

use crate::Storage;
use crate::asks::Asks;
use crate::extension::SITE_BYTES_MAX;
use crate::limits::Limits;
use crate::torrent::{Command, Task, TorrentStatus};
use crate::transport::{self, Stream, Tls};
use crate::uploads::{Lane, Uploads};
use crate::wire::{self, Shaken};
use rand::Rng as _;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use streamer_plan::Background;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A stranger that has not said whom it wants by then is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A host that does not answer by then is tried again later.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
/// Strangers shaking hands at a time.
const HANDSHAKES_MAX: usize = 128;
/// Reads of blocks for peers at a time, over all torrents: beyond, peers wait in line, which is fair.
const DISK_READS_MAX: usize = 4;
/// Beginning of our peer ids: a host's, and the publisher's own streamer's.
const HOST_PREFIX: &[u8; 8] = b"-CO0100-";
const ORIGIN_PREFIX: &[u8; 8] = b"-CP0100-";

/// What this streamer is to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A host that runs instances.
    Host,
    /// The publisher's own streamer: the last resort of the others.
    Origin,
}

/// How an engine is set up.
#[derive(Clone)]
pub struct Config {
    /// Where peers are listened for; port 0 takes any.
    pub listen: SocketAddr,
    /// Where peers reach us, if it is another address; its port 0 is the listening one's.
    pub announce: Option<SocketAddr>,
    /// What we are to others.
    pub role: Role,
    /// Where we are: hosts that name the same site are near each other, and so are hosts that name none. At most 63
    /// bytes; a longer name counts as none.
    pub site: Option<String>,
    /// `None` speaks plain, with anybody.
    pub tls: Option<Tls>,
    /// Speaks with trackers and web seeds.
    pub http: reqwest::Client,
}

/// What every torrent of an engine shares.
pub(crate) struct Shared {
    pub(crate) peer_id: [u8; 20],
    pub(crate) announce: SocketAddr,
    pub(crate) site: Option<Arc<str>>,
    pub(crate) tls: Option<Tls>,
    pub(crate) http: reqwest::Client,
    pub(crate) disk: Semaphore,
    pub(crate) tasks: TaskTracker,
    pub(crate) uploads: Uploads,
    pub(crate) asks: Asks,
    pub(crate) began: Instant,
    lanes: AtomicU64,
}

impl Shared {
    /// A number for another connection.
    pub(crate) fn lane(&self) -> Lane {
        self.lanes.fetch_add(1, Ordering::Relaxed)
    }
}

struct Entry {
    torrent: Torrent,
    done: tokio::task::JoinHandle<()>,
}

/// The engine. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    torrents: Arc<Mutex<HashMap<[u8; 20], Entry>>>,
    local: SocketAddr,
    stop: CancellationToken,
}

impl Engine {
    /// Binds and listens.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let local = listener.local_addr()?;
        let mut announce = config.announce.unwrap_or(local);
        if announce.port() == 0 {
            announce.set_port(local.port());
        }
        let began = Instant::now();
        let site = config.site.filter(|site| !site.is_empty() && site.len() <= SITE_BYTES_MAX);
        let shared = Shared {
            peer_id: new_peer_id(config.role),
            announce,
            site: site.map(Arc::from),
            tls: config.tls,
            http: config.http,
            disk: Semaphore::new(DISK_READS_MAX),
            tasks: TaskTracker::new(),
            uploads: Uploads::new(began),
            asks: Asks::new(began),
            began,
            lanes: AtomicU64::new(0),
        };
        let engine = Self {
            shared: Arc::new(shared),
            torrents: Arc::default(),
            local,
            stop: CancellationToken::new(),
        };
        engine.shared.tasks.spawn(engine.clone().accept(listener));
        engine.shared.tasks.spawn(engine.clone().keep_time());
        Ok(engine)
    }

    /// Other limits from now on, for all torrents together.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.uploads.set_limits(limits);
        self.shared.asks.set_limits(limits);
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where peers reach it.
    #[must_use]
    pub fn announce_addr(&self) -> SocketAddr {
        self.shared.announce
    }

    /// Begins a torrent: announces it, seeds what the storage holds, fetches what is asked for. One that runs already
    /// is returned as it is.
    pub fn add(&self, info_hash: [u8; 20], storage: Arc<dyn Storage>, tracker: String) -> Torrent {
        let mut torrents = self.table();
        if let Some(entry) = torrents.get(&info_hash) {
            return entry.torrent.clone();
        }
        let (commands, queue) = mpsc::unbounded_channel();
        let torrent = Torrent { commands, stop: self.stop.child_token() };
        let task = Task::new(Arc::clone(&self.shared), info_hash, storage, tracker);
        let done = self.shared.tasks.spawn(task.run(queue, torrent.stop.clone()));
        torrents.insert(info_hash, Entry { torrent: torrent.clone(), done });
        torrent
    }

    /// Ends a torrent and waits until it is gone.
    pub async fn remove(&self, info_hash: [u8; 20]) {
        let entry = self.table().remove(&info_hash);
        if let Some(entry) = entry {
            entry.torrent.stop.cancel();
            // A torrent that panicked is gone too.
            let _ = entry.done.await;
        }
    }

    /// Ends everything; goodbyes take a second at most.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    async fn keep_time(self) {
        tokio::select! {
            () = self.shared.uploads.keep_time() => {}
            () = self.shared.asks.keep_time() => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn accept(self, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, remote)) => {
                    let engine = self.clone();
                    self.shared.tasks.spawn(async move {
                        let _permit = permit;
                        let greeted = tokio::select! {
                            greeted = timeout(HANDSHAKE_TIMEOUT, engine.greet(stream, remote)) => greeted,
                            () = engine.stop.cancelled() => return,
                        };
                        if let Ok(Err(error)) = greeted {
                            tracing::debug!(%remote, %error, "a peer failed to shake hands");
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors: others end before long.
                    tracing::warn!(%error, "cannot accept a peer");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn greet(&self, stream: TcpStream, remote: SocketAddr) -> io::Result<()> {
        let mut stream = transport::accept(self.shared.tls.as_ref(), stream).await?;
        let Shaken { info_hash, peer_id, extensible } = wire::read_handshake(&mut stream).await?;
        let torrent = self.table().get(&info_hash).map(|entry| entry.torrent.clone());
        let torrent =
            torrent.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such torrent here"))?;
        wire::send_handshake(&mut stream, info_hash, self.shared.peer_id).await?;
        // The torrent may have ended meanwhile: then the connection is dropped here.
        let _ = torrent.commands.send(Command::Accepted(Greeted { stream, peer_id, extensible, remote }));
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, HashMap<[u8; 20], Entry>> {
        self.torrents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection after the handshake.
pub(crate) struct Greeted {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) peer_id: [u8; 20],
    /// It knows of extensions.
    pub(crate) extensible: bool,
    pub(crate) remote: SocketAddr,
}

impl Greeted {
    /// It says that it is a publisher's own streamer.
    pub(crate) fn is_origin(&self) -> bool {
        self.peer_id.starts_with(ORIGIN_PREFIX)
    }

    /// It is a streamer, not another client.
    pub(crate) fn is_ours(&self) -> bool {
        self.is_origin() || self.peer_id.starts_with(HOST_PREFIX)
    }
}

/// Dials a peer and shakes hands.
pub(crate) async fn dial(shared: &Shared, info_hash: [u8; 20], remote: SocketAddr) -> io::Result<Greeted> {
    let dialled = async {
        let mut stream = transport::connect(shared.tls.as_ref(), remote).await?;
        wire::send_handshake(&mut stream, info_hash, shared.peer_id).await?;
        let Shaken { info_hash: theirs, peer_id, extensible } = wire::read_handshake(&mut stream).await?;
        if theirs != info_hash {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it answered for another torrent"));
        }
        Ok(Greeted { stream, peer_id, extensible, remote })
    };
    timeout(DIAL_TIMEOUT, dialled).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn new_peer_id(role: Role) -> [u8; 20] {
    let mut id = [0; 20];
    let (prefix, rest) = id.split_at_mut(8);
    prefix.copy_from_slice(match role {
        Role::Host => HOST_PREFIX,
        Role::Origin => ORIGIN_PREFIX,
    });
    rand::rng().fill(rest);
    id
}

/// One torrent. Clones are the same torrent.
#[derive(Clone)]
pub struct Torrent {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) stop: CancellationToken,
}

impl Torrent {
    /// Waits until all of `absent` are here; `read` is the range of pieces of the whole read, which tells sequential
    /// readers. Dropped, the wait is given up. It never ends if the torrent was removed.
    pub async fn fetch(&self, read: Range<u32>, absent: Vec<u32>) {
        let mut waits = Vec::with_capacity(absent.len());
        let mut arrivals = Vec::with_capacity(absent.len());
        for piece in &absent {
            let (tell, told) = oneshot::channel();
            waits.push((*piece, tell));
            arrivals.push(told);
        }
        let mut release = Release { torrent: self, pieces: absent };
        // If the torrent is gone, so are the senders.
        let _ = self.commands.send(Command::Fetch { read, waits });
        for arrival in arrivals {
            if arrival.await.is_err() {
                drop(release);
                return std::future::pending().await;
            }
        }
        release.pieces.clear();
    }

    /// A piece was found on disk: it is held now.
    pub fn found(&self, piece: u32) {
        // If the torrent is gone, nobody needs to know.
        let _ = self.commands.send(Command::Found(piece));
    }

    /// These pieces are not here, whatever was thought: with prefetch they are fetched again.
    pub fn lost(&self, pieces: Vec<u32>) {
        let _ = self.commands.send(Command::Lost(pieces));
    }

    /// How much is fetched that nobody asked for and no profile names.
    pub fn set_background(&self, background: Background) {
        let _ = self.commands.send(Command::Background(background));
    }

    /// Pieces that are wanted soon, in order, instead of those named before.
    pub fn set_profile(&self, pieces: Vec<u32>) {
        let _ = self.commands.send(Command::Profile(pieces));
    }

    /// URL of a web server with the image's bytes that is asked when no peer has a piece, instead of the one before.
    pub fn set_web_seed(&self, url: Option<String>) {
        let _ = self.commands.send(Command::WebSeed(url));
    }

    /// Peers are asked and served, as at the beginning, or only the web seed is asked.
    pub fn set_swarm(&self, swarm: bool) {
        let _ = self.commands.send(Command::Swarm(swarm));
    }

    /// Announces to another tracker from now on.
    pub fn set_tracker(&self, tracker: String) {
        let _ = self.commands.send(Command::Tracker(tracker));
    }

    /// The torrent right now; empty if it was removed.
    pub async fn status(&self) -> TorrentStatus {
        let (tell, told) = oneshot::channel();
        let _ = self.commands.send(Command::Status(tell));
        told.await.unwrap_or_default()
    }
}

/// Gives a wait up when the future that waits is dropped.
struct Release<'a> {
    torrent: &'a Torrent,
    pieces: Vec<u32>,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if !self.pieces.is_empty() {
            let _ = self.torrent.commands.send(Command::Release(std::mem::take(&mut self.pieces)));
        }
    }
}
