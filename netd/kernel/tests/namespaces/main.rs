//! Real links, real rules and raw frames, in network namespaces that each test makes and that go with it.
#![allow(clippy::unwrap_used, reason = "in a test's helpers too, a panic is the failure")]

mod capture;
mod convergence;
mod explain;
mod frames;
mod isolation;
mod namespace;
mod rules;
mod tunnels;
mod world;
