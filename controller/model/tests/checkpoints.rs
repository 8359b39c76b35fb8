//! Checkpoints as pure functions: the barrier under every order of answers, and the ways back.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod checkpoint_world;
mod support;

use checkpoint_world::{World, id, named};
use controller_api::checkpoint::CheckpointPhase as Phase;
use controller_api::life::{CaptureState, CaptureStep, Power};
use controller_api::planned::TakeOrder;
use controller_model::apply::Refusal;
use controller_model::checkpoint::{self, Order, Restore, Where};
use controller_model::record::{self, CheckpointCause, Then, Verified};
use controller_model::standing::Sight;
use controller_model::{Cluster, Draft, desired};
use proptest::prelude::*;
use std::collections::BTreeSet;
use support::{OFFICE, add_host, apply, counting, put_version};
use types::DeploymentName;

fn office() -> DeploymentName {
    "office".parse().unwrap()
}

fn message(refusal: &Refusal) -> String {
    refusal.to_string()
}

fn plain() -> Order {
    Order::new(CheckpointCause::Person, false)
}

fn restored(world: &mut World, checkpoint: &str, wish: &Restore) -> Result<(), Refusal> {
    let mut draft = Draft::new(world.cluster.clone());
    let mut fresh = || world.fresh.uuid();
    checkpoint::restore(&mut draft, &office(), checkpoint, wish, &mut fresh)?;
    world.cluster = draft.cluster;
    Ok(())
}

#[derive(Debug, Clone)]
enum Event {
    /// A host gets what it was last told.
    Deliver(usize),
    /// It does what it was told.
    Act(usize),
    /// Its status arrives.
    Report(usize),
    /// Its agent goes, or comes back.
    Flip(usize),
    /// Its agent begins anew: a hold is lost.
    Restart(usize),
    /// It cannot take.
    Break(usize),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The controller looks.
    Settle,
}

