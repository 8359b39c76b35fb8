//! One image on this host: its bytes, its torrent, and the guests that read it.

use crate::diary::{Diary, Wait};
use crate::events::Feed;
use crate::reader::View;
use crate::readers::{Change, Readers, RunKey};
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use streamer_api::{Happening, ImageStatus, PeerStatus, Rates};
use streamer_export::{Export, Extent, Reading};
use streamer_swarm::Torrent;
use streamer_volume::{PieceState, Ready, Volume};

/// One image: what the block export reads.
pub(crate) struct Image {
    pub(crate) volume: Arc<Volume>,
    pub(crate) torrent: Torrent,
    pub(crate) readers: Readers,
    pub(crate) diary: Arc<Diary>,
    feed: Feed,
}

impl Image {
    pub(crate) fn new(volume: Arc<Volume>, torrent: Torrent, diary: Arc<Diary>, feed: Feed) -> Self {
        let readers = Readers::new(volume.image().geometry.pieces());
        Self { volume, torrent, readers, diary, feed }
    }

    /// Its name on the block export.
    pub(crate) fn export_name(&self) -> String {
        self.volume.image().digest.hex()
    }

    /// The image right now.
    pub(crate) async fn status(&self, with_map: bool) -> ImageStatus {
        let torrent = self.torrent.status().await;
        let image = self.volume.image();
        let (bytes, bytes_uploaded, bytes_poisoned) = self.volume.counted();
        let local = [PieceState::Held, PieceState::Memory];
        let trouble = self.volume.trouble().or_else(|| {
            let nobody = torrent.peers.is_empty().then_some("no peer is connected");
            let lacking =
                torrent.lacks_sources.then(|| nobody.unwrap_or("no connected peer has what is read"));
            let others = [lacking.map(str::to_owned), torrent.tracker_trouble, torrent.web_seed_trouble];
            let troubles: Vec<String> = others.into_iter().flatten().collect();
            (!troubles.is_empty()).then(|| troubles.join(", and "))
        });
        ImageStatus {
            export: self.export_name(),
            size_bytes: image.geometry.size_bytes(),
            piece_bytes: image.geometry.piece_bytes(),
            pieces: image.geometry.pieces(),
            pieces_zero: image.zero.count(),
            pieces_local: self.volume.count_in(&local),
            bytes,
            bytes_uploaded,
            bytes_poisoned,
            stalls: self.readers.stalls(),
            rates: Rates {
                down_bytes_per_s: torrent.down_bytes_per_s,
                up_bytes_per_s: torrent.up_bytes_per_s,
            },
            readers: self.readers.connected(|pieces| self.missing(pieces)),
            peers: torrent
                .peers
                .into_iter()
                .map(|peer| PeerStatus {
                    address: peer.address.to_string(),
                    origin: peer.origin,
                    same_site: peer.near,
                    rates: Rates {
                        down_bytes_per_s: peer.down_bytes_per_s,
                        up_bytes_per_s: peer.up_bytes_per_s,
                    },
                    pieces: peer.pieces,
                    bytes_down: peer.bytes_down,
                    bytes_up: peer.bytes_up,
                })
                .collect(),
            piece_map: with_map.then(|| self.piece_map(&torrent.fetching)),
            trouble,
        }
    }

    /// Carries out what readers' touches, or other profiles, changed.
    pub(crate) fn follow(&self, change: Change) {
        if let Some(wanted) = change.wanted {
            self.torrent.set_profile(wanted);
        }
        for switch in change.switched {
            let best = switch.scores.first().map_or(0.0, |best| best.score);
            tracing::info!(
                image = %self.volume.image().digest.short(), reader = switch.reader,
                profile = switch.profile.as_deref().unwrap_or("none"), best_score = best,
                "another profile serves a reader"
            );
            let told = || Happening::Profile {
                reader: switch.reader,
                profile: switch.profile,
                scores: switch.scores,
            };
            self.feed.tell(self.volume.image().digest, told);
        }
    }

    fn missing(&self, pieces: &[u32]) -> u32 {
        let absent = |piece: &&u32| {
            !matches!(self.volume.state(**piece), PieceState::Held | PieceState::Memory | PieceState::Zero)
        };
        u32::try_from(pieces.iter().filter(absent).count()).unwrap_or(u32::MAX)
    }

    fn piece_map(&self, fetching: &[u32]) -> String {
        let mut map: Vec<u8> = (0..self.volume.image().geometry.pieces())
            .map(|piece| match self.volume.state(piece) {
                PieceState::Zero => b'z',
                PieceState::Held | PieceState::Memory => b'h',
                PieceState::Absent | PieceState::Claimed => b'.',
            })
            .collect();
        for piece in fetching {
            if let Some(mark) = map.get_mut(*piece as usize).filter(|mark| **mark == b'.') {
                *mark = b'f';
            }
        }
        String::from_utf8(map).unwrap_or_default()
    }

