//! From the world `introspection-policy` to the traits and back, inside the guest.

#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated from the WIT package")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "introspection-policy",
        pub_export_macro: true,
        default_bindings_module: "plugins_sdk::introspection::guest::bindings",
    });
}

use super::{Evidence, Finding, Flow, Guest, GuestFacts, IntrospectionPolicy, Trigger, ViewError};
use crate::{PolicyError, Reason, SettingsIssue, parse_settings};
pub use bindings::collective::policy::types;
use bindings::collective::policy::{
    context, guest, guest_cpu, guest_disk, guest_flows, guest_memory, log, views,
};
pub use bindings::exports::collective::policy::{introspection as wire, plugin};

/// `plugin.describe`.
#[must_use]
pub fn describe<P: IntrospectionPolicy>() -> plugin::Manifest {
    let manifest = P::manifest();
    plugin::Manifest {
        name: manifest.name.to_owned(),
        version: manifest.version.to_owned(),
        summary: manifest.summary.to_owned(),
        license: manifest.license.to_owned(),
        settings_schema: manifest.settings_schema.to_owned(),
        default_settings: manifest.default_settings.to_owned(),
    }
}

/// `plugin.validate-settings`.
///
/// # Errors
/// The issues.
pub fn validate_settings<P: IntrospectionPolicy>(text: &str) -> Result<(), Vec<plugin::SettingsIssue>> {
    let issues = match parse_settings::<P::Settings>(text) {
        Ok(settings) => P::check_settings(&settings),
        Err(issue) => vec![issue],
    };
    if issues.is_empty() {
        return Ok(());
    }
    let wire = |SettingsIssue { path, message }| plugin::SettingsIssue { path, message };
    Err(issues.into_iter().map(wire).collect())
}

/// `introspection.inspect`. A panic of the policy is written to the log before it traps.
///
/// # Errors
/// The policy has no decision.
pub fn inspect<P: IntrospectionPolicy>(
    trigger: wire::Trigger,
    state: &[u8],
) -> Result<wire::Report, types::PolicyError> {
    const ERROR: u8 = 4;
    std::panic::set_hook(Box::new(|panic| log::write(ERROR, &panic.to_string())));
    let settings = parse_settings::<P::Settings>(&context::settings())
        .map_err(|issue| types::PolicyError::BadSettings(issue.message))?;
    let trigger = Trigger { kind: trigger.kind, attributes: pairs(trigger.attributes) };
    let report = P::inspect(&settings, &trigger, state, &Imports).map_err(error_to)?;
    Ok(wire::Report {
        findings: report.findings.into_iter().map(finding_to).collect(),
        reasons: report.reasons.into_iter().map(reason_to).collect(),
        next_call: report.next_call_ms,
        state: report.state,
    })
}

/// The imports of the world, as the trait.
struct Imports;

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
            attributes: pairs(facts.attributes),
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

fn pairs(attributes: Vec<types::Attribute>) -> Vec<(String, String)> {
    attributes.into_iter().map(|attribute| (attribute.key, attribute.value)).collect()
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

fn reason_to(Reason { code, text, weight }: Reason) -> types::Reason {
    types::Reason { code, text, weight }
}

fn error_to(error: PolicyError) -> types::PolicyError {
    match error {
        PolicyError::Unsupported(text) => types::PolicyError::Unsupported(text),
        PolicyError::InvalidInput(text) => types::PolicyError::InvalidInput(text),
        PolicyError::BadSettings(text) => types::PolicyError::BadSettings(text),
        PolicyError::Internal(text) => types::PolicyError::Internal(text),
    }
}
