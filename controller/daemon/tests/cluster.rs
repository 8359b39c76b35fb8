//! Hosts and people together: real TLS, real store, real policies; agents that only speak.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{InstanceState, InstanceStatus, ToAgent, ToController};
use controller_api::rest::{DeploymentView, ProblemCode};
use netd_api::Uplink;
use std::time::Duration;
use support::{
    Agent, DEADLINE, OFFICE, Running, component, furnish, no_policies, real_policies, start, status, trusted,
};
use tokio_tungstenite::tungstenite::Message;
use types::InstanceId;

async fn wait_for(running: &Running, fits: impl Fn(&DeploymentView) -> bool) -> DeploymentView {
    let name = "office".parse().unwrap();
    let end = tokio::time::Instant::now() + DEADLINE;
    let mut changes = running.admin.watch(None).await.unwrap();
    loop {
        let view = running.admin.deployment(&name).await.unwrap();
        if fits(&view) {
            return view;
        }
        assert!(tokio::time::Instant::now() < end, "{view:#?}");
        // Whatever happens, look again; and now and then even if nothing does.
        let _ = tokio::time::timeout(Duration::from_millis(200), changes.next()).await;
    }
}

fn ready(id: &InstanceId, incarnation: &str) -> ToController {
    let instance = InstanceStatus {
        id: id.clone(),
        incarnation: incarnation.into(),
        state: InstanceState::Ready,
        reason: None,
        started_ms: Some(1_000),
        ready_ms: Some(9_000),
        starts: 1,
        dirty_bytes: 0,
        health: None,
    };
    let mut status = status();
    status.instances = vec![instance];
    ToController::Status(Box::new(status))
}

#[tokio::test]
async fn an_office_is_placed_on_two_hosts_and_becomes_ready() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let (m1, m2) = (running.join("h1", "host").await, running.join("h2", "host").await);
    let (mut a1, mut a2) = (m1.agent("10.99.0.1").await, m2.agent("10.99.0.2").await);
    a1.desired(|document| document.instances.is_empty()).await;
    a2.desired(|document| document.instances.is_empty()).await;
    running.admin.apply(OFFICE, false).await.unwrap();

    let placed = wait_for(&running, |view| view.instances.iter().all(|i| i.host.is_some())).await;
    assert_ne!(
        placed.instances[0].host, placed.instances[1].host,
        "balanced keeps members of one deployment apart"
    );
    let decision = placed.instances[0].placement.as_ref().unwrap();
    assert_eq!((decision.verdict.as_str(), decision.choices.len()), ("place", 2));
    assert!(decision.choices.iter().all(|choice| !choice.reasons.is_empty()));
    let decisions = running.admin.decisions(Some(&placed.instances[0].id)).await.unwrap();
    assert_eq!(decisions[0].id, decision.id);

    let wired = |document: &controller_api::agent::HostDesired| {
        let peers = |network: &netd_api::Network| match &network.uplink {
            Uplink::Vxlan { peers, .. } => peers.len() == 1,
            _ => false,
        };
        document.instances.len() == 1 && document.networks.iter().any(peers)
    };
    let (d1, d2) = (a1.desired(wired).await, a2.desired(wired).await);
    let (i1, i2) = (&d1.instances[0], &d2.instances[0]);
    a1.say(&ready(&i1.id, &i1.incarnation)).await;
    a2.say(&ready(&i2.id, &i2.incarnation)).await;
    let view = wait_for(&running, |view| view.ready).await;
    assert!(view.problems.is_empty());
    assert_eq!(view.instances[0].ready_ms, Some(9_000));

    // The images are fetched on the same certificate.
    let (code, body) = m1.get(&format!("/agent/v1/images/{}", i1.image)).await;
    assert_eq!(code, 200);
    let source: streamer_api::ImageSource = serde_json::from_slice(&body).unwrap();
    assert_eq!(source.tracker, running.admin.version().await.unwrap().tracker);

    // A host with an instance stays; without its agent it is said to be offline.
    let busy = running.admin.delete_host(view.instances[0].host.as_ref().unwrap()).await.unwrap_err();
    assert_eq!(busy.code(), Some(ProblemCode::Conflict));
    drop(a1);
    let alone = wait_for(&running, |view| !view.ready).await;
    assert!(alone.problems.iter().any(|problem| problem.ends_with("is offline")), "{:?}", alone.problems);
    running.stop().await;
}

