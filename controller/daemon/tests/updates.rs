//! Versions on their way: real TLS, real store, the real `waves`; agents that only speak.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{HostDesired, InstanceState, InstanceStatus, ToAgent, ToController};
use controller_api::life::{
    CaptureState, CaptureStatus, CaptureStep, CapturedDisk, DesiredCapture, DiskName, Layer, LayerFormat,
};
use controller_api::planned::{OrderStatus, RollOrder, RolloutView};
use controller_api::rest::{InstanceView, ProblemCode, PublishVersion, SignedVersion};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamer_api::ImageStatus;
use support::{Agent, DEADLINE, Member, Publisher, Running, furnish, real_policies, start, status};
use tokio_tungstenite::tungstenite::Message;
use types::{Digest, InstanceId};

const DESK: &str = "
apiVersion: collective/v1
kind: Bundle
metadata: {name: desk}
spec:
  networks: {inside: {subnet: 10.20.0.0/24}}
  members:
    w: {appliance: acme/workspace, ports: {eth0: inside}, volumes: {home: {size: 64MiB}}}
";

fn deployments(names: &[&str]) -> String {
    let deployment = |name: &&str| {
        format!(
            "---\napiVersion: collective/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{bundle: desk}}\n"
        )
    };
    format!("{DESK}{}", names.iter().map(deployment).collect::<String>())
}

fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

fn rollout_of(version: &str) -> String {
    format!("acme/workspace/stable/{version}/waves")
}

/// How a host behaves.
#[derive(Debug, Default)]
struct Manners {
    /// Guests of these images cannot run.
    broken: BTreeSet<Digest>,
    /// Nothing of these images arrives.
    absent: BTreeSet<Digest>,
    /// Guests of these images never become ready.
    slow: BTreeSet<Digest>,
    /// Every incarnation it was ever told to run, by instance: with its image.
    told: BTreeMap<InstanceId, Vec<(String, Digest)>>,
}

type Shared = Arc<Mutex<Manners>>;

impl Manners {
    fn instance(&mut self, instance: &controller_api::agent::DesiredInstance) -> InstanceStatus {
        let told = self.told.entry(instance.id.clone()).or_default();
        if told.last().is_none_or(|(incarnation, _)| *incarnation != instance.incarnation) {
            told.push((instance.incarnation.clone(), instance.image));
        }
        let broken = self.broken.contains(&instance.image);
        let state = if broken {
            InstanceState::Failed
        } else if self.slow.contains(&instance.image) {
            InstanceState::Booting
        } else {
            InstanceState::Ready
        };
        InstanceStatus {
            id: instance.id.clone(),
            incarnation: instance.incarnation.clone(),
            state,
            reason: broken.then(|| "the guest ended 1 s after its start".into()),
            started_ms: (!broken).then_some(1_000),
            ready_ms: (state == InstanceState::Ready).then_some(2_000),
            starts: if broken { 3 } else { 1 },
            dirty_bytes: 0,
            health: None,
        }
    }

    fn report(&mut self, document: &HostDesired) -> ToController {
        let mut status = status();
        status.instances = document.instances.iter().map(|instance| self.instance(instance)).collect();
        for image in document.images.iter().filter(|image| !self.absent.contains(image)) {
            let here = ImageStatus { pieces: 4, pieces_local: 4, ..ImageStatus::default() };
            status.images.insert(image.to_string(), here);
        }
        status.captures = document.captures.iter().map(captured).collect();
        ToController::Status(Box::new(status))
    }
}

fn captured(capture: &DesiredCapture) -> CaptureStatus {
    let disks = [DiskName::System, DiskName::Volume("home".parse().unwrap())];
    let layer = |disk: DiskName| Layer {
        checkpoint: capture.checkpoint.clone(),
        instance: capture.instance.clone(),
        disk,
        format: LayerFormat::Qcow2,
        file_bytes: 512,
        disk_bytes: 1 << 20,
        image: None,
    };
    let taken = capture.step != CaptureStep::Hold;
    let disk = |disk: DiskName| CapturedDisk { disk: disk.clone(), layers: vec![layer(disk)] };
    CaptureStatus {
        checkpoint: capture.checkpoint.clone(),
        instance: capture.instance.clone(),
        state: if taken { CaptureState::Taken } else { CaptureState::Held },
        reason: None,
        taken_ms: if taken { 5 } else { 0 },
        pause_us: 7,
        disks: if taken { disks.into_iter().map(disk).collect() } else { vec![] },
        memory: None,
        new_bytes: 1_024,
    }
}

