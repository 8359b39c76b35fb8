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
//! What all torrents share: [`uploads`], which decides whose block is sent next, and [`asks`], which holds requests back
//! while a download limit is reached. A web server is a peer like others to the torrent: [`web_seed`].
//!
//! Invariants:
//! - A block is announced, sent or handed out only if the storage holds its piece.
//! - A peer that breaks the protocol is dropped; one that sends wrong bytes is banned for a while.
//! - With TLS both sides show a certificate of the same authority before a byte of the protocol is read.

mod addresses;
mod asks;
mod connection;
mod engine;
mod extension;
mod limits;
mod meter;
mod torrent;
mod tracker;
mod transport;
mod uploads;
mod web_seed;
mod wire;

pub mod strangers;

pub use engine::{Config, Engine, Role, Torrent};
pub use limits::Limits;
pub use torrent::{PeerStatus, TorrentStatus};
pub use transport::{Tls, TlsError};

use bytes::Bytes;
use std::net::SocketAddr;
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
    /// A web server.
    WebSeed,
}

/// Something that happened to a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A piece was verified and is here; whoever waits for it is told next.
    Piece {
        /// Which.
        piece: u32,
        /// What sent it.
        from: From,
        /// Who sent it; absent for a web seed that has not answered before.
        address: Option<SocketAddr>,
    },
    /// A piece was wrong; its sender is banned for a while.
    Poisoned {
        /// Which.
        piece: u32,
        /// Who sent it.
        address: Option<SocketAddr>,
    },
    /// A peer connected.
    Joined {
        /// Who.
        address: SocketAddr,
    },
    /// A peer is gone.
    Left {
        /// Who.
        address: SocketAddr,
        /// Why.
        why: String,
    },
}

/// One torrent's bytes. `read_block` and `store` may block on the disk and are called where that is allowed.
pub trait Storage: Send + Sync + 'static {
    /// Sizes.
    fn geometry(&self) -> Geometry;
    /// Pieces that are sent to whoever asks.
    fn held(&self) -> Pieces;
    /// Where one piece is.
    fn presence(&self, piece: u32) -> Presence;
    /// Bytes of a held piece, one or more blocks of it; `None` if the piece is not held any more.
    fn read_block(&self, block: Block) -> Option<Bytes>;
    /// The same if the bytes are in memory; `None` if not, or if that is not known. Must not block.
    fn read_block_now(&self, _block: Block) -> Option<Bytes> {
        None
    }
    /// Verifies a piece, and keeps it if it is right.
    fn store(&self, piece: u32, bytes: Bytes, from: From) -> Verdict;
    /// Bytes were sent to a peer.
    fn uploaded(&self, bytes: u64);
    /// Something happened. Called from the torrent's task: must not block.
    fn noticed(&self, _notice: &Notice) {}
}
