//! What people apply: YAML to documents, documents to a cluster, the cluster to what netd is told. A text is refused with
//! every issue at a place inside it, or taken so that netd takes it too and applying it again changes nothing.
#![no_main]

#[allow(dead_code)]
#[path = "../../controller/model/tests/support/mod.rs"]
mod support;

use controller_api::rest::Issue;
use controller_model::apply::{self, Refusal};
use controller_model::{Cluster, Draft, desired, document, record};
use libfuzzer_sys::fuzz_target;
use netd_plan::{Host, Target};
use std::collections::BTreeMap;
use std::sync::OnceLock;

fn check_places(text: &str, issues: &[Issue]) {
    assert!(!issues.is_empty());
    // YAML ends a line with a carriage return too.
    let lines = text.matches(['\n', '\r']).count() + 1;
    for issue in issues {
        assert!(issue.line as usize <= lines, "{issue:?} is beyond {lines} lines");
        assert!(!issue.message.is_empty());
    }
}

/// Every instance on some host, as a placement policy might.
fn place(cluster: Cluster) -> Cluster {
    let free: Vec<_> =
        cluster.instances.keys().filter(|id| !cluster.placements.contains_key(id)).cloned().collect();
    let mut draft = Draft::new(cluster);
    for (index, id) in free.iter().enumerate() {
        let host = ["h1", "h2"][index % 2].parse().expect("a host's name");
        draft.put(format!("placements/{id}"), &record::Placement { host, decision: 1 });
    }
    draft.cluster
}

fn netd_takes(cluster: &Cluster) {
    for (host, document) in desired::desired(cluster, &std::collections::BTreeSet::new()) {
        let json = serde_json::to_vec(&document).expect("a document has a JSON");
        assert_eq!(
            serde_json::from_slice::<controller_api::agent::HostDesired>(&json).expect("read"),
            document
        );
        let uplinks: BTreeMap<_, _> =
            cluster.sites.keys().map(|site| (site.clone(), "eth1".to_owned())).collect();
        let underlay = cluster.facts.get(&host).and_then(|facts| facts.underlay_address);
        let networks = netd_api::Desired {
            generation: document.generation,
            networks: document.networks,
            watchers: document.watchers,
            mirrors: document.mirrors,
        };
        let trunks = networks.networks.iter().filter_map(|network| match &network.uplink {
            netd_api::Uplink::Vlan { trunk, .. } => Some((trunk.clone(), "eth2".to_owned())),
            _ => None,
        });
        let trunks = trunks.collect();
        let target = Target::new(&networks, &Host { underlay, uplinks, trunks });
        assert!(target.is_ok(), "netd on {host} refuses: {target:?}\n{networks:#?}");
    }
}

/// The office, and an appliance with a port to watch with.
fn with_watcher() -> Cluster {
    let mut draft = Draft::new(support::office());
    support::put_version(&mut draft, "acme/watcher", "1.0.0", &["eth0", "sniff"], &[]);
    draft.cluster
}

fuzz_target!(|text: &str| {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(with_watcher);
    let documents = match document::parse(text) {
        Ok(documents) => documents,
        Err(issues) => return check_places(text, &issues),
    };
    match apply::apply(cluster, &documents, &mut support::counting()) {
        Err(Refusal::Invalid(issues)) => check_places(text, &issues),
        Err(Refusal::Conflict(message) | Refusal::NotFound(message) | Refusal::Unfit(message)) => {
            assert!(!message.is_empty())
        }
        Ok(applied) => {
            let held = applied.draft.cluster;
            let again = apply::apply(&held, &documents, &mut support::counting());
            assert_eq!(again.expect("taken again").draft.writes, BTreeMap::new());
            netd_takes(&place(held));
        }
    }
});
