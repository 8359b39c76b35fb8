//! Checkpoints across hosts: real TLS, real store; agents that do what they are told and only speak.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{HostDesired, InstanceState, InstanceStatus, ToAgent, ToController};
use controller_api::checkpoint::{
    CheckpointPhase as Phase, CheckpointView, CreateCheckpoint, LayerSource, RestoreCheckpoint, Resume,
};
use controller_api::life::{
    CaptureState, CaptureStatus, CaptureStep, CapturedDisk, DesiredCapture, DiskName, Layer, LayerFormat,
    Power, SavedMemory,
};
use controller_api::rest::{ProblemCode, PublishVersion};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Agent, DEADLINE, Member, OFFICE, Publisher, Running, furnish, real_policies, start, status};
use tokio_tungstenite::tungstenite::Message;
use types::{DeploymentName, Digest};

/// No policy takes checkpoints beside the test.
fn placing_only(state: &std::path::Path) -> std::path::PathBuf {
    let folder = state.join("package");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(real_policies().join("balanced.wasm"), folder.join("balanced.wasm")).unwrap();
    folder
}

fn office() -> DeploymentName {
    "office".parse().unwrap()
}

/// What a host holds, and how far it may go.
#[derive(Debug, Default)]
struct Host {
    held: HostDesired,
    captures: BTreeMap<(String, String), CaptureStatus>,
    /// It goes no further than this.
    up_to: Option<CaptureStep>,
    /// Its files are this image.
    image: Option<Digest>,
}

type Shared = Arc<Mutex<Host>>;

impl Host {
    fn act(&mut self) {
        let told = self.held.captures.clone();
        for capture in &told {
            let key = (capture.checkpoint.clone(), capture.instance.to_string());
            let step = match self.up_to {
                Some(limit) => capture.step.min(limit),
                None => capture.step,
            };
            let image = self.image;
            let status = self.captures.entry(key).or_insert_with(|| waiting(capture));
            status.state = match (step, status.state) {
                (CaptureStep::Hold, CaptureState::Waiting) => CaptureState::Held,
                (CaptureStep::Take, CaptureState::Held) => {
                    take(capture, status);
                    CaptureState::Taken
                }
                (CaptureStep::Keep, CaptureState::Taken) if image.is_some() => {
                    for layer in status.disks.iter_mut().flat_map(|disk| &mut disk.layers) {
                        layer.image = image;
                    }
                    if let Some(memory) = &mut status.memory {
                        memory.image = image;
                    }
                    CaptureState::Published
                }
                (_, state) => state,
            };
        }
        self.captures.retain(|(checkpoint, instance), _| {
            told.iter().any(|it| it.checkpoint == *checkpoint && it.instance.to_string() == *instance)
        });
    }

    fn says(&self) -> ToController {
        let mut status = status();
        status.instances = self
            .held
            .instances
            .iter()
            .map(|instance| InstanceStatus {
                id: instance.id.clone(),
                incarnation: instance.incarnation.clone(),
                state: match instance.power {
                    Power::On => InstanceState::Ready,
                    Power::Off => InstanceState::Stopped,
                },
                reason: None,
                started_ms: Some(1_000),
                ready_ms: Some(2_000),
                starts: 1,
                dirty_bytes: 4_096,
                health: None,
            })
            .collect();
        status.captures = self.captures.values().cloned().collect();
        ToController::Status(Box::new(status))
    }
}

fn waiting(capture: &DesiredCapture) -> CaptureStatus {
    CaptureStatus {
        checkpoint: capture.checkpoint.clone(),
        instance: capture.instance.clone(),
        state: CaptureState::Waiting,
        reason: None,
        taken_ms: 0,
        pause_us: 0,
        disks: vec![],
        memory: None,
        new_bytes: 0,
    }
}

fn take(capture: &DesiredCapture, status: &mut CaptureStatus) {
    let layer = |disk: &DiskName| Layer {
        checkpoint: capture.checkpoint.clone(),
        instance: capture.instance.clone(),
        disk: disk.clone(),
        format: LayerFormat::Qcow2,
        file_bytes: 65_536,
        disk_bytes: 1 << 20,
        image: None,
    };
    let mut disks = vec![DiskName::System];
    if capture.instance.member.as_str() == "workspace" {
        disks.push("volume/home".parse().unwrap());
    }
    let captured = |disk: DiskName| CapturedDisk { layers: vec![layer(&disk)], disk };
    status.disks = disks.into_iter().map(captured).collect();
    status.memory = capture.with_memory.then(|| SavedMemory {
        checkpoint: capture.checkpoint.clone(),
        instance: capture.instance.clone(),
        file_bytes: 1 << 20,
        image: None,
    });
    (status.taken_ms, status.pause_us, status.new_bytes) = (5, 700, 65_536);
}

