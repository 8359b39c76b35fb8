//! Between the controller and one host's agent: one WebSocket over mTLS, dialled by the agent, at
//! `GET /agent/v1/channel`. Text frames are JSON of [`ToAgent`] and [`ToController`]; binary frames carry console bytes
//! (`u32` stream number, big endian, then bytes; an empty rest closes the stream).
//!
//! The controller sends the whole [`HostDesired`] whenever it changes and once after the connection is made. The agent
//! stores it before it acts on it, and reports a [`HostStatus`] at every change and at least every
//! [`STATUS_INTERVAL_MS`]. Whoever hears nothing for [`SILENCE_MS_MAX`] closes the connection; the agent dials again.
//!
//! An agent fetches what a digest names with `GET /agent/v1/images/{digest}`, answered with
//! [`streamer_api::ImageSource`], on the same mTLS address, and with `GET /agent/v1/policies/{digest}` a component's bytes; what a guest read of it since its start it tells once, with
//! `POST /agent/v1/images/{digest}/runs` and a [`streamer_api::Run`] of at most [`RUN_LEN_MAX`] bytes, answered with 204.

use crate::life::{CaptureStatus, DesiredCapture, DesiredMove, Layer, MoveStatus, Power, SavedMemory};
use crate::stream::StreamReport;
use crate::watch::{DesiredWatch, WatchStatus};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use streamer_api::{Limits, Prefetch};
use types::{ByteSize, Digest, Generation, HostName, InstanceId, MacAddress, PortName, SiteName, VolumeName};
use utoipa::ToSchema;

/// Number of this protocol; a peer with another is refused with a reason.
pub const PROTOCOL: u32 = 1;
/// Longest time between two statuses of a healthy agent.
pub const STATUS_INTERVAL_MS: u64 = 1_000;
/// Silence after which the other end is taken for gone.
pub const SILENCE_MS_MAX: u64 = 5_000;
/// Largest run an agent may tell, in bytes of JSON: every piece of a very large image.
pub const RUN_LEN_MAX: usize = 8 << 20;

/// From the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ToAgent {
    /// Everything this host shall hold.
    Desired(Box<HostDesired>),
    /// Open an instance's serial console as a stream of binary frames.
    ConsoleOpen {
        /// Chosen by the controller, unique in this connection.
        stream: u32,
        /// Whose console.
        instance: InstanceId,
    },
    /// Send the end of an instance's serial log once, answered by [`ToController::Log`].
    LogTail {
        /// Echoed in the answer.
        request: u32,
        /// Whose log.
        instance: InstanceId,
        /// At most this many bytes from its end, up to 1 MiB.
        bytes_max: u32,
    },
    /// Tell what an instance's reads waited for, answered by [`ToController::Stream`].
    StreamReport {
        /// Echoed in the answer.
        request: u32,
        /// Whose reads.
        instance: InstanceId,
    },
    /// Ask netd whether a connection would be let through, answered by [`ToController::Explanation`].
    Explain {
        /// Echoed in the answer.
        request: u32,
        /// For netd.
        question: Box<netd_api::Question>,
    },
    /// Tell who speaks with whom, answered by [`ToController::Flows`].
    Flows {
        /// Echoed in the answer.
        request: u32,
    },
    /// Open a stream of binary frames with what netd captures, as a console's; nothing is sent back but its end.
    CaptureOpen {
        /// Chosen by the controller, unique in this connection, also among consoles.
        stream: u32,
        /// For netd.
        capture: netd_api::Capture,
    },
    /// The status with this number was heard: the host's lease runs from when that was sent. Every desired document of
    /// before it was heard is sent before this.
    Heard {
        /// [`HostStatus::beat`].
        beat: u64,
        /// For so many milliseconds. It is the controller's promise, whatever document the host holds.
        lease_ms: u64,
    },
}

/// From the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ToController {
    /// First message of a connection.
    Hello(Box<Hello>),
    /// What is.
    Status(Box<HostStatus>),
    /// Something happened.
    Event(AgentEvent),
    /// Answer to [`ToAgent::LogTail`].
    Log {
        /// As asked.
        request: u32,
        /// Bytes as text, invalid UTF-8 replaced.
        text: String,
        /// Why there is none.
        problem: Option<String>,
    },
    /// Answer to [`ToAgent::StreamReport`].
    Stream {
        /// As asked.
        request: u32,
        /// What is known; absent if the instance is not here and was not, or the streamer does not answer.
        report: Option<Box<StreamReport>>,
        /// Why there is none.
        problem: Option<String>,
    },
    /// Answer to [`ToAgent::Explain`].
    Explanation {
        /// As asked.
        request: u32,
        /// netd's; absent if it does not answer, or a port is not here.
        explanation: Option<Box<netd_api::Explanation>>,
        /// Why there is none.
        problem: Option<String>,
    },
    /// Answer to [`ToAgent::Flows`].
    Flows {
        /// As asked.
        request: u32,
        /// netd's; absent if it does not answer.
        flows: Option<Vec<netd_api::Flow>>,
        /// Why there are none.
        problem: Option<String>,
    },
    /// The console or capture could not be opened or has ended.
    ConsoleClosed {
        /// As asked.
        stream: u32,
        /// Why.
        reason: String,
    },
}

