//! Claims about streaming as the controller steers it: profiles, what is held ahead of need, limits, reports.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{DesiredStream, HostDesired, RUN_LEN_MAX, ToAgent, ToController};
use controller_api::rest::ProblemCode;
use controller_api::stream::{HoldRequest, LimitScope, StreamReport};
use std::time::Duration;
use streamer_api::{ImageSource, ImageStatus, Limits, Prefetch, Profile, ProfileEntry, Run, Stall, Touch};
use support::{
    Agent, DEADLINE, Member, OFFICE, Publisher, Running, furnish, no_policies, real_policies, start, status,
};
use types::{Digest, InstanceId};

/// The four pieces of a test image, in some order.
fn run(pieces: &[u32]) -> Run {
    let touched = (0..).zip(pieces).map(|(at, piece)| Touch { piece: *piece, at_ms: at * 100 }).collect();
    Run { reader: "office/workspace:0.1".into(), whole: true, touched, ..Run::default() }
}

async fn tell(member: &Member, image: &Digest, run: &Run) -> (u16, String) {
    member.post(&format!("/agent/v1/images/{image}/runs"), serde_json::to_vec(run).unwrap()).await
}

async fn source(member: &Member, image: &Digest) -> ImageSource {
    let (code, body) = member.get(&format!("/agent/v1/images/{image}")).await;
    assert_eq!(code, 200);
    serde_json::from_slice(&body).unwrap()
}

async fn image_of(running: &Running, appliance: &str) -> Digest {
    running.admin.appliance(&appliance.parse().unwrap()).await.unwrap().versions.last().unwrap().image
}

fn order(profile: &Profile) -> Vec<u32> {
    profile.entries.iter().map(|entry| entry.piece).collect()
}

#[tokio::test]
async fn what_guests_read_becomes_a_profile_and_hosts_that_run_the_image_are_told() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let member = running.join("h1", "host").await;
    let mut agent = member.agent("10.99.0.1").await;
    running.admin.apply(OFFICE, false).await.unwrap();
    let image = image_of(&running, "acme/workspace").await;
    let held = agent.desired(|document| document.images.contains(&image)).await;
    assert_eq!(held.streams, [], "nothing is known yet");
    assert_eq!(source(&member, &image).await.profiles, []);

    assert_eq!(tell(&member, &image, &run(&[3, 0, 1])).await, (204, String::new()));
    let told = |source| {
        move |document: &HostDesired| document.streams.iter().any(|s| s.image == image && s.source == source)
    };
    agent.desired(told(1)).await;
    let profiles = source(&member, &image).await.profiles;
    assert_eq!((profiles.len(), order(&profiles[0])), (1, vec![3, 0, 1]));
    // A second run doubles what is known; a third says nothing new.
    for _ in 0..2 {
        assert_eq!(tell(&member, &image, &run(&[3, 0, 1])).await.0, 204);
    }
    agent.desired(told(2)).await;
    assert_eq!(running.admin.profiles(&image).await.unwrap()[0].runs, 2);
    drop(agent);
    running.stop().await;

    // It is all there after a restart.
    let running = start(state.path(), no_policies()).await;
    assert_eq!(order(&running.admin.profiles(&image).await.unwrap()[0]), [3, 0, 1]);
    running.stop().await;
}

#[tokio::test]
async fn a_run_that_cannot_be_is_refused_and_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    furnish(&running).await;
    let (member, origin) = (running.join("h1", "host").await, running.join("o1", "origin").await);
    let image = image_of(&running, "acme/workspace").await;
    let path = format!("/agent/v1/images/{image}/runs");
    let (code, why) = tell(&member, &image, &run(&[0, 4])).await;
    assert!(code == 422 && why.contains("piece 4 is beyond the image's 4"), "{code} {why}");
    assert_eq!(tell(&member, &image, &run(&[])).await.0, 422);
    assert_eq!(tell(&member, &Digest::from_bytes([9; 32]), &run(&[0])).await.0, 404);
    assert_eq!(tell(&origin, &image, &run(&[0])).await.0, 403, "guests run on hosts");
    assert_eq!(member.post(&path, b"{".to_vec()).await.0, 400);
    assert_eq!(member.post(&path, vec![b' '; RUN_LEN_MAX + 1]).await.0, 413);
    assert_eq!(running.admin.profiles(&image).await.unwrap(), []);
    running.stop().await;
}

