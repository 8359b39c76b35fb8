//! What the tests of this crate share: a runtime, and a good question of each kind.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use plugins_conformance::questions;
use plugins_conformance::specimen::Specimen;
use plugins_runtime::{Kind, Limits, Policy, PolicyError, Runtime};
use std::path::{Path, PathBuf};

/// A runtime with its own cache, gone after the test.
pub fn runtime(limits: Limits) -> (Runtime, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Runtime::new(limits, folder.path()).unwrap(), folder)
}

/// The folder of the contract.
pub fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")
}

/// The component.
pub fn build(specimen: &Specimen) -> Vec<u8> {
    specimen.build(&wit()).unwrap()
}

/// Asks what it decides about.
pub fn ask(policy: &Policy) -> Result<(), PolicyError> {
    ask_about(policy, policy.kind())
}

/// Asks a good question of that kind.
pub fn ask_about(policy: &Policy, kind: Kind) -> Result<(), PolicyError> {
    questions::ask(policy, kind)
}
