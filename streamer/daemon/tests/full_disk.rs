//! The cache's disk is full: a real one, without a free byte.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stand;

use stand::{Daemon, PIECE, Stand, source};
use std::path::Path;
use streamer_api::{ImageStatus, Prefetch, PublishRequest};
use streamer_client::PublishError;
use types::ByteSize;
use xtask::small_disk::SmallDisk;

/// A daemon that is not started; its cache is on the small disk.
fn on(disk: &SmallDisk, role: &str) -> Daemon {
    let daemon = Daemon::prepare(role, "peer_tls = \"off\"\n");
    std::fs::create_dir(disk.path().join("cache")).unwrap();
    std::os::unix::fs::symlink(disk.path().join("cache"), daemon.folder.path().join("cache")).unwrap();
    daemon
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn is_full(status: &ImageStatus) -> bool {
    status.trouble.as_deref().is_some_and(|text| {
        text.starts_with("the disk is full: cannot store pieces in /")
            && text.contains("No space left on device")
    })
}

#[tokio::test]
async fn a_full_disk_stops_no_read_and_what_was_read_is_stored_when_there_is_room() {
    let mut stand = Stand::new(64).await;
    let disk = SmallDisk::new(8 << 20).unwrap();
    let mut host = on(&disk, "host").up().await;
    host.put(&stand.published, &stand.tracker.url, Prefetch::Off).await;
    stand.check(&host, 0, 16 * PIECE).await;
    disk.fill().unwrap();
    stand.check(&host, 16 * PIECE, 48 * PIECE).await;
    let status = host.becomes(&stand.published, "the trouble told", is_full).await;
    assert_eq!((status.pieces_local, status.bytes.origin), (48, 48 * PIECE));
    stand.check(&host, 0, 64 * PIECE).await;
    assert_eq!(
        host.status(&stand.published).await.bytes.origin,
        48 * PIECE,
        "memory keeps what the disk does not"
    );

    // Also a start meets the full disk. What was stored is there, the rest is fetched again.
    host.kill();
    host.again().await;
    stand.check(&host, 0, 64 * PIECE).await;
    host.becomes(&stand.published, "the trouble told again", is_full).await;

    disk.free().unwrap();
    let well = |status: &ImageStatus| status.trouble.is_none() && status.pieces_local == 48;
    host.becomes(&stand.published, "all stored", well).await;
    host.stop().await;
    stand.origin.kill();
    host.again().await;
    stand.check(&host, 0, 64 * PIECE).await;
    assert_eq!(names(&disk.path().join("cache")), [stand.published.digest.hex(), "lock".to_owned()]);
}

/// 72 MiB of pieces do not wait in 64 MiB of memory: the oldest go, and prefetching brings them once more.
#[tokio::test]
async fn what_memory_could_not_hold_is_fetched_again_when_there_is_room() {
    let stand = Stand::new(1536).await;
    let disk = SmallDisk::new(96 << 20).unwrap();
    let host = on(&disk, "host").up().await;
    host.put(&stand.published, &stand.tracker.url, Prefetch::Off).await;
    disk.fill().unwrap();
    for at in (0..1536).step_by(64) {
        stand.check(&host, at * PIECE, 64 * PIECE).await;
    }
    let status = host.becomes(&stand.published, "the trouble told", is_full).await;
    assert_eq!(status.pieces_local, 1024, "as much as memory may hold");
    // To prefetch from now on is something to write down: it is asked for when there is room, just before the upkeep.
    disk.free().unwrap();
    host.put(&stand.published, &stand.tracker.url, Prefetch::Idle).await;
    let well = |status: &ImageStatus| status.trouble.is_none() && status.pieces_local == 1152;
    host.becomes(&stand.published, "everything stored", well).await;
}

#[tokio::test]
async fn a_full_disk_can_be_emptied_and_takes_no_image_until_it_is() {
    let (stand, other) = (Stand::new(16).await, Stand::new(8).await);
    let disk = SmallDisk::new(4 << 20).unwrap();
    let mut host = on(&disk, "host").up().await;
    host.put(&stand.published, &stand.tracker.url, Prefetch::Idle).await;
    host.becomes(&stand.published, "all pieces", |status| status.pieces_local == 12).await;
    disk.fill().unwrap();

    let asked = source(&other.published, &other.tracker.url, Prefetch::Off);
    let refused = host.client.put_image(other.published.digest, &asked).await.unwrap_err();
    let chassis::unix_http::CallError::Refused { status, code, message } = &refused else {
        panic!("{refused}")
    };
    assert_eq!((*status, code.as_str()), (507, "disk-full"));
    let place = format!("{}/source: No space left on device", other.published.digest.hex());
    assert!(message.contains(&place), "{message}");
    assert_eq!(names(&disk.path().join("cache")), [stand.published.digest.hex(), "lock".to_owned()]);
    assert_eq!(host.client.images().await.unwrap().len(), 1);

    // To name an image no longer, and again, needs no room; and it is remembered.
    let digest = stand.published.digest;
    host.client.delete_image(digest).await.unwrap();
    host.kill();
    host.again().await;
    assert!(host.client.images().await.unwrap().is_empty());
    host.put(&stand.published, &stand.tracker.url, Prefetch::Idle).await;
    stand.check(&host, 0, 16 * PIECE).await;
    host.client.delete_image(digest).await.unwrap();
    host.client.evict(digest).await.unwrap();
    host.client.put_image(other.published.digest, &asked).await.unwrap();
    other.check(&host, 0, 8 * PIECE).await;
}

async fn publish_is_refused(daemon: &Daemon, raw: &Path, tracker: &str) -> String {
    let request = PublishRequest {
        path: raw.to_owned(),
        tracker: tracker.to_owned(),
        piece_bytes: Some(ByteSize(PIECE)),
        public: false,
    };
    match daemon.client.publish(&request, |_| {}).await.unwrap_err() {
        PublishError::Failed { code, message } => {
            assert_eq!(code, "disk-full", "{message}");
            message
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_publish_that_does_not_fit_says_so_and_leaves_nothing() {
    let stand = Stand::new(64).await;
    let disk = SmallDisk::new(5 << 20).unwrap();
    let origin = on(&disk, "origin").up().await;
    disk.fill().unwrap();
    let message = publish_is_refused(&origin, &stand.raw, &stand.tracker.url).await;
    assert!(message.starts_with("it cannot be published: cannot write /"), "{message}");
    assert!(message.ends_with("/data: No space left on device (os error 28)"), "{message}");
    assert_eq!(names(&disk.path().join("cache")), ["lock"]);
    assert!(origin.client.images().await.unwrap().is_empty());
    assert_eq!(origin.client.status().await.unwrap().free_bytes, 0, "not even what was copied");
    disk.free().unwrap();
    let published = origin.publish(&stand.raw, &stand.tracker.url).await;
    assert_eq!(published, stand.published);
}

/// There is room for the copy, and none for it in the image's own file: told to be published, it would be in memory.
#[tokio::test]
async fn a_publish_that_fits_only_halfway_is_no_publish() {
    let stand = Stand::new(32).await;
    let disk = SmallDisk::new(2 << 20).unwrap();
    let mut host = on(&disk, "host").up().await;
    host.put(&stand.published, &stand.tracker.url, Prefetch::Off).await;
    let message = publish_is_refused(&host, &stand.raw, &stand.tracker.url).await;
    assert!(message.contains("cannot fill /"), "{message}");
    assert_eq!(names(&disk.path().join("cache")), [stand.published.digest.hex(), "lock".to_owned()]);
    // It is what it was: exported, not pinned.
    stand.check(&host, 0, 32 * PIECE).await;
    host.client.delete_image(stand.published.digest).await.unwrap();
    host.kill();
    host.again().await;
    publish_is_refused(&host, &stand.raw, &stand.tracker.url).await;
    assert!(host.client.images().await.unwrap().is_empty());
    host.client.evict(stand.published.digest).await.unwrap();
    assert_eq!(host.publish(&stand.raw, &stand.tracker.url).await, stand.published);
}
