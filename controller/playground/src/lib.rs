//! A whole site on one machine: N hosts, their switch, a controller and an origin, each part real, in namespaces.
//!
//! Every host is a network, mount, UTS and pid namespace with its own libvirtd and our three host daemons. The switch
//! is one more such box: it holds the bridges `sw` (the underlay, 10.99.0.0/24) and `site` (the site's LAN,
//! 10.88.0.0/24), the controller, the origin's streamer, and a relay by which the machine reaches the controller at
//! `https://127.0.0.1:PORT`.
//!
//! ```text
//!   machine ── 127.0.0.1:8443 ── relay ─┐
//!                                switch │ collectived, origin streamer
//!                     sw 10.99.0.254 ───┴─── site 10.88.0.1 ("a person in the office")
//!                      │      │               │      │
//!                   h1:eth0  h2:eth0       h1:eth1  h2:eth1
//! ```
//!
//! What it is not: isolation. Everything runs as root and shares the machine's kernel, `/dev` and file system.
//!
//! Start reading at [`Playground::up`], then [`layout`] (pure: who gets which address, file and program) and [`init`]
//! (what runs as process 1 of each box).
//!
//! Invariants:
//! - No link is ever made in the machine's own network namespace, nothing is mounted in its mount namespace, and its
//!   libvirtd is not spoken to. Hence there is nothing to clean but processes and one folder.
//! - A box lives exactly as long as its process 1. A process is recorded (pid, start time, boot) before it is told to
//!   go on, and ends by itself if nobody tells it; a pid that was recycled is never signalled.
//! - `down` needs only the folder: it works after a partial `up`, after `kill -9` of it and after a reboot.

mod access;
mod controller;
mod down;
mod error;
pub mod init;
pub mod layout;
pub mod namespace;
pub mod process;
pub mod relay;
mod spawn;
mod state;
mod up;

pub use access::{DaemonStatus, Endpoint, HostStatus, Part, Playground, PlaygroundStatus};
pub use down::{Removed, down};
pub use error::PlaygroundError;
pub use up::{Config, Progress};

/// Folder of all playgrounds that are not told to live elsewhere.
pub const STATE_ROOT: &str = "/var/lib/collective/playground";

/// Folder of the playground `name` when none is chosen.
#[must_use]
pub fn default_state_dir(name: &str) -> std::path::PathBuf {
    std::path::Path::new(STATE_ROOT).join(name)
}
