//! A disk streams from its publisher, from other hosts, and through every way this can go wrong.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stand;

use stand::{Daemon, Nbd, PIECE, Stand, Tracker, source, tool, until};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;
use std::time::Duration;
use streamer_api::{Prefetch, PublishRequest};
use types::{Base64, Digest};

#[tokio::test]
async fn a_cold_read_fetches_exactly_the_pieces_it_touches() {
    let stand = Stand::new(32).await;
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 5 * PIECE + 100, 4096).await;
    stand.check(&host, 13 * PIECE - 10, 20).await;
    stand.check(&host, 3 * PIECE, 512).await;
    let status = host.status(&stand.published).await;
    assert_eq!(status.pieces_local, 3);
    assert_eq!(status.pieces_zero, 8);
    assert_eq!((status.bytes.origin, status.bytes.peer), (3 * PIECE, 0));
    assert_eq!((status.bytes.zero, status.bytes.cache), (PIECE, 0));
    assert_eq!(status.stalls.count, 2);
    assert_eq!(status.stalls.waiting, 0);
    let map = status.piece_map.unwrap();
    assert_eq!(&map[..16], "...z.h.z...zhh.z");
}

#[tokio::test]
async fn qemu_reads_the_whole_disk_and_sees_its_holes() {
    let stand = Stand::new(48).await;
    let host = stand.host(Prefetch::Off).await;
    let url = stand.nbd_url(&host);
    tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", &url, stand.raw.to_str().unwrap()]).await;
    let map = tool("qemu-img", &["map", "--output=json", "-f", "raw", &url]).await;
    assert_eq!(map.matches("\"zero\": true").count(), 12, "{map}");
    let overlay = host.folder.path().join("overlay.qcow2");
    let overlay = overlay.to_str().unwrap();
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-b", &url, "-F", "raw", overlay]).await;
    tool("qemu-io", &["-c", "write -P 7 1000 5000", "-c", "read -P 7 1000 5000", overlay]).await;
    let status = host.status(&stand.published).await;
    assert_eq!(status.bytes.origin, 36 * PIECE);
    assert_eq!(status.bytes.origin + status.bytes.zero, status.size_bytes);
}

#[tokio::test]
async fn what_another_host_has_does_not_come_from_the_origin() {
    let stand = Stand::new(32).await;
    let first = stand.host(Prefetch::Idle).await;
    first.becomes(&stand.published, "all pieces", |status| status.pieces_local == 24).await;
    let second = stand.host(Prefetch::Off).await;
    let both = |status: &streamer_api::ImageStatus| {
        status.peers.len() == 2 && status.peers.iter().all(|peer| peer.pieces == 32)
    };
    second.becomes(&stand.published, "both peers", both).await;
    stand.check(&second, 0, 32 * PIECE).await;
    let bytes = second.status(&stand.published).await.bytes;
    assert_eq!(bytes.origin + bytes.peer, 24 * PIECE);
    // On a busy machine the other host may be slow to answer now and then; then the origin helps out, as it must.
    assert!(bytes.peer > bytes.origin, "{bytes:?}");
    assert!(first.status(&stand.published).await.bytes_uploaded >= bytes.peer);
}

