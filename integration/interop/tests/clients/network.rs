//! A network namespace for each test: some clients take no peer on loopback, and none shall speak with anybody else.

use nix::sched::{CloneFlags, unshare};
use std::future::Future;
use std::process::Command;

/// Runs a test where there is nothing but this machine under four addresses.
pub(crate) fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        // Threads and processes that begin from here are inside too; the namespace goes with the last of them.
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        ip("link set lo up");
        for last in 1..=4 {
            ip(&format!("address add 10.77.0.{last}/32 dev lo"));
        }
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test());
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}
