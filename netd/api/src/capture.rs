//! Frames on demand.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What to capture. The answer is a pcapng stream (IETF draft-ietf-opsawg-pcapng), one interface a port, that ends at the
/// first limit reached or when the caller hangs up. Frames are seen before rules drop them, when sent by the guest, and
/// after, when sent to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Ids of ports, or of networks for all of their ports on this host; at least one.
    pub of: Vec<String>,
    /// Bytes kept of each frame, 14 to 65,535.
    #[serde(default = "snap_bytes_default")]
    pub snap_bytes: u32,
    /// 1 to 3,600.
    #[serde(default = "seconds_default")]
    pub seconds: u32,
    /// Bytes of the whole stream, 1 KiB to 1 GiB.
    #[serde(default = "bytes_default")]
    pub bytes: u64,
}

fn snap_bytes_default() -> u32 {
    65_535
}

fn seconds_default() -> u32 {
    60
}

fn bytes_default() -> u64 {
    64 << 20
}
