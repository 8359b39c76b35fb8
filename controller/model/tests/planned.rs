//! Wishes, moves, rollouts and schedules as pure functions.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{HostStatus, InstanceState, InstanceStatus};
use controller_api::host::HostService;
use controller_api::life::Power;
use controller_api::planned::OrderStatus;
use controller_model::placement::{self, Census, HostState, Observed, moves};
use controller_model::standing::{Condition, Sight};
use controller_model::{Cluster, Draft, checkpoint, host, record, update};
use std::collections::BTreeSet;
use support::{OFFICE, SITE, add_host, issues, office, put_version, with_site};
use types::{HostName, InstanceId};

fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

fn named(name: &str) -> HostName {
    name.parse().unwrap()
}

fn online() -> BTreeSet<HostName> {
    [named("h1"), named("h2")].into()
}

fn question(cluster: &Cluster, instance: &str) -> placement::Question {
    let census = Census::new(cluster, &Observed::new(), &online());
    placement::question(cluster, &census, &id(instance)).unwrap()
}

fn change_host(draft: &mut Draft, name: &str, change: impl FnOnce(&mut record::Host)) {
    let mut host = draft.cluster.hosts[&named(name)].value.clone();
    change(&mut host);
    draft.put(format!("hosts/{name}"), &host);
}

#[test]
fn a_host_out_of_service_is_forbidden_and_says_what_ends_that() {
    for (service, word, state) in [
        (HostService::Cordoned, "is cordoned", HostState::Cordoned),
        (HostService::Draining, "is draining", HostState::Draining),
        (HostService::Maintenance, "is in maintenance", HostState::Maintenance),
    ] {
        let mut draft = Draft::new(office());
        change_host(&mut draft, "h2", |host| host.service = service);
        let question = question(&draft.cluster, "office/gateway");
        assert_eq!(question.candidates[1].state, state);
        let why = placement::forbidden(&question, &named("h2")).unwrap();
        assert!(why.contains(word) && why.contains("host uncordon h2"), "{why}");
        assert_eq!(placement::forbidden(&question, &named("h1")), None);
        // Out of reach is that before all else.
        let census = Census::new(&draft.cluster, &Observed::new(), &BTreeSet::new());
        assert_eq!(census.state(&named("h2")), Some(HostState::Unreachable));
    }
}

#[test]
fn an_attested_host_is_a_hard_limit_where_the_member_wishes_it() {
    let wishing = OFFICE.replace(
        "      ports: {eth0: inside}\n",
        "      ports: {eth0: inside}\n      placement: {attested: true}\n",
    );
    let mut draft = support::apply(&with_site(), &wishing).unwrap().draft;
    add_host(&mut draft, "h1", "10.99.0.1");
    add_host(&mut draft, "h2", "10.99.0.2");
    change_host(&mut draft, "h2", |held| {
        *held = host::attest(held, "looked at", "token:t1".into(), 5).unwrap();
    });
    let workspace = question(&draft.cluster, "office/workspace");
    assert!(placement::forbidden(&workspace, &named("h1")).unwrap().contains("nobody vouches for h1"));
    assert_eq!(placement::forbidden(&workspace, &named("h2")), None);
    assert_eq!(placement::forbidden(&question(&draft.cluster, "office/gateway"), &named("h1")), None);
    // It fits in fewer places: it is placed first.
    assert_eq!(placement::unplaced(&draft.cluster)[0], id("office/workspace"));
}

#[test]
fn being_apart_holds_both_ways_and_counts_only_those_who_are_wished_away() {
    let wishing = OFFICE.replace(
        "      ports: {eth0: inside}\n",
        "      ports: {eth0: inside}\n      placement: {apart_from: [gateway]}\n",
    );
    let mut draft = support::apply(&with_site(), &wishing).unwrap().draft;
    add_host(&mut draft, "h1", "10.99.0.1");
    let placed = record::Placement { host: named("h1"), decision: 1 };
    draft.put("placements/office/workspace", &placed);
    let gateway = question(&draft.cluster, "office/gateway");
    assert!(gateway.wishes.apart_from.contains(&"workspace".parse().unwrap()));
    assert_eq!((gateway.candidates[0].peers, gateway.candidates[0].rivals), (1, 1));
    let plain = question(&office(), "office/gateway");
    assert_eq!((plain.candidates[1].peers, plain.candidates[1].rivals), (1, 0));
}

