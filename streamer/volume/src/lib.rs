//! The image cache: one folder an image, a sparse file, and a map of the pieces that were verified.
//!
//! It is not a file system and knows no network. Start at [`Cache`], then [`Volume`]; [`publish`] makes an image of a
//! file; [`Image`] is a parsed pair of metainfo and manifest.
//!
//! ```text
//! <cache>/<digest>/source   JSON: metainfo, manifest, tracker, whether it is pinned
//! <cache>/<digest>/unnamed  empty: it is exported and fetched no longer
//! <cache>/<digest>/data     the image's bytes, sparse, zero pieces never stored
//! <cache>/<digest>/have     JSON: which pieces are in `data`, what has been counted, whether the last stop was clean
//! ```
//!
//! Invariants:
//! - A piece is stored only after its SHA-256 (manifest) and SHA-1 (metainfo) were right.
//! - `data` is on disk (fdatasync) before `have` claims it. `have` is replaced whole.
//! - After an unclean stop, or if `data` was changed behind our back, a claimed piece is verified again before it is
//!   served. A claimed piece that is wrong is absent; it is never an error.
//! - If the disk is full, verified pieces live in a bounded memory and reads go on; once it takes them again they are
//!   stored ([`Volume::settle`]). A publish that does not fit is refused.

mod cache;
mod durable;
mod have;
mod image;
mod publish;
mod volume;

pub use cache::{Cache, CacheError, Settings};
pub use image::{Image, InvalidImage, Privacy};
pub use publish::{Draft, PublishError, publish};
pub use volume::{PieceState, Ready, Settled, Source, Stored, Volume};

#[cfg(test)]
mod tests;
