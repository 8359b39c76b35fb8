mod crash;
mod huge;
mod room;
mod sharing;
pub(crate) mod shim;

use crate::{Cache, Image, PieceState, Privacy, Ready, Settings, Source, Stored, Volume, publish};
use bytes::Bytes;
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use streamer_api::ImageSource;

const PIECE: usize = 16 << 10;

/// Six pieces and a half: the second and the fourth are zero.
fn disk() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..PIECE * 6 + 512).map(|at| u8::try_from(at % 251).unwrap()).collect();
    bytes[PIECE..2 * PIECE].fill(0);
    bytes[3 * PIECE..4 * PIECE].fill(0);
    bytes
}

/// Makes an image elsewhere: its source and its description.
fn made() -> (ImageSource, Arc<Image>) {
    let made = Made::new(disk(), PIECE);
    (made.source, made.image)
}

/// An image, and its bytes.
struct Made {
    source: ImageSource,
    image: Arc<Image>,
    bytes: Vec<u8>,
}

impl Made {
    fn new(bytes: Vec<u8>, piece_bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache"), None).unwrap();
        let raw = folder.path().join("raw");
        std::fs::write(&raw, &bytes).unwrap();
        let size = Some(piece_bytes as u64);
        let draft = publish(&cache, &raw, "http://tracker/announce", size, false, &|_, _| {}).unwrap();
        Self { source: draft.source.clone(), image: Arc::clone(&draft.image), bytes }
    }

    /// Pieces of numbered bytes: equal numbers are equal pieces, zero is a zero piece.
    fn of(pieces: &[u32]) -> Self {
        Self::new(pieces.iter().flat_map(|number| numbered(*number)).collect(), PIECE)
    }

    fn piece(&self, index: u32) -> Bytes {
        let at = self.image.geometry.offset(index) as usize;
        Bytes::copy_from_slice(&self.bytes[at..at + self.image.geometry.length(index) as usize])
    }

    fn digest(&self) -> types::Digest {
        self.image.digest
    }
}

fn numbered(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(PIECE / 4)
}

/// Names an image, or only keeps it, and opens it.
fn open_in(cache: &Cache, made: &Made, named: bool) -> Volume {
    let settings = Settings { source: made.source.clone(), named, pinned: false };
    cache.set_settings(made.digest(), &settings).unwrap();
    cache.volume(Arc::clone(&made.image)).unwrap()
}

/// Names an image that is here as a whole.
fn full_in(cache: &Cache, made: &Made, named: bool) -> Volume {
    let volume = open_in(cache, made, named);
    let zero = &made.image.zero;
    for piece in (0..made.image.geometry.pieces()).filter(|piece| !zero.contains(*piece)) {
        assert_eq!(volume.store(piece, &made.piece(piece), Source::Peer), Stored::Disk);
    }
    volume
}

fn pieces(volume: &Volume, state: PieceState) -> Vec<u32> {
    volume.pieces_in(&[state]).collect()
}

struct Host {
    _folder: tempfile::TempDir,
    cache: Cache,
    image: Arc<Image>,
}

impl Host {
    fn new(bytes_max: Option<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), bytes_max).unwrap();
        let (source, image) = made();
        cache.set_settings(image.digest, &Settings { source, named: true, pinned: false }).unwrap();
        Self { _folder: folder, cache, image }
    }

    fn open(&self) -> Volume {
        self.cache.volume(Arc::clone(&self.image)).unwrap()
    }

    fn data(&self) -> std::path::PathBuf {
        self.cache.path(self.image.digest).join("data")
    }
}

fn piece(index: u32) -> Bytes {
    let disk = disk();
    let at = index as usize * PIECE;
    Bytes::copy_from_slice(&disk[at..(at + PIECE).min(disk.len())])
}

fn bytes(ready: Ready) -> Option<Bytes> {
    match ready {
        Ready::Bytes(bytes) => Some(bytes),
        Ready::Absent(_) => None,
    }
}

