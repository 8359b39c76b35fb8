//! A web server's answer to a request for a part of an image. The first byte says which part was asked for, the second
//! the size of the parts the body arrives in; then the status and the `Content-Range`, a line each, then the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use streamer_plan::Geometry;
use streamer_swarm::strangers;
use tokio::runtime::{Builder, Runtime};

fuzz_target!(|bytes: &[u8]| {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime =
        RUNTIME.get_or_init(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
    let [asked, part, rest @ ..] = bytes else { return };
    let mut lines = rest.splitn(3, |byte| *byte == b'\n');
    let status = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse().ok());
    let (said, body) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    // The last of 10 pieces is shorter.
    let geometry = Geometry::new(9 * 65_536 + 512, 65_536).expect("a geometry");
    let (piece, index) = (u32::from(asked % 10), u32::from(asked / 10 % 4));
    if index >= geometry.blocks(piece) {
        return;
    }
    let from = geometry.block(piece, index);
    let answer =
        strangers::web_seed_answer(geometry, from, status.unwrap_or(206), said, body, usize::from(*part));
    if let Some(taken) = runtime.block_on(answer) {
        // What is handed on is the beginning of the body, and no more than was asked for.
        assert!(body.starts_with(&taken));
        assert!(taken.len() <= (geometry.length(piece) - from.begin) as usize);
    }
});
