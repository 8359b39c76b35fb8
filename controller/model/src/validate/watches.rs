//! Whether what a bundle says of its watches can be.

use super::{Findings, choices};
use crate::cluster::Cluster;
use controller_api::document::BundleSpec;
use controller_api::policy::PolicyKind;
use controller_api::watch::WATCHES_MAX;
use std::collections::BTreeSet;

/// Policies have to be there and to be of their kind, members too; nobody watches one member twice.
pub(super) fn check(spec: &BundleSpec, cluster: &Cluster, findings: &mut Findings) {
    let watches = &spec.policies.introspection;
    let at = "spec.policies.introspection";
    findings.limit(at, "watches", watches.len(), WATCHES_MAX);
    let mut seen = BTreeSet::new();
    for (number, watch) in watches.iter().enumerate() {
        let at = format!("{at}[{number}]");
        let ours = cluster.policies.iter().filter(|(_, held)| held.kind == PolicyKind::Introspection);
        let known = choices(ours.map(|(name, _)| name), "install it with `collective policy install`");
        match cluster.policies.get(&watch.policy) {
            None => findings
                .add(format!("{at}.policy"), format!("{} is not an installed policy: {known}", watch.policy)),
            Some(held) if held.kind != PolicyKind::Introspection => {
                let message =
                    format!("{} is a policy of {}, not of introspection: {known}", watch.policy, held.kind);
                findings.add(format!("{at}.policy"), message);
            }
            Some(_) => {}
        }
        if watch.grants.is_empty() {
            let message = "it may see nothing: give memory, cpu, flows or disk";
            findings.add(format!("{at}.grants"), message);
        }
        for member in watch.members.iter().filter(|member| !spec.members.contains_key(*member)) {
            let known = choices(spec.members.keys(), "");
            findings.add(format!("{at}.members"), format!("there is no member {member}: {known}"));
        }
        let all: Vec<_> = spec.members.keys().collect();
        let members = if watch.members.is_empty() { all } else { watch.members.iter().collect() };
        for member in members {
            if !seen.insert((&watch.policy, member)) {
                findings.add(at.clone(), format!("{} watches {member} already", watch.policy));
            }
        }
    }
}