/// The format may not change unseen: hosts of another version read it.
#[test]
fn the_manifest_is_as_it_always_was() {
    let (source, image) = made();
    let manifest = String::from_utf8(source.manifest.0).unwrap();
    assert_eq!(manifest, include_str!("tests/manifest.golden.json").trim_end());
    assert!(source.metainfo.0.starts_with(b"d8:announce23:http://tracker/announce4:infod6:lengthi98816e4:name4:disk12:piece lengthi16384e6:pieces140:"));
    assert!(source.metainfo.0.ends_with(b"7:privatei1eee"));
    assert_eq!(image.zero.iter().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_public_image_is_published_on_demand_and_taken_only_if_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), None).unwrap();
    let raw = folder.path().join("raw");
    std::fs::write(&raw, disk()).unwrap();
    let draft = publish(&cache, &raw, "http://t", Some(PIECE as u64), true, &|_, _| {}).unwrap();
    let (metainfo, manifest) = (&draft.source.metainfo.0, &draft.source.manifest.0);
    assert!(
        !metainfo.windows(9).any(|at| at == b"7:private"),
        "no private key: clients look for its presence"
    );
    let digest = Some(draft.image.digest);
    let refused = Image::parse(metainfo, manifest, digest, Privacy::Private).unwrap_err();
    assert!(refused.to_string().contains("it is not private"), "{refused}");
    let taken = Image::parse(metainfo, manifest, digest, Privacy::Any).unwrap();
    assert!(taken.verifies(0, &piece(0)));
    assert_ne!(taken.info_hash, made().1.info_hash, "public and private swarms are apart");
    let private = made().0;
    assert!(Image::parse(&private.metainfo.0, &private.manifest.0, None, Privacy::Any).is_ok());
}

