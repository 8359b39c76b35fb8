//! Routers and what they serve.

use super::{Seen, apart, field, inside, is_guest, link_name};
use crate::target::{Host, Invalid, site_bridge};
use crate::{OUTSIDE_PREFIX, ROUTER_PREFIX};
use ipnet::IpNet;
use netd_api::{Dhcp, Dns, Network, Outside, Router};
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

const LEASE_SECONDS: RangeInclusive<u32> = 120..=31_536_000;
/// RFC 1035.
const LABEL_LEN_MAX: usize = 63;
const DOMAIN_LEN_MAX: usize = 253;

pub(super) fn router(
    router: &Router,
    network: &Network,
    host: &Host,
    segment: &str,
    seen: &mut Seen,
) -> Result<(), Invalid> {
    let owner = format!("router of network {}", network.id);
    link_name(&owner, "link", &router.link, ROUTER_PREFIX)?;
    seen.once("link", &router.link, &owner)?;
    seen.once_in("mac", segment, &router.mac.to_string(), &owner)?;
    if router.addresses.is_empty() {
        return Err(field(&owner, "addresses", &"[]", "has none; give it one of each subnet"));
    }
    for net in &router.addresses {
        guest(net.addr(), &owner, "address")?;
        inside(net.addr(), &network.subnets, &owner, "address")?;
        let subnet = network.subnets.iter().find(|subnet| subnet.contains(&net.addr()));
        if let Some(subnet) = subnet.filter(|subnet| subnet.prefix_len() != net.prefix_len()) {
            return Err(field(&owner, "address", net, format!("has another prefix length than {subnet}")));
        }
        seen.once_in("address", segment, &net.addr().to_string(), &owner)?;
    }
    let subnets: Vec<IpNet> = router.addresses.iter().map(IpNet::trunc).collect();
    apart(&subnets, &owner, "addresses")?;
    if let Some(served) = &router.dhcp {
        dhcp(served, router, &subnets, &owner)?;
    }
    if let Some(served) = &router.dns {
        dns(served, &owner)?;
    }
    match &router.outside {
        // Only the host that has the router has its site.
        Some(way) if !router.elsewhere => outside(way, network, host, &subnets, seen),
        _ => Ok(()),
    }
}

fn guest(address: IpAddr, owner: &str, name: &'static str) -> Result<(), Invalid> {
    if is_guest(address) {
        return Ok(());
    }
    Err(field(owner, name, &address, "is no unicast address of one host"))
}

fn dhcp(dhcp: &Dhcp, router: &Router, subnets: &[IpNet], owner: &str) -> Result<(), Invalid> {
    if !LEASE_SECONDS.contains(&dhcp.lease_seconds) {
        let (least, most) = (LEASE_SECONDS.start(), LEASE_SECONDS.end());
        let problem = format!("is out of range; use {least} to {most}");
        return Err(field(owner, "dhcp.lease_seconds", &dhcp.lease_seconds, problem));
    }
    let (mut macs, mut names, mut leased) = (HashSet::new(), HashSet::new(), HashSet::new());
    for lease in &dhcp.leases {
        let once = |fresh: bool, name, value: &dyn ToString| {
            let problem = "is in two leases; each needs its own";
            if fresh { Ok(()) } else { Err(field(owner, name, &value.to_string(), problem)) }
        };
        label(&lease.name, owner, "lease name")?;
        once(macs.insert(lease.mac), "lease mac", &lease.mac)?;
        once(names.insert(lease.name.to_ascii_lowercase()), "lease name", &lease.name)?;
        for address in &lease.addresses {
            guest(*address, owner, "lease address")?;
            inside(*address, subnets, owner, "lease address")?;
            once(leased.insert(*address), "lease address", address)?;
            if router.addresses.iter().any(|net| net.addr() == *address) {
                return Err(field(owner, "lease address", address, "is the router's own; use another"));
            }
            let same = lease.addresses.iter().filter(|other| other.is_ipv4() == address.is_ipv4()).count();
            if same > 1 {
                return Err(field(
                    owner,
                    "lease",
                    &lease.name,
                    "has two addresses of one IP version; use one",
                ));
            }
        }
    }
    Ok(())
}

