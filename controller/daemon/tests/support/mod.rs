//! A controller on a loopback socket, and members that speak with it as ours do.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use chassis::tls::Identity;
use controller_api::agent::{
    Hello, HostDesired, HostFacts, HostStatus, JoinRequest, PROTOCOL, ToAgent, ToController,
};
use controller_api::policy::{PolicyKind, PutPolicy, PutTrustRoot};
use controller_api::rest::{JoinTokenRequest, PublishVersion, PublisherKey, SignedVersion};
use controller_client::Client;
use controller_daemon::Server;
use controller_daemon::config::Config;
use futures::{SinkExt as _, StreamExt as _};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use streamer_api::{MANIFEST_FORMAT, Manifest};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use types::{Base64, Digest};

pub const OFFICE: &str = include_str!("../../../../examples/office.yaml");
pub const SITE: &str = include_str!("../../../../examples/site.yaml");
/// Longest time anything in here may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Running {
    pub admin: Client,
    pub ca: String,
    pub token: String,
    pub address: SocketAddr,
    pub state: PathBuf,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub fn no_policies() -> PathBuf {
    "/nonexistent".into()
}

pub fn real_policies() -> PathBuf {
    let built = xtask::policies::build(None).unwrap().policies;
    built[0].path.parent().unwrap().to_owned()
}

pub async fn start(state: &Path, policies: PathBuf) -> Running {
    let config = Config {
        state_dir: state.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        public_names: vec!["127.0.0.1".into(), "localhost".into()],
        policies,
        tracker_url: None,
        moves_max: 4,
    };
    config.check().unwrap();
    let shutdown = CancellationToken::new();
    let server = Server::bind(&config, shutdown.clone()).await.unwrap();
    let address = server.address();
    let task = tokio::spawn(server.run());
    let ca = std::fs::read_to_string(state.join("ca.pem")).unwrap();
    let token = std::fs::read_to_string(state.join("admin.token")).unwrap().trim().to_owned();
    let admin = Client::new(&format!("https://{address}"), &ca, Some(&token)).unwrap();
    Running { admin, ca, token, address, state: state.to_owned(), shutdown, task }
}

impl Running {
    pub fn client(&self, token: Option<&str>) -> Client {
        Client::new(&format!("https://{}", self.address), &self.ca, token).unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }

    pub async fn join(&self, name: &str, role: &str) -> Member {
        let request = JoinTokenRequest { role: Some(role.into()), valid_s: None };
        let token = self.admin.join_token(&request).await.unwrap().token;
        self.join_with(name, &token).await.unwrap()
    }

    pub async fn join_with(&self, name: &str, token: &str) -> Result<Member, controller_client::ClientError> {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::new(Vec::<String>::new()).unwrap().serialize_request(&key).unwrap();
        let request = JoinRequest {
            token: token.into(),
            host: name.parse().unwrap(),
            site: "main".parse().unwrap(),
            csr: csr.pem().unwrap(),
        };
        let answer = self.client(None).join(&request).await?;
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        Ok(Member {
            identity: Identity {
                chain: vec![der(&answer.certificate)],
                key: PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
                authorities: vec![der(&answer.ca)],
            },
            address: self.address,
        })
    }
}

pub struct Member {
    pub identity: Identity,
    pub address: SocketAddr,
}

impl Member {
    pub fn http(&self) -> reqwest::Client {
        let tls = chassis::tls::client_config(self.identity.clone()).unwrap();
        reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let response = self.http().get(format!("https://{}{path}", self.address)).send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    }

    pub async fn post(&self, path: &str, body: Vec<u8>) -> (u16, String) {
        let request = self.http().post(format!("https://{}{path}", self.address)).body(body);
        let response = request.header("content-type", "application/json").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn dial(&self) -> Result<Agent, String> {
        let tls = chassis::tls::client_config(self.identity.clone()).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        let url = format!("wss://{}/agent/v1/channel", self.address);
        let (socket, _) =
            tokio_tungstenite::client_async(url, stream).await.map_err(|error| error.to_string())?;
        Ok(Agent { socket })
    }

    pub async fn agent(&self, underlay: &str) -> Agent {
        let mut agent = self.dial().await.unwrap();
        agent.hello(underlay, 0).await;
        agent
    }
}

pub struct Agent {
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl Agent {
    pub async fn hello(&mut self, underlay: &str, generation: u64) {
        let facts = HostFacts {
            cpu_total_milli: 4_000,
            memory_total_bytes: 4 << 30,
            disk_total_bytes: 64 << 30,
            accelerator: "tcg".into(),
            underlay_address: Some(underlay.parse().unwrap()),
            move_address: Some(format!("{underlay}:4250").parse().unwrap()),
            ..HostFacts::default()
        };
        let hello = Hello { protocol: PROTOCOL, generation: types::Generation(generation), facts };
        self.say(&ToController::Hello(Box::new(hello))).await;
        self.say(&ToController::Status(Box::new(status()))).await;
    }

    pub async fn say(&mut self, message: &ToController) {
        let text = serde_json::to_string(message).unwrap();
        self.socket.send(Message::Text(text.into())).await.unwrap();
    }

    pub async fn say_bytes(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::Binary(bytes.into())).await.unwrap();
    }

    pub async fn frame(&mut self) -> Option<Message> {
        tokio::time::timeout(DEADLINE, self.socket.next()).await.unwrap().and_then(Result::ok)
    }

