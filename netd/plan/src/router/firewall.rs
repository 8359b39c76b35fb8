//! A router's own rules, as `nft` reads them.

use ipnet::IpNet;
use netd_api::{Outside, Published, Router, Transport};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// The table in a router's namespace: nothing is forwarded or taken in but what is named. Everything that goes into
/// the text is a number or an address, so nothing can break out of it.
pub(super) fn render(router: &Router) -> String {
    let mut forward = vec![
        "ct state invalid drop".to_owned(),
        "ct state established,related accept".to_owned(),
        "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu".to_owned(),
    ];
    let (mut inward, mut outward) = (Vec::new(), Vec::new());
    if let Some(outside) = &router.outside {
        forward.extend(only_own_sources(router));
        for six in [false, true] {
            forward.extend(opened(router, outside, six));
            outward.extend(translated_sources(router, outside, six));
        }
        inward.extend(outside.published.iter().filter_map(|published| translated(outside, published)));
    }
    let mut text = "table inet collective {\n".to_owned();
    chain(&mut text, "forward", "filter hook forward priority 0; policy drop", &forward);
    chain(&mut text, "input", "filter hook input priority 0; policy drop", &taken_in(router));
    chain(&mut text, "inward", "nat hook prerouting priority -100; policy accept", &inward);
    chain(&mut text, "outward", "nat hook postrouting priority 100; policy accept", &outward);
    text.push_str("}\n");
    text
}

fn chain(text: &mut String, name: &str, hook: &str, rules: &[String]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  chain {name} {{\n    type {hook};");
    for rule in rules {
        let _ = writeln!(text, "    {rule}");
    }
    text.push_str("  }\n");
}

fn family(six: bool) -> &'static str {
    if six { "ip6" } else { "ip" }
}

fn is_six(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

fn subnets(router: &Router, six: bool) -> Option<String> {
    let of_version: Vec<IpNet> =
        router.addresses.iter().filter(|net| is_six(net) == six).map(IpNet::trunc).collect();
    let names: Vec<String> = IpNet::aggregate(&of_version).iter().map(IpNet::to_string).collect();
    (!names.is_empty()).then(|| format!("{{ {} }}", names.join(", ")))
}

/// The router's own address on the LAN.
fn own(outside: &Outside, six: bool) -> Option<IpAddr> {
    outside.addresses.iter().find(|net| is_six(net) == six).map(IpNet::addr)
}

/// Nobody inside speaks for the LAN, nobody on the LAN speaks for the inside.
fn only_own_sources(router: &Router) -> Vec<String> {
    let mut rules = Vec::new();
    for six in [false, true] {
        let (ip, version) = (family(six), if six { "ipv6" } else { "ipv4" });
        match subnets(router, six) {
            Some(nets) => rules.extend([
                format!("iifname \"lan\" {ip} saddr != {nets} drop"),
                format!("iifname \"wan\" {ip} saddr {nets} drop"),
            ]),
            None => rules.push(format!("meta nfproto {version} drop")),
        }
    }
    rules
}

/// Connections that may be opened over it, of one version of IP.
fn opened(router: &Router, outside: &Outside, six: bool) -> Vec<String> {
    let Some(nets) = subnets(router, six) else { return Vec::new() };
    let ip = family(six);
    // Without an address of this version there is nothing to hide behind.
    if outside.nat && own(outside, six).is_none() {
        return Vec::new();
    }
    let inward = if outside.nat { "ct status dnat " } else { "" };
    vec![
        format!("iifname \"lan\" oifname \"wan\" {ip} saddr {nets} accept"),
        format!("iifname \"wan\" oifname \"lan\" {inward}{ip} daddr {nets} accept"),
    ]
}

fn translated_sources(router: &Router, outside: &Outside, six: bool) -> Option<String> {
    let (nets, own) = (subnets(router, six)?, own(outside, six).filter(|_| outside.nat)?);
    let ip = family(six);
    Some(format!("oifname \"wan\" {ip} saddr {nets} snat {ip} to {own}"))
}

fn translated(outside: &Outside, published: &Published) -> Option<String> {
    let six = published.to.is_ipv6();
    let (own, ip) = (own(outside, six)?, family(six));
    let transport = match published.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    // Without a zone: addresses inside are not link-local.
    let to = SocketAddr::new(published.to.ip(), published.to.port());
    let number = published.listen_port;
    Some(format!("iifname \"wan\" {ip} daddr {own} {transport} dport {number} dnat {ip} to {to}"))
}

fn taken_in(router: &Router) -> Vec<String> {
    let mut rules: Vec<String> = [
        "iifname \"lo\" accept",
        // Neighbour discovery is untracked, and comes from next door only.
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
        "ct state invalid drop",
        "ct state established,related accept",
        "icmp type echo-request accept",
        "icmpv6 type echo-request accept",
        "iifname \"lan\" icmpv6 type nd-router-solicit ip6 hoplimit 255 accept",
    ]
    .map(str::to_owned)
    .into();
    if router.dhcp.is_some() {
        rules.push("iifname \"lan\" udp dport { 67, 547 } accept".to_owned());
    }
    if router.dns.is_some() {
        rules.push("iifname \"lan\" meta l4proto { 6, 17 } th dport 53 accept".to_owned());
    }
    rules
}
