//! The interface `plugin`, which every world exports.

#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated from the WIT package")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package collective:sdk;
            world plugin {
                export collective:policy/plugin@0.1.1;
            }
        ",
        pub_export_macro: true,
        default_bindings_module: "plugins_sdk::guest::plugin::bindings",
    });
}

use crate::{Plugin, SettingsIssue};
use bindings::exports::collective::policy::plugin as wire;

/// `plugin.describe`.
#[must_use]
pub fn describe<P: Plugin>() -> wire::Manifest {
    let manifest = P::manifest();
    wire::Manifest {
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
pub fn validate_settings<P: Plugin>(text: &str) -> Result<(), Vec<wire::SettingsIssue>> {
    let wire = |SettingsIssue { path, message }| wire::SettingsIssue { path, message };
    crate::validate_settings::<P>(text).map_err(|issues| issues.into_iter().map(wire).collect())
}
