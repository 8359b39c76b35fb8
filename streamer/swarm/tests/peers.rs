//! Peers and trackers that misbehave, on real sockets: the guest gets its pieces all the same.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stand;

use stand::puppet::{Manner, Puppet};
use stand::{HASH, Host, Stand, image, until};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use streamer_plan::{Background, PATIENCE};
use streamer_swarm::{From, Notice, Role};

const PIECES: u32 = 32;

/// A host that knows the origin and a puppet.
async fn with_puppet(manner: Manner) -> (Stand, Puppet) {
    let stand = Stand::new(PIECES).await;
    let puppet = Puppet::start(&stand.truth, manner).await;
    stand.tracker.add(puppet.address);
    stand.host.seeders(2).await;
    (stand, puppet)
}

#[tokio::test]
async fn a_frozen_peer_is_overtaken_while_a_guest_waits() {
    let (stand, puppet) = with_puppet(Manner::Frozen).await;
    let waited = stand.host.read(3).await;
    assert!(puppet.asked.load(Ordering::Relaxed) > 0, "it was asked first");
    // Far from the second that slow peers are given when nobody waits; the rest is for a busy machine.
    assert!(waited < PATIENCE + Duration::from_millis(400), "{waited:?}");
}

#[tokio::test]
async fn a_dripping_peer_is_overtaken_while_a_guest_waits() {
    let (stand, puppet) = with_puppet(Manner::Drips).await;
    let waited = stand.host.read(3).await;
    assert!(puppet.asked.load(Ordering::Relaxed) > 0, "it was asked first");
    assert!(waited < PATIENCE + Duration::from_millis(400), "{waited:?}");
}

#[tokio::test]
async fn a_peer_that_answers_out_of_order_is_understood() {
    let truth = image(PIECES);
    let (tracker, puppet) =
        (stand::tracker::Tracker::start().await, Puppet::start(&truth, Manner::Reorders).await);
    tracker.add(puppet.address);
    let host = Host::start(&truth, &tracker.url, Role::Host, None).await;
    host.seeders(1).await;
    for piece in 0..8 {
        host.read(piece).await;
    }
    assert_eq!(host.shelf.poisoned(), 0);
}

#[tokio::test]
async fn a_peer_that_hangs_up_in_the_middle_of_a_block_does_no_harm() {
    let (stand, puppet) = with_puppet(Manner::Truncates).await;
    for piece in 0..8 {
        stand.host.read(piece).await;
    }
    assert!(puppet.asked.load(Ordering::Relaxed) > 0);
    assert_eq!(stand.host.shelf.poisoned(), 0);
}

#[tokio::test]
async fn a_poisoned_piece_is_never_kept_and_its_sender_is_banned() {
    let (stand, puppet) = with_puppet(Manner::Poisons).await;
    // Not in order: then nothing is read ahead.
    for piece in 0..8 {
        stand.host.read(piece * 3).await;
    }
    // One lie is enough: it is not asked again.
    assert_eq!(stand.host.shelf.poisoned(), 1);
    assert_eq!(stand.host.shelf.pieces_from(From::Origin), 8);
    let poisoned = |notice: &Notice| *notice == Notice::Poisoned { piece: 0, address: Some(puppet.address) };
    assert!(stand.host.shelf.notices.lock().unwrap().iter().any(poisoned), "the culprit is named");
    let peers = stand.host.torrent.status().await.peers;
    assert!(peers.iter().all(|peer| peer.address != puppet.address));
}

#[tokio::test]
async fn a_peer_that_floods_or_cuts_blocks_otherwise_is_dropped() {
    for manner in [Manner::Floods, Manner::CutsBlocks] {
        let (stand, puppet) = with_puppet(manner).await;
        stand.host.read(3).await;
        let gone =
            |peers: &[streamer_swarm::PeerStatus]| peers.iter().all(|peer| peer.address != puppet.address);
        stand.host.peers("the puppet to be dropped", gone).await;
        stand.host.read(4).await;
        assert_eq!(puppet.connections.load(Ordering::Relaxed), 1, "{manner:?} is not dialled again");
    }
}

