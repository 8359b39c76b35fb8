//! When an instance counts as come up.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use utoipa::ToSchema;

/// Shortest and longest time that an update waits for `ready`, seconds.
pub const READY_WITHIN_S: RangeInclusive<u64> = 10..=3_600;

/// What is asked of a member's guest before an update of it counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// A guest with another version goes back unless it says `ready` within this time, 10s to 1h; 10m if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "45s")]
    pub ready_within: Option<ReadyTerm>,
}

/// A whole number and `s`, `m` or `h`, within [`READY_WITHIN_S`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadyTerm {
    seconds: u64,
}

/// A text that is no [`ReadyTerm`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoReadyTerm(String);

impl fmt::Display for NoReadyTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no time to become ready in: write 10s to 1h, such as 45s", self.0)
    }
}

impl std::error::Error for NoReadyTerm {}

const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3_600)];

impl ReadyTerm {
    /// In milliseconds.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.seconds * 1_000
    }
}

impl FromStr for ReadyTerm {
    type Err = NoReadyTerm;

    fn from_str(text: &str) -> Result<Self, NoReadyTerm> {
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let seconds =
            number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        let seconds = seconds.filter(|seconds| READY_WITHIN_S.contains(seconds));
        seconds.map(|seconds| Self { seconds }).ok_or_else(|| NoReadyTerm(text.to_owned()))
    }
}

impl fmt::Display for ReadyTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().rev().find(|(_, factor)| self.seconds.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", self.seconds / factor)
    }
}

impl Serialize for ReadyTerm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReadyTerm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_become_ready_is_ten_seconds_to_an_hour() {
        for (text, seconds) in [("10s", 10), ("45s", 45), ("10m", 600), ("1h", 3_600)] {
            let term: ReadyTerm = text.parse().unwrap();
            assert_eq!((term.ms(), term.to_string().as_str()), (seconds * 1_000, text));
        }
        for wrong in ["", "9s", "61m", "2h", "10", "s", "-10s", "10 s", "1d", "99999999999999999999h"] {
            assert!(wrong.parse::<ReadyTerm>().is_err(), "{wrong}");
        }
    }
}
