//! From the WIT package to the traits and back, inside the guest. One module per exported interface; what the worlds
//! import is generated once, in [`bindings`], and shared. The encoder joins the parts to a world again.

#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated from the WIT package")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package collective:sdk;
            world imports {
                import collective:policy/types@0.1.1;
                import collective:policy/context@0.1.1;
                import collective:policy/log@0.1.1;
                import collective:policy/cluster@0.1.1;
                import collective:policy/instances@0.1.1;
                import collective:policy/checkpoints@0.1.1;
            }
        ",
        generate_all,
    });
}

pub mod checkpoint;
mod instances;
pub mod introspection;
pub mod placement;
pub mod plugin;
pub mod update;

pub use bindings::collective::policy::types::PolicyError as Declined;

use crate::{Context, Level, Plugin, PolicyError, Reason, parse_settings};
use bindings::collective::policy::{context, log, types};

/// The imports of a world, as traits.
struct Imports;

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
    fn log(&self, level: Level, message: &str) {
        let code = match level {
            Level::Trace => 0,
            Level::Debug => 1,
            Level::Info => 2,
            Level::Warn => 3,
            Level::Error => 4,
        };
        log::write(code, message);
    }
}

/// What comes before every decision: a panic of the policy is written to the log before it traps, and the settings
/// are parsed.
fn begin<P: Plugin>() -> Result<P::Settings, Declined> {
    std::panic::set_hook(Box::new(|panic| Imports.log(Level::Error, &panic.to_string())));
    parse_settings(&context::settings()).map_err(|issue| Declined::BadSettings(issue.message))
}

fn attributes_from(attributes: Vec<types::Attribute>) -> Vec<(String, String)> {
    attributes.into_iter().map(|attribute| (attribute.key, attribute.value)).collect()
}

fn reasons_to(reasons: Vec<Reason>) -> Vec<types::Reason> {
    reasons.into_iter().map(|Reason { code, text, weight }| types::Reason { code, text, weight }).collect()
}

fn error_to(error: PolicyError) -> Declined {
    match error {
        PolicyError::Unsupported(text) => Declined::Unsupported(text),
        PolicyError::InvalidInput(text) => Declined::InvalidInput(text),
        PolicyError::BadSettings(text) => Declined::BadSettings(text),
        PolicyError::Internal(text) => Declined::Internal(text),
    }
}
