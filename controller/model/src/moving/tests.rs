use super::*;
use crate::desired;
use crate::name;
use controller_api::agent::{HostFacts, InstanceStatus};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn id() -> InstanceId {
    "office/workspace".parse().unwrap()
}

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

/// One instance with a volume on h1, of three hosts.
fn world() -> Cluster {
    let mut draft = Draft::new(Cluster::default());
    for (number, name) in ["h1", "h2", "h3"].into_iter().enumerate() {
        let certificate = name::digest(name.as_bytes());
        draft.put(
            format!("hosts/{name}"),
            &record::Host::joined("main".parse().unwrap(), "host".into(), certificate, 1),
        );
        let facts = HostFacts {
            memory_total_bytes: 1 << 30,
            underlay_address: Some(format!("10.99.0.{number}").parse().unwrap()),
            move_address: Some(format!("10.99.0.{number}:4250").parse().unwrap()),
            ..HostFacts::default()
        };
        draft.put(format!("facts/{name}"), &facts);
    }
    let instance: record::Instance = serde_json::from_value(serde_json::json!({
        "incarnation": "00000000-0000-4000-8000-000000000001", "appliance": "acme/workspace", "version": "1.0.0",
        "image": name::digest(b"image"), "image_size_bytes": 1 << 20, "vcpus": 1, "memory": "192MiB",
        "ports": [{"name": "eth0", "network": "inside", "mac": "02:00:00:00:00:01", "tap": "ct0000000001",
            "addresses": ["10.1.0.2/24"], "mtu": 1450}],
        "volumes": ["home"], "shape": name::digest(b"shape"),
    }))
    .unwrap();
    draft.put(record::instance_key(&id()), &instance);
    draft.put(record::placement_key(&id()), &record::Placement { host: host("h1"), decision: 7 });
    let volume: record::Volume =
        serde_json::from_value(serde_json::json!({"size": "1GiB", "host": "h1"})).unwrap();
    draft.put(record::volume_key(&id(), &"home".parse().unwrap()), &volume);
    published(draft)
}

/// With every host's document as it follows from it.
fn published(mut draft: Draft) -> Cluster {
    for (name, document) in desired::desired(&draft.cluster, &BTreeSet::new()) {
        draft.put(format!("desired/{name}"), &document);
    }
    draft.cluster
}

fn ordered(cluster: &Cluster, to: &str) -> Result<Cluster, Refusal> {
    let mut draft = Draft::new(cluster.clone());
    let mut fresh = || "11111111-2222-4333-8444-555555555555".to_owned();
    request(&mut draft, &id(), &host(to), (MoveCause::Person, 9), 100, &mut fresh)?;
    Ok(published(draft))
}

/// A host that has taken up its document, and says this of its end.
fn says(cluster: &Cluster, name: &str, end: Option<(MoveState, Option<&str>)>, has: bool) -> HostStatus {
    let document = cluster.desired.get(&host(name)).map(|held| held.value.clone()).unwrap_or_default();
    let held = cluster.moves.get(&id());
    let status = |(state, reason): (MoveState, Option<&str>)| MoveStatus {
        id: held.map(|held| held.id.clone()).unwrap_or_default(),
        instance: id(),
        state,
        reason: reason.map(str::to_owned),
        sent_bytes: 5,
        total_bytes: 10,
        downtime_ms: 42,
    };
    let instance = InstanceStatus {
        id: id(),
        incarnation: cluster.instances[&id()].incarnation.clone(),
        state: InstanceState::Ready,
        reason: None,
        started_ms: None,
        ready_ms: None,
        starts: 1,
        dirty_bytes: 0,
        health: None,
    };
    HostStatus {
        generation: document.generation,
        moves: end.map(status).into_iter().collect(),
        instances: has.then_some(instance).into_iter().collect(),
        ..HostStatus::default()
    }
}

fn all() -> BTreeSet<HostName> {
    ["h1", "h2", "h3"].map(host).into()
}

fn settled(cluster: &Cluster, words: &[(&str, HostStatus)], online: &BTreeSet<HostName>) -> Cluster {
    let observed: Observed = words.iter().map(|(name, status)| (host(name), status.clone())).collect();
    let sight = Sight { observed: &observed, online, now_ms: 1_000 };
    published(settle(cluster, sight, UNDER_WAY_MAX).draft)
}

fn phase(cluster: &Cluster) -> MovePhase {
    cluster.moves[&id()].phase
}

fn held_port(cluster: &Cluster, name: &str) -> Option<bool> {
    let document = &cluster.desired[&host(name)].value;
    document.networks.iter().flat_map(|network| &network.ports).map(|port| port.held).next()
}

