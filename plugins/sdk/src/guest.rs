//! From the WIT package to the traits and back, inside the guest.

#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated from the WIT package")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "placement-policy",
        pub_export_macro: true,
        default_bindings_module: "plugins_sdk::guest::bindings",
    });
}

use crate::{
    Choice, Cluster, Context, PlacementPolicy, PolicyError, Reason, Rejection, Request, SettingsIssue,
    Verdict, parse_settings,
};
use bindings::collective::policy::{cluster, context, log, types};
use bindings::exports::collective::policy::{placement as wire, plugin};

/// `plugin.describe`.
#[must_use]
pub fn describe<P: PlacementPolicy>() -> plugin::Manifest {
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
pub fn validate_settings<P: PlacementPolicy>(text: &str) -> Result<(), Vec<plugin::SettingsIssue>> {
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

/// `placement.place`. A panic of the policy is written to the log before it traps.
///
/// # Errors
/// The policy has no decision.
pub fn place<P: PlacementPolicy>(request: wire::Request) -> Result<wire::Verdict, types::PolicyError> {
    const ERROR: u8 = 4;
    std::panic::set_hook(Box::new(|panic| log::write(ERROR, &panic.to_string())));
    let settings = parse_settings::<P::Settings>(&context::settings())
        .map_err(|issue| types::PolicyError::BadSettings(issue.message))?;
    P::place(&settings, &request_from(request), &Imports, &Imports).map(verdict_to).map_err(error_to)
}

/// The imports of the world, as traits.
struct Imports;

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
}

impl Context for Imports {
    fn now_ms(&self) -> u64 {
        context::now()
    }
    fn seed(&self) -> u32 {
        context::seed()
    }
    fn symbol_text(&self, symbol: u32) -> String {
        context::symbol_text(symbol)
    }
    fn find_symbol(&self, text: &str) -> u32 {
        context::find_symbol(text)
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
        attributes: request
            .attributes
            .into_iter()
            .map(|attribute| (attribute.key, attribute.value))
            .collect(),
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
            reasons: reasons.into_iter().map(reason_to).collect(),
            rejections: rejections.into_iter().map(rejection_to).collect(),
        }),
        Verdict::Refuse(reasons) => wire::Verdict::Refuse(reasons.into_iter().map(reason_to).collect()),
    }
}

fn choice_to(choice: Choice) -> wire::Choice {
    let Choice { host, score, reasons } = choice;
    wire::Choice { host, score, reasons: reasons.into_iter().map(reason_to).collect() }
}

fn rejection_to(Rejection { code, hosts, examples }: Rejection) -> wire::Rejection {
    wire::Rejection { code, hosts, examples }
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
