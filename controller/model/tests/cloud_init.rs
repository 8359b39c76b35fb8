//! What documents tell a guest's cloud-init, and what of it comes to the guest.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_model::{Cluster, desired};
use std::collections::BTreeSet;
use support::{OFFICE, issues, office};

const TOLD: &str = "#cloud-config\npackages: [postgresql]\n";

/// The office, its deployment with a further field.
fn with(field: &str) -> String {
    let plain = "spec: {bundle: office}";
    assert!(OFFICE.contains(plain));
    OFFICE.replace(plain, &format!("spec: {{bundle: office, {field}}}"))
}

fn config(cluster: &Cluster, member: &str, file: &str) -> String {
    let documents = desired::desired(cluster, &BTreeSet::new());
    let instances = documents.into_values().flat_map(|document| document.instances);
    let found = instances.into_iter().find(|instance| instance.id.member.as_str() == member).unwrap();
    found.config[file].clone()
}

#[test]
fn a_deployments_user_data_reaches_its_member_and_makes_that_guest_anew() {
    let before = office();
    let text = with("cloudInit: {workspace: {userData: \"#cloud-config\\npackages: [postgresql]\\n\"}}");
    let applied = support::apply(&before, &text).unwrap();
    let keys: Vec<&String> = applied.draft.writes.keys().collect();
    assert_eq!(keys, ["deployments/office", "instances/office/workspace", "placements/office/workspace"]);
    let instance = &applied.draft.cluster.instances[&"office/workspace".parse().unwrap()];
    assert_eq!(instance.user_data.as_deref(), Some(TOLD));
    let mut placed = applied.draft;
    let placement = before.placements[&"office/workspace".parse().unwrap()].value.clone();
    placed.put("placements/office/workspace", &placement);
    assert_eq!(config(&placed.cluster, "workspace", "user-data"), TOLD);
    assert_eq!(config(&placed.cluster, "gateway", "user-data"), "#cloud-config\nhostname: gateway\n");
}

#[test]
fn an_instances_id_is_its_name_and_outlives_its_incarnations() {
    let before = office();
    let told = config(&before, "workspace", "meta-data");
    assert_eq!(told, "instance-id: office.workspace\nlocal-hostname: workspace\n");
}

#[test]
fn what_cloud_init_would_pass_over_is_refused_with_its_place() {
    let refused = |deployment: &str| {
        let issues = issues(&office(), &with(deployment));
        assert_eq!(issues.len(), 1, "{issues:?}");
        (issues[0].field.clone(), issues[0].message.clone())
    };
    let (field, message) = refused("cloudInit: {workspace: {userData: \"packages: []\"}}");
    assert!(
        field.ends_with("cloudInit.workspace.userData") && message.contains("#cloud-config"),
        "{field} {message}"
    );
    let (field, message) = refused("cloudInit: {nobody: {userData: \"#!/bin/sh\"}}");
    assert!(
        field.ends_with("cloudInit.nobody") && message.contains("there is no member nobody"),
        "{field} {message}"
    );
    let long = format!("cloudInit: {{workspace: {{userData: \"#!{}\"}}}}", "x".repeat(32 << 10));
    let (_, message) = refused(&long);
    assert!(message.contains("more than 32768"), "{message}");
}
