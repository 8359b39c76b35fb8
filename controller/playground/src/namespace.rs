//! Doing one thing inside a box's network namespace.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Path of the network namespace of a process.
#[must_use]
pub fn network_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// Runs `work` on a thread of its own inside a network namespace. Sockets made there stay there; programs started
/// there run there.
///
/// # Errors
/// The namespace cannot be entered. What `work` says is inside.
pub fn run<T: Send + 'static>(network: &Path, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let network = File::open(network)?;
    std::thread::Builder::new()
        .name("in-namespace".to_owned())
        .spawn(move || {
            // The thread ends with the work, so no other work is ever done in the wrong namespace.
            setns(&network, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
        .join()
        .map_err(|_| io::Error::other("the work in the namespace panicked"))?
}