    pub async fn message(&mut self) -> ToAgent {
        loop {
            match self.frame().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// The first desired document that fits; says meanwhile that it lives.
    pub async fn desired(&mut self, fits: impl Fn(&HostDesired) -> bool) -> HostDesired {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            assert!(tokio::time::Instant::now() < end, "no such desired document");
            let next = tokio::time::timeout(Duration::from_millis(500), self.socket.next()).await;
            match next {
                Err(_) => self.say(&ToController::Status(Box::new(status()))).await,
                Ok(Some(Ok(Message::Text(text)))) => {
                    if let ToAgent::Desired(document) = serde_json::from_str(&text).unwrap()
                        && fits(&document)
                    {
                        return *document;
                    }
                }
                Ok(Some(Ok(_))) => {}
                Ok(other) => panic!("{other:?}"),
            }
        }
    }
}

pub fn status() -> HostStatus {
    HostStatus {
        converged: true,
        disk_free_bytes: 64 << 30,
        memory_free_bytes: 4 << 30,
        ..HostStatus::default()
    }
}

pub struct Publisher {
    pub key: Ed25519KeyPair,
}

impl Publisher {
    pub fn new() -> Self {
        Self { key: Ed25519KeyPair::generate().unwrap() }
    }

    pub fn public(&self) -> PublisherKey {
        PublisherKey { public_key: Base64(self.key.public_key().as_ref().to_vec()) }
    }

    /// A version whose image is all of one byte.
    pub fn version(&self, appliance: &str, version: &str, byte: u8) -> PublishVersion {
        let (size, piece): (u64, u32) = (1 << 20, 256 << 10);
        let piece_content = vec![byte; piece as usize];
        let mut info =
            format!("d6:lengthi{size}e4:name6:system12:piece lengthi{piece}e6:pieces80:").into_bytes();
        let sha1 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &piece_content);
        info.extend(sha1.as_ref().repeat(4));
        info.extend(b"7:privatei1ee");
        let info_hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &info);
        let metainfo = [b"d4:info".as_slice(), &info, b"e"].concat();
        let manifest = Manifest {
            format: MANIFEST_FORMAT.into(),
            size_bytes: size,
            piece_bytes: piece,
            info_hash: hex::encode(info_hash),
            pieces: Base64(Sha256::digest(&piece_content).repeat(4)),
        };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let (ports, volumes) = match appliance {
            "gateway" => (json!(["wan", "lan"]), json!([])),
            _ => (json!(["eth0"]), json!(["home"])),
        };
        let signed = SignedVersion {
            publisher: "acme".parse().unwrap(),
            appliance: appliance.into(),
            version: version.parse().unwrap(),
            image: Digest::from_bytes(Sha256::digest(&manifest).into()),
            size_bytes: size,
            spec: serde_json::from_value(json!({
                "hardware": {"vcpus": 1, "memory": "192MiB"}, "disks": {"system": {"file": "system.raw"}},
                "ports": ports, "volumes": volumes,
            }))
            .unwrap(),
            untested: None,
        };
        let signed = serde_json::to_vec(&signed).unwrap();
        PublishVersion {
            signature: Base64(self.key.sign(&signed).as_ref().to_vec()),
            signed: Base64(signed),
            metainfo: Base64(metainfo),
            manifest: Base64(manifest),
            channel: Some("stable".parse().unwrap()),
            profiles: vec![],
            web_seed: None,
        }
    }
}

/// Both appliances of the office in the catalogue, and the site.
pub async fn furnish(running: &Running) -> Publisher {
    let publisher = Publisher::new();
    running.admin.put_publisher(&"acme".parse().unwrap(), &publisher.public()).await.unwrap();
    running.admin.publish(&publisher.version("gateway", "1.0.0", 1)).await.unwrap();
    running.admin.publish(&publisher.version("workspace", "1.0.0", 2)).await.unwrap();
    running.admin.apply(SITE, false).await.unwrap();
    publisher
}

/// Somebody who writes policies, or vouches for them.
pub struct Author {
    pub key: plugins_artifact::SecretKey,
}

impl Author {
    pub fn new() -> Self {
        Self { key: plugins_artifact::SecretKey::generate().unwrap() }
    }

    pub fn root(&self, kinds: &[PolicyKind]) -> PutTrustRoot {
        let key = Base64(self.key.public().as_bytes().to_vec());
        let key = serde_json::to_value(key).unwrap().as_str().unwrap().to_owned();
        PutTrustRoot { key, kinds: kinds.iter().copied().collect(), expires_ms: None }
    }

    /// Signs a component for what it says it is.
    pub fn signed(&self, component: &[u8]) -> PutPolicy {
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            plugins_runtime::Runtime::new(plugins_runtime::Limits::default(), folder.path()).unwrap();
        let policy = runtime.load(component).unwrap();
        let manifest = policy.manifest();
        let statement = plugins_artifact::Statement {
            component: policy.digest(),
            kind: policy.kind().as_str().parse().unwrap(),
            name: manifest.name.clone(),
            version: manifest.version.clone(),
        };
        self.sign(component, &statement)
    }

    pub fn sign(&self, component: &[u8], statement: &plugins_artifact::Statement) -> PutPolicy {
        let signature = plugins_artifact::sign(statement, &self.key).unwrap();
        PutPolicy { component: Base64(component.to_vec()), signature: Base64(signature), settings: None }
    }
}

/// The component of a first-party policy.
pub fn component(name: &str) -> Vec<u8> {
    std::fs::read(real_policies().join(format!("{name}.wasm"))).unwrap()
}

/// An author whose placement policies are trusted, as `acme`.
pub async fn trusted(admin: &Client) -> Author {
    let author = Author::new();
    admin.put_trust_root(&"acme".parse().unwrap(), &author.root(&[PolicyKind::Placement])).await.unwrap();
    author
}