fn event() -> impl Strategy<Value = Event> {
    let host = 0..2_usize;
    prop_oneof![
        5 => host.clone().prop_map(Event::Deliver),
        5 => host.clone().prop_map(Event::Act),
        5 => host.clone().prop_map(Event::Report),
        1 => host.clone().prop_map(Event::Flip),
        1 => host.clone().prop_map(Event::Restart),
        1 => host.prop_map(Event::Break),
        2 => (1..3_000_u64).prop_map(Event::Wait),
        6 => Just(Event::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // Whatever comes in whichever order: nobody is taken before all are held, nobody is let go before all are taken
    // unless there will be no checkpoint, and no hold outlasts its bound once the controller looks.
    #[test]
    fn a_checkpoint_is_one_instant_or_none(events in prop::collection::vec(event(), 0..80)) {
        let mut world = World::office();
        let name = world.request(plain());
        for event in events {
            match event {
                Event::Deliver(host) => world.deliver(host),
                Event::Act(host) => world.act(host),
                Event::Report(host) => world.report(host),
                Event::Flip(host) => world.flip(host),
                Event::Restart(host) => world.restart(host),
                Event::Break(host) => world.break_next_take(host),
                Event::Wait(ms) => world.now_ms += ms,
                Event::Settle => {
                    world.settle();
                    let held = world.checkpoint(&name);
                    if matches!(held.phase, Phase::Holding | Phase::Taking) {
                        prop_assert!(world.now_ms < held.hold_from_ms + checkpoint::hold_max_ms(&held));
                    }
                }
            }
            let held = world.checkpoint(&name);
            prop_assert!(!held.is_restorable() || world.is_one_instant(&held), "{held:#?}");
        }
        // Whatever happened: once everybody is there and time passes, it ends, and nobody is held.
        world.calm_down();
        let held = world.checkpoint(&name);
        prop_assert!(matches!(held.phase, Phase::Complete | Phase::Failed), "{held:#?}");
        prop_assert!(held.phase == Phase::Complete || held.reason.is_some());
        prop_assert!(world.nobody_is_held());
    }
}

#[test]
fn all_hosts_go_through_hold_take_and_keep_and_the_record_says_what_was_kept() {
    let mut world = World::office();
    let name = world.request(Order { with_memory: true, ..plain() });
    assert_eq!(name, "19700101-000100");
    assert!(world.captures("h1").is_empty(), "nothing happens to guests before it has begun");
    world.settle();
    for (phase, step) in [(Phase::Holding, CaptureStep::Hold), (Phase::Taking, CaptureStep::Take)] {
        assert_eq!(world.checkpoint(&name).phase, phase);
        assert!(["h1", "h2"].iter().all(|host| world.captures(host)[0].step == step));
        world.round(0);
        world.settle();
        assert_eq!(world.checkpoint(&name).phase, phase, "one of two hosts is not all of them");
        world.now_ms += 100;
        world.round(1);
        world.settle();
    }
    let held = world.checkpoint(&name);
    assert_eq!((held.phase, held.hold_ms, held.taken_ms), (Phase::Keeping, 200, 60_200));
    assert!(held.is_restorable() && held.with_memory && held.size_bytes > 0);
    assert!(held.parts.values().all(|part| part.saved.is_some() && !part.disks.is_empty()));
    world.calm_down();
    assert_eq!(world.checkpoint(&name).phase, Phase::Complete);
    assert!(world.events.iter().any(|event| event == "checkpoint-complete"));
}

#[test]
fn a_hold_that_takes_too_long_ends_and_names_who_was_late() {
    let mut world = World::office();
    let name = world.request(plain());
    world.settle();
    world.round(0);
    world.now_ms += 5_000;
    world.settle();
    let held = world.checkpoint(&name);
    assert_eq!(held.phase, Phase::Failed);
    let why = held.reason.unwrap();
    assert!(why.starts_with("workspace on h2 were not held within 5000 ms"), "{why}");
    assert!(world.captures("h1").is_empty() && world.captures("h2").is_empty());
    // Memory takes time to save: 192 MiB are a GiB begun.
    let longer = world.request(Order { with_memory: true, ..plain() });
    world.settle();
    assert_eq!(checkpoint::hold_max_ms(&world.checkpoint(&longer)), 15_000);
}

#[test]
fn a_host_out_of_reach_is_waited_for_and_then_refused_by_name() {
    let mut world = World::office();
    world.flip(1);
    let name = world.request(plain());
    world.settle();
    let held = world.checkpoint(&name);
    assert_eq!(held.phase, Phase::Requested);
    assert_eq!(held.reason.as_deref(), Some("host h2 of office/workspace is out of reach"));
    world.now_ms += checkpoint::HOLD_REACH_MS;
    world.settle();
    assert_eq!(world.checkpoint(&name).phase, Phase::Failed);
    assert_eq!(world.checkpoint(&name).hold_from_ms, 0, "no port was held for it");
}

#[test]
fn only_one_checkpoint_of_a_deployment_is_taken_at_a_time() {
    let mut world = World::office();
    let name = world.request(plain());
    let mut draft = Draft::new(world.cluster.clone());
    let again = checkpoint::request(&mut draft, &office(), plain(), 61_000, &mut counting()).unwrap_err();
    assert!(message(&again).contains("is being taken"), "{again}");
    world.take(&name);
    let second = world.request(plain());
    assert_ne!(name, second);
    for wrong in ["", "-x", "Über", "a/b", "a b"] {
        let order = Order { name: Some(wrong.into()), ..plain() };
        world.take(&second);
        let mut draft = Draft::new(world.cluster.clone());
        let refused = checkpoint::request(&mut draft, &office(), order, 1, &mut counting()).unwrap_err();
        assert!(matches!(refused, Refusal::Unfit(_)), "{wrong}");
    }
}

#[test]
fn a_member_without_a_host_is_a_refusal() {
    let mut world = World::office();
    let mut draft = Draft::new(world.cluster.clone());
    draft.delete("placements/office/workspace");
    let refused = checkpoint::request(&mut draft, &office(), plain(), 1, &mut counting()).unwrap_err();
    assert!(message(&refused).contains("office/workspace has no host"), "{refused}");
    world.cluster = draft.cluster;
}

#[test]
fn going_back_makes_all_members_anew_upon_their_layers_and_the_documents_leave_them_there() {
    let mut world = World::office();
    let name = world.request(plain());
    world.take(&name);
    let before = world.cluster.clone();
    // The channel moved on, and so did the workspace.
    let mut draft = Draft::new(world.cluster.clone());
    put_version(&mut draft, "acme/workspace", "2.0.0", &["eth0"], &["home"]);
    let held = draft.cluster.instances[&id("office/workspace")].value.clone();
    let image = draft.cluster.versions[&("acme/workspace".parse().unwrap(), "2.0.0".parse().unwrap())].image;
    let rolled =
        record::Instance { version: "2.0.0".parse().unwrap(), image, incarnation: "new".into(), ..held };
    draft.put("instances/office/workspace", &rolled);
    world.cluster = draft.cluster;

    restored(&mut world, &name, &Restore::default()).unwrap();
    for (member, host) in [("gateway", "h1"), ("workspace", "h2")] {
        let instance = &id(&format!("office/{member}"));
        let (old, new) = (&before.instances[instance], &world.cluster.instances[instance]);
        assert_ne!(old.incarnation, new.incarnation);
        assert_eq!((&old.version, old.image, &old.ports), (&new.version, new.image, &new.ports));
        assert_eq!(new.layers.len(), 1);
        assert_eq!(world.cluster.placements[instance].host, named(host));
    }
    let home = &world.cluster.volumes[&(id("office/workspace"), "home".parse().unwrap())];
    assert!(!home.incarnation.is_empty() && home.layers.len() == 1 && home.host == Some(named("h2")));
    let documents = desired::desired(&world.cluster, &BTreeSet::new());
    let layers = &documents[&named("h2")].instances[0].layers;
    assert!(documents[&named("h2")].images.contains(&layers[0].image.unwrap()));
    // Applying the documents again changes nothing; another memory does.
    let again = apply(&world.cluster, OFFICE).unwrap();
    let changed: Vec<&String> =
        again.draft.writes.keys().filter(|key| key.starts_with("instances/")).collect();
    assert!(changed.is_empty(), "{changed:?}");
    let other =
        OFFICE.replace("      ports: {eth0: inside}\n", "      ports: {eth0: inside}\n      vcpus: 2\n");
    let other = apply(&world.cluster, &other).unwrap();
    assert!(other.draft.writes.contains_key("instances/office/workspace"));
}

#[test]
fn a_member_can_go_back_alone_and_one_that_was_not_there_is_refused() {
    let mut world = World::office();
    let name = world.request(plain());
    world.take(&name);
    let before = world.cluster.clone();
    let mut draft = Draft::new(world.cluster.clone());
    let mut fresh = || world.fresh.uuid();
    checkpoint::restore_member(&mut draft, &id("office/gateway"), &name, false, &mut fresh).unwrap();
    let incarnation = |cluster: &Cluster, member: &str| cluster.instances[&id(member)].incarnation.clone();
    assert_ne!(incarnation(&before, "office/gateway"), incarnation(&draft.cluster, "office/gateway"));
    assert_eq!(incarnation(&before, "office/workspace"), incarnation(&draft.cluster, "office/workspace"));
    let nobody = checkpoint::restore_member(&mut draft, &id("office/x"), &name, false, &mut counting());
    assert!(message(&nobody.unwrap_err()).contains("has no member x: it has gateway, workspace"));
    let unknown = checkpoint::restore_member(&mut draft, &id("office/gateway"), "x", false, &mut counting());
    assert!(message(&unknown.unwrap_err()).contains(&format!("there are {name}")));
    let memory = checkpoint::restore_member(&mut draft, &id("office/gateway"), &name, true, &mut counting());
    assert!(message(&memory.unwrap_err()).contains("holds no memory"));
}

#[test]
fn an_instance_without_a_host_gets_one_anywhere_once_its_files_are_images_and_before_only_its_own() {
    let mut world = World::office();
    let name = world.request(plain());
    world.take_without_images(&name);
    let mut lost = Draft::new(world.cluster.clone());
    lost.delete("placements/office/workspace");
    let mut draft = lost.clone();
    checkpoint::restore_member(&mut draft, &id("office/workspace"), &name, false, &mut counting()).unwrap();
    assert_eq!(draft.cluster.placements[&id("office/workspace")].host, named("h2"));
    // Its host is gone, and nobody else has the files.
    let mut draft = lost;
    draft.delete("hosts/h2");
    let gone = checkpoint::restore_member(&mut draft, &id("office/workspace"), &name, false, &mut counting());
    assert!(message(&gone.unwrap_err()).contains("only on host h2, which is gone"));
    world.calm_down();
    let mut draft = Draft::new(world.cluster.clone());
    draft.delete("placements/office/workspace");
    draft.delete("hosts/h2");
    checkpoint::restore_member(&mut draft, &id("office/workspace"), &name, false, &mut counting()).unwrap();
    assert!(!draft.cluster.placements.contains_key(&id("office/workspace")));
    assert_eq!(draft.cluster.volumes[&(id("office/workspace"), "home".parse().unwrap())].host, None);
}

#[test]
fn memory_goes_on_only_where_the_guest_finds_the_ports_it_left() {
    let mut world = World::office();
    let name = world.request(Order { with_memory: true, ..plain() });
    world.take(&name);
    let wish = Restore { with_memory: true, ..Restore::default() };
    let mut same = world.clone();
    restored(&mut same, &name, &wish).unwrap();
    assert!(same.cluster.instances.values().all(|instance| instance.memory_from.is_some()));
    // It cannot be dropped before its guests run; then they need the memory no more, and it is known to be good.
    let mut draft = Draft::new(same.cluster.clone());
    let needed = checkpoint::cancel_or_drop(&mut draft, &office(), &name).unwrap_err();
    assert!(message(&needed).contains("has not begun to run from its memory"), "{needed}");
    same.calm_down();
    assert!(same.cluster.instances.values().all(|instance| instance.memory_from.is_none()));
    assert_eq!(same.checkpoint(&name).verified, Verified::Good);

    let moved = OFFICE.replace("10.20.0.", "10.30.0.");
    assert_ne!(moved, OFFICE, "the example has another subnet");
    world.cluster = apply(&world.cluster, &moved).unwrap().draft.cluster;
    let mut draft = Draft::new(world.cluster.clone());
    for (member, host) in [("gateway", "h1"), ("workspace", "h2")] {
        let placement = record::Placement { host: named(host), decision: 1 };
        draft.put(format!("placements/office/{member}"), &placement);
    }
    world.cluster = draft.cluster;
    let other = restored(&mut world, &name, &wish).unwrap_err();
    assert!(message(&other).contains("its ports or their addresses are others"), "{other}");
    restored(&mut world, &name, &Restore::default()).unwrap();
}

#[test]
fn what_is_there_is_kept_before_a_deployment_goes_back_and_nothing_goes_back_if_it_cannot_be() {
    let mut world = World::office();
    let name = world.request(plain());
    world.take(&name);
    let then = || Then::Restore { checkpoint: name.clone(), members: BTreeSet::new(), with_memory: false };
    let order = || Order { then: then(), ..Order::new(CheckpointCause::Restore, false) };
    let before = world.cluster.instances.clone();
    let mut late = world.clone();
    late.request(order());
    late.settle();
    late.now_ms += 60_000;
    late.settle();
    assert_eq!(late.cluster.instances, before);
    assert!(late.events.iter().any(|event| event == "restore-failed"));

    let safety = world.request(order());
    // It cannot be dropped while it is wanted.
    let mut draft = Draft::new(world.cluster.clone());
    let wanted = checkpoint::cancel_or_drop(&mut draft, &office(), &name).unwrap_err();
    assert!(message(&wanted).contains("goes back to it"), "{wanted}");
    world.take(&safety);
    assert!(world.cluster.instances.iter().all(|(id, now)| now.incarnation != before[id].incarnation));
    assert!(world.events.iter().any(|event| event == "deployment-restored"));
    assert_eq!(world.checkpoint(&safety).then, Then::Nothing, "it is done once");
    // And back again.
    restored(&mut world, &safety, &Restore::default()).unwrap();
}

#[test]
fn a_new_deployment_begins_with_the_disks_and_the_old_one_stays() {
    let mut world = World::office();
    let name = world.request(plain());
    world.take(&name);
    let mut draft = Draft::new(world.cluster.clone());
    let copy: DeploymentName = "copy".parse().unwrap();
    checkpoint::restore_as_new(&mut draft, &office(), &name, &copy, &mut counting()).unwrap();
    assert!(world.cluster.instances.iter().all(|(id, old)| draft.cluster.instances[id] == *old));
    let made: Vec<_> = draft.cluster.instances_of(&copy).collect();
    assert_eq!(made.len(), 2);
    assert!(made.iter().all(|(_, instance)| instance.layers.len() == 1 && instance.memory_from.is_none()));
    let home = &draft.cluster.volumes[&(id("copy/workspace"), "home".parse().unwrap())];
    assert!(home.layers.len() == 1 && home.host.is_none());
    let twice = checkpoint::restore_as_new(&mut draft, &office(), &name, &copy, &mut counting());
    assert!(message(&twice.unwrap_err()).contains("already"));
}

#[test]
fn a_suspended_deployment_is_off_before_its_ports_pass_again_and_goes_on_elsewhere() {
    let mut world = World::office();
    let mut draft = Draft::new(world.cluster.clone());
    let name = checkpoint::suspend(&mut draft, &office(), None, world.now_ms, &mut counting()).unwrap();
    world.cluster = draft.cluster;
    world.settle();
    for host in [0, 1] {
        world.round(host);
    }
    world.settle();
    for host in [0, 1] {
        world.round(host);
    }
    world.settle();
    let held = world.checkpoint(&name);
    assert_eq!(held.phase, Phase::Taking, "its guests run still");
    assert!(world.cluster.instances.values().all(|instance| instance.power == Power::Off));
    world.calm_down();
    assert_eq!(world.checkpoint(&name).phase, Phase::Complete);
    assert_eq!(checkpoint::suspended_into(&world.cluster, &office()).unwrap().0, name);
    // A change of its bundle does not start it, and nobody drops what it is suspended into.
    let other =
        OFFICE.replace("      ports: {eth0: inside}\n", "      ports: {eth0: inside}\n      vcpus: 2\n");
    let changed = apply(&world.cluster, &other).unwrap().draft.cluster;
    assert_eq!(changed.instances[&id("office/workspace")].power, Power::Off);
    let mut draft = Draft::new(world.cluster.clone());
    let refused = checkpoint::cancel_or_drop(&mut draft, &office(), &name).unwrap_err();
    assert!(message(&refused).contains("suspended into it"), "{refused}");
    let twice = checkpoint::suspend(&mut draft, &office(), None, 1, &mut counting()).unwrap_err();
    assert!(message(&twice).contains("is off already"), "{twice}");

    add_host(&mut draft, "h3", "10.99.0.3");
    let online: BTreeSet<_> = ["h1", "h2", "h3"].map(named).into();
    let sight = Sight { observed: &world.observed, online: &online, now_ms: world.now_ms };
    let how = || (None, false);
    let mut here = draft.clone();
    checkpoint::resume(&mut here, &office(), how(), &Where::Here, sight, &mut counting()).unwrap();
    assert_eq!(here.cluster.placements[&id("office/workspace")].host, named("h2"));
    let mut there = draft.clone();
    let from =
        checkpoint::resume(&mut there, &office(), how(), &Where::Host(named("h3")), sight, &mut counting());
    assert_eq!(from.unwrap(), name);
    for instance in ["office/gateway", "office/workspace"] {
        let held = &there.cluster.instances[&id(instance)];
        assert!(held.power == Power::On && held.memory_from.is_some());
        assert_eq!(there.cluster.placements[&id(instance)].host, named("h3"));
    }
    let on =
        checkpoint::resume(&mut there, &office(), how(), &Where::Here, sight, &mut counting()).unwrap_err();
    assert!(message(&on).contains("is not suspended"), "{on}");
    // A host out of reach is not one to go on at.
    let near: BTreeSet<_> = ["h1", "h3"].map(named).into();
    let dark = Sight { online: &near, ..sight };
    let gone = checkpoint::resume(&mut draft.clone(), &office(), how(), &Where::Here, dark, &mut counting());
    assert!(message(&gone.unwrap_err()).contains("host h2 is out of reach"));
    let nowhere =
        checkpoint::resume(&mut draft, &office(), how(), &Where::Host(named("h2")), dark, &mut counting());
    assert!(nowhere.is_err());
}

#[test]
fn what_a_policy_ordered_is_taken_and_dropped_but_never_what_is_pinned() {
    let mut world = World::office();
    let old = world.request(plain());
    world.take(&old);
    let kept = world.request(Order { pinned: true, ..plain() });
    world.take(&kept);
    let mut draft = Draft::new(world.cluster.clone());
    let schedule = record::Schedule {
        policy: "gfs".parse().unwrap(),
        created_ms: 1,
        state: types::Base64::default(),
        next_call_ms: 0,
        take: Some(TakeOrder {
            ordered_ms: world.now_ms,
            with_memory: false,
            pause_max_ms: 2_000,
            reasons: vec![],
        }),
        discards: [old.clone(), kept.clone()].into(),
        problem: None,
        decision: None,
    };
    draft.put("schedules/office", &schedule);
    world.cluster = draft.cluster;
    world.settle();
    let office = office();
    let names: Vec<&str> = checkpoint::of(&world.cluster, &office).map(|(name, _)| name).collect();
    assert_eq!(names, [kept.as_str()]);
    let (name, ordered) = checkpoint::under_way(&world.cluster, &office).unwrap();
    assert_eq!((ordered.cause, ordered.pause_max_ms), (CheckpointCause::Policy, 2_000));
    let name = name.to_owned();
    // Hosts are slow: it is tried again, but not at once.
    world.settle();
    world.now_ms += 2_000;
    world.settle();
    assert!(world.checkpoint(&name).is_failed());
    world.settle();
    assert!(checkpoint::under_way(&world.cluster, &office).is_none());
    world.now_ms += 60_000;
    world.settle();
    let again = checkpoint::under_way(&world.cluster, &office).unwrap().0.to_owned();
    world.take(&again);
    world.settle();
    assert!(checkpoint::under_way(&world.cluster, &office).is_none(), "the order is carried out");
}

#[test]
fn files_are_kept_as_long_as_something_stands_on_them_and_the_newest_are_held_elsewhere() {
    let mut world = World::office();
    let first = world.request(plain());
    world.take(&first);
    let files = |world: &World, name: &str| -> BTreeSet<types::Digest> {
        world.checkpoint(name).parts.values().flat_map(record::Part::files).flatten().collect()
    };
    let of_first = files(&world, &first);
    // Each file of the newest is on exactly the other host.
    let replicas: Vec<_> =
        ["h1", "h2"].map(|host| checkpoint::replicas(&world.cluster, &named(host))).to_vec();
    assert_eq!(replicas[0].union(&replicas[1]).copied().collect::<BTreeSet<_>>(), of_first);
    assert!(replicas[0].is_disjoint(&replicas[1]));
    let documents = desired::desired(&world.cluster, &BTreeSet::new());
    assert!(replicas[1].iter().all(|image| {
        let streams = &documents[&named("h2")].streams;
        streams.iter().any(|stream| stream.image == *image && stream.pin)
    }));
    // Its guests run upon its layers: dropped, it is not shown, and its files are needed still.
    let mut draft = Draft::new(world.cluster.clone());
    for digest in &of_first {
        let image = record::Image {
            info_hash: String::new(),
            size_bytes: 512,
            source: 0,
            web_seed: None,
            layer_ms: Some(1),
        };
        draft.put(format!("images/{}", digest.hex()), &image);
    }
    let late = checkpoint::LAYER_GRACE_MS + 2;
    checkpoint::cancel_or_drop(&mut draft, &office(), &first).unwrap();
    world.cluster = draft.cluster;
    assert!(checkpoint::find(&world.cluster, &office(), &first).is_err());
    assert!(world.captures("h1").is_empty());
    assert!(checkpoint::unneeded(&world.cluster, late).is_empty());
    // Guests made anew stand on nothing of it.
    let mut draft = Draft::new(world.cluster.clone());
    for instance in ["gateway", "workspace"] {
        let held = draft.cluster.instances[&id(&format!("office/{instance}"))].value.clone();
        let anew = record::Instance { incarnation: "anew".into(), ..held };
        draft.put(format!("instances/office/{instance}"), &anew);
    }
    world.cluster = draft.cluster;
    world.settle();
    assert!(world.cluster.checkpoints.is_empty());
    assert!(
        checkpoint::unneeded(&world.cluster, 1 + checkpoint::LAYER_GRACE_MS).is_empty(),
        "a moment to say"
    );
    let gone: BTreeSet<_> = checkpoint::unneeded(&world.cluster, late).into_iter().collect();
    assert_eq!(gone, of_first);
}

#[test]
fn two_checkpoints_differ_by_the_layers_between_them() {
    let mut world = World::office();
    let first = world.request(plain());
    world.take(&first);
    world.now_ms += 1_000;
    let second = world.request(plain());
    world.take(&second);
    let diff = checkpoint::compare(&world.cluster, &office(), &first, &second).unwrap();
    assert_eq!(diff.members.len(), 2);
    let workspace = &diff.members[1];
    assert_eq!((workspace.disks.len(), workspace.remade), (2, false));
    assert!(workspace.disks.iter().all(|disk| {
        (disk.layers_added, disk.layers_gone, disk.written_bytes) == (1, 0, checkpoint_world::LAYER_BYTES)
    }));
    let back = checkpoint::compare(&world.cluster, &office(), &second, &first).unwrap();
    assert!(back.members[0].disks.iter().all(|disk| (disk.layers_added, disk.layers_gone) == (0, 1)));
    let none = checkpoint::compare(&world.cluster, &office(), &second, "x").unwrap_err();
    assert!(message(&none).contains("no checkpoint x"));
}

#[test]
fn a_kept_file_that_is_lost_is_damage_that_is_told_and_not_gone_back_to() {
    let mut world = World::office();
    let name = world.request(plain());
    world.take(&name);
    world.lose_files(1);
    world.settle();
    let held = world.checkpoint(&name);
    assert_eq!((held.verified, held.phase), (Verified::Damaged, Phase::Complete));
    let refused = restored(&mut world, &name, &Restore::default()).unwrap_err();
    assert!(message(&refused).contains("is damaged: workspace on h2"), "{refused}");
}

#[test]
fn records_of_before_hosts_took_any_are_read_and_tell_hosts_nothing() {
    let mut world = World::office();
    let old = br#"{"taken_ms":7,"size_bytes":9,"with_memory":false,"cause":"policy","pinned":true}"#;
    world.cluster.take("checkpoints/office/c1", Some(old), types::Revision(1)).unwrap();
    let held = world.checkpoint("c1");
    assert_eq!((held.phase, held.pinned, held.parts.len()), (Phase::Complete, true, 0));
    world.settle();
    assert!(world.captures("h1").is_empty());
    let refused = restored(&mut world, "c1", &Restore::default()).unwrap_err();
    assert!(message(&refused).contains("nothing to restore"), "{refused}");
}

#[test]
fn members_that_do_not_run_are_captured_off_and_have_no_memory() {
    let mut world = World::office();
    world.stop(1);
    let name = world.request(Order { with_memory: true, ..plain() });
    world.settle();
    let held = world.checkpoint(&name);
    let ran = |member: &str| {
        (held.parts[&member.parse().unwrap()].ran, held.parts[&member.parse().unwrap()].with_memory)
    };
    assert_eq!((ran("gateway"), ran("workspace")), ((true, true), (false, false)));
    assert!(!world.captures("h2")[0].with_memory);
    assert_eq!(world.captures("h2")[0].step, CaptureStep::Hold);
    assert_eq!(held.parts[&"workspace".parse().unwrap()].state, CaptureState::Waiting);
}
