#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
//! Claims about the whole agent: the real daemon on a real, private libvirtd, with a netd, a streamer and a controller
//! that only remember what they are told. Its guest is the probe guest: it echoes its console and powers off at a `q`.

#[path = "host/captures.rs"]
mod captures;
#[allow(dead_code, reason = "the fixture is shared with other tests")]
#[path = "../../hypervisor/tests/private_libvirtd/mod.rs"]
mod private_libvirtd;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use chassis::tls::{ClientCertificate, Identity, serve, server_config};
use controller_api::agent::{
    DesiredInstance, DesiredPort, DesiredStream, DesiredVolume, HostDesired, HostStatus, InstanceState,
    InstanceStatus, ToAgent, ToController,
};
use controller_api::checkpoint::LayerSource;
use controller_api::life::Power;
use netd_api::{NetworkStatus, PortStatus};
use private_libvirtd::Host;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use sha2::Digest as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use streamer_api::{
    ImageSource, ImageStatus, Limits, Prefetch, PublishProgress, PublishRequest, Published, Run, Stall, Touch,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::{Base64, ByteSize, Digest, Generation};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);
const IMAGE: Digest = Digest::from_bytes([0xab; 32]);

/// What the other daemons were told.
#[derive(Debug, Default)]
struct Told {
    networks: Mutex<netd_api::Desired>,
    images: Mutex<BTreeSet<String>>,
    source: Mutex<Option<ImageSource>>,
    limits: Mutex<Limits>,
    runs: Mutex<Vec<Run>>,
    stalls: Mutex<Vec<Stall>>,
    /// Digests of frozen files that are images.
    layers: Mutex<BTreeSet<String>>,
    /// By the agent to the controller.
    told_runs: Mutex<Vec<Run>>,
}

async fn netd_status(State(told): State<Arc<Told>>) -> Json<netd_api::Status> {
    let desired = told.networks.lock().unwrap().clone();
    let port = |port: netd_api::Port| PortStatus {
        id: port.id,
        tap: port.tap,
        ready: true,
        ..PortStatus::default()
    };
    let network = |network: netd_api::Network| NetworkStatus {
        id: network.id,
        up: true,
        ports: network.ports.into_iter().map(port).collect(),
        router: None,
    };
    Json(netd_api::Status {
        generation: desired.generation,
        converged: true,
        networks: desired.networks.into_iter().map(network).collect(),
        ..netd_api::Status::default()
    })
}

async fn netd_put(state: State<Arc<Told>>, Json(desired): Json<netd_api::Desired>) -> Json<netd_api::Status> {
    *state.0.networks.lock().unwrap() = desired;
    netd_status(state).await
}

fn image_status(export: String) -> ImageStatus {
    ImageStatus { export, ..ImageStatus::default() }
}

fn local_daemons(told: &Arc<Told>) -> Router {
    let hex = |digest: String| digest.strip_prefix("sha256:").unwrap_or(&digest).to_owned();
    Router::new()
        .route("/v1/desired", put(netd_put))
        .route("/v1/status", get(netd_status))
        .route(
            "/v1/images",
            get(|State(told): State<Arc<Told>>| async move {
                Json(told.images.lock().unwrap().iter().cloned().map(image_status).collect::<Vec<_>>())
            }),
        )
        .route(
            "/v1/images/{digest}",
            put(
                move |State(told): State<Arc<Told>>,
                      Path(digest): Path<String>,
                      Json(source): Json<ImageSource>| async move {
                    *told.source.lock().unwrap() = Some(source);
                    told.images.lock().unwrap().insert(hex(digest.clone()));
                    Json(image_status(hex(digest)))
                },
            )
            .get(move |Path(digest): Path<String>| async move { Json(image_status(hex(digest))) })
            .delete(
                move |State(told): State<Arc<Told>>, Path(digest): Path<String>| async move {
                    told.images.lock().unwrap().remove(&hex(digest));
                },
            ),
        )
        .route(
            "/v1/images/{digest}/runs",
            get(|State(told): State<Arc<Told>>| async move { Json(told.runs.lock().unwrap().clone()) }),
        )
        .route(
            "/v1/images/{digest}/stalls",
            get(|State(told): State<Arc<Told>>| async move { Json(told.stalls.lock().unwrap().clone()) }),
        )
        .route("/v1/publish", post(publish))
        .route("/v1/images/{digest}/evict", post(|| async { StatusCode::NO_CONTENT }))
        .route(
            "/v1/limits",
            get(|State(told): State<Arc<Told>>| async move { Json(*told.limits.lock().unwrap()) }).put(
                |State(told): State<Arc<Told>>, Json(limits): Json<Limits>| async move {
                    *told.limits.lock().unwrap() = limits;
                    Json(limits)
                },
            ),
        )
        .with_state(Arc::clone(told))
}

