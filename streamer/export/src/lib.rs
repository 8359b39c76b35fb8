//! A network block device server (NBD, fixed newstyle) for read-only disks whose bytes may not be here yet.
//!
//! It knows nothing of swarms or files: an [`Export`] answers reads when it can. Start at [`Server`]; `negotiation`
//! is the beginning of a connection, `transmission` the rest.
//!
//! Invariants:
//! - A read is answered when its bytes are there, never with an error because they are not: it waits as long as the
//!   client is connected, and only that read waits.
//! - A client that breaks the protocol loses its connection; no length it names is believed before it is bounded.
//! - Nothing is ever written.

mod negotiation;
mod server;
mod transmission;
mod wire;

pub use server::Server;

use bytes::Bytes;
use std::future::Future;
use std::io;
use std::pin::Pin;

/// Largest read, in bytes: what QEMU asks at most.
pub const READ_BYTES_MAX: u32 = 32 << 20;

/// A future that owns nothing but what it borrows of its export.
pub type Reading<'a> = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>>;

/// A run of bytes that are all zero, or not known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// In bytes.
    pub length: u64,
    /// All zero, and not stored.
    pub zero: bool,
}

/// One read-only disk. Ranges it is asked for lie inside its size.
pub trait Export: Send + Sync + 'static {
    /// In bytes.
    fn size(&self) -> u64;

    /// The bytes if they are in memory, without waiting for anything.
    fn read_now(&self, offset: u64, length: u32) -> Option<Bytes>;

    /// The bytes, whenever they come. An error is one of the disk that cannot be cured by waiting.
    fn read_at(&self, offset: u64, length: u32) -> Reading<'_>;

    /// The extents of a range, adding up to its length.
    fn extents(&self, offset: u64, length: u32) -> Vec<Extent>;
}
