//! The origin stops in the middle of a read. Nobody else has the disk: the guest waits, and never sees an error.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it measured")]

mod stand;

use stand::{PIECE, Stand, tool, until, until_within};
use std::time::{Duration, Instant};
use streamer_api::Prefetch;

/// Longer than a connection that says nothing is kept.
const STOP: Duration = Duration::from_secs(20);
const PIECES: u64 = 128;

#[tokio::test]
async fn a_read_waits_for_an_origin_that_stops_for_twenty_seconds() {
    let stand = Stand::new(PIECES).await;
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, 16 * PIECE).await;
    stand.origin.freeze();
    let (url, raw) = (stand.nbd_url(&host), stand.raw.to_str().unwrap().to_owned());
    let compare = tokio::spawn(async move {
        tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", &url, &raw]).await;
    });
    let began = Instant::now();
    let waits = |status: &streamer_api::ImageStatus| status.stalls.waiting > 0;
    host.becomes(&stand.published, "a stall", waits).await;
    until_within(STOP * 2, "the stop to last", || async {
        // All the time: the read neither ends nor fails.
        assert!(!compare.is_finished());
        assert!(waits(&host.status(&stand.published).await));
        (began.elapsed() >= STOP).then_some(())
    })
    .await;
    stand.origin.thaw();
    let thawed = Instant::now();
    until("the read to go on", || async { compare.is_finished().then_some(()) }).await;
    println!("read to its end {:?} after the origin went on", thawed.elapsed());
    compare.await.unwrap();
    let status = host.status(&stand.published).await;
    assert_eq!((status.stalls.waiting, status.bytes_poisoned), (0, 0));
    assert_eq!(status.bytes.origin, PIECES * PIECE * 3 / 4, "no byte was counted twice");
    assert!(status.stalls.longest_ms >= 19_000, "{:?}", status.stalls);
}
