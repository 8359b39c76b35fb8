//! What the tests stand on: real daemons, a tiny tracker, a block client that speaks NBD by hand.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its own part, and a test may panic")]

pub(crate) mod authority;
pub(crate) mod rogue;

use axum::Router;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use streamer_api::{ImageSource, ImageStatus, Prefetch, PublishRequest, Published};
use streamer_client::Client;
use types::ByteSize;

pub(crate) const PIECE: u64 = 65536;
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition, with a deadline.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, check: impl FnMut() -> F) -> T {
    until_within(PATIENCE, what, check).await
}

/// The same, for what may take longer.
pub(crate) async fn until_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

type Swarm = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, SocketAddr>>;

/// A tracker that knows just enough; it can be down.
#[derive(Clone, Default)]
pub(crate) struct Tracker {
    swarms: Arc<Mutex<Swarm>>,
    pub(crate) down: Arc<AtomicBool>,
    pub(crate) announces: Arc<AtomicU32>,
    pub(crate) url: String,
}

impl Tracker {
    pub(crate) async fn start() -> Self {
        Self::start_at([127, 0, 0, 1].into()).await
    }

    pub(crate) async fn start_at(address: IpAddr) -> Self {
        let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
        let url = format!("http://{}/announce", listener.local_addr().unwrap());
        let tracker = Self { url, ..Self::default() };
        let router = Router::new().route("/announce", get(announce)).with_state(tracker.clone());
        let router = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, router).await });
        tracker
    }

    /// Waits until somebody is in a swarm.
    pub(crate) async fn announced(&self) {
        until("an announce", || async { (self.announces.load(Ordering::SeqCst) > 0).then_some(()) }).await;
    }

    /// Waits until a peer with this address is in a swarm.
    pub(crate) async fn knows(&self, address: IpAddr) {
        let known = || async {
            let swarms = self.swarms.lock().unwrap();
            swarms.values().flat_map(BTreeMap::values).any(|peer| peer.ip() == address).then_some(())
        };
        until(&format!("{address} to announce itself"), known).await;
    }

    /// Puts a peer of ours into every swarm.
    pub(crate) fn add(&self, address: SocketAddr) {
        for swarm in self.swarms.lock().unwrap().values_mut() {
            swarm.insert(address.to_string().into_bytes(), address);
        }
    }
}

async fn announce(
    State(tracker): State<Tracker>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
) -> Result<Vec<u8>, StatusCode> {
    if tracker.down.load(Ordering::SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    tracker.announces.fetch_add(1, Ordering::SeqCst);
    let query = query.unwrap();
    let get = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)).unwrap_or("");
    // Not every client says its address.
    let ip: IpAddr = get("ip=").parse().unwrap_or(from.ip());
    let address = SocketAddr::new(ip, get("port=").parse().unwrap());
    let (hash, peer) = (bytes(get("info_hash=")), bytes(get("peer_id=")));
    let mut swarms = tracker.swarms.lock().unwrap();
    let swarm = swarms.entry(hash).or_default();
    if get("event=") == "stopped" {
        swarm.remove(&peer);
    } else {
        swarm.insert(peer, address);
    }
    let mut compact = Vec::new();
    for address in swarm.values() {
        let SocketAddr::V4(address) = address else { unreachable!() };
        compact.extend_from_slice(&address.ip().octets());
        compact.extend_from_slice(&address.port().to_be_bytes());
    }
    let mut answer = format!("d8:intervali30e5:peers{}:", compact.len()).into_bytes();
    answer.extend_from_slice(&compact);
    answer.push(b'e');
    Ok(answer)
}

