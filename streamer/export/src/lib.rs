//! A network block device server (NBD, fixed newstyle) for read-only disks whose bytes may not be here yet, and the same
//! disks as files of a folder ([`fuse`]).
//!
//! It knows nothing of swarms or files: an [`Export`] answers reads when it can. Start at [`Server`]; `negotiation`
//! is the beginning of a connection, `transmission` the rest.
//!
//! Invariants:
//! - A read is answered when its bytes are there, never with an error because they are not: it waits as long as the
//!   client is connected, and only that read waits.
//! - A client that breaks the protocol loses its connection; no length it names is believed before it is bounded.
//! - Nothing is ever written.

pub mod fuse;
mod inbox;
mod late;
mod negotiation;
mod patience;
mod reply;
mod request;
mod server;
mod transmission;
mod wire;

pub use server::Server;

use bytes::Bytes;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

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
pub trait Export: itself::Itself + Send + Sync + 'static {
    /// In bytes.
    fn size(&self) -> u64;

    /// The bytes if they are in memory, without waiting for anything.
    fn read_now(&self, offset: u64, length: u32) -> Option<Bytes>;

    /// Fills a buffer if its bytes are in memory, without waiting for anything; false otherwise, and then the buffer is
    /// of no meaning.
    fn read_now_into(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        match self.read_now(offset, length) {
            Some(bytes) if bytes.len() == buffer.len() => {
                buffer.copy_from_slice(&bytes);
                true
            }
            _ => false,
        }
    }

    /// The bytes, whenever they come. An error is one of the disk that cannot be cured by waiting.
    fn read_at(&self, offset: u64, length: u32) -> Reading<'_>;

    /// The extents of a range, adding up to its length.
    fn extents(&self, offset: u64, length: u32) -> Vec<Extent>;

    /// A read was told that this range is zero, and nothing was asked for it. For those who count what is read.
    fn passed_over(&self, _offset: u64, _length: u32) {}

    /// The same disk as one reader sees it. Called once a connection, with what follows `/` in the export's name, empty
    /// if nothing does; dropped when the connection has ended.
    fn for_reader(self: Arc<Self>, _reader: &str) -> Arc<dyn Export> {
        self.itself()
    }
}

mod itself {
    use super::{Arc, Export};

    /// Makes an export out of an export, which a default method cannot where its type may be unsized.
    pub trait Itself {
        fn itself(self: Arc<Self>) -> Arc<dyn Export>;
    }

    impl<T: Export> Itself for T {
        fn itself(self: Arc<Self>) -> Arc<dyn Export> {
            self
        }
    }
}
