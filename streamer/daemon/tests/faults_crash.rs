//! The streamer is killed: under a client that reads, in the middle of fetching, and on a disk that then loses or
//! garbles what was written.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it measured")]

mod stand;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stand::{Daemon, PIECE, Stand, tool, until};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use streamer_api::Prefetch;

/// Kills of one streamer.
const KILLS: u32 = 30;
/// Most bytes of one wrong place.
const WRONG_BYTES_MAX: usize = 3 * 65536;

/// As QEMU does it under a guest: requests that were on their way are sent again over a new connection.
#[tokio::test]
async fn a_client_that_connects_again_reads_on_across_kills() {
    const PIECES: u64 = 1024;
    let stand = Stand::new(PIECES).await;
    let mut host = stand.host(Prefetch::Off).await;
    let copy = host.folder.path().join("copy.raw");
    let disk = format!(
        "driver=nbd,server.type=unix,server.path={},export={},reconnect-delay=60",
        host.nbd().display(),
        stand.published.digest.hex()
    );
    let arguments = ["convert", "-r", "12M", "--image-opts", "-O", "raw", &disk, copy.to_str().unwrap()]
        .map(str::to_owned);
    let convert = tokio::spawn(async move {
        tool("qemu-img", &arguments.each_ref().map(String::as_str)).await;
    });
    for eighths in [1, 3, 5] {
        let reached = |status: &streamer_api::ImageStatus| {
            u64::from(status.pieces_local) >= eighths * PIECES / 8 * 3 / 4
        };
        host.becomes(&stand.published, "some more", reached).await;
        assert!(!convert.is_finished(), "it is in the middle");
        host.kill();
        host.again().await;
    }
    convert.await.unwrap();
    assert!(std::fs::read(&copy).unwrap() == stand.bytes);
}

/// Garbles, zeroes or cuts off some of what was written, as a disk that lost its power may.
fn tear(data: &Path, random: &mut StdRng) {
    let file = OpenOptions::new().write(true).open(data).unwrap();
    let length = file.metadata().unwrap().len();
    for _ in 0..random.random_range(1..4) {
        let mut wrong = vec![0; random.random_range(1..WRONG_BYTES_MAX)];
        if random.random_bool(0.5) {
            random.fill(&mut wrong[..]);
        }
        let room = length.saturating_sub(wrong.len() as u64);
        file.write_all_at(&wrong, random.random_range(0..=room)).unwrap();
    }
    if random.random_bool(0.2) {
        file.set_len(random.random_range(0..=length)).unwrap();
    }
}

/// Fetches until it has so many pieces more, or all.
async fn fetches(host: &Daemon, stand: &Stand, more: u32) {
    let before = host.status(&stand.published).await.pieces_local;
    let enough = |status: &streamer_api::ImageStatus| {
        status.pieces_local >= (before + more).min(status.pieces - status.pieces_zero)
    };
    host.becomes(&stand.published, "some pieces", enough).await;
}

#[tokio::test]
async fn after_any_kill_and_any_torn_write_every_byte_is_right() {
    const PIECES: u64 = 256;
    let seed = rand::rng().random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let stand = Stand::new(PIECES).await;
    let mut host = stand.host(Prefetch::Full).await;
    let data = host.data(&stand.published);
    let have = data.with_file_name("have");
    let mut older: Option<Vec<u8>> = None;
    for _ in 0..KILLS {
        fetches(&host, &stand, random.random_range(0..48)).await;
        host.kill();
        tear(&data, &mut random);
        // Data and map need not be of the same moment.
        let newer = std::fs::read(&have).ok();
        if let Some(older) = older.as_ref().filter(|_| random.random_bool(0.3)) {
            std::fs::write(&have, older).unwrap();
        }
        older = newer.or(older);
        host.again().await;
        // Right from the first moment, while what is claimed is still being verified.
        let length = random.random_range(1..32 * PIECE);
        stand.check(&host, random.random_range(0..PIECES * PIECE - length), length).await;
    }
    stand.check(&host, 0, PIECES * PIECE).await;
    let status = host.status(&stand.published).await;
    assert_eq!(status.bytes_poisoned, 0, "what the disk lost is nobody's fault");

    // What it has now is right on the disk too, and seeded.
    host.stop().await;
    host.again().await;
    let other = stand.host(Prefetch::Off).await;
    stand.check(&other, 0, PIECES * PIECE).await;
    assert_eq!(other.status(&stand.published).await.bytes_poisoned, 0);
}

/// The map itself is garbled: what it said is not believed, and fetched again.
#[tokio::test]
async fn a_map_that_is_garbage_costs_bytes_and_no_more() {
    let stand = Stand::new(64).await;
    let mut host = stand.host(Prefetch::Full).await;
    let have = host.data(&stand.published).with_file_name("have");
    let whole = |status: &streamer_api::ImageStatus| status.pieces_local == 48;
    host.becomes(&stand.published, "all pieces", whole).await;
    until("the map on disk", || async { have.exists().then_some(()) }).await;
    for garbage in [&b""[..], b"{", b"null", &[0xff; 4096], b"{\"format\":9}"] {
        host.kill();
        std::fs::write(&have, garbage).unwrap();
        host.again().await;
        stand.check(&host, 0, 64 * PIECE).await;
        host.becomes(&stand.published, "all pieces again", whole).await;
    }
}
