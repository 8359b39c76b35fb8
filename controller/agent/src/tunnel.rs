//! The way between two hosts while a guest moves: TLS with the cluster's certificates, from the source's agent to the
//! target's. Each connection is one stream, to one of the target's unix sockets:
//!
//! ```text
//!   source  QEMU ── unix ── agent ════ TLS ════ agent ── unix ── QEMU     memory, disks
//!           libvirt's client ─ unix ─┘             └─── unix ── libvirtd
//! ```
//!
//! A connection begins with one line of JSON, [`Opening`], answered by one, [`Answer`]; what follows is the stream's own.
//! It is let in only while its move is named to this host as one that comes here, from the host that the certificate is
//! for, and is cut when the move is named no more. There is no other way in: without moves this listener refuses all.

use crate::moving::plan::Run;
use controller_api::life::{DiskName, Layer, LayerFormat};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ServerConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use types::HostName;

/// Longest time to connect, shake hands and say what a stream is.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time a target may take to make disks.
const MACHINE_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes that were sent and not acknowledged for so long mean that the other host is gone, in milliseconds.
const SILENCE_MS_MAX: u32 = 20_000;
/// Streams at once: a few for each of a few moves.
const STREAMS_MAX: usize = 64;
/// Longest first line, in bytes: a machine with long chains of layers.
const LINE_LEN_MAX: u64 = 1 << 20;
/// Bytes moved at a time.
const CHUNK: usize = 256 << 10;

/// First line of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Opening {
    /// Which move.
    #[serde(rename = "move")]
    pub(crate) id: String,
    pub(crate) what: What,
}

/// What a stream is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// libvirt's protocol, to the target's libvirtd.
    Libvirt,
    /// The guest's memory, to the target's QEMU.
    Memory,
    /// The guest's disks, likewise.
    Disks,
    /// Nothing follows: the answer is the machine at the target, whose empty disks are made.
    Machine(Box<Guest>),
}

/// A guest as its source has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Guest {
    pub(crate) run: Run,
    pub(crate) disks: Vec<GuestDisk>,
}

/// One of its disks; the active file's bytes travel, the layers are at the target or in the swarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuestDisk {
    pub(crate) disk: DiskName,
    /// Of a volume: which disk of its name it is.
    pub(crate) incarnation: String,
    pub(crate) layers: Vec<Layer>,
    pub(crate) format: LayerFormat,
    pub(crate) disk_bytes: u64,
}

/// The answer to an [`Opening`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The stream follows.
    Open,
    /// The target's libvirt document, and where QEMU's sockets are there.
    Machine { document: String, sockets: PathBuf },
    /// Not so.
    Refused(String),
}

/// Who may come in, and to what.
pub(crate) trait Gate: Send + Sync + 'static {
    /// From where a move comes that this host is the target of, and what ends when it is that no more.
    fn expects(&self, id: &str) -> Option<(HostName, CancellationToken)>;
    /// Where a stream leads.
    fn socket(&self, id: &str, what: &What) -> Option<PathBuf>;
    /// Makes a guest's disks, and says what machine it will be here.
    fn machine(&self, id: &str, guest: Guest) -> impl Future<Output = Answer> + Send;
}

/// Serves other hosts until `shutdown`.
pub(crate) async fn serve<G: Gate>(
    listener: TcpListener,
    tls: ServerConfig,
    gate: Arc<G>,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let room = Arc::new(Semaphore::new(STREAMS_MAX));
    let mut streams = JoinSet::new();
    loop {
        while streams.try_join_next().is_some() {}
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: let some streams end first.
                    tracing::warn!(%error, "cannot accept a guest's stream");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // Whoever comes when there is no room is not kept waiting.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (acceptor, gate) = (acceptor.clone(), Arc::clone(&gate));
        streams.spawn(async move {
            if let Err(problem) = incoming(stream, acceptor, &*gate).await {
                tracing::debug!(problem, "a stream from another host ended");
            }
            drop(place);
        });
    }
}

async fn incoming(tcp: TcpStream, acceptor: TlsAcceptor, gate: &impl Gate) -> Result<(), String> {
    watch_peer(&tcp);
    let opened = tokio::time::timeout(OPEN_TIMEOUT, async {
        let tls = acceptor.accept(tcp).await.map_err(|error| error.to_string())?;
        let peer = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        let mut stream = BufReader::new(tls);
        let opening: Opening = read_line(&mut stream).await?;
        Ok::<_, String>((stream, peer, opening))
    });
    let (mut stream, peer, opening) = opened.await.map_err(|_| "it said nothing in time".to_owned())??;
    let expected = gate
        .expects(&opening.id)
        .filter(|(from, _)| peer.as_ref().is_some_and(|certificate| is_of(certificate, from)));
    let Some((_, ends)) = expected else {
        // The same words for what is not there and for what is somebody else's.
        let refusal = format!("no move {} comes here from you", opening.id);
        write_line(&mut stream, &Answer::Refused(refusal.clone())).await?;
        return Err(refusal);
    };
    tokio::select! {
        () = ends.cancelled() => Err("its move is named no more".to_owned()),
        done = admitted(&mut stream, opening, gate) => done,
    }
}

async fn admitted<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    opening: Opening,
    gate: &impl Gate,
) -> Result<(), String> {
    let socket = match opening.what {
        What::Machine(guest) => {
            let answer = gate.machine(&opening.id, *guest).await;
            return write_line(stream, &answer).await;
        }
        what => gate.socket(&opening.id, &what),
    };
    let connected = match socket {
        Some(path) => {
            UnixStream::connect(&path).await.map_err(|error| format!("{}: {error}", path.display()))
        }
        None => Err("there is no such socket".to_owned()),
    };
    match connected {
        Ok(mut local) => {
            write_line(stream, &Answer::Open).await?;
            pass(stream, &mut local).await
        }
        Err(why) => {
            write_line(stream, &Answer::Refused(why.clone())).await?;
            Err(why)
        }
    }
}

