//! Verified pieces that the disk did not take.

use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// In bytes for each image.
const BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pieces: HashMap<u32, Bytes>,
    order: VecDeque<u32>,
    bytes: usize,
    /// A piece had to go before the disk took it.
    pub(crate) overflowed: bool,
}

impl Memory {
    pub(crate) fn get(&self, piece: u32) -> Option<Bytes> {
        self.pieces.get(&piece).cloned()
    }

    pub(crate) fn oldest(&self) -> Option<(u32, Bytes)> {
        let piece = *self.order.front()?;
        Some((piece, self.get(piece)?))
    }

    /// Keeps a piece; returns those that had to go for it.
    pub(crate) fn insert(&mut self, piece: u32, bytes: Bytes) -> Vec<u32> {
        self.forget(piece);
        self.bytes += bytes.len();
        self.pieces.insert(piece, bytes);
        self.order.push_back(piece);
        let mut gone = Vec::new();
        while self.bytes > BYTES_MAX && self.order.len() > 1 {
            let Some(oldest) = self.order.front().copied() else { break };
            self.forget(oldest);
            self.overflowed = true;
            gone.push(oldest);
        }
        gone
    }

    pub(crate) fn forget(&mut self, piece: u32) {
        if let Some(bytes) = self.pieces.remove(&piece) {
            self.bytes -= bytes.len();
            self.order.retain(|kept| *kept != piece);
        }
    }
}
