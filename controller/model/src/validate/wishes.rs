//! What members may wish of their hosts.

use super::Findings;
use crate::host;
use controller_api::document::{BundleSpec, PlacementSpec};
use types::MemberName;

/// Most labels that a member wishes.
const LABELS_MAX: usize = 16;
/// Most attributes for policies of other makers.
const ATTRIBUTES_MAX: usize = 32;
/// Longest key of an attribute in bytes.
const KEY_LEN_MAX: usize = 128;
/// Longest value of an attribute in bytes.
const VALUE_LEN_MAX: usize = 1_024;
/// What the controller itself tells policies.
const OURS: &str = "collective/";

/// Everything that is wrong with one member's wishes.
pub(super) fn check(bundle: &BundleSpec, name: &MemberName, wishes: &PlacementSpec, findings: &mut Findings) {
    let path = format!("spec.members.{name}.placement");
    findings.limit(&format!("{path}.labels"), "labels", wishes.labels.len(), LABELS_MAX);
    findings.limit(&format!("{path}.attributes"), "attributes", wishes.attributes.len(), ATTRIBUTES_MAX);
    for other in &wishes.apart_from {
        if other == name {
            let message = format!("{name} cannot be apart from itself: write other members");
            findings.add(format!("{path}.apart_from"), message);
        } else if !bundle.members.contains_key(other) {
            let others = bundle.members.keys().filter(|member| *member != name);
            let known = super::choices(others, "this bundle has no other");
            findings.add(format!("{path}.apart_from"), format!("there is no member {other}: {known}"));
        }
    }
    for (key, value) in &wishes.labels {
        if let Some(message) = host::wrong_key(key).or_else(|| host::wrong_value(value)) {
            findings.add(format!("{path}.labels.{key}"), message);
        }
    }
    for (key, value) in &wishes.attributes {
        if let Some(message) = wrong_attribute(key, value) {
            findings.add(format!("{path}.attributes.{key}"), message);
        }
    }
}

fn wrong_attribute(key: &str, value: &str) -> Option<String> {
    if key.starts_with(OURS) {
        return Some(format!(
            "attributes of {OURS} are the controller's: write labels, site, attested or apart_from"
        ));
    }
    let parts: Vec<&str> = key.splitn(2, '/').collect();
    let plain = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    if parts.len() != 2 || !parts.iter().all(plain) || key.len() > KEY_LEN_MAX {
        return Some(format!("{key:?} is no attribute: write vendor/key, at most {KEY_LEN_MAX} bytes"));
    }
    (value.len() > VALUE_LEN_MAX).then(|| format!("{} bytes are more than {VALUE_LEN_MAX}", value.len()))
}
