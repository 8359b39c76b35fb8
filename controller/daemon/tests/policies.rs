//! The life of a policy: who may install it, what an upgrade does to decisions that flow, what happens if it fails.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::policy::{DecisionView, OnFailure, PolicyKind, PolicyOrigin, PutPolicy, PutTrustRoot};
use controller_api::rest::{Problem, ProblemCode};
use controller_client::ClientError;
use plugins_artifact::{Kind, Statement, digest};
use plugins_conformance::specimen::Specimen;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use support::{
    Agent, Author, DEADLINE, OFFICE, Running, component, furnish, no_policies, real_policies, start, trusted,
};
use types::{InstanceId, PolicyName};

fn balanced() -> PolicyName {
    "balanced".parse().unwrap()
}

fn packed() -> PolicyName {
    "packed".parse().unwrap()
}

fn problem<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Problem {
    result.unwrap_err().problem().unwrap().clone()
}

fn files(state: &Path) -> usize {
    std::fs::read_dir(state.join("policies")).unwrap().count()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two hosts that say that they live, as long as this is held.
struct Hosts(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Hosts {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn hosts(running: &Running) -> Hosts {
    let mut living = Vec::new();
    for number in 1..=2 {
        let member = running.join(&format!("h{number}"), "host").await;
        let agent = member.agent(&format!("10.99.0.{number}")).await;
        living.push(tokio::spawn(live(agent)));
    }
    Hosts(living)
}

async fn live(mut agent: Agent) {
    loop {
        agent.desired(|_| false).await;
    }
}

async fn placed(running: &Running) -> Vec<InstanceId> {
    until("everything has a host", async || {
        let view = running.admin.deployment(&"office".parse().unwrap()).await.unwrap();
        let all = view.instances.iter().all(|instance| instance.host.is_some());
        (all && !view.instances.is_empty()).then(|| view.instances.into_iter().map(|i| i.id).collect())
    })
    .await
}

async fn newest(running: &Running, fits: impl Fn(&DecisionView) -> bool) -> DecisionView {
    until("such a decision", async || {
        running.admin.decisions(None).await.unwrap().into_iter().find(|decision| fits(decision))
    })
    .await
}

#[tokio::test]
async fn a_component_that_nobody_trusted_vouches_for_is_refused_and_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let (author, stranger, scheduler) = (trusted(&running.admin).await, Author::new(), Author::new());
    let update = scheduler.root(&[PolicyKind::Update]);
    running.admin.put_trust_root(&"scheduler".parse().unwrap(), &update).await.unwrap();
    let before = running.admin.version().await.unwrap().revision;
    let wasm = component("balanced");
    let good = author.signed(&wasm);

    let mut tampered = good.clone();
    *tampered.component.0.last_mut().unwrap() ^= 1;
    let unsigned = PutPolicy { signature: types::Base64(b"{}".to_vec()), ..good.clone() };
    let other = Statement {
        component: digest(&wasm),
        kind: Kind::Placement,
        name: "balanced".into(),
        version: "99.0.0".into(),
    };
    for (request, words) in [
        (&unsigned, "the signature is no DSSE envelope of a policy"),
        (&stranger.signed(&wasm), "no trusted key signed it"),
        (&scheduler.signed(&wasm), "it is signed by scheduler, which is not trusted with placement policies"),
        (&tampered, "the signature is for sha256:"),
        (&author.sign(&wasm, &other), "the signature is for the version 99.0.0, the component says "),
    ] {
        let problem = problem(running.admin.put_policy(&balanced(), request).await);
        assert_eq!(problem.code, ProblemCode::Invalid);
        assert!(problem.message.starts_with(words), "{problem:?}");
    }
    assert_eq!(running.admin.version().await.unwrap().revision, before);
    assert_eq!((running.admin.policies().await.unwrap().len(), files(&running.state)), (0, 0));

    let view = running.admin.put_policy(&balanced(), &good).await.unwrap();
    assert!(matches!(&view.active.origin, PolicyOrigin::Signed { root, .. } if root == "acme"), "{view:?}");
    assert_eq!(files(&running.state), 1);
    running.stop().await;
}

#[tokio::test]
async fn what_a_removed_or_expired_root_vouched_for_goes_on_and_is_not_taken_anew() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    let author = trusted(&running.admin).await;
    let acme = "acme".parse().unwrap();
    let packs = author.signed(&component("packed"));
    running.admin.put_policy(&balanced(), &packs).await.unwrap();
    running.admin.set_policy_settings(&balanced(), Some(serde_json::json!({}))).await.unwrap();

    running.admin.delete_trust_root(&acme).await.unwrap();
    let view = running.admin.policy(&balanced()).await.unwrap();
    assert_eq!(view.active.component, "packed");
    assert!(view.health.problem.unwrap().starts_with("its trust root acme was removed"));
    let refused = problem(running.admin.roll_back_policy(&balanced()).await);
    assert_eq!(refused.code, ProblemCode::Conflict, "its signature would not be taken now");
    assert!(problem(running.admin.put_policy(&balanced(), &packs).await).message.contains("no trusted key"));

    let until_ms = |ms: u64| PutTrustRoot {
        expires_ms: Some(chassis::clock::unix_ms() + ms),
        ..author.root(&[PolicyKind::Placement])
    };
    running.admin.put_trust_root(&acme, &until_ms(3_600_000)).await.unwrap();
    assert_eq!(running.admin.policy(&balanced()).await.unwrap().health.problem, None);
    running.admin.put_trust_root(&acme, &until_ms(300)).await.unwrap();
    let expired =
        until("it expires", async || running.admin.policy(&balanced()).await.unwrap().health.problem).await;
    assert!(expired.starts_with("its trust root acme has expired"), "{expired}");
    let refused = problem(running.admin.put_policy(&packed(), &packs).await);
    assert_eq!(refused.message, "it is signed by acme, which has expired");

    // A key is known by one name, and a name is one key.
    let other = Author::new().root(&[PolicyKind::Placement]);
    let refused = problem(running.admin.put_trust_root(&acme, &other).await);
    assert_eq!(refused.code, ProblemCode::Conflict);
    let twice = problem(
        running.admin.put_trust_root(&"twin".parse().unwrap(), &author.root(&[PolicyKind::Update])).await,
    );
    assert_eq!(twice.message, "this key is trusted as acme already");
    running.stop().await;
}

#[tokio::test]
async fn decisions_flow_through_upgrades_and_each_names_one_component() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let _hosts = hosts(&running).await;
    running.admin.apply(OFFICE, false).await.unwrap();
    let instances = placed(&running).await;
    let author = trusted(&running.admin).await;
    let both = [author.signed(&component("packed")), author.signed(&component("balanced"))];
    let digests: Vec<_> = both.iter().map(|policy| digest(&policy.component.0)).collect();

    let admin = running.client(Some(&running.token));
    let upgrades = tokio::spawn(async move {
        for round in 0..12 {
            admin.put_policy(&balanced(), &both[round % 2]).await.unwrap();
        }
        for _ in 0..6 {
            admin.roll_back_policy(&balanced()).await.unwrap();
        }
    });
    let (mut made, mut rounds) = (0, 0);
    while !upgrades.is_finished() || rounds < 10 {
        rounds += 1;
        for id in &instances {
            running.admin.delete_instance(id).await.unwrap();
            made += 1;
        }
        placed(&running).await;
    }
    upgrades.await.unwrap();

    let decisions = running.admin.decisions_where(&[("limit", "10000".into())]).await.unwrap();
    let numbers: BTreeSet<u64> = decisions.iter().map(|decision| decision.id).collect();
    assert_eq!(numbers.len(), decisions.len());
    let answered: Vec<_> = decisions.iter().filter(|decision| decision.host.is_some()).collect();
    assert_eq!(answered.len(), made + instances.len(), "none is lost, none is made twice");
    let mut seen = BTreeSet::new();
    for decision in &decisions {
        assert_eq!((decision.verdict.as_str(), &decision.fallback), ("place", &None), "{decision:?}");
        let name = decision.component.split(' ').next().unwrap();
        let expected = if decision.digest == digests[0] { "packed" } else { "balanced" };
        assert_eq!(name, expected, "{decision:?}");
        seen.insert(name.to_owned());
    }
    assert_eq!(seen.len(), 2, "both answered");
    let last = &decisions[0];
    let input = running.admin.decision_input(last.id).await.unwrap();
    assert_eq!(input["decision_id"], last.id.to_string());
    assert_eq!(serde_json::to_vec(&input).unwrap().len() as u64, last.input_bytes);
    running.stop().await;
}