#[test]
fn a_hole_is_neither_read_nor_stored() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), None).unwrap();
    let raw = folder.path().join("raw");
    let file = std::fs::File::create(&raw).unwrap();
    file.set_len(256 << 20).unwrap();
    file.write_all_at(b"boot", 0).unwrap();
    file.write_all_at(b"end", (256 << 20) - 3).unwrap();
    let done = AtomicU64::new(0);
    let draft = publish(&cache, &raw, "http://t", None, false, &|now, total| {
        assert!(now <= total);
        done.fetch_max(now, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(done.load(Ordering::Relaxed), 256 << 20);
    assert_eq!(draft.image.zero.count(), 1022);
    draft.install(&cache).unwrap();
    let data = cache.path(draft.image.digest).join("data");
    assert!(std::fs::metadata(data).unwrap().blocks() * 512 <= 1 << 20);
    drop(draft);
    assert_eq!(cache.images().unwrap().len(), 1);
}

#[test]
fn only_right_bytes_are_stored() {
    let host = Host::new(None);
    let volume = host.open();
    assert_eq!(volume.state(1), PieceState::Zero);
    assert_eq!(volume.store(0, &piece(2), Source::Peer), Stored::Poisoned);
    assert_eq!(volume.store(0, &piece(0).slice(1..), Source::Peer), Stored::Poisoned);
    assert_eq!(volume.state(0), PieceState::Absent);
    assert_eq!(volume.store(0, &piece(0), Source::Peer), Stored::Disk);
    assert_eq!(volume.store(6, &piece(6), Source::Origin), Stored::Disk);
    assert!(matches!(volume.read(0, 3 * PIECE as u32), Ready::Absent(2)));
    assert_eq!(bytes(volume.read(100, 2 * PIECE as u32 - 100)).unwrap(), disk()[100..2 * PIECE]);
    assert_eq!(volume.read_now(6 * PIECE as u64, 512).unwrap(), disk()[6 * PIECE..]);
    let mut buffer = [0xff; 3 * PIECE / 2];
    assert!(volume.read_now_into(PIECE as u64 / 2, &mut buffer));
    assert_eq!(buffer, disk()[PIECE / 2..2 * PIECE], "also zeros are written");
    assert!(!volume.read_now_into(PIECE as u64, &mut buffer), "a piece of it is absent");
    let (counted, _, poisoned) = volume.counted();
    assert_eq!((counted.origin, counted.peer, counted.zero), (512, PIECE as u64, PIECE as u64));
    assert_eq!(poisoned, 2 * PIECE as u64 - 1);
}

#[test]
fn a_crash_loses_only_what_was_not_flushed_and_claims_are_verified() {
    let host = Host::new(None);
    let volume = host.open();
    volume.store(0, &piece(0), Source::Origin);
    volume.store(2, &piece(2), Source::Origin);
    volume.flush().unwrap();
    volume.store(4, &piece(4), Source::Origin);
    drop(volume);
    OpenOptions::new().write(true).open(host.data()).unwrap().write_all_at(b"x", 5).unwrap();

    let volume = host.open();
    assert_eq!(volume.state(0), PieceState::Claimed);
    assert_eq!(volume.state(4), PieceState::Absent);
    assert!(volume.read_now(2 * PIECE as u64, 512).is_none(), "nothing unverified is served");
    assert!(volume.read_block(2, 0, 512).is_none(), "nor sent");
    assert!(matches!(volume.read(0, 512), Ready::Absent(0)), "a wrong piece is absent, not an error");
    assert_eq!(bytes(volume.read(2 * PIECE as u64, 512)).unwrap(), disk()[2 * PIECE..2 * PIECE + 512]);
    assert_eq!(volume.counted().0.origin, 2 * PIECE as u64);
    volume.close().unwrap();
    drop(volume);
    assert_eq!(host.open().state(2), PieceState::Held, "a clean stop needs no verification");
}

#[test]
fn data_changed_behind_our_back_is_verified_also_after_a_clean_stop() {
    let host = Host::new(None);
    let volume = host.open();
    volume.store(0, &piece(0), Source::Origin);
    volume.close().unwrap();
    drop(volume);
    OpenOptions::new().write(true).open(host.data()).unwrap().write_all_at(b"x", 5).unwrap();
    let volume = host.open();
    assert_eq!(volume.state(0), PieceState::Claimed);
    volume.verify(0);
    assert_eq!(volume.state(0), PieceState::Absent);
}

#[test]
fn a_full_cache_keeps_pieces_in_memory_and_says_so() {
    let host = Host::new(Some(2 * PIECE as u64));
    let volume = host.open();
    assert_eq!(volume.store(0, &piece(0), Source::Origin), Stored::Disk);
    assert_eq!(volume.store(2, &piece(2), Source::Origin), Stored::Disk);
    assert_eq!(volume.store(4, &piece(4), Source::Origin), Stored::Memory);
    assert!(volume.trouble().unwrap().contains("the cache is full"));
    assert_eq!(bytes(volume.read(4 * PIECE as u64, 512)).unwrap(), disk()[4 * PIECE..4 * PIECE + 512]);
    assert!(volume.read_block(4, 0, 512).is_none());
    volume.close().unwrap();
    drop(volume);
    assert_eq!(host.open().state(4), PieceState::Absent);
}

#[test]
fn one_cache_has_one_daemon() {
    let host = Host::new(None);
    assert!(Cache::open(host.cache.folder(), None).is_err());
}

#[test]
fn without_a_readable_map_what_is_in_the_file_is_claimed() {
    let host = Host::new(None);
    let volume = host.open();
    volume.store(0, &piece(0), Source::Origin);
    volume.close().unwrap();
    drop(volume);
    std::fs::write(host.cache.path(host.image.digest).join("have"), b"{").unwrap();
    let volume = host.open();
    assert_eq!((volume.state(0), volume.state(2)), (PieceState::Claimed, PieceState::Absent));
    assert_eq!(bytes(volume.read(0, 512)).unwrap(), disk()[..512]);
}

fn crash_and_look(host: &Host, data: &[u8]) {
    // The file as a crash could have left it: any piece may be half written.
    std::fs::write(host.data(), data).unwrap();
    let volume = host.open();
    for index in 0..7 {
        let whole = volume.image().geometry.length(index);
        if let Some(read) = bytes(volume.read(u64::from(index) * PIECE as u64, whole)) {
            assert_eq!(read, piece(index), "a wrong byte was served");
        }
    }
}

fn copy_of(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_crash_makes_a_wrong_byte_served(
        steps in prop::collection::vec((0u32..7, any::<bool>(), any::<bool>()), 1..12),
        torn in prop::collection::vec(0usize..7 * PIECE, 0..6),
    ) {
        let host = Host::new(None);
        let volume = host.open();
        for (index, flush, good) in steps {
            let bytes = if good { piece(index) } else { piece((index + 1) % 7) };
            volume.store(index, &bytes, Source::Peer);
            if flush {
                volume.flush().unwrap();
            }
        }
        drop(volume);
        let mut data = copy_of(&host.data());
        for at in torn.into_iter().filter(|at| *at < disk().len()) {
            data[at] ^= 0xff;
        }
        crash_and_look(&host, &data);
    }

    #[test]
    fn any_bytes_are_an_image_or_refused(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), manifest in any::<bool>()
    ) {
        let (mut source, image) = made();
        let bytes = if manifest { &mut source.manifest.0 } else { &mut source.metainfo.0 };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(parsed) = Image::parse(&source.metainfo.0, &source.manifest.0, None, Privacy::Private) {
            prop_assert_eq!(parsed.geometry, image.geometry);
        }
    }
}
