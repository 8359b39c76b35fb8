//! Watching guests from outside: who looks, what may be seen, and what was found.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;
use types::{ByteSize, Digest, InstanceId, MemberName, PolicyName};
use utoipa::ToSchema;

/// Findings that a host keeps of one watch; what is beyond is counted.
pub const FINDINGS_MAX: usize = 32;
/// Watches of one bundle.
pub const WATCHES_MAX: usize = 8;
/// Shortest and longest time between two looks, milliseconds.
pub const EVERY_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;

/// Who watches members of a bundle: `{policy: linux-integrity, members: [workspace], grants: [memory, cpu], every: 10s}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchSpec {
    /// Name of an installed introspection policy.
    pub policy: PolicyName,
    /// Which members; all if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberName>,
    /// What it may see. What is not named is denied.
    pub grants: Vec<Grant>,
    /// Longest time between two looks; the policy's own wish if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10s")]
    pub every: Option<Period>,
    /// Bytes it may read, search and hash in one look; 1 GiB if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "256MiB")]
    pub quota: Option<ByteSize>,
}

/// What a policy may see of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// Its memory.
    Memory,
    /// Registers of its processors.
    Cpu,
    /// Who it speaks with.
    Flows,
    /// Its disks.
    Disk,
}

/// A time between two looks: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    /// In [`EVERY_MS`].
    pub ms: u64,
}

/// A text that is no [`Period`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPeriod(String);

impl fmt::Display for NoPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no time between two looks: write 100ms to 24h, such as 10s", self.0)
    }
}

impl std::error::Error for NoPeriod {}

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

impl FromStr for Period {
    type Err = NoPeriod;

    fn from_str(text: &str) -> Result<Self, NoPeriod> {
        let wrong = || NoPeriod(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let ms =
            number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        ms.filter(|ms| EVERY_MS.contains(ms)).map(|ms| Self { ms }).ok_or_else(wrong)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().rev().find(|(_, factor)| self.ms.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", self.ms / factor)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// One policy that watches one instance on this host. The component is at `GET /agent/v1/policies/{digest}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredWatch {
    /// Whom.
    pub instance: InstanceId,
    /// Its name in the controller.
    pub policy: PolicyName,
    /// SHA-256 of its component.
    pub component: Digest,
    /// A JSON object; the component's defaults if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Value>,
    /// What it may see.
    pub grants: Vec<Grant>,
    /// Longest time between two looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// Bytes it may read, search and hash in one look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
    /// `publisher/appliance` of the instance.
    pub appliance: String,
    /// Version of that.
    pub version: String,
}

/// How one watch does, on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchStatus {
    /// Whom.
    pub instance: InstanceId,
    /// Who.
    pub policy: PolicyName,
    /// When it last looked, milliseconds since 1970 UTC; absent before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_ms: Option<u64>,
    /// How long the last look took, microseconds.
    pub took_us: u64,
    /// Looks at the present run of the guest.
    pub looks: u64,
    /// Why the last look did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What was looked at.
    pub reasons: Vec<String>,
    /// At most [`FINDINGS_MAX`], newest first.
    pub findings: Vec<WatchFinding>,
    /// Findings beyond those.
    pub findings_dropped: u64,
}

/// Something that should not be so in a guest. Equal findings are one, seen several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchFinding {
    /// Stable identifier, as `linux/process-hidden`.
    pub rule: String,
    /// `info`, `low`, `medium`, `high`, `critical`.
    pub severity: String,
    /// How sure the policy is, percent.
    pub confidence_percent: u8,
    /// One sentence.
    pub title: String,
    /// Equal: the same finding.
    pub fingerprint: String,
    /// Seen at the last look.
    pub open: bool,
    /// When it was first seen, milliseconds since 1970 UTC.
    pub first_ms: u64,
    /// When it was last seen, milliseconds since 1970 UTC.
    pub last_ms: u64,
    /// Looks that saw it.
    pub times: u64,
    /// What was seen, at the last time.
    pub evidence: Vec<WatchEvidence>,
    /// What the policy would do. Nothing in this release does it.
    pub proposals: Vec<String>,
}

/// What was seen, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchEvidence {
    /// `memory`, `disk`, `flow`, `register`, `note` or `vendor/kind`.
    pub kind: String,
    /// Guest address or offset, as `0xffffffff81000000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A sentence.
    pub text: String,
    /// The first bytes of it, hexadecimal, at most 64 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bytes: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_written_as_it_is_read() {
        for text in ["100ms", "10s", "90s", "5m", "24h"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in ["", "10", "s", "99ms", "25h", "1.5s", "10 s", "99999999999999999999h", "-1s"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        assert_eq!("60s".parse::<Period>().unwrap().to_string(), "1m");
    }
}
