//! A volume as the swarm sees it.

use bytes::Bytes;
use std::sync::Arc;
use streamer_plan::{Block, Geometry, Pieces};
use streamer_swarm::{From, Presence, Storage, Verdict};
use streamer_volume::{PieceState, Source, Stored, Volume};
use tokio::sync::Notify;

/// Stored pieces that are made durable at once, without waiting for the clock.
const FLUSH_PIECES: u32 = 64;

/// A volume in the swarm.
pub(crate) struct Shelf {
    pub(crate) volume: Arc<Volume>,
    /// Rung when there is much to make durable.
    pub(crate) flush: Arc<Notify>,
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
        };
        let verdict = match self.volume.store(piece, &bytes, source) {
            Stored::Disk => Verdict::Taken(Presence::Held),
            Stored::Memory => Verdict::Taken(Presence::Kept),
            Stored::Poisoned => Verdict::Poisoned,
        };
        if self.volume.unsynced() >= FLUSH_PIECES {
            self.flush.notify_one();
        }
        verdict
    }

    fn uploaded(&self, bytes: u64) {
        self.volume.uploaded(bytes);
    }
}
