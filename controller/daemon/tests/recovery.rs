//! Leases, lost hosts and hosts removed by force: real TLS, real store, real policies; agents that only speak, and beat
//! as ours do.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{HostDesired, HostStatus, ToAgent, ToController};
use controller_api::rest::{JoinTokenRequest, ProblemCode};
use std::path::Path;
use std::time::Duration;
use support::{Member, Running, furnish, real_policies, start, status};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use types::{Generation, HostName, InstanceId, Revision};

/// Longest time anything in here may take.
const DEADLINE: Duration = Duration::from_secs(40);
const LEASE: Duration = Duration::from_secs(5);
const BEAT: Duration = Duration::from_millis(250);

/// One member without volumes; `RECOVERY` is put in.
const LONE: &str = "
apiVersion: collective/v1
kind: Bundle
metadata: {name: lone}
spec:
  networks: {a: {subnet: 10.71.0.0/24}, b: {subnet: 10.72.0.0/24}}
  members: {gw: {appliance: acme/gateway, ports: {wan: a, lan: b}}}
---
apiVersion: collective/v1
kind: Deployment
metadata: {name: NAME}
spec: {bundle: lone, recovery: RECOVERY}
";

fn lone(name: &str, recovery: &str) -> String {
    LONE.replace("NAME", name).replace("RECOVERY", recovery)
}

fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

/// What an agent has been told.
#[derive(Debug, Clone, Default)]
struct Told {
    desired: HostDesired,
    /// Answers since the last document.
    heard: u32,
    lease_ms: u64,
}

impl Told {
    fn names(&self, instance: &InstanceId) -> Option<&str> {
        let named = self.desired.instances.iter().find(|named| named.id == *instance)?;
        Some(&named.incarnation)
    }
}

/// A host that says four times a second that it lives and has taken everything up.
struct Beating {
    name: HostName,
    told: watch::Receiver<Told>,
    task: tokio::task::JoinHandle<()>,
}