#[test]
fn of_a_placed_instance_what_it_takes_counts_as_free_there() {
    let cluster = office();
    let asked = question(&cluster, "office/gateway");
    assert_eq!(asked.current, Some(named("h1")));
    let (h1, h2) = (&asked.candidates[0], &asked.candidates[1]);
    assert_eq!((h1.memory_free, h1.instances), (1 << 30, 0));
    assert_eq!((h2.memory_free, h2.instances), ((1 << 30) - (192 << 20), 1));
}

#[test]
fn wishes_that_cannot_be_are_refused_with_line_and_field() {
    let wrong = [
        (
            "placement: {apart_from: [nobody]}",
            "spec.members.workspace.placement.apart_from",
            "no member nobody",
        ),
        (
            "placement: {apart_from: [workspace]}",
            "spec.members.workspace.placement.apart_from",
            "from itself",
        ),
        (
            "placement: {labels: {Disk: x}}",
            "spec.members.workspace.placement.labels.Disk",
            "cannot be a label",
        ),
        (
            "placement: {labels: {disk: 'a b'}}",
            "spec.members.workspace.placement.labels.disk",
            "label's value",
        ),
        (
            "placement: {attributes: {collective/site: x}}",
            "spec.members.workspace.placement.attributes",
            "controller's",
        ),
        (
            "placement: {attributes: {plain: x}}",
            "spec.members.workspace.placement.attributes.plain",
            "vendor/key",
        ),
        ("placement: {apartFrom: [gateway]}", "spec.members.workspace.placement.apartFrom", "apart_from"),
    ];
    for (wish, field, message) in wrong {
        let with = format!("      ports: {{eth0: inside}}\n      {wish}\n");
        let text = OFFICE.replace("      ports: {eth0: inside}\n", &with);
        let found = issues(&with_site(), &text);
        assert!(
            found[0].field.starts_with(field) && found[0].message.contains(message),
            "{wish}: {found:#?}"
        );
        assert!(found[0].line > 18, "{wish}: {found:#?}");
    }
    let elsewhere = OFFICE.replace(
        "      ports: {eth0: inside}\n",
        "      ports: {eth0: inside}\n      placement: {site: oslo}\n",
    );
    let found = issues(&with_site(), &elsewhere);
    assert!(found[0].message.contains("wishes site oslo, and the deployment is at main"), "{found:#?}");
    let policy = OFFICE.replace("{placement: balanced}", "{placement: balanced, update: packed}");
    let found = issues(&with_site(), &policy);
    assert_eq!(found[0].field, "spec.policies.update");
    assert!(found[0].message.contains("a policy of placement, not of update"), "{found:#?}");
    assert!(!SITE.is_empty());
}

#[test]
fn a_volume_goes_along_what_is_off_is_bound_and_a_scene_remembers_what_was_taken() {
    let mut draft = Draft::new(office());
    let volume = record::Volume {
        size: types::ByteSize(1 << 20),
        host: Some(named("h2")),
        incarnation: String::new(),
        layers: Vec::new(),
    };
    draft.put("volumes/office/workspace/home", &volume);
    assert_eq!(moves::bound(&draft.cluster, &id("office/workspace")), None);
    let held = draft.cluster.instances[&id("office/workspace")].value.clone();
    draft.put("instances/office/workspace", &record::Instance { power: Power::Off, ..held });
    let mut scene = moves::Scene::new(draft.cluster, &Observed::new(), &online());
    assert!(moves::bound(&scene.cluster, &id("office/workspace")).unwrap().contains("switched off"));
    assert_eq!(moves::movable(&scene), [id("office/gateway")]);
    assert_eq!(moves::evacuees(&scene.cluster, &named("h1")), [id("office/gateway")]);
    scene.take(&id("office/gateway"), &named("h2"));
    assert_eq!(moves::evacuees(&scene.cluster, &named("h1")), []);
    assert_eq!(scene.census, Census::new(&scene.cluster, &Observed::new(), &online()));
}

