//! A BitTorrent peer: its handshake, then its messages, in parts of any size. The first byte is the size of a part.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use streamer_plan::Geometry;
use streamer_swarm::strangers;
use tokio::runtime::{Builder, Runtime};

/// Before the messages, in bytes.
const HANDSHAKE: usize = 68;

fuzz_target!(|bytes: &[u8]| {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Builder::new_current_thread().build().expect("a runtime"));
    let Some((part, bytes)) = bytes.split_first() else { return };
    // The last of 10 pieces is shorter.
    let geometry = Geometry::new(9 * 65_536 + 512, 65_536).expect("a geometry");
    let _ = match runtime.block_on(strangers::handshake(bytes)) {
        Ok(_) => strangers::messages(&bytes[HANDSHAKE..], usize::from(*part), geometry),
        Err(_) => strangers::messages(bytes, usize::from(*part), geometry),
    };
});
