use super::*;
use controller_api::recovery::{LeaseTerm, RecoverWhen, RecoverySpec};
use serde_json::json;

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

fn counting() -> impl FnMut() -> String {
    let mut count = 0;
    move || {
        count += 1;
        format!("new-{count}")
    }
}

/// `office/gateway` without and `office/workspace` with a volume, both on h1; h2 is empty.
fn cluster(recovery: Option<RecoverySpec>) -> Cluster {
    let mut draft = Draft::new(Cluster::default());
    for name in ["h1", "h2"] {
        let certificate = crate::name::digest(name.as_bytes());
        let joined = record::Host::joined("main".parse().unwrap(), "host".into(), certificate, 1);
        draft.put(format!("hosts/{name}"), &joined);
    }
    let mut deployment = json!({"bundle": "office"});
    if let Some(recovery) = recovery {
        deployment["recovery"] = serde_json::to_value(recovery).unwrap();
    }
    draft.put("deployments/office", &deployment);
    for (member, volumes) in [("gateway", json!([])), ("workspace", json!(["home"]))] {
        let digest = crate::name::digest(member.as_bytes());
        let instance = json!({
            "incarnation": format!("old-{member}"), "appliance": format!("acme/{member}"), "version": "1.0.0",
            "image": digest, "image_size_bytes": 1, "vcpus": 1, "memory": 1, "ports": [], "volumes": volumes,
            "shape": digest,
        });
        draft.put(format!("instances/office/{member}"), &instance);
        let placement = record::Placement { host: host("h1"), decision: 1 };
        draft.put(format!("placements/office/{member}"), &placement);
    }
    draft.put("volumes/office/workspace/home", &json!({"size": 1, "host": "h1"}));
    draft.cluster
}

fn restart() -> Option<RecoverySpec> {
    Some(RecoverySpec::RESTART)
}

fn nowhere(_: &Digest) -> bool {
    false
}

#[test]
fn leased_instances_of_a_lost_host_become_new_ones_without_a_host() {
    let before = cluster(restart());
    let settled = settle(&before, &[host("h1")].into(), &nowhere, &mut counting());
    let after = &settled.draft.cluster;
    assert_eq!(after.instances[&id("office/gateway")].incarnation, "new-1");
    assert!(!after.placements.contains_key(&id("office/gateway")));
    let reasons: Vec<_> =
        settled.events.iter().map(|(object, reason, _)| (object.as_str(), *reason)).collect();
    assert_eq!(reasons, [("instance/office/gateway", "instance-recovered"), ("host/h1", "host-lost")]);
}

#[test]
fn an_instance_whose_volumes_are_only_on_the_lost_host_stays_there() {
    let before = cluster(restart());
    let settled = settle(&before, &[host("h1")].into(), &nowhere, &mut counting());
    let after = &settled.draft.cluster;
    assert_eq!(
        after.instances[&id("office/workspace")].value,
        before.instances[&id("office/workspace")].value
    );
    assert!(after.placements.contains_key(&id("office/workspace")));
    assert_eq!(after.volumes, before.volumes);
    assert!(settled.held[&id("office/workspace")].contains("no checkpoint"));
}

#[test]
fn one_that_wants_to_start_fresh_starts_with_blank_volumes() {
    let fresh = RecoverySpec { from: RecoverFrom::Fresh, ..RecoverySpec::RESTART };
    let settled = settle(&cluster(Some(fresh)), &[host("h1")].into(), &nowhere, &mut counting());
    let after = &settled.draft.cluster;
    assert!(after.placements.is_empty() && settled.held.is_empty());
    let volume = after.volumes.values().next().unwrap();
    assert_eq!(volume.host, None);
    assert!(volume.incarnation.starts_with("new-"), "the old bytes are never taken for these");
}

#[test]
fn what_does_not_recover_or_is_elsewhere_is_left_alone() {
    for recovery in [None, Some(RecoverySpec::NEVER)] {
        let before = cluster(recovery);
        let settled = settle(&before, &[host("h1")].into(), &nowhere, &mut counting());
        assert_eq!((settled.draft.cluster, settled.events), (before, vec![]));
    }
    let before = cluster(restart());
    assert!(settle(&before, &[host("h2")].into(), &nowhere, &mut counting()).draft.writes.is_empty());
}

#[test]
fn one_that_its_host_may_still_run_without_a_lease_is_not_started_twice() {
    let mut draft = Draft::new(cluster(restart()));
    let loose = record::HostLease { longest_ms: 5_000, loose: [id("office/gateway")].into(), lost: false };
    draft.put("leases/h1", &loose);
    let settled = settle(&draft.cluster, &[host("h1")].into(), &nowhere, &mut counting());
    assert!(settled.draft.cluster.placements.contains_key(&id("office/gateway")));
}

#[test]
fn a_host_is_promised_the_longest_lease_that_it_may_still_have() {
    let long = RecoverySpec {
        when: RecoverWhen::HostLost,
        lease: LeaseTerm { ms: 30_000 },
        ..RecoverySpec::RESTART
    };
    let mut draft = Draft::new(cluster(Some(long)));
    assert_eq!(promised(&draft.cluster), [(host("h1"), 30_000)].into());
    draft.put("leases/h1", &record::HostLease { longest_ms: 90_000, ..record::HostLease::default() });
    assert_eq!(promised(&draft.cluster), [(host("h1"), 90_000)].into());
    assert_eq!(lease::of_host(&draft.cluster, &host("h1")), Some(30_000));
    assert_eq!(lease::of_host(&draft.cluster, &host("h2")), None);
}

#[test]
fn a_host_that_is_removed_by_force_keeps_what_is_leased_until_the_lease_is_over() {
    let before = cluster(restart());
    let (draft, removed) = remove_host(&before, &host("h1"), false, &nowhere, &mut counting()).unwrap();
    assert_eq!(removed.recovering, [id("office/gateway"), id("office/workspace")]);
    assert_eq!(removed.lost_volumes, ["office/workspace/home"]);
    assert!(!draft.cluster.hosts.contains_key(&host("h1")));
    assert_eq!(draft.cluster.placements.len(), 2);
    // Then nothing waits for bytes that will not come back.
    let settled = settle(&draft.cluster, &[host("h1")].into(), &nowhere, &mut counting());
    assert!(settled.draft.cluster.placements.is_empty() && settled.held.is_empty());
}

#[test]
fn a_host_that_is_removed_by_force_gives_the_rest_away_at_once_and_says_what_is_lost() {
    let before = cluster(None);
    let (draft, removed) = remove_host(&before, &host("h1"), false, &nowhere, &mut counting()).unwrap();
    assert_eq!((removed.recovering, removed.restored, removed.afresh.len()), (vec![], vec![], 2));
    assert_eq!(removed.lost_volumes, ["office/workspace/home"]);
    assert!(draft.cluster.placements.is_empty());
    assert!(draft.cluster.volumes.values().all(|volume| volume.host.is_none()));
    assert!(remove_host(&before, &host("h9"), false, &nowhere, &mut counting()).is_err());
}

#[test]
fn a_volume_that_nobody_uses_goes_with_its_host() {
    let mut draft = Draft::new(cluster(None));
    draft.put("volumes/gone/workspace/home", &json!({"size": 1, "host": "h1"}));
    let (draft, removed) = remove_host(&draft.cluster, &host("h1"), true, &nowhere, &mut counting()).unwrap();
    assert_eq!(removed.lost_volumes, ["gone/workspace/home", "office/workspace/home"]);
    assert_eq!(draft.cluster.volumes.len(), 1);
}
