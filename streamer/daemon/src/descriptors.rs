//! File descriptors: one for each image, each peer and each client.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many as the system allows. The usual 1024 are for programs that `select`, which nothing here does.
pub(crate) fn take_all() {
    let allowed = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: allowed.maximum, ..allowed }) {
        tracing::warn!(%error, "file descriptors stay few: there cannot be many images");
    }
}
