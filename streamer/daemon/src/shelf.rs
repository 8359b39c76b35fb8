//! A volume as the swarm sees it.

use crate::diary::{Diary, source};
use crate::events::Feed;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use streamer_api::Happening;
use streamer_plan::{Block, Geometry, Pieces};
use streamer_swarm::{From, Notice, Presence, Storage, Torrent, Verdict};
use streamer_volume::{PieceState, Source, Stored, Volume};
use tokio::sync::Notify;

/// Stored pieces that are made durable at once, without waiting for the clock.
const FLUSH_PIECES: u32 = 64;

/// A volume in the swarm.
pub(crate) struct Shelf {
    pub(crate) volume: Arc<Volume>,
    /// Rung when there is much to make durable.
    pub(crate) flush: Arc<Notify>,
    pub(crate) diary: Arc<Diary>,
    pub(crate) feed: Feed,
    /// The torrent of it, once there is one.
    pub(crate) torrent: OnceLock<Torrent>,
}

impl Shelf {
    /// Copies a piece that came to wherever else the image has the same bytes.
    fn copy_to_twins(&self, piece: u32) {
        for twin in self.volume.twins(piece) {
            if self.volume.adopt(twin)
                && let Some(torrent) = self.torrent.get()
            {
                torrent.found(twin);
            }
        }
    }
}

impl Storage for Shelf {
    fn geometry(&self) -> Geometry {
        self.volume.image().geometry
    }

    fn held(&self) -> Pieces {
        let mut held = Pieces::none(self.geometry().pieces());
        for piece in self.volume.pieces_in(&[PieceState::Held, PieceState::Zero]) {
            held.insert(piece);
        }
        held
    }

    fn presence(&self, piece: u32) -> Presence {
        match self.volume.state(piece) {
            PieceState::Held | PieceState::Zero => Presence::Held,
            PieceState::Memory => Presence::Kept,
            PieceState::Absent | PieceState::Claimed => Presence::Absent,
        }
    }

    fn read_block(&self, block: Block) -> Option<Bytes> {
        self.volume.read_block(block.piece, block.begin, block.length)
    }

    fn store(&self, piece: u32, bytes: Bytes, from: From) -> Verdict {
        let source = match from {
            From::Origin => Source::Origin,
            From::Peer => Source::Peer,
            From::WebSeed => Source::WebSeed,
        };
        let verdict = match self.volume.store(piece, &bytes, source) {
            Stored::Disk => Verdict::Taken(Presence::Held),
            Stored::Memory => Verdict::Taken(Presence::Kept),
            Stored::Poisoned => Verdict::Poisoned,
        };
        if matches!(verdict, Verdict::Taken(_)) {
            self.copy_to_twins(piece);
        }
        if self.volume.unsynced() >= FLUSH_PIECES {
            self.flush.notify_one();
        }
        verdict
    }

    fn uploaded(&self, bytes: u64) {
        self.volume.uploaded(bytes);
    }

    fn noticed(&self, notice: &Notice) {
        let text = |address: &SocketAddr| address.to_string();
        if let Notice::Piece { piece, from, address } = notice {
            self.diary.arrived(*piece, *from, *address);
        }
        self.feed.tell(self.volume.image().digest, || match notice {
            Notice::Piece { piece, from, address } => Happening::Piece {
                piece: *piece,
                source: source(*from).to_owned(),
                from: address.as_ref().map(text),
            },
            Notice::Poisoned { piece, address } => {
                Happening::Poisoned { piece: *piece, from: address.as_ref().map(text).unwrap_or_default() }
            }
            Notice::Joined { address } => Happening::Joined { peer: text(address) },
            Notice::Left { address, why } => Happening::Left { peer: text(address), why: why.clone() },
        });
    }
}
