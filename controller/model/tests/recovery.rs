//! Lost hosts, with documents that were really applied.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::recovery::RecoverySpec;
use controller_model::{Cluster, Draft, name, record, recovery};
use serde_json::json;
use support::counting;
use types::{Digest, HostName, InstanceId};

fn lost() -> HostName {
    "h2".parse().unwrap()
}

fn workspace() -> InstanceId {
    "office/workspace".parse().unwrap()
}

fn checkpointed() -> Digest {
    name::digest(b"checkpointed")
}

/// The office, leased; its workspace with the volume `home` is on h2, and a checkpoint has both.
fn office() -> Cluster {
    let mut draft = Draft::new(support::office());
    let mut deployment = draft.cluster.deployments[&workspace().deployment].value.clone();
    deployment.recovery = Some(RecoverySpec::RESTART);
    draft.put("deployments/office", &deployment);
    for key in draft.cluster.volumes.keys().cloned().collect::<Vec<_>>() {
        let volume = record::Volume { host: Some(lost()), ..draft.cluster.volumes[&key].value.clone() };
        draft.put(record::volume_key(&key.0, &key.1), &volume);
    }
    let instance = draft.cluster.instances[&workspace()].value.clone();
    let disk = |disk: &str| {
        json!({"disk": disk, "layers": [{"checkpoint": "c", "instance": workspace(), "disk": disk,
            "format": "qcow2", "file_bytes": 512, "disk_bytes": 512, "image": checkpointed()}]})
    };
    let part = json!({
        "incarnation": instance.incarnation, "host": "h2", "appliance": instance.appliance,
        "version": instance.version, "image": instance.image, "image_size_bytes": instance.image_size_bytes,
        "vcpus": instance.vcpus, "memory": instance.memory, "ports": instance.ports,
        "volumes": instance.volumes, "ran": true, "with_memory": false, "state": "published",
        "disks": [disk("system"), disk("volume/home")],
    });
    let checkpoint = json!({"taken_ms": 7, "size_bytes": 1, "with_memory": false, "cause": "person", "id": "c",
        "phase": "complete", "parts": {"workspace": part}});
    draft.put("checkpoints/office/nightly", &checkpoint);
    draft.cluster
}

#[test]
fn what_another_host_holds_of_a_checkpoint_is_gone_on_from() {
    let before = office();
    let reach = |digest: &Digest| *digest == checkpointed();
    let settled = recovery::settle(&before, &[lost()].into(), &reach, &mut counting());
    assert!(settled.held.is_empty(), "{:?}", settled.held);
    let after = &settled.draft.cluster;
    assert!(!after.placements.contains_key(&workspace()));
    let again = &after.instances[&workspace()];
    assert_ne!(again.incarnation, before.instances[&workspace()].incarnation);
    assert_eq!((again.layers.len(), again.memory_from.clone()), (1, None));
    let (_, volume) = after.volumes.iter().find(|((id, _), _)| *id == workspace()).unwrap();
    assert_eq!((volume.host.clone(), volume.layers.len()), (None, 1));
    let gateway = "office/gateway".parse().unwrap();
    assert_eq!(after.instances[&gateway].value, before.instances[&gateway].value, "it is on another host");
    let (_, _, message) =
        settled.events.iter().find(|(object, ..)| object == "instance/office/workspace").unwrap();
    assert!(message.contains("nightly"), "{message}");
}

#[test]
fn a_checkpoint_that_only_the_lost_host_holds_is_none_to_go_on_from() {
    let before = office();
    let settled = recovery::settle(&before, &[lost()].into(), &|_| false, &mut counting());
    assert_eq!(settled.held.keys().collect::<Vec<_>>(), [&workspace()]);
    assert!(settled.draft.writes.is_empty() && settled.events.is_empty());
}

#[test]
fn a_removed_host_s_instances_are_restored_if_that_was_asked() {
    let mut draft = Draft::new(office());
    let mut deployment = draft.cluster.deployments[&workspace().deployment].value.clone();
    deployment.recovery = None;
    draft.put("deployments/office", &deployment);
    let reach = |digest: &Digest| *digest == checkpointed();
    let removed =
        |restore| recovery::remove_host(&draft.cluster, &lost(), restore, &reach, &mut counting()).unwrap().1;
    let restored = removed(true);
    assert_eq!((restored.restored[0].checkpoint.as_str(), restored.lost_volumes.len()), ("nightly", 0));
    let afresh = removed(false);
    assert_eq!(
        (afresh.afresh, afresh.lost_volumes),
        (vec![workspace()], vec!["office/workspace/home".to_owned()])
    );
}

#[test]
fn the_router_of_a_network_leaves_a_lost_host_that_has_others_beside_it() {
    let mut draft = Draft::new(office());
    // Both members stay: the workspace's host, which is lost, has a port on the gateway's network.
    let routers = |cluster: &Cluster| {
        let online = [lost(), "h1".parse().unwrap()].into();
        let documents = controller_model::desired::desired(cluster, &online);
        let of = |host: &str| {
            let networks = &documents[&host.parse::<HostName>().unwrap()].networks;
            networks.iter().filter_map(|network| network.router.as_ref()).filter(|r| !r.elsewhere).count()
        };
        (of("h1"), of("h2"))
    };
    let mut bundle = draft.cluster.bundles.values().next().unwrap().value.clone();
    let name = draft.cluster.bundles.keys().next().unwrap().clone();
    for network in bundle.networks.values_mut().filter(|network| network.subnet.is_some()) {
        network.services.dhcp = true;
    }
    draft.put(format!("bundles/{name}"), &bundle);
    let (h1, h2) = routers(&draft.cluster);
    assert!(h1 + h2 > 0, "a network that both are on has a router");
    draft.put("leases/h1", &record::HostLease { lost: true, ..record::HostLease::default() });
    assert_eq!(routers(&draft.cluster), (0, h1 + h2), "the first of them is lost");
    draft.put("leases/h2", &record::HostLease { lost: true, ..record::HostLease::default() });
    assert_eq!(routers(&draft.cluster), (h1, h2), "there is no better one");
}
