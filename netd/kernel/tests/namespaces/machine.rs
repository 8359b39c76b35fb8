//! Machines with a kernel of their own behind a port, and machines that pass frames on: for what needs a real TCP.

use crate::frames::{Guest, Mac};
use crate::namespace::Namespace;
use crate::world::World;
use nix::poll::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Copies frames between two taps, both ways, until dropped.
pub(crate) struct Pump {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    pub(crate) fn new(one: Guest, two: Guest) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let (one, two) = (one.into_tap(), two.into_tap());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let readable = |tap| PollFd::new(tap, PollFlags::POLLIN);
                let _ = poll(&mut [readable(one.as_fd()), readable(two.as_fd())], 20u8);
                copy(&one, &two);
                copy(&two, &one);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

/// What the other end refuses is lost, as on a real wire.
fn copy(from: &File, to: &File) {
    let mut bytes = vec![0; 70_000];
    for _ in 0..64 {
        let mut from = from;
        let Ok(length) = from.read(&mut bytes) else { return };
        let mut to = to;
        let _ = to.write(&bytes[..length]);
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A namespace whose `eth0` is a port's guest.
pub(crate) struct Machine {
    pub(crate) namespace: Namespace,
    _pump: Pump,
}

impl Machine {
    /// `address` with its prefix length.
    pub(crate) fn new(world: &World, tap: &str, mac: Mac, address: &str) -> Self {
        let namespace = Namespace::new();
        let inner = Guest::new(namespace.run(|_, _| netd_kernel::open_tap("eth0")).unwrap());
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        namespace.shell(&format!(
            "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6 && ip link set lo up && \
             ip link set dev eth0 address {mac} mtu 1450 up && ip addr add {address} dev eth0"
        ));
        let pump = Pump::new(world.guest(tap), inner);
        world.wait_until_forwarding(tap);
        Self { namespace, _pump: pump }
    }

    /// Runs beside the namespace's own thread, in the namespace.
    pub(crate) fn spawn<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.namespace.run(move |_, _| std::thread::spawn(job))
    }
}