/// The bytes of a percent-encoded value: no two clients encode the same ones.
fn bytes(value: &str) -> Vec<u8> {
    let mut parts = value.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

/// The daemon: built with its own tests; for another crate's, whatever was built last beside them.
fn binary() -> PathBuf {
    if let Some(built) = option_env!("CARGO_BIN_EXE_collective-streamer") {
        return built.into();
    }
    let beside = std::env::current_exe().unwrap().parent().unwrap().with_file_name("collective-streamer");
    assert!(beside.exists(), "build it first: cargo build -p streamer-daemon");
    beside
}

/// A daemon; killed and removed with the test.
pub(crate) struct Daemon {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) client: Client,
    process: Option<Child>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Daemon {
    /// Starts a daemon that speaks plain with its peers; `more` is added to its configuration.
    pub(crate) async fn start(role: &str, more: &str) -> Self {
        let daemon = Self::prepare(role, &format!("peer_tls = \"off\"\n{more}"));
        daemon.up().await
    }

    /// A daemon that is not started.
    pub(crate) fn prepare(role: &str, more: &str) -> Self {
        Self::prepare_at([127, 0, 0, 1].into(), role, more)
    }

    /// The same, for peers that reach it by another address than loopback's.
    pub(crate) fn prepare_at(address: IpAddr, role: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "socket = {:?}\nnbd_socket = {:?}\ncache_dir = {:?}\nlisten = \"{address}:0\"\nrole = {role:?}\n{more}",
            path("api.sock"),
            path("nbd.sock"),
            path("cache"),
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let client = Client::new(folder.path().join("api.sock"));
        Self { folder, client, process: None }
    }

    pub(crate) async fn up(mut self) -> Self {
        self.again().await;
        self
    }

    /// Starts the process, the first time or after a kill.
    pub(crate) async fn again(&mut self) {
        self.launch();
        let client = self.client.clone();
        until("the daemon to answer", || async { client.status().await.ok() }).await;
    }

    /// Starts the process, and does not wait for it.
    pub(crate) fn launch(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let child = Command::new(binary())
            .arg("--config")
            .arg(self.folder.path().join("config.toml"))
            .env("COLLECTIVE_LOG", "debug,hyper=info,reqwest=info")
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.process = Some(child);
    }

    /// As the kernel would: nothing is closed in order.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP: the kernel goes on answering for it, it does not.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }

    /// SIGTERM, and waits.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.process.take().unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert!(status.success(), "{status}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Memory it has, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn nbd(&self) -> PathBuf {
        self.folder.path().join("nbd.sock")
    }

    pub(crate) fn data(&self, published: &Published) -> PathBuf {
        self.folder.path().join("cache").join(published.digest.hex()).join("data")
    }

    pub(crate) async fn publish(&self, path: &Path, tracker: &str) -> Published {
        self.publish_as(path, tracker, false).await
    }

    pub(crate) async fn publish_as(&self, path: &Path, tracker: &str, public: bool) -> Published {
        let request = PublishRequest {
            path: path.to_owned(),
            tracker: tracker.to_owned(),
            piece_bytes: Some(ByteSize(PIECE)),
            public,
        };
        self.client.publish(&request, |_| {}).await.unwrap()
    }

    pub(crate) async fn put(&self, published: &Published, tracker: &str, prefetch: Prefetch) -> ImageStatus {
        self.client.put_image(published.digest, &source(published, tracker, prefetch)).await.unwrap()
    }

    pub(crate) async fn status(&self, published: &Published) -> ImageStatus {
        self.client.image(published.digest).await.unwrap()
    }

    /// Waits until an image's status is as it should be.
    pub(crate) async fn becomes(
        &self,
        published: &Published,
        what: &str,
        check: impl Fn(&ImageStatus) -> bool,
    ) -> ImageStatus {
        until(what, || async { Some(self.status(published).await).filter(|status| check(status)) }).await
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

pub(crate) fn source(published: &Published, tracker: &str, prefetch: Prefetch) -> ImageSource {
    let (metainfo, manifest) = (published.metainfo.clone(), published.manifest.clone());
    ImageSource { prefetch, ..ImageSource::new(metainfo, manifest, tracker.to_owned()) }
}

/// A peer's half of a handshake, without extensions.
pub(crate) fn handshake(info_hash: [u8; 20], peer_id: &[u8; 20]) -> Vec<u8> {
    let mut bytes = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&info_hash);
    bytes.extend_from_slice(peer_id);
    bytes
}

/// A disk of `pieces` pieces: random, but every fourth is zero.
pub(crate) fn disk(pieces: u64) -> Vec<u8> {
    use rand::{Rng as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(pieces);
    let mut bytes = vec![0; usize::try_from(pieces * PIECE).unwrap()];
    for (index, piece) in bytes.chunks_mut(usize::try_from(PIECE).unwrap()).enumerate() {
        if index % 4 != 3 {
            random.fill(piece);
        }
    }
    bytes
}

/// A published disk, its origin and its tracker.
pub(crate) struct Stand {
    pub(crate) tracker: Tracker,
    pub(crate) origin: Daemon,
    pub(crate) published: Published,
    pub(crate) bytes: Vec<u8>,
    pub(crate) raw: PathBuf,
}

impl Stand {
    pub(crate) async fn new(pieces: u64) -> Self {
        let tracker = Tracker::start().await;
        let origin = Daemon::start("origin", "").await;
        let bytes = disk(pieces);
        let raw = origin.folder.path().join("disk.raw");
        std::fs::write(&raw, &bytes).unwrap();
        let published = origin.publish(&raw, &tracker.url).await;
        tracker.announced().await;
        Self { tracker, origin, published, bytes, raw }
    }

    /// A host that has named the image.
    pub(crate) async fn host(&self, prefetch: Prefetch) -> Daemon {
        let host = Daemon::start("host", "").await;
        host.put(&self.published, &self.tracker.url, prefetch).await;
        host
    }

    pub(crate) fn slice(&self, offset: u64, length: u64) -> &[u8] {
        let at = usize::try_from(offset).unwrap();
        &self.bytes[at..at + usize::try_from(length).unwrap()]
    }

    pub(crate) fn info_hash(&self) -> [u8; 20] {
        let manifest: streamer_api::Manifest = serde_json::from_slice(&self.published.manifest.0).unwrap();
        let mut hash = [0; 20];
        for (byte, pair) in hash.iter_mut().zip(manifest.info_hash.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        hash
    }

    /// Reads as a guest would, away from the runtime's threads.
    pub(crate) async fn read(&self, daemon: &Daemon, offset: u64, length: u64) -> Vec<u8> {
        let (socket, name) = (daemon.nbd(), self.published.digest.hex());
        tokio::task::spawn_blocking(move || {
            Nbd::connect(&socket, &name).read(offset, u32::try_from(length).unwrap())
        })
        .await
        .unwrap()
    }

    /// Reads and compares.
    pub(crate) async fn check(&self, daemon: &Daemon, offset: u64, length: u64) {
        assert!(self.read(daemon, offset, length).await == self.slice(offset, length), "{offset} differs");
    }

    pub(crate) fn nbd_url(&self, daemon: &Daemon) -> String {
        format!("nbd+unix:///{}?socket={}", self.published.digest.hex(), daemon.nbd().display())
    }
}

/// A block client that asks many things at a time; simple replies.
pub(crate) struct Nbd {
    stream: UnixStream,
    cookie: u64,
}

impl Nbd {
    pub(crate) fn connect(socket: &Path, name: &str) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).unwrap();
        let mut answer = 3u32.to_be_bytes().to_vec();
        answer.extend_from_slice(b"IHAVEOPT");
        answer.extend_from_slice(&1u32.to_be_bytes());
        answer.extend_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
        answer.extend_from_slice(name.as_bytes());
        stream.write_all(&answer).unwrap();
        let mut export = [0; 10];
        stream.read_exact(&mut export).unwrap();
        Self { stream, cookie: 0 }
    }

    /// Waits for replies as long as the daemon lives.
    pub(crate) fn patient(self) -> Self {
        self.stream.set_read_timeout(None).unwrap();
        self
    }

    pub(crate) fn ask(&mut self, offset: u64, length: u32) -> u64 {
        self.cookie += 1;
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend_from_slice(&[0; 4]);
        request.extend_from_slice(&self.cookie.to_be_bytes());
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&length.to_be_bytes());
        self.stream.write_all(&request).unwrap();
        self.cookie
    }

    /// The next reply, whichever it is: its cookie.
    pub(crate) fn reply(&mut self) -> u64 {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).unwrap();
        assert_eq!(header[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0], "an error instead of data");
        u64::from_be_bytes(header[8..].try_into().unwrap())
    }

    /// The next reply is an error: its number.
    pub(crate) fn error(&mut self) -> u32 {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).unwrap();
        u32::from_be_bytes(header[4..8].try_into().unwrap())
    }

    /// Tries to write: the error's number.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> u32 {
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend_from_slice(&[0, 0, 0, 1]);
        request.extend_from_slice(&[0; 8]);
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
        request.extend_from_slice(data);
        self.stream.write_all(&request).unwrap();
        self.error()
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The server hung up.
    pub(crate) fn ended(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn data(&mut self, length: u32) -> Vec<u8> {
        let mut data = vec![0; length as usize];
        self.stream.read_exact(&mut data).unwrap();
        data
    }

    pub(crate) fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        let cookie = self.ask(offset, length);
        assert_eq!(self.reply(), cookie);
        self.data(length)
    }
}

/// Runs a tool to its end.
pub(crate) async fn tool(name: &str, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new(name).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
