//! Messages between agents and controller, a host's request to join, what publishers send, and what is said to the
//! streamer: JSON that is refused, or
//! means the same after it was written and read again.
#![no_main]

use controller_api::agent::{JoinAnswer, JoinRequest, ToAgent, ToController};
use controller_api::rest::{PublishVersion, SignedVersion};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use streamer_api::{
    ImageSource, Limits, Manifest, Profile, PublishProgress, PublishRequest, Run, Stall, StreamEvent,
};

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &str) {
    let Ok(value) = serde_json::from_str::<T>(text) else { return };
    let json = serde_json::to_string(&value).expect("a message has a JSON");
    assert_eq!(serde_json::from_str::<T>(&json).expect("what was written is read"), value, "{json}");
}

fuzz_target!(|text: &str| {
    survives::<ToAgent>(text);
    survives::<ToController>(text);
    survives::<JoinRequest>(text);
    survives::<JoinAnswer>(text);
    survives::<PublishVersion>(text);
    survives::<SignedVersion>(text);
    survives::<ImageSource>(text);
    survives::<Manifest>(text);
    survives::<Limits>(text);
    survives::<Vec<Profile>>(text);
    survives::<PublishRequest>(text);
    survives::<PublishProgress>(text);
    survives::<Run>(text);
    survives::<Stall>(text);
    survives::<StreamEvent>(text);
});
