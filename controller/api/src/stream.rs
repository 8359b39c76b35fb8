//! Streaming as people see it: why a boot waited, which images hosts hold ahead of need, how fast they may fetch.

use serde::{Deserialize, Serialize};
use std::fmt;
use streamer_api::{Limits, Prefetch, ProfileScore, Stall};
use types::{ApplianceRef, Digest, HostName, InstanceId, NameError, SiteName, VersionName};
use utoipa::ToSchema;

/// What a host knows of one instance's reads, in its present run or its last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamReport {
    /// What it reads.
    pub image: Digest,
    /// When that run began, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When the guest said `ready` in it, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_ms: Option<u64>,
    /// It is on that host no more; this was noted when it went.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// How it reads; absent before its first read, and if the streamer has forgotten it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunSummary>,
    /// Reads that had to wait, oldest first. The streamer keeps the last 1,024 of an image.
    pub stalls: Vec<Stall>,
}

/// A run without the pieces it touched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    /// When it began, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// Its guest is still connected.
    pub connected: bool,
    /// Nothing of it is missing: it becomes part of the image's profiles.
    pub whole: bool,
    /// The profile it is served by, if one fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How well each profile fits, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<ProfileScore>,
    /// Distinct pieces it has read; zero pieces are left out.
    pub touched: u32,
}

/// One instance's reads: why its boot took as long as it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamView {
    /// Which instance.
    pub instance: InstanceId,
    /// Who says so.
    pub host: HostName,
    /// What it says.
    pub report: StreamReport,
}

/// Ask hosts to hold a version's image ahead of need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// Which hosts; all if empty.
    #[serde(default)]
    pub hosts: Vec<HostName>,
    /// How much is fetched ahead. It ends on each host where the version is placed.
    #[serde(default)]
    pub prefetch: Prefetch,
    /// Never evicted, until this hold is deleted.
    #[serde(default)]
    pub pin: bool,
}

/// Hosts hold a version's image ahead of need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HoldView {
    /// `publisher/appliance`.
    pub appliance: ApplianceRef,
    /// Which version.
    pub version: VersionName,
    /// Its image.
    pub image: Digest,
    /// How much is fetched ahead.
    pub prefetch: Prefetch,
    /// Never evicted.
    pub pin: bool,
    /// How far each host is.
    pub hosts: Vec<HoldProgress>,
}

/// How far one host is with a held image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldProgress {
    /// Which host.
    pub host: HostName,
    /// Its agent is connected.
    pub online: bool,
    /// The version was placed there since: no more is fetched ahead.
    pub ran: bool,
    /// Bytes of pieces that are there or known to be zero.
    pub bytes_local: u64,
    /// Bytes of the image.
    pub bytes_total: u64,
    /// Fetched in the last second, in bytes.
    pub down_bytes_per_s: u64,
    /// Why nothing moves, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Whose traffic limits are about. As text `all`, `site/NAME` or `host/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LimitScope {
    /// Each host of the cluster.
    All,
    /// All hosts of a site together: shared equally among those that are online.
    Site(SiteName),
    /// One host.
    Host(HostName),
}

impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Site(name) => write!(f, "site/{name}"),
            Self::Host(name) => write!(f, "host/{name}"),
        }
    }
}

impl std::str::FromStr for LimitScope {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some(("site", name)) => Ok(Self::Site(name.parse()?)),
            Some(("host", name)) => Ok(Self::Host(name.parse()?)),
            _ if text == "all" => Ok(Self::All),
            // Whatever it is, it is no host's name either: the error says what is wrong with it.
            _ => Ok(Self::Host(format!("{text}/").parse()?)),
        }
    }
}

impl TryFrom<String> for LimitScope {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<LimitScope> for String {
    fn from(scope: LimitScope) -> Self {
        scope.to_string()
    }
}

/// Limits that were set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitsView {
    /// Whose.
    #[schema(value_type = String, example = "site/main")]
    pub scope: LimitScope,
    /// Most bytes a second. A host heeds the lowest of its own, its share of its site's, and those of all.
    pub limits: Limits,
}
