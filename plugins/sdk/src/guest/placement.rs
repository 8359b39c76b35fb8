//! The world `placement-policy`.

#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated from the WIT package")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package collective:sdk;
            world placement {
                export collective:policy/placement@0.1.1;
            }
        ",
        with: {
            "collective:policy/types@0.1.1": crate::guest::bindings::collective::policy::types,
        },
        pub_export_macro: true,
        default_bindings_module: "plugins_sdk::guest::placement::bindings",
    });
}

use super::bindings::collective::policy::cluster;
use super::{Declined, Imports, attributes_from, begin, error_to, reasons_to};
use crate::{Choice, Cluster, PlacementPolicy, Rejection, Request, Row, Verdict};
use bindings::exports::collective::policy::placement as wire;

/// `placement.place`.
///
/// # Errors
/// The policy has no decision.
pub fn place<P: PlacementPolicy>(request: wire::Request) -> Result<wire::Verdict, Declined> {
    let settings = begin::<P>()?;
    P::place(&settings, &request_from(request), &Imports, &Imports).map(verdict_to).map_err(error_to)
}

impl Cluster for Imports {
    fn host_count(&self) -> usize {
        cluster::host_count() as usize
    }
    fn host_name(&self, host: u32) -> String {
        cluster::host_name(host)
    }
    fn sites(&self) -> Vec<u32> {
        cluster::sites()
    }
    fn states(&self) -> Vec<u8> {
        cluster::states()
    }
    fn memory_total_bytes(&self) -> Vec<u64> {
        cluster::memory_total_bytes()
    }
    fn memory_free_bytes(&self) -> Vec<u64> {
        cluster::memory_free_bytes()
    }
    fn disk_free_bytes(&self) -> Vec<u64> {
        cluster::disk_free_bytes()
    }
    fn cpu_total_milli(&self) -> Vec<u32> {
        cluster::cpu_total_milli()
    }
    fn cpu_free_milli(&self) -> Vec<u32> {
        cluster::cpu_free_milli()
    }
    fn instance_counts(&self) -> Vec<u32> {
        cluster::instance_counts()
    }
    fn loads(&self) -> Vec<f32> {
        cluster::loads()
    }
    fn image_cached_bytes(&self) -> Vec<u64> {
        cluster::image_cached_bytes()
    }
    fn peers(&self) -> Vec<u32> {
        cluster::peers()
    }
    fn disk_total_bytes(&self) -> Vec<u64> {
        cluster::disk_total_bytes()
    }
    fn attested(&self) -> Vec<u8> {
        cluster::attested()
    }
    fn labels(&self, key: &str) -> Vec<u32> {
        cluster::labels(key)
    }
    fn rivals(&self) -> Vec<u32> {
        cluster::rivals()
    }
    fn feasible_mask(&self, _request: &Request) -> Vec<u8> {
        cluster::feasible_mask()
    }
    fn feasible(&self, _request: &Request, limit: u32) -> Vec<u32> {
        cluster::feasible(limit)
    }
    fn rows(&self, hosts: &[u32]) -> Vec<Row> {
        cluster::rows(hosts).into_iter().map(row_from).collect()
    }
}

fn row_from(row: cluster::HostRow) -> Row {
    Row {
        host: row.host,
        site: row.site,
        state: row.state,
        attested: row.attested,
        memory_total_bytes: row.memory_total_bytes,
        memory_free_bytes: row.memory_free_bytes,
        disk_total_bytes: row.disk_total_bytes,
        disk_free_bytes: row.disk_free_bytes,
        cpu_total_milli: row.cpu_total_milli,
        cpu_free_milli: row.cpu_free_milli,
        instance_count: row.instance_count,
        load: row.load,
        image_cached_bytes: row.image_cached_bytes,
        peers: row.peers,
        rivals: row.rivals,
    }
}

fn request_from(request: wire::Request) -> Request {
    Request {
        instance: request.instance,
        deployment: request.deployment,
        member: request.member,
        appliance: request.appliance,
        version: request.version,
        vcpus_milli: request.vcpus_milli,
        memory_bytes: request.memory_bytes,
        disk_bytes: request.disk_bytes,
        image_bytes: request.image_bytes,
        current: request.current,
        pinned: request.pinned,
        choices_max: request.choices_max,
        attributes: attributes_from(request.attributes),
    }
}

fn verdict_to(verdict: Verdict) -> wire::Verdict {
    match verdict {
        Verdict::Place(placed) => wire::Verdict::Place(wire::Placed {
            choices: placed.choices.into_iter().map(choice_to).collect(),
            rejections: placed.rejections.into_iter().map(rejection_to).collect(),
        }),
        Verdict::Defer { retry_after_ms, reasons, rejections } => wire::Verdict::Defer(wire::Deferral {
            retry_after: retry_after_ms,
            reasons: reasons_to(reasons),
            rejections: rejections.into_iter().map(rejection_to).collect(),
        }),
        Verdict::Refuse(reasons) => wire::Verdict::Refuse(reasons_to(reasons)),
    }
}

fn choice_to(choice: Choice) -> wire::Choice {
    let Choice { host, score, reasons } = choice;
    wire::Choice { host, score, reasons: reasons_to(reasons) }
}

fn rejection_to(Rejection { code, hosts, examples }: Rejection) -> wire::Rejection {
    wire::Rejection { code, hosts, examples }
}