#[tokio::test]
async fn a_maker_publishes_profiles_with_a_version_and_corrects_them() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let publisher = Publisher::new();
    running.admin.put_publisher(&"acme".parse().unwrap(), &publisher.public()).await.unwrap();
    let profile = |pieces: &[u32]| {
        let entry = |piece: &u32| ProfileEntry { piece: *piece, at_ms: 0, runs: 1 };
        vec![Profile { name: "office".into(), runs: 1, entries: pieces.iter().map(entry).collect() }]
    };
    let mut version = publisher.version("workspace", "1.0.0", 2);
    version.profiles = profile(&[4]);
    let refused = running.admin.publish(&version).await.unwrap_err();
    assert!(refused.to_string().contains("piece 4 is beyond the image's 4"), "{refused}");
    version.profiles = profile(&[2, 1]);
    for url in ["ftp://images.example/x", "http://images.example/x", "https://images.example/a b"] {
        version.web_seed = Some(url.into());
        let refused = running.admin.publish(&version).await.unwrap_err();
        assert!(refused.to_string().contains("web_seed"), "{url}: {refused}");
    }
    version.web_seed = Some("https://images.example/workspace.raw".into());
    running.admin.publish(&version).await.unwrap();
    let member = running.join("h1", "host").await;
    let image = image_of(&running, "acme/workspace").await;
    let given = source(&member, &image).await;
    assert_eq!(given.web_seed, version.web_seed);
    assert_eq!(order(&given.profiles[0]), [1, 2], "of one time, so in their own order");
    // Once more without a word of them: they stay. With others: the others.
    let again = publisher.version("workspace", "1.0.0", 2);
    running.admin.publish(&again).await.unwrap();
    assert_eq!(source(&member, &image).await, given);
    version.profiles = profile(&[0]);
    running.admin.publish(&version).await.unwrap();
    assert_eq!(order(&source(&member, &image).await.profiles[0]), [0]);
    running.stop().await;
}

#[tokio::test]
async fn a_version_is_fetched_ahead_of_its_roll_out_with_its_progress() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    furnish(&running).await;
    let member = running.join("h1", "host").await;
    let mut agent = member.agent("10.99.0.1").await;
    let (appliance, version) = ("acme/workspace".parse().unwrap(), "1.0.0".parse().unwrap());
    let image = image_of(&running, "acme/workspace").await;
    let request = HoldRequest { hosts: vec!["h1".parse().unwrap()], prefetch: Prefetch::Idle, pin: false };
    let hold = running.admin.put_hold(&appliance, &version, &request).await.unwrap();
    assert_eq!((hold.hosts.len(), hold.hosts[0].bytes_local, hold.hosts[0].bytes_total), (1, 0, 1 << 20));
    let document = agent.desired(|document| !document.streams.is_empty()).await;
    assert_eq!(document.images, [image]);
    assert_eq!(document.streams, [DesiredStream { image, source: 0, prefetch: Prefetch::Idle, pin: false }]);

    let mut status = status();
    let local = ImageStatus {
        size_bytes: 1 << 20,
        piece_bytes: 256 << 10,
        pieces: 4,
        pieces_local: 2,
        pieces_zero: 1,
        ..ImageStatus::default()
    };
    status.images.insert(image.to_string(), local);
    agent.say(&ToController::Status(Box::new(status))).await;
    let end = tokio::time::Instant::now() + DEADLINE;
    while running.admin.holds().await.unwrap()[0].hosts[0].bytes_local != 768 << 10 {
        assert!(tokio::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    running.admin.delete_hold(&appliance, &version).await.unwrap();
    agent.desired(|document| document.images.is_empty() && document.streams.is_empty()).await;
    let code =
        |result: Result<_, controller_client::ClientError>| result.err().and_then(|error| error.code());
    assert_eq!(code(running.admin.delete_hold(&appliance, &version).await), Some(ProblemCode::NotFound));
    let other = "9.9.9".parse().unwrap();
    let put = |request: HoldRequest, version| {
        let (admin, appliance) = (running.admin.clone(), appliance.clone());
        async move { code(admin.put_hold(&appliance, &version, &request).await.map(drop)) }
    };
    assert_eq!(put(request.clone(), other).await, Some(ProblemCode::NotFound));
    let nobody = HoldRequest { hosts: vec!["h9".parse().unwrap()], ..request.clone() };
    assert_eq!(put(nobody, version.clone()).await, Some(ProblemCode::Invalid));
    let nothing = HoldRequest { prefetch: Prefetch::Off, ..request };
    assert_eq!(put(nothing, version.clone()).await, Some(ProblemCode::Invalid));
    drop(agent);
    running.stop().await;
}

#[tokio::test]
async fn a_sites_limit_reaches_its_hosts_in_shares_that_follow_who_is_online() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    furnish(&running).await;
    let (m1, m2) = (running.join("h1", "host").await, running.join("h2", "host").await);
    let mut a1 = m1.agent("10.99.0.1").await;
    let site = LimitScope::Site("main".parse().unwrap());
    let limits = Limits { site_download_bytes_per_s: Some(50_000_000), ..Limits::default() };
    running.admin.set_limits(&site, &limits).await.unwrap();
    let share = |bytes| {
        move |document: &HostDesired| {
            document.limits.is_some_and(|limits| limits.site_download_bytes_per_s == Some(bytes))
        }
    };
    a1.desired(share(50_000_000)).await;
    let mut a2 = m2.agent("10.99.0.2").await;
    a1.desired(share(25_000_000)).await;
    a2.desired(share(25_000_000)).await;
    drop(a2);
    a1.desired(share(50_000_000)).await;
    assert_eq!(running.admin.limits().await.unwrap().len(), 1);
    running.admin.set_limits(&site, &Limits::default()).await.unwrap();
    a1.desired(|document| document.limits.is_none()).await;
    assert_eq!(running.admin.limits().await.unwrap(), []);

    let code =
        |result: Result<_, controller_client::ClientError>| result.err().and_then(|error| error.code());
    let nowhere = LimitScope::Site("nowhere".parse().unwrap());
    assert_eq!(code(running.admin.set_limits(&nowhere, &limits).await), Some(ProblemCode::NotFound));
    let tiny = Limits { download_bytes_per_s: Some(100), ..Limits::default() };
    assert_eq!(code(running.admin.set_limits(&site, &tiny).await), Some(ProblemCode::Invalid));
    drop(a1);
    running.stop().await;
}

