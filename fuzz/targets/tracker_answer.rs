//! A tracker's answer, as the swarm reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamer_swarm::strangers;

fuzz_target!(|body: &[u8]| {
    for peer in strangers::tracker_answer(body).unwrap_or_default() {
        assert_ne!(peer.port(), 0);
    }
});
