//! The image cache: one folder an image, a sparse file, and a map of the pieces that were verified.
//!
//! It is not a file system and knows no network. Start at [`Cache`], then [`Volume`]; [`publish`] makes an image of a
//! file; [`Image`] is a parsed pair of metainfo and manifest.
//!
//! ```text
//! <cache>/<digest>/source   JSON: metainfo, manifest, tracker, whether it is pinned
//! <cache>/<digest>/unnamed  empty: it is exported and fetched no longer
//! <cache>/<digest>/data     the image's bytes, sparse, zero pieces never stored
//! <cache>/<digest>/have     which pieces are in `data`, what has been counted, whether the last stop was clean
//! ```
//!
//! Invariants:
//! - A piece is stored only after its SHA-256 (manifest) and SHA-1 (metainfo) were right.
//! - `data` is on disk (fdatasync) before `have` claims it.
//! - After an unclean stop, or if `data` was changed behind our back, a claimed piece is verified again before it is
//!   served. A claimed piece that is wrong is absent; it is never an error.
//! - After a failed fdatasync nobody knows what the disk has. Pieces stored since the last good one are read back from
//!   the disk itself; what is not there is absent again.
//! - Bytes that are here in another image, or elsewhere in the same, are claimed too: they are copied and the copy is
//!   verified, never fetched.
//! - If the disk or the quota is full, images nobody names, pins or has open are evicted, longest unused first. If there
//!   is none, verified pieces live in a bounded memory and reads go on; once the disk takes them again they are stored
//!   ([`Volume::settle`]). A publish that does not fit is refused.
//! - Bytes of a held piece change in `data` only after it has ceased to be held, and a reader looks twice: before and
//!   after. That is why no file descriptor is handed out for copies in the kernel.

mod cache;
mod data;
mod durable;
mod have;
mod image;
mod index;
mod probe;
mod publish;
mod room;
mod settings;
mod volume;

pub use cache::{Cache, CacheError};
pub use image::{Image, InvalidImage, Privacy};
pub use publish::{Draft, PublishError, publish};
pub use settings::Settings;
pub use volume::{PieceState, Ready, Settled, Source, Stored, Volume};

#[cfg(test)]
mod tests;