/// Does what its host is told, for as long as the test lives or the controller does.
fn obey(mut agent: Agent, manners: Shared) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut held = HostDesired::default();
        loop {
            match tokio::time::timeout(Duration::from_millis(100), agent.frame()).await {
                Ok(Some(Message::Text(text))) => {
                    if let ToAgent::Desired(document) = serde_json::from_str(&text).unwrap() {
                        held = *document;
                    }
                }
                Ok(None) => return,
                _ => {}
            }
            let report = manners.lock().unwrap().report(&held);
            agent.say(&report).await;
        }
    })
}

async fn until<T, F: Future<Output = Option<T>>>(running: &Running, mut look: impl FnMut() -> F) -> T {
    let end = tokio::time::Instant::now() + 2 * DEADLINE;
    let mut changes = running.admin.watch(None).await.unwrap();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        if tokio::time::Instant::now() > end {
            panic!("it did not come to be: {:#?}", running.admin.rollouts().await);
        }
        let _ = tokio::time::timeout(Duration::from_millis(200), changes.next()).await;
    }
}

fn image(version: &PublishVersion) -> Digest {
    serde_json::from_slice::<SignedVersion>(&version.signed.0).unwrap().image
}

/// A controller, one host, and desks that serve.
struct Stage {
    running: Running,
    publisher: Publisher,
    member: Member,
    manners: Shared,
    serving: tokio::task::JoinHandle<()>,
}

impl Stage {
    async fn new(state: &std::path::Path, desks: &[&str], checkpoint: bool) -> Self {
        let running = start(state, real_policies()).await;
        let publisher = furnish(&running).await;
        let settings = serde_json::json!({
            "canary_soak_minutes": 0, "soak_minutes": 0, "per_host_max": 0, "checkpoint": checkpoint,
        });
        running.admin.set_policy_settings(&"waves".parse().unwrap(), Some(settings)).await.unwrap();
        let member = running.join("h1", "host").await;
        let manners = Shared::default();
        let serving = obey(member.agent("10.99.0.1").await, manners.clone());
        running.admin.apply(deployments(desks).as_str(), false).await.unwrap();
        let stage = Self { running, publisher, member, manners, serving };
        stage.until_all_serve("1.0.0").await;
        stage
    }

    async fn publish(&self, version: &str, byte: u8) -> Digest {
        let version = self.publisher.version("workspace", version, byte);
        self.running.admin.publish(&version).await.unwrap();
        image(&version)
    }

    /// Publishes a version that the host has said nothing of yet.
    async fn publish_with(
        &self,
        version: &str,
        byte: u8,
        manner: impl FnOnce(&mut Manners, Digest),
    ) -> Digest {
        let version = self.publisher.version("workspace", version, byte);
        manner(&mut self.manners.lock().unwrap(), image(&version));
        self.running.admin.publish(&version).await.unwrap();
        image(&version)
    }

    async fn instances(&self) -> Vec<InstanceView> {
        self.running.admin.instances().await.unwrap()
    }

    async fn until_all_serve(&self, version: &str) {
        until(&self.running, || async {
            let all = self.instances().await;
            let fits =
                |view: &InstanceView| view.state == InstanceState::Ready && view.version.as_str() == version;
            (!all.is_empty() && all.iter().all(fits)).then_some(())
        })
        .await;
    }

    async fn until_rollout(&self, version: &str, fits: impl Fn(&RolloutView) -> bool) -> RolloutView {
        let id = rollout_of(version);
        until(&self.running, || async { self.running.admin.rollout(&id).await.ok().filter(&fits) }).await
    }

    async fn until_order(&self, version: &str, status: OrderStatus) -> RollOrder {
        let has = |view: &RolloutView| view.orders.last().is_some_and(|order| order.status == status);
        self.until_rollout(version, has).await.orders.pop().unwrap()
    }

    /// The controller ends and comes back; the host dials it again.
    async fn restart(self, state: &std::path::Path) -> Self {
        let Self { running, publisher, member, manners, serving } = self;
        serving.abort();
        running.stop().await;
        let running = start(state, real_policies()).await;
        let member = Member { identity: member.identity, address: running.address };
        let serving = obey(member.agent("10.99.0.1").await, manners.clone());
        Self { running, publisher, member, manners, serving }
    }

    async fn stop(self) {
        self.serving.abort();
        self.running.stop().await;
    }
}

