//! Names and numbers that follow from what they name: the same question always has the same answer.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use types::{DeploymentName, Digest, InstanceId, MacAddress, MemberName, NetworkName, PortName};

/// Smallest VNI given out; below are numbers that other tools like.
pub const VNI_MIN: u32 = 4_096;
/// Largest VNI there is (24 bits).
pub const VNI_MAX: u32 = 16_777_215;

fn hash(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        // Names are shorter than 256 bytes; the length keeps `a`,`bc` apart from `ab`,`c`.
        hasher.update([u8::try_from(part.len()).unwrap_or(u8::MAX)]);
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

/// SHA-256 of bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// A locally administered unicast address.
#[must_use]
pub fn mac(deployment: &DeploymentName, member: &MemberName, port: &PortName) -> MacAddress {
    let hash = hash(&["mac", deployment.as_str(), member.as_str(), port.as_str()]);
    MacAddress([0x02, hash[0], hash[1], hash[2], hash[3], hash[4]])
}

/// `ct` and ten hexadecimal digits.
#[must_use]
pub fn tap(deployment: &DeploymentName, member: &MemberName, port: &PortName) -> String {
    format!("ct{}", hex::encode(&hash(&["tap", deployment.as_str(), member.as_str(), port.as_str()])[..5]))
}

/// `cb` and ten hexadecimal digits.
#[must_use]
pub fn bridge(deployment: &DeploymentName, network: &NetworkName) -> String {
    format!("cb{}", hex::encode(&hash(&["bridge", deployment.as_str(), network.as_str()])[..5]))
}

/// `cx` and ten hexadecimal digits.
#[must_use]
pub fn vxlan_link(deployment: &DeploymentName, network: &NetworkName) -> String {
    format!("cx{}", hex::encode(&hash(&["vxlan", deployment.as_str(), network.as_str()])[..5]))
}

/// `cv` and ten hexadecimal digits.
#[must_use]
pub fn vlan_link(deployment: &DeploymentName, network: &NetworkName) -> String {
    format!("cv{}", hex::encode(&hash(&["vlan", deployment.as_str(), network.as_str()])[..5]))
}

/// `cr` and ten hexadecimal digits: a network's router on it.
#[must_use]
pub fn router_link(deployment: &DeploymentName, network: &NetworkName) -> String {
    format!("cr{}", hex::encode(&hash(&["router", deployment.as_str(), network.as_str()])[..5]))
}

/// `co` and ten hexadecimal digits: a network's router on the site's LAN.
#[must_use]
pub fn outside_link(deployment: &DeploymentName, network: &NetworkName) -> String {
    format!("co{}", hex::encode(&hash(&["outside", deployment.as_str(), network.as_str()])[..5]))
}

/// `cx` and ten hexadecimal digits: copies of a member's frames on their way to a port that watches.
#[must_use]
pub fn mirror_link(watcher: &InstanceId, port: &PortName, watched: &MemberName) -> String {
    let parts =
        ["mirror", watcher.deployment.as_str(), watcher.member.as_str(), port.as_str(), watched.as_str()];
    format!("cx{}", hex::encode(&hash(&parts)[..5]))
}

/// A router's address on its network: locally administered, unicast.
#[must_use]
pub fn router_mac(deployment: &DeploymentName, network: &NetworkName) -> MacAddress {
    let hash = hash(&["router-mac", deployment.as_str(), network.as_str()]);
    MacAddress([0x02, hash[0], hash[1], hash[2], hash[3], hash[4]])
}

/// A router's address on the site's LAN: locally administered, unicast.
#[must_use]
pub fn outside_mac(deployment: &DeploymentName, network: &NetworkName) -> MacAddress {
    let hash = hash(&["outside-mac", deployment.as_str(), network.as_str()]);
    MacAddress([0x02, hash[0], hash[1], hash[2], hash[3], hash[4]])
}

/// A VNI that is not in `taken`: the one the name leads to, or the next free one. None if all are taken.
#[must_use]
pub fn vni(deployment: &DeploymentName, network: &NetworkName, taken: &BTreeSet<u32>) -> Option<u32> {
    free_vni(hash(&["vni", deployment.as_str(), network.as_str()]), taken)
}

/// As [`vni`], for copies of a member's frames on their way to a port that watches.
#[must_use]
pub fn mirror_vni(
    watcher: &InstanceId,
    port: &PortName,
    watched: &MemberName,
    taken: &BTreeSet<u32>,
) -> Option<u32> {
    let (deployment, member) = (watcher.deployment.as_str(), watcher.member.as_str());
    free_vni(hash(&["mirror-vni", deployment, member, port.as_str(), watched.as_str()]), taken)
}

fn free_vni(hash: [u8; 32], taken: &BTreeSet<u32>) -> Option<u32> {
    let count = VNI_MAX - VNI_MIN + 1;
    let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % count;
    (0..count).map(|step| VNI_MIN + (first + step) % count).find(|vni| !taken.contains(vni))
}