/// Two hosts that both began with nothing must tell each other what they get: some engines announce a piece only to
/// peers whose bitfield they have seen.
#[tokio::test]
async fn hosts_that_began_empty_exchange_what_they_get() {
    let stand = Stand::new(16).await;
    let (first, second) = (stand.host(Prefetch::Off).await, stand.host(Prefetch::Off).await);
    // Neither waits for the other yet: the second meets both when it asks the tracker.
    let met = |status: &streamer_api::ImageStatus| status.peers.len() == 2;
    second.becomes(&stand.published, "the peers", met).await;
    for piece in [0, 4, 8, 12] {
        let before = second.status(&stand.published).await;
        let known = before.peers.iter().find(|peer| !peer.origin).unwrap().pieces;
        stand.check(&first, piece * PIECE, 512).await;
        let pieces = before.pieces_local;
        // Or it was the one to fetch it for both, and is not told what it has.
        let told = |status: &streamer_api::ImageStatus| {
            let news = status.peers.iter().any(|peer| !peer.origin && peer.pieces == known + 1);
            news || status.pieces_local == pieces + 1
        };
        second.becomes(&stand.published, "the news", told).await;
        stand.check(&second, piece * PIECE, 512).await;
    }
    // On a busy machine the other host may be slow to answer now and then; then the origin helps out, as it must.
    let from_each_other = async |host: &Daemon| host.status(&stand.published).await.bytes.peer;
    assert!(from_each_other(&first).await + from_each_other(&second).await >= PIECE);
}

#[tokio::test]
async fn a_read_waits_for_the_origin_and_completes_when_it_is_back() {
    let mut stand = Stand::new(16).await;
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 512).await;
    stand.origin.kill();
    let url = stand.nbd_url(&host);
    let raw = stand.raw.to_str().unwrap().to_owned();
    let compare = tokio::spawn(async move {
        tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", &url, &raw]).await;
    });
    let stalled = |status: &streamer_api::ImageStatus| status.stalls.waiting > 0 && status.trouble.is_some();
    let status = host.becomes(&stand.published, "a stall", stalled).await;
    assert!(!compare.is_finished());
    assert!(status.trouble.unwrap().starts_with("no peer is connected"), "it says why");
    stand.origin.again().await;
    compare.await.unwrap();
    assert_eq!(host.status(&stand.published).await.stalls.waiting, 0);
}

#[tokio::test]
async fn a_silent_peer_delays_a_read_but_little() {
    let stand = Stand::new(16).await;
    let first = stand.host(Prefetch::Idle).await;
    first.becomes(&stand.published, "all pieces", |status| status.pieces_local == 12).await;
    let second = stand.host(Prefetch::Off).await;
    second.becomes(&stand.published, "both peers", |status| status.peers.len() == 2).await;
    tool("kill", &["-STOP", &first.pid().to_string()]).await;
    stand.check(&second, 0, 512).await;
    tool("kill", &["-CONT", &first.pid().to_string()]).await;
    let status = second.status(&stand.published).await;
    assert_eq!(status.bytes.origin, PIECE, "the origin helped out");
    assert!(status.stalls.longest_ms < 3000, "{:?}", status.stalls);
}

/// What the map on disk has counted.
fn bytes_from_origin(have: &std::path::Path) -> Option<u64> {
    let bytes = std::fs::read(have).ok()?;
    Some(u64::from_le_bytes(bytes.get(24..32)?.try_into().unwrap()))
}

#[tokio::test]
async fn a_killed_daemon_keeps_its_cache_and_its_numbers() {
    let stand = Stand::new(32).await;
    let mut host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 7 * PIECE).await;
    let kept = stand.published.digest.hex();
    let have = host.folder.path().join("cache").join(&kept).join("have");
    until("the map on disk", || async { (bytes_from_origin(&have)? == 6 * PIECE).then_some(()) }).await;
    host.kill();
    host.again().await;
    // Exported before the API answers, with nothing said again.
    let map = |status: &streamer_api::ImageStatus| {
        status.piece_map.as_deref().is_some_and(|map| map.starts_with("hhhzhhhz"))
    };
    host.becomes(&stand.published, "the cache verified", map).await;
    stand.check(&host, 0, 7 * PIECE).await;
    let status = host.status(&stand.published).await;
    assert_eq!((status.bytes.origin, status.bytes.cache), (6 * PIECE, 0));
    assert_eq!(status.stalls.count, 0);
}