/// As far as bytes travel.
fn on_its_way() -> Cluster {
    let cluster = settled(&ordered(&world(), "h2").unwrap(), &[], &all());
    assert_eq!(phase(&cluster), MovePhase::Preparing);
    let prepared = says(&cluster, "h2", Some((MoveState::Prepared, None)), true);
    let cluster = settled(&cluster, &[("h2", prepared)], &all());
    assert_eq!(phase(&cluster), MovePhase::Moving);
    cluster
}

#[test]
fn a_guest_that_moves_takes_its_volumes_and_its_placement_along_and_both_hosts_are_told() {
    let cluster = on_its_way();
    let [source, target] = ["h1", "h2"].map(|name| cluster.desired[&host(name)].value.clone());
    assert!(matches!(source.moves[0].end, MoveEnd::Source { ref to, .. } if *to == host("h2")));
    assert!(matches!(target.moves[0].end, MoveEnd::Target { ref from } if *from == host("h1")));
    for document in [&source, &target] {
        assert_eq!((document.instances.len(), document.volumes.len(), document.images.len()), (1, 1, 1));
    }
    // In force where it runs, held where it comes to.
    assert_eq!((held_port(&cluster, "h1"), held_port(&cluster, "h2")), (Some(false), Some(true)));
    let done = says(&cluster, "h1", Some((MoveState::Done, None)), true);
    let cluster = settled(&cluster, &[("h1", done)], &all());
    assert_eq!(phase(&cluster), MovePhase::Switching);
    assert_eq!(cluster.placements[&id()].value, record::Placement { host: host("h2"), decision: 9 });
    assert_eq!(cluster.volumes.values().next().unwrap().host, Some(host("h2")));
    assert_eq!((held_port(&cluster, "h1"), held_port(&cluster, "h2")), (None, Some(false)));
    assert!(cluster.desired[&host("h1")].value.instances.is_empty());
    let words = [("h1", says(&cluster, "h1", None, false)), ("h2", says(&cluster, "h2", None, true))];
    let cluster = settled(&cluster, &words, &all());
    assert_eq!((phase(&cluster), cluster.moves[&id()].downtime_ms), (MovePhase::Done, 42));
}

#[test]
fn what_cannot_move_is_refused_with_what_to_do() {
    let cluster = world();
    assert!(
        matches!(ordered(&cluster, "h1"), Err(Refusal::Conflict(why)) if why.contains("is on h1 already"))
    );
    assert!(matches!(ordered(&cluster, "h9"), Err(Refusal::NotFound(_))));
    let moving = ordered(&cluster, "h2").unwrap();
    assert!(
        matches!(ordered(&moving, "h3"), Err(Refusal::Conflict(why)) if why.contains("on its way from h1 to h2"))
    );
    let mut draft = Draft::new(cluster.clone());
    draft.put("facts/h2".to_owned(), &HostFacts::default());
    assert!(
        matches!(ordered(&draft.cluster, "h2"), Err(Refusal::Conflict(why)) if why.contains("takes no guests"))
    );
    let mut off = cluster.instances[&id()].value.clone();
    off.power = controller_api::life::Power::Off;
    let mut draft = Draft::new(cluster);
    draft.put(record::instance_key(&id()), &off);
    assert!(
        matches!(ordered(&draft.cluster, "h2"), Err(Refusal::Conflict(why)) if why.contains("switched off"))
    );
}

#[test]
fn a_source_that_cannot_say_who_has_the_guest_is_released_only_once_its_target_is_clear() {
    let cluster = on_its_way();
    let lost = |cluster: &Cluster| says(cluster, "h1", Some((MoveState::Moving, Some("killed"))), true);
    // The target is out of reach, or has it coming in: nothing is decided.
    let alone = settled(&cluster, &[("h1", lost(&cluster))], &[host("h1")].into());
    assert_eq!(phase(&alone), MovePhase::Moving);
    let coming = says(&cluster, "h2", Some((MoveState::Moving, None)), true);
    let still = settled(&cluster, &[("h1", lost(&cluster)), ("h2", coming)], &all());
    assert_eq!(phase(&still), MovePhase::Moving);
    // It has nothing: it is cleared first.
    let nothing = says(&cluster, "h2", Some((MoveState::Prepared, None)), true);
    let cluster = settled(&cluster, &[("h1", lost(&cluster)), ("h2", nothing)], &all());
    assert_eq!(phase(&cluster), MovePhase::Returning);
    assert!(cluster.desired[&host("h2")].value.instances.is_empty());
    assert_eq!(cluster.desired[&host("h1")].value.moves.len(), 1);
    let busy = settled(&cluster, &[("h1", lost(&cluster)), ("h2", says(&cluster, "h2", None, true))], &all());
    assert_eq!(phase(&busy), MovePhase::Returning);
    let cluster = settled(&cluster, &[("h2", says(&cluster, "h2", None, false))], &all());
    assert_eq!(phase(&cluster), MovePhase::Failed);
    assert!(cluster.desired[&host("h1")].value.moves.is_empty());
    assert_eq!(cluster.placements[&id()].host, host("h1"));
}

