//! What the model promises about who watches which guests.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::policy::PolicyKind;
use controller_api::watch::{DesiredWatch, Grant};
use controller_model::{Cluster, Draft, desired, name, record};
use std::collections::BTreeSet;
use support::{OFFICE, issues, office};

/// The office with an introspection policy installed.
fn watched_office() -> Cluster {
    let mut draft = Draft::new(office());
    let mut policy: record::Policy = draft.cluster.policies[&"balanced".parse().unwrap()].value.clone();
    policy.kind = PolicyKind::Introspection;
    policy.active.component = "linux-integrity".into();
    policy.active.digest = name::digest(b"linux-integrity");
    policy.active.settings = Some(serde_json::json!({"code": false}));
    draft.put("policies/linux-integrity".to_owned(), &policy);
    draft.cluster
}

/// The office's document with these watches.
fn with(watches: &str) -> String {
    let before = "policies: {placement: balanced}";
    assert!(OFFICE.contains(before));
    OFFICE.replace(before, &format!("policies:\n    introspection:\n{watches}"))
}

fn watches(cluster: &Cluster, host: &str) -> Vec<DesiredWatch> {
    desired::desired(cluster, &BTreeSet::new())[&host.parse().unwrap()].watches.clone()
}

#[test]
fn a_host_is_told_to_watch_its_own_members_with_what_is_granted() {
    let text = with(
        "      - {policy: linux-integrity, members: [workspace], grants: [memory, cpu], every: 10s, quota: 64MiB}",
    );
    let cluster = support::apply(&watched_office(), &text).unwrap().draft.cluster;
    let mut placed = Draft::new(cluster);
    for (member, host) in [("gateway", "h1"), ("workspace", "h2")] {
        let placement = record::Placement { host: host.parse().unwrap(), decision: 1 };
        placed.put(format!("placements/office/{member}"), &placement);
    }
    assert_eq!(watches(&placed.cluster, "h1"), []);
    let watch = &watches(&placed.cluster, "h2")[0];
    assert_eq!(watch.instance.to_string(), "office/workspace");
    assert_eq!(watch.component, name::digest(b"linux-integrity"));
    assert_eq!(watch.grants, [Grant::Memory, Grant::Cpu]);
    assert_eq!((watch.every_ms, watch.bytes_max), (Some(10_000), Some(64 << 20)));
    assert_eq!(watch.settings, Some(serde_json::json!({"code": false})));
    assert_eq!((watch.appliance.as_str(), watch.version.as_str()), ("acme/workspace", "1.0.0"));
    placed.delete("policies/linux-integrity");
    assert_eq!(watches(&placed.cluster, "h2"), []);
}

#[test]
fn what_cannot_be_watched_is_refused_with_its_place() {
    let cases = [
        (
            "{policy: nobody, grants: [memory]}",
            "introspection[0].policy",
            "nobody is not an installed policy",
        ),
        ("{policy: balanced, grants: [memory]}", "introspection[0].policy", "is a policy of placement"),
        ("{policy: linux-integrity, grants: []}", "introspection[0].grants", "it may see nothing"),
        (
            "{policy: linux-integrity, members: [nobody], grants: [cpu]}",
            "introspection[0].members",
            "there is no member nobody",
        ),
        (
            "{policy: linux-integrity, grants: [cpu], every: 1ms}",
            "introspection",
            "no time between two looks",
        ),
        ("{policy: linux-integrity, grants: [everything]}", "introspection", "everything"),
    ];
    for (watch, path, message) in cases {
        let found = issues(&watched_office(), &with(&format!("      - {watch}")));
        let told = format!("{found:?}");
        assert!(told.contains(path) && told.contains(message), "{watch}: {told}");
    }
    let twice = "      - {policy: linux-integrity, grants: [cpu]}\n      - {policy: linux-integrity, members: [workspace], grants: [cpu]}";
    let told = format!("{:?}", issues(&watched_office(), &with(twice)));
    assert!(told.contains("linux-integrity watches workspace already"), "{told}");
}
