//! The policy `balanced` as native code: the same crate, over rows instead of columns of the runtime.

use balanced::{Balanced, Settings};
use plugins_runtime::placement::PlacementInput;
use plugins_sdk::{Host, Hosts, PlacementPolicy as _, PolicyError, Request, Verdict};

/// The cluster of a recorded input, as the policy's own tests see one.
pub(super) fn hosts(input: &PlacementInput) -> Hosts {
    let columns = &input.hosts;
    let rows = (0..columns.names.len()).map(|row| Host {
        name: columns.names[row].clone(),
        site: columns.sites[row].clone(),
        state: u8::from(columns.states[row] != plugins_runtime::placement::HostState::Ready),
        memory_total_bytes: columns.memory_total_bytes[row],
        memory_free_bytes: columns.memory_free_bytes[row],
        disk_free_bytes: columns.disk_free_bytes[row],
        cpu_total_milli: columns.cpu_total_milli[row],
        cpu_free_milli: columns.cpu_free_milli[row],
        instance_count: columns.instance_counts[row],
        load: columns.loads[row],
        image_cached_bytes: columns.image_cached_bytes[row],
        peers: columns.peers[row],
        ..Host::default()
    });
    Hosts(rows.collect())
}

pub(super) fn request(input: &PlacementInput) -> Request {
    let request = &input.request;
    Request {
        instance: request.instance.clone(),
        deployment: request.deployment.clone(),
        member: request.member.clone(),
        appliance: request.appliance.clone(),
        version: request.version.clone(),
        vcpus_milli: request.vcpus_milli,
        memory_bytes: request.memory_bytes,
        disk_bytes: request.disk_bytes,
        image_bytes: request.image_bytes,
        choices_max: 8,
        ..Request::default()
    }
}

pub(super) fn place(request: &Request, hosts: &Hosts) -> Result<Verdict, PolicyError> {
    Balanced::place(&Settings::default(), request, hosts, hosts)
}