#[test]
fn a_move_whose_source_is_out_of_reach_ends_once_nothing_of_it_is_at_its_target() {
    let cluster = on_its_way();
    let only = [host("h2")].into();
    let coming = says(&cluster, "h2", Some((MoveState::Moving, None)), true);
    assert_eq!(phase(&settled(&cluster, &[("h2", coming)], &only)), MovePhase::Moving);
    let nothing = says(&cluster, "h2", Some((MoveState::Prepared, None)), true);
    let cluster = settled(&cluster, &[("h2", nothing)], &only);
    assert_eq!(phase(&cluster), MovePhase::Returning);
    let cluster = settled(&cluster, &[("h2", says(&cluster, "h2", None, false))], &only);
    assert_eq!((phase(&cluster), &cluster.placements[&id()].host), (MovePhase::Failed, &host("h1")));
}

#[test]
fn a_target_that_has_the_guest_keeps_it_whatever_its_source_says() {
    for source in [Some((MoveState::Moving, Some("killed"))), Some((MoveState::Failed, Some("no"))), None] {
        let cluster = on_its_way();
        let words = [
            ("h1", says(&cluster, "h1", source, true)),
            ("h2", says(&cluster, "h2", Some((MoveState::Done, None)), true)),
        ];
        let cluster = settled(&cluster, &words, &all());
        assert_eq!((phase(&cluster), &cluster.placements[&id()].host), (MovePhase::Switching, &host("h2")));
    }
}

#[test]
fn a_move_that_is_called_off_stays_unless_it_was_too_late() {
    let mut draft = Draft::new(on_its_way());
    cancel(&mut draft, &id(), 5).unwrap();
    let cluster = published(draft);
    assert_eq!(phase(&cluster), MovePhase::Stopping);
    // Its source is told, and is not let go on by itself before it has said what it has.
    assert!(cluster.desired[&host("h1")].value.moves[0].stop);
    let called_off = Some((MoveState::Failed, Some("it was called off")));
    // What it said before it was told does not count.
    let mut old = says(&cluster, "h1", called_off, true);
    old.generation = types::Generation(0);
    assert_eq!(phase(&settled(&cluster, &[("h1", old)], &all())), MovePhase::Stopping);
    let under_way = says(&cluster, "h1", Some((MoveState::Moving, None)), true);
    assert_eq!(phase(&settled(&cluster, &[("h1", under_way)], &all())), MovePhase::Stopping);
    let stays = settled(&cluster, &[("h1", says(&cluster, "h1", called_off, true))], &all());
    assert_eq!((phase(&stays), &stays.placements[&id()].host), (MovePhase::Failed, &host("h1")));
    let late =
        settled(&cluster, &[("h1", says(&cluster, "h1", Some((MoveState::Done, None)), true))], &all());
    assert_eq!((phase(&late), &late.placements[&id()].host), (MovePhase::Switching, &host("h2")));
}

#[test]
fn one_guest_at_a_time_moves_between_two_hosts_and_a_checkpoint_goes_first() {
    let mut draft = Draft::new(ordered(&world(), "h2").unwrap());
    let other: InstanceId = "office/gateway".parse().unwrap();
    let mut instance = draft.cluster.instances[&id()].value.clone();
    instance.volumes.clear();
    instance.incarnation = "00000000-0000-4000-8000-000000000002".into();
    draft.put(record::instance_key(&other), &instance);
    draft.put(record::placement_key(&other), &record::Placement { host: host("h2"), decision: 1 });
    let mut fresh = || "21111111-2222-4333-8444-555555555555".to_owned();
    request(&mut draft, &other, &host("h1"), (MoveCause::Drain, 0), 1, &mut fresh).unwrap();
    let cluster = settled(&published(draft), &[], &all());
    let phases: BTreeMap<String, MovePhase> =
        cluster.moves.iter().map(|(id, held)| (id.to_string(), held.phase)).collect();
    assert_eq!(phases["office/gateway"], MovePhase::Preparing);
    assert_eq!(phases["office/workspace"], MovePhase::Queued);
    let why = cluster.moves[&id()].reason.clone().unwrap();
    assert!(why.contains("another guest moves"), "{why}");

    let mut draft = Draft::new(ordered(&world(), "h2").unwrap());
    let phase_of = controller_api::checkpoint::CheckpointPhase::Taking;
    let taking = record::Checkpoint { phase: phase_of, ..record::Checkpoint::default() };
    assert!(taking.is_under_way());
    draft.put(record::checkpoint_key(&id().deployment, "one"), &taking);
    let cluster = settled(&draft.cluster, &[], &all());
    assert_eq!(phase(&cluster), MovePhase::Queued);
}

