//! Names, digests, sizes and MAC addresses: whatever a text is, it is refused or it is one thing only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{Debug, Display};
use std::str::FromStr;
use types::{
    ApplianceRef, Base64, BundleName, ByteSize, Digest, InstanceId, MacAddress, NAME_LEN_MAX, VersionName,
};

/// A value is what its text says, also through JSON. Returns its text.
fn survives<T>(text: &str) -> Option<String>
where
    T: FromStr<Err: Debug> + Display + Debug + PartialEq + Serialize + DeserializeOwned,
{
    let value: T = text.parse().ok()?;
    let written = value.to_string();
    assert_eq!(written.parse::<T>().expect("what was written is read"), value);
    let json = serde_json::to_string(&value).expect("a word has a JSON");
    assert_eq!(serde_json::from_str::<T>(&json).expect("its JSON is read"), value);
    Some(written)
}

/// Names and digests stand in file names and URLs without quotes, so their text is what was given.
fn is_plain(text: &str, more: &str, parts: usize) {
    assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c)));
    assert!(text.split('/').count() == parts);
    for part in text.split('/') {
        assert!(!matches!(part, "" | "." | "..") && (part.len() <= NAME_LEN_MAX || part.len() == 71));
    }
}

fuzz_target!(|text: &str| {
    for (written, more, parts) in [
        (survives::<BundleName>(text), "-", 1),
        (survives::<VersionName>(text), ".-+~", 1),
        (survives::<ApplianceRef>(text), "-/", 2),
        (survives::<InstanceId>(text), "-/", 2),
        (survives::<Digest>(text), ":", 1),
    ] {
        if let Some(written) = written {
            assert_eq!(text, written);
            is_plain(text, more, parts);
        }
    }
    survives::<ByteSize>(text);
    if let Some(mac) = survives::<MacAddress>(text) {
        assert_eq!(mac, text.to_ascii_lowercase());
    }
    // From JSON of any kind too: a size may be a number.
    let _ = serde_json::from_str::<ByteSize>(text);
    let _ = serde_json::from_str::<Base64>(text);
    let _ = serde_json::from_str::<Digest>(text);
});
