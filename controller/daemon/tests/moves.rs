//! Guests that move: real TLS, real store; agents that only speak.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{HostDesired, InstanceState, InstanceStatus, ToController};
use controller_api::host::{AskMoves, HostService};
use controller_api::life::{MoveEnd, MoveState, MoveStatus};
use controller_api::moving::{AskMove, MoveCause, MovePhase};
use controller_api::rest::ProblemCode;
use std::time::Duration;
use support::{Agent, DEADLINE, OFFICE, Running, furnish, real_policies, start, status};
use types::{HostName, InstanceId};

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn workspace() -> InstanceId {
    "office/workspace".parse().unwrap()
}

/// Has taken up a document, where everything serves, and says this of its first move.
fn says(document: &HostDesired, state: Option<MoveState>) -> ToController {
    let mut status = status();
    status.generation = document.generation;
    status.moves = document
        .moves
        .iter()
        .zip(state)
        .map(|(named, state)| MoveStatus {
            id: named.id.clone(),
            instance: named.instance.clone(),
            state,
            reason: (state == MoveState::Failed).then(|| "its cable was pulled".to_owned()),
            sent_bytes: 1_000,
            total_bytes: 1_000,
            downtime_ms: 77,
        })
        .collect();
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

async fn phase(running: &Running, wanted: MovePhase) {
    let end = tokio::time::Instant::now() + DEADLINE;
    let mut changes = running.admin.watch(None).await.unwrap();
    loop {
        let all = running.admin.moves().await.unwrap();
        if all.iter().any(|held| held.instance == workspace() && held.phase == wanted) {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "not {wanted}: {all:#?}");
        let _ = tokio::time::timeout(Duration::from_millis(100), changes.next()).await;
    }
}

async fn placed(running: &Running) {
    let end = tokio::time::Instant::now() + DEADLINE;
    let mut changes = running.admin.watch(None).await.unwrap();
    while running.admin.instance(&workspace()).await.unwrap().host.is_none() {
        assert!(tokio::time::Instant::now() < end, "not placed");
        let _ = tokio::time::timeout(Duration::from_millis(100), changes.next()).await;
    }
}

/// The office on h1, and an empty h2.
async fn scene(state: &std::path::Path) -> (Running, Agent, Agent) {
    let running = start(state, real_policies()).await;
    furnish(&running).await;
    let m1 = running.join("h1", "host").await;
    let a1 = m1.agent("10.99.0.1").await;
    running.admin.apply(OFFICE, false).await.unwrap();
    placed(&running).await;
    let m2 = running.join("h2", "host").await;
    let a2 = m2.agent("10.99.0.2").await;
    let end = tokio::time::Instant::now() + DEADLINE;
    let mut changes = running.admin.watch(None).await.unwrap();
    while !running.admin.host(&host("h2")).await.unwrap().online {
        assert!(tokio::time::Instant::now() < end, "h2 is not online");
        let _ = tokio::time::timeout(Duration::from_millis(100), changes.next()).await;
    }
    (running, a1, a2)
}

fn to_h2() -> AskMove {
    AskMove { to: Some(host("h2")), ..AskMove::default() }
}

fn is_there(document: &HostDesired) -> bool {
    document.instances.iter().any(|instance| instance.id == workspace())
}

fn held(document: &HostDesired) -> Vec<bool> {
    document.networks.iter().flat_map(|network| &network.ports).map(|port| port.held).collect()
}

#[tokio::test]
async fn a_guest_moves_by_what_both_hosts_say_and_its_volume_with_it() {
    let state = tempfile::tempdir().unwrap();
    let (running, mut a1, mut a2) = scene(state.path()).await;
    let view = running.admin.move_instance(&workspace(), &to_h2()).await.unwrap();
    assert!(view.executed && view.moves[0].to == Some(host("h2")), "{view:#?}");
    let target = a2.desired(|document| !document.moves.is_empty()).await;
    assert!(matches!(&target.moves[0].end, MoveEnd::Target { from } if *from == host("h1")));
    assert!(is_there(&target) && target.volumes.len() == 1 && held(&target) == [true], "{target:#?}");
    a2.say(&says(&target, Some(MoveState::Prepared))).await;
    let source = a1.desired(|document| !document.moves.is_empty()).await;
    let MoveEnd::Source { to, address } = &source.moves[0].end else { panic!("{source:#?}") };
    assert_eq!((to, address.to_string().as_str()), (&host("h2"), "10.99.0.2:4250"));
    a1.say(&says(&source, Some(MoveState::Done))).await;
    let (target, source) = tokio::join!(
        a2.desired(|document| document.moves.is_empty() && is_there(document)),
        a1.desired(|document| !is_there(document)),
    );
    assert_eq!(held(&target), [false]);
    assert!(source.volumes.is_empty() && target.volumes.len() == 1);
    a1.say(&says(&source, None)).await;
    a2.say(&says(&target, None)).await;
    phase(&running, MovePhase::Done).await;
    let all = running.admin.moves().await.unwrap();
    assert_eq!((all[0].downtime_ms, all[0].cause), (77, MoveCause::Person));
    assert_eq!(running.admin.instance(&workspace()).await.unwrap().host, Some(host("h2")));
    running.stop().await;
}

#[tokio::test]
async fn a_move_that_fails_or_is_called_off_leaves_the_guest_where_it_was_also_over_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let (running, mut a1, mut a2) = scene(state.path()).await;
    running.admin.move_instance(&workspace(), &to_h2()).await.unwrap();
    let target = a2.desired(|document| !document.moves.is_empty()).await;
    a2.say(&says(&target, Some(MoveState::Prepared))).await;
    let source = a1.desired(|document| !document.moves.is_empty()).await;
    a1.say(&says(&source, Some(MoveState::Failed))).await;
    let target = a2.desired(|document| document.moves.is_empty()).await;
    assert!(!is_there(&target) && target.volumes.is_empty());
    phase(&running, MovePhase::Failed).await;
    assert_eq!(running.admin.moves().await.unwrap()[0].reason.as_deref(), Some("its cable was pulled"));

    running.admin.move_instance(&workspace(), &to_h2()).await.unwrap();
    phase(&running, MovePhase::Preparing).await;
    running.stop().await;
    let running = start(state.path(), real_policies()).await;
    phase(&running, MovePhase::Preparing).await;
    running.admin.cancel_move(&workspace()).await.unwrap();
    phase(&running, MovePhase::Failed).await;
    let again = running.admin.cancel_move(&workspace()).await.unwrap_err();
    assert_eq!(again.code(), Some(ProblemCode::NotFound));
    assert_eq!(running.admin.instance(&workspace()).await.unwrap().host, Some(host("h1")));
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_a_dry_run_moves_nothing() {
    let state = tempfile::tempdir().unwrap();
    let (running, _a1, _a2) = scene(state.path()).await;
    let admin = &running.admin;
    let code = |error: controller_client::ClientError| error.code();
    let ask = |to: &str| AskMove { to: Some(host(to)), ..AskMove::default() };
    let nobody: InstanceId = "office/nobody".parse().unwrap();
    assert_eq!(code(admin.move_instance(&nobody, &to_h2()).await.unwrap_err()), Some(ProblemCode::NotFound));
    let here = admin.move_instance(&workspace(), &ask("h1")).await.unwrap_err();
    assert!(here.to_string().contains("is on h1 already"), "{here}");
    let nowhere = admin.move_instance(&workspace(), &ask("h9")).await.unwrap_err();
    assert!(nowhere.to_string().contains("h9 is no host"), "{nowhere}");
    admin.set_service(&host("h2"), HostService::Cordoned).await.unwrap();
    let cordoned = admin.move_instance(&workspace(), &to_h2()).await.unwrap_err();
    assert!(cordoned.to_string().contains("h2 is cordoned"), "{cordoned}");
    admin.set_service(&host("h2"), HostService::InService).await.unwrap();
    let dry = AskMove { dry_run: true, ..to_h2() };
    let view = admin.move_instance(&workspace(), &dry).await.unwrap();
    assert!(!view.executed && view.moves[0].to == Some(host("h2")));
    assert!(admin.moves().await.unwrap().is_empty());
    let office = "office".parse().unwrap();
    let unsaid = admin.move_deployment(&office, &AskMove::default()).await.unwrap_err();
    assert_eq!(unsaid.code(), Some(ProblemCode::Invalid));
    let all = admin.move_deployment(&office, &dry).await.unwrap();
    assert_eq!(all.moves.iter().filter(|planned| planned.to == Some(host("h2"))).count(), 2, "{all:#?}");
    // Both are at the site already.
    let site = AskMove { site: Some("main".parse().unwrap()), ..AskMove::default() };
    assert!(admin.move_deployment(&office, &site).await.unwrap().moves.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_drain_sends_everything_away_one_guest_at_a_time() {
    let state = tempfile::tempdir().unwrap();
    let (running, _a1, mut a2) = scene(state.path()).await;
    let admin = &running.admin;
    admin.set_service(&host("h1"), HostService::Draining).await.unwrap();
    let ask = AskMoves { execute: true, ..AskMoves::default() };
    let view = admin.evacuation(&host("h1"), &ask).await.unwrap();
    assert!(view.executed && view.moves.iter().all(|planned| planned.to == Some(host("h2"))), "{view:#?}");
    let target = a2.desired(|document| !document.moves.is_empty()).await;
    assert_eq!(target.moves.len(), 1);
    let all = admin.moves().await.unwrap();
    assert_eq!(all.iter().filter(|held| held.cause == MoveCause::Drain).count(), 2);
    assert_eq!(all.iter().filter(|held| held.phase == MovePhase::Queued).count(), 1, "{all:#?}");
    running.stop().await;
}
