//! A publisher's repository as The Update Framework (TUF) has it: a folder that any web server or USB stick can carry,
//! and that a controller believes only as far as its signatures go.
//!
//! ```text
//! metadata/N.root.json        which keys count for which role; trusted by hand once, then from one to the next
//! metadata/timestamp.json     which snapshot is the newest; expires within days, so that old news is noticed
//! metadata/N.snapshot.json    which version of each role's file belongs together
//! metadata/N.targets.json     one delegation an appliance, nothing else
//! metadata/N.APPLIANCE.json   the appliance's own role: its targets, by their SHA-256
//! targets/HASH.APPLIANCE.VERSION.version.json    the signed bytes of a direct publish, without their signature
//! targets/HASH.APPLIANCE.VERSION.metainfo        BitTorrent metainfo of the system disk
//! targets/HASH.APPLIANCE.VERSION.manifest.json   SHA-256 of its pieces
//! targets/HASH.APPLIANCE.channels.json           [`Channels`]: where channels point, what is withdrawn
//! images/HEX.raw              the disk itself, if it is carried along; every piece is checked by who uses it
//! ```
//!
//! [`Repository`] is the maker's side: it reads a folder it trusts, changes it, signs it with a [`KeyRing`]. [`load`] is the
//! other side, by `tough`: it trusts a root and nothing else, and remembers what it saw so that nobody can show it an
//! older state. The two share file names and no code that judges: what one signs wrongly the other refuses.
//!
//! Names have no slash because consistent snapshots put a hash before them; a name of an appliance has no dot, so
//! `APPLIANCE.*` matches no other one's targets.

#[cfg(test)]
mod attacks;
mod error;
mod images;
mod keys;
mod layout;
mod load;
mod repository;
mod transport;
mod write;

pub use error::{LoadError, PublisherError};
pub use images::{IMAGE_READ_MAX, ImageError, Images};
pub use keys::{KeyRing, PublicKey};
pub use layout::{Channels, Role};
pub use load::{Known, Loaded, Offer, Release, check_root, load};
pub use repository::{Files, Repository, RoleView, RootKeys, Validity};
pub use transport::Source;
