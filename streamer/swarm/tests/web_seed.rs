//! A web server as the last resort, or as the only source.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stand;

use stand::web::{Manner, Web};
use stand::{Host, Stand, image, until};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use streamer_plan::Background;
use streamer_swarm::{From, Role};

const PIECES: u32 = 16;
const NO_TRACKER: &str = "http://127.0.0.1:1/announce";

/// A host with nothing but a web seed.
async fn alone(manner: Manner) -> (Arc<Vec<u8>>, Web, Host) {
    let truth = image(PIECES);
    let web = Web::start(&truth, manner).await;
    let host = Host::start(&truth, NO_TRACKER, Role::Host, None).await;
    host.torrent.set_web_seed(Some(web.url.clone()));
    (truth, web, host)
}

/// Waits until it is said why the web seed is of no use.
async fn trouble(host: &Host) -> String {
    until("trouble", async || host.torrent.status().await.web_seed_trouble).await
}

#[tokio::test]
async fn a_web_seed_alone_brings_the_whole_image() {
    let (_truth, web, host) = alone(Manner::Fine).await;
    host.torrent.set_swarm(false);
    host.read(5).await;
    let peers = host.torrent.status().await.peers;
    assert!(matches!(&peers[..], [peer] if peer.web_seed && web.url.contains(&peer.address.to_string())));
    host.torrent.set_background(Background::Full);
    until("the whole image", async || host.shelf.held.lock().unwrap().is_full().then_some(())).await;
    assert_eq!(host.shelf.pieces_from(From::WebSeed), PIECES as usize);
    // A range a piece, but for those that were asked for twice on a busy machine.
    let requests = web.requests.load(Ordering::Relaxed);
    assert!(requests <= 2 * PIECES as usize, "{requests}");
}

#[tokio::test]
async fn a_web_seed_is_not_asked_for_what_a_peer_has() {
    let stand = Stand::new(PIECES).await;
    let web = Web::start(&stand.truth, Manner::Fine).await;
    stand.host.seeders(1).await;
    stand.host.torrent.set_web_seed(Some(web.url.clone()));
    stand.host.peers("the web seed", |peers| peers.len() == 2).await;
    stand.host.read(3).await;
    assert_eq!(web.requests.load(Ordering::Relaxed), 0);
    stand.origin.engine.shutdown().await;
    stand.host.read(9).await;
    assert_eq!(stand.host.shelf.pieces_from(From::WebSeed), 1);
}

#[tokio::test]
async fn without_the_swarm_no_peer_is_asked_and_with_it_again_it_is() {
    let stand = Stand::new(PIECES).await;
    stand.host.seeders(1).await;
    stand.host.torrent.set_swarm(false);
    stand.host.peers("nobody", <[_]>::is_empty).await;
    let web = Web::start(&stand.truth, Manner::Fine).await;
    stand.host.torrent.set_web_seed(Some(web.url.clone()));
    stand.host.read(3).await;
    assert_eq!(stand.host.shelf.pieces_from(From::WebSeed), 1);
    stand.host.torrent.set_web_seed(None);
    stand.host.torrent.set_swarm(true);
    stand.host.read(4).await;
    // Reading on in order brings the next one too.
    assert!(stand.host.shelf.pieces_from(From::Origin) >= 1);
    assert_eq!(stand.host.shelf.pieces_from(From::WebSeed), 1);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_or_answers_another_is_refused() {
    for (manner, why) in [(Manner::IgnoresRanges, "ignores ranges"), (Manner::WrongRange, "another range")] {
        let (_truth, web, host) = alone(manner).await;
        let read = host.torrent.fetch(3..4, vec![3]);
        tokio::select! {
            () = read => panic!("it cannot have come"),
            trouble = trouble(&host) => assert!(trouble.contains(why), "{trouble}"),
        }
        assert!(!host.shelf.holds(3));
        assert_eq!(web.requests.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_server_that_sends_wrong_bytes_is_banned() {
    let (_truth, _web, host) = alone(Manner::WrongBytes).await;
    let read = host.torrent.fetch(3..4, vec![3]);
    tokio::select! {
        () = read => panic!("it cannot have come"),
        trouble = trouble(&host) => assert!(trouble.contains("wrong bytes"), "{trouble}"),
    }
    assert_eq!(host.shelf.poisoned(), 1);
    assert!(!host.shelf.holds(3));
}

#[tokio::test]
async fn a_server_that_fails_is_asked_again_and_helps_when_it_is_well() {
    for (manner, why) in [(Manner::Fails, "503"), (Manner::CutsShort, "")] {
        let (_truth, web, host) = alone(manner).await;
        let read = host.read(3);
        let heal = async {
            let trouble = trouble(&host).await;
            assert!(trouble.contains(why), "{trouble}");
            *web.manner.lock().unwrap() = Manner::Fine;
        };
        futures::join!(read, heal);
        assert_eq!(host.torrent.status().await.web_seed_trouble, None);
    }
}