/// First message of a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Of the desired document it holds.
    pub generation: Generation,
    /// The machine.
    pub facts: HostFacts,
}

/// What a machine is, found out at start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostFacts {
    /// Version of the agent.
    pub agent_version: String,
    /// Version of libvirt.
    pub libvirt_version: String,
    /// Version of QEMU.
    pub qemu_version: String,
    /// Kernel release.
    pub kernel: String,
    /// `kvm` if a probe guest booted with it, else `tcg`.
    pub accelerator: String,
    /// Why not `kvm`, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator_reason: Option<String>,
    /// Processors guests may use, in thousandths.
    pub cpu_total_milli: u32,
    /// Memory guests may use, in bytes.
    pub memory_total_bytes: u64,
    /// Size of the file system of overlays and volumes, in bytes.
    pub disk_total_bytes: u64,
    /// Address other hosts reach this one by.
    #[schema(value_type = Option<String>)]
    pub underlay_address: Option<IpAddr>,
    /// Largest packet in bytes that its link with that address sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay_mtu: Option<u16>,
    /// Where it listens for guests that move here; none if it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub move_address: Option<SocketAddr>,
}

/// Everything one host shall hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostDesired {
    /// Grows with every change for this host.
    pub generation: Generation,
    /// For netd; the agent numbers what it hands on.
    pub networks: Vec<netd_api::Network>,
    /// For netd: NICs that only listen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watchers: Vec<netd_api::Watcher>,
    /// For netd: what is copied to whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<netd_api::Mirror>,
    /// Digests of all images its instances stand on, and of those it shall hold ahead of need.
    pub images: Vec<Digest>,
    /// How to hold those of them that are not held as all others: nothing prefetched, not pinned, the first source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<DesiredStream>,
    /// For the streamer; absent if the controller says nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What shall exist here. An instance that is not named is stopped and removed, with its overlay.
    pub instances: Vec<DesiredInstance>,
    /// Volumes to keep even if no instance here uses them. One that is named nowhere is removed.
    pub volumes: Vec<DesiredVolume>,
    /// Who watches its instances from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<DesiredWatch>,
    /// Its parts of checkpoints, to be taken or kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<DesiredCapture>,
    /// Live moves that it is an end of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<DesiredMove>,
    /// How long this host may run leased instances after the controller last heard it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
}

/// How to hold one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredStream {
    /// Which.
    pub image: Digest,
    /// Grows when what `GET /agent/v1/images/{digest}` answers has changed: it is fetched again then.
    pub source: u64,
    /// How much is fetched that nobody has asked for.
    pub prefetch: Prefetch,
    /// Never evicted.
    pub pin: bool,
}

/// One instance that shall exist on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredInstance {
    /// `deployment/member`.
    pub id: InstanceId,
    /// Changes when the instance is deleted and made again: a new one gets a new overlay. A UUID; also the domain's.
    pub incarnation: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory.
    pub memory: ByteSize,
    /// Its system disk's image.
    pub image: Digest,
    /// Bytes of that image.
    pub image_size_bytes: u64,
    /// NICs in the appliance's order.
    pub ports: Vec<DesiredPort>,
    /// The user's own disks.
    pub volumes: Vec<VolumeName>,
    /// Files of the configuration disk by name, at most 64 KiB together.
    pub config: BTreeMap<String, String>,
    /// Whether it runs.
    #[serde(default, skip_serializing_if = "Power::is_on")]
    pub power: Power,
    /// It runs under the host's lease only: without one it is stopped at once and not started, for it may run elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leased: bool,
    /// Layers between the image and its overlay when that is made, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// Its first run goes on from here instead of booting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_from: Option<SavedMemory>,
}

/// One NIC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredPort {
    /// The appliance's name for it.
    pub name: PortName,
    /// The tap netd makes for it.
    pub tap: String,
    /// Its address.
    pub mac: MacAddress,
    /// Its network's MTU in bytes.
    pub mtu: u16,
}

