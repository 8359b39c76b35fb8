//! A change of the held document.

use crate::Network;
use serde::{Deserialize, Serialize};
use types::Generation;
use utoipa::ToSchema;

/// A new document, said as what differs from the one netd holds. It is taken only by a netd that holds just that one
/// (compare and swap), so that two documents cannot mix; who is refused sends the whole document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Generation of the document that this changes.
    pub from: Generation,
    /// Generation of the new document; greater.
    pub generation: Generation,
    /// Networks that are new or replace those of the same id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<Network>,
    /// Ids of networks that go; each is in the held document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}