/// Answers the next request for a report.
async fn answer(agent: &mut Agent, report: Option<StreamReport>) -> InstanceId {
    loop {
        if let ToAgent::StreamReport { request, instance } = agent.message().await {
            let problem = report.is_none().then(|| "there is and was none".to_owned());
            agent.say(&ToController::Stream { request, report: report.map(Box::new), problem }).await;
            return instance;
        }
    }
}

#[tokio::test]
async fn why_a_boot_waited_is_asked_of_its_host_and_of_all_hosts_once_it_is_gone() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let (m1, m2) = (running.join("h1", "host").await, running.join("h2", "host").await);
    let (mut a1, mut a2) = (m1.agent("10.99.0.1").await, m2.agent("10.99.0.2").await);
    let id: InstanceId = "office/workspace".parse().unwrap();
    let stall = Stall { piece: 7, waited_ms: 80, ..Stall::default() };
    let report = |started_ms| StreamReport {
        image: Digest::from_bytes([1; 32]),
        started_ms: Some(started_ms),
        ready_ms: None,
        gone: true,
        run: None,
        stalls: vec![stall.clone()],
    };
    let ask =
        |admin: controller_client::Client, id: InstanceId| async move { admin.stream_report(&id).await };

    let connected = tokio::join!(a1.desired(|_| true), a2.desired(|_| true));
    assert_eq!((connected.0.streams, connected.1.streams), (vec![], vec![]));

    // Nobody knows it.
    let (asked, ..) =
        tokio::join!(ask(running.admin.clone(), id.clone()), answer(&mut a1, None), answer(&mut a2, None));
    assert_eq!(asked.unwrap_err().code(), Some(ProblemCode::NotFound));
    // Both remember one: the later is told.
    let (asked, ..) = tokio::join!(
        ask(running.admin.clone(), id.clone()),
        answer(&mut a1, Some(report(1))),
        answer(&mut a2, Some(report(2)))
    );
    let view = asked.unwrap();
    assert_eq!((view.host.as_str(), view.report.stalls.len()), ("h2", 1));
    // It is placed: its host alone is asked.
    running.admin.apply(OFFICE, false).await.unwrap();
    let placed = |document: &HostDesired| document.instances.iter().any(|instance| instance.id == id);
    let some = |document: &HostDesired| !document.instances.is_empty();
    let (d1, d2) = tokio::join!(a1.desired(some), a2.desired(some));
    let (host, agent) = if placed(&d1) { ("h1", &mut a1) } else { ("h2", &mut a2) };
    assert!(placed(&d1) != placed(&d2));
    let (asked, instance) =
        tokio::join!(ask(running.admin.clone(), id.clone()), answer(agent, Some(report(3))));
    assert_eq!((asked.unwrap().host.as_str(), instance), (host, id));
    drop((a1, a2));
    running.stop().await;
}
