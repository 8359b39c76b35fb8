//! What people say of hosts, what members wish, and what policies plan: real TLS, real store, real policies; agents that
//! only speak.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{HostDesired, InstanceState, InstanceStatus, ToAgent, ToController};
use controller_api::host::{AskMoves, ChangeLabels, HostService};
use controller_api::planned::RolloutView;
use controller_api::policy::PolicyKind;
use controller_api::rest::{HostView, ProblemCode};
use std::time::Duration;
use support::{Agent, DEADLINE, OFFICE, Running, furnish, no_policies, real_policies, start, status};
use tokio_tungstenite::tungstenite::Message;
use types::{HostName, InstanceId};

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

/// Whatever happens, looks again; and now and then even if nothing does.
async fn until<T, F: Future<Output = Option<T>>>(running: &Running, mut look: impl FnMut() -> F) -> T {
    let end = tokio::time::Instant::now() + DEADLINE;
    let mut changes = running.admin.watch(None).await.unwrap();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        if tokio::time::Instant::now() > end {
            let (rollouts, schedules) = (running.admin.rollouts().await, running.admin.schedules().await);
            panic!("it did not come to be: {rollouts:#?} {schedules:#?}");
        }
        let _ = tokio::time::timeout(Duration::from_millis(200), changes.next()).await;
    }
}

async fn placed_on(running: &Running, instance: &str) -> HostName {
    until(running, || async { running.admin.instance(&id(instance)).await.ok()?.host }).await
}

/// Every instance of a document serves.
fn ready(document: &HostDesired) -> ToController {
    let mut status = status();
    status.instances = document
        .instances
        .iter()
        .map(|instance| InstanceStatus {
            id: instance.id.clone(),
            incarnation: instance.incarnation.clone(),
            state: InstanceState::Ready,
            reason: None,
            started_ms: Some(1_000),
            ready_ms: Some(2_000),
            starts: 1,
            dirty_bytes: 0,
            health: None,
        })
        .collect();
    ToController::Status(Box::new(status))
}

/// Says that whatever it is told to run serves, for as long as the test lives.
fn obey(mut agent: Agent) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut held = HostDesired::default();
        loop {
            let frame = tokio::time::timeout(Duration::from_millis(200), agent.frame()).await;
            if let Ok(Some(Message::Text(text))) = &frame
                && let ToAgent::Desired(document) = serde_json::from_str(text).unwrap()
            {
                held = *document;
            }
            agent.say(&ready(&held)).await;
        }
    })
}

fn labels(set: &[(&str, &str)], remove: &[&str]) -> ChangeLabels {
    ChangeLabels {
        set: set.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        remove: remove.iter().map(|key| (*key).into()).collect(),
    }
}

#[tokio::test]
async fn what_people_say_of_a_host_is_kept_and_audited_and_lost_when_the_machine_joins_anew() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    running.join("h1", "host").await;
    running.join("o1", "origin").await;
    let (admin, h1) = (&running.admin, host("h1"));
    admin.change_labels(&h1, &labels(&[("disk", "nvme"), ("rack", "7")], &[])).await.unwrap();
    admin.change_labels(&h1, &labels(&[], &["rack"])).await.unwrap();
    admin.attest(&h1, "measured boot checked").await.unwrap();
    admin.set_service(&h1, HostService::Cordoned).await.unwrap();
    // What is so already is no change, and has no entry.
    admin.set_service(&h1, HostService::Cordoned).await.unwrap();
    let said = |view: &HostView| (view.service, view.labels.len(), view.attestation.is_some());
    assert_eq!(said(&admin.host(&h1).await.unwrap()), (HostService::Cordoned, 1, true));
    let audit = admin.audit(0).await.unwrap();
    let of_h1: Vec<&str> =
        audit.iter().filter(|entry| entry.object == "host/h1").map(|entry| entry.action.as_str()).collect();
    assert_eq!(of_h1, ["join", "host-label", "host-label", "host-attest", "host-cordon"]);

    let refused = admin.change_labels(&h1, &labels(&[("Disk", "x")], &[])).await.unwrap_err();
    assert_eq!(refused.code(), Some(ProblemCode::Invalid));
    assert_eq!(admin.attest(&h1, " ").await.unwrap_err().code(), Some(ProblemCode::Invalid));
    let origin = admin.set_service(&host("o1"), HostService::Cordoned).await.unwrap_err();
    assert_eq!(origin.code(), Some(ProblemCode::Conflict));
    let unknown = admin.attest(&host("h9"), "x").await.unwrap_err();
    assert_eq!(unknown.code(), Some(ProblemCode::NotFound));

    running.stop().await;
    let running = start(state.path(), no_policies()).await;
    let admin = &running.admin;
    assert_eq!(said(&admin.host(&h1).await.unwrap()), (HostService::Cordoned, 1, true));
    admin.delete_host(&h1).await.unwrap();
    running.join("h1", "host").await;
    assert_eq!(said(&admin.host(&h1).await.unwrap()), (HostService::InService, 0, false));
    running.stop().await;
}

