//! The controller's contracts: what people write ([`document`]), what the REST API answers ([`rest`], of streaming
//! [`stream`], of policies [`policy`]), and what travels between the controller and a host's agent ([`agent`]).
//!
//! The REST API is versioned by path (`/v1`) and frozen by the checked-in `openapi.json`; the agent channel ships in
//! lockstep with the daemons and carries a protocol number.

pub mod agent;
pub mod checkpoint;
pub mod document;
pub mod health;
pub mod host;
pub mod interpose;
pub mod life;
pub mod moving;
pub mod network;
pub mod planned;
pub mod policy;
pub mod recovery;
pub mod rest;
pub mod stream;
pub mod subscription;
pub mod watch;