#[tokio::test]
async fn a_tracker_that_lies_delays_nobody_for_ever() {
    let truth = image(PIECES);
    let tracker = stand::tracker::Tracker::start().await;
    {
        let mut state = tracker.state.lock().unwrap();
        state.lies = vec![b"<html>".to_vec(), b"d8:intervali-5e5:peers3:abce".to_vec(), vec![b'l'; 2 << 20]];
        state.names_askers = true;
        // Nobody is there, and the system says so at once.
        state.more = (1..3_000).map(|port| SocketAddr::from(([127, 0, 0, 9], port))).collect();
    }
    // It serves another torrent.
    let other_hash = [9; 20];
    let other = Host::start(&truth, "http://127.0.0.1:1/announce", Role::Origin, None).await;
    other.engine.remove(HASH).await;
    other.engine.add(other_hash, stand::Shelf::new(&truth, true) as _, "http://127.0.0.1:1/announce".into());
    tracker.add(other.engine.local_addr());
    // Somebody who would help is named last.
    let seeder = Host::start(&truth, "http://127.0.0.1:1/announce", Role::Host, None).await;
    seeder.engine.remove(HASH).await;
    seeder.engine.add(HASH, stand::Shelf::new(&truth, true) as _, "http://127.0.0.1:1/announce".into());
    tracker.add(seeder.engine.local_addr());
    let host = Host::start(&truth, &tracker.url, Role::Host, None).await;
    host.read(5).await;
    assert_eq!(host.shelf.pieces_from(From::Peer), 1);
}

#[tokio::test]
async fn peers_join_and_leave_while_it_runs() {
    let stand = Stand::new(PIECES).await;
    stand.host.read(0).await;
    let late = Host::start(&stand.truth, &stand.tracker.url, Role::Host, None).await;
    late.read(0).await;
    stand.host.peers("two peers", |peers| peers.len() == 2).await;
    late.engine.shutdown().await;
    stand.host.peers("one peer", |peers| peers.len() == 1).await;
    let address = late.engine.local_addr();
    let left = |notice: &Notice| matches!(notice, Notice::Left { .. });
    until("the notice", async || stand.host.shelf.notices.lock().unwrap().iter().any(left).then_some(()))
        .await;
    assert_ne!(address.port(), 0);
    stand.host.read(1).await;
}

#[tokio::test]
async fn sites_are_told_and_decide_who_is_near() {
    let (truth, tracker) = (image(PIECES), stand::tracker::Tracker::start().await);
    let start = |site: Option<&'static str>| Host::start(&truth, &tracker.url, Role::Host, site);
    let (here, beside, away, nowhere) =
        (start(Some("a")).await, start(Some("a")).await, start(Some("b")).await, start(None).await);
    until("a neighbour", async || (near(&here, &beside).await == Some(true)).then_some(())).await;
    until("a stranger", async || (near(&here, &away).await == Some(false)).then_some(())).await;
    until("one of no site", async || (near(&beside, &nowhere).await == Some(false)).then_some(())).await;
    let other = start(None).await;
    until("two of no site", async || (near(&nowhere, &other).await == Some(true)).then_some(())).await;
}

/// Is it near, as `host` sees it? Only a dialled peer's own address is known: the later one has dialled.
async fn near(of: &Host, host: &Host) -> Option<bool> {
    let port = of.engine.local_addr().port();
    let peers = host.torrent.status().await.peers;
    peers.iter().find(|peer| peer.address.port() == port).map(|peer| peer.near)
}

#[tokio::test]
async fn sixty_four_hosts_of_a_site_know_each_other() {
    const HOSTS: usize = 64;
    let (truth, tracker) = (image(2), stand::tracker::Tracker::start().await);
    let mut hosts = Vec::new();
    for _ in 0..HOSTS {
        hosts.push(Host::start(&truth, &tracker.url, Role::Host, Some("office")).await);
    }
    for host in &hosts {
        host.peers("all others", |peers| peers.iter().filter(|peer| peer.near).count() == HOSTS - 1).await;
    }
    // One copy comes from the origin: the others get it from each other.
    let origin = Host::start(&truth, &tracker.url, Role::Origin, None).await;
    hosts.iter().for_each(|host| host.torrent.set_background(Background::Full));
    for host in &hosts {
        until("the whole image", async || host.shelf.held.lock().unwrap().is_full().then_some(())).await;
    }
    let sent = origin.shelf.sent.load(Ordering::Relaxed);
    assert!(sent >= truth.len() as u64 && sent < 16 * truth.len() as u64, "{sent}");
}
