//! Stand-ins for virtual machines: whoever opens a port's tap is its guest.

use crate::network::Namespace;
use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use playground::namespace;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use types::MacAddress;

/// Largest frame with its header that is carried, in bytes.
const FRAME_BYTES_MAX: usize = 65_550;

/// Opens a tap of a namespace, making it if there is none.
pub(super) fn open_tap(namespace: &Namespace, name: String) -> anyhow::Result<File> {
    let what = format!("open the tap {name}");
    let opened = namespace::run(&namespace.path(), move || netd_kernel::open_tap(&name));
    opened.and_then(|inner| inner).context(what)
}

/// Carries frames between two taps, both ways, until it is dropped: a cable, or a proxy that changes nothing.
pub(super) struct Cable {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cable {
    pub(super) fn between(a: File, b: File) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (a_too, b_too) = (a.try_clone()?, b.try_clone()?);
        let carry = |from: File, to: File| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || carry(from, to, &stop))
        };
        let threads = vec![carry(a, b), carry(b_too, a_too)];
        Ok(Self { stop, threads })
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn carry(mut from: File, mut to: File, stop: &AtomicBool) {
    let mut frame = vec![0_u8; FRAME_BYTES_MAX];
    while !stop.load(Ordering::Relaxed) {
        let mut polled = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::from(50_u8)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        match from.read(&mut frame) {
            // A link that is down takes nothing; so does a cable that is out.
            Ok(length) => drop(to.write(&frame[..length])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// A machine with one NIC, plugged into a port.
pub(super) struct Guest {
    pub(super) namespace: Namespace,
    _cable: Cable,
}

impl Guest {
    pub(super) fn new(
        host: &Namespace,
        tap: String,
        mac: MacAddress,
        address: Ipv4Addr,
        mtu: u16,
    ) -> anyhow::Result<Self> {
        let namespace = Namespace::new()?;
        let nic = open_tap(&namespace, "eth0".to_owned())?;
        let port = open_tap(host, tap)?;
        namespace.batch(
            "ip",
            format!(
                "link set dev lo up\nlink set dev eth0 address {mac} mtu {mtu}\nlink set dev eth0 up\n\
                 address add {address}/16 dev eth0\n"
            ),
        )?;
        Ok(Self { namespace, _cable: Cable::between(nic, port)? })
    }
}
