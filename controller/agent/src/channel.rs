//! The channel to the controller: dialled by this host, over mutual TLS, again and again.

use crate::work::Works;
use chassis::reconcile::Hint;
use chassis::telemetry::chain;
use chassis::unix_http::CallError;
use controller_api::agent::{
    AgentEvent, Hello, HostFacts, HostStatus, PROTOCOL, SILENCE_MS_MAX, STATUS_INTERVAL_MS, ToAgent,
    ToController,
};
use controller_hypervisor::{ConsoleWriter, HypervisorError};
use futures::{SinkExt as _, StreamExt as _};
use netd_api::Capture;
use rand::Rng as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;
use types::InstanceId;
use uuid::Uuid;

/// Longest time to connect, shake hands and upgrade.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts, each with up to as much again at random.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(2_500));
/// Longest time one message may take to be handed over.
const SEND_TIMEOUT: Duration = Duration::from_millis(SILENCE_MS_MAX);
/// The last status is sent again if there was no other one for so long.
const STATUS_PAUSE_MAX: Duration = Duration::from_millis(STATUS_INTERVAL_MS * 3 / 2);
/// Messages waiting to be sent.
const OUTBOX_MAX: usize = 64;
/// Chunks from the controller a guest's console has not taken yet.
const CONSOLE_CHUNKS_MAX: usize = 64;
/// Consoles and captures open at once.
const CONSOLES_MAX: usize = 64;
/// Longest frame of a capture's bytes: others on the channel do not wait long for it.
const CAPTURE_CHUNK_LEN_MAX: usize = 64 << 10;
/// Most of a log that is sent.
const LOG_BYTES_MAX: u32 = 1 << 20;
/// Events kept while the controller is away.
const EVENTS_KEPT_MAX: usize = 1024;

