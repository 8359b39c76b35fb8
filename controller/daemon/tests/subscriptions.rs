//! What a publisher's repository brings into the catalogue, and what it cannot do to it. What attackers do to the
//! repository itself is tested where it is judged, in `controller/publisher`.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use chassis::tls::{ClientCertificate, Identity};
use controller_api::rest::{ApplianceView, ProblemCode, PublishVersion};
use controller_api::subscription::{RepositorySource, Subscribe, SubscriptionState, SubscriptionView};
use controller_client::ClientError;
use controller_publisher::{Files, KeyRing, Repository, Role, RootKeys, Validity};
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Publisher, Running, no_policies, start};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use types::{Base64, Digest, PublisherName, VersionName};

fn acme() -> PublisherName {
    "acme".parse().unwrap()
}

fn version(text: &str) -> VersionName {
    text.parse().unwrap()
}

/// A maker with a repository.
struct Maker {
    folder: TempDir,
    keys: TempDir,
    publisher: Publisher,
    root: Vec<u8>,
}

impl Maker {
    fn new() -> Self {
        let (folder, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut ring = KeyRing::open(keys.path(), &[]).unwrap();
        let root = RootKeys { count: 1, threshold: 1 };
        drop(
            Repository::create(
                folder.path(),
                &acme(),
                &mut ring,
                root,
                Validity::default(),
                Timestamp::now(),
            )
            .unwrap(),
        );
        let root = std::fs::read(folder.path().join("metadata/1.root.json")).unwrap();
        Self { folder, keys, publisher: Publisher::new(), root }
    }

    fn change_at(&self, at: Timestamp, change: impl FnOnce(&mut Repository, &mut KeyRing)) {
        let mut ring = KeyRing::open(self.keys.path(), &[]).unwrap();
        let mut repository = Repository::open(self.folder.path()).unwrap();
        change(&mut repository, &mut ring);
        repository.commit(&ring, Validity::default(), at).unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut Repository, &mut KeyRing)) {
        self.change_at(Timestamp::now(), change);
    }

    fn made(&self, appliance: &str, text: &str, byte: u8) -> PublishVersion {
        self.publisher.version(appliance, text, byte)
    }

    /// Publishes a version whose image is all of one byte, and lets `stable` point to it.
    fn publish(&self, appliance: &str, text: &str, byte: u8) {
        self.publish_as(&self.made(appliance, text, byte), appliance, text);
    }

    fn publish_as(&self, made: &PublishVersion, appliance: &str, text: &str) {
        let files = Files { signed: &made.signed.0, metainfo: &made.metainfo.0, manifest: &made.manifest.0 };
        self.change(|repository, ring| {
            repository.add_version(ring, appliance, &version(text), files).unwrap();
            repository.promote(appliance, &version(text), &"stable".parse().unwrap()).unwrap();
        });
    }

    fn subscribe(&self) -> Subscribe {
        let path = self.folder.path().to_str().unwrap().to_owned();
        Subscribe {
            source: RepositorySource::Folder { path },
            root: Base64(self.root.clone()),
            interval_s: None,
        }
    }

    fn keep(&self) -> TempDir {
        let kept = tempfile::tempdir().unwrap();
        copy(self.folder.path(), kept.path());
        kept
    }
}

fn copy(from: &Path, to: &Path) {
    for folder in ["metadata", "targets"] {
        let _ = std::fs::remove_dir_all(to.join(folder));
        std::fs::create_dir_all(to.join(folder)).unwrap();
        for entry in std::fs::read_dir(from.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(folder).join(path.file_name().unwrap())).unwrap();
        }
    }
}

async fn gateway(running: &Running) -> ApplianceView {
    running.admin.get("/v1/appliances/acme/gateway").await.unwrap()
}

