//! Rates people write: `100Mbit/s`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// Bits a second. Written as a number or with a decimal unit: `640kbit/s`, `100Mbit/s`, `1Gbit/s`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, example = "100Mbit/s")]
pub struct BitRate(pub u64);

const UNITS: [(&str, u64); 4] =
    [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)];

impl FromStr for BitRate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("{text:?} is not a rate: write 640kbit/s, 100Mbit/s or 1Gbit/s");
        let (digits, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits.trim_end(), *factor)))
            .unwrap_or((text, 1));
        let number: u64 = digits.parse().map_err(|_| fail())?;
        number.checked_mul(factor).map(Self).ok_or_else(fail)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}bit/s", self.0),
        }
    }
}

impl Serialize for BitRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BitRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = BitRate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate such as 100Mbit/s")
            }
            fn visit_u64<E: de::Error>(self, bits: u64) -> Result<BitRate, E> {
                Ok(BitRate(bits))
            }
            fn visit_i64<E: de::Error>(self, bits: i64) -> Result<BitRate, E> {
                u64::try_from(bits).map(BitRate).map_err(|_| E::custom("a rate is not negative"))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BitRate, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_rate_survives_text(bits in any::<u64>()) {
            prop_assert_eq!(BitRate(bits).to_string().parse::<BitRate>().unwrap(), BitRate(bits));
        }

        #[test]
        fn any_text_is_a_rate_or_refused_without_panic(text in ".{0,24}") {
            let _ = text.parse::<BitRate>();
        }
    }
}