/// The image of a file that is frozen: what its bytes are is its name.
async fn publish(Json(request): Json<PublishRequest>) -> String {
    let bytes = std::fs::read(&request.path).unwrap();
    assert!(bytes.len().is_multiple_of(512), "{} is not whole", request.path.display());
    let digest = Digest::from_bytes(sha2::Sha256::digest(&bytes).into());
    let size_bytes = bytes.len() as u64;
    let published = Published { digest, size_bytes, metainfo: Base64(vec![1]), manifest: Base64(vec![2]) };
    let line = PublishProgress { published: Some(published), ..PublishProgress::default() };
    serde_json::to_string(&line).unwrap() + "\n"
}

async fn take_layer(
    State(told): State<Arc<Told>>,
    Path(digest): Path<String>,
    Json(_): Json<LayerSource>,
) -> StatusCode {
    told.layers.lock().unwrap().insert(digest);
    StatusCode::NO_CONTENT
}

async fn take_run(State(told): State<Arc<Told>>, Json(run): Json<Run>) -> StatusCode {
    told.told_runs.lock().unwrap().push(run);
    StatusCode::NO_CONTENT
}

/// A controller that has one agent.
struct Controller {
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    sessions: mpsc::Receiver<WebSocket>,
}

/// The certificate authority, a server and a host.
struct Authority(CertifiedIssuer<'static, KeyPair>, Ipv4Addr);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        // Each test has an address of its own: nobody else takes a port that is let go and listened at again.
        static TESTS: AtomicU8 = AtomicU8::new(1);
        let address = Ipv4Addr::new(127, 0, 1, TESTS.fetch_add(1, Ordering::Relaxed));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(), address)
    }

    fn leaf(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &*self.0).unwrap(), key)
    }

    async fn controller(&self, port: u16, told: &Arc<Told>) -> (Controller, u16) {
        let (certificate, key) = self.leaf(&self.1.to_string());
        let identity = Identity {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            authorities: vec![self.0.der().clone()],
        };
        let (sender, sessions) = mpsc::channel(4);
        let channel = move |upgrade: WebSocketUpgrade| {
            let sender = sender.clone();
            async move {
                upgrade.on_upgrade(|socket| async move { sender.send(socket).await.unwrap_or_default() })
            }
        };
        let source = || async { Json(ImageSource::new(Base64(vec![]), Base64(vec![]), String::new())) };
        let router = Router::new()
            .route("/agent/v1/channel", get(channel))
            .route("/agent/v1/images/{digest}", get(source))
            .route("/agent/v1/layers/{digest}", put(take_layer).with_state(Arc::clone(told)))
            .route("/agent/v1/images/{digest}/runs", post(take_run).with_state(Arc::clone(told)));
        // A process that another test is just starting may still have the one that was let go.
        let deadline = Instant::now() + DEADLINE;
        let listener = loop {
            match TcpListener::bind((self.1, port)).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let tls = server_config(identity, ClientCertificate::Required).unwrap();
        let server = tokio::spawn(serve(listener, tls, router, stop.clone()));
        (Controller { stop, server, sessions }, port)
    }
}

impl Controller {
    /// Ends it; its port is free afterwards.
    async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap();
    }

    /// The agent's connection.
    async fn session(&mut self) -> Session {
        let socket = tokio::time::timeout(DEADLINE, self.sessions.recv()).await.unwrap().unwrap();
        Session { socket, last: None, console: Vec::new(), events: Vec::new() }
    }
}

