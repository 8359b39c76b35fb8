//! Whether what a version says of its virtual hardware can be: the same limits for every way it comes by.

use crate::problem::{Answer, Refused};
use controller_api::rest::SignedVersion;
use std::collections::BTreeSet;

/// Sizes of an appliance's memory in bytes, and its processors.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=1 << 40;
const VCPUS: std::ops::RangeInclusive<u32> = 1..=64;
const PORTS_MAX: usize = 8;

/// # Errors
/// 422 with the field.
pub(crate) fn check(signed: &SignedVersion) -> Answer<()> {
    let (hardware, spec) = (&signed.spec.hardware, &signed.spec);
    if !MEMORY_BYTES.contains(&hardware.memory.0) || !VCPUS.contains(&hardware.vcpus) {
        return Err(Refused::invalid("spec.hardware: vcpus are 1 to 64, memory is 16MiB to 1TiB"));
    }
    if spec.disks.len() != 1 || !spec.disks.contains_key("system") {
        return Err(Refused::invalid("spec.disks: exactly one disk, named system"));
    }
    let distinct: BTreeSet<_> = spec.ports.iter().collect();
    if spec.ports.len() > PORTS_MAX || distinct.len() != spec.ports.len() {
        return Err(Refused::invalid(format!("spec.ports: at most {PORTS_MAX}, each name once")));
    }
    Ok(())
}
