//! A BitTorrent v1 engine for pieces somebody waits for.
//!
//! One [`Engine`] a daemon, many [`Torrent`]s: one listening socket, one task for each torrent, one for each
//! connection. It stores nothing and verifies nothing: [`Storage`] does, and says what became of a piece. What to ask
//! of whom is decided by `streamer-plan`; here are the sockets. It is not a general client: no DHT, no peer exchange,
//! no choking; torrents are private and peers come from the tracker.
//!
//! ```text
//!   Torrent::fetch ──▶ torrent task (Scheduler) ──▶ connection task ──▶ peer
//!                          ▲      │ complete piece        │
//!                          │      ▼                       │ requests of the peer
//!                          └── Storage::store         Storage::read_block
//! ```
//!
//! Invariants:
//! - A block is announced, sent or handed out only if the storage holds its piece.
//! - A peer that breaks the protocol is dropped; one that sends wrong bytes is banned for a while.
//! - With TLS both sides show a certificate of the same authority before a byte of the protocol is read.

mod addresses;
mod connection;
mod engine;
mod torrent;
mod tracker;
mod transport;
mod wire;

pub mod strangers;

pub use engine::{Config, Engine, PeerStatus, Role, Torrent, TorrentStatus};
pub use transport::{Tls, TlsError};

use bytes::Bytes;
use streamer_plan::{Block, Geometry, Pieces};

/// Where a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Not here.
    Absent,
    /// Here for local reads only: not announced, not sent.
    Kept,
    /// Here, and sent to whoever asks.
    Held,
}

/// What the storage made of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Verified: it is here now.
    Taken(Presence),
    /// Its bytes are wrong.
    Poisoned,
}

/// Who sent a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The publisher's own streamer.
    Origin,
    /// Another host.
    Peer,
}

/// One torrent's bytes. `read_block` and `store` may block on the disk and are called where that is allowed.
pub trait Storage: Send + Sync + 'static {
    /// Sizes.
    fn geometry(&self) -> Geometry;
    /// Pieces that are sent to whoever asks.
    fn held(&self) -> Pieces;
    /// Where one piece is.
    fn presence(&self, piece: u32) -> Presence;
    /// A block of a held piece; `None` if the piece is not held any more.
    fn read_block(&self, block: Block) -> Option<Bytes>;
    /// Verifies a piece, and keeps it if it is right.
    fn store(&self, piece: u32, bytes: Bytes, from: From) -> Verdict;
    /// Bytes were sent to a peer.
    fn uploaded(&self, bytes: u64);
}