/// One connection as the controller sees it.
struct Session {
    socket: WebSocket,
    last: Option<HostStatus>,
    console: Vec<u8>,
    events: Vec<String>,
}

impl Session {
    async fn send(&mut self, message: &ToAgent) {
        self.socket.send(Message::Text(serde_json::to_string(message).unwrap().into())).await.unwrap();
    }

    async fn desire(&mut self, desired: HostDesired) {
        self.send(&ToAgent::Desired(Box::new(desired))).await;
    }

    /// Reads until something holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Session, &ToController) -> bool) -> ToController {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = tokio::time::timeout(left, self.socket.recv()).await;
            let message = message.unwrap_or_else(|_| panic!("not {what}: {:?} {:?}", self.last, self.events));
            let heard = match message.unwrap().unwrap() {
                Message::Text(json) => serde_json::from_str(&json).unwrap(),
                Message::Binary(frame) => {
                    self.console.extend(&frame[4..]);
                    ToController::ConsoleClosed { stream: 0, reason: String::new() }
                }
                _ => continue,
            };
            match &heard {
                ToController::Status(status) => self.last = Some((**status).clone()),
                ToController::Event(event) => self.events.push(event.reason.clone()),
                _ => {}
            }
            if holds(self, &heard) {
                return heard;
            }
        }
    }

    async fn until_status(&mut self, what: &str, holds: impl Fn(&HostStatus) -> bool) -> HostStatus {
        self.until(what, |_, heard| matches!(heard, ToController::Status(status) if holds(status))).await;
        self.last.clone().unwrap()
    }

    async fn until_instance(
        &mut self,
        what: &str,
        holds: impl Fn(&InstanceStatus) -> bool,
    ) -> InstanceStatus {
        let status = self.until_status(what, |status| status.instances.first().is_some_and(&holds)).await;
        status.instances[0].clone()
    }
}

struct Agent(Child);

impl Agent {
    fn start(host: &Host) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(host.at("agent.log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_collective-agent"), "--config"])
            .arg(host.at("agent.toml"))
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write_files(host: &Host, authority: &Authority, port: u16) {
    let (certificate, key) = authority.leaf("h1");
    std::fs::write(host.at("ca.pem"), authority.0.pem()).unwrap();
    std::fs::write(host.at("host.pem"), certificate.pem()).unwrap();
    std::fs::write(host.at("host.key"), key.serialize_pem()).unwrap();
    let (at, address) = (|name: &str| host.at(name).display().to_string(), authority.1);
    let text = format!(
        "state_dir = \"{}\"\nrun_dir = \"{}\"\ncontroller = \"https://{address}:{port}\"\nlibvirt_uri = \"{}\"\n\
         netd_socket = \"{}\"\nstreamer_socket = \"{}\"\nnbd_socket = \"{}\"\nunderlay_address = \"10.0.0.1\"\n\
         [identity]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n",
        at("state"),
        at("agent-run"),
        host.uri(),
        at("daemons.sock"),
        at("daemons.sock"),
        at("nbd.sock"),
        at("ca.pem"),
        at("host.pem"),
        at("host.key"),
    );
    std::fs::write(host.at("agent.toml"), text).unwrap();
}

fn desired(generation: u64, incarnation: Option<Uuid>) -> HostDesired {
    let id = "office/probe".parse().unwrap();
    let mac = "02:00:00:00:00:01".parse().unwrap();
    let name = "home".parse().unwrap();
    let port = netd_api::Port::closed("office/probe/eth0".to_owned(), "ctprobe0".to_owned(), mac);
    let Some(incarnation) = incarnation else {
        return HostDesired { generation: Generation(generation), ..HostDesired::default() };
    };
    HostDesired {
        generation: Generation(generation),
        networks: vec![netd_api::Network {
            id: "office/inside".to_owned(),
            bridge: "cb0".to_owned(),
            mtu: 1450,
            uplink: netd_api::Uplink::None,
            ports: vec![port],
            ..netd_api::Network::default()
        }],
        images: vec![IMAGE],
        volumes: vec![DesiredVolume {
            instance: id,
            name,
            size: ByteSize(1 << 20),
            incarnation: String::new(),
            layers: Vec::new(),
        }],
        instances: vec![DesiredInstance {
            id: "office/probe".parse().unwrap(),
            incarnation: incarnation.to_string(),
            vcpus: 1,
            memory: ByteSize(64 << 20),
            image: IMAGE,
            image_size_bytes: 1 << 20,
            ports: vec![DesiredPort {
                name: "eth0".parse().unwrap(),
                tap: "ctprobe0".to_owned(),
                mac,
                mtu: 1450,
            }],
            volumes: vec!["home".parse().unwrap()],
            config: BTreeMap::from([("instance.env".to_owned(), "INSTANCE=\"office/probe\"\n".to_owned())]),
            power: Power::On,
            leased: false,
            layers: Vec::new(),
            memory_from: None,
        }],
        ..HostDesired::default()
    }
}

