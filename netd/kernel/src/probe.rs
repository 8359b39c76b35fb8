//! Asking the kernel itself: an [`Experiment`] in a network namespace made for it.
//!
//! The namespace has no name. A thread holds it, so it goes with the thread, or with netd. The two ports are built there
//! as everywhere else, by a plan, with the rules they have on the host; the prober has their guests' ends open, sends
//! what the one guest would, and looks for it at the other.

use crate::{Kernel, ObserveError, OpenError, tap};
use netd_api::Verdict;
use netd_plan::{Experiment, Frame, plan};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, InfoBridgePort, InfoPortData, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Longest wait for a frame. A tap's frame is carried across the bridge inside of the call that sends it.
const ARRIVAL_TIMEOUT: Duration = Duration::from_millis(60);
/// Longest wait for the bridge to forward; it takes a few milliseconds.
const FORWARDING_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at the bridge.
const FORWARDING_PAUSE_MS: u16 = 2;
/// Header that precedes each frame of a tap.
const VNET_HEADER_BYTES: usize = 10;
/// Room for one frame of the largest MTU.
const FRAME_BYTES_MAX: usize = VNET_HEADER_BYTES + 65_600;

/// Why nothing could be proven. Whatever was built is gone.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no namespace.
    #[error("cannot make a network namespace")]
    Namespace(#[source] io::Error),
    /// There is no runtime or socket in it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be read.
    #[error("cannot read the prober's namespace")]
    Observe(#[from] ObserveError),
    /// The ports cannot be built.
    #[error("cannot build a copy of the ports: {0}")]
    Build(String),
    /// A guest's end cannot be used.
    #[error("cannot use the copy of {link}")]
    Tap {
        /// Its name.
        link: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A bridge does not forward.
    #[error("the copy of {0} was not forwarded to within {s} s", s = FORWARDING_TIMEOUT.as_secs())]
    NotForwarding(String),
    /// The prober ended without a word.
    #[error("the prober broke off; its reason is in netd's log")]
    Gone,
}

/// Sends the frames and looks for them: both pass, or the verdict is to drop.
///
/// # Errors
/// [`ProbeError`]; it needs the rights to make network namespaces.
pub async fn prove(experiment: Experiment) -> Result<Verdict, ProbeError> {
    let (sender, answer) = oneshot::channel();
    let prober = move || drop(sender.send(prove_in_new_namespace(&experiment)));
    std::thread::Builder::new().name("netd-probe".to_owned()).spawn(prober).map_err(ProbeError::Namespace)?;
    answer.await.map_err(|_| ProbeError::Gone)?
}

/// For a thread of its own, which must end afterwards.
fn prove_in_new_namespace(experiment: &Experiment) -> Result<Verdict, ProbeError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| ProbeError::Namespace(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ProbeError::Namespace)?.block_on(run(experiment))
}

async fn run(experiment: &Experiment) -> Result<Verdict, ProbeError> {
    let mut ends: BTreeMap<&str, Guest> = BTreeMap::new();
    for uplink in &experiment.uplinks {
        ends.insert(uplink, Guest::open(uplink)?);
    }
    build(experiment).await?;
    for name in experiment.target.taps.keys() {
        ends.insert(name, Guest::open(name)?);
    }
    let held = |name: &str| experiment.target.taps.get(name).is_some_and(|tap| tap.held);
    if held(&experiment.from) || held(&experiment.to) {
        return Ok(Verdict::Drop);
    }
    wait_until_forwarding(&ends.keys().copied().collect())?;
    let (Some(from), Some(to)) = (ends.get(&*experiment.from), ends.get(&*experiment.to)) else {
        return Err(ProbeError::Build(format!("{} or {} is missing", experiment.from, experiment.to)));
    };
    let passes = arrives(from, to, &experiment.first)? && arrives(to, from, &experiment.reply)?;
    Ok(if passes { Verdict::Pass } else { Verdict::Drop })
}

async fn build(experiment: &Experiment) -> Result<(), ProbeError> {
    let kernel = Kernel::open()?;
    let plan = plan(&experiment.target, &kernel.observe().await?);
    if let Some(refusal) = plan.refusals.first() {
        return Err(ProbeError::Build(refusal.clone()));
    }
    let applied = kernel.apply(&plan).await;
    match applied.failures.first() {
        Some((step, error)) => Err(ProbeError::Build(format!("{step}: {error}"))),
        None => Ok(()),
    }
}

fn arrives(from: &Guest, to: &Guest, frame: &Frame) -> Result<bool, ProbeError> {
    let frame = frame.to_bytes();
    from.send(&frame)?;
    to.sees(&frame)
}

/// A bridge forwards to a port some time after somebody opened its other end.
fn wait_until_forwarding(links: &BTreeSet<&str>) -> Result<(), ProbeError> {
    let deadline = Instant::now() + FORWARDING_TIMEOUT;
    for name in links {
        while port_state(name)? != Some(BridgePortState::Forwarding) {
            if Instant::now() >= deadline {
                return Err(ProbeError::NotForwarding((*name).to_owned()));
            }
            // Interrupted is as good as over.
            let _ = poll(&mut [], PollTimeout::from(FORWARDING_PAUSE_MS));
        }
    }
    Ok(())
}

fn port_state(name: &str) -> Result<Option<BridgePortState>, ProbeError> {
    let answer = ask_link(name).map_err(|source| ProbeError::Tap { link: name.to_owned(), source })?;
    let RouteNetlinkMessage::NewLink(message) = answer else { return Ok(None) };
    let infos = message.attributes.into_iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let state = infos.flatten().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => port.into_iter().find_map(|part| match part {
            InfoBridgePort::State(state) => Some(state),
            _ => None,
        }),
        _ => None,
    });
    Ok(state)
}

fn ask_link(name: &str) -> io::Result<RouteNetlinkMessage> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(message));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    // The kernel answers inside of the call that asks.
    let (bytes, _) = socket.recv_from_full()?;
    match NetlinkMessage::deserialize(&bytes).map_err(io::Error::other)?.payload {
        NetlinkPayload::InnerMessage(answer) => Ok(answer),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel answered something else than a link")),
    }
}

/// The guest's end of a tap.
struct Guest {
    link: String,
    file: File,
}

impl Guest {
    fn open(link: &str) -> Result<Self, ProbeError> {
        let fail = |source| ProbeError::Tap { link: link.to_owned(), source };
        let file = tap::open(link).map_err(fail)?;
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| fail(error.into()))?;
        Ok(Self { link: link.to_owned(), file })
    }

    fn send(&self, frame: &[u8]) -> Result<(), ProbeError> {
        let bytes = [&[0; VNET_HEADER_BYTES][..], frame].concat();
        (&self.file).write_all(&bytes).map_err(|source| self.failed(source))
    }

    /// Whether the frame is among those that come until the deadline.
    fn sees(&self, frame: &[u8]) -> Result<bool, ProbeError> {
        let deadline = Instant::now() + ARRIVAL_TIMEOUT;
        let mut bytes = vec![0; FRAME_BYTES_MAX];
        loop {
            match (&self.file).read(&mut bytes) {
                Ok(length) if bytes.get(VNET_HEADER_BYTES..length) == Some(frame) => return Ok(true),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(self.failed(source)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], wait);
        }
    }

    fn failed(&self, source: io::Error) -> ProbeError {
        ProbeError::Tap { link: self.link.clone(), source }
    }
}
