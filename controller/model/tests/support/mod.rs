//! A small cluster to ask questions of.

use controller_api::agent::HostFacts;
use controller_api::policy::{OnFailure, PolicyKind, PolicyOrigin, PolicyRelease};
use controller_api::rest::Issue;
use controller_model::apply::{self, Refusal};
use controller_model::{Cluster, Draft, document, name, record};
use serde_json::json;

pub const OFFICE: &str = include_str!("../../../../examples/office.yaml");
pub const SITE: &str = include_str!("../../../../examples/site.yaml");

pub fn put_version(draft: &mut Draft, appliance: &str, version: &str, ports: &[&str], volumes: &[&str]) {
    let release = record::Version {
        published_ms: 1,
        image: name::digest(format!("{appliance} {version}").as_bytes()),
        size_bytes: 1 << 20,
        spec: serde_json::from_value(json!({
            "summary": "", "hardware": {"vcpus": 1, "memory": "192MiB"},
            "disks": {"system": {"file": "system.raw"}}, "ports": ports, "volumes": volumes,
        }))
        .unwrap(),
        signed: name::digest(b"signed"),
        yanked: None,
        untested: None,
    };
    draft.put(format!("versions/{appliance}/{version}"), &release);
    draft.put(format!("channels/{appliance}/stable"), &record::Channel { version: version.parse().unwrap() });
}

pub fn catalogue() -> Cluster {
    let mut draft = Draft::new(Cluster::default());
    put_version(&mut draft, "acme/gateway", "1.0.0", &["wan", "lan"], &[]);
    put_version(&mut draft, "acme/workspace", "1.0.0", &["eth0"], &["home"]);
    put_version(&mut draft, "acme/plain", "1.0.0", &["eth0"], &[]);
    for policy in ["balanced", "packed"] {
        let installed = record::Policy {
            kind: PolicyKind::Placement,
            active: PolicyRelease {
                component: policy.into(),
                version: "0.1.0".into(),
                digest: name::digest(policy.as_bytes()),
                summary: String::new(),
                size_bytes: 1,
                origin: PolicyOrigin::BuiltIn,
                since_ms: 1,
                settings: None,
            },
            on_failure: OnFailure::Refuse,
            earlier: vec![],
            candidate: None,
            left: None,
        };
        draft.put(format!("policies/{policy}"), &installed);
    }
    draft.cluster
}

pub fn add_host(draft: &mut Draft, host: &str, underlay: &str) {
    let certificate = name::digest(host.as_bytes());
    let record = record::Host::joined("main".parse().unwrap(), "host".into(), certificate, 1);
    draft.put(format!("hosts/{host}"), &record);
    let facts = HostFacts {
        memory_total_bytes: 1 << 30,
        cpu_total_milli: 2_000,
        underlay_address: Some(underlay.parse().unwrap()),
        ..HostFacts::default()
    };
    draft.put(format!("facts/{host}"), &facts);
}

/// UUIDs that count, so that goldens are stable.
pub fn counting() -> impl FnMut() -> String {
    let mut count = 0_u64;
    move || {
        count += 1;
        format!("00000000-0000-4000-8000-{count:012}")
    }
}

pub fn apply(cluster: &Cluster, text: &str) -> Result<apply::Applied, Refusal> {
    let documents = document::parse(text).map_err(Refusal::Invalid)?;
    apply::apply(cluster, &documents, &mut counting())
}

pub fn issues(cluster: &Cluster, text: &str) -> Vec<Issue> {
    match apply(cluster, text) {
        Err(Refusal::Invalid(issues)) => issues,
        other => panic!("expected issues, got {other:?}"),
    }
}

pub fn with_site() -> Cluster {
    apply(&catalogue(), SITE).unwrap().draft.cluster
}

/// The office, its gateway on h1 and its workspace on h2.
pub fn office() -> Cluster {
    let mut draft = apply(&with_site(), OFFICE).unwrap().draft;
    add_host(&mut draft, "h1", "10.99.0.1");
    add_host(&mut draft, "h2", "10.99.0.2");
    for (member, host) in [("gateway", "h1"), ("workspace", "h2")] {
        let placement = record::Placement { host: host.parse().unwrap(), decision: 1 };
        draft.put(format!("placements/office/{member}"), &placement);
    }
    draft.cluster
}