#[tokio::test]
async fn wishes_and_service_are_hard_limits_and_a_dry_run_says_where_things_would_go() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let (m1, m2) = (running.join("h1", "host").await, running.join("h2", "host").await);
    let (a1, a2) = (m1.agent("10.99.0.1").await, m2.agent("10.99.0.2").await);
    let admin = &running.admin;
    until(&running, || async {
        admin.hosts().await.unwrap().iter().all(|host| host.status.is_some()).then_some(())
    })
    .await;
    let wishing = OFFICE.replace(
        "      ports: {eth0: inside}\n",
        "      ports: {eth0: inside}\n      placement: {attested: true, labels: {disk: nvme}, apart_from: [gateway]}\n",
    );
    assert_ne!(wishing, OFFICE);

    let unplaced = admin.apply(wishing.as_str(), true).await.unwrap();
    let workspace =
        unplaced.placements.iter().find(|planned| planned.instance == id("office/workspace")).unwrap();
    assert_eq!(workspace.decision.host, None);
    let why = workspace.decision.notes.join("\n");
    assert!(why.contains("not-attested"), "{why}");

    admin.attest(&host("h1"), "looked at").await.unwrap();
    admin.change_labels(&host("h1"), &labels(&[("disk", "nvme")], &[])).await.unwrap();
    let planned = admin.apply(wishing.as_str(), true).await.unwrap();
    let at = |name: &str| {
        let found = planned.placements.iter().find(|planned| planned.instance == id(name)).unwrap();
        found.decision.host.clone()
    };
    assert_eq!((at("office/workspace"), at("office/gateway")), (Some(host("h1")), Some(host("h2"))));
    assert!(planned.placements.iter().all(|planned| !planned.decision.choices[0].reasons.is_empty()));
    // It was only asked: there is no bundle, and no decision was kept.
    assert!(admin.bundles().await.unwrap().is_empty());
    assert!(admin.decisions(None).await.unwrap().is_empty());

    admin.set_service(&host("h1"), HostService::Cordoned).await.unwrap();
    admin.apply(wishing.as_str(), false).await.unwrap();
    assert_eq!(placed_on(&running, "office/gateway").await, host("h2"));
    assert_eq!(admin.instance(&id("office/workspace")).await.unwrap().host, None);
    admin.set_service(&host("h1"), HostService::InService).await.unwrap();
    assert_eq!(placed_on(&running, "office/workspace").await, host("h1"));
    drop((a1, a2));
    running.stop().await;
}

