//! What a registry of policies' components says, and the references people type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plugins_artifact::registry::{Reference, strangers};

fuzz_target!(|bytes: &[u8]| {
    if let Some(size) = strangers::manifest(bytes) {
        assert!(size <= plugins_artifact::COMPONENT_BYTES_MAX as u64);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        strangers::challenge(text);
        if let Ok(reference) = text.parse::<Reference>() {
            assert_eq!(reference.to_string(), text);
        }
    }
});
