//! The one place that touches kernel networking: [`Kernel::observe`] reads what is, [`Kernel::apply`] carries out a
//! plan and chooses nothing. It works in the network namespace of the thread that opened it and calls it.
//!
//! Links go over rtnetlink, one acknowledged request at a time: the kernel's own lock is the limit, so pipelining
//! gains nothing, and a batch whose answers overflow the socket's buffer would hang. Every request has a timeout.
//!
//! # Why `nft` is a child process
//!
//! The rules are one fixed skeleton of chains (`skeleton.nft`) and sets whose elements [`netd_plan`] computes. Both are
//! written by one typed renderer and handed to `nft -f -`: one process, one atomic transaction, 5 to 10 ms. No crate
//! under a permissive licence speaks the netlink of verdict maps, concatenated intervals and counting elements
//! completely; the JSON front end cannot declare them either. Reading back is `nft -j list table`. The names in the
//! text were checked by the planner's [`netd_plan::Target`], so nothing can break out of a quoted string.
//!
//! # How damage is noticed
//!
//! After the table was put in place it is listed, and the digest of its chains becomes the name of one more, empty
//! chain (`sealed_…`). An observation that finds another digest, no seal, or elements that netd never writes reports
//! [`ObservedRules::Altered`](netd_plan::ObservedRules), and the planner replaces the table with the counters it had.
//!
//! # Offloads
//!
//! A counter counts what passes the bridge: with segmentation offload one "frame" may be 64 KiB that the NIC cuts up.

mod apply;
mod changes;
mod nft;
mod observe;
mod sysctl;
mod tap;

pub use apply::{Applied, StepError};
pub use changes::Changes;
pub use nft::{NftError, render as render_rules};
pub use observe::ObserveError;
pub use tap::open as open_tap;

use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use std::io;
use std::time::Duration;

/// Longest wait for the kernel to answer one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Receive buffer in bytes: room for the links of thousands of networks in one dump.
const RECEIVE_BYTES: usize = 8 << 20;

/// Hold of one network namespace's links and rules.
#[derive(Debug, Clone)]
pub struct Kernel {
    handle: rtnetlink::Handle,
}

/// The kernel cannot be spoken to.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a netlink socket")]
pub struct OpenError(#[source] io::Error);

impl Kernel {
    /// Opens the network namespace of the calling thread. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`]: the socket cannot be made.
    pub fn open() -> Result<Self, OpenError> {
        let socket = socket(NETLINK_ROUTE).map_err(OpenError)?;
        let (connection, handle, unsolicited): (
            _,
            _,
            UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
        ) = rtnetlink::from_socket(socket);
        drop(unsolicited);
        tokio::spawn(connection);
        Ok(Self { handle })
    }
}

/// A bound netlink socket with a large receive buffer and short acknowledgements.
fn socket(protocol: isize) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    let inner = socket.socket_mut();
    inner.bind_auto()?;
    inner.set_cap_ack(true)?;
    // Without CAP_NET_ADMIN the default buffer stays: enough for small hosts.
    let forced =
        nix::sys::socket::setsockopt(&*inner, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BYTES);
    if let Err(error) = forced {
        tracing::debug!(%error, "the netlink receive buffer stays at its default");
    }
    Ok(socket)
}