#[tokio::test]
async fn a_changed_component_is_not_run_and_the_fallback_is_asked() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let held = running.admin.policy(&balanced()).await.unwrap().active.digest;
    running.admin.set_policy_on_failure(&balanced(), OnFailure::Fallback(packed())).await.unwrap();
    for (other, words) in [("balanced", "itself"), ("absent", "not installed"), ("waves", "same kind")] {
        let other = OnFailure::Fallback(other.parse().unwrap());
        let problem = problem(running.admin.set_policy_on_failure(&balanced(), other).await);
        assert!(problem.code == ProblemCode::Invalid && problem.message.contains(words), "{problem:?}");
    }
    running.stop().await;
    let path = state.path().join(format!("policies/{}.wasm", held.hex()));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let running = start(state.path(), no_policies()).await;
    let _hosts = hosts(&running).await;
    running.admin.apply(OFFICE, false).await.unwrap();
    placed(&running).await;
    let decision = newest(&running, |decision| decision.host.is_some()).await;
    let fallback = decision.fallback.unwrap();
    assert_eq!((fallback.policy, decision.policy), (packed(), balanced()));
    assert_eq!(fallback.because, "its component on disk was changed: install it again");
    assert!(decision.component.starts_with("packed "), "{}", decision.component);
    let health = running.admin.policy(&balanced()).await.unwrap().health;
    assert_eq!(health.problem.as_deref(), Some("its component on disk was changed: install it again"));

    // Without a fallback nothing is placed: a failure is no yes.
    running.admin.set_policy_on_failure(&balanced(), OnFailure::Refuse).await.unwrap();
    running.admin.delete_instance(&"office/gateway".parse().unwrap()).await.unwrap();
    let decision = newest(&running, |decision| decision.verdict == "error").await;
    assert_eq!((decision.host, decision.fallback), (None, None));
    // The same component, installed again, mends it.
    let author = trusted(&running.admin).await;
    running.admin.put_policy(&balanced(), &author.signed(&component("balanced"))).await.unwrap();
    placed(&running).await;
    running.stop().await;
}

