//! A guest is served by the profile it follows, and what it waited for is written down.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stand;

use stand::{Daemon, Nbd, PIECE, Stand, source, until};
use std::time::Duration;
use streamer_api::{Happening, Limits, Prefetch, Profile, ProfileEntry, StallCause, StreamEvent};
use tokio::sync::mpsc;

fn profile(name: &str, pieces: impl IntoIterator<Item = u32>) -> Profile {
    let entries = pieces.into_iter().map(|piece| ProfileEntry { piece, at_ms: piece * 10, runs: 1 });
    Profile { name: name.to_owned(), runs: 1, entries: entries.collect() }
}

/// A host that has named the image with profiles.
async fn host(stand: &Stand, profiles: Vec<Profile>) -> Daemon {
    let host = Daemon::start("host", "").await;
    let named =
        streamer_api::ImageSource { profiles, ..source(&stand.published, &stand.tracker.url, Prefetch::Off) };
    host.client.put_image(stand.published.digest, &named).await.unwrap();
    host
}

/// Reads the beginning of pieces over one connection, as one reader.
async fn reads(stand: &Stand, host: &Daemon, reader: &str, pieces: Vec<u64>) {
    let hex = stand.published.digest.hex();
    let name = if reader.is_empty() { hex } else { format!("{hex}/{reader}") };
    let socket = host.nbd();
    let whole = stand.bytes.clone();
    tokio::task::spawn_blocking(move || {
        let mut nbd = Nbd::connect(&socket, &name);
        for piece in pieces {
            let at = usize::try_from(piece * PIECE).unwrap();
            assert!(nbd.read(piece * PIECE, 512) == whole[at..at + 512], "piece {piece}");
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_the_profile_names_is_here_before_a_guest_asks() {
    let stand = Stand::new(64).await;
    let host = host(&stand, vec![profile("boot", [40, 8, 24, 3])]).await;
    // Piece 3 is zero: nothing to fetch.
    let status = host.becomes(&stand.published, "the profile", |status| status.pieces_local == 3).await;
    assert_eq!(status.stalls.count, 0);
    let map = status.piece_map.unwrap();
    assert_eq!((&map[40..41], &map[8..9], &map[24..25]), ("h", "h", "h"));
    reads(&stand, &host, "guest", vec![8, 24, 40]).await;
    assert_eq!(host.status(&stand.published).await.stalls.count, 0);
}

#[tokio::test]
async fn a_run_tells_what_each_reader_touched_first_in_order() {
    let stand = Stand::new(32).await;
    let host = host(&stand, Vec::new()).await;
    reads(&stand, &host, "shop/web-1", vec![9, 4, 3, 9, 20]).await;
    reads(&stand, &host, "", vec![5]).await;
    // It comes back, and goes on where it was.
    reads(&stand, &host, "shop/web-1", vec![4, 6]).await;
    let left = || async {
        let runs = host.client.runs(stand.published.digest).await.unwrap();
        runs.iter().all(|run| !run.connected).then_some(runs)
    };
    let runs = until("the readers to leave", left).await;
    let pieces = |run: &streamer_api::Run| run.touched.iter().map(|touch| touch.piece).collect::<Vec<_>>();
    assert_eq!(runs.len(), 2);
    assert_eq!((runs[0].reader.as_str(), pieces(&runs[0])), ("shop/web-1", vec![9, 4, 20, 6]));
    assert_eq!((runs[1].reader.as_str(), pieces(&runs[1])), ("", vec![5]));
    assert!(runs[0].touched.is_sorted_by_key(|touch| touch.at_ms), "{:?}", runs[0].touched);
}

#[tokio::test]
async fn a_guest_that_follows_another_profile_is_switched_to_it() {
    let stand = Stand::new(128).await;
    let profiles = vec![profile("boot", 0..16), profile("other", 64..120)];
    let host = host(&stand, profiles).await;
    let (tell, mut told) = mpsc::unbounded_channel::<StreamEvent>();
    let (client, digest) = (host.client.clone(), stand.published.digest);
    let listener = tokio::spawn(async move {
        // Ends with the daemon.
        let _ = client.events(Some(digest), |event| drop(tell.send(event))).await;
    });
    let touched = [64, 65, 66, 68, 69, 70, 72, 73, 74, 76];
    let (socket, name) = (host.nbd(), format!("{}/guest", digest.hex()));
    let guest = tokio::task::spawn_blocking(move || {
        let mut nbd = Nbd::connect(&socket, &name);
        touched.iter().for_each(|piece| drop(nbd.read(piece * PIECE, 512)));
        nbd
    });
    let guest = guest.await.unwrap();
    let rest = |status: &streamer_api::ImageStatus| {
        let map = status.piece_map.clone().unwrap();
        map[64..120].chars().all(|mark| mark != '.' && mark != 'f')
    };
    let status = host.becomes(&stand.published, "the other profile's pieces", rest).await;
    assert_eq!(status.readers.len(), 1);
    assert_eq!(status.readers[0].profile.as_deref(), Some("other"));
    assert_eq!(status.readers[0].score, Some(1.0));
    assert_eq!(status.readers[0].profile_missing, 0);
    let switch = async {
        while let Some(event) = told.recv().await {
            if let Happening::Profile { reader, profile, scores } = event.what {
                return (reader, profile, scores.len());
            }
        }
        panic!("the stream of events ended");
    };
    let switch = tokio::time::timeout(Duration::from_secs(10), switch).await.unwrap();
    assert_eq!(switch, ("guest".to_owned(), Some("other".to_owned()), 2));
    drop(guest);
    listener.abort();
}

#[tokio::test]
async fn a_profile_that_fits_nobody_stops_being_fetched() {
    let stand = Stand::new(256).await;
    let mut host = Daemon::prepare("host", "peer_tls = \"off\"").up().await;
    let limits = Limits { download_bytes_per_s: Some(512 << 10), ..Limits::default() };
    host.client.set_limits(&limits).await.unwrap();
    let named = streamer_api::ImageSource {
        profiles: vec![profile("wrong", 100..256)],
        ..source(&stand.published, &stand.tracker.url, Prefetch::Off)
    };
    host.client.put_image(stand.published.digest, &named).await.unwrap();
    reads(&stand, &host, "guest", vec![0, 1, 2, 4, 5, 6, 8, 9, 10, 12]).await;
    let runs = host.client.runs(stand.published.digest).await.unwrap();
    assert_eq!(runs[0].profile, None);
    assert_eq!(runs[0].scores[0].score, 0.0);
    // What was under way may still come; the rest, more than a hundred pieces, stays where it is.
    assert!(host.status(&stand.published).await.pieces_local < 60);
    host.stop().await;
}

#[tokio::test]
async fn every_wait_is_written_down_with_who_ended_it() {
    let stand = Stand::new(64).await;
    let host = host(&stand, vec![profile("boot", [8])]).await;
    host.becomes(&stand.published, "the profile", |status| status.pieces_local == 1).await;
    reads(&stand, &host, "guest", vec![8, 20]).await;
    let ended = || async {
        let stalls = host.client.stalls(stand.published.digest).await.unwrap();
        (stalls.len() == 1).then_some(stalls)
    };
    let stall = until("the stall", ended).await.remove(0);
    assert_eq!((stall.reader.as_str(), stall.piece, stall.why), ("guest", 20, StallCause::NotInProfile));
    assert_eq!((stall.source.as_deref(), stall.profile.as_deref()), (Some("origin"), Some("boot")));
    let origin = stand.origin.client.status().await.unwrap().listen;
    assert_eq!(stall.from, Some(origin));
}

#[tokio::test]
async fn bad_profiles_are_refused_and_change_nothing() {
    let stand = Stand::new(16).await;
    let host = host(&stand, vec![profile("boot", [1])]).await;
    let twice = vec![profile("boot", [1]), profile("boot", [2])];
    let bad = [
        (vec![profile("boot", [16])], "names piece 16 of 16"),
        (vec![profile("Boot", [1])], "is no name"),
        (vec![profile("boot", [1, 1])], "names piece 1 twice"),
        (twice, "two are called"),
        ((0..17).map(|n| profile(&format!("p{n}"), [])).collect(), "17 of them"),
    ];
    for (profiles, why) in bad {
        let error = host.client.set_profiles(stand.published.digest, &profiles).await.unwrap_err();
        assert!(format!("{error:?}").contains(why), "{error:?}");
    }
    host.becomes(&stand.published, "the profile", |status| status.pieces_local == 1).await;
    // They are in force for those who come, also after a restart.
    host.client.set_profiles(stand.published.digest, &[profile("boot", [2])]).await.unwrap();
    host.becomes(&stand.published, "the new profile", |status| status.pieces_local == 2).await;
}

#[tokio::test]
async fn limits_hold_change_live_and_outlive_a_restart() {
    let mut host = Daemon::start("host", "").await;
    let none = host.client.limits().await.unwrap();
    assert_eq!(none, Limits::default());
    let small = Limits { upload_bytes_per_s: Some(100), ..Limits::default() };
    let error = host.client.set_limits(&small).await.unwrap_err();
    assert!(
        format!("{error:?}").contains("upload_bytes_per_s is 100 bytes a second: 16384 at least"),
        "{error:?}"
    );
    assert_eq!(host.client.limits().await.unwrap(), none);
    let limits = Limits { site_download_bytes_per_s: Some(1 << 20), ..Limits::default() };
    host.client.set_limits(&limits).await.unwrap();
    host.kill();
    host.again().await;
    assert_eq!(host.client.limits().await.unwrap(), limits);
    assert_eq!(host.client.status().await.unwrap().limits, limits);
}