#[tokio::test]
async fn without_a_policy_or_a_host_an_instance_waits_and_says_why() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    furnish(&running).await;
    let office = OFFICE.replace("  policies: {placement: balanced}\n", "");
    running.admin.apply(office.as_str(), false).await.unwrap();
    let why = "policy balanced: policy balanced is not installed";
    let view = wait_for(&running, |view| view.instances[0].reason.as_deref() == Some(why)).await;
    assert_eq!(view.instances[0].state, InstanceState::Pending);
    assert_eq!(view.instances[0].placement.as_ref().unwrap().verdict, "error");

    let author = trusted(&running.admin).await;
    let balanced = author.signed(&component("balanced"));
    running.admin.put_policy(&"balanced".parse().unwrap(), &balanced).await.unwrap();
    let view = wait_for(&running, |view| view.instances[0].reason.as_deref() != Some(why)).await;
    assert!(view.instances.iter().all(|instance| instance.host.is_none()), "there is no host");

    let member = running.join("h1", "host").await;
    let mut agent = member.agent("10.99.0.1").await;
    let document = agent.desired(|document| document.instances.len() == 2).await;
    assert!(document.volumes.len() == 1 && document.images.len() == 2);
    running.stop().await;
}

async fn console_stream(agent: &mut Agent) -> u32 {
    loop {
        if let ToAgent::ConsoleOpen { stream, .. } = agent.message().await {
            return stream;
        }
    }
}

#[tokio::test]
async fn a_console_and_a_log_are_relayed_to_the_host() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let member = running.join("h1", "host").await;
    let mut agent = member.agent("10.99.0.1").await;
    running.admin.apply(OFFICE, false).await.unwrap();
    let document = agent.desired(|document| document.instances.len() == 2).await;
    let id = document.instances[0].id.clone();

    let client = running.admin.clone();
    let asked = id.clone();
    let log = tokio::spawn(async move { client.log(&asked, 100).await });
    let request = loop {
        if let ToAgent::LogTail { request, bytes_max: 100, .. } = agent.message().await {
            break request;
        }
    };
    agent.say(&ToController::Log { request, text: "hello\n".into(), problem: None }).await;
    assert_eq!(log.await.unwrap().unwrap(), "hello\n");

    let client = running.admin.clone();
    let opening = tokio::spawn(async move { client.console(&id).await });
    let stream = console_stream(&mut agent).await;
    let mut console = opening.await.unwrap().unwrap();
    agent.say_bytes([&stream.to_be_bytes()[..], b"login:"].concat()).await;
    assert_eq!(console.receive().await.unwrap().unwrap(), b"login:");
    console.send(b"root\n".to_vec()).await.unwrap();
    let typed = loop {
        match agent.frame().await {
            Some(Message::Binary(bytes)) => break bytes.to_vec(),
            Some(_) => {}
            None => panic!("closed"),
        }
    };
    assert_eq!(typed, [&stream.to_be_bytes()[..], b"root\n"].concat());
    agent.say_bytes(stream.to_be_bytes().to_vec()).await;
    assert_eq!(console.receive().await.unwrap(), None);
    running.stop().await;
}

#[tokio::test]
async fn a_host_that_is_ahead_of_a_restored_controller_is_overtaken() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let member = running.join("h1", "host").await;
    let mut agent = member.dial().await.unwrap();
    agent.hello("10.99.0.1", 41).await;
    let document = agent.desired(|_| true).await;
    assert!(document.generation.0 > 41, "{:?}", document.generation);
    running.stop().await;
}

#[tokio::test]
async fn another_protocol_is_refused_with_the_reason() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let member = running.join("h1", "host").await;
    let mut agent = member.dial().await.unwrap();
    let mut hello = serde_json::json!({"type": "hello", "protocol": 99, "generation": 0, "facts": controller_api::agent::HostFacts::default()});
    hello["protocol"] = 99.into();
    agent.say(&serde_json::from_value(hello).unwrap()).await;
    let Some(Message::Close(Some(frame))) = agent.frame().await else { panic!("expected a close") };
    assert_eq!(frame.reason.as_str(), "protocol 99 is not 1: update the agent");
    running.stop().await;
}

#[tokio::test]
async fn a_stopped_controller_knows_everything_again() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let member = running.join("h1", "host").await;
    let mut agent = member.agent("10.99.0.1").await;
    running.admin.apply(OFFICE, false).await.unwrap();
    let before = agent.desired(|document| document.instances.len() == 2).await;
    let audit = running.admin.audit(0).await.unwrap();
    running.stop().await;

    let running = start(state.path(), real_policies()).await;
    assert_eq!(running.admin.audit(0).await.unwrap(), audit);
    let member = support::Member { identity: member.identity, address: running.address };
    let mut agent = member.agent("10.99.0.1").await;
    assert_eq!(agent.desired(|_| true).await, before, "no new incarnation, no new generation");
    running.stop().await;
}
