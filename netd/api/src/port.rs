//! Ports and their permissions.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use types::MacAddress;
use utoipa::ToSchema;

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
    /// The tap is there and can be opened, but is attached to nothing and passes nothing: a guest that moves here has
    /// not arrived yet. When this ends, netd tells the network where the guest is now.
    #[serde(default)]
    pub held: bool,
    /// At most so much. None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

impl Port {
    /// A port that passes nothing.
    #[must_use]
    pub fn closed(id: String, tap: String, mac: MacAddress) -> Self {
        Self {
            id,
            tap,
            mac,
            addresses: Vec::new(),
            routes: false,
            accept: Vec::new(),
            held: false,
            rate: None,
        }
    }
}

/// Limits of one port, each with a burst of 20 ms, but at least of one frame. What is more is queued for at most 50 ms,
/// then dropped. A limit that the kernel refuses is a failure that names the port's tap; the port works without it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Sent by the guest, in bits/s, 64,000 to 100,000,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_guest_bits: Option<u64>,
    /// Sent to the guest, in bits/s, 64,000 to 100,000,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_guest_bits: Option<u64>,
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
