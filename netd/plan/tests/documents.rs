//! What is refused, and that a change is refused or taken up exactly as the whole document would be.
#![allow(clippy::unwrap_used, reason = "in a test's helpers too, a panic is the failure")]

use netd_api::{
    Change, Desired, Dhcp, Dns, Lease, Mirror, MirrorFrom, MirrorTo, MirrorTunnel, Network, Outside, Port,
    Published, Rate, Router, Transport, Uplink, Watcher,
};
use netd_plan::{Document, Host, Target};
use proptest::prelude::*;
use types::{Generation, MacAddress, SiteName};

fn host() -> Host {
    Host {
        underlay: Some("192.0.2.1".parse().unwrap()),
        uplinks: [(site(), "eth1".to_owned())].into(),
        trunks: [("core".to_owned(), "eth2".to_owned()), ("edge".to_owned(), "eth3".to_owned())].into(),
    }
}

fn site() -> SiteName {
    SiteName::new("lab").unwrap()
}

fn port(number: u8) -> Port {
    Port {
        addresses: vec![format!("10.20.0.{number}").parse().unwrap()],
        ..Port::closed(
            format!("office/m{number}/eth0"),
            format!("ct{number}"),
            MacAddress([2, 0, 0, 0, 0, number]),
        )
    }
}

fn network(number: u8, ports: Vec<Port>) -> Network {
    Network {
        id: format!("office/n{number}"),
        bridge: format!("cb{number}"),
        mtu: 1450,
        subnets: vec!["10.20.0.0/24".parse().unwrap(), "fd00:20::/64".parse().unwrap()],
        ports,
        ..Network::default()
    }
}

fn vlan(trunk: &str, vid: u16, link: &str) -> Uplink {
    Uplink::Vlan { trunk: trunk.to_owned(), vid, link: link.to_owned() }
}

fn tunnel(vni: u32, link: &str) -> MirrorTunnel {
    MirrorTunnel { vni, link: link.to_owned(), peer: "192.0.2.9".parse().unwrap() }
}

fn router() -> Router {
    let lease = |last: u8, name: &str| Lease {
        mac: MacAddress([2, 0, 0, 0, 0, last]),
        addresses: vec![format!("10.20.0.{last}").parse().unwrap()],
        name: name.to_owned(),
    };
    Router {
        link: "cr1".to_owned(),
        mac: MacAddress([2, 0, 0, 0, 1, 1]),
        addresses: vec!["10.20.0.1/24".parse().unwrap(), "fd00:20::1/64".parse().unwrap()],
        dhcp: Some(Dhcp { lease_seconds: 3600, leases: vec![lease(11, "one"), lease(12, "two")] }),
        dns: Some(Dns { domain: "office.example".to_owned(), forward: vec!["192.0.2.53".parse().unwrap()] }),
        advertises: true,
        elsewhere: false,
        outside: Some(Outside {
            site: site(),
            link: "co1".to_owned(),
            mac: MacAddress([2, 0, 0, 0, 1, 2]),
            addresses: vec!["198.51.100.7/24".parse().unwrap()],
            gateways: vec!["198.51.100.1".parse().unwrap()],
            nat: true,
            published: vec![Published {
                transport: Transport::Tcp,
                listen_port: 8080,
                to: "10.20.0.11:80".parse().unwrap(),
            }],
        }),
    }
}