fn names(view: &ApplianceView) -> Vec<&str> {
    view.versions.iter().map(|version| version.version.as_str()).collect()
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>, code: ProblemCode, words: &str) {
    let error = result.unwrap_err();
    let problem = error.problem().unwrap_or_else(|| panic!("{error:?}"));
    assert!(problem.code == code && problem.message.contains(words), "{problem:?}");
}

#[tokio::test]
async fn versions_channels_and_withdrawals_come_by_themselves() {
    let (state, maker) = (tempfile::tempdir().unwrap(), Maker::new());
    let running = start(state.path(), no_policies()).await;
    maker.publish("gateway", "1.0.0", 1);
    let view = running.admin.subscribe(&acme(), &maker.subscribe()).await.unwrap();
    assert_eq!((view.state, view.versions, view.root_version), (SubscriptionState::Current, 1, 1));
    let held = gateway(&running).await;
    assert_eq!((names(&held), held.channels[&"stable".parse().unwrap()].as_str()), (vec!["1.0.0"], "1.0.0"));

    maker.publish("gateway", "2.0.0", 2);
    maker.publish("workspace", "1.0.0", 3);
    maker.change(|repository, ring| {
        repository.yank("gateway", &version("1.0.0"), Some("it leaks")).unwrap();
        repository.rotate(&Role::Timestamp, ring).unwrap();
    });
    let view = running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!((view.state, view.versions, view.root_version), (SubscriptionState::Current, 3, 2));
    let held = gateway(&running).await;
    assert_eq!(
        (names(&held), held.channels[&"stable".parse().unwrap()].as_str()),
        (vec!["1.0.0", "2.0.0"], "2.0.0")
    );
    assert_eq!(held.versions[0].yanked.as_deref(), Some("it leaks"));
    assert_eq!(held.versions[1].yanked, None);

    maker.change(|repository, _| repository.yank("gateway", &version("1.0.0"), None).unwrap());
    running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!(gateway(&running).await.versions[0].yanked, None);

    running.admin.unsubscribe(&acme()).await.unwrap();
    assert_eq!(running.admin.subscriptions().await.unwrap(), []);
    assert_eq!(names(&gateway(&running).await).len(), 2, "what is in the catalogue stays");
    refused(
        running.admin.refresh_subscription(&acme()).await,
        ProblemCode::NotFound,
        "no subscription to acme",
    );
    running.stop().await;
}