/// Does what it is told for as long as the test lives; what it holds survives its connection, as on a disk.
fn obey(mut agent: Agent, host: &Shared) -> tokio::task::JoinHandle<()> {
    let host = Arc::clone(host);
    tokio::spawn(async move {
        loop {
            let frame = tokio::time::timeout(Duration::from_millis(50), agent.frame()).await;
            let said = {
                let mut host = host.lock().unwrap();
                match &frame {
                    Ok(Some(Message::Text(text))) => {
                        if let ToAgent::Desired(document) = serde_json::from_str(text).unwrap() {
                            host.held = *document;
                        }
                    }
                    Ok(None) => return,
                    _ => {}
                }
                host.act();
                host.says()
            };
            agent.say(&said).await;
        }
    })
}

struct Office {
    running: Running,
    members: Vec<Member>,
    hosts: Vec<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    publisher: Publisher,
}

impl Office {
    /// Two hosts, each with one member.
    async fn new(state: &std::path::Path) -> Self {
        let running = start(state, placing_only(state)).await;
        let publisher = furnish(&running).await;
        let members = vec![running.join("h1", "host").await, running.join("h2", "host").await];
        let hosts: Vec<Shared> = vec![Shared::default(), Shared::default()];
        let mut office = Self { running, members, hosts, tasks: vec![], publisher };
        office.dial().await;
        let apart = OFFICE.replace(
            "      ports: {eth0: inside}\n",
            "      ports: {eth0: inside}\n      placement: {apart_from: [gateway]}\n",
        );
        office.running.admin.apply(apart.as_str(), false).await.unwrap();
        office.until_ready().await;
        office
    }

    async fn dial(&mut self) {
        for (index, (member, host)) in self.members.iter().zip(&self.hosts).enumerate() {
            let agent = member.agent(&format!("10.99.0.{}", index + 1)).await;
            self.tasks.push(obey(agent, host));
        }
    }

    /// The controller ends at once and begins anew on the same state; hosts dial again.
    async fn restart(mut self, state: &std::path::Path) -> Self {
        self.hang_up();
        self.running.stop().await;
        self.running = start(state, placing_only(state)).await;
        for member in &mut self.members {
            member.address = self.running.address;
        }
        self.dial().await;
        self
    }

    fn hang_up(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }

    async fn end(mut self) {
        self.hang_up();
        self.running.stop().await;
    }

    fn limit(&self, index: usize, up_to: Option<CaptureStep>) {
        self.hosts[index].lock().unwrap().up_to = up_to;
    }

    fn step(&self, index: usize) -> Option<CaptureStep> {
        self.hosts[index].lock().unwrap().held.captures.first().map(|capture| capture.step)
    }

    async fn until_ready(&self) {
        until(|| async { self.running.admin.deployment(&office()).await.unwrap().ready.then_some(()) }).await;
    }

    async fn until_phase(&self, name: &str, phase: Phase) -> CheckpointView {
        until(|| async {
            let view = self.running.admin.checkpoint(&office(), name).await.unwrap();
            (view.phase == phase).then_some(view)
        })
        .await
    }

    fn incarnations(&self) -> Vec<String> {
        let of = |host: &Shared| {
            let host = host.lock().unwrap();
            host.held.instances.iter().map(|instance| instance.incarnation.clone()).collect::<Vec<_>>()
        };
        self.hosts.iter().flat_map(of).collect()
    }

    /// All files of its hosts are an image that the controller has.
    async fn publish_layers(&self) -> Digest {
        let (digest, source) = layer(&self.publisher, 77);
        let (code, answer) = put(&self.members[0], &digest, &source).await;
        assert_eq!(code, 204, "{answer}");
        for host in &self.hosts {
            host.lock().unwrap().image = Some(digest);
        }
        digest
    }
}

async fn until<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "it did not come to be");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A file of a checkpoint, described as an image.
fn layer(publisher: &Publisher, byte: u8) -> (Digest, LayerSource) {
    let PublishVersion { metainfo, manifest, .. } = publisher.version("plain", "1.0.0", byte);
    let digest = controller_model::name::digest(&manifest.0);
    (digest, LayerSource { metainfo, manifest })
}