fn label(name: &str, owner: &str, what: &'static str) -> Result<(), Invalid> {
    let fits = (1..=LABEL_LEN_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits {
        return Ok(());
    }
    let name: String = name.chars().take(DOMAIN_LEN_MAX).collect();
    Err(field(owner, what, &format!("{name:?}"), "is not 1 to 63 letters, digits and '-'"))
}

fn dns(dns: &Dns, owner: &str) -> Result<(), Invalid> {
    if dns.domain.len() > DOMAIN_LEN_MAX {
        let start: String = dns.domain.chars().take(LABEL_LEN_MAX).collect();
        return Err(field(owner, "dns.domain", &start, format!("is longer than {DOMAIN_LEN_MAX} bytes")));
    }
    dns.domain.split('.').try_for_each(|part| label(part, owner, "part of dns.domain"))?;
    dns.forward.iter().try_for_each(|server| guest(*server, owner, "dns.forward"))
}

fn outside(
    outside: &Outside,
    network: &Network,
    host: &Host,
    subnets: &[IpNet],
    seen: &mut Seen,
) -> Result<(), Invalid> {
    let owner = format!("router of network {}", network.id);
    if !host.uplinks.contains_key(&outside.site) {
        return Err(Invalid::UnknownSite { network: network.id.clone(), site: outside.site.clone() });
    }
    link_name(&owner, "outside.link", &outside.link, OUTSIDE_PREFIX)?;
    seen.once("link", &outside.link, &owner)?;
    let lan = site_bridge(&outside.site);
    seen.once_in("mac", &lan, &outside.mac.to_string(), &owner)?;
    for net in &outside.addresses {
        guest(net.addr(), &owner, "outside.address")?;
        seen.once_in("address", &lan, &net.addr().to_string(), &owner)?;
    }
    let mut all = subnets.to_vec();
    all.extend(outside.addresses.iter().map(IpNet::trunc));
    apart(&all, &owner, "outside.addresses")?;
    gateways(outside, &owner)?;
    published(outside, subnets, &owner)
}

fn gateways(outside: &Outside, owner: &str) -> Result<(), Invalid> {
    for (i, gateway) in outside.gateways.iter().enumerate() {
        guest(*gateway, owner, "outside.gateway")?;
        if outside.gateways[..i].iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            return Err(field(owner, "outside.gateway", gateway, "is the second of its IP version; use one"));
        }
        // A link-local gateway is on every link.
        let is_local = matches!(gateway, IpAddr::V6(six) if six.is_unicast_link_local());
        if !is_local && !outside.addresses.iter().any(|net| net.contains(gateway)) {
            let problem = "is not on the LAN of one of outside.addresses; use one that is";
            return Err(field(owner, "outside.gateway", gateway, problem));
        }
        if outside.addresses.iter().any(|net| net.addr() == *gateway) {
            return Err(field(owner, "outside.gateway", gateway, "is the router itself; name the LAN's"));
        }
    }
    Ok(())
}

fn published(outside: &Outside, subnets: &[IpNet], owner: &str) -> Result<(), Invalid> {
    let mut once = HashSet::new();
    for published in &outside.published {
        let number = published.listen_port;
        if number == 0 || published.to.port() == 0 {
            return Err(field(owner, "published port", &0, "cannot be opened; use 1 to 65535"));
        }
        // Both versions of IP can have the same port, each towards its own.
        if !once.insert((published.transport, number, published.to.is_ipv4())) {
            return Err(field(owner, "published port", &number, "is published twice; use another"));
        }
        guest(published.to.ip(), owner, "published.to")?;
        inside(published.to.ip(), subnets, owner, "published.to")?;
        if !outside.addresses.iter().any(|net| net.addr().is_ipv4() == published.to.is_ipv4()) {
            let problem = "has an IP version that outside.addresses has none of; give the router one";
            return Err(field(owner, "published.to", &published.to, problem));
        }
    }
    Ok(())
}
