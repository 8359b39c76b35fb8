//! What is signed.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use types::Digest;

const NAME_BYTES_MAX: usize = 63;
const VERSION_BYTES_MAX: usize = 64;
/// A key's name has 64.
const SHOWN_CHARS_MAX: usize = 64;

/// Which decision a policy makes: the worlds of the contract, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// On which host an instance runs.
    Placement,
    /// Which instances go to a new version, and when.
    Update,
    /// When checkpoints are taken and dropped.
    Checkpoint,
    /// What is found in a guest's memory.
    Introspection,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Placement, Self::Update, Self::Checkpoint, Self::Introspection];

    /// The word for it, in documents and on command lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placement => "placement",
            Self::Update => "update",
            Self::Checkpoint => "checkpoint",
            Self::Introspection => "introspection",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of policy: write placement, update, checkpoint or introspection")]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(shortened(text)))
    }
}

/// What a key vouches for: this component is that policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// SHA-256 of the component.
    pub component: Digest,
    /// The decision it makes.
    pub kind: Kind,
    /// The policy's own name, as in its manifest.
    pub name: String,
    /// The policy's own version, as in its manifest.
    pub version: String,
}

/// A statement that nobody may sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The name is not one of a manifest.
    #[error("{0:?} is no policy's name: write 1 to 63 of a-z, 0-9 and -, starting with a letter")]
    Name(String),
    /// The version is not one of a manifest.
    #[error("{0:?} is no version: write 1 to 64 printable characters without spaces")]
    Version(String),
}

/// The component is not the policy that was signed for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signature is for {field} {signed}, the component says {found}: sign it again")]
pub struct Mismatch {
    /// Which part differs.
    pub field: &'static str,
    /// What was signed.
    pub signed: String,
    /// What the component says.
    pub found: String,
}

impl Statement {
    /// Checks the texts.
    ///
    /// # Errors
    /// Which text is wrong.
    pub fn check(&self) -> Result<(), StatementError> {
        let name_ok = (1..=NAME_BYTES_MAX).contains(&self.name.len())
            && self.name.starts_with(|c: char| c.is_ascii_lowercase())
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !name_ok {
            return Err(StatementError::Name(shortened(&self.name)));
        }
        let version_ok = (1..=VERSION_BYTES_MAX).contains(&self.version.len())
            && self.version.bytes().all(|b| b.is_ascii_graphic());
        if version_ok { Ok(()) } else { Err(StatementError::Version(shortened(&self.version))) }
    }

    /// Compares with what the loaded component says about itself.
    ///
    /// # Errors
    /// The first thing that differs.
    pub fn describes(&self, kind: Kind, name: &str, version: &str) -> Result<(), Mismatch> {
        let pairs = [
            ("the kind", self.kind.as_str(), kind.as_str()),
            ("the name", &self.name, name),
            ("the version", &self.version, version),
        ];
        match pairs.into_iter().find(|(_, signed, found)| signed != found) {
            None => Ok(()),
            Some((field, signed, found)) => {
                Err(Mismatch { field, signed: signed.to_owned(), found: shortened(found) })
            }
        }
    }
}

/// Enough of a stranger's text to recognise it by, and nothing that moves a terminal's cursor.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}