#[tokio::test]
async fn a_version_rolls_by_waves_one_that_fails_goes_back_and_is_refused_and_the_next_rolls() {
    let state = tempfile::tempdir().unwrap();
    let stage = Stage::new(state.path(), &["d1", "d2", "d3"], false).await;
    let admin = &stage.running.admin;
    stage.publish("1.1.0", 11).await;
    stage.until_all_serve("1.1.0").await;
    let done = stage.until_rollout("1.1.0", |view| view.step == "complete").await;
    assert_eq!((done.at_target, done.orders.len()), (3, 3), "{done:#?}");
    assert!(done.orders.iter().all(|order| order.status == OrderStatus::Succeeded), "{done:#?}");
    let waves: BTreeSet<u64> = done.orders.iter().map(|order| order.ordered_ms).collect();
    assert!(waves.len() >= 2, "a canary first: {done:#?}");
    let rolled: BTreeSet<u64> = done.orders.iter().map(|order| order.rolled_ms).collect();
    assert_eq!(rolled.len(), 3, "one at a time");
    for volume in admin.volumes().await.unwrap() {
        assert!(volume.in_use && volume.host.as_str() == "h1", "{volume:?}");
    }

    // The canary cannot run with it: it goes back, the others never had it.
    let bad = stage
        .publish_with("1.2.0", 12, |manners, image| {
            manners.broken.insert(image);
        })
        .await;
    let failed = stage
        .until_rollout("1.2.0", |view| {
            view.step == "roll_back" && view.orders.iter().all(|order| !order.status.is_under_way())
        })
        .await;
    assert_eq!((failed.orders.len(), failed.orders[0].status), (1, OrderStatus::RolledBack), "{failed:#?}");
    let why = failed.orders[0].reason.clone().unwrap();
    assert!(why.contains("the guest ended 1 s after its start"), "{why}");
    stage.until_all_serve("1.1.0").await;
    let refusals = admin.refusals().await.unwrap();
    assert_eq!((refusals.len(), refusals[0].version.as_str()), (1, "1.2.0"));
    assert_eq!(refusals[0].before.as_ref().unwrap().as_str(), "1.1.0");
    assert!(failed.refused.is_some() || admin.rollout(&rollout_of("1.2.0")).await.unwrap().refused.is_some());

    // A new deployment follows the same channel, and gets what works.
    admin.apply(deployments(&["d1", "d2", "d3", "d4"]).as_str(), false).await.unwrap();
    stage.until_all_serve("1.1.0").await;
    let with_bad = |told: &Vec<(String, Digest)>| told.iter().filter(|(_, image)| *image == bad).count();
    let tried: usize = stage.manners.lock().unwrap().told.values().map(with_bad).sum();
    assert_eq!(tried, 1, "it was tried once, on one instance");

    stage.publish("1.3.0", 13).await;
    stage.until_all_serve("1.3.0").await;
    let tried: usize = stage.manners.lock().unwrap().told.values().map(with_bad).sum();
    assert_eq!(tried, 1);
    let mut lines = admin.events(types::Revision(0), false).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = lines.next().await.unwrap() {
        events.push(event);
    }
    for reason in ["roll-started", "roll-failed", "rolled-back", "version-refused", "roll-succeeded"] {
        assert!(events.iter().any(|event| event.reason == reason), "{reason}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_version_that_failed_is_tried_again_when_somebody_says_so() {
    let state = tempfile::tempdir().unwrap();
    let stage = Stage::new(state.path(), &["d1"], false).await;
    let admin = &stage.running.admin;
    let bad = stage
        .publish_with("1.1.0", 11, |manners, image| {
            manners.broken.insert(image);
        })
        .await;
    stage.until_order("1.1.0", OrderStatus::RolledBack).await;
    stage.until_rollout("1.1.0", |view| view.step == "roll_back").await;
    let id = rollout_of("1.1.0");
    let refused = admin.say_to_rollout(&id, "resume", None).await.unwrap_err();
    assert_eq!(refused.code(), Some(ProblemCode::Conflict));
    assert!(refused.to_string().contains("rollout retry"), "{refused}");
    stage.manners.lock().unwrap().broken.remove(&bad);
    admin.say_to_rollout(&id, "retry", Some("the disk was replaced")).await.unwrap();
    stage.until_all_serve("1.1.0").await;
    assert!(admin.refusals().await.unwrap().is_empty());
    let audit = admin.audit(0).await.unwrap();
    let entry = audit.iter().find(|entry| entry.action == "rollout-retry").unwrap();
    assert_eq!(
        (entry.object.as_str(), entry.why.as_deref()),
        (format!("rollout/{id}").as_str(), Some("the disk was replaced"))
    );
    stage.stop().await;
}

#[tokio::test]
async fn a_roll_takes_a_checkpoint_first_and_goes_back_to_it() {
    let state = tempfile::tempdir().unwrap();
    let stage = Stage::new(state.path(), &["d1"], true).await;
    stage
        .publish_with("1.1.0", 11, |manners, image| {
            manners.broken.insert(image);
        })
        .await;
    let order = stage.until_order("1.1.0", OrderStatus::RolledBack).await;
    let taken = order.taken.clone().unwrap();
    stage.until_all_serve("1.0.0").await;
    let cluster = stage.running.admin.instance(&id("d1/w")).await.unwrap();
    assert_eq!(cluster.host.unwrap().as_str(), "h1");
    let why = order.reason.unwrap();
    assert!(!why.contains("could not be restored"), "{taken}: {why}");
    stage.stop().await;
}

#[tokio::test]
async fn a_pause_begins_nothing_and_all_rollouts_are_halted_at_once() {
    let state = tempfile::tempdir().unwrap();
    let stage = Stage::new(state.path(), &["d1", "d2"], false).await;
    let admin = &stage.running.admin;
    // The canary waits for its image: time to say something.
    let absent = stage
        .publish_with("1.1.0", 11, |manners, image| {
            manners.absent.insert(image);
        })
        .await;
    stage.until_order("1.1.0", OrderStatus::Prefetching).await;
    let id = rollout_of("1.1.0");
    let halted = admin.halt_rollouts(Some("network works strangely")).await.unwrap();
    assert_eq!(halted, std::slice::from_ref(&id));
    assert!(admin.halt_rollouts(None).await.unwrap().is_empty(), "it is so already");
    let view = admin.rollout(&id).await.unwrap();
    assert_eq!(view.paused.unwrap().why.as_deref(), Some("network works strangely"));
    // What has begun ends; nothing else begins, although the canary has proven the version.
    stage.manners.lock().unwrap().absent.remove(&absent);
    stage.until_order("1.1.0", OrderStatus::Succeeded).await;
    let later = admin.version().await.unwrap().revision;
    admin.apply(support::SITE, false).await.unwrap();
    let quiet = admin.rollout(&id).await.unwrap();
    assert_eq!((quiet.at_target, quiet.orders.len()), (1, 1), "{later:?} {quiet:#?}");
    admin.say_to_rollout(&id, "resume", None).await.unwrap();
    stage.until_all_serve("1.1.0").await;
    let goes_on = admin.say_to_rollout("acme/nothing/stable/9/waves", "pause", None).await.unwrap_err();
    assert_eq!(goes_on.code(), Some(ProblemCode::NotFound));
    let long = "x".repeat(1_025);
    let refused = admin.say_to_rollout(&id, "pause", Some(&long)).await.unwrap_err();
    assert_eq!(refused.code(), Some(ProblemCode::Invalid));
    stage.stop().await;
}

// Each status is in the store together with what it says: whenever the controller ends, the next one goes on.
#[tokio::test]
async fn a_controller_that_ends_in_any_phase_goes_on_where_it_was() {
    let state = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(state.path(), &["d1"], false).await;
    let bad = stage
        .publish_with("1.1.0", 11, |manners, image| {
            manners.absent.insert(image);
            manners.slow.insert(image);
        })
        .await;
    stage.until_order("1.1.0", OrderStatus::Prefetching).await;
    stage = stage.restart(state.path()).await;
    stage.manners.lock().unwrap().absent.remove(&bad);
    let rolling = stage.until_order("1.1.0", OrderStatus::Rolling).await;
    stage = stage.restart(state.path()).await;
    // It fails, and what it goes back to is slow at first.
    let good = image(&stage.publisher.version("workspace", "1.0.0", 2));
    stage.manners.lock().unwrap().slow.insert(good);
    stage.manners.lock().unwrap().broken.insert(bad);
    let back = stage.until_order("1.1.0", OrderStatus::RollingBack).await;
    assert_eq!((back.rolled_ms, back.from.unwrap().as_str()), (rolling.rolled_ms, "1.0.0"));
    stage = stage.restart(state.path()).await;
    stage.manners.lock().unwrap().slow.remove(&good);
    stage.until_order("1.1.0", OrderStatus::RolledBack).await;
    stage.until_rollout("1.1.0", |view| view.step == "roll_back").await;
    stage = stage.restart(state.path()).await;
    stage.until_all_serve("1.0.0").await;
    assert_eq!(stage.running.admin.refusals().await.unwrap().len(), 1);
    let told = stage.manners.lock().unwrap().told[&id("d1/w")].clone();
    assert_eq!(told.len(), 3, "as it was, with the version, and back: {told:?}");
    stage.stop().await;
}