#[tokio::test]
async fn a_publisher_speaks_by_its_repository_or_by_its_key_and_not_by_both() {
    let (state, maker) = (tempfile::tempdir().unwrap(), Maker::new());
    let running = start(state.path(), no_policies()).await;
    maker.publish("gateway", "1.0.0", 1);
    running.admin.subscribe(&acme(), &maker.subscribe()).await.unwrap();
    let key = maker.publisher.public();
    refused(running.admin.put_publisher(&acme(), &key).await, ProblemCode::Conflict, "is subscribed to");
    let direct = maker.made("gateway", "3.0.0", 3);
    refused(running.admin.publish(&direct).await, ProblemCode::Conflict, "is subscribed to");
    running.admin.unsubscribe(&acme()).await.unwrap();
    running.admin.put_publisher(&acme(), &key).await.unwrap();
    running.admin.publish(&direct).await.unwrap();
    let conflict = running.admin.subscribe(&acme(), &maker.subscribe()).await;
    refused(conflict, ProblemCode::Conflict, "publishes here directly");
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_believed_is_not_subscribed_to() {
    let (state, maker, other) = (tempfile::tempdir().unwrap(), Maker::new(), Maker::new());
    let running = start(state.path(), no_policies()).await;
    let good = maker.subscribe();
    let wrong: [(Subscribe, &str); 5] = [
        (Subscribe { root: Base64(b"{}".to_vec()), ..good.clone() }, "root: that is no root.json"),
        (Subscribe { root: Base64(other.root.clone()), ..good.clone() }, "is not taken"),
        (Subscribe { interval_s: Some(5), ..good.clone() }, "interval_s is 5"),
        (Subscribe { source: RepositorySource::Folder { path: "repo".into() }, ..good.clone() }, "absolute"),
        (
            Subscribe {
                source: RepositorySource::Web { url: "http://acme.example".into(), ca: None },
                ..good.clone()
            },
            "https://",
        ),
    ];
    for (request, words) in wrong {
        refused(running.admin.subscribe(&acme(), &request).await, ProblemCode::Invalid, words);
    }
    let name = "evil".parse().unwrap();
    refused(running.admin.subscribe(&name, &good).await, ProblemCode::Invalid, "it is acme's, not evil's");
    assert_eq!(running.admin.subscriptions().await.unwrap(), []);
    let left = std::fs::read_dir(state.path().join("subscriptions")).unwrap().count();
    assert_eq!(left, 0, "a refusal leaves nothing behind");
    running.admin.subscribe(&acme(), &good).await.unwrap();
    let another_root = Subscribe { root: Base64(other.root.clone()), ..good };
    refused(running.admin.subscribe(&acme(), &another_root).await, ProblemCode::Conflict, "by another root");
    running.stop().await;
}

#[tokio::test]
async fn a_frozen_repository_brings_nothing_and_what_is_here_stays() {
    let (state, maker) = (tempfile::tempdir().unwrap(), Maker::new());
    let running = start(state.path(), no_policies()).await;
    maker.publish("gateway", "1.0.0", 1);
    running.admin.subscribe(&acme(), &maker.subscribe()).await.unwrap();
    let made = maker.made("gateway", "2.0.0", 2);
    let files = Files { signed: &made.signed.0, metainfo: &made.metainfo.0, manifest: &made.manifest.0 };
    let long_ago = Timestamp::now() - SignedDuration::from_hours(24 * 20);
    maker.change_at(long_ago, |repository, ring| {
        repository.add_version(ring, "gateway", &version("2.0.0"), files).unwrap();
    });
    let view = running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!(view.state, SubscriptionState::Frozen);
    assert!(view.problem.as_deref().unwrap().contains("timestamp metadata has expired"), "{view:?}");
    let since_ms = view.since_ms;
    let view = running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!((view.state, view.since_ms), (SubscriptionState::Frozen, since_ms), "since the first time");
    assert_eq!(names(&gateway(&running).await), ["1.0.0"]);
    maker.change(|repository, ring| repository.rotate(&Role::Snapshot, ring).unwrap());
    let view = running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!((view.state, view.problem), (SubscriptionState::Current, None));
    assert_eq!(names(&gateway(&running).await), ["1.0.0", "2.0.0"]);
    running.stop().await;
}

#[tokio::test]
async fn an_older_state_is_refused_after_the_controller_has_started_anew() {
    let (state, maker) = (tempfile::tempdir().unwrap(), Maker::new());
    let running = start(state.path(), no_policies()).await;
    maker.publish("gateway", "1.0.0", 1);
    running.admin.subscribe(&acme(), &maker.subscribe()).await.unwrap();
    let earlier = maker.keep();
    maker.publish("gateway", "2.0.0", 2);
    running.admin.refresh_subscription(&acme()).await.unwrap();
    running.stop().await;
    let latest = maker.keep();
    copy(earlier.path(), maker.folder.path());
    let running = start(state.path(), no_policies()).await;
    let view = running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!(view.state, SubscriptionState::Failing);
    let held = gateway(&running).await;
    assert_eq!(
        (names(&held), held.channels[&"stable".parse().unwrap()].as_str()),
        (vec!["1.0.0", "2.0.0"], "2.0.0")
    );
    copy(latest.path(), maker.folder.path());
    let view = running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!(view.state, SubscriptionState::Current);
    running.stop().await;
}

#[tokio::test]
async fn a_version_whose_parts_do_not_belong_together_stops_the_whole_look() {
    let (state, maker) = (tempfile::tempdir().unwrap(), Maker::new());
    let running = start(state.path(), no_policies()).await;
    maker.publish("gateway", "1.0.0", 1);
    running.admin.subscribe(&acme(), &maker.subscribe()).await.unwrap();
    maker.publish("workspace", "1.0.0", 2);
    // The maker signs what no host could run.
    let mixed = PublishVersion {
        manifest: maker.made("gateway", "2.0.0", 9).manifest,
        ..maker.made("gateway", "2.0.0", 8)
    };
    maker.publish_as(&mixed, "gateway", "2.0.0");
    let view = running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!(view.state, SubscriptionState::Failing);
    assert!(view.problem.as_deref().unwrap().starts_with("acme/gateway 2.0.0: "), "{view:?}");
    assert_eq!(running.admin.appliances().await.unwrap().len(), 1, "nothing of the look is taken");
    // Or one appliance's description under another one's name.
    let (state, maker) = (tempfile::tempdir().unwrap(), Maker::new());
    let second = start(state.path(), no_policies()).await;
    maker.publish_as(&maker.made("gateway", "1.0.0", 1), "workspace", "1.0.0");
    second.admin.subscribe(&acme(), &maker.subscribe()).await.unwrap();
    let view: SubscriptionView = second.admin.get("/v1/subscriptions/acme").await.unwrap();
    assert!(view.problem.as_deref().unwrap().contains("its description is of acme/gateway"), "{view:?}");
    assert_eq!(second.admin.appliances().await.unwrap(), []);
    running.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn hosts_get_a_carried_image_from_the_controller_and_strangers_do_not() {
    let (state, maker) = (tempfile::tempdir().unwrap(), Maker::new());
    let running = start(state.path(), no_policies()).await;
    maker.publish("gateway", "1.0.0", 1);
    let image = gateway_image(&maker.made("gateway", "1.0.0", 1));
    std::fs::write(maker.folder.path().join("images").join(format!("{}.raw", image.hex())), vec![1; 1 << 20])
        .unwrap();
    maker.publish("workspace", "1.0.0", 2);
    running.admin.subscribe(&acme(), &maker.subscribe()).await.unwrap();
    let host = running.join("h1", "host").await;
    let (status, body) = host.get(&format!("/agent/v1/images/{image}")).await;
    assert_eq!(status, 200);
    let source: streamer_api::ImageSource = serde_json::from_slice(&body).unwrap();
    let url = source.web_seed.unwrap();
    assert_eq!(url, format!("https://127.0.0.1:{}/agent/v1/images/{image}/bytes", running.address.port()));
    let ask = |range: &'static str| host.http().get(&url).header("range", range).send();
    let answer = ask("bytes=262144-524287").await.unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.headers()["content-range"], "bytes 262144-524287/1048576");
    assert_eq!(answer.bytes().await.unwrap(), vec![1; 262_144]);
    assert_eq!(ask("bytes=0-99999999").await.unwrap().bytes().await.unwrap().len(), 1 << 20);
    assert_eq!(ask("bytes=1048576-").await.unwrap().status(), 400);
    let authority = CertificateDer::from_pem_slice(running.ca.as_bytes()).unwrap();
    let tls = chassis::tls::anonymous_client_config(&[authority]).unwrap();
    let stranger = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
    let answer = stranger.get(&url).header("range", "bytes=0-1").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    // The other one is not carried.
    let other = gateway_image(&maker.made("workspace", "1.0.0", 2));
    let (_, body) = host.get(&format!("/agent/v1/images/{other}")).await;
    let source: streamer_api::ImageSource = serde_json::from_slice(&body).unwrap();
    assert_eq!(source.web_seed, None);
    running.stop().await;
}

fn gateway_image(made: &PublishVersion) -> Digest {
    let signed: controller_api::rest::SignedVersion = serde_json::from_slice(&made.signed.0).unwrap();
    signed.image
}

/// A web server of a maker's folder, with TLS of an authority nobody else knows.
struct Web {
    url: String,
    ca: String,
    endless: Arc<AtomicBool>,
    shutdown: CancellationToken,
}

#[derive(Clone)]
struct Served {
    folder: PathBuf,
    endless: Arc<AtomicBool>,
}

async fn file(State(served): State<Served>, UrlPath(path): UrlPath<String>, headers: HeaderMap) -> Response {
    if served.endless.load(Ordering::Relaxed) && path.ends_with("timestamp.json") {
        let chunks =
            futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65_536])));
        return Body::from_stream(chunks).into_response();
    }
    let Ok(bytes) = std::fs::read(served.folder.join(path)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range =
        headers.get("range").and_then(|value| value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    match range.and_then(|(first, last)| Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))) {
        Some((first, last)) => (StatusCode::PARTIAL_CONTENT, bytes[first..=last].to_vec()).into_response(),
        None => bytes.into_response(),
    }
}