/// One volume that shall exist on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredVolume {
    /// Whose it is.
    pub instance: InstanceId,
    /// Its name.
    pub name: VolumeName,
    /// Its size. It grows, never shrinks.
    pub size: ByteSize,
    /// Another one is another disk: it is made anew from its layers. Empty, or a UUID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub incarnation: String,
    /// What it holds when it is made, oldest first; nothing: zeros.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
}

/// What is on one host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostStatus {
    /// Of the desired document last taken up.
    pub generation: Generation,
    /// All of it is so.
    pub converged: bool,
    /// What is not, each naming the object, the reason and what to do.
    pub problems: Vec<String>,
    /// Memory not given to instances, in bytes.
    pub memory_free_bytes: u64,
    /// Free on the file system of overlays and volumes, in bytes.
    pub disk_free_bytes: u64,
    /// One-minute load divided by processors. Finite: JSON has no word for anything else.
    #[serde(deserialize_with = "finite")]
    pub load: f32,
    /// Each desired instance, and those being removed.
    pub instances: Vec<InstanceStatus>,
    /// Images here by digest.
    pub images: BTreeMap<String, streamer_api::ImageStatus>,
    /// Networks here; absent while netd does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub networks: Option<netd_api::Status>,
    /// The streamer answers.
    pub streamer_up: bool,
    /// How each watch of a running instance does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<WatchStatus>,
    /// Its parts of checkpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<CaptureStatus>,
    /// How its moves do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<MoveStatus>,
    /// Grows with every status of one connection; 0 asks for no answer.
    #[serde(default)]
    pub beat: u64,
}

/// A number too large for 32 bits becomes an infinity, which is written as `null`: nobody could read the host's status.
fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    let number = f32::deserialize(deserializer)?;
    if number.is_finite() { Ok(number) } else { Err(de::Error::custom("the number is too large")) }
}

/// One instance on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceStatus {
    /// Which.
    pub id: InstanceId,
    /// Its incarnation.
    pub incarnation: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// More about the state: why it waits or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When its present run began, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When the guest said `ready` in its present run, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_ms: Option<u64>,
    /// Starts of its present incarnation.
    pub starts: u32,
    /// Bytes written to its disks since its last capture, or since it was made: no less than what has changed.
    #[serde(default)]
    pub dirty_bytes: u64,
    /// What its health probes say, if it has any: none failed, or which one and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
}

/// What an instance's health probes say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthStatus {
    /// Every probe's last answer was good.
    pub healthy: bool,
    /// The first that is not, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is so, milliseconds since 1970 UTC.
    pub since_ms: u64,
}

/// Where an instance is in its life on a host.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// No host yet, or the host has not taken it up.
    #[default]
    Pending,
    /// Disks, ports and definition are being made.
    Preparing,
    /// The guest runs and has not said it serves.
    Booting,
    /// The guest has said it serves.
    Ready,
    /// Stopped by itself or on request.
    Stopped,
    /// It cannot run; the reason says why and what to do. Tried again with growing pauses.
    Failed,
    /// On its way out.
    Removing,
}

/// Something happened on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentEvent {
    /// Milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// To which instance, if to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Stable, kebab-case: `instance-started`, `instance-ready`, `instance-stopped`, `instance-removed`, `instance-failed`,
    /// `introspection-finding`, `introspection-failed`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Body of `POST /join/v1`: a host or an origin asks for its certificate. Not authenticated but by the token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// One-time token.
    pub token: String,
    /// Its name.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// PKCS#10 certificate request, PEM. Names and usages in it are ignored.
    pub csr: String,
}

/// Answer to [`JoinRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JoinAnswer {
    /// Its certificate, PEM. Subject `CN=<host>, OU=<role>`; the role is `host` or `origin`, as the token says.
    pub certificate: String,
    /// The certificate authority's certificate, PEM.
    pub ca: String,
    /// `host` or `origin`.
    pub role: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    // A host that sent such a status made the list of hosts unreadable for everybody.
    #[test]
    fn a_status_with_a_load_that_cannot_be_written_is_refused() {
        let status = HostStatus { load: 0.5, ..HostStatus::default() };
        let json = serde_json::to_string(&ToController::Status(Box::new(status))).unwrap();
        assert!(serde_json::from_str::<ToController>(&json).is_ok());
        for load in ["1e39", "-1e39", "null"] {
            let json = json.replace("0.5", load);
            assert!(serde_json::from_str::<ToController>(&json).is_err(), "{json}");
        }
    }
}