fn runs(instance: &InstanceStatus) -> bool {
    instance.state == InstanceState::Booting && instance.started_ms.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_survives_the_agent_and_goes_with_its_document() {
    let host = Host::start();
    let authority = Authority::new();
    let told = Arc::new(Told::default());
    let (mut controller, port) = authority.controller(0, &told).await;
    write_files(&host, &authority, port);
    let daemons = chassis::unix_http::bind(&host.at("daemons.sock"), 0o600).unwrap();
    tokio::spawn(chassis::unix_http::serve(daemons, local_daemons(&told), CancellationToken::new()));
    let mut agent = Agent::start(&host);

    // It runs: with its port, its volume, its console and its log.
    let mut session = controller.session().await;
    let hello = session.until("a hello", |_, heard| matches!(heard, ToController::Hello(_))).await;
    let ToController::Hello(hello) = hello else { unreachable!() };
    assert_eq!(hello.generation, Generation(0));
    assert_eq!(hello.facts.accelerator == "kvm", hello.facts.accelerator_reason.is_none());
    let first = Uuid::new_v4();
    session.desire(desired(3, Some(first))).await;
    session.until_status("converged", |status| status.converged && status.generation == Generation(3)).await;
    let begun = session.until_instance("running", runs).await;
    assert_eq!((begun.starts, begun.ready_ms), (1, None));
    let instance = "office/probe".parse().unwrap();
    session.send(&ToAgent::ConsoleOpen { stream: 7, instance }).await;
    let tail =
        |request| ToAgent::LogTail { request, instance: "office/probe".parse().unwrap(), bytes_max: 4096 };
    loop {
        session.send(&tail(1)).await;
        let log = session.until("a log", |_, heard| matches!(heard, ToController::Log { .. })).await;
        if matches!(log, ToController::Log { text, .. } if text.contains("long mode")) {
            break;
        }
    }
    session.socket.send(Message::Binary(b"\0\0\0\x07ping".to_vec().into())).await.unwrap();
    session.until("an echo", |session, _| String::from_utf8_lossy(&session.console).contains("ping")).await;
    let marker = host.at("state/volumes/office/probe/home.raw");
    assert_eq!(std::fs::metadata(&marker).unwrap().len(), 1 << 20);
    std::fs::write(&marker, vec![b'm'; 1 << 20]).unwrap();

    // Neither the agent's nor the controller's end stops it; the agent takes it up again without the controller.
    agent.kill();
    drop(session);
    controller.end().await;
    let mut agent = Agent::start(&host);
    let (mut controller, _) = authority.controller(port, &told).await;
    let mut session = controller.session().await;
    let again = session.until_instance("running still", runs).await;
    assert_eq!((again.starts, again.started_ms), (1, begun.started_ms));

    // An older document is ignored. A guest that ends by itself is started again.
    session.desire(desired(2, None)).await;
    host.virsh(&["reset", &first.to_string()]);
    host.virsh(&["destroy", &first.to_string()]);
    let restarted = session.until_instance("started again", |i| runs(i) && i.starts == 2).await;
    assert!(restarted.started_ms > begun.started_ms);
    assert!(session.events.contains(&"instance-stopped".to_owned()), "{:?}", session.events);

    // A new incarnation has a new overlay and the old volume.
    let second = Uuid::new_v4();
    session.desire(desired(4, Some(second))).await;
    session.until_instance("the new incarnation", |i| runs(i) && i.incarnation == second.to_string()).await;
    session.until_status("converged", |status| status.converged).await;
    assert!(!host.at(&format!("state/instances/{first}")).exists());
    assert!(std::fs::read(&marker).unwrap().starts_with(b"mmm"));
    assert_eq!(host.virsh(&["list", "--all", "--uuid"]).trim(), second.to_string());

    // kill -9 in the middle of a removal: the next start finishes it, and nothing is left.
    session.desire(desired(5, None)).await;
    agent.kill();
    drop(session);
    let _agent = Agent::start(&host);
    let mut session = controller.session().await;
    session.desire(desired(5, None)).await;
    let gone = |s: &HostStatus| s.converged && s.generation == Generation(5) && s.instances.is_empty();
    session.until_status("all gone", gone).await;
    assert_eq!(host.virsh(&["list", "--all", "--uuid"]).trim(), "");
    assert_eq!(std::fs::read_dir(host.at("state/instances")).unwrap().count(), 0);
    assert!(!marker.exists());
    assert_eq!(told.networks.lock().unwrap().networks, []);
    assert!(told.images.lock().unwrap().is_empty());
    drop(session);
    controller.end().await;
}

/// The probe guest cannot say `ready`: its record is made to say so, half a minute ago.
fn ready_long_ago(host: &Host, incarnation: Uuid) -> u64 {
    let path = host.at(&format!("state/instances/{incarnation}/record.json"));
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let started = record["started_ms"].as_u64().unwrap();
    record["ready_ms"] = (started - 30_000).into();
    std::fs::write(path, record.to_string()).unwrap();
    started
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_read_is_told_once_and_remembered_when_it_is_gone() {
    let host = Host::start();
    let authority = Authority::new();
    let told = Arc::new(Told::default());
    let (mut controller, port) = authority.controller(0, &told).await;
    write_files(&host, &authority, port);
    let daemons = chassis::unix_http::bind(&host.at("daemons.sock"), 0o600).unwrap();
    tokio::spawn(chassis::unix_http::serve(daemons, local_daemons(&told), CancellationToken::new()));
    let mut agent = Agent::start(&host);
    let mut session = controller.session().await;
    let incarnation = Uuid::new_v4();
    session.desire(desired(1, Some(incarnation))).await;
    session.until_instance("running", runs).await;

    // Each start reads under a name of its own.
    let reader = format!("office/probe:{}.1", &incarnation.simple().to_string()[..8]);
    let xml = host.virsh(&["dumpxml", &incarnation.to_string()]);
    assert!(xml.contains(&format!("name='{}/{reader}'", IMAGE.hex())), "{xml}");

    // The run of its boot is told once.
    agent.kill();
    drop(session);
    let began_unix_ms = ready_long_ago(&host, incarnation) + 100;
    let touched = vec![Touch { piece: 4, at_ms: 20 }, Touch { piece: 2, at_ms: 30 }];
    let run = Run { reader: reader.clone(), began_unix_ms, whole: true, touched, ..Run::default() };
    *told.runs.lock().unwrap() = vec![Run { reader: "another".into(), ..run.clone() }, run.clone()];
    let stall = Stall { reader: reader.clone(), piece: 4, waited_ms: 250, ..Stall::default() };
    *told.stalls.lock().unwrap() = vec![Stall { reader: "another".into(), ..stall.clone() }, stall.clone()];
    let _agent = Agent::start(&host);
    let mut session = controller.session().await;
    session.until_status("a run told", |_| !told.told_runs.lock().unwrap().is_empty()).await;
    for _ in 0..3 {
        session.until("another status", |_, heard| matches!(heard, ToController::Status(_))).await;
    }
    assert_eq!(*told.told_runs.lock().unwrap(), [run], "once, and only its own");

    // What it waited for is told when asked; how it is held and how fast follows the document.
    let ask = ToAgent::StreamReport { request: 9, instance: "office/probe".parse().unwrap() };
    let answered =
        |_: &Session, heard: &ToController| matches!(heard, ToController::Stream { request: 9, .. });
    session.send(&ask).await;
    let ToController::Stream { report: Some(report), .. } = session.until("a report", answered).await else {
        panic!("no report")
    };
    assert_eq!((report.stalls.as_slice(), report.gone), ([stall.clone()].as_slice(), false));
    assert_eq!(report.run.map(|run| run.touched), Some(2));
    let held = DesiredStream { image: IMAGE, source: 1, prefetch: Prefetch::Idle, pin: true };
    let limits = Limits { upload_bytes_per_s: Some(1 << 20), ..Limits::default() };
    let otherwise =
        HostDesired { streams: vec![held], limits: Some(limits), ..desired(2, Some(incarnation)) };
    session.desire(otherwise).await;
    session.until_status("converged", |status| status.converged && status.generation == Generation(2)).await;
    let source = told.source.lock().unwrap().clone().unwrap();
    assert_eq!((source.prefetch, source.pin), (Prefetch::Idle, true));
    assert_eq!(*told.limits.lock().unwrap(), limits);

    // It is gone, with its pin, and what it waited for is still known.
    session.desire(desired(3, None)).await;
    let gone = |s: &HostStatus| s.converged && s.generation == Generation(3) && s.instances.is_empty();
    session.until_status("all gone", gone).await;
    assert!(!told.source.lock().unwrap().clone().unwrap().pin);
    assert_eq!(*told.limits.lock().unwrap(), Limits::default());
    session.send(&ask).await;
    let ToController::Stream { report: Some(report), .. } = session.until("a report", answered).await else {
        panic!("no report")
    };
    assert_eq!((report.stalls.as_slice(), report.gone), ([stall].as_slice(), true));
    drop(session);
    controller.end().await;
}

fn leased(generation: u64, incarnation: Uuid) -> HostDesired {
    let mut document = desired(generation, Some(incarnation));
    document.instances[0].leased = true;
    document.lease_ms = Some(LEASE_MS);
    document
}

const LEASE_MS: u64 = 5_000;

impl Session {
    /// Answers every status with a lease until one fits; says when that one came.
    async fn until_heard(&mut self, what: &str, fits: impl Fn(&InstanceStatus) -> bool) -> Instant {
        self.until_granted(what, LEASE_MS, fits).await
    }

    async fn until_granted(
        &mut self,
        what: &str,
        lease_ms: u64,
        fits: impl Fn(&InstanceStatus) -> bool,
    ) -> Instant {
        loop {
            let status = self.until_status(what, |_| true).await;
            assert!(status.beat > 0, "a status that wants no answer");
            let came = Instant::now();
            self.send(&ToAgent::Heard { beat: status.beat, lease_ms }).await;
            if status.instances.first().is_some_and(&fits) {
                return came;
            }
        }
    }
}

fn waits_for_lease(instance: &InstanceStatus) -> bool {
    !runs(instance) && instance.reason.as_deref().is_some_and(|reason| reason.contains("lease"))
}

/// Waits until libvirt says so of a guest.
async fn until_domain(host: &Host, incarnation: Uuid, state: &str) {
    let end = Instant::now() + DEADLINE;
    while host.virsh(&["domstate", &incarnation.to_string()]).trim() != state {
        assert!(Instant::now() < end, "the guest is not {state}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Processes that would stop the leased guests of this host.
fn fences(host: &Host) -> usize {
    fences_of(&host.at("agent-run").display().to_string())
}

fn fences_of(folder: &str) -> usize {
    let lines = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = lines.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains("\0fence\0") && line.contains(folder)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_guest_runs_while_it_is_heard_and_no_longer_though_the_agent_is_killed() {
    let host = Host::start();
    let authority = Authority::new();
    let told = Arc::new(Told::default());
    let (mut controller, port) = authority.controller(0, &told).await;
    write_files(&host, &authority, port);
    let daemons = chassis::unix_http::bind(&host.at("daemons.sock"), 0o600).unwrap();
    tokio::spawn(chassis::unix_http::serve(daemons, local_daemons(&told), CancellationToken::new()));
    let mut agent = Agent::start(&host);
    let mut session = controller.session().await;
    let incarnation = Uuid::new_v4();
    session.desire(leased(1, incarnation)).await;
    session.until_instance("waiting for a lease", waits_for_lease).await;
    assert_eq!(host.virsh(&["list", "--all", "--uuid"]).trim(), "", "nothing starts that was not granted");

    // Heard, it runs; unheard, it is stopped in time and stays so.
    let heard = session.until_heard("running", runs).await;
    until_domain(&host, incarnation, "running").await;
    until_domain(&host, incarnation, "shut off").await;
    let after = heard.elapsed();
    println!("stopped {after:?} after the last answer, with a lease of {LEASE_MS} ms");
    // The lease runs from when the status was sent; a busy machine takes a while to bring it, and to ask libvirt.
    assert!(after > Duration::from_millis(LEASE_MS / 2) && after < Duration::from_millis(LEASE_MS + 2_000));
    // Meanwhile it heard nothing from us, and has dialled again.
    let mut session = controller.session().await;
    session.desire(leased(1, incarnation)).await;
    session
        .until_instance("stopped", |instance| {
            waits_for_lease(instance) && instance.state == InstanceState::Stopped
        })
        .await;

    // Heard again, it starts again; and goes in time though nobody is left to stop it but its fence.
    session.until_heard("running again", |instance| runs(instance) && instance.starts == 2).await;
    assert_eq!(fences(&host), 1);
    let heard = session.until_heard("running on", runs).await;
    agent.kill();
    until_domain(&host, incarnation, "shut off").await;
    let after = heard.elapsed();
    println!("stopped {after:?} after the last answer to an agent that was killed");
    assert!(after < Duration::from_millis(LEASE_MS + 2_000));
    drop(session);

    // Another agent starts nothing before it is heard.
    let agent = Agent::start(&host);
    let mut session = controller.session().await;
    session.desire(leased(1, incarnation)).await;
    session.until_instance("waiting for a lease again", waits_for_lease).await;
    session.until_heard("running once more", runs).await;

    // An agent that is back in time finds the guest running on.
    let domain = host.virsh(&["domid", &incarnation.to_string()]);
    session.until_granted("a lease just before", 60_000, runs).await;
    drop((agent, session));
    let agent = Agent::start(&host);
    let mut session = controller.session().await;
    session.desire(leased(1, incarnation)).await;
    session.until_heard("running on", runs).await;
    assert_eq!(host.virsh(&["domid", &incarnation.to_string()]), domain);

    // One that is given away is gone, and what would stop it ends with the host.
    session.desire(desired(2, None)).await;
    let gone = |status: &HostStatus| status.converged && status.instances.is_empty();
    session.until_status("gone", gone).await;
    drop((agent, session));
    let folder = host.at("agent-run");
    controller.end().await;
    let count = || fences_of(&folder.display().to_string());
    drop(host);
    let end = Instant::now() + DEADLINE;
    while count() > 0 {
        assert!(Instant::now() < end, "a process is left behind");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_cut_off_starts_again_what_needs_no_lease() {
    let host = Host::start();
    let authority = Authority::new();
    let told = Arc::new(Told::default());
    let (mut controller, port) = authority.controller(0, &told).await;
    write_files(&host, &authority, port);
    let daemons = chassis::unix_http::bind(&host.at("daemons.sock"), 0o600).unwrap();
    tokio::spawn(chassis::unix_http::serve(daemons, local_daemons(&told), CancellationToken::new()));
    let agent = Agent::start(&host);
    let mut session = controller.session().await;
    let incarnation = Uuid::new_v4();
    session.desire(desired(1, Some(incarnation))).await;
    session.until_instance("running", runs).await;
    drop(session);
    controller.end().await;

    // Its guest ends, and the machine's agent is begun anew, with nobody to ask.
    let ended = host.virsh(&["domid", &incarnation.to_string()]);
    host.virsh(&["destroy", &incarnation.to_string()]);
    until_domain(&host, incarnation, "running").await;
    let again = host.virsh(&["domid", &incarnation.to_string()]);
    assert_ne!(again, ended);
    drop(agent);
    host.virsh(&["destroy", &incarnation.to_string()]);
    let _agent = Agent::start(&host);
    until_domain(&host, incarnation, "running").await;
    assert_ne!(host.virsh(&["domid", &incarnation.to_string()]), again);
}
