//! Other clients in our swarms: on a public channel they fetch from us and we from them; on a private one they get
//! nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod clients;
#[path = "../../../streamer/daemon/tests/stand/mod.rs"]
mod stand;

use clients::network::alone;
use clients::stock::Stock;
use clients::transmission::Transmission;
use clients::{HOST, ORIGIN, STOCK, TRANSMISSION};
use stand::authority::Authority;
use stand::{Daemon, PIECE, Stand, Tracker, disk, until_within};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use streamer_api::Prefetch;

const PIECES: u64 = 256;
/// Transmission looks after its peers every half second, and unchokes every ten.
const PATIENCE: Duration = Duration::from_secs(120);
const PUBLIC: &str = "peer_tls = \"off\"\n";

/// A public image, its origin and its tracker.
async fn public_stand() -> Stand {
    let tracker = Tracker::start_at([0, 0, 0, 0].into()).await;
    let origin = Daemon::prepare_at(ORIGIN.into(), "origin", PUBLIC).up().await;
    publish(tracker, origin, true).await
}

async fn publish(mut tracker: Tracker, origin: Daemon, public: bool) -> Stand {
    // It listens on every address; everybody asks it by his own.
    tracker.url = tracker.url.replace("0.0.0.0", "10.77.0.1");
    let bytes = disk(PIECES);
    let raw = origin.folder.path().join("disk.raw");
    std::fs::write(&raw, &bytes).unwrap();
    let published = origin.publish_as(&raw, &tracker.url, public).await;
    tracker.announced().await;
    Stand { tracker, origin, published, bytes, raw }
}

/// One of our hosts that fetches everything.
async fn host(stand: &Stand) -> Daemon {
    let host = Daemon::prepare_at(HOST.into(), "host", PUBLIC).up().await;
    host.put(&stand.published, &stand.tracker.url, Prefetch::Full).await;
    host
}

/// Waits for a file with exactly the disk's bytes.
async fn becomes_the_disk(who: &str, path: &Path, stand: &Stand) {
    let whole = || async { std::fs::read(path).is_ok_and(|bytes| bytes == stand.bytes).then_some(()) };
    until_within(PATIENCE, &format!("{who} to have the disk"), whole).await;
}

async fn complete(torrent: &librqbit::ManagedTorrent) {
    until_within(PATIENCE, "the stock session to have everything", || async {
        torrent.stats().finished.then_some(())
    })
    .await;
}

async fn has_everything(host: &Daemon, stand: &Stand) {
    let whole =
        |status: &streamer_api::ImageStatus| status.pieces_local + status.pieces_zero == status.pieces;
    let told = || async { Some(host.status(&stand.published).await).filter(whole) };
    let status = until_within(PATIENCE, "all pieces", told).await;
    assert_eq!(status.bytes_poisoned, 0);
    stand.check(host, 0, PIECES * PIECE).await;
}

#[test]
fn transmission_fetches_from_us_byte_for_byte() {
    alone(|| async {
        let stand = public_stand().await;
        let other = Transmission::join(&stand.published);
        becomes_the_disk("transmission", &other.data(), &stand).await;
        let sent = stand.origin.status(&stand.published).await.bytes_uploaded;
        assert!(sent >= PIECES * PIECE * 3 / 4, "{sent} bytes sent");
    });
}

#[test]
fn we_fetch_from_transmission_alone_byte_for_byte() {
    alone(|| async {
        let mut stand = public_stand().await;
        let other = Transmission::start(Some((&stand.bytes, &stand.published)));
        stand.tracker.knows(TRANSMISSION.into()).await;
        stand.origin.kill();
        let host = host(&stand).await;
        has_everything(&host, &stand).await;
        let bytes = host.status(&stand.published).await.bytes;
        assert_eq!((bytes.origin, bytes.peer), (0, PIECES * PIECE * 3 / 4));
        drop(other);
    });
}

#[test]
fn a_stock_session_fetches_from_us_byte_for_byte() {
    alone(|| async {
        let stand = public_stand().await;
        let other = Stock::start().await;
        let torrent = other.join(&stand.published).await;
        complete(&torrent).await;
        becomes_the_disk("the stock session", &other.data(), &stand).await;
        other.stop().await;
    });
}

#[test]
fn we_fetch_from_a_stock_session_alone_byte_for_byte() {
    alone(|| async {
        let mut stand = public_stand().await;
        let other = Stock::start().await;
        std::fs::write(other.data(), &stand.bytes).unwrap();
        let torrent = other.join(&stand.published).await;
        complete(&torrent).await;
        stand.tracker.knows(STOCK.into()).await;
        stand.origin.kill();
        let host = host(&stand).await;
        has_everything(&host, &stand).await;
        let bytes = host.status(&stand.published).await.bytes;
        assert_eq!((bytes.origin, bytes.peer), (0, PIECES * PIECE * 3 / 4));
        other.stop().await;
    });
}

#[test]
fn a_swarm_of_all_three_completes() {
    alone(|| async {
        let stand = public_stand().await;
        let (transmission, stock) = (Transmission::join(&stand.published), Stock::start().await);
        let torrent = stock.join(&stand.published).await;
        stand.tracker.knows(TRANSMISSION.into()).await;
        stand.tracker.knows(STOCK.into()).await;
        let host = host(&stand).await;
        has_everything(&host, &stand).await;
        complete(&torrent).await;
        becomes_the_disk("the stock session", &stock.data(), &stand).await;
        becomes_the_disk("transmission", &transmission.data(), &stand).await;
        stock.stop().await;
    });
}

#[test]
fn on_a_private_channel_another_client_gets_nothing() {
    alone(|| async {
        let tracker = Tracker::start_at([0, 0, 0, 0].into()).await;
        let authority = Authority::new();
        let origin = Daemon::prepare_at(ORIGIN.into(), "origin", "");
        let stand = publish(tracker, authority.certify(origin, "origin", &authority).await, false).await;
        let (transmission, stock) = (Transmission::join(&stand.published), Stock::start().await);
        stock.join(&stand.published).await;
        // The session dials from whichever address is nearest: the one it dials.
        for stranger in [TRANSMISSION, ORIGIN] {
            let remote = format!("\"remote\":\"{}:", IpAddr::from(stranger));
            let refused =
                |line: &str| line.contains("a peer failed to shake hands") && line.contains(&remote);
            let seen = || async { stand.origin.log().lines().any(refused).then_some(()) };
            until_within(PATIENCE, &format!("an attempt of {remote}"), seen).await;
        }

        // Who belongs to it is served meanwhile.
        let host = Daemon::prepare_at(HOST.into(), "host", "");
        let host = authority.certify(host, "host", &authority).await;
        host.put(&stand.published, &stand.tracker.url, Prefetch::Full).await;
        has_everything(&host, &stand).await;
        assert!(!transmission.data().exists());
        for theirs in [transmission.part(), stock.data()] {
            // A file without a byte that is not zero, or none.
            assert!(std::fs::read(theirs).unwrap_or_default().iter().all(|byte| *byte == 0));
        }
        assert_eq!(stand.origin.status(&stand.published).await.bytes_uploaded, PIECES * PIECE * 3 / 4);
        stock.stop().await;
    });
}
