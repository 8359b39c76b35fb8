//! The one place that touches kernel networking: [`Kernel::observe`] reads what is, [`Kernel::apply`] carries out a
//! plan and chooses nothing. It works in the network namespace of the thread that opened it and calls it.
//!
//! Links go over rtnetlink, one acknowledged request at a time: the kernel's own lock is the limit, so pipelining
//! gains nothing, and a batch whose answers overflow the socket's buffer would hang. Every answer has a timeout. A link
//! of ours is known by its index since it was observed or made: the index never becomes another link's, as a name can,
//! so that no step has to look first.
//!
//! # What `nft` is for
//!
//! The rules are one fixed skeleton of chains (`skeleton.nft`) and sets whose elements [`netd_plan`] computes. The child
//! process `nft` compiles the skeleton once, in an empty namespace; what the kernel then shows of it is put in place over
//! netlink, in one atomic batch with all elements and their counters. It never sees an element: it would read all there
//! are before it adds one, and its listings take seconds. So of a large host a change of one port takes a millisecond,
//! and an observation starts no process (but on hosts with watchers, limits or held ports, see `mirror.rs`). The messages are written by hand: see `nft/message.rs`.
//!
//! # How damage is noticed
//!
//! An observation that finds other chains, sets or rules than the compiled ones, or elements that netd never writes,
//! reports [`ObservedRules::Altered`](netd_plan::ObservedRules), and the planner replaces the table with the counters it
//! had. The kernel numbers the commits to nftables; of a number that is known ([`Kernel::rules_generation`]) nothing
//! needs to be read.
//!
//! # Offloads
//!
//! A counter counts what passes the bridge: with segmentation offload one "frame" may be 64 KiB that the NIC cuts up.

mod announce;
mod apply;
mod capture;
mod changes;
mod host;
mod link;
mod mirror;
mod nft;
mod observe;
mod probe;
mod route;
mod router;
mod shape;
mod sysctl;
mod tap;

pub use apply::{Applied, StepError};
pub use capture::{CAPTURE_PORTS_MAX, CaptureError, CaptureLimits, Chunks, capture};
pub use changes::{Changes, News};
pub use nft::{NftError, render as render_rules};
pub use observe::{Links, ObserveError};
pub use probe::{ProbeError, prove};
pub use route::RouteError;
pub use router::{RouterError, RouterFolders};
pub use tap::open as open_tap;

use host::Host;
use netd_plan::Conversation;
use netlink_sys::{AsyncSocket as _, Socket, TokioSocket};
use nft::Tables;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Receive buffer in bytes: room for the links of thousands of networks in one dump.
const RECEIVE_BYTES: usize = 8 << 20;

/// Hold of one network namespace's links and rules.
#[derive(Debug, Clone)]
pub struct Kernel {
    host: Arc<Mutex<Host>>,
    tables: Arc<Tables>,
    routers: Option<Arc<RouterFolders>>,
    /// Servers of routers last seen running, by the folder of their files.
    servers: Arc<Mutex<BTreeMap<PathBuf, i32>>>,
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
        let tables = Arc::new(Tables::open().map_err(OpenError)?);
        Ok(Self {
            host: Arc::new(Mutex::new(Host::open().map_err(OpenError)?)),
            tables,
            routers: None,
            servers: Arc::default(),
        })
    }

    /// The generation of the namespace's nftables at which everything of ours was last known: read by
    /// [`Kernel::observe`], or left by an [`Kernel::apply`] that began at a known one. None if it is not known.
    #[must_use]
    pub fn rules_generation(&self) -> Option<u32> {
        self.tables.known()
    }

    /// Nobody has committed anything to nftables since [`Kernel::rules_generation`]: the rules are exactly as they were
    /// observed, with what was applied since. False as well after a commit to a table that is not ours.
    ///
    /// # Errors
    /// [`NftError`]: the kernel cannot be asked.
    pub async fn rules_are_as_left(&self) -> Result<bool, NftError> {
        let now = self.tables.generation().await?;
        Ok(self.tables.known() == Some(now))
    }

    /// The conversations that are counted at the ports observed.
    ///
    /// # Errors
    /// [`NftError`]: they cannot be read.
    pub async fn conversations(&self) -> Result<Vec<Conversation>, NftError> {
        self.tables.conversations().await
    }

    pub(crate) fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bound netlink socket with a large receive buffer and short acknowledgements.
fn socket(protocol: isize) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    let inner = socket.socket_mut();
    inner.bind_auto()?;
    inner.set_cap_ack(true)?;
    enlarge(inner);
    Ok(socket)
}

/// Without CAP_NET_ADMIN the default buffer stays: enough for small hosts.
fn enlarge(socket: &Socket) {
    let forced = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BYTES);
    if let Err(error) = forced {
        tracing::debug!(%error, "the netlink receive buffer stays at its default");
    }
}