async fn put(member: &Member, digest: &Digest, source: &LayerSource) -> (u16, String) {
    let url = format!("https://{}/agent/v1/layers/{digest}", member.address);
    let response = member.http().put(url).json(source).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// The same for anybody to fetch.
fn without_privacy(source: &LayerSource) -> (Digest, LayerSource) {
    let (begin, private) = (b"d4:info".len(), b"7:privatei1ee".len() + 1);
    let info = &source.metainfo.0[begin..source.metainfo.0.len() - private];
    let info = [info, b"e"].concat();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &info);
    let mut manifest: streamer_api::Manifest = serde_json::from_slice(&source.manifest.0).unwrap();
    manifest.info_hash = hex::encode(hash);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let metainfo = [b"d4:info".as_slice(), &info, b"e"].concat();
    let digest = controller_model::name::digest(&manifest);
    (digest, LayerSource { metainfo: types::Base64(metainfo), manifest: types::Base64(manifest) })
}

fn plain() -> CreateCheckpoint {
    CreateCheckpoint { pause_max_ms: Some(60_000), ..CreateCheckpoint::default() }
}

#[tokio::test]
async fn a_checkpoint_crosses_hosts_survives_the_controller_at_each_step_and_is_gone_back_to() {
    let state = tempfile::tempdir().unwrap();
    let mut world = Office::new(state.path()).await;
    let image = world.publish_layers().await;
    world.limit(1, Some(CaptureStep::Hold));
    // One host is held and not taken: the other is not let go, nor is it after a new start of the controller.
    let before = world.incarnations();
    let wish = CreateCheckpoint { name: Some("first".into()), with_memory: true, pinned: true, ..plain() };
    world.running.admin.create_checkpoint(&office(), &wish).await.unwrap();
    world.until_phase("first", Phase::Taking).await;
    assert_ne!(world.step(0), Some(CaptureStep::Keep));
    world = world.restart(state.path()).await;
    world.until_phase("first", Phase::Taking).await;
    world.limit(1, Some(CaptureStep::Take));
    let kept = world.until_phase("first", Phase::Keeping).await;
    assert!(kept.hold_ms > 0 && kept.size_bytes == 131_072 && kept.with_memory, "{kept:#?}");
    world = world.restart(state.path()).await;
    world.limit(1, None);
    let complete = world.until_phase("first", Phase::Complete).await;
    assert!(complete.parts.iter().all(|part| part.state == "published" && part.memory_bytes == 1 << 20));

    let admin = &world.running.admin;
    let pinned = admin.delete_checkpoint(&office(), "first").await.unwrap_err();
    assert_eq!(pinned.code(), Some(ProblemCode::Conflict));
    let wish = RestoreCheckpoint { with_memory: true, ..RestoreCheckpoint::default() };
    let begun = admin.restore_checkpoint(&office(), "first", &wish).await.unwrap();
    let safety = begun.before.unwrap();
    world.until_phase(&safety, Phase::Complete).await;
    until(|| async {
        let now = world.incarnations();
        (now.len() == 2 && now.iter().all(|new| !before.contains(new))).then_some(())
    })
    .await;
    world.until_ready().await;
    let restored: Vec<_> =
        world.hosts.iter().flat_map(|host| host.lock().unwrap().held.instances.clone()).collect();
    assert!(restored.iter().all(|instance| instance.layers.len() == 1));
    assert!(restored.iter().all(|instance| instance.layers[0].image == Some(image)));
    until(|| async {
        let view = world.running.admin.checkpoint(&office(), "first").await.unwrap();
        view.verified.then_some(())
    })
    .await;
    let audit = world.running.admin.audit(0).await.unwrap();
    let done: Vec<&str> = audit.iter().map(|entry| entry.action.as_str()).collect();
    assert!(done.contains(&"checkpoint-create") && done.contains(&"restore"), "{done:?}");
    world.end().await;
}