#[tokio::test]
async fn a_piece_tampered_with_on_disk_is_found_and_fetched_again() {
    for clean in [false, true] {
        let stand = Stand::new(16).await;
        let mut host = stand.host(Prefetch::Idle).await;
        host.becomes(&stand.published, "all pieces", |status| status.pieces_local == 12).await;
        let have = host.folder.path().join("cache").join(stand.published.digest.hex()).join("have");
        until("the map on disk", || async { (bytes_from_origin(&have)? == 12 * PIECE).then_some(()) }).await;
        if clean {
            host.stop().await
        } else {
            host.kill()
        }
        let data = std::fs::OpenOptions::new().write(true).open(host.data(&stand.published)).unwrap();
        data.write_all_at(b"tampered", 5 * PIECE + 7).unwrap();
        host.again().await;
        stand.check(&host, 4 * PIECE, 3 * PIECE).await;
        let status = host.status(&stand.published).await;
        assert_eq!(status.bytes.origin, 13 * PIECE, "one piece came twice (clean stop: {clean})");
    }
}

#[tokio::test]
async fn a_clean_stop_needs_no_verification_and_a_named_again_image_counts_as_cache() {
    let stand = Stand::new(16).await;
    let mut host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 3 * PIECE).await;
    host.stop().await;
    host.again().await;
    assert!(!host.log().contains("verifying the cache"), "{}", host.log());
    stand.check(&host, 0, 3 * PIECE).await;
    assert_eq!(host.status(&stand.published).await.bytes.origin, 3 * PIECE);

    host.client.delete_image(stand.published.digest).await.unwrap();
    host.put(&stand.published, &stand.tracker.url, Prefetch::Off).await;
    stand.check(&host, PIECE, 512).await;
    let bytes = host.status(&stand.published).await.bytes;
    assert_eq!((bytes.origin, bytes.peer, bytes.cache), (0, 0, PIECE));
}

#[tokio::test]
async fn an_image_is_evicted_only_when_it_is_not_exported() {
    let stand = Stand::new(8).await;
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 512).await;
    let digest = stand.published.digest;
    let refused = host.client.evict(digest).await.unwrap_err();
    assert!(refused.to_string().contains("exported"), "{refused}");
    host.client.delete_image(digest).await.unwrap();
    assert!(host.client.image(digest).await.is_err());
    assert!(host.client.status().await.unwrap().cache_bytes > 0);
    host.client.evict(digest).await.unwrap();
    assert_eq!(host.client.status().await.unwrap().cache_bytes, 0);
    assert!(!host.data(&stand.published).exists());
}

#[tokio::test]
async fn what_does_not_belong_together_is_refused_and_changes_nothing() {
    let stand = Stand::new(8).await;
    let host = Daemon::start("host", "").await;
    let good = source(&stand.published, &stand.tracker.url, Prefetch::Off);
    let digest = stand.published.digest;
    let text = String::from_utf8_lossy(&good.metainfo.0).into_owned();
    assert!(text.contains("4:name4:disk"));
    let with = |metainfo: Vec<u8>| streamer_api::ImageSource { metainfo: Base64(metainfo), ..good.clone() };
    let replaced = |from: &[u8], to: &[u8]| {
        let at = good.metainfo.0.windows(from.len()).position(|window| window == from).unwrap();
        [&good.metainfo.0[..at], to, &good.metainfo.0[at + from.len()..]].concat()
    };
    let other = Stand::new(4).await;
    let cases = [
        ("another digest", Digest::from_bytes([7; 32]), good.clone()),
        ("truncated metainfo", digest, with(good.metainfo.0[..good.metainfo.0.len() / 2].to_vec())),
        ("empty metainfo", digest, with(Vec::new())),
        ("another image's metainfo", digest, with(other.published.metainfo.0.clone())),
        ("a path that escapes", digest, with(replaced(b"4:name4:disk", b"4:name7:../../x"))),
        ("a public torrent", digest, with(replaced(b"7:privatei1e", b"7:privatei0e"))),
        (
            "a manifest cut short",
            digest,
            streamer_api::ImageSource { manifest: Base64(good.manifest.0[..50].to_vec()), ..good.clone() },
        ),
    ];
    for (what, digest, source) in cases {
        let refused = host.client.put_image(digest, &source).await.unwrap_err();
        let chassis::unix_http::CallError::Refused { status, code, .. } = &refused else {
            panic!("{what}: {refused}")
        };
        assert_eq!((*status, code.as_str()), (422, "invalid-image"), "{what}: {refused}");
        assert!(host.client.images().await.unwrap().is_empty(), "{what}");
    }
    assert_eq!(std::fs::read_dir(host.folder.path().join("cache")).unwrap().count(), 1, "only the lock");
}