impl Beating {
    async fn start(name: &str, member: &Member, underlay: &str) -> Self {
        let mut agent = member.agent(underlay).await;
        let (sender, told) = watch::channel(Told::default());
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(BEAT);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut beat = 0;
            loop {
                tokio::select! {
                    message = agent.message() => sender.send_modify(|told| match message {
                        ToAgent::Desired(document) => *told = Told { desired: *document, ..Told::default() },
                        ToAgent::Heard { beat: heard, lease_ms } => {
                            assert!(heard > 0 && heard <= beat);
                            (told.heard, told.lease_ms) = (told.heard + 1, lease_ms);
                        }
                        _ => {}
                    }),
                    _ = tick.tick() => {
                        beat += 1;
                        let generation = sender.borrow().desired.generation;
                        let said = HostStatus { beat, generation, ..status() };
                        agent.say(&ToController::Status(Box::new(said))).await;
                    }
                }
            }
        });
        Self { name: name.parse().unwrap(), told, task }
    }

    async fn until(&mut self, what: &str, fits: impl Fn(&Told) -> bool) -> Told {
        let told = tokio::time::timeout(DEADLINE, self.told.wait_for(fits)).await;
        told.unwrap_or_else(|_| panic!("host was not told {what}")).unwrap().clone()
    }

    /// The machine's power fails: nothing is said any more, not even goodbye.
    fn dies(&self) {
        self.task.abort();
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn cluster(state: &Path) -> (Running, [Member; 2]) {
    let running = start(state, real_policies()).await;
    furnish(&running).await;
    let members = [running.join("h1", "host").await, running.join("h2", "host").await];
    (running, members)
}

async fn two(members: &[Member; 2]) -> [Beating; 2] {
    [
        Beating::start("h1", &members[0], "10.99.0.1").await,
        Beating::start("h2", &members[1], "10.99.0.2").await,
    ]
}

/// Which of the two has the instance, and its incarnation there.
async fn holder(running: &Running, hosts: &mut [Beating; 2], instance: &InstanceId) -> (usize, String) {
    let end = Instant::now() + DEADLINE;
    let mut changes = running.admin.watch(None).await.unwrap();
    let host = loop {
        if let Some(host) = running.admin.instance(instance).await.unwrap().host {
            break host;
        }
        let left = end.saturating_duration_since(Instant::now());
        tokio::time::timeout(left, changes.next()).await.expect("it is placed").unwrap();
    };
    let index = usize::from(host == hosts[1].name);
    let told = hosts[index].until("the instance and a lease", |told| told.names(instance).is_some()).await;
    (index, told.names(instance).unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_instance_of_a_host_that_is_silent_starts_elsewhere_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let (running, members) = cluster(folder.path()).await;
    let mut hosts = two(&members).await;
    running.admin.apply(lone("service", "restart"), false).await.unwrap();
    let service = id("service/gw");
    let (here, first) = holder(&running, &mut hosts, &service).await;
    let there = 1 - here;
    let told = hosts[here].until("a lease", |told| told.heard > 2).await;
    assert_eq!((told.lease_ms, told.desired.lease_ms), (5_000, Some(5_000)));
    assert!(told.desired.instances[0].leased);

    // Beside it one that is to stay, on the same host.
    let stays = id("stays/gw");
    running.admin.set_service(&hosts[there].name, controller_api::host::HostService::Cordoned).await.unwrap();
    running.admin.apply(lone("stays", "never"), false).await.unwrap();
    let told = hosts[here].until("the other one", |told| told.names(&stays).is_some()).await;
    assert_eq!(told.desired.instances.iter().filter(|named| named.leased).count(), 1);
    running
        .admin
        .set_service(&hosts[there].name, controller_api::host::HostService::InService)
        .await
        .unwrap();
    hosts[here].until("a lease with both", |told| told.names(&stays).is_some() && told.heard > 1).await;

    hosts[here].dies();
    let died = Instant::now();
    let told = hosts[there].until("to start it", |told| told.names(&service).is_some()).await;
    let (second, after) = (told.names(&service).unwrap().to_owned(), died.elapsed());
    assert_ne!(first, second, "another guest");
    assert!(after > LEASE, "not before the lease was surely over: {after:?}");
    assert!(after < LEASE + Duration::from_secs(8), "{after:?}");
    println!("from the last beat to the document of the other host: {after:?}");
    assert!(told.names(&stays).is_none());
    let view = running.admin.instance(&stays).await.unwrap();
    assert_eq!(view.host, Some(hosts[here].name.clone()));
    let mut events = running.admin.events(Revision(0), false).await.unwrap();
    let mut said = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        said.push(event.reason);
    }
    for reason in ["host-lost", "instance-recovered"] {
        assert!(said.iter().any(|other| other == reason), "{reason}: {said:?}");
    }

    // It is back: its document names the instance no more, before it is granted anything.
    let name = hosts[here].name.to_string();
    let mut back = Beating::start(&name, &members[here], "10.99.0.9").await;
    let told = back.until("its document", |told| told.desired.generation > Generation(0)).await;
    assert!(told.names(&service).is_none() && told.names(&stays).is_some(), "{:?}", told.desired.instances);
    hosts[there].until("a lease", |told| told.names(&service) == Some(&second) && told.heard > 1).await;
    drop((hosts, back));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_was_away_waits_the_lease_before_it_starts_anything_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (running, members) = cluster(folder.path()).await;
    let mut hosts = two(&members).await;
    running.admin.apply(lone("service", "restart"), false).await.unwrap();
    let service = id("service/gw");
    let (here, first) = holder(&running, &mut hosts, &service).await;
    hosts[here].until("a lease", |told| told.heard > 0).await;
    drop(hosts);
    running.stop().await;

    let running = start(folder.path(), real_policies()).await;
    let began = Instant::now();
    let there = 1 - here;
    let name = ["h1", "h2"][there];
    let member = Member { identity: members[there].identity.clone(), address: running.address };
    let mut other = Beating::start(name, &member, "10.99.0.2").await;
    let told = other.until("to start it", |told| told.names(&service).is_some()).await;
    assert_ne!(told.names(&service), Some(first.as_str()));
    let waited = began.elapsed();
    assert!(waited > LEASE, "the host may have been heard just before the controller ended: {waited:?}");
    drop(other);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_removed_by_force_is_refused_and_what_it_held_goes_on_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (running, members) = cluster(folder.path()).await;
    let mut hosts = two(&members).await;
    running.admin.apply(lone("service", "restart"), false).await.unwrap();
    let service = id("service/gw");
    let (here, _) = holder(&running, &mut hosts, &service).await;
    let there = 1 - here;
    hosts[here].until("a lease", |told| told.heard > 1).await;
    running.admin.set_service(&hosts[there].name, controller_api::host::HostService::Cordoned).await.unwrap();
    running.admin.apply(lone("plain", "never"), false).await.unwrap();
    let plain = id("plain/gw");
    hosts[here].until("the other one", |told| told.names(&plain).is_some() && told.heard > 0).await;
    running
        .admin
        .set_service(&hosts[there].name, controller_api::host::HostService::InService)
        .await
        .unwrap();

    let name = hosts[here].name.clone();
    let refused = running.admin.delete_host(&name).await.unwrap_err();
    assert!(refused.to_string().contains("by force"), "{refused}");
    hosts[here].dies();
    let removed_at = Instant::now();
    let removed = running.admin.remove_host_by_force(&name, true).await.unwrap();
    assert_eq!((removed.recovering, removed.afresh), (vec![service.clone()], vec![plain.clone()]));

    // What had no lease goes on at once, what had one when it is surely over.
    hosts[there].until("what had no lease", |told| told.names(&plain).is_some()).await;
    let request = JoinTokenRequest { role: Some("host".into()), valid_s: None };
    let token = running.admin.join_token(&request).await.unwrap().token;
    let again = running.join_with(name.as_str(), &token).await.err();
    // A busy machine may come to this only when the lease is over: then the name is free.
    if removed_at.elapsed() < LEASE - BEAT {
        let Some(controller_client::ClientError::Refused(problem)) = &again else { panic!("{again:?}") };
        assert_eq!(problem.code, ProblemCode::Conflict, "{again:?}");
    }
    hosts[there].until("what had a lease", |told| told.names(&service).is_some()).await;
    assert!(removed_at.elapsed() > LEASE, "{:?}", removed_at.elapsed());
    assert!(members[here].dial().await.is_err(), "its certificate is refused");
    drop(hosts);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_says_what_it_could_not_start_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (running, members) = cluster(folder.path()).await;
    let mut hosts = two(&members).await;
    running.admin.apply(lone("service", "restart"), false).await.unwrap();
    holder(&running, &mut hosts, &id("service/gw")).await;
    let view = running.admin.site_readiness(&"main".parse().unwrap()).await.unwrap();
    assert_eq!((view.ready, view.hosts_online), (false, 2));
    let service = &view.deployments[0];
    assert_eq!(
        (service.missing.len(), service.missing_bytes),
        (1, 1 << 20),
        "no host has said that it holds the image"
    );
    assert!(service.leased);
    let missing = running.admin.site_readiness(&"nowhere".parse().unwrap()).await.unwrap_err();
    assert!(missing.to_string().contains("there is no site nowhere"), "{missing}");
    drop(hosts);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_cannot_be_is_refused_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _members) = cluster(folder.path()).await;
    for (recovery, says) in [
        ("always", "restart, never or"),
        ("{when: host_lost, lease: 1s}", "write 5s to 10m"),
        ("{when: host_lost, form: fresh}", "form"),
    ] {
        let refused = running.admin.apply(lone("service", recovery), false).await.unwrap_err();
        let controller_client::ClientError::Refused(problem) = &refused else { panic!("{refused}") };
        let issue = format!("{:?}", problem);
        assert!(issue.contains(says) && issue.contains("spec.recovery"), "{recovery}: {issue}");
    }
    running.stop().await;
}
