//! From a core module to a component.

use crate::contract;
use plugins_artifact::Kind;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The bytes are no core module.
    #[error("this is no core WebAssembly module: {0}")]
    NotModule(&'static str),
    /// The module does not say which world it is of, or imports and exports other things than its world.
    #[error("the module cannot be made a component: {detail}")]
    Misfit {
        /// What does not fit.
        detail: String,
    },
    /// The contract in this program cannot be read.
    #[error("the contract is damaged: {detail}")]
    Contract {
        /// Where.
        detail: String,
    },
}

/// Makes a component of a core module. A module whose bindings were made by wit-bindgen's Rust macro says itself which
/// world it is of; for others `kind` does.
///
/// # Errors
/// The bytes are no module, or do not fit the world.
pub fn wrap(module: &[u8], kind: Option<Kind>) -> Result<Vec<u8>, WrapError> {
    const HEADER: &[u8] = b"\0asm\x01\0\0\0";
    if !module.starts_with(HEADER) {
        let what =
            if module.starts_with(b"\0asm") { "it is a component already" } else { "it is something else" };
        return Err(WrapError::NotModule(what));
    }
    let mut module = module.to_vec();
    if let Some(kind) = kind {
        let (resolve, package) = contract::resolve().map_err(|detail| WrapError::Contract { detail })?;
        let world = resolve
            .select_world(&[package], Some(&world_name(kind)))
            .map_err(|error| WrapError::Contract { detail: error.to_string() })?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .map_err(|error| WrapError::Misfit { detail: format!("{error:#}") })?;
    }
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| WrapError::Misfit { detail: format!("{error:#}") })
}

/// The world of a kind.
pub(crate) fn world_name(kind: Kind) -> String {
    format!("{kind}-policy")
}
