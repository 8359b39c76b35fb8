//! Peers that fail, or mean ill: a read may take a little longer, and is right.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it measured")]

mod stand;

use stand::rogue::{Manner, Rogue};
use stand::{Daemon, Nbd, PIECE, Stand};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use streamer_api::Prefetch;

/// A machine with more to do than this test may take so long to get round to an answer: by itself a stuck peer is
/// overtaken after a tenth of a second.
const OVERTAKEN: Duration = Duration::from_millis(1500);

/// How long a peer may owe a piece that somebody waits for.
const PATIENCE: Duration = Duration::from_millis(100);

/// A disk with rogues in its swarm, and a host that is connected to everybody.
async fn beset(pieces: u64, manners: &[Manner]) -> (Stand, Daemon, Vec<Rogue>) {
    let stand = Stand::new(pieces).await;
    let mut rogues = Vec::new();
    for manner in manners {
        let rogue = Rogue::start(&stand, *manner).await;
        stand.tracker.add(rogue.address);
        rogues.push(rogue);
    }
    let host = stand.host(Prefetch::Off).await;
    let all = |status: &streamer_api::ImageStatus| {
        status.peers.iter().filter(|peer| u64::from(peer.pieces) == pieces).count() == manners.len() + 1
    };
    host.becomes(&stand.published, "all peers", all).await;
    (stand, host, rogues)
}

/// Reads the first bytes of each of these pieces in turn, over one connection: how long each read took, longest last.
async fn read_each(stand: &Stand, host: &Daemon, pieces: Vec<u64>) -> Vec<Duration> {
    let (socket, name) = (host.nbd(), stand.published.digest.hex());
    let wanted: Vec<_> =
        pieces.into_iter().map(|piece| (piece, stand.slice(piece * PIECE, 4096).to_vec())).collect();
    let read = move || {
        let mut nbd = Nbd::connect(&socket, &name);
        let mut took: Vec<Duration> = wanted
            .into_iter()
            .map(|(piece, bytes)| {
                let began = Instant::now();
                assert!(nbd.read(piece * PIECE, 4096) == bytes, "piece {piece} differs");
                began.elapsed()
            })
            .collect();
        took.sort();
        took
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// What no read of a hundred takes longer than.
fn p99(took: &[Duration]) -> Duration {
    took[(took.len() * 99).div_ceil(100) - 1]
}

fn data_pieces(pieces: u64) -> Vec<u64> {
    (0..pieces).filter(|piece| piece % 4 != 3).collect()
}

async fn one_rogue_delays_but_little(manner: Manner) {
    let (stand, host, rogues) = beset(64, &[manner]).await;
    let took = read_each(&stand, &host, data_pieces(64)).await;
    assert!(rogues[0].asked.load(Ordering::SeqCst) > 0, "it had its chance");
    assert!(p99(&took) < OVERTAKEN, "{manner:?}: {took:?}");
    assert!(took[took.len() / 2] < PATIENCE, "it is not believed again and again: {took:?}");
    stand.check(&host, 0, 64 * PIECE).await;
    let status = host.status(&stand.published).await;
    assert_eq!(status.bytes.origin + status.bytes.peer, 48 * PIECE);
    assert_eq!(status.bytes_poisoned > 0, manner == Manner::Poisons);
    println!("{manner:?}: p50 {:?}, p99 {:?}", took[took.len() / 2], p99(&took));
}

#[tokio::test]
async fn a_peer_that_never_answers_delays_a_read_but_little() {
    one_rogue_delays_but_little(Manner::Silent).await;
}

#[tokio::test]
async fn a_peer_that_poisons_delays_a_read_but_little() {
    one_rogue_delays_but_little(Manner::Poisons).await;
}

#[tokio::test]
async fn a_peer_that_sends_less_than_was_asked_delays_a_read_but_little() {
    one_rogue_delays_but_little(Manner::CutsShort).await;
}

#[tokio::test]
async fn a_peer_that_hangs_up_in_the_middle_of_a_block_delays_a_read_but_little() {
    one_rogue_delays_but_little(Manner::HangsUp).await;
}

#[tokio::test]
async fn a_peer_that_drips_delays_a_read_but_little() {
    one_rogue_delays_but_little(Manner::Drips).await;
}

#[tokio::test]
async fn blocks_in_another_order_than_asked_for_are_put_together() {
    let (mut stand, host, rogues) = beset(64, &[Manner::Reorders]).await;
    // Alone with it: every byte is of its.
    stand.origin.kill();
    stand.check(&host, 0, 64 * PIECE).await;
    let status = host.status(&stand.published).await;
    assert_eq!((status.bytes.peer, status.bytes_poisoned), (48 * PIECE, 0));
    assert!(rogues[0].asked.load(Ordering::SeqCst) >= 48 * PIECE / 16384);
}

#[tokio::test]
async fn among_rogues_of_all_kinds_every_byte_is_right() {
    let (stand, host, _rogues) = beset(256, &Manner::ALL).await;
    let took = read_each(&stand, &host, data_pieces(256)).await;
    assert!(p99(&took) < OVERTAKEN, "{took:?}");
    host.put(&stand.published, &stand.tracker.url, Prefetch::Full).await;
    let whole = |status: &streamer_api::ImageStatus| status.pieces_local == 192;
    host.becomes(&stand.published, "all pieces", whole).await;
    stand.check(&host, 0, 256 * PIECE).await;
    println!("all kinds: p50 {:?}, p99 {:?}", took[took.len() / 2], p99(&took));
}

/// Another host is asked first. It is stopped in the middle of the reads: what it owes comes from the origin.
#[tokio::test]
async fn a_host_that_freezes_or_dies_owing_a_piece_is_overtaken() {
    let stand = Stand::new(128).await;
    let mut other = stand.host(Prefetch::Full).await;
    other.becomes(&stand.published, "all pieces", |status| status.pieces_local == 96).await;
    let host = stand.host(Prefetch::Off).await;
    let both = |status: &streamer_api::ImageStatus| {
        status.peers.iter().filter(|peer| peer.pieces == 128).count() == 2
    };
    host.becomes(&stand.published, "both peers", both).await;
    let pieces = data_pieces(128);
    let mut took = read_each(&stand, &host, pieces[..24].to_vec()).await;
    assert!(host.status(&stand.published).await.bytes.peer > 0, "the other host is asked first");

    other.freeze();
    let frozen = read_each(&stand, &host, pieces[24..48].to_vec()).await;
    other.thaw();
    host.becomes(&stand.published, "both peers again", both).await;
    let thawed = read_each(&stand, &host, pieces[48..72].to_vec()).await;
    // It owes what is asked of it while it is frozen; then it is gone for good.
    other.freeze();
    let reads = read_each(&stand, &host, pieces[72..96].to_vec());
    let (dying, ()) = tokio::join!(reads, async { other.kill() });
    println!("frozen: longest {:?}; killed: longest {:?}", frozen.last().unwrap(), dying.last().unwrap());
    took.extend(frozen.into_iter().chain(thawed).chain(dying));
    took.sort();
    assert!(p99(&took) < OVERTAKEN, "{took:?}");
    stand.check(&host, 0, 128 * PIECE).await;
}
