//! One text for one value, and its digest.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use types::Digest;

/// SHA-256 of the value as JSON without white space, keys in the order of their bytes.
pub(crate) fn digest(value: &impl Serialize) -> Digest {
    // Serialising plain structs with text keys cannot fail.
    let value = serde_json::to_value(value).unwrap_or_default();
    let mut text = String::new();
    write(&value, &mut text);
    Digest::from_bytes(Sha256::digest(text).into())
}

/// JSON with sorted keys, whether or not some crate of the build made `serde_json` keep insertion order.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (position, (key, value)) in sorted.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let one: Value = serde_json::from_str(r#"{"b":[1,{"d":2,"c":null}],"a":"x"}"#).unwrap();
        let mut text = String::new();
        write(&one, &mut text);
        assert_eq!(text, r#"{"a":"x","b":[1,{"c":null,"d":2}]}"#);
        let other: Value = serde_json::from_str(r#"{"a":"x","b":[1,{"c":null,"d":2}]}"#).unwrap();
        assert_eq!(digest(&one), digest(&other));
    }
}
