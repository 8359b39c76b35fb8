//! Why a document is refused.

use super::check::{MTU_MAX, MTU_MIN, VNI_MAX};
use std::net::IpAddr;
use thiserror::Error;
use types::SiteName;

/// Why a document is refused. Nothing of it has been applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A link name the kernel or our mark does not allow.
    #[error("{owner}: {field} {name:?} {problem}")]
    LinkName {
        /// Network or port.
        owner: String,
        /// `bridge`, `link` or `tap`.
        field: &'static str,
        /// As given.
        name: String,
        /// And what to do.
        problem: String,
    },
    /// A value that must be unique is not.
    #[error("{second}: {what} {value} is already used by {first}; each needs its own")]
    Duplicate {
        /// What must be unique.
        what: &'static str,
        /// The value.
        value: String,
        /// First owner.
        first: String,
        /// Second owner.
        second: String,
    },
    /// An MTU out of range.
    #[error("network {network}: mtu {mtu} is out of range; use {MTU_MIN} to {MTU_MAX}")]
    Mtu {
        /// Whose.
        network: String,
        /// As given.
        mtu: u16,
    },
    /// A VNI out of range.
    #[error("network {network}: vni {vni} is out of range; use 1 to {VNI_MAX}")]
    Vni {
        /// Whose.
        network: String,
        /// As given.
        vni: u32,
    },
    /// A tunnel on a host without an underlay address.
    #[error(
        "network {network}: this host has no underlay address; set underlay_address in netd's configuration"
    )]
    NoUnderlay {
        /// Whose.
        network: String,
    },
    /// A peer that cannot be one.
    #[error("network {network}: peer {peer} {problem}")]
    Peer {
        /// Whose.
        network: String,
        /// As given.
        peer: IpAddr,
        /// And what to do.
        problem: &'static str,
    },
    /// A site whose link was not granted.
    #[error(
        "network {network}: no link is granted for site {site}; name it under [uplinks] in netd's configuration"
    )]
    UnknownSite {
        /// Whose.
        network: String,
        /// As given.
        site: SiteName,
    },
    /// A trunk that was not granted.
    #[error(
        "network {network}: no link is granted for trunk {trunk:?}; name it under [trunks] in netd's configuration"
    )]
    UnknownTrunk {
        /// Whose.
        network: String,
        /// As given.
        trunk: String,
    },
    /// An address no guest can have.
    #[error("port {port}: address {address} is no unicast address of one guest")]
    Address {
        /// Whose.
        port: String,
        /// As given.
        address: IpAddr,
    },
    /// A value that does not fit what else the document says, or that nothing can be made of.
    #[error("{owner}: {field} {value} {problem}")]
    Field {
        /// Network, port, watcher or mirror.
        owner: String,
        /// As in the contract.
        field: &'static str,
        /// As given.
        value: String,
        /// And what to do.
        problem: String,
    },
    /// A wire that is none.
    #[error("network {network}: it is a wire, but {problem}")]
    Wire {
        /// Whose.
        network: String,
        /// And what to do.
        problem: &'static str,
    },
    /// A change that names a network that is not held, or one twice.
    #[error("the change's network {network} {problem}")]
    Change {
        /// Whose.
        network: String,
        /// And what to do.
        problem: &'static str,
    },
    /// A listen port of zero.
    #[error("port {port}: listen_port 0 cannot be opened; use 1 to 65535")]
    ListenPort {
        /// Whose.
        port: String,
    },
    /// An id nobody can read.
    #[error("{what} id {id:?} is empty, longer than 128 bytes, or has control characters")]
    Id {
        /// `network` or `port`.
        what: &'static str,
        /// As given.
        id: String,
    },
}