#[tokio::test]
async fn a_host_that_is_late_or_gone_spoils_a_checkpoint_and_everybody_is_let_go() {
    let state = tempfile::tempdir().unwrap();
    let mut world = Office::new(state.path()).await;
    world.limit(1, Some(CaptureStep::Hold));
    let wish = CreateCheckpoint { pause_max_ms: Some(300), ..CreateCheckpoint::default() };
    let late = world.running.admin.create_checkpoint(&office(), &wish).await.unwrap();
    let failed = world.until_phase(&late.name, Phase::Failed).await;
    assert!(failed.reason.as_ref().unwrap().contains("within 300 ms"), "{failed:#?}");
    until(|| async { (world.step(0).is_none() && world.step(1).is_none()).then_some(()) }).await;
    let refused = world
        .running
        .admin
        .restore_checkpoint(&office(), &late.name, &RestoreCheckpoint::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(ProblemCode::Conflict));

    let wrong = CreateCheckpoint { pause_max_ms: Some(1), ..CreateCheckpoint::default() };
    let wrong = world.running.admin.create_checkpoint(&office(), &wrong).await.unwrap_err();
    assert_eq!(wrong.code(), Some(ProblemCode::Invalid));
    world.tasks.pop().unwrap().abort();
    until(|| async {
        let host = world.running.admin.host(&"h2".parse().unwrap()).await.unwrap();
        (!host.online).then_some(())
    })
    .await;
    let gone = world.running.admin.create_checkpoint(&office(), &plain()).await.unwrap_err();
    assert_eq!(gone.code(), Some(ProblemCode::Conflict));
    assert!(gone.to_string().contains("host h2 of office/"), "{gone}");
    world.end().await;
}

#[tokio::test]
async fn a_deployment_is_suspended_here_and_resumed_there() {
    let state = tempfile::tempdir().unwrap();
    let world = Office::new(state.path()).await;
    world.publish_layers().await;
    let admin = &world.running.admin;
    let suspended = admin.suspend(&office()).await.unwrap();
    world.until_phase(&suspended.checkpoint, Phase::Complete).await;
    let off = world
        .hosts
        .iter()
        .all(|host| host.lock().unwrap().held.instances.iter().all(|instance| instance.power == Power::Off));
    assert!(off);
    assert_eq!(admin.suspend(&office()).await.unwrap_err().code(), Some(ProblemCode::Conflict));
    let nowhere = Resume { host: Some("h9".parse().unwrap()), ..Resume::default() };
    assert_eq!(admin.resume(&office(), &nowhere).await.unwrap_err().code(), Some(ProblemCode::NotFound));
    let there = Resume { host: Some("h1".parse().unwrap()), ..Resume::default() };
    let resumed = admin.resume(&office(), &there).await.unwrap();
    assert_eq!(resumed.checkpoint, suspended.checkpoint);
    world.until_ready().await;
    let here = world.hosts[0].lock().unwrap().held.instances.clone();
    assert_eq!(here.len(), 2);
    assert!(here.iter().all(|instance| instance.power == Power::On && !instance.layers.is_empty()));
    assert!(world.hosts[1].lock().unwrap().held.instances.is_empty(), "nothing of it runs twice");
    let again = admin.resume(&office(), &Resume::default()).await.unwrap_err();
    assert_eq!(again.code(), Some(ProblemCode::Conflict));
    world.end().await;
}

#[tokio::test]
async fn files_of_checkpoints_are_taken_from_hosts_only_and_only_if_they_are_what_they_say() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), support::no_policies()).await;
    let publisher = Publisher::new();
    let member = running.join("h1", "host").await;
    let (digest, source) = layer(&publisher, 5);
    let (other, _) = layer(&publisher, 6);
    assert_eq!(put(&member, &other, &source).await.0, 422, "another digest");
    let (public, open) = without_privacy(&source);
    let (code, answer) = put(&member, &public, &open).await;
    assert!(code == 422 && answer.contains("only members may fetch it"), "{code} {answer}");
    let mut broken = source.clone();
    broken.metainfo.0.truncate(20);
    assert_eq!(put(&member, &digest, &broken).await.0, 422, "no metainfo");
    let origin = running.join("o1", "origin").await;
    assert_eq!(put(&origin, &digest, &source).await.0, 403, "an origin holds no instances");
    assert_eq!(member.get(&format!("/agent/v1/images/{digest}")).await.0, 404);
    for _ in 0..2 {
        assert_eq!(put(&member, &digest, &source).await.0, 204);
    }
    let (code, answer) = member.get(&format!("/agent/v1/images/{digest}")).await;
    assert_eq!(code, 200);
    let answer: streamer_api::ImageSource = serde_json::from_slice(&answer).unwrap();
    assert_eq!((answer.metainfo, answer.manifest), (source.metainfo, source.manifest));
    running.stop().await;
}