#[tokio::test]
async fn a_drain_says_where_instances_would_go_and_moves_nothing() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let m1 = running.join("h1", "host").await;
    let a1 = m1.agent("10.99.0.1").await;
    let admin = &running.admin;
    admin.apply(OFFICE, false).await.unwrap();
    assert_eq!(placed_on(&running, "office/gateway").await, host("h1"));
    assert_eq!(placed_on(&running, "office/workspace").await, host("h1"));

    // There is no other host.
    let alone = admin.evacuation(&host("h1"), &AskMoves::default()).await.unwrap();
    assert!(!alone.executed && alone.moves.iter().all(|planned| planned.to.is_none()), "{alone:#?}");
    let m2 = running.join("h2", "host").await;
    let a2 = m2.agent("10.99.0.2").await;
    until(&running, || async { admin.host(&host("h2")).await.unwrap().status.map(drop) }).await;
    let planned = admin.evacuation(&host("h1"), &AskMoves::default()).await.unwrap();
    let of = |name: &str| planned.moves.iter().find(|planned| planned.instance == id(name)).unwrap();
    assert_eq!(
        (of("office/gateway").to.clone(), of("office/workspace").to.clone()),
        (Some(host("h2")), Some(host("h2")))
    );
    assert!(admin.moves().await.unwrap().is_empty());
    let decisions = admin.decisions(Some(&id("office/gateway"))).await.unwrap();
    let kept = decisions.iter().find(|decision| Some(decision.id) == of("office/gateway").decision).unwrap();
    assert_eq!((kept.subject.as_str(), kept.host.clone()), ("move/office/gateway", Some(host("h2"))));
    assert!(kept.notes.iter().any(|note| note == "dry run: nothing moves"));
    assert_eq!(admin.instance(&id("office/gateway")).await.unwrap().host, Some(host("h1")));
    assert_eq!(admin.host(&host("h1")).await.unwrap().service, HostService::InService);

    // The gateway is better off on the empty host; but not by more than ten times its score.
    let better = admin.rebalance(&AskMoves::default()).await.unwrap();
    assert!(!better.executed && !better.moves.is_empty(), "{better:#?}");
    assert!(better.moves[0].gain.unwrap() > 0.0);
    let never = AskMoves { gain_min: Some(10.0), ..AskMoves::default() };
    assert!(admin.rebalance(&never).await.unwrap().moves.is_empty());
    let wrong = AskMoves { moves_max: Some(0), ..AskMoves::default() };
    assert_eq!(admin.rebalance(&wrong).await.unwrap_err().code(), Some(ProblemCode::Invalid));
    let nobody = admin.evacuation(&host("h9"), &AskMoves::default()).await.unwrap_err();
    assert_eq!(nobody.code(), Some(ProblemCode::NotFound));
    drop((a1, a2));
    running.stop().await;
}

#[tokio::test]
async fn a_channel_that_moves_is_a_rollout_and_a_deployment_that_serves_has_a_schedule() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    let publisher = furnish(&running).await;
    let m1 = running.join("h1", "host").await;
    let serving = obey(m1.agent("10.99.0.1").await);
    let admin = &running.admin;
    admin.apply(OFFICE, false).await.unwrap();
    let schedule = until(&running, || async { admin.schedules().await.unwrap().pop() }).await;
    assert_eq!((schedule.policy.as_str(), schedule.checkpoints), ("gfs", 0));
    assert!(schedule.problem.is_none() && schedule.next_call_ms > 0, "{schedule:#?}");
    assert!(admin.rollouts().await.unwrap().is_empty());

    // A policy that finds an instance on its way up waits for longer than this test.
    let office = "office".parse().unwrap();
    let all_serve = || async { admin.deployment(&office).await.unwrap().ready.then_some(()) };
    until(&running, all_serve).await;
    admin.publish(&publisher.version("gateway", "1.1.0", 9)).await.unwrap();
    let fits = |view: &RolloutView| !view.orders.is_empty();
    let ordered = until(&running, || async { admin.rollouts().await.unwrap().pop().filter(fits) }).await;
    assert_eq!(ordered.id, "acme/gateway/stable/1.1.0/waves");
    assert_eq!(
        (ordered.instances, ordered.at_target, ordered.step.as_str()),
        (1, 0, "proceed"),
        "{ordered:#?}"
    );
    assert!(ordered.orders[0].status.is_under_way(), "{ordered:#?}");
    let kept = |kind: PolicyKind| async move {
        let decisions = admin.decisions(None).await.unwrap();
        decisions.into_iter().filter(|decision| decision.kind == kind).count()
    };
    assert!(kept(PolicyKind::Update).await == 1 && kept(PolicyKind::Checkpoint).await == 1);
    // A checkpoint is taken first, and this host takes none: the guest runs on.
    assert_eq!(admin.instance(&id("office/gateway")).await.unwrap().version.as_str(), "1.0.0");

    // A person makes the guest anew, by the version the channel has now: the order is done as soon as it is healthy long
    // enough, and the version after it supersedes the rollout.
    admin.delete_instance(&id("office/gateway")).await.unwrap();
    until(&running, || async { admin.rollouts().await.unwrap().pop().filter(|view| view.at_target == 1) })
        .await;
    until(&running, all_serve).await;
    admin.publish(&publisher.version("gateway", "1.2.0", 11)).await.unwrap();
    until(&running, || async {
        let views = admin.rollouts().await.unwrap();
        let old = views.iter().find(|view| view.target.as_str() == "1.1.0")?;
        let new = views.iter().find(|view| view.target.as_str() == "1.2.0")?;
        (matches!(old.step.as_str(), "superseded" | "complete") && !new.orders.is_empty()).then_some(())
    })
    .await;
    serving.abort();
    running.stop().await;
}