#[tokio::test]
async fn reads_go_on_when_the_cache_is_full() {
    let stand = Stand::new(32).await;
    let host = Daemon::start("host", "cache_bytes_max = \"192KiB\"\n").await;
    host.put(&stand.published, &stand.tracker.url, Prefetch::Off).await;
    for piece in 0..32 {
        stand.check(&host, piece * PIECE, PIECE).await;
    }
    let status = host.status(&stand.published).await;
    assert!(status.trouble.unwrap().contains("the cache is full"));
    assert!(host.client.status().await.unwrap().cache_bytes <= 192 << 10);
}

#[tokio::test]
async fn a_tracker_that_is_down_is_asked_again_until_it_answers() {
    let stand = Stand::new(8).await;
    stand.tracker.down.store(true, Ordering::SeqCst);
    let host = stand.host(Prefetch::Off).await;
    let (socket, name) = (host.nbd(), stand.published.digest.hex());
    let read = tokio::task::spawn_blocking(move || Nbd::connect(&socket, &name).read(0, 4096));
    let told = |status: &streamer_api::ImageStatus| {
        status.stalls.waiting == 1 && status.trouble.as_deref().is_some_and(|text| text.contains("503"))
    };
    host.becomes(&stand.published, "the trouble told", told).await;
    stand.tracker.down.store(false, Ordering::SeqCst);
    assert!(read.await.unwrap() == stand.slice(0, 4096));
    host.becomes(&stand.published, "no trouble", |status| status.trouble.is_none()).await;
}