/// What hosts say when everything on them is in one state.
fn observed(cluster: &Cluster, state: InstanceState, ready_ms: Option<u64>) -> Observed {
    let mut observed = Observed::new();
    for (id, placement) in &cluster.placements {
        let status: &mut HostStatus = observed.entry(placement.host.clone()).or_default();
        status.instances.push(InstanceStatus {
            id: id.clone(),
            incarnation: cluster.instances[id].incarnation.clone(),
            state,
            reason: None,
            started_ms: Some(1_000),
            ready_ms,
            starts: 1,
            dirty_bytes: 0,
            health: None,
        });
    }
    observed
}

fn install(draft: &mut Draft, policy: &str) {
    let mut installed = draft.cluster.policies.values().next().unwrap().value.clone();
    installed.kind = match policy {
        "waves" => controller_api::policy::PolicyKind::Update,
        _ => controller_api::policy::PolicyKind::Checkpoint,
    };
    draft.put(format!("policies/{policy}"), &installed);
}

#[test]
fn a_moved_channel_is_a_rollout_until_all_run_its_version() {
    let mut draft = Draft::new(office());
    let (all, nothing) = (online(), Observed::new());
    let sight = |now_ms| Sight { observed: &nothing, online: &all, now_ms };
    put_version(&mut draft, "acme/gateway", "1.1.0", &["wan", "lan"], &[]);
    assert_eq!(update::questions(&draft.cluster, sight(10)), [], "waves is not installed");
    install(&mut draft, "waves");
    let [asked] = update::questions(&draft.cluster, sight(10)).try_into().unwrap();
    assert_eq!((asked.id.as_str(), asked.due), ("acme/gateway/stable/1.1.0/waves", true));
    assert_eq!((asked.unavailable_max, asked.instances.len(), asked.started_ms), (1, 1, 10));
    assert_eq!(asked.instances[0].condition, Condition::Starting);

    let roll = |rolls| update::Answer {
        step: "proceed".into(),
        reasons: vec![],
        rolls,
        next_call_ms: 60_000,
        state: types::Base64(vec![7]),
    };
    let ordered = update::answered(&asked, roll(vec![(id("office/gateway"), 5_000, false)]), Some(3), 10);
    assert_eq!((ordered.orders.len(), ordered.next_call_ms, ordered.started_ms), (1, 60_010, 10));
    draft.put(format!("rollouts/{}", asked.id), &ordered);
    let [again] = update::questions(&draft.cluster, sight(20)).try_into().unwrap();
    assert!(!again.due && again.state.0 == [7] && again.started_ms == 10);
    // The same roll once more is no second order.
    let twice = update::answered(&again, roll(vec![(id("office/gateway"), 5_000, false)]), Some(3), 20);
    assert_eq!(twice.orders, ordered.orders);
    assert!(update::questions(&draft.cluster, sight(60_010))[0].due);

    // Somebody else makes the guest anew: the order ends when it has been healthy for as long as was asked.
    let mut gateway = draft.cluster.instances[&id("office/gateway")].value.clone();
    gateway.version = "1.1.0".parse().unwrap();
    draft.put("instances/office/gateway", &gateway);
    let serving = observed(&draft.cluster, InstanceState::Ready, Some(1_000));
    let seen = |now_ms| Sight { observed: &serving, online: &all, now_ms };
    let mut status = |now_ms| {
        let bounds = update::Bounds::default();
        let settled = update::settle(&draft.cluster, seen(now_ms), bounds, &mut support::counting());
        draft = settled.draft;
        update::questions(&draft.cluster, seen(now_ms))[0].orders[0].status
    };
    assert_eq!(status(1_000), OrderStatus::Proving);
    assert_eq!(status(5_999), OrderStatus::Proving);
    assert_eq!(status(6_000), OrderStatus::Succeeded);
    assert!(update::questions(&draft.cluster, seen(6_000))[0].due);

    let [last] = update::questions(&draft.cluster, seen(6_000)).try_into().unwrap();
    let done = update::Answer { step: "complete".into(), next_call_ms: 0, ..roll(vec![]) };
    draft.put(format!("rollouts/{}", last.id), &update::answered(&last, done, None, 6_000));
    assert_eq!(update::questions(&draft.cluster, seen(7_000)), []);
    assert_eq!(update::ended(&draft.cluster, &[], 7_000), []);
}

