//! What a component imports and exports.

use plugins_artifact::Kind;
use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldItem, WorldKey};

const PACKAGE: &str = "collective:policy/";

/// One imported or exported interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its full name, such as `collective:policy/cluster@0.1.1`.
    pub name: String,
    /// Its functions.
    pub functions: Vec<String>,
}

/// What a component imports and exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// What it asks for.
    pub imports: Vec<Part>,
    /// What it offers.
    pub exports: Vec<Part>,
}

/// Bytes that tell nothing.
#[derive(Debug, thiserror::Error)]
#[error("this is no WebAssembly component: {detail}")]
pub struct InterfaceError {
    detail: String,
}

impl Interface {
    /// Decision that it makes: the first kind whose interface it exports.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        let exported = |kind: &Kind| self.exports.iter().any(|part| is(&part.name, kind.as_str()));
        Kind::ALL.into_iter().find(exported)
    }

    /// Version of the contract that it was built against.
    #[must_use]
    pub fn contract(&self) -> Option<&str> {
        let ours = self.exports.iter().find(|part| part.name.starts_with(PACKAGE))?;
        ours.name.split_once('@').map(|(_, version)| version)
    }
}

fn is(name: &str, interface: &str) -> bool {
    name.strip_prefix(PACKAGE)
        .and_then(|rest| rest.split_once('@'))
        .is_some_and(|(name, _)| name == interface)
}

/// Reads the outside of a component. Nothing is compiled or run.
///
/// # Errors
/// The bytes are no component.
pub fn interface(component: &[u8]) -> Result<Interface, InterfaceError> {
    let no = |detail: String| InterfaceError { detail };
    let decoded = wit_component::decode(component).map_err(|error| no(format!("{error:#}")))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err(no("it is a WIT package".to_owned()));
    };
    let world = &resolve.worlds[world];
    let parts = |items: &mut dyn Iterator<Item = (&WorldKey, &WorldItem)>| {
        let mut parts: Vec<_> = items.map(|(key, item)| part(&resolve, key, item)).collect();
        parts.sort_by(|a: &Part, b| a.name.cmp(&b.name));
        parts
    };
    Ok(Interface { imports: parts(&mut world.imports.iter()), exports: parts(&mut world.exports.iter()) })
}

fn part(resolve: &Resolve, key: &WorldKey, item: &WorldItem) -> Part {
    let functions = match item {
        WorldItem::Interface { id, .. } => resolve.interfaces[*id].functions.keys().cloned().collect(),
        WorldItem::Function(_) | WorldItem::Type { .. } => Vec::new(),
    };
    Part { name: resolve.name_world_key(key), functions }
}
