//! Ten thousand images on one host.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it measured")]

mod stand;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use futures::stream::{StreamExt as _, iter};
use stand::{Daemon, PIECE, Stand, tool, until_within};
use std::time::{Duration, Instant};
use streamer_api::{ImageSource, MANIFEST_FORMAT, Manifest, Prefetch};
use types::{Base64, Digest};

const IMAGES: usize = 10_000;
/// Asked at a time.
const AT_ONCE: usize = 16;
/// An image that nobody reads costs its task and its tracker's, and no more.
const RSS_KIB_MAX: u64 = 512 << 10;
const PATIENCE: Duration = Duration::from_secs(120);

/// An image of one sector that nobody has; they differ in their names alone.
fn tiny(index: usize, tracker: &str) -> (Digest, ImageSource) {
    let sector = [7; 512];
    let sha1 = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
    let mut info =
        format!("d6:lengthi512e4:name9:disk-{index:04}12:piece lengthi16384e6:pieces20:").into_bytes();
    info.extend_from_slice(&sha1(&sector));
    info.extend_from_slice(b"7:privatei1ee");
    let metainfo = [b"d4:info", &info[..], b"e"].concat();
    let manifest = Manifest {
        format: MANIFEST_FORMAT.to_owned(),
        size_bytes: 512,
        piece_bytes: 16384,
        info_hash: sha1(&info).iter().map(|byte| format!("{byte:02x}")).collect(),
        pieces: Base64(digest(&SHA256, &sector).as_ref().to_vec()),
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let named = Digest::from_bytes(digest(&SHA256, &manifest).as_ref().try_into().unwrap());
    (named, ImageSource::new(Base64(metainfo), Base64(manifest), tracker.to_owned()))
}

async fn exports(host: &Daemon) -> usize {
    let list = tool("qemu-nbd", &["--list", "-k", host.nbd().to_str().unwrap()]).await;
    list.matches("\n export: ").count()
}

#[tokio::test]
async fn ten_thousand_images_are_all_exported_and_one_is_read() {
    let stand = Stand::new(16).await;
    let mut host = stand.host(Prefetch::Off).await;
    let alone = host.rss_kib();
    let began = Instant::now();
    iter(1..IMAGES)
        .map(|index| tiny(index, &stand.tracker.url))
        .for_each_concurrent(AT_ONCE, |(named, source)| {
            let client = host.client.clone();
            async move {
                client.put_image(named, &source).await.unwrap();
            }
        })
        .await;
    let named = began.elapsed();
    assert_eq!(host.client.images().await.unwrap().len(), IMAGES);
    assert_eq!(exports(&host).await, IMAGES);
    stand.check(&host, 0, 16 * PIECE).await;
    let rss = host.rss_kib();
    println!("{IMAGES} images named in {named:?}; {alone} KiB with one, {rss} KiB with all");
    assert!(rss < RSS_KIB_MAX, "{rss} KiB");

    // All of them are there again before the API answers.
    host.kill();
    let began = Instant::now();
    host.launch();
    let client = host.client.clone();
    until_within(PATIENCE, "the daemon to answer", || async { client.status().await.ok() }).await;
    println!("exported again after {:?}", began.elapsed());
    assert_eq!(host.client.images().await.unwrap().len(), IMAGES);
    stand.check(&host, 0, 16 * PIECE).await;
}
