//! Copies of frames for those who watch.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// A NIC that gets copies and sends nothing. It is on no bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Watcher {
    /// `deployment/member/port`, for people; unique among ports and watchers.
    pub id: String,
    /// Name of the tap, as a port's.
    pub tap: String,
    /// In bytes, 576 to 65,521; no less than the watched network's.
    pub mtu: u16,
}

/// Frames of one place, copied to another, as they are: before any rule drops them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// `deployment/member/port` of the watcher, for people.
    pub id: String,
    /// What is copied.
    pub from: MirrorFrom,
    /// Who gets it.
    pub to: MirrorTo,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum MirrorFrom {
    /// What one port's guest sends and is sent.
    Port {
        /// Its tap.
        tap: String,
    },
    /// What the network's guests and router on this host send, and what comes in from a site's LAN. Hosts that share a
    /// network copy each their own, so that every frame is copied once.
    Network {
        /// Its id.
        id: String,
    },
    /// What another host's mirror sends here.
    Tunnel(MirrorTunnel),
}

/// Who gets the copies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum MirrorTo {
    /// A watcher on this host.
    Watcher {
        /// Its tap.
        tap: String,
    },
    /// A watcher on another host.
    Tunnel(MirrorTunnel),
}

/// A VXLAN that carries nothing but copies, in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorTunnel {
    /// 1 to 16,777,215; no network's.
    pub vni: u32,
    /// Name of the link, at most 15 bytes, unique in the document but for mirrors that share it; starts with `cx`.
    pub link: String,
    /// Underlay address of the other host.
    #[schema(value_type = String)]
    pub peer: IpAddr,
}