#[tokio::test]
async fn sixteen_reads_of_one_connection_are_answered_as_they_come() {
    let stand = Stand::new(64).await;
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 512).await;
    let (socket, name) = (host.nbd(), stand.published.digest.hex());
    let bytes = stand.bytes.clone();
    tokio::task::spawn_blocking(move || {
        let mut nbd = Nbd::connect(&socket, &name);
        let mut asked = std::collections::BTreeMap::new();
        for piece in (0..64).step_by(4) {
            let offset = piece * PIECE + 1000;
            asked.insert(nbd.ask(offset, 3000), usize::try_from(offset).unwrap());
        }
        while !asked.is_empty() {
            let offset = asked.remove(&nbd.reply()).unwrap();
            assert!(nbd.data(3000) == bytes[offset..offset + 3000]);
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_parked_read_does_not_hold_up_others() {
    let mut stand = Stand::new(16).await;
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 512).await;
    stand.origin.kill();
    let (socket, name) = (host.nbd(), stand.published.digest.hex());
    let here = stand.slice(0, 512).to_vec();
    let client = tokio::task::spawn_blocking(move || {
        let mut nbd = Nbd::connect(&socket, &name);
        let parked = nbd.ask(8 * PIECE, 512);
        for _ in 0..50 {
            assert!(nbd.read(0, 512) == here);
        }
        (nbd, parked)
    });
    let (mut nbd, parked) = client.await.unwrap();
    stand.origin.again().await;
    let late = tokio::task::spawn_blocking(move || {
        assert_eq!(nbd.reply(), parked);
        nbd.data(512)
    });
    assert!(late.await.unwrap() == stand.slice(8 * PIECE, 512));
}

#[tokio::test]
async fn publishing_the_same_bytes_again_gives_the_same_image() {
    let stand = Stand::new(8).await;
    let again = stand.origin.publish(&stand.raw, &stand.tracker.url).await;
    assert_eq!(again, stand.published);
    assert_eq!(stand.origin.client.images().await.unwrap().len(), 1);

    // Also on a host that has only a part of it: then it has all.
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 512).await;
    assert_eq!(host.publish(&stand.raw, &stand.tracker.url).await.digest, stand.published.digest);
    assert_eq!(host.status(&stand.published).await.pieces_local, 6);
}

#[tokio::test]
async fn a_publish_that_fails_says_why_and_leaves_nothing() {
    let tracker = Tracker::start().await;
    let origin = Daemon::start("origin", "").await;
    let odd = origin.folder.path().join("odd");
    std::fs::write(&odd, [1; 1000]).unwrap();
    for (path, why) in [(odd, "multiple of 512"), (origin.folder.path().join("none"), "No such file")] {
        let request = PublishRequest { path, tracker: tracker.url.clone(), piece_bytes: None, public: false };
        let error = origin.client.publish(&request, |_| {}).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(origin.client.images().await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(origin.folder.path().join("cache")).unwrap().count(), 1, "only the lock");
}

#[tokio::test]
async fn a_published_image_is_seeded_after_a_kill_and_after_its_name_is_gone() {
    let mut stand = Stand::new(8).await;
    stand.origin.client.delete_image(stand.published.digest).await.unwrap();
    stand.origin.kill();
    stand.origin.again().await;
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 8 * PIECE).await;
}

#[tokio::test]
async fn metrics_and_status_tell_what_was_fetched() {
    let stand = Stand::new(8).await;
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 512).await;
    let status = host.client.status().await.unwrap();
    assert_eq!(status.images, 1);
    assert_eq!(status.nbd_socket, host.nbd().display().to_string());
    assert!(status.free_bytes > 0);
    let socket = host.folder.path().join("api.sock");
    until("the metrics", || async {
        let text = tool("curl", &["-s", "--unix-socket", socket.to_str().unwrap(), "http://x/metrics"]).await;
        let line = format!("source=\"origin\"}} {PIECE}");
        (text.contains(&line) && text.contains("streamer_stalls_total")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let check = |daemon: &Daemon| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_collective-streamer"))
            .args(["--check-config", "--config"])
            .arg(daemon.folder.path().join("config.toml"))
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert!(check(&Daemon::prepare("host", "peer_tls = \"off\"\n")).0);
    let (good, why) = check(&Daemon::prepare("host", ""));
    assert!(!good && why.contains("peer_tls = \"off\""), "{why}");
    let (good, why) = check(&Daemon::prepare("host", "peer_tsl = \"off\"\n"));
    assert!(!good && why.contains("unknown field `peer_tsl`"), "{why}");
    let missing = "[tls]\nca = \"/nonexistent\"\ncert = \"/nonexistent\"\nkey = \"/nonexistent\"\n";
    let (good, why) = check(&Daemon::prepare("host", missing));
    assert!(!good && why.contains("/nonexistent"), "{why}");
}

#[tokio::test]
async fn deleting_an_image_drops_its_clients() {
    let mut stand = Stand::new(8).await;
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 512).await;
    stand.origin.kill();
    let (socket, name) = (host.nbd(), stand.published.digest.hex());
    let parked = tokio::task::spawn_blocking(move || {
        let mut nbd = Nbd::connect(&socket, &name);
        nbd.ask(PIECE, 512);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| nbd.reply())).is_err()
    });
    host.becomes(&stand.published, "the wait", |status| status.stalls.waiting == 1).await;
    let deleted =
        tokio::time::timeout(Duration::from_secs(10), host.client.delete_image(stand.published.digest));
    deleted.await.unwrap().unwrap();
    assert!(parked.await.unwrap(), "the connection was closed");
}
