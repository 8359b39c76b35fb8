//! A policy's signature file, as the controller and the command line read it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plugins_artifact::{Envelope, Kind, PublicKey, Root, verify};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse(bytes) {
        envelope.statement().check().expect("what was read may be signed");
    }
    // Nobody has this key: whatever the bytes are, nobody vouches.
    let root = Root { name: "nobody".into(), key: PublicKey::from_bytes([7; 32]), kinds: Kind::ALL.into() };
    assert!(verify(bytes, b"a component", &[root]).is_err());
});
