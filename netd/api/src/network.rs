//! Networks and how they leave their host.

use crate::{Port, Router};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use types::SiteName;
use utoipa::ToSchema;

/// One virtual Ethernet segment, as this host sees it: one bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// `deployment/network`, for people; unique in the document.
    pub id: String,
    /// Name of the bridge, at most 15 bytes, unique in the document; starts with `cb`.
    pub bridge: String,
    /// Largest frame payload in bytes that fits everywhere on this network, 576 to 65,521.
    pub mtu: u16,
    /// Its subnets, which do not overlap: the addresses of ports that do not route, and of its router, are inside of
    /// one. None: whatever addresses its ports have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub subnets: Vec<IpNet>,
    /// How the network leaves this host.
    pub uplink: Uplink,
    /// It is a wire between two ports, or between one port and its tunnel: whatever goes in at one end comes out at the
    /// other. What a port may say is decided where the wire ends. No router, no site.
    #[serde(default)]
    pub wire: bool,
    /// Where this host's instances join.
    pub ports: Vec<Port>,
    /// netd's own end of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
    /// Conversations are counted, see [`crate::Flow`].
    #[serde(default)]
    pub flows: bool,
}

/// How a network leaves its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Uplink {
    /// It does not.
    #[default]
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
    /// A VLAN (IEEE 802.1Q) of a trunk that this host's configuration grants.
    Vlan {
        /// Key in netd's configuration (`[trunks]`).
        trunk: String,
        /// 2 to 4,094; once a trunk. (1 is what switches send untagged.)
        vid: u16,
        /// Name of the VLAN link, at most 15 bytes; starts with `cv`.
        link: String,
    },
    /// The site's own LAN, on the physical link that this host's configuration names for the site.
    Site {
        /// Key in netd's configuration (`[uplinks]`).
        site: SiteName,
    },
}
