//! The world `introspection-policy`.

#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated from the WIT package")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package collective:sdk;
            world introspection {
                import collective:policy/guest@0.1.1;
                import collective:policy/views@0.1.1;
                import collective:policy/guest-memory@0.1.1;
                import collective:policy/guest-cpu@0.1.1;
                import collective:policy/guest-flows@0.1.1;
                import collective:policy/guest-disk@0.1.1;
                export collective:policy/introspection@0.1.1;
            }
        ",
        with: {
            "collective:policy/types@0.1.1": crate::guest::bindings::collective::policy::types,
        },
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "plugins_sdk::guest::introspection::bindings",
    });
}

use super::{Declined, Imports, attributes_from, begin, error_to, reasons_to};
use crate::introspection::{
    Evidence, Finding, Flow, Guest, GuestFacts, IntrospectionPolicy, Trigger, ViewError,
};
use bindings::collective::policy::{guest, guest_cpu, guest_disk, guest_flows, guest_memory, views};
use bindings::exports::collective::policy::introspection as wire;

/// `introspection.inspect`.
///
/// # Errors
/// The policy has no decision.
pub fn inspect<P: IntrospectionPolicy>(
    trigger: wire::Trigger,
    state: &[u8],
) -> Result<wire::Report, Declined> {
    let settings = begin::<P>()?;
    let trigger = Trigger { kind: trigger.kind, attributes: attributes_from(trigger.attributes) };
    let report = P::inspect(&settings, &trigger, state, &Imports, &Imports).map_err(error_to)?;
    Ok(wire::Report {
        findings: report.findings.into_iter().map(finding_to).collect(),
        reasons: reasons_to(report.reasons),
        next_call: report.next_call_ms,
        state: report.state,
    })
}

impl Guest for Imports {
    fn about(&self) -> GuestFacts {
        let facts = guest::about();
        GuestFacts {
            instance: facts.instance,
            appliance: facts.appliance,
            version: facts.version,
            arch: facts.arch,
            vcpus: facts.vcpus,
            memory_bytes: facts.memory_bytes,
            started_ms: facts.started,
            paused: facts.paused,
            attributes: attributes_from(facts.attributes),
        }
    }
    fn regions(&self) -> Result<Vec<(u64, u64)>, ViewError> {
        let regions = guest_memory::regions().map_err(view_error)?;
        Ok(regions.into_iter().map(|region| (region.start, region.len)).collect())
    }
    fn read(&self, address: u64, len: u32) -> Result<Vec<u8>, ViewError> {
        guest_memory::read(address, len).map_err(view_error)
    }
    fn read_virtual(&self, root: u64, address: u64, len: u32) -> Result<Vec<u8>, ViewError> {
        guest_memory::read_virtual(root, address, len).map_err(view_error)
    }
    fn translate(&self, root: u64, address: u64) -> Result<u64, ViewError> {
        guest_memory::translate(root, address).map_err(view_error)
    }
    fn search(
        &self,
        start: u64,
        len: u64,
        pattern: &[u8],
        mask: &[u8],
        limit: u32,
    ) -> Result<Vec<u64>, ViewError> {
        guest_memory::search(start, len, pattern, mask, limit).map_err(view_error)
    }
    fn hash_pages(&self, start: u64, pages: u32) -> Result<Vec<u64>, ViewError> {
        guest_memory::hash_pages(start, pages).map_err(view_error)
    }
    fn registers(&self, vcpu: u32, names: &[&str]) -> Result<Vec<u64>, ViewError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        guest_cpu::registers(vcpu, &names).map_err(view_error)
    }
    fn flows(&self, limit: u32) -> Result<Vec<Flow>, ViewError> {
        let flow = |flow: guest_flows::Flow| Flow {
            first_seen_ms: flow.first_seen,
            last_seen_ms: flow.last_seen,
            port: flow.port,
            protocol: flow.protocol,
            source: flow.source,
            destination: flow.destination,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
            frames: flow.frames,
            bytes: flow.bytes,
        };
        Ok(guest_flows::flows(limit).map_err(view_error)?.into_iter().map(flow).collect())
    }
    fn disks(&self) -> Result<Vec<(String, u64)>, ViewError> {
        let disks = guest_disk::disks().map_err(view_error)?;
        Ok(disks.into_iter().map(|disk| (disk.name, disk.size)).collect())
    }
    fn read_disk(&self, disk: u32, offset: u64, len: u32) -> Result<Vec<u8>, ViewError> {
        guest_disk::read_disk(disk, offset, len).map_err(view_error)
    }
}

fn view_error(error: views::ViewError) -> ViewError {
    match error {
        views::ViewError::Denied(why) => ViewError::Denied(why),
        views::ViewError::OutOfRange => ViewError::OutOfRange,
        views::ViewError::NotMapped => ViewError::NotMapped,
        views::ViewError::TooLarge => ViewError::TooLarge,
        views::ViewError::Unavailable(why) => ViewError::Unavailable(why),
    }
}

fn finding_to(finding: Finding) -> wire::Finding {
    wire::Finding {
        rule: finding.rule,
        severity: finding.severity,
        confidence: finding.confidence,
        title: finding.title,
        fingerprint: finding.fingerprint,
        evidence: finding.evidence.into_iter().map(evidence_to).collect(),
        proposals: finding.proposals,
    }
}

fn evidence_to(Evidence { kind, address, text, bytes }: Evidence) -> wire::Evidence {
    wire::Evidence { kind, address, text, bytes }
}