#[test]
fn what_was_decided_otherwise_meanwhile_ends_a_move() {
    for change in ["incarnation", "placement", "gone"] {
        let mut draft = Draft::new(on_its_way());
        match change {
            "incarnation" => {
                let anew = record::Instance {
                    incarnation: "00000000-0000-4000-8000-00000000000f".into(),
                    ..draft.cluster.instances[&id()].value.clone()
                };
                draft.put(record::instance_key(&id()), &anew);
            }
            "placement" => {
                draft.put(record::placement_key(&id()), &record::Placement { host: host("h3"), decision: 1 })
            }
            _ => draft.delete(record::instance_key(&id())),
        }
        let cluster = settled(&draft.cluster, &[], &all());
        match change {
            "gone" => assert!(cluster.moves.is_empty()),
            _ => assert_eq!(phase(&cluster), MovePhase::Failed, "{change}"),
        }
    }
}

/// Where a guest really is, as libvirt has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    Source,
    /// Its source stands still, and its target has not got it.
    Between,
    Target,
}

proptest! {
    // Whatever is said in whatever order, by hosts that say what is true of them: the guest is removed nowhere where it
    // runs, no source goes on while its target may have it, and it ends in one place.
    #[test]
    fn no_guest_is_cleared_where_it_runs(turns in prop::collection::vec((0_u8..6, any::<bool>(), any::<bool>()), 1..40)) {
        let mut cluster = on_its_way();
        let mut guest = Guest::Source;
        let mut task = true;
        for (happens, source_speaks, target_speaks) in turns {
            let named = |name: &str| cluster.desired[&host(name)].value.moves.first().map(|m| m.end.clone());
            let source_told = matches!(named("h1"), Some(MoveEnd::Source { .. }));
            match (happens, guest) {
                // Bytes have travelled; the target is a target still.
                (0, Guest::Source) if task && source_told && named("h2").is_some() => guest = Guest::Between,
                (1, Guest::Between) if task && named("h2").is_some() => guest = Guest::Target,
                (2, Guest::Between) if task => guest = Guest::Source,
                (3, _) => task = false,
                (4, _) => {
                    let mut draft = Draft::new(cluster.clone());
                    if cancel(&mut draft, &id(), 1).is_ok() {
                        cluster = published(draft);
                    }
                }
                _ => {}
            }
            let has = |name: &str, cluster: &Cluster| !cluster.desired[&host(name)].value.instances.is_empty();
            // What is not named at a host is removed there, and a source that is released goes on.
            match guest {
                Guest::Source => prop_assert!(has("h1", &cluster)),
                Guest::Between => prop_assert!(has("h1", &cluster)),
                Guest::Target => prop_assert!(has("h2", &cluster)),
            }
            let released = cluster.desired[&host("h1")].value.moves.is_empty() && has("h1", &cluster);
            if guest == Guest::Between && released && !task {
                prop_assert!(cluster.desired[&host("h2")].value.instances.is_empty());
                guest = Guest::Source;
            }
            let end = |name: &str| !cluster.desired[&host(name)].value.moves.is_empty();
            let source = match guest {
                Guest::Source if task && end("h1") => Some((MoveState::Moving, None)),
                Guest::Source if end("h1") => Some((MoveState::Failed, Some("it was interrupted"))),
                Guest::Between if task => Some((MoveState::Moving, None)),
                Guest::Between => Some((MoveState::Moving, Some("it was interrupted"))),
                Guest::Target if task => Some((MoveState::Done, None)),
                Guest::Target => Some((MoveState::Moving, Some("it was interrupted"))),
                Guest::Source => None,
            };
            let target = match guest {
                Guest::Target if end("h2") => Some((MoveState::Done, None)),
                Guest::Between if end("h2") && task => Some((MoveState::Moving, None)),
                _ if end("h2") => Some((MoveState::Prepared, None)),
                _ => None,
            };
            let trace = end("h2") || guest == Guest::Target;
            let words = [
                ("h1", says(&cluster, "h1", source, guest != Guest::Target)),
                ("h2", says(&cluster, "h2", target, trace)),
            ];
            let online = [(source_speaks, "h1"), (target_speaks, "h2")];
            let online = online.into_iter().filter(|(speaks, _)| *speaks).map(|(_, name)| host(name)).collect();
            cluster = settled(&cluster, &words, &online);
        }
        let at = &cluster.placements[&id()].host;
        if phase(&cluster) == MovePhase::Done || phase(&cluster) == MovePhase::Switching {
            prop_assert_eq!(at, &host("h2"));
            prop_assert_eq!(guest, Guest::Target);
        } else {
            prop_assert_eq!(at, &host("h1"));
        }
    }
}
