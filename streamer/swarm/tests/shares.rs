//! Who gets how much: limits, urgency, sites.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stand;

use stand::{Host, Stand, image, until};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use streamer_plan::Background;
use streamer_swarm::{Limits, Role};
use tokio::time::Instant;

const MIB: u64 = 1 << 20;

fn rate(mib: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(mib * MIB)
}

/// Bytes a second while so many more bytes are counted.
async fn measure(counter: &AtomicU64, bytes: u64) -> u64 {
    let (before, began) = (counter.load(Ordering::Relaxed), Instant::now());
    let counted = until("bytes", async || {
        let counted = counter.load(Ordering::Relaxed) - before;
        (counted >= bytes).then_some(counted)
    })
    .await;
    counted * 1000 / u64::try_from(began.elapsed().as_millis().max(1)).unwrap()
}

/// Within a tenth, and a piece at both ends of the measurement.
fn holds(measured: u64, mib: u64, over: u64) -> bool {
    let limit = mib * MIB;
    let slack = limit / 10 + limit * 2 * u64::from(stand::PIECE) / over;
    // Below only because the machine is busy.
    measured <= limit + slack && measured >= limit / 2
}

#[tokio::test]
async fn a_download_limit_holds_and_changes_live() {
    let stand = Stand::new(512).await;
    stand.host.engine.set_limits(Limits { download: rate(2), ..Limits::default() });
    stand.host.seeders(1).await;
    stand.host.torrent.set_background(Background::Full);
    for mib in [2, 6] {
        stand.host.engine.set_limits(Limits { download: rate(mib), ..Limits::default() });
        measure(&stand.host.shelf.stored, MIB / 2).await;
        let measured = measure(&stand.host.shelf.stored, 2 * mib * MIB).await;
        assert!(holds(measured, mib, 2 * mib * MIB), "{measured} at {mib} MiB/s");
    }
    stand.host.engine.set_limits(Limits::default());
    until("the rest", async || stand.host.shelf.held.lock().unwrap().is_full().then_some(())).await;
}

#[tokio::test]
async fn an_upload_limit_holds_and_changes_live() {
    let stand = Stand::new(512).await;
    stand.origin.engine.set_limits(Limits { upload: rate(2), ..Limits::default() });
    stand.host.seeders(1).await;
    stand.host.torrent.set_background(Background::Full);
    for mib in [2, 6] {
        stand.origin.engine.set_limits(Limits { upload: rate(mib), ..Limits::default() });
        measure(&stand.origin.shelf.sent, MIB / 2).await;
        let measured = measure(&stand.origin.shelf.sent, 2 * mib * MIB).await;
        assert!(holds(measured, mib, 2 * mib * MIB), "{measured} at {mib} MiB/s");
        let told = stand.host.torrent.status().await.down_bytes_per_s;
        assert!(told > 0 && told < 2 * mib * MIB, "{told}");
    }
}

#[tokio::test]
async fn the_limit_of_other_sites_leaves_neighbours_alone() {
    let (truth, tracker) = (image(128), stand::tracker::Tracker::start().await);
    let neighbour = Host::with(stand::Shelf::new(&truth, true), &tracker.url, Role::Host, Some("a")).await;
    let near = Host::start(&truth, &tracker.url, Role::Host, Some("a")).await;
    let far = Host::start(&truth, &tracker.url, Role::Host, Some("b")).await;
    let limits = Limits { far_upload: rate(1), far_download: rate(1), ..Limits::default() };
    [&neighbour, &near, &far].iter().for_each(|host| host.engine.set_limits(limits));
    far.seeders(1).await;
    far.torrent.set_background(Background::Full);
    near.seeders(1).await;
    let began = Instant::now();
    near.torrent.set_background(Background::Full);
    until("the whole image", async || near.shelf.held.lock().unwrap().is_full().then_some(())).await;
    let took = began.elapsed();
    // At the limit it would take eight seconds.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(!far.shelf.held.lock().unwrap().is_full());
}

#[tokio::test]
async fn what_a_guest_waits_for_passes_a_full_upload_queue() {
    let (truth, tracker) = (image(1024), stand::tracker::Tracker::start().await);
    let origin = Host::start(&truth, &tracker.url, Role::Origin, None).await;
    // Of different sites, so that all of them ask the origin.
    let mut crowd = Vec::new();
    for site in ["a", "b", "c", "d", "e", "f"] {
        crowd.push(Host::start(&truth, &tracker.url, Role::Host, Some(site)).await);
    }
    let guest = Host::start(&truth, &tracker.url, Role::Host, Some("g")).await;
    guest.seeders(1).await;
    origin.engine.set_limits(Limits { upload: rate(4), ..Limits::default() });
    for host in &crowd {
        host.seeders(1).await;
        host.torrent.set_background(Background::Full);
    }
    measure(&origin.shelf.sent, 2 * MIB).await;
    let mut waits = Vec::new();
    for piece in (0..20).map(|index| index * 50) {
        if !guest.shelf.holds(piece) {
            waits.push(guest.read(piece).await);
        }
    }
    waits.sort();
    // A piece takes 16 ms at the limit; in line behind the crowd's windows it would take six times 64 ms.
    let median = waits[waits.len() / 2];
    assert!(median < Duration::from_millis(120), "{waits:?}");
}