#[tokio::test]
async fn a_policy_that_crashes_again_and_again_is_left_alone_counted_and_taken_up_when_mended() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let author = trusted(&running.admin).await;
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/wit");
    let crashing = Specimen::that(plugins_runtime::Kind::Placement, "unreachable").build(&wit).unwrap();
    running.admin.put_policy(&balanced(), &author.signed(&crashing)).await.unwrap();
    let member = running.join("h1", "host").await;
    let agent = member.agent("10.99.0.1").await;
    let _hosts = Hosts(vec![tokio::spawn(live(agent))]);
    // Nobody else is asked: nothing is placed, and it is asked again until it is left alone.
    running.admin.apply(OFFICE, false).await.unwrap();
    let health = until("it is left alone", async || {
        let health = running.admin.policy(&balanced()).await.unwrap().health;
        health.open_until_ms.is_some().then_some(health)
    })
    .await;
    assert!(health.failures >= 5 && health.failures == health.calls, "{health:?}");
    assert!(health.problem.as_deref().unwrap().contains("times in a row"), "{health:?}");
    let view = running.admin.deployment(&"office".parse().unwrap()).await.unwrap();
    assert!(view.instances.iter().all(|instance| instance.host.is_none()), "a failure was taken for a yes");
    let (_, metrics) = member.get("/metrics").await;
    let metrics = String::from_utf8(metrics).unwrap();
    let of_balanced = |name: &str| {
        let lines =
            metrics.lines().filter(|line| line.starts_with(name) && line.contains(r#"policy="balanced""#));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, f64::max)
    };
    assert!(of_balanced("collective_policy_failures_total") >= 5.0, "{metrics}");
    assert!(metrics.contains(r#"class="trap""#), "{metrics}");

    running.admin.set_policy_on_failure(&balanced(), OnFailure::Fallback(packed())).await.unwrap();
    placed(&running).await;
    let decision = newest(&running, |decision| decision.host.is_some()).await;
    assert_eq!(decision.fallback.unwrap().policy, packed());
    // Another component begins anew.
    running.admin.roll_back_policy(&balanced()).await.unwrap();
    running.admin.delete_instance(&"office/gateway".parse().unwrap()).await.unwrap();
    let decision = newest(&running, |decision| decision.host.is_some() && decision.fallback.is_none()).await;
    assert!(decision.component.starts_with("balanced "), "{decision:?}");
    assert_eq!(running.admin.policy(&balanced()).await.unwrap().health.open_until_ms, None);
    running.stop().await;
}

#[tokio::test]
async fn a_candidate_is_asked_without_effect_and_its_differences_are_listed() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let author = trusted(&running.admin).await;
    let absent = problem(running.admin.shadow_report(&balanced()).await);
    assert_eq!(absent.code, ProblemCode::NotFound);
    running.admin.put_candidate(&balanced(), &author.signed(&component("packed"))).await.unwrap();
    let _hosts = hosts(&running).await;
    running.admin.apply(OFFICE, false).await.unwrap();
    let instances = placed(&running).await;
    let report = until("the candidate was asked", async || {
        let report = running.admin.shadow_report(&balanced()).await.unwrap();
        (report.asked >= instances.len() as u64).then_some(report)
    })
    .await;
    assert!(report.differed >= 1 && report.failed == 0, "one packs, the other spreads: {report:?}");
    let difference = &report.differences[0];
    let shadow = difference.shadow.as_ref().unwrap();
    assert!(difference.component.starts_with("balanced ") && shadow.component.starts_with("packed "));
    assert!(shadow.differs && shadow.outcome != difference.outcome);

    let promoted = running.admin.promote_policy(&balanced()).await.unwrap();
    assert_eq!((promoted.active.component.as_str(), promoted.candidate), ("packed", None));
    assert_eq!(problem(running.admin.promote_policy(&balanced()).await).code, ProblemCode::Conflict);
    let back = running.admin.roll_back_policy(&balanced()).await.unwrap();
    assert_eq!(back.active.component, "balanced");
    running.stop().await;
}

#[tokio::test]
async fn settings_that_are_not_accepted_are_named_by_place_and_change_nothing() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    let before = running.admin.version().await.unwrap().revision;
    let settings = serde_json::json!({"capacity": -1, "capasity": 2});
    let refused = problem(running.admin.set_policy_settings(&balanced(), Some(settings)).await);
    assert_eq!(refused.code, ProblemCode::Invalid);
    let fields: BTreeSet<_> = refused.issues.iter().map(|issue| issue.field.as_str()).collect();
    assert_eq!(fields, BTreeSet::from(["", "/capacity"]), "{refused:?}");
    let list = problem(running.admin.set_policy_settings(&balanced(), Some(serde_json::json!([]))).await);
    assert_eq!(list.code, ProblemCode::Invalid);
    assert_eq!(running.admin.version().await.unwrap().revision, before);

    // Settings in use that a new component does not accept hold it up, too.
    let settings = serde_json::json!({"capacity": 7});
    running.admin.set_policy_settings(&balanced(), Some(settings.clone())).await.unwrap();
    let author = trusted(&running.admin).await;
    let mut packs = author.signed(&component("packed"));
    let refused = problem(running.admin.put_policy(&balanced(), &packs).await);
    assert!(refused.message.ends_with("these are the settings in use: give others with it"), "{refused:?}");
    packs.settings = Some(serde_json::json!({}));
    running.admin.put_policy(&balanced(), &packs).await.unwrap();
    let back = running.admin.roll_back_policy(&balanced()).await.unwrap();
    assert_eq!((back.active.component.as_str(), back.active.settings), ("balanced", Some(settings)));
    running.stop().await;
}

#[tokio::test]
async fn a_policy_in_use_is_not_deleted_and_a_name_keeps_its_kind() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    running.admin.apply(OFFICE, false).await.unwrap();
    running.admin.set_policy_on_failure(&balanced(), OnFailure::Fallback(packed())).await.unwrap();
    for (name, user) in [(balanced(), "bundle/office"), (packed(), "policy/balanced")] {
        let refused = problem(running.admin.delete_policy(&name).await);
        assert_eq!(
            refused.message,
            format!("policy {name} is used by {user}: let them use another one first")
        );
    }
    let author = trusted(&running.admin).await;
    let refused = problem(
        running.admin.put_policy(&"waves".parse().unwrap(), &author.signed(&component("packed"))).await,
    );
    assert_eq!(refused.code, ProblemCode::Conflict, "{refused:?}");

    let held = files(&running.state);
    let spare = "spare".parse().unwrap();
    running.admin.put_policy(&spare, &author.signed(&component("packed"))).await.unwrap();
    assert_eq!(files(&running.state), held, "the same component is there once");
    running.admin.delete_policy(&spare).await.unwrap();
    assert_eq!(files(&running.state), held, "another policy still needs it");
    assert_eq!(problem(running.admin.delete_policy(&spare).await).code, ProblemCode::NotFound);
    running.stop().await;
}
