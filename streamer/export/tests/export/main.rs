//! The server as its clients see it, byte by byte and through the tools people use.
#![expect(clippy::unwrap_used, reason = "tests")]

mod fuse;
mod negotiation;
mod support;
mod tools;
mod transmission;
