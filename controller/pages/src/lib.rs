//! Saved memory as what it differs in from memory that was saved before.
//!
//! A guest's saved memory holds every page that it uses, though most are those of the checkpoint before. [`difference`]
//! writes only what the previous file has not got, and where the rest is found in it; [`whole`] makes the file again, bit
//! for bit, which a SHA-256 proves. Pages stand in QEMU's stream with odd headers between them, and at another place each
//! time: so equal blocks of the two files say little, and the stream is split where its records are ([`split`]).
//!
//! What this is not: it opens no file and knows no checkpoint. Start reading at [`difference`]. A stream that is not
//! understood costs room, never correctness: what [`split`] does not know is kept as it is.
//!
//! Refused: a content-defined chunker, for its chunks are larger than pages and a guest dirties single ones; QEMU's
//! `mapped-ram`, whose files have pages in fixed places, for libvirt starts guests from it only since 11.2 and cannot
//! rewrite its header.

mod difference;
mod split;

pub use difference::{DifferenceError, Figures, difference, whole};
