//! 100 GiB in pieces of 1 MiB.

use super::shim::{Done, record, recorded};
use crate::image::{sha1, sha256, write};
use crate::{Cache, Image, Privacy, Settings, Source, Stored, Volume, publish};
use bytes::Bytes;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;
use streamer_api::ImageSource;
use streamer_plan::Geometry;
use types::Base64;

const PIECE: u32 = 1 << 20;
const PIECES: u32 = 100 << 10;

fn bytes_of(piece: u32) -> Bytes {
    Bytes::from(piece.wrapping_add(1).to_le_bytes().repeat(PIECE as usize / 4))
}

/// The first few pieces are [`bytes_of`], nobody has ever seen the others.
fn huge(real: u32) -> (ImageSource, Arc<Image>) {
    let geometry = Geometry::new(u64::from(PIECES) * u64::from(PIECE), PIECE).unwrap();
    let (mut sha1s, mut sha256s) = (Vec::new(), Vec::new());
    for piece in 0..PIECES {
        let bytes = if piece < real { bytes_of(piece) } else { Bytes::from(piece.to_le_bytes().to_vec()) };
        sha1s.extend_from_slice(&sha1(&bytes));
        sha256s.extend_from_slice(sha256(&bytes).as_bytes());
    }
    let (metainfo, manifest) = write(geometry, &sha1s, sha256s, "http://t", false).unwrap();
    let image = Image::parse(&metainfo, &manifest, None, Privacy::Private).unwrap();
    (ImageSource::new(Base64(metainfo), Base64(manifest), "http://t".to_owned()), Arc::new(image))
}

fn named(cache: &Cache, source: ImageSource, image: &Arc<Image>) -> Volume {
    cache.set_settings(image.digest, &Settings { source, named: true, pinned: false }).unwrap();
    cache.volume(Arc::clone(image)).unwrap()
}

#[test]
fn a_flush_writes_no_more_of_a_huge_image_than_of_a_small_one() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), None).unwrap();
    let (source, image) = huge(12);
    let volume = named(&cache, source, &image);
    assert_eq!(volume.store(0, &bytes_of(0), Source::Peer), Stored::Disk);
    record();
    for piece in 1..12 {
        assert_eq!(volume.store(piece, &bytes_of(piece), Source::Peer), Stored::Disk);
        volume.flush().unwrap();
        let have = recorded().into_iter().filter(|(name, _)| name == "have");
        let written: usize = have
            .map(|(_, done)| match done {
                Done::Write(_, bytes) => bytes.len(),
                Done::Replace(bytes) => panic!("{} bytes are written anew", bytes.len()),
                _ => 0,
            })
            .sum();
        assert_eq!(written, 2 * 512, "the head, and the sector of the piece");
    }
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Run alone, in release: `cargo test --release -p streamer-volume figures -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn figures() {
    let folder = tempfile::tempdir().unwrap();
    let (source, image) = huge(2);
    let digest = image.digest;
    let cache = Cache::open(&folder.path().join("cache"), None).unwrap();
    let volume = named(&cache, source, &image);
    volume.store(0, &bytes_of(0), Source::Peer);
    volume.close().unwrap();
    drop((volume, cache, image));
    let before = resident_mb();

    let began = Instant::now();
    let cache = Cache::open(&folder.path().join("cache"), None).unwrap();
    let settings = cache.settings(digest).unwrap();
    println!("figure settings_ms {:?}", began.elapsed());
    let source = &settings.source;
    let image = Image::parse(&source.metainfo.0, &source.manifest.0, Some(digest), Privacy::Private).unwrap();
    println!("figure parsed_ms {:?}", began.elapsed());
    let volume = cache.volume(Arc::new(image)).unwrap();
    println!("figure opened_ms {:?}", began.elapsed());
    assert!(volume.read_now(0, 4096).is_some());
    println!("figure huge_first_read_ms {:?}; RSS {} MB, {before} MB before", began.elapsed(), resident_mb());
    volume.store(1, &bytes_of(1), Source::Peer);
    let began = Instant::now();
    volume.flush().unwrap();
    println!("figure huge_flush {:?}", began.elapsed());

    let mut buffer = [0; 4096];
    let began = Instant::now();
    for at in 0..1_000_000_u64 {
        assert!(volume.read_now_into(at * 7919 % 256 * 4096, &mut buffer));
    }
    println!("figure warm_4k_ns {}", began.elapsed().as_nanos() / 1_000_000);

    let raw = folder.path().join("raw");
    let mut file = std::fs::File::create(&raw).unwrap();
    for part in 0..2048_u32 {
        let mut random = part;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random.to_le_bytes()
        })
        .take(1 << 18)
        .flatten()
        .collect();
        file.write_all(&bytes).unwrap();
    }
    file.sync_all().unwrap();
    for _ in 0..3 {
        let began = Instant::now();
        let draft = publish(&cache, &raw, "http://t", None, false, &|_, _| {}).unwrap();
        println!("figure publish_mb_per_s {:.0}", 2048.0 / began.elapsed().as_secs_f64());
        drop(draft);
    }
}
