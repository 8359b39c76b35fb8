//! Switches of the kernel that have no netlink.

use std::{fs, io};

const BRIDGE_NETFILTER: [&str; 3] = [
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
    "/proc/sys/net/bridge/bridge-nf-call-arptables",
];

/// Whether any kind of bridged frame goes through the host's IP firewall. A kernel without the switch does not do it.
pub(crate) fn bridge_netfilter() -> bool {
    BRIDGE_NETFILTER.iter().any(|path| fs::read_to_string(path).is_ok_and(|text| text.trim() != "0"))
}

/// Ends it.
pub(crate) fn bypass_host_firewall() -> io::Result<()> {
    BRIDGE_NETFILTER.iter().try_for_each(|path| write_if_present(path, "0"))
}

/// The host stops speaking IPv6 on a link.
pub(crate) fn mute(link: &str) -> io::Result<()> {
    write_if_present(&format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1")
}

fn write_if_present(path: &str, value: &str) -> io::Result<()> {
    match fs::write(path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
