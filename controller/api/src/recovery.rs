//! What happens when a host is lost, and what a site could start without the rest of the world.

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use types::{DeploymentName, Digest, HostName, InstanceId, SiteName};
use utoipa::{IntoParams, ToSchema};

/// Shortest and longest lease, milliseconds.
pub const LEASE_MS: RangeInclusive<u64> = 5_000..=600_000;
/// Lease of deployments that name none, milliseconds.
pub const LEASE_MS_DEFAULT: u64 = 5_000;

/// What happens to a deployment's instances when their host is lost: `restart`, `never`, or
/// `{when: host_lost, lease: 5s, from: newest_checkpoint}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct RecoverySpec {
    /// When they are started elsewhere.
    pub when: RecoverWhen,
    /// How long a host may run them after the controller last heard it, 5s to 10m; 5s if absent.
    #[schema(value_type = Option<String>, example = "5s")]
    pub lease: LeaseTerm,
    /// From what.
    pub from: RecoverFrom,
}

/// When a deployment's instances are started elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecoverWhen {
    /// They run on where they are, also on a host that is cut off.
    #[default]
    Never,
    /// When their host was not heard for the lease. A host that hears nothing stops them by itself before.
    HostLost,
}

/// What instances of a lost host are started from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecoverFrom {
    /// The newest checkpoint. Without one: those that have no volumes from their version's image, those that have some
    /// not at all.
    #[default]
    NewestCheckpoint,
    /// Their version's image and blank volumes.
    Fresh,
}

/// A lease's length: a whole number and `ms`, `s` or `m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseTerm {
    /// In [`LEASE_MS`].
    pub ms: u64,
}

impl Default for LeaseTerm {
    fn default() -> Self {
        Self { ms: LEASE_MS_DEFAULT }
    }
}

/// A text that is no [`LeaseTerm`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoLease(String);

impl fmt::Display for NoLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no lease: write 5s to 10m, such as 30s", self.0)
    }
}

impl std::error::Error for NoLease {}

const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("m", 60_000)];

impl FromStr for LeaseTerm {
    type Err = NoLease;

    fn from_str(text: &str) -> Result<Self, NoLease> {
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let ms =
            number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        let ms = ms.filter(|ms| LEASE_MS.contains(ms));
        ms.map(|ms| Self { ms }).ok_or_else(|| NoLease(text.to_owned()))
    }
}

impl fmt::Display for LeaseTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().rev().find(|(_, factor)| self.ms.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", self.ms / factor)
    }
}

impl Serialize for LeaseTerm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LeaseTerm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl RecoverySpec {
    /// `restart`.
    pub const RESTART: Self = Self {
        when: RecoverWhen::HostLost,
        lease: LeaseTerm { ms: LEASE_MS_DEFAULT },
        from: RecoverFrom::NewestCheckpoint,
    };
    /// `never`.
    pub const NEVER: Self = Self { when: RecoverWhen::Never, ..Self::RESTART };

    /// Its instances run under a lease.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.when == RecoverWhen::HostLost
    }
}

/// The long form, as people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    when: RecoverWhen,
    #[serde(default)]
    lease: LeaseTerm,
    #[serde(default)]
    from: RecoverFrom,
}

impl<'de> Deserialize<'de> for RecoverySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> de::Visitor<'de> for Forms {
            type Value = RecoverySpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("restart, never or {when: host_lost, lease: 5s, from: newest_checkpoint}")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<RecoverySpec, E> {
                match word {
                    "restart" => Ok(RecoverySpec::RESTART),
                    "never" => Ok(RecoverySpec::NEVER),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RecoverySpec, A::Error> {
                let Written { when, lease, from } = Written::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RecoverySpec { when, lease, from })
            }
        }

        deserializer.deserialize_any(Forms)
    }
}

/// Query of `DELETE /v1/hosts/{name}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct RemoveHost {
    /// It will never come back: it goes with what is on it.
    #[serde(default)]
    pub force: bool,
    /// With `force`: what was on it and is not leased starts elsewhere, from its newest checkpoint.
    #[serde(default)]
    pub restore: bool,
}

/// What went with a host that was removed by force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedHost {
    /// Under a lease: they start elsewhere as soon as it has surely run out.
    pub recovering: Vec<InstanceId>,
    /// Without a lease: started elsewhere from this checkpoint.
    pub restored: Vec<Restored>,
    /// Without a lease and a checkpoint: started elsewhere from their version's image.
    pub afresh: Vec<InstanceId>,
    /// `DEPLOYMENT/MEMBER/VOLUME`: their bytes were only there.
    pub lost_volumes: Vec<String>,
}

/// An instance that goes on from a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Restored {
    /// Which.
    pub instance: InstanceId,
    /// From which checkpoint of its deployment.
    pub checkpoint: String,
}

/// Whether a site could start its deployments if it were cut off from everything else now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SiteReadiness {
    /// Which site.
    pub site: SiteName,
    /// All of its deployments would start.
    pub ready: bool,
    /// Its hosts that can hold instances, and those of them that are connected.
    pub hosts: u32,
    /// Of those, connected now.
    pub hosts_online: u32,
    /// Deployments with an instance there.
    pub deployments: Vec<DeploymentReadiness>,
}

/// Whether a deployment would start at a site that is cut off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentReadiness {
    /// Which.
    pub deployment: DeploymentName,
    /// It would.
    pub ready: bool,
    /// Its instances run under a lease: a site that is cut off stops them, by design.
    pub leased: bool,
    /// Bytes of images that have to come from elsewhere, at most.
    pub missing_bytes: u64,
    /// Images that are not wholly at the site.
    pub missing: Vec<MissingImage>,
    /// Whatever else keeps it from starting, for people.
    pub obstacles: Vec<String>,
}

/// An image that is not wholly at a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MissingImage {
    /// Which.
    pub image: Digest,
    /// Bytes that no host of the site is known to have.
    pub missing_bytes: u64,
    /// The host of the site that has most of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_at: Option<HostName>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<RecoverySpec, String> {
        serde_json::from_value(value).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn the_short_form_is_a_lease_of_five_seconds_and_the_newest_checkpoint() {
        let long = json!({"when": "host_lost", "lease": "5s", "from": "newest_checkpoint"});
        assert_eq!(read(json!("restart")), read(long));
        assert_eq!(read(json!("restart")), read(json!({"when": "host_lost"})));
        assert!(read(json!("restart")).unwrap().is_leased());
        assert!(!read(json!("never")).unwrap().is_leased());
    }

    #[test]
    fn what_is_written_out_is_read_back() {
        let spec = read(json!({"when": "host_lost", "lease": "90s", "from": "fresh"})).unwrap();
        assert_eq!(spec.lease.ms, 90_000);
        assert_eq!(read(serde_json::to_value(spec).unwrap()), Ok(spec));
        assert_eq!("10m".parse::<LeaseTerm>().unwrap().to_string(), "10m");
    }

    #[test]
    fn a_lease_out_of_range_or_an_unknown_word_says_what_to_write() {
        for lease in ["4999ms", "11m", "5", "s", "5 s", "99999999999999999999s", ""] {
            let refused = read(json!({"when": "host_lost", "lease": lease})).unwrap_err();
            assert!(refused.contains("write 5s to 10m"), "{lease}: {refused}");
        }
        assert!(read(json!("always")).unwrap_err().contains("restart, never or"));
        assert!(read(json!({"lease": "5s"})).unwrap_err().contains("when"));
        assert!(read(json!({"when": "host_lost", "least": "5s"})).unwrap_err().contains("least"));
    }
}
