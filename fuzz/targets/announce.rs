//! Announces to the controller's tracker, one query a line; its answers are read by our own swarm.
#![no_main]

// The controller's daemon brings the whole of WebAssembly with it: its tracker is taken as it stands.
#[allow(dead_code)]
#[path = "../../controller/daemon/src/tracker.rs"]
mod tracker;

use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use streamer_swarm::strangers;

const FROM: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Between two announces, in milliseconds: some peers expire.
const STEP_MS: u64 = 7_000;

fuzz_target!(|text: &str| {
    let mut swarms = tracker::Tracker::default();
    for (index, query) in text.lines().enumerate() {
        let announce = match tracker::parse(query) {
            Ok(announce) => {
                let values = query.split('&').filter_map(|part| part.split_once('='));
                values.for_each(|(_, value)| {
                    assert!(!value.contains("%+") && !value.contains("%-"), "{value}")
                });
                announce
            }
            Err(reason) => {
                assert_eq!(strangers::tracker_answer(&tracker::failure(&reason)), None);
                continue;
            }
        };
        let now_ms = u64::try_from(index).unwrap_or(0) * STEP_MS;
        let answer = swarms.announce(&announce, FROM[index % 2], now_ms);
        let peers = strangers::tracker_answer(&answer).expect("our swarm reads our tracker's answer");
        assert!(peers.len() <= announce.numwant && peers.len() <= index);
    }
});