/// One of everything, and nothing wrong with it.
fn whole() -> Desired {
    let mut routed = network(1, vec![port(11), port(12)]);
    routed.router = Some(router());
    let tagged = Network { uplink: vlan("core", 100, "cv2"), ..network(2, vec![port(21)]) };
    let wire = Network { wire: true, subnets: Vec::new(), ..network(3, vec![port(31), port(32)]) };
    let vxlan = Uplink::Vxlan { vni: 7, link: "cx4".into(), peers: vec!["192.0.2.9".parse().unwrap()] };
    let far_wire = Network { wire: true, uplink: vxlan, ..network(4, vec![port(41)]) };
    let lan = Network { uplink: Uplink::Site { site: site() }, ..network(5, vec![port(51)]) };
    Desired {
        generation: Generation(1),
        networks: vec![routed, tagged, wire, far_wire, lan],
        watchers: vec![Watcher { id: "office/ids/eth0".into(), tap: "ctw".into(), mtu: 1450 }],
        mirrors: vec![
            Mirror {
                id: "a".into(),
                from: MirrorFrom::Network { id: "office/n1".into() },
                to: MirrorTo::Watcher { tap: "ctw".into() },
            },
            Mirror {
                id: "b".into(),
                from: MirrorFrom::Port { tap: "ct21".into() },
                to: MirrorTo::Tunnel(tunnel(90, "cxm")),
            },
            Mirror {
                id: "c".into(),
                from: MirrorFrom::Tunnel(tunnel(91, "cxn")),
                to: MirrorTo::Watcher { tap: "ctw".into() },
            },
        ],
    }
}

fn refused(edit: impl Fn(&mut Desired), part: &str) {
    let mut desired = whole();
    edit(&mut desired);
    let error = Target::new(&desired, &host()).expect_err(part).to_string();
    assert!(error.contains(part), "{error:?} does not say {part:?}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_document_with_one_of_everything_is_taken() {
    Target::new(&whole(), &host()).unwrap();
}

#[test]
fn subnets_are_apart_and_hold_their_addresses() {
    let net = |d: &mut Desired, text: &str| d.networks[0].subnets.push(text.parse().unwrap());
    refused(|d| net(d, "10.20.0.128/25"), "network office/n1: subnets 10.20.0.128/25 overlaps 10.20.0.0/24");
    refused(|d| net(d, "10.0.0.0/8"), "overlaps 10.20.0.0/24");
    refused(|d| net(d, "fd00:20::/64"), "overlaps fd00:20::/64");
    let set = |d: &mut Desired, text: &str| d.networks[0].ports[0].addresses = vec![text.parse().unwrap()];
    refused(|d| set(d, "10.21.0.5"), "port office/m11/eth0: address 10.21.0.5 is outside of 10.20.0.0/24");
    refused(|d| set(d, "fd00:21::5"), "is outside of");
    refused(|d| set(d, "10.20.0.0"), "is 10.20.0.0/24's own first or last");
    refused(|d| set(d, "10.20.0.255"), "is 10.20.0.0/24's own first or last");
    let mut routes = whole();
    set(&mut routes, "10.21.0.5");
    routes.networks[0].ports[0].routes = true;
    Target::new(&routes, &host()).unwrap();
}

#[test]
fn vlans_are_in_range_granted_and_once_a_trunk() {
    let uplink = |d: &mut Desired, uplink: Uplink| d.networks[1].uplink = uplink;
    for vid in [0, 1, 4095, 4096] {
        refused(
            |d| uplink(d, vlan("core", vid, "cv2")),
            &format!("vid {vid} is out of range; use 2 to 4094"),
        );
    }
    refused(|d| uplink(d, vlan("spare", 2, "cv2")), "no link is granted for trunk \"spare\"");
    refused(|d| uplink(d, vlan("core", 2, "cx2")), "does not begin with cv");
    let twice = |trunk: &'static str| {
        move |d: &mut Desired| {
            d.networks.push(Network { uplink: vlan(trunk, 100, "cv9"), ..network(9, Vec::new()) });
        }
    };
    refused(twice("core"), "vid 100 is already used by network office/n2");
    let mut other = whole();
    twice("edge")(&mut other);
    Target::new(&other, &host()).unwrap();
}

#[test]
fn a_wire_has_two_ends_and_nothing_else() {
    refused(|d| d.networks[2].ports.push(port(33)), "network office/n3: it is a wire, but without a tunnel");
    refused(|d| d.networks[3].ports.push(port(42)), "it has one port at most");
    refused(|d| d.networks[2].uplink = Uplink::Site { site: site() }, "its uplink is a site");
    refused(|d| d.networks[2].uplink = vlan("core", 7, "cv3"), "its uplink is a VLAN");
    refused(|d| d.networks[2].router = d.networks[0].router.take(), "it has a router");
    // One end is there before the other.
    let mut alone = whole();
    alone.networks[2].ports.pop();
    Target::new(&alone, &host()).unwrap();
}

