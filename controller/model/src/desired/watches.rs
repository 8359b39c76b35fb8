//! Who watches the instances of a host from outside.

use crate::cluster::Cluster;
use crate::record;
use controller_api::policy::PolicyKind;
use controller_api::watch::DesiredWatch;
use types::InstanceId;

/// What the bundles of these instances say, as far as the policies are installed.
pub(super) fn of_host(cluster: &Cluster, here: &[(&InstanceId, &record::Instance)]) -> Vec<DesiredWatch> {
    here.iter().flat_map(|(id, instance)| of_instance(cluster, id, instance)).collect()
}

fn of_instance<'a>(
    cluster: &'a Cluster,
    id: &'a InstanceId,
    instance: &'a record::Instance,
) -> impl Iterator<Item = DesiredWatch> + 'a {
    let bundle = cluster.deployments.get(&id.deployment).and_then(|spec| cluster.bundles.get(&spec.bundle));
    let watches = bundle.into_iter().flat_map(|bundle| &bundle.policies.introspection);
    watches.filter(|watch| watch.members.is_empty() || watch.members.contains(&id.member)).filter_map(
        |watch| {
            let policy = cluster.policies.get(&watch.policy)?;
            (policy.kind == PolicyKind::Introspection).then(|| DesiredWatch {
                instance: id.clone(),
                policy: watch.policy.clone(),
                component: policy.active.digest,
                settings: policy.active.settings.clone(),
                grants: watch.grants.clone(),
                every_ms: watch.every.map(|every| every.ms),
                bytes_max: watch.quota.map(|quota| quota.0),
                appliance: instance.appliance.to_string(),
                version: instance.version.to_string(),
            })
        },
    )
}