#[test]
fn a_version_after_it_supersedes_a_rollout_and_a_halt_asks_nobody() {
    let mut draft = Draft::new(office());
    install(&mut draft, "waves");
    put_version(&mut draft, "acme/gateway", "1.1.0", &["wan", "lan"], &[]);
    let (all, nothing) = (online(), Observed::new());
    let sight = Sight { observed: &nothing, online: &all, now_ms: 10 };
    let [asked] = update::questions(&draft.cluster, sight).try_into().unwrap();
    let answer = update::Answer {
        step: "halt".into(),
        reasons: vec!["too-many-failed: 2 of 3".into()],
        rolls: vec![(id("office/gateway"), 0, true)],
        next_call_ms: 1,
        state: types::Base64::default(),
    };
    draft.put(format!("rollouts/{}", asked.id), &update::answered(&asked, answer, None, 10));
    let later = Sight { now_ms: 1 << 40, ..sight };
    assert!(!update::questions(&draft.cluster, later)[0].due);
    put_version(&mut draft, "acme/gateway", "1.2.0", &["wan", "lan"], &[]);
    let present = update::questions(&draft.cluster, sight);
    assert_eq!(present[0].target.as_str(), "1.2.0");
    let [(old, held)] = update::ended(&draft.cluster, &present, 20).try_into().unwrap();
    let held = held.unwrap();
    assert_eq!((old, held.step.as_str()), (asked.id, update::SUPERSEDED));
    assert_eq!(held.orders[0].status, OrderStatus::Dropped);
}

#[test]
fn checkpoints_are_looked_after_from_when_the_first_guest_serves() {
    let mut draft = Draft::new(office());
    install(&mut draft, "gfs");
    let (all, nothing) = (online(), Observed::new());
    let early = Sight { observed: &nothing, online: &all, now_ms: 10 };
    assert_eq!(checkpoint::questions(&draft.cluster, early), []);
    let serving = observed(&draft.cluster, InstanceState::Ready, Some(2_000));
    let sight = |now_ms| Sight { observed: &serving, online: &all, now_ms };
    let [asked] = checkpoint::questions(&draft.cluster, sight(5_000)).try_into().unwrap();
    assert_eq!((asked.policy.as_str(), asked.created_ms, asked.instances.len()), ("gfs", 1_000, 2));
    let take = |ordered_ms| {
        Some(controller_api::planned::TakeOrder {
            ordered_ms,
            with_memory: false,
            pause_max_ms: 500,
            reasons: vec![],
        })
    };
    let answer = |take| checkpoint::Answer {
        take,
        discards: BTreeSet::new(),
        next_call_ms: 60_000,
        state: types::Base64(vec![1]),
        problem: None,
    };
    draft.put("schedules/office", &checkpoint::answered(&asked, answer(take(5_000)), None, 5_000));
    assert_eq!(checkpoint::questions(&draft.cluster, sight(6_000)), []);
    // What was ordered stays as it was until somebody took one.
    let [again] = checkpoint::questions(&draft.cluster, sight(65_000)).try_into().unwrap();
    let held = checkpoint::answered(&again, answer(take(65_000)), None, 65_000);
    assert_eq!(held.take.unwrap().ordered_ms, 5_000);
    let taken = record::Checkpoint {
        taken_ms: 70_000,
        size_bytes: 9,
        with_memory: false,
        cause: record::CheckpointCause::Policy,
        pinned: false,
        verified: record::Verified::Untried,
        ..record::Checkpoint::default()
    };
    draft.put("checkpoints/office/c1", &taken);
    let [last] = checkpoint::questions(&draft.cluster, sight(71_000)).try_into().unwrap();
    assert_eq!((last.take, last.checkpoints.len(), last.instances[0].checkpointed_ms), (None, 1, 70_000));
    draft.delete("deployments/office");
    assert_eq!(checkpoint::ended(&draft.cluster), ["office".parse().unwrap()]);
}