async fn serve(folder: &Path) -> Web {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let identity = Identity {
        chain: vec![der(&leaf.pem())],
        key: PrivateKeyDer::from_pem_slice(leaf_key.serialize_pem().as_bytes()).unwrap(),
        authorities: vec![der(&ca)],
    };
    let tls = chassis::tls::server_config(identity, ClientCertificate::Optional).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/repo", listener.local_addr().unwrap());
    let (endless, shutdown) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
    let served = Served { folder: folder.to_owned(), endless: Arc::clone(&endless) };
    let router = Router::new().route("/repo/{*path}", get(file)).with_state(served);
    tokio::spawn(chassis::tls::serve(listener, tls, router, shutdown.clone()));
    Web { url, ca, endless, shutdown }
}

#[tokio::test]
async fn a_web_server_is_followed_by_tls_and_one_that_never_ends_is_cut_off() {
    let (state, maker) = (tempfile::tempdir().unwrap(), Maker::new());
    let running = start(state.path(), no_policies()).await;
    maker.publish("gateway", "1.0.0", 1);
    let image = gateway_image(&maker.made("gateway", "1.0.0", 1));
    std::fs::write(maker.folder.path().join("images").join(format!("{}.raw", image.hex())), vec![1; 1 << 20])
        .unwrap();
    let web = serve(maker.folder.path()).await;
    let source = |ca| RepositorySource::Web { url: web.url.clone(), ca };
    let strange = Subscribe { source: source(None), ..maker.subscribe() };
    refused(running.admin.subscribe(&acme(), &strange).await, ProblemCode::Invalid, "ertificate");
    let request = Subscribe { source: source(Some(web.ca.clone())), ..maker.subscribe() };
    running.admin.subscribe(&acme(), &request).await.unwrap();
    assert_eq!(names(&gateway(&running).await), ["1.0.0"]);
    // A host gets the publisher's bytes through the controller.
    let host = running.join("h1", "host").await;
    let (_, body) = host.get(&format!("/agent/v1/images/{image}")).await;
    let seed = serde_json::from_slice::<streamer_api::ImageSource>(&body).unwrap().web_seed.unwrap();
    let answer = host.http().get(seed).header("range", "bytes=1000-1999").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.bytes().await.unwrap().len()), (206, 1_000));

    web.endless.store(true, Ordering::Relaxed);
    maker.publish("gateway", "2.0.0", 2);
    let view = running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!(view.state, SubscriptionState::Failing);
    assert!(view.problem.as_deref().unwrap().contains("longer than"), "{view:?}");
    assert_eq!(names(&gateway(&running).await), ["1.0.0"]);
    web.endless.store(false, Ordering::Relaxed);
    let view = running.admin.refresh_subscription(&acme()).await.unwrap();
    assert_eq!(view.state, SubscriptionState::Current);
    assert_eq!(names(&gateway(&running).await), ["1.0.0", "2.0.0"]);
    web.shutdown.cancel();
    running.stop().await;
}
