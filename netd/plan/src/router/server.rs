//! What a router's servers are told: the configuration of dnsmasq.

use super::RouterTarget;
use ipnet::IpNet;
use netd_api::{Dhcp, Dns, Lease};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Seconds between router advertisements.
const ADVERTISE_SECONDS: u32 = 60;
/// Seconds for which an advertised router is believed.
const ROUTER_SECONDS: u32 = 1800;

/// Nothing if nothing is to be served. Names in it were checked: letters, digits, `-` and, in domains, dots.
pub(super) fn render(wanted: &RouterTarget) -> Option<String> {
    let router = &wanted.router;
    if router.dhcp.is_none() && router.dns.is_none() && !router.advertises {
        return None;
    }
    let mut lines: Vec<String> = [
        "no-hosts",
        "no-resolv",
        "bind-dynamic",
        "interface=lan",
        "except-interface=lo",
        "domain-needed",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
    ]
    .map(str::to_owned)
    .into();
    let leases: &[Lease] = router.dhcp.as_ref().map(|dhcp| dhcp.leases.as_slice()).unwrap_or_default();
    match &router.dns {
        Some(dns) => lines.extend(names(dns, leases)),
        None => lines.push("port=0".to_owned()),
    }
    if router.dhcp.is_some() || router.advertises {
        lines.extend(ranges(wanted));
        lines.extend(options(wanted));
    }
    if let Some(dhcp) = &router.dhcp {
        lines.extend(dhcp.leases.iter().filter_map(|lease| host(lease, dhcp)));
    }
    if router.advertises {
        // Who leads nowhere is no default router.
        let seconds = if router.outside.is_some() { ROUTER_SECONDS } else { 0 };
        lines.push("enable-ra".to_owned());
        lines.push(format!("ra-param=lan,mtu:{},{ADVERTISE_SECONDS},{seconds}", wanted.mtu));
    }
    lines.push(String::new());
    Some(lines.join("\n"))
}

fn names(dns: &Dns, leases: &[Lease]) -> Vec<String> {
    let domain = &dns.domain;
    let mut lines = vec![format!("domain={domain}"), format!("local=/{domain}/")];
    if dns.forward.is_empty() {
        lines.push("address=/#/".to_owned());
    }
    lines.extend(dns.forward.iter().map(|server| format!("server={server}")));
    for Lease { addresses, name, .. } in leases.iter().filter(|lease| !lease.addresses.is_empty()) {
        let mut line = format!("host-record={name}.{domain},{name}");
        for address in addresses {
            // Writing to a String cannot fail.
            let _ = write!(line, ",{address}");
        }
        lines.push(line);
    }
    lines
}

/// Only who is named gets an answer; the IPv6 ranges are also what is advertised.
fn ranges(wanted: &RouterTarget) -> Vec<String> {
    let dhcp = wanted.router.dhcp.clone().unwrap_or_default();
    let seconds = dhcp.lease_seconds.max(LEASE_SECONDS_MIN);
    // A lease a NIC and version, and one more for who comes back under another client identifier.
    let leases_max = 4 * dhcp.leases.len() + 1;
    let mut lines = vec![
        "no-ping".to_owned(),
        "dhcp-authoritative".to_owned(),
        "dhcp-ignore=tag:!known".to_owned(),
        format!("dhcp-lease-max={leases_max}"),
    ];
    let has_leases = wanted.router.dhcp.is_some();
    lines.extend(wanted.router.addresses.iter().filter_map(|net| match net {
        IpNet::V4(v4) if has_leases => {
            Some(format!("dhcp-range={},static,{},{seconds}", v4.network(), v4.netmask()))
        }
        IpNet::V4(_) => None,
        IpNet::V6(v6) => Some(format!("dhcp-range={},static,{},{seconds}", v6.network(), v6.prefix_len())),
    }));
    lines
}

/// What dnsmasq takes at least.
const LEASE_SECONDS_MIN: u32 = 120;

fn options(wanted: &RouterTarget) -> Vec<String> {
    let router = &wanted.router;
    let own = |six: bool| router.addresses.iter().map(IpNet::addr).find(|address| address.is_ipv6() == six);
    let option = |name: &str, value: Option<String>| match value {
        Some(value) => format!("dhcp-option={name},{value}"),
        // Said, so that dnsmasq does not offer itself.
        None => format!("dhcp-option={name}"),
    };
    let serves_names = router.dns.is_some();
    let gateway = own(false).filter(|_| router.outside.is_some()).map(|address| address.to_string());
    let server4 = own(false).filter(|_| serves_names).map(|address| address.to_string());
    let server6 = own(true).filter(|_| serves_names).map(|address| format!("[{address}]"));
    let mut lines = vec![
        option("option:router", gateway),
        option("option:mtu", Some(wanted.mtu.to_string())),
        option("option:dns-server", server4),
        option("option6:dns-server", server6),
    ];
    if let Some(dns) = &router.dns {
        lines.push(option("option6:domain-search", Some(dns.domain.clone())));
    }
    lines
}

fn host(lease: &Lease, dhcp: &Dhcp) -> Option<String> {
    let mut line = format!("dhcp-host={}", lease.mac);
    for address in &lease.addresses {
        // Writing to a String cannot fail.
        let _ = match address {
            IpAddr::V4(v4) => write!(line, ",{v4}"),
            IpAddr::V6(v6) => write!(line, ",[{v6}]"),
        };
    }
    let seconds = dhcp.lease_seconds.max(LEASE_SECONDS_MIN);
    (!lease.addresses.is_empty()).then(|| format!("{line},{},{seconds}", lease.name))
}
