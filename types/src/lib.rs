//! The words every contract of Collective shares: names that cannot be malformed, digests, sizes, generations.
//!
//! A value of a type in here has been checked when it was parsed; code behind the edge never checks again.
//! Nothing in here touches the world, and nothing depends on another crate of ours.

mod bit_rate;
mod bytes;
mod digest;
mod mac;
mod name;

pub use bit_rate::BitRate;
pub use bytes::{Base64, ByteSize};
pub use digest::{Digest, ParseDigestError};
pub use mac::{MacAddress, ParseMacError};
pub use name::{
    ApplianceRef, BundleName, ChannelName, DeploymentName, HostName, InstanceId, MemberName, NAME_LEN_MAX,
    NameError, NetworkName, PolicyName, PortName, PublisherName, SiteName, VersionName, VolumeName,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Number of a desired document. Grows with every change; a receiver refuses one older than it has.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a state of the whole store. Every committed transaction takes the next one.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
