//! netd's contract: the whole desired state of one host's virtual switches in, a status out.
//!
//! The document is whole, never a delta: what is not named in it and carries netd's mark is removed. The sender
//! numbers it ([`Generation`]); netd refuses one older than it has. Everything is closed by default: a port passes
//! only what its [`Port::accept`] rules and the address resolution of its own addresses need.
//!
//! Served as HTTP/JSON on a unix socket:
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /v1/desired` | [`Desired`] | [`Status`] once applied; 409 [`Problem`] if older than held; 422 if invalid (nothing is changed) |
//! | `POST /v1/plan` | [`Desired`] | [`PlanReport`]: what `PUT` would do, nothing is changed |
//! | `GET /v1/status` | | [`Status`], freshly observed |
//! | `POST /v1/purge` | | [`Status`] after everything of netd's was removed |
//! | `GET /metrics` | | Prometheus text |

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use types::{Generation, MacAddress, SiteName};
use utoipa::ToSchema;

/// Longest name the kernel takes for a link, without the terminating zero.
pub const LINK_NAME_LEN_MAX: usize = 15;

/// Everything netd shall hold on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Grows with every change.
    pub generation: Generation,
    /// At most one per `(deployment, network)`.
    pub networks: Vec<Network>,
}

/// One virtual Ethernet segment, as this host sees it: one bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// `deployment/network`, for people; unique in the document.
    pub id: String,
    /// Name of the bridge, at most 15 bytes, unique in the document; starts with `cb`.
    pub bridge: String,
    /// Largest frame payload in bytes that fits everywhere on this network, 576 to 65,521.
    pub mtu: u16,
    /// How the network leaves this host.
    pub uplink: Uplink,
    /// Where this host's instances join.
    pub ports: Vec<Port>,
}

/// How a network leaves its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Uplink {
    /// It does not.
    None,
    /// A VXLAN (RFC 7348) to the hosts that share the network.
    Vxlan {
        /// 1 to 16,777,215.
        vni: u32,
        /// Name of the VXLAN link, at most 15 bytes; starts with `cx`.
        link: String,
        /// Underlay addresses of the other hosts: broadcast and unknown frames go to each (no multicast).
        #[schema(value_type = Vec<String>)]
        peers: Vec<IpAddr>,
    },
    /// The site's own LAN, on the physical link that this host's configuration names for the site.
    Site {
        /// Key in netd's configuration (`[uplinks]`).
        site: SiteName,
    },
}

/// Where one instance's NIC joins a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// `deployment/member/port`, for people; unique in the document.
    pub id: String,
    /// Name of the tap, at most 15 bytes, unique in the document; starts with `ct`. Made by netd, closed from its
    /// first moment, persistent, with `vnet_hdr`, one queue.
    pub tap: String,
    /// The only source address frames from the guest may carry.
    pub mac: MacAddress,
    /// The only IP source addresses the guest may use. Empty: it may use none.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// It may also carry addresses that are not its own (it routes for others): IP anti-spoofing applies to ARP and
    /// ND claims only.
    #[serde(default)]
    pub routes: bool,
    /// Connections that may be opened; replies are implied. Nothing else passes.
    pub accept: Vec<Accept>,
}

/// One permission at a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// Who opens the connection, as the guest sees it.
    pub direction: Direction,
    /// The addresses at the other end; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub remote: Option<IpNet>,
    /// What is opened.
    pub protocol: Protocol,
}

/// Who opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The other end.
    ToGuest,
    /// The guest.
    FromGuest,
}

/// What is opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Protocol {
    /// Anything over IPv4 and IPv6 (DHCP included), in this direction and, for what netd cannot tell from a reply, in
    /// the other too.
    Any,
    /// ICMP and ICMPv6 echo.
    Icmp,
    /// TCP connections to this port.
    Tcp {
        /// 1 to 65,535.
        listen_port: u16,
    },
    /// UDP datagrams to this port, and from it in the other direction.
    Udp {
        /// 1 to 65,535.
        listen_port: u16,
    },
}

/// What netd found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Of the desired document last taken up; zero before the first.
    pub generation: Generation,
    /// Every network and port of that document is as desired.
    pub converged: bool,
    /// Duration of the last pass that changed something, in milliseconds.
    pub took_ms: u64,
    /// Steps of the last pass that changed something.
    pub steps: u32,
    /// What could not be done, each naming the object and the reason. Retried at every pass.
    pub failures: Vec<String>,
    /// Objects under our names without our mark: reported, never touched.
    pub conflicts: Vec<String>,
    /// In the document's order.
    pub networks: Vec<NetworkStatus>,
}

/// One network as observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    /// As desired.
    pub id: String,
    /// The bridge exists, is up, and its uplink is attached.
    pub up: bool,
    /// In the document's order.
    pub ports: Vec<PortStatus>,
}

/// One port as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortStatus {
    /// As desired.
    pub id: String,
    /// Name of the tap.
    pub tap: String,
    /// The tap exists, is attached, and its rules are in force.
    pub ready: bool,
    /// A virtual machine has the tap open.
    pub carrier: bool,
    /// Frames and bytes the guest sent that were passed.
    pub from_guest: Counter,
    /// Frames and bytes passed to the guest.
    pub to_guest: Counter,
    /// Dropped: sent by the guest under an address that is not its own.
    pub dropped_spoofed: Counter,
    /// Dropped: sent by the guest, no rule accepts it.
    pub dropped_from_guest: Counter,
    /// Dropped: sent to the guest, no rule accepts it.
    pub dropped_to_guest: Counter,
}

/// Frames and bytes since the port was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counter {
    /// Frames.
    pub frames: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// What a desired document would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanReport {
    /// One line a step, in order.
    pub steps: Vec<String>,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable, kebab-case: `stale-generation`, `invalid-document`, `internal`.
    pub code: String,
    /// What, where, and what to do.
    pub message: String,
}