/// Why a connection ended or did not begin.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error("{0:?} is not the URL of a controller: write https://name:port")]
    Url(String),
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("the TLS handshake failed")]
    Tls(#[source] std::io::Error),
    #[error("the connection failed")]
    WebSocket(#[source] Box<tungstenite::Error>),
    #[error("it took too long")]
    Timeout,
    #[error("nothing was heard for {SILENCE_MS_MAX} ms")]
    Silence,
    #[error("the controller closed it")]
    Closed,
    #[error("a message cannot be understood")]
    Message(#[source] serde_json::Error),
}

impl From<tungstenite::Error> for ChannelError {
    fn from(error: tungstenite::Error) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

type Status = watch::Receiver<(u64, Option<HostStatus>)>;
type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Keeps the channel open until `shutdown`.
pub(crate) async fn run(
    works: Arc<Works>,
    tls: ClientConfig,
    status: Status,
    mut events: broadcast::Receiver<AgentEvent>,
    hint: Hint,
    shutdown: CancellationToken,
) {
    let connector = TlsConnector::from(Arc::new(tls));
    let mut kept = VecDeque::new();
    let mut pause = PAUSE.0;
    let mut told = String::new();
    while !shutdown.is_cancelled() {
        let begun = Instant::now();
        let session = async {
            let socket = dial(&works.config.controller, &connector).await?;
            told.clear();
            tracing::info!(controller = works.config.controller, "connected");
            let (outbox, outgoing) = mpsc::channel(OUTBOX_MAX);
            let mut session = Session {
                works: Arc::clone(&works),
                status: status.clone(),
                hint: hint.clone(),
                outbox,
                consoles: HashMap::new(),
            };
            session.run(socket, outgoing, &mut events, &mut kept).await
        };
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = session => ended,
        };
        if let Err(error) = ended {
            let text = chain(&error).to_string();
            if text != told {
                tracing::warn!(controller = works.config.controller, error = text, "not connected");
                told = text;
            }
        }
        if begun.elapsed() > DIAL_TIMEOUT {
            pause = PAUSE.0;
        }
        let jitter = rand::rng().random_range(0.0..1.0);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause.mul_f64(1.0 + jitter)) => {}
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn dial(url: &str, connector: &TlsConnector) -> Result<Socket, ChannelError> {
    let wrong = || ChannelError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(443);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
    let address = uri.authority().ok_or_else(wrong)?;
    let request = format!("wss://{address}/agent/v1/channel");
    let dialled = async {
        let tcp = TcpStream::connect((host, port)).await.map_err(ChannelError::Connect)?;
        tcp.set_nodelay(true).map_err(ChannelError::Connect)?;
        let tls = connector.connect(name, tcp).await.map_err(ChannelError::Tls)?;
        Ok(tokio_tungstenite::client_async(request, tls).await?.0)
    };
    tokio::time::timeout(DIAL_TIMEOUT, dialled).await.map_err(|_| ChannelError::Timeout)?
}

/// One connection.
struct Session {
    works: Arc<Works>,
    status: Status,
    hint: Hint,
    outbox: mpsc::Sender<Message>,
    /// What the controller types, by stream.
    consoles: HashMap<u32, mpsc::Sender<Vec<u8>>>,
}

impl Session {
    async fn run(
        &mut self,
        mut socket: Socket,
        mut outgoing: mpsc::Receiver<Message>,
        events: &mut broadcast::Receiver<AgentEvent>,
        kept: &mut VecDeque<AgentEvent>,
    ) -> Result<(), ChannelError> {
        let facts = self.works.machine.facts(&self.works.config, &self.works.hypervisor).await;
        let hello = Hello {
            protocol: PROTOCOL,
            generation: self.works.store.desired().map(|desired| desired.generation).unwrap_or_default(),
            facts: HostFacts { move_address: self.works.moves.address(), ..facts },
        };
        send(&mut socket, text(&ToController::Hello(Box::new(hello)))?).await?;
        self.works.leases.connected();
        self.status.mark_changed();
        let mut tick = tokio::time::interval(Duration::from_millis(STATUS_INTERVAL_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut told = Instant::now();
        let mut open = true;
        loop {
            take_events(events, kept);
            while let Some(event) = kept.front() {
                send(&mut socket, text(&ToController::Event(event.clone()))?).await?;
                kept.pop_front();
            }
            tokio::select! {
                incoming = socket.next() => {
                    heard = Instant::now();
                    match incoming.ok_or(ChannelError::Closed)?? {
                        Message::Text(json) => self.take(serde_json::from_str(&json).map_err(ChannelError::Message)?),
                        Message::Binary(frame) => self.console_input(&frame),
                        Message::Close(_) => return Err(ChannelError::Closed),
                        _ => {}
                    }
                }
                Some(message) = outgoing.recv() => send(&mut socket, message).await?,
                changed = self.status.changed(), if open => {
                    open = changed.is_ok();
                    self.send_status(&mut socket).await?;
                    told = Instant::now();
                }
                event = events.recv() => {
                    if let Ok(event) = event {
                        keep(kept, event);
                    }
                }
                _ = tick.tick() => {
                    if heard.elapsed() > Duration::from_millis(SILENCE_MS_MAX) {
                        return Err(ChannelError::Silence);
                    }
                    // A pass that takes long must not cost a lease.
                    if told.elapsed() > STATUS_PAUSE_MAX {
                        self.send_status(&mut socket).await?;
                        told = Instant::now();
                    }
                    // Its answer is how a controller that has nothing to say is heard.
                    send(&mut socket, Message::Ping(Vec::new().into())).await?;
                }
            }
        }
    }

    async fn send_status(&mut self, socket: &mut Socket) -> Result<(), ChannelError> {
        let status = self.status.borrow_and_update().1.clone();
        match status {
            Some(mut status) => {
                // The lease runs from before it is sent.
                status.beat = self.works.leases.beat();
                send(socket, text(&ToController::Status(Box::new(status)))?).await
            }
            None => Ok(()),
        }
    }

    fn take(&mut self, message: ToAgent) {
        match message {
            ToAgent::Desired(desired) => {
                let generation = desired.generation;
                match self.works.store.keep_desired(*desired) {
                    Ok(true) => {
                        self.works.leases.told();
                        self.hint.now();
                    }
                    Ok(false) => {
                        tracing::warn!(%generation, "the controller sent an older document: ignored")
                    }
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "the document was not kept, so not acted on");
                        // The status says so.
                        self.hint.now();
                    }
                }
            }
            ToAgent::Heard { beat, lease_ms } => {
                if self.works.leases.heard(beat, lease_ms, self.works.store.is_kept()) {
                    self.hint.now();
                }
            }
            ToAgent::LogTail { request, instance, bytes_max } => {
                let (works, outbox) = (Arc::clone(&self.works), self.outbox.clone());
                tokio::task::spawn_blocking(move || {
                    let (tail, problem) = match log_tail(&works, &instance, bytes_max.min(LOG_BYTES_MAX)) {
                        Ok(tail) => (tail, None),
                        Err(problem) => (String::new(), Some(problem)),
                    };
                    if let Ok(message) = text(&ToController::Log { request, text: tail, problem }) {
                        // The connection is gone: so is who asked.
                        let _ = outbox.blocking_send(message);
                    }
                });
            }
            ToAgent::StreamReport { request, instance } => {
                let (works, outbox) = (Arc::clone(&self.works), self.outbox.clone());
                tokio::spawn(async move {
                    let (report, problem) = match works.stream_report(&instance).await {
                        Ok(report) => (Some(Box::new(report)), None),
                        Err(problem) => (None, Some(problem)),
                    };
                    if let Ok(message) = text(&ToController::Stream { request, report, problem }) {
                        // The connection is gone: so is who asked.
                        let _ = outbox.send(message).await;
                    }
                });
            }
            ToAgent::Explain { request, question } => {
                let (works, outbox) = (Arc::clone(&self.works), self.outbox.clone());
                tokio::spawn(async move {
                    let (explanation, problem) = parted(works.netd.explain(&question).await.map(Box::new));
                    tell(&outbox, &ToController::Explanation { request, explanation, problem }).await;
                });
            }
            ToAgent::Flows { request } => {
                let (works, outbox) = (Arc::clone(&self.works), self.outbox.clone());
                tokio::spawn(async move {
                    let (flows, problem) = parted(works.netd.flows().await);
                    tell(&outbox, &ToController::Flows { request, flows, problem }).await;
                });
            }
            ToAgent::ConsoleOpen { stream, instance } => self.console_open(stream, instance),
            ToAgent::CaptureOpen { stream, capture } => self.capture_open(stream, capture),
        }
    }

    fn capture_open(&mut self, stream: u32, capture: Capture) {
        let Some(closed) = self.stream_open(stream) else {
            return self.stream_refused(stream);
        };
        let (works, outbox) = (Arc::clone(&self.works), self.outbox.clone());
        tokio::spawn(async move {
            let reason = match frames(&works, &capture, stream, closed, &outbox).await {
                Ok(()) => "the capture has ended".to_owned(),
                Err(problem) => problem,
            };
            tell(&outbox, &ToController::ConsoleClosed { stream, reason }).await;
        });
    }

    /// What the controller sends on a new stream; none if there are too many already.
    fn stream_open(&mut self, stream: u32) -> Option<mpsc::Receiver<Vec<u8>>> {
        self.consoles.retain(|_, input| !input.is_closed());
        if self.consoles.len() >= CONSOLES_MAX {
            return None;
        }
        let (input, typed) = mpsc::channel(CONSOLE_CHUNKS_MAX);
        self.consoles.insert(stream, input);
        Some(typed)
    }

    fn stream_refused(&self, stream: u32) {
        let outbox = self.outbox.clone();
        let reason = format!("{CONSOLES_MAX} consoles and captures of this host are open already");
        tokio::spawn(async move { tell(&outbox, &ToController::ConsoleClosed { stream, reason }).await });
    }

    fn console_open(&mut self, stream: u32, instance: InstanceId) {
        let Some(typed) = self.stream_open(stream) else {
            return self.stream_refused(stream);
        };
        let (works, outbox) = (Arc::clone(&self.works), self.outbox.clone());
        tokio::spawn(async move {
            let reason = match relay(&works, &instance, stream, typed, &outbox).await {
                Ok(()) => "the console has ended".to_owned(),
                Err(problem) => problem,
            };
            tell(&outbox, &ToController::ConsoleClosed { stream, reason }).await;
        });
    }

    fn console_input(&mut self, frame: &[u8]) {
        let Some((stream, bytes)) = frame.split_first_chunk::<4>() else { return };
        let stream = u32::from_be_bytes(*stream);
        // A guest that does not read is cut off, so that it cannot hold up the channel.
        let done = bytes.is_empty()
            || self.consoles.get(&stream).is_some_and(|input| input.try_send(bytes.to_vec()).is_err());
        if done {
            self.consoles.remove(&stream);
        }
    }
}

/// Joins one console and one stream of frames until either ends.
async fn relay(
    works: &Works,
    instance: &InstanceId,
    stream: u32,
    mut typed: mpsc::Receiver<Vec<u8>>,
    outbox: &mpsc::Sender<Message>,
) -> Result<(), String> {
    let incarnation = present(works, instance)?;
    let console = works
        .hypervisor
        .console(incarnation)
        .await
        .map_err(|error: HypervisorError| chain(&error).to_string())?;
    let (mut reader, writer) = console.split();
    loop {
        tokio::select! {
            output = reader.read() => {
                let Some(output) = output else { return Ok(()) };
                let mut frame = stream.to_be_bytes().to_vec();
                frame.extend(output);
                if outbox.send(Message::Binary(frame.into())).await.is_err() {
                    return Ok(());
                }
            }
            input = typed.recv() => {
                let Some(input) = input else { return Ok(()) };
                if !write(&writer, &input).await {
                    return Ok(());
                }
            }
        }
    }
}

/// Hands on what netd captures until it ends or the controller closes the stream.
async fn frames(
    works: &Works,
    capture: &Capture,
    stream: u32,
    mut closed: mpsc::Receiver<Vec<u8>>,
    outbox: &mpsc::Sender<Message>,
) -> Result<(), String> {
    let failed = |error: CallError| chain(&error).to_string();
    let mut captured = works.netd.capture(capture).await.map_err(failed)?;
    loop {
        tokio::select! {
            chunk = captured.chunk() => {
                let Some(bytes) = chunk.map_err(failed)? else { return Ok(()) };
                // A rest without bytes would close the stream.
                for part in bytes.chunks(CAPTURE_CHUNK_LEN_MAX) {
                    let frame = [stream.to_be_bytes().as_slice(), part].concat();
                    // It waits here while the line is busy: netd drops and counts what it cannot hand on.
                    if outbox.send(Message::Binary(frame.into())).await.is_err() {
                        return Ok(());
                    }
                }
            }
            input = closed.recv() => {
                if input.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

/// An answer of netd's in two parts, as it travels.
fn parted<T>(answer: Result<T, CallError>) -> (Option<T>, Option<String>) {
    match answer {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(chain(&error).to_string())),
    }
}

/// If the connection is gone, so is who asked.
async fn tell(outbox: &mpsc::Sender<Message>, message: &ToController) {
    if let Ok(message) = text(message) {
        let _ = outbox.send(message).await;
    }
}

async fn write(writer: &ConsoleWriter, input: &[u8]) -> bool {
    tokio::time::timeout(SEND_TIMEOUT, writer.write(input)).await.unwrap_or(false)
}

/// The incarnation of an instance that is here: the desired one.
fn present(works: &Works, instance: &InstanceId) -> Result<Uuid, String> {
    works
        .store
        .desired()
        .and_then(|desired| desired.instances.into_iter().find(|i| &i.id == instance))
        .and_then(|instance| instance.incarnation.parse().ok())
        .ok_or_else(|| format!("there is no instance {instance} on this host"))
}

fn log_tail(works: &Works, instance: &InstanceId, bytes_max: u32) -> Result<String, String> {
    let path = works.store.layout().console_log(present(works, instance)?);
    let fail = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{instance} has not been started here yet"),
        _ => format!("cannot read the serial log of {instance}: {error}"),
    };
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max.into()))).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.into()).read_to_end(&mut bytes).map_err(fail)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn take_events(events: &mut broadcast::Receiver<AgentEvent>, kept: &mut VecDeque<AgentEvent>) {
    loop {
        match events.try_recv() {
            Ok(event) => keep(kept, event),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events were lost while the controller was away");
            }
            Err(_) => return,
        }
    }
}

fn keep(kept: &mut VecDeque<AgentEvent>, event: AgentEvent) {
    if kept.len() >= EVENTS_KEPT_MAX {
        kept.pop_front();
    }
    kept.push_back(event);
}

fn text(message: &ToController) -> Result<Message, ChannelError> {
    serde_json::to_string(message).map(|json| Message::Text(json.into())).map_err(ChannelError::Message)
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), ChannelError> {
    Ok(tokio::time::timeout(SEND_TIMEOUT, socket.send(message))
        .await
        .map_err(|_| ChannelError::Timeout)??)
}
