//! One reader's view of an image: the same bytes, and a record of what it touched.

use crate::image::Image;
use crate::readers::RunKey;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use streamer_export::{Export, Extent, Reading};

/// Whoever holds one connection to an image's export.
pub(crate) struct View {
    image: Arc<Image>,
    name: String,
    run: RunKey,
    /// Pieces this connection has touched, so that a warm read takes no lock.
    seen: Box<[AtomicU64]>,
}

impl View {
    pub(crate) fn new(image: Arc<Image>, name: &str) -> Self {
        let (run, change) = image.readers.connect(name);
        image.follow(change);
        let words = (image.volume.image().geometry.pieces() as usize).div_ceil(64);
        let seen = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { image, name: name.to_owned(), run, seen }
    }

    fn touch(&self, offset: u64, length: u64) {
        let pieces = self.image.volume.image().geometry.touched(offset, length);
        let new = |piece: u32| {
            let Some(word) = self.seen.get(piece as usize / 64) else { return false };
            let bit = 1u64 << (piece % 64);
            // A relaxed load first: it is nearly always set, and stores would bounce the line.
            word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
        };
        let zero = &self.image.volume.image().zero;
        let mut fresh = pieces.filter(|piece| new(*piece) && !zero.contains(*piece)).peekable();
        if fresh.peek().is_some() {
            let change = self.image.readers.touch(self.run, fresh);
            self.image.follow(change);
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let change = self.image.readers.leave(self.run);
        self.image.follow(change);
    }
}

impl Export for View {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_now(&self, offset: u64, length: u32) -> Option<Bytes> {
        self.touch(offset, u64::from(length));
        self.image.volume.read_now(offset, length)
    }

    fn read_now_into(&self, offset: u64, buffer: &mut [u8]) -> bool {
        self.touch(offset, buffer.len() as u64);
        self.image.volume.read_now_into(offset, buffer)
    }

    fn read_at(&self, offset: u64, length: u32) -> Reading<'_> {
        self.touch(offset, u64::from(length));
        Box::pin(self.image.read(offset, length, Some((self.run, &self.name))))
    }

    fn passed_over(&self, offset: u64, length: u32) {
        self.image.volume.passed_over(offset, length);
    }

    fn extents(&self, offset: u64, length: u32) -> Vec<Extent> {
        self.image.extents(offset, length)
    }
}
