//! netd's own end of a network: router, name server, lease giver. It lives in a network namespace of its own, so that
//! neither the host's addresses and routes nor its firewall have a part in it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use types::{MacAddress, SiteName};
use utoipa::ToSchema;

/// A router of one network. Of the hosts that share a network, one has it; to the others it is [`Router::elsewhere`].
///
/// Whatever a port of the network accepts, it may be configured by this router: DHCP and router advertisements pass
/// between the two, and so do questions for names if it answers them. For IPv6 that needs the guest's link-local address
/// to be the one that its MAC address makes (RFC 4291, appendix A), which is then the port's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// Name of its link on the bridge, at most 15 bytes, unique in the document; starts with `cr`. The namespace is
    /// called `collective-LINK`.
    pub link: String,
    /// Another host has it: here it only says by whom the network's ports may be configured.
    #[serde(default)]
    pub elsewhere: bool,
    /// Its MAC address on the network.
    pub mac: MacAddress,
    /// Its addresses on the network, with the subnets' prefix lengths; at least one.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpNet>,
    /// Gives addresses to the network's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<Dhcp>,
    /// Answers names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Tells the network by router advertisements (RFC 4861) of its IPv6 subnets and of itself.
    #[serde(default)]
    pub advertises: bool,
    /// The way out. Absent: it leads nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
}

/// Leases (DHCPv4, RFC 2131; DHCPv6, RFC 8415): one for each named address, none for strangers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dhcp {
    /// In seconds, 120 to 31,536,000.
    pub lease_seconds: u32,
    /// Who gets what.
    pub leases: Vec<Lease>,
}

/// One NIC's addresses and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Whose.
    pub mac: MacAddress,
    /// At most one a version of IP, each inside a subnet of the router.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Host name: 1 to 63 letters, digits and `-`.
    pub name: String,
}

/// Names of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Domain of the leases' names, without dots at its ends.
    pub domain: String,
    /// Servers asked for all other names; none: other names do not exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub forward: Vec<IpAddr>,
}

/// A router's link on a site's LAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// Key in netd's configuration (`[uplinks]`).
    pub site: SiteName,
    /// Name of its link on the site's bridge, at most 15 bytes, unique in the document; starts with `co`.
    pub link: String,
    /// Its MAC address on the LAN.
    pub mac: MacAddress,
    /// Its addresses on the LAN, with the LAN's prefix lengths.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpNet>,
    /// Its default routes, at most one a version of IP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub gateways: Vec<IpAddr>,
    /// What goes out bears the router's own address (NAT). Otherwise it is routed: the LAN must know the way back, and
    /// what the network's ports accept decides who may come in.
    pub nat: bool,
    /// Ports of the router's LAN address that lead inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// What is listened for.
    pub transport: Transport,
    /// On the router's LAN address, 1 to 65,535; once a transport.
    pub listen_port: u16,
    /// Inside one of the router's subnets.
    #[schema(value_type = String, example = "10.20.0.10:80")]
    pub to: SocketAddr,
}

/// Protocols with port numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}
