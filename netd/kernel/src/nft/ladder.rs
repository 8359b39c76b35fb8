//! Prefixes in hashes: a set for each rung, and the chains that look in one after the other.
//!
//! A packet's address is cut to a rung's length, and what is left is looked up: `open4_to_16` holds 10.20.0.0 for
//! 10.20.0.0/16. One set for all rungs would need a mark of the length in the key; `nft` writes and lists such marks in a
//! way that it does not read again.

use ipnet::IpNet;
use netd_plan::Ladder;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a set that is a ladder's gate has after the name of the sets that it is for.
pub(super) fn gate_suffix(ladder: Ladder) -> &'static str {
    match ladder {
        Ladder::Four | Ladder::Six => "_some",
        Ladder::SixWide => "_wide",
        Ladder::SixFine => "_fine",
    }
}

/// Kinds of permissions, in the names of sets.
const PERMITTED: [&str; 3] = ["any", "echo", "open"];
/// The way through a port, and who opens.
const WAYS: [&str; 2] = ["from", "to"];

/// The sets and chains of all ladders, as lines of a table. A chain ends if no rung fits; `to_open4_from` is for what a
/// guest is sent, and for services that it may open.
pub(super) fn lines() -> String {
    let mut text = String::new();
    for ladder in Ladder::ALL {
        for permitted in PERMITTED {
            for opener in WAYS {
                sets(&mut text, ladder, permitted, opener);
                for way in WAYS {
                    chain(&mut text, ladder, permitted, way, opener);
                }
            }
        }
    }
    text
}

// Writing to a String cannot fail.

fn sets(text: &mut String, ladder: Ladder, permitted: &str, opener: &str) {
    let (version, address) = if ladder.is_ipv4() { (4, "ipv4_addr") } else { (6, "ipv6_addr") };
    let service = if permitted == "open" { " . inet_proto . inet_service" } else { "" };
    let name = format!("{permitted}{version}_{opener}");
    let _ = writeln!(text, "  set {name}{} {{ type ifname{service}; }}", gate_suffix(ladder));
    for rung in ladder.rungs() {
        let _ = writeln!(text, "  set {name}_{rung} {{ type ifname . {address}{service}; counter; }}");
    }
}

fn chain(text: &mut String, ladder: Ladder, permitted: &str, way: &str, opener: &str) {
    let (version, header) = if ladder.is_ipv4() { (4, "ip") } else { (6, "ip6") };
    let (link, address) = if way == "from" { ("iifname", "daddr") } else { ("oifname", "saddr") };
    let set = format!("{permitted}{version}_{opener}");
    let service = match permitted {
        // Who opens asks for the other end's service; what goes the other way comes from it.
        "open" if way == opener => " . meta l4proto . th dport",
        "open" => " . meta l4proto . th sport",
        _ => "",
    };
    let name = |ladder| match gate_suffix(ladder) {
        "_some" => format!("{way}_{set}"),
        suffix => format!("{way}_{set}{suffix}"),
    };
    let _ = writeln!(text, "  chain {} {{", name(ladder));
    for rung in ladder.rungs() {
        let mask = netmask(ladder, *rung);
        let _ =
            writeln!(text, "    {link} . {header} {address} & {mask}{service} @{set}_{rung} goto pass_{way}");
    }
    if ladder == Ladder::Six {
        for next in [Ladder::SixWide, Ladder::SixFine] {
            let gate = gate_suffix(next);
            let _ = writeln!(text, "    {link}{service} @{set}{gate} jump {}", name(next));
        }
    }
    let _ = writeln!(text, "  }}");
}

fn netmask(ladder: Ladder, rung: u8) -> IpAddr {
    let address =
        if ladder.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    // Rungs are no longer than addresses.
    IpNet::new(address, rung).unwrap_or_else(|_| address.into()).netmask()
}
