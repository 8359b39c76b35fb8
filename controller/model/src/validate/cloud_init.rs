//! What documents tell cloud-init.

use super::Findings;
use controller_api::document::{BundleSpec, CloudInitSpec, DeploymentSpec};

/// Longest user-data in bytes: half of what a configuration disk holds.
const USER_DATA_LEN_MAX: usize = 32 << 10;
/// How cloud-init tells what it is given. Anything else it would pass over without a word.
const BEGINNINGS: [&str; 3] = ["#cloud-config", "#!", "## template: jinja"];

/// What is wrong with one.
pub(super) fn check(path: &str, told: &CloudInitSpec, findings: &mut Findings) {
    let (path, text) = (format!("{path}.userData"), &told.user_data);
    if text.len() > USER_DATA_LEN_MAX {
        findings.add(path, format!("{} bytes are more than {USER_DATA_LEN_MAX}", text.len()));
    } else if !BEGINNINGS.iter().any(|beginning| text.starts_with(beginning)) {
        findings
            .add(path, "cloud-init would not know it: begin with #cloud-config, #! or ## template: jinja");
    } else if text.contains('\0') {
        findings.add(path, "it holds a zero byte: it is text");
    }
}

/// What is wrong with a deployment's.
pub(crate) fn deployment(spec: &DeploymentSpec, bundle: &BundleSpec, findings: &mut Findings) {
    for (member, told) in &spec.cloud_init {
        let path = format!("spec.cloudInit.{member}");
        if !bundle.members.contains_key(member) {
            let known = super::choices(bundle.members.keys(), "this bundle has no member");
            findings.add(path.clone(), format!("there is no member {member}: {known}"));
        }
        check(&path, told, findings);
    }
}