#[test]
fn limits_are_in_range() {
    let rate = |from, to| {
        move |d: &mut Desired| {
            d.networks[0].ports[0].rate = Some(Rate { from_guest_bits: from, to_guest_bits: to });
        }
    };
    refused(
        rate(Some(63_999), None),
        "rate.from_guest_bits 63999 is out of range; use 64000 to 100000000000",
    );
    refused(rate(None, Some(100_000_000_001)), "rate.to_guest_bits");
    let mut fine = whole();
    rate(Some(64_000), Some(100_000_000_000))(&mut fine);
    Target::new(&fine, &host()).unwrap();
}

#[test]
fn a_routers_parts_fit_together() {
    let with = |edit: fn(&mut Router)| move |d: &mut Desired| edit(d.networks[0].router.as_mut().unwrap());
    refused(with(|r| r.link = "ct9".into()), "does not begin with cr");
    refused(with(|r| r.addresses.clear()), "router of network office/n1: addresses [] has none");
    refused(with(|r| r.addresses[0] = "10.20.0.1/16".parse().unwrap()), "another prefix length");
    refused(with(|r| r.addresses[0] = "10.30.0.1/24".parse().unwrap()), "is outside of");
    refused(
        with(|r| r.addresses[0] = "10.20.0.11/24".parse().unwrap()),
        "address 10.20.0.11 is already used",
    );
    refused(with(|r| r.addresses.push("10.20.0.2/24".parse().unwrap())), "overlaps 10.20.0.0/24");
    refused(with(|r| r.mac = MacAddress([2, 0, 0, 0, 0, 11])), "mac 02:00:00:00:00:0b is already used");
    let dhcp = |edit: fn(&mut Dhcp)| {
        move |d: &mut Desired| edit(d.networks[0].router.as_mut().unwrap().dhcp.as_mut().unwrap())
    };
    refused(dhcp(|s| s.lease_seconds = 119), "dhcp.lease_seconds 119 is out of range");
    refused(dhcp(|s| s.leases[0].name = "a b".into()), "lease name \"a b\" is not 1 to 63 letters");
    refused(dhcp(|s| s.leases[0].name = "Two".into()), "is in two leases");
    refused(
        dhcp(|s| s.leases[0].addresses = s.leases[1].addresses.clone()),
        "lease address 10.20.0.12 is in two",
    );
    refused(
        dhcp(|s| s.leases[0].addresses = vec!["10.9.9.9".parse().unwrap()]),
        "lease address 10.9.9.9 is outside",
    );
    refused(dhcp(|s| s.leases[0].addresses = vec!["10.20.0.1".parse().unwrap()]), "is the router's own");
    refused(
        dhcp(|s| s.leases[0].addresses.push("10.20.0.99".parse().unwrap())),
        "two addresses of one IP version",
    );
    let dns = |domain: &'static str| {
        move |d: &mut Desired| {
            d.networks[0].router.as_mut().unwrap().dns.as_mut().unwrap().domain = domain.to_owned();
        }
    };
    refused(dns(".example"), "part of dns.domain");
    refused(dns("a_b.example"), "part of dns.domain");
    let out = |edit: fn(&mut Outside)| {
        move |d: &mut Desired| edit(d.networks[0].router.as_mut().unwrap().outside.as_mut().unwrap())
    };
    refused(out(|o| o.site = SiteName::new("x").unwrap()), "no link is granted for site x");
    refused(out(|o| o.link = "cx4".into()), "does not begin with co");
    refused(out(|o| o.gateways[0] = "203.0.113.1".parse().unwrap()), "is not on the LAN");
    refused(out(|o| o.gateways.push("198.51.100.2".parse().unwrap())), "the second of its IP version");
    refused(out(|o| o.published.push(o.published[0].clone())), "published port 8080 is published twice");
    refused(out(|o| o.published[0].listen_port = 0), "published port 0 cannot be opened");
    refused(
        out(|o| o.published[0].to = "192.0.2.7:80".parse().unwrap()),
        "published.to 192.0.2.7 is outside",
    );
    refused(out(|o| o.addresses[0] = "10.20.0.9/24".parse().unwrap()), "overlaps");
}