    /// Gets what other images here hold; the rest is returned.
    async fn adopt(&self, absent: Vec<u32>) -> io::Result<Vec<u32>> {
        let (volume, torrent) = (Arc::clone(&self.volume), self.torrent.clone());
        let adopt = move || {
            let lent = |piece: &u32| {
                let adopted = volume.adopt(*piece);
                if adopted {
                    torrent.found(*piece);
                }
                !adopted
            };
            absent.into_iter().filter(lent).collect()
        };
        tokio::task::spawn_blocking(adopt).await.map_err(io::Error::other)
    }

    /// Verifies what is claimed of a range; then it is held or absent.
    async fn verify_claimed(&self, pieces: Range<u32>) -> io::Result<()> {
        let claimed: Vec<u32> =
            pieces.filter(|piece| self.volume.state(*piece) == PieceState::Claimed).collect();
        if claimed.is_empty() {
            return Ok(());
        }
        let (volume, torrent) = (Arc::clone(&self.volume), self.torrent.clone());
        let verify = move || verify(&volume, &torrent, claimed);
        tokio::task::spawn_blocking(verify).await.map_err(io::Error::other)
    }

    /// Reads bytes whenever they come, for a guest or for somebody who is none.
    pub(crate) async fn read(
        &self,
        offset: u64,
        length: u32,
        reader: Option<(RunKey, &str)>,
    ) -> io::Result<Bytes> {
        let pieces = self.volume.image().geometry.touched(offset, u64::from(length));
        let mut waiting: Option<Waiting<'_>> = None;
        loop {
            self.verify_claimed(pieces.clone()).await?;
            let absent: Vec<u32> =
                pieces.clone().filter(|piece| self.volume.state(*piece) == PieceState::Absent).collect();
            let absent = if absent.is_empty() { absent } else { self.adopt(absent).await? };
            if !absent.is_empty() {
                waiting.get_or_insert_with(|| Waiting::begin(self, reader, &absent));
                self.torrent.fetch(pieces.clone(), absent).await;
                continue;
            }
            let volume = Arc::clone(&self.volume);
            let read = tokio::task::spawn_blocking(move || volume.read(offset, length));
            match read.await.map_err(io::Error::other)? {
                Ready::Bytes(bytes) => {
                    if let Some(waiting) = &mut waiting {
                        waiting.served = true;
                    }
                    return Ok(bytes);
                }
                // Lost between the look and the read; it is fetched again.
                Ready::Absent(_) => {}
            }
        }
    }
}

/// Verifies claimed pieces and tells the torrent of those that are right.
pub(crate) fn verify(volume: &Volume, torrent: &Torrent, claimed: Vec<u32>) {
    for piece in claimed {
        volume.verify(piece);
        if volume.state(piece) == PieceState::Held {
            torrent.found(piece);
        }
    }
}

impl Export for Image {
    fn size(&self) -> u64 {
        self.volume.image().geometry.size_bytes()
    }

    fn read_now(&self, offset: u64, length: u32) -> Option<Bytes> {
        self.volume.read_now(offset, length)
    }

    fn read_now_into(&self, offset: u64, buffer: &mut [u8]) -> bool {
        self.volume.read_now_into(offset, buffer)
    }

    fn read_at(&self, offset: u64, length: u32) -> Reading<'_> {
        Box::pin(self.read(offset, length, None))
    }

    fn passed_over(&self, offset: u64, length: u32) {
        self.volume.passed_over(offset, length);
    }

    fn for_reader(self: Arc<Self>, reader: &str) -> Arc<dyn Export> {
        Arc::new(View::new(self, reader))
    }

    fn extents(&self, offset: u64, length: u32) -> Vec<Extent> {
        let image = self.volume.image();
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = offset;
        let end = offset + u64::from(length);
        for piece in image.geometry.touched(offset, u64::from(length)) {
            let until = (image.geometry.offset(piece) + u64::from(image.geometry.length(piece))).min(end);
            let zero = image.zero.contains(piece);
            match extents.last_mut().filter(|last| last.zero == zero) {
                Some(last) => last.length += until - at,
                None => extents.push(Extent { length: until - at, zero }),
            }
            at = until;
        }
        extents
    }
}

/// A read that waits, counted also when its guest goes away.
struct Waiting<'a> {
    image: &'a Image,
    run: Option<RunKey>,
    wait: Wait,
    served: bool,
}

impl<'a> Waiting<'a> {
    fn begin(image: &'a Image, reader: Option<(RunKey, &str)>, absent: &[u32]) -> Self {
        let (run, name) = (reader.map(|(run, _)| run), reader.map_or("", |(_, name)| name));
        let piece = absent.first().copied().unwrap_or(0);
        let told = image.readers.wait(run, piece);
        image
            .feed
            .tell(image.volume.image().digest, || Happening::Waiting { reader: name.to_owned(), piece });
        Self { image, run, wait: Wait::new(name, absent.to_vec(), told), served: false }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.image.readers.resume(self.run, self.wait.waited());
        let stall = self.image.diary.ended(&self.wait, self.served);
        self.image.feed.tell(self.image.volume.image().digest, || Happening::Stalled(stall));
    }
}
