//! Figures of the streamer, measured beside its peers.

fn main() {}