#[test]
fn mirrors_have_ends_that_exist() {
    refused(|d| d.mirrors[0].from = MirrorFrom::Network { id: "office/none".into() }, "is no network");
    refused(|d| d.mirrors[1].from = MirrorFrom::Port { tap: "ct99".into() }, "is no port's tap");
    refused(|d| d.mirrors[1].from = MirrorFrom::Port { tap: "ctw".into() }, "is a watcher's");
    refused(|d| d.mirrors[0].to = MirrorTo::Watcher { tap: "ct11".into() }, "is no watcher's tap");
    refused(|d| d.mirrors[2].to = MirrorTo::Tunnel(tunnel(92, "cxo")), "is fed by a tunnel");
    refused(|d| d.mirrors[1].to = MirrorTo::Tunnel(tunnel(7, "cxm")), "vni 7 is already used");
    refused(|d| d.mirrors[1].to = MirrorTo::Tunnel(tunnel(90, "cx4")), "link cx4 is already used");
    refused(|d| d.mirrors[1].to = MirrorTo::Tunnel(tunnel(0, "cxm")), "vni 0 is out of range");
    refused(|d| d.mirrors[1].to = MirrorTo::Tunnel(tunnel(92, "cxn")), "is another tunnel's, too");
    refused(|d| d.watchers[0].mtu = 1400, "less than the 1450 of what it watches");
    refused(|d| d.watchers[0].tap = "ct11".into(), "tap ct11 is already used by port office/m11/eth0");
    refused(|d| d.mirrors.push(Mirror { id: "d".into(), ..d.mirrors[0].clone() }), "to the same end twice");
}

/// Documents that often clash: few names, few addresses.
fn networks() -> impl Strategy<Value = Network> {
    let port = (0..6u8, 0..6u8, any::<bool>()).prop_map(|(number, mac, held)| Port {
        mac: MacAddress([2, 0, 0, 0, 0, mac]),
        held,
        ..port(10 + number)
    });
    let uplink = prop_oneof![
        Just(Uplink::None),
        Just(Uplink::Site { site: site() }),
        (98..102u16).prop_map(|vid| vlan("core", vid, &format!("cv{vid}"))),
    ];
    (0..4u8, prop::collection::vec(port, 0..3), uplink)
        .prop_map(|(number, ports, uplink)| Network { uplink, ..network(number, ports) })
}

proptest! {
    #[test]
    fn a_change_is_taken_up_or_refused_as_the_whole_document_would_be(
        first in prop::collection::vec(networks(), 0..4),
        changes in prop::collection::vec((prop::collection::vec(networks(), 0..3), 0..4u8), 1..6),
    ) {
        let desired = Desired { generation: Generation(1), networks: first, ..Desired::default() };
        let Ok(mut document) = Document::new(desired, &host()) else { return Ok(()) };
        for (put, gone) in changes {
            let held = document.desired().clone();
            let remove = vec![format!("office/n{gone}")];
            let generation = Generation(held.generation.0 + 1);
            let change = Change { from: held.generation, generation, put, remove };
            let mut wanted = Desired { generation, ..held.clone() };
            wanted.networks.retain(|n| !change.remove.contains(&n.id));
            for network in &change.put {
                match wanted.networks.iter_mut().find(|n| n.id == network.id) {
                    Some(n) => *n = network.clone(),
                    None => wanted.networks.push(network.clone()),
                }
            }
            match document.change(&change, &host()) {
                Ok(scope) => {
                    prop_assert_eq!(document.desired(), &wanted);
                    let whole = Document::new(wanted, &host());
                    prop_assert!(whole.is_ok(), "{:?}", whole);
                    for network in &change.put {
                        prop_assert!(scope.after.contains(network));
                    }
                }
                Err(error) => {
                    prop_assert_eq!(document.desired(), &held);
                    let names_wrong = error.to_string().starts_with("the change's network");
                    prop_assert!(names_wrong || Document::new(wanted, &host()).is_err(), "{}", error);
                }
            }
        }
    }
}
