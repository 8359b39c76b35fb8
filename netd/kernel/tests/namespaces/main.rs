//! Real links, real rules and raw frames, in network namespaces that each test makes and that go with it.
#![allow(clippy::unwrap_used, reason = "in a test's helpers too, a panic is the failure")]

mod capture;
mod convergence;
mod explain;
mod frames;
mod hostile;
mod isolation;
mod killed;
mod machine;
mod mirror;
mod moves;
mod namespace;
mod nftables;
mod prefixes;
mod router;
mod rules;
mod shape;
mod tunnels;
mod wire;
mod world;
