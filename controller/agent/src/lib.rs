//! The agent: one host's instances. It holds what the controller desired last, and makes it so.
//!
//! What this is: the wiring of libvirt (`controller-hypervisor`), netd and the streamer into instances, and the channel
//! to the controller. What it is not: it decides nothing but how and when; no policy is in here. Start reading at
//! `plan.rs` (what is to be done), then `work.rs` (how), then `host.rs` (the loop) and `channel.rs` (the controller).
//!
//! Invariants:
//! - The desired document is on disk before anything of it is done; at start the agent acts from there, controller or not.
//! - An instance starts only when its ports are ready in netd and its image is exported; its ports go only after it.
//! - A record of each incarnation is on disk before its domain exists and until it is gone.
//! - Volumes are touched by nothing but their own removal and growth.
//! - A policy that looks into a guest has a thread of its own and a share of it; nothing waits for it.
//! - Guests outlive this process, netd, the streamer and libvirtd.

mod capture;
mod chain;
mod channel;
pub mod config;
mod config_disk;
mod dirty;
mod disks;
mod facts;
pub mod fence;
mod health;
mod host;
pub mod join;
mod layout;
mod lease;
mod moving;
mod plan;
mod publish;
mod restore;
mod status;
mod store;
mod stream;
mod tunnel;
mod watch;
mod work;

pub use host::run;