/// The certificate is for a host of this name. That it is of the cluster's authority is known already.
fn is_of(certificate: &CertificateDer<'_>, host: &HostName) -> bool {
    let (Ok(certificate), Ok(name)) =
        (ParsedCertificate::try_from(certificate), ServerName::try_from(host.as_str()))
    else {
        return false;
    };
    rustls::client::verify_server_name(&certificate, &name).is_ok()
}

/// A host that loses power says nothing: what it does not acknowledge tells.
fn watch_peer(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let set = nix::sys::socket::setsockopt(tcp, nix::sys::socket::sockopt::TcpUserTimeout, &SILENCE_MS_MAX);
    let set =
        set.and_then(|()| nix::sys::socket::setsockopt(tcp, nix::sys::socket::sockopt::KeepAlive, &true));
    if let Err(error) = set {
        tracing::debug!(%error, "the other host's silence will go unnoticed");
    }
}

async fn pass<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    local: &mut UnixStream,
) -> Result<(), String> {
    let passed = tokio::io::copy_bidirectional_with_sizes(stream, local, CHUNK, CHUNK).await;
    passed.map(drop).map_err(|error| error.to_string())
}

async fn read_line<T: DeserializeOwned>(
    stream: &mut (impl tokio::io::AsyncBufRead + Unpin),
) -> Result<T, String> {
    let mut line = Vec::new();
    let mut limited = (&mut *stream).take(LINE_LEN_MAX);
    limited.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
    if line.last() != Some(&b'\n') {
        return Err("its first line does not end".to_owned());
    }
    serde_json::from_slice(&line).map_err(|error| format!("its first line cannot be understood: {error}"))
}

async fn write_line(stream: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> Result<(), String> {
    let mut line = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())
}

/// The source's side of one move.
#[derive(Debug, Clone)]
pub(crate) struct Dialler {
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) id: String,
    pub(crate) to: HostName,
    pub(crate) address: SocketAddr,
}

impl Dialler {
    async fn open(
        &self,
        what: What,
    ) -> Result<(BufReader<tokio_rustls::client::TlsStream<TcpStream>>, Answer), String> {
        let timeout = if matches!(what, What::Machine(_)) { MACHINE_TIMEOUT } else { OPEN_TIMEOUT };
        let opened = async {
            let name = ServerName::try_from(self.to.to_string()).map_err(|error| error.to_string())?;
            let tcp = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
            watch_peer(&tcp);
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let tls = connector.connect(name, tcp).await.map_err(|error| error.to_string())?;
            let mut stream = BufReader::new(tls);
            write_line(&mut stream, &Opening { id: self.id.clone(), what }).await?;
            let answer = read_line(&mut stream).await?;
            Ok((stream, answer))
        };
        let opened = tokio::time::timeout(timeout, opened).await;
        let opened = opened.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        opened.map_err(|why: String| format!("{} at {}: {why}", self.to, self.address))
    }

    /// Has the target make the guest's disks. The target's libvirt document, and where QEMU's sockets are there.
    pub(crate) async fn machine(&self, guest: Guest) -> Result<(String, PathBuf), String> {
        match self.open(What::Machine(Box::new(guest))).await?.1 {
            Answer::Machine { document, sockets } => Ok((document, sockets)),
            Answer::Refused(why) => Err(format!("{} says: {why}", self.to)),
            Answer::Open => Err(format!("{} answers something else", self.to)),
        }
    }
}

/// Unix sockets at the source that lead to the target, as long as this lives.
#[derive(Debug)]
pub(crate) struct Ways {
    paths: Vec<PathBuf>,
    streams: JoinSet<()>,
}

impl Ways {
    /// Opens one for each, at [`socket_path`]. Must be called inside a tokio runtime.
    pub(crate) fn open(folder: &Path, dialler: &Dialler) -> Result<Self, String> {
        let mut ways = Self { paths: Vec::new(), streams: JoinSet::new() };
        for what in [What::Libvirt, What::Memory, What::Disks] {
            let path = socket_path(folder, &dialler.id, &what);
            // One that a killed agent left.
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path)
                .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
                .map_err(|error| format!("cannot close {} to others: {error}", path.display()))?;
            ways.paths.push(path);
            ways.streams.spawn(outgoing(listener, dialler.clone(), what));
        }
        Ok(ways)
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Where a stream's socket is: of the same name on both hosts.
pub(crate) fn socket_path(folder: &Path, id: &str, what: &What) -> PathBuf {
    let name = match what {
        What::Libvirt => "libvirt",
        What::Memory => "memory",
        What::Disks | What::Machine(_) => "disks",
    };
    folder.join(format!("{id}.{name}"))
}

async fn outgoing(listener: UnixListener, dialler: Dialler, what: What) {
    let mut streams = JoinSet::new();
    while let Ok((mut local, _)) = listener.accept().await {
        while streams.try_join_next().is_some() {}
        let (dialler, what) = (dialler.clone(), what.clone());
        streams.spawn(async move {
            let passed = match dialler.open(what).await {
                Ok((mut stream, Answer::Open)) => pass(&mut stream, &mut local).await,
                Ok((_, answer)) => Err(format!("{answer:?}")),
                Err(why) => Err(why),
            };
            if let Err(why) = passed {
                tracing::debug!(why, "a stream to another host ended");
            }
        });
    }
}

#[cfg(test)]
mod tests;
