//! Who speaks with whom.

use crate::Counter;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// Frames of one direction of a conversation that a port's guest sent and that were passed, or that it was sent, counted
/// by the kernel. Forgotten a minute after the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// The port's id.
    pub port: String,
    /// Source address.
    #[schema(value_type = String)]
    pub from: IpAddr,
    /// Destination address.
    #[schema(value_type = String)]
    pub to: IpAddr,
    /// IP protocol number (IANA).
    pub protocol: u8,
    /// Source port; 0 for protocols without.
    pub from_port: u16,
    /// Destination port; 0 for protocols without.
    pub to_port: u16,
    /// How much.
    pub counter: Counter,
    /// Seconds since the last frame.
    pub idle_seconds: u32,
}
