//! Tests of the streamer with clients and tools that are not ours; see `tests`.
//!
//! They run the `collective-streamer` that lies beside them: `cargo test --workspace` builds it, `cargo test -p interop`
//! alone does not. They need root, for a network namespace each, and `transmission-daemon`.
