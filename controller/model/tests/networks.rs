//! What the model promises about networks: what people write of them, and what netd is told.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, reason = "support is a module of several tests")]
#![allow(dead_code, reason = "no test needs all of support")]

mod support;

use controller_api::agent::HostDesired;
use controller_model::placement::{self, Census, Observed};
use controller_model::{Cluster, Draft, desired, record};
use netd_api::{Accept, Direction, MirrorFrom, MirrorTo, Network, Port, Protocol, Transport, Uplink};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use support::{SITE, add_host, apply, catalogue, issues, put_version};

const WATCHED: &str = include_str!("../../../examples/watched-office.yaml");

/// A bundle of these networks and members, and its deployment of the same name.
fn bundle(name: &str, networks: &str, members: &str, access: &str) -> String {
    format!(
        "apiVersion: collective/v1\nkind: Bundle\nmetadata: {{name: {name}}}\nspec:\n  networks:\n{networks}  members:\n{members}  access: [{access}]\n---\n\
         apiVersion: collective/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{bundle: {name}}}\n"
    )
}

const TWO: &str = "    one: {appliance: acme/plain, ports: {eth0: inside}}\n    two: {appliance: acme/plain, ports: {eth0: inside}}\n";

fn with_watcher() -> Cluster {
    let mut draft = apply(&catalogue(), SITE).unwrap().draft;
    put_version(&mut draft, "acme/watcher", "1.0.0", &["eth0", "sniff"], &[]);
    for (number, host) in ["h1", "h2", "h3"].into_iter().enumerate() {
        add_host(&mut draft, host, &format!("10.99.0.{}", number + 1));
    }
    draft.cluster
}

fn applied(text: &str) -> Cluster {
    apply(&with_watcher(), text).unwrap_or_else(|refusal| panic!("{refusal}\n{text}")).draft.cluster
}

/// Every member on the host given for it.
fn placed(cluster: Cluster, places: &[(&str, &str)]) -> Cluster {
    let mut draft = Draft::new(cluster);
    for (id, host) in places {
        let placement = record::Placement { host: host.parse().unwrap(), decision: 1 };
        draft.put(format!("placements/{id}"), &placement);
    }
    draft.cluster
}

fn told(cluster: &Cluster) -> BTreeMap<String, HostDesired> {
    let documents = desired::desired(cluster, &BTreeSet::new());
    documents.into_iter().map(|(host, document)| (host.to_string(), document)).collect()
}

/// As the controller does after every change.
fn remembered(cluster: Cluster) -> Cluster {
    let documents = desired::desired(&cluster, &BTreeSet::new());
    let mut draft = Draft::new(cluster);
    for (host, document) in documents {
        draft.put(format!("desired/{host}"), &document);
    }
    draft.cluster
}

fn network<'a>(document: &'a HostDesired, id: &str) -> &'a Network {
    document
        .networks
        .iter()
        .find(|network| network.id == id)
        .unwrap_or_else(|| panic!("no {id}: {document:#?}"))
}

fn port<'a>(document: &'a HostDesired, id: &str) -> &'a Port {
    document.networks.iter().flat_map(|network| &network.ports).find(|port| port.id == id).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Whether a port's permissions let its guest open TCP to, or be opened from, an address.
fn lets(port: &Port, direction: Direction, remote: &str, listen_port: u16) -> bool {
    let fits = |accept: &&Accept| {
        accept.direction == direction
            && accept.protocol == Protocol::Tcp { listen_port }
            && accept.remote.is_none_or(|net| net.contains(&ip(remote)))
    };
    port.accept.iter().any(|accept| fits(&accept))
}

fn watched_office(gateway: &str, workspace: &str, watcher: &str) -> Cluster {
    let places = [
        ("watched-office/gateway", gateway),
        ("watched-office/workspace", workspace),
        ("watched-office/watcher", watcher),
    ];
    placed(applied(WATCHED), &places)
}

#[test]
fn a_watcher_beside_the_watched_gets_copies_at_once_and_joins_nothing() {
    let documents = told(&watched_office("h1", "h1", "h1"));
    let h1 = &documents["h1"];
    let [watcher] = h1.watchers.as_slice() else { panic!("{:?}", h1.watchers) };
    assert_eq!((watcher.id.as_str(), watcher.mtu), ("watched-office/watcher/sniff", 1_450));
    let [mirror] = h1.mirrors.as_slice() else { panic!("{:?}", h1.mirrors) };
    assert_eq!(mirror.from, MirrorFrom::Network { id: "watched-office/inside".into() });
    assert_eq!(mirror.to, MirrorTo::Watcher { tap: watcher.tap.clone() });
    let taps: Vec<_> = h1.networks.iter().flat_map(|n| &n.ports).map(|port| &port.tap).collect();
    assert!(!taps.contains(&&watcher.tap), "it would be on a bridge");
    let instance = h1.instances.iter().find(|i| i.id.member.as_str() == "watcher").unwrap();
    let nics: Vec<_> = instance.ports.iter().map(|port| (port.name.as_str(), port.tap.as_str())).collect();
    assert_eq!(nics[1], ("sniff", watcher.tap.as_str()), "in the appliance's order");
    let env = &instance.config["instance.env"];
    assert!(env.contains("PORT_sniff_WATCHES=\"inside\"") && !env.contains("PORT_sniff_ADDRESS"), "{env}");
}

#[test]
fn a_watcher_elsewhere_gets_every_hosts_copies_once_each_by_its_own_tunnel() {
    let documents = told(&watched_office("h1", "h2", "h3"));
    let mut numbers = BTreeSet::new();
    for (source, address) in [("h1", "10.99.0.1"), ("h2", "10.99.0.2")] {
        let [mirror] = documents[source].mirrors.as_slice() else { panic!("{source}") };
        assert_eq!(mirror.from, MirrorFrom::Network { id: "watched-office/inside".into() });
        let MirrorTo::Tunnel(out) = &mirror.to else { panic!("{mirror:?}") };
        assert_eq!(out.peer, ip("10.99.0.3"));
        let come = documents["h3"].mirrors.iter().filter_map(|mirror| match &mirror.from {
            MirrorFrom::Tunnel(tunnel) if tunnel.peer == ip(address) => Some(tunnel),
            _ => None,
        });
        let [back] = come.collect::<Vec<_>>()[..] else { panic!("one way in from {source}") };
        assert_eq!((back.vni, &back.link), (out.vni, &out.link));
        numbers.insert(out.vni);
        numbers.extend(match network(&documents[source], "watched-office/inside").uplink {
            Uplink::Vxlan { vni, .. } => Some(vni),
            _ => None,
        });
    }
    assert_eq!(numbers.len(), 3, "two tunnels and the network, each with a number of its own");
    assert_eq!(documents["h3"].mirrors.len(), 2);
    assert_eq!((documents["h1"].watchers.len(), documents["h3"].watchers.len()), (0, 1));
}

#[test]
fn one_watched_port_is_copied_where_it_is() {
    let cluster = applied(&WATCHED.replace("{mirror: inside}", "{mirror: workspace/eth0}"));
    let places = [
        ("watched-office/gateway", "h1"),
        ("watched-office/workspace", "h2"),
        ("watched-office/watcher", "h3"),
    ];
    let documents = told(&placed(cluster, &places));
    assert_eq!(documents["h1"].mirrors, []);
    let [mirror] = documents["h2"].mirrors.as_slice() else { panic!("one") };
    let tap = port(&documents["h2"], "watched-office/workspace/eth0").tap.clone();
    assert_eq!(mirror.from, MirrorFrom::Port { tap });
    assert_eq!(documents["h3"].mirrors.len(), 1);
}

#[test]
fn a_nat_network_has_one_router_with_an_address_of_the_lan_and_it_stays_while_it_can() {
    let text = bundle("o", "    inside: {subnet: 10.20.0.0/24, uplink: nat}\n", TWO, "");
    let cluster = placed(applied(&text), &[("o/one", "h2"), ("o/two", "h3")]);
    let at = |cluster: &Cluster| {
        let documents = told(cluster);
        let routes = |document: &HostDesired| {
            let router = document.networks.first().and_then(|network| network.router.as_ref());
            router.is_some_and(|router| !router.elsewhere)
        };
        documents.into_iter().filter(|(_, d)| routes(d)).map(|(host, _)| host).collect::<Vec<_>>()
    };
    assert_eq!(at(&cluster), ["h2"], "the first host that holds a member");
    let documents = told(&cluster);
    let router = network(&documents["h2"], "o/inside").router.clone().unwrap();
    let elsewhere = network(&documents["h3"], "o/inside").router.clone().unwrap();
    assert_eq!(netd_api::Router { elsewhere: false, ..elsewhere }, router);
    assert_eq!(router.addresses, ["10.20.0.1/24".parse().unwrap()]);
    let outside = router.outside.unwrap();
    assert!(outside.nat);
    assert_eq!(outside.addresses, ["10.88.0.100/24".parse().unwrap()]);
    assert_eq!(outside.gateways, [ip("10.88.0.1")]);
    let env = &documents["h3"].instances[0].config["instance.env"];
    assert!(
        env.contains("PORT_eth0_ROUTER=\"10.20.0.1\"") && env.contains("PORT_eth0_MTU=\"1450\""),
        "{env}"
    );

    let cluster = remembered(cluster);
    let joined = placed(cluster.clone(), &[("o/two", "h1")]);
    assert_eq!(at(&joined), ["h2"], "a host with an earlier name does not take it");
    let moved = placed(cluster, &[("o/one", "h1")]);
    assert_eq!(at(&moved), ["h1"], "its host has no member any more");
}

#[test]
fn a_routers_lan_address_is_given_to_nobody_else_and_kept() {
    let networks = "    inside: {subnet: 10.20.0.0/24, uplink: nat}\n";
    let first = applied(&bundle("a", networks, TWO, ""));
    let members = "    wan: {appliance: acme/plain, ports: {eth0: outside}}\n";
    let site = bundle("b", "    outside: {uplink: site}\n", members, "");
    let second = apply(&first, &site).unwrap().draft.cluster;
    let address =
        |cluster: &Cluster| cluster.instances[&"b/wan".parse().unwrap()].ports[0].addresses[0].addr();
    assert_eq!(address(&second), ip("10.88.0.101"));
    let third = apply(&second, &bundle("c", networks, TWO, "")).unwrap().draft.cluster;
    let outside = |cluster: &Cluster, name: &str| {
        cluster.networks[&(name.parse().unwrap(), "inside".parse().unwrap())].outside.unwrap().addr()
    };
    assert_eq!((outside(&third, "a"), outside(&third, "c")), (ip("10.88.0.100"), ip("10.88.0.102")));
    let taken = site.replace("{eth0: outside}", "{eth0: {network: outside, address: 10.88.0.100}}");
    assert!(issues(&third, &taken)[0].message.contains("not free on the site's LAN"));
    let again = apply(&third, &bundle("a", networks, TWO, "")).unwrap();
    assert_eq!(again.draft.writes, BTreeMap::new());
}

#[test]
fn what_is_published_is_open_to_the_lan_and_not_to_the_neighbours() {
    let networks = "    inside: {subnet: 10.20.0.0/24, uplink: nat, publish: [{tcp: 8080, to: one, port: 80}, {udp: 53, to: two}]}\n";
    let access = "{from: two, to: uplink, tcp: [443]}";
    let cluster = placed(applied(&bundle("o", networks, TWO, access)), &[("o/one", "h1"), ("o/two", "h1")]);
    let documents = told(&cluster);
    let h1 = &documents["h1"];
    let outside = network(h1, "o/inside").router.as_ref().unwrap().outside.as_ref().unwrap();
    let published: Vec<_> =
        outside.published.iter().map(|p| (p.transport, p.listen_port, p.to.to_string())).collect();
    assert_eq!(
        published,
        [(Transport::Tcp, 8080, "10.20.0.2:80".into()), (Transport::Udp, 53, "10.20.0.3:53".into())]
    );
    let (one, two) = (port(h1, "o/one/eth0"), port(h1, "o/two/eth0"));
    assert!(lets(one, Direction::ToGuest, "10.88.0.7", 80));
    assert!(!lets(one, Direction::ToGuest, "10.20.0.3", 80), "a neighbour needs a rule of its own");
    assert!(!lets(one, Direction::ToGuest, "10.88.0.7", 8080));
    assert!(lets(two, Direction::FromGuest, "1.1.1.1", 443));
    assert!(!lets(two, Direction::FromGuest, "10.20.0.2", 443));
    assert!(!lets(one, Direction::FromGuest, "1.1.1.1", 443));
}

#[test]
fn a_routed_network_may_be_entered_by_rule_and_is_no_nat() {
    let networks = "    inside: {subnet: 10.20.0.0/24, uplink: routed}\n";
    let access = "{from: uplink, to: one, tcp: [22]}";
    let cluster = placed(applied(&bundle("o", networks, TWO, access)), &[("o/one", "h1"), ("o/two", "h1")]);
    let documents = told(&cluster);
    let router = network(&documents["h1"], "o/inside").router.clone().unwrap();
    assert!(!router.outside.unwrap().nat);
    assert!(lets(port(&documents["h1"], "o/one/eth0"), Direction::ToGuest, "10.88.0.7", 22));
    assert!(!lets(port(&documents["h1"], "o/one/eth0"), Direction::ToGuest, "10.20.0.3", 22));
    assert_eq!(port(&documents["h1"], "o/two/eth0").accept, []);
}

#[test]
fn services_are_a_router_that_leads_nowhere_with_a_lease_for_every_member() {
    let networks = "    inside:\n      subnet: 10.20.0.0/24\n      subnet6: \"fd00:20::/64\"\n      services: {dhcp: true, dns: {domain: office.internal}, ra: true}\n";
    let cluster = placed(applied(&bundle("o", networks, TWO, "")), &[("o/one", "h1"), ("o/two", "h2")]);
    let documents = told(&cluster);
    let router = network(&documents["h1"], "o/inside").router.clone().unwrap();
    assert_eq!((router.outside, router.advertises, router.elsewhere), (None, true, false));
    let leases = router.dhcp.unwrap().leases;
    let shown: Vec<_> = leases.iter().map(|lease| (lease.name.as_str(), lease.addresses.clone())).collect();
    assert_eq!(
        shown,
        [("one", vec![ip("10.20.0.2"), ip("fd00:20::2")]), ("two", vec![ip("10.20.0.3"), ip("fd00:20::3")]),]
    );
    let config = &documents["h2"].instances[0].config;
    let env = &config["instance.env"];
    assert!(env.contains("PORT_eth0_DNS=\"10.20.0.1 fd00:20::1\""), "{env}");
    assert!(env.contains("PORT_eth0_ROUTER=\"\""), "it leads nowhere: {env}");
    let shown = &config["network-config"];
    assert!(shown.contains("addresses: [\"10.20.0.3/24\", \"fd00:20::3/64\"]"), "{shown}");
    assert!(shown.contains("search: [\"office.internal\"]"), "{shown}");
}

#[test]
fn rules_open_both_addresses_of_a_member() {
    let networks = "    inside: {subnet: 10.20.0.0/24, subnet6: \"fd00:20::/64\"}\n";
    let access = "{from: one, to: two, tcp: [80]}";
    let cluster = placed(applied(&bundle("o", networks, TWO, access)), &[("o/one", "h1"), ("o/two", "h1")]);
    let documents = told(&cluster);
    let (one, two) = (port(&documents["h1"], "o/one/eth0"), port(&documents["h1"], "o/two/eth0"));
    assert_eq!(two.addresses, [ip("10.20.0.3"), ip("fd00:20::3")]);
    for remote in ["10.20.0.3", "fd00:20::3"] {
        assert!(lets(one, Direction::FromGuest, remote, 80), "{remote}");
    }
    for remote in ["10.20.0.2", "fd00:20::2"] {
        assert!(lets(two, Direction::ToGuest, remote, 80), "{remote}");
        assert!(!lets(two, Direction::FromGuest, remote, 80));
    }
    assert!(!lets(one, Direction::FromGuest, "fd00:20::4", 80));
}

#[test]
fn limits_reach_netd_and_make_no_guest_anew() {
    let networks = "    inside: {subnet: 10.20.0.0/24}\n";
    let text = bundle("o", networks, TWO, "");
    let limited = text.replacen(
        "{eth0: inside}",
        "{eth0: {network: inside, limits: {up: 100Mbit/s, down: 1Gbit/s}}}",
        1,
    );
    let before = placed(applied(&text), &[("o/one", "h1"), ("o/two", "h1")]);
    let after = apply(&before, &limited).unwrap().draft;
    assert_eq!(after.writes.keys().collect::<Vec<_>>(), ["bundles/o"]);
    let rate = port(&told(&after.cluster)["h1"], "o/one/eth0").rate.unwrap();
    assert_eq!((rate.from_guest_bits, rate.to_guest_bits), (Some(100_000_000), Some(1_000_000_000)));
    assert_eq!(port(&told(&after.cluster)["h1"], "o/two/eth0").rate, None);
}

#[test]
fn a_vlan_is_its_trunks_and_another_deployment_cannot_have_it() {
    let networks = "    inside: {subnet: 10.20.0.0/24, uplink: {vlan: 100, trunk: core}}\n";
    let first = placed(applied(&bundle("a", networks, TWO, "")), &[("a/one", "h1")]);
    let documents = told(&first);
    let held = network(&documents["h1"], "a/inside");
    let Uplink::Vlan { trunk, vid, link } = &held.uplink else { panic!("{held:?}") };
    assert_eq!((trunk.as_str(), *vid, held.mtu), ("core", 100, 1_500));
    assert!(link.starts_with("cv") && link.len() <= netd_api::LINK_NAME_LEN_MAX);
    let found = issues(&first, &bundle("b", networks, TWO, ""));
    assert_eq!(found[0].field, "spec.bundle");
    assert_eq!(
        found[0].message,
        "its network inside is VLAN 100 of trunk core, which is network inside of deployment a already"
    );
    let other = networks.replace("core", "edge");
    assert!(apply(&first, &bundle("b", &other, TWO, "")).is_ok(), "another trunk");
}

#[test]
fn two_routed_networks_of_one_site_may_not_overlap() {
    let networks = "    inside: {subnet: 10.20.0.0/24, uplink: routed}\n";
    let first = applied(&bundle("a", networks, TWO, ""));
    let wider = networks.replace("10.20.0.0/24", "10.20.0.0/16");
    let found = issues(&first, &bundle("b", &wider, TWO, ""));
    assert!(
        found[0].message.contains("overlaps 10.20.0.0/24 of network inside of deployment a"),
        "{found:?}"
    );
    assert!(apply(&first, &bundle("b", &wider.replace("routed", "nat"), TWO, "")).is_ok());
}

#[test]
fn the_mtu_is_one_number_from_the_sites_document_to_the_guest() {
    let jumbo = SITE.replace("  lan:\n", "  underlay_mtu: 9000\n  lan:\n    mtu: 4000\n");
    let members = "    gw: {appliance: acme/gateway, ports: {wan: outside, lan: inside}}\n";
    let networks = "    inside: {subnet: 10.20.0.0/24}\n    outside: {uplink: site}\n";
    let mtus = |cluster: Cluster| {
        let document = told(&placed(cluster, &[("o/gw", "h1")])).remove("h1").unwrap();
        let of = |id| network(&document, id).mtu;
        let (inside, outside) = (of("o/inside"), of("o/outside"));
        let instance = &document.instances[0];
        assert_eq!(instance.ports.iter().map(|port| port.mtu).collect::<Vec<_>>(), [outside, inside]);
        assert!(instance.config["instance.env"].contains(&format!("PORT_lan_MTU=\"{inside}\"")));
        assert!(instance.config["network-config"].contains(&format!("mtu: {outside}\n")));
        (inside, outside)
    };
    let with = |site: &str, address: &str, mtu| {
        let mut draft = Draft::new(apply(&with_watcher(), site).unwrap().draft.cluster);
        let mut facts = draft.cluster.facts[&"h1".parse().unwrap()].value.clone();
        (facts.underlay_address, facts.underlay_mtu) = (Some(ip(address)), mtu);
        draft.put("facts/h1", &facts);
        apply(&draft.cluster, &bundle("o", networks, members, "")).unwrap().draft.cluster
    };
    assert_eq!(mtus(with(SITE, "10.99.0.1", None)), (1_450, 1_500));
    assert_eq!(mtus(with(SITE, "10.99.0.1", Some(1_400))), (1_350, 1_500), "a host carries less");
    assert_eq!(mtus(with(SITE, "10.99.0.1", Some(9_000))), (1_450, 1_500), "the others may not");
    assert_eq!(mtus(with(SITE, "fd00:99::1", None)), (1_430, 1_500), "IPv6 takes more");
    assert_eq!(mtus(with(&jumbo, "10.99.0.1", Some(1_400))), (8_950, 4_000), "the site's word");
}

#[test]
fn a_host_whose_link_is_too_small_is_forbidden() {
    let cluster = applied(&bundle("o", "    inside: {subnet: 10.20.0.0/24}\n", TWO, ""));
    let mut draft = Draft::new(cluster);
    let mut facts = draft.cluster.facts[&"h1".parse().unwrap()].value.clone();
    facts.underlay_mtu = Some(1_499);
    draft.put("facts/h1", &facts);
    let online = BTreeSet::from(["h1".parse().unwrap(), "h2".parse().unwrap()]);
    let id = "o/one".parse().unwrap();
    let question =
        placement::question(&draft.cluster, &Census::new(&draft.cluster, &Observed::new(), &online), &id)
            .unwrap();
    let why = placement::forbidden(&question, &"h1".parse().unwrap()).unwrap();
    assert!(
        why.starts_with("h1 carries packets of 1449 bytes between hosts, the instance's networks have 1450")
    );
    assert_eq!(placement::forbidden(&question, &"h2".parse().unwrap()), None);
}

/// One claim about a wrong network or member: which field, and what of it.
fn refuses(networks: &str, members: &str, field: &str, message: &str) {
    let found = issues(&with_watcher(), &bundle("o", &format!("    {networks}\n"), members, ""));
    let shown: Vec<_> = found.iter().map(|issue| (issue.field.as_str(), issue.message.as_str())).collect();
    assert!(
        shown.iter().any(|(at, said)| *at == field && said.contains(message)),
        "expected {field}: {message}\nfound {shown:#?}"
    );
    assert!(found.iter().all(|issue| issue.line > 1), "{found:?}");
}

#[test]
fn refuses_networks_that_cannot_be() {
    let at = |field: &str| format!("spec.networks.inside.{field}");
    for (text, field, message) in [
        ("{subnet: 10.20.0.0/24, uplink: {vlan: 1, trunk: core}}", "uplink.vlan", "write 2 to 4094"),
        ("{subnet: 10.20.0.0/24, uplink: {vlan: 4095, trunk: core}}", "uplink.vlan", "write 2 to 4094"),
        ("{subnet: 10.20.0.0/24, uplink: {vlan: 70000, trunk: core}}", "uplink.vlan", "expected u16"),
        ("{subnet: 10.20.0.0/24, uplink: {vlan: 9, trunk: \"a b\"}}", "uplink.trunk", "name of a trunk"),
        ("{subnet: 10.20.0.0/24, uplink: {vlan: 9}}", "uplink", "missing field `trunk`"),
        ("{subnet: 10.20.0.0/24, uplink: net}", "uplink", "write site, nat, routed or {vlan"),
        ("{subnet: 10.20.0.0/24, subnet6: 10.21.0.0/24}", "subnet6", "no IPv6 subnet"),
        ("{subnet: \"fd00:1::/64\", subnet6: \"fd00:2::/64\"}", "subnet6", "is an IPv6 subnet already"),
        ("{subnet: 10.20.0.0/24, publish: [{tcp: 80, to: one}]}", "publish", "write `uplink: nat`"),
        ("{subnet: 10.20.0.0/24, uplink: nat, publish: [{to: one}]}", "publish[0]", "either tcp or udp"),
        (
            "{subnet: 10.20.0.0/24, uplink: nat, publish: [{tcp: 80, udp: 80, to: one}]}",
            "publish[0]",
            "either tcp or udp",
        ),
        (
            "{subnet: 10.20.0.0/24, uplink: nat, publish: [{tcp: 0, to: one}]}",
            "publish[0].tcp",
            "0 is no port",
        ),
        (
            "{subnet: 10.20.0.0/24, uplink: nat, publish: [{tcp: 80, to: one}, {tcp: 80, to: two}]}",
            "publish[1].tcp",
            "leads to one already",
        ),
        (
            "{subnet: 10.20.0.0/24, uplink: nat, publish: [{tcp: 80, to: three}]}",
            "publish[0].to",
            "three is not on network inside: write one of one, two",
        ),
        ("{subnet: 10.20.0.0/24, services: {ra: true}}", "services.ra", "no IPv6 subnet to advertise"),
        ("{subnet: 10.20.0.0/24, services: {dns: {domain: a.b}}}", "services.dns", "dhcp: true"),
        (
            "{subnet: 10.20.0.0/24, services: {dhcp: true, dns: {domain: .b}}}",
            "services.dns.domain",
            "is no domain",
        ),
        (
            "{subnet: 10.20.0.0/24, services: {dhcp: true, dns: {domain: b, forward: [9.9.9.9]}}}",
            "services.dns.forward",
            "nothing leads there",
        ),
        ("{uplink: site, services: {dhcp: true}}", "services", "services of its own"),
        ("{uplink: site, subnet6: \"fd00::/64\"}", "subnet6", "remove this line"),
    ] {
        refuses(&format!("inside: {text}"), TWO, &at(field), message);
    }
    refuses("inside: {uplink: nat}", TWO, "spec.networks.inside", "write a subnet such as");
    refuses(
        "inside: {subnet: 10.20.0.0/24, subnet6: \"fd00:1::/64\"}\n    more: {subnet: \"fd00:1::/48\"}",
        TWO,
        "spec.networks.more.subnet",
        "overlaps fd00:1::/64 of network inside",
    );
    refuses(
        "inside: {subnet: 10.20.0.0/24, uplink: {vlan: 9, trunk: core}}\n    more: {subnet: 10.21.0.0/24, uplink: {vlan: 9, trunk: core}}",
        TWO,
        "spec.networks.more.uplink.vlan",
        "network inside is VLAN 9 of trunk core already",
    );
    refuses(
        "inside: {subnet: 10.88.0.0/25, uplink: nat}",
        TWO,
        "spec.bundle",
        "overlaps the site's LAN 10.88.0.0/24",
    );
    refuses("inside: {subnet: \"fd00::/64\", uplink: nat}", TWO, "spec.bundle", "has another version of IP");
}

#[test]
fn refuses_ports_and_members_that_cannot_be() {
    let member = |port: &str| format!("    one: {{appliance: acme/plain, ports: {{eth0: {port}}}}}\n");
    let field = |field: &str| format!("spec.members.one.ports.eth0{field}");
    for (port, at, message) in [
        ("{mirror: insid}", ".mirror", "nothing to watch at \"insid\": write inside"),
        ("{mirror: one/eth0}", ".mirror", "nothing to watch at \"one/eth0\""),
        ("{mirror: inside, network: inside}", ".network", "unknown field `network`"),
        ("{network: inside, limits: {up: 1kbit/s}}", ".limits.up", "is not 64kbit/s to 100Gbit/s"),
        ("{network: inside, limits: {up: fast}}", ".limits.up", "is not a rate"),
        ("{network: inside, limits: {}}", ".limits", "it limits nothing"),
        ("{network: inside, address6: \"fd00::9\"}", ".address6", "has no subnet6"),
        ("{network: inside, address: 10.20.0.1}", ".address", "the network's own router"),
    ] {
        refuses("inside: {subnet: 10.20.0.0/24, uplink: nat}", &member(port), &field(at), message);
    }
    refuses(
        "inside: {subnet: 10.20.0.0/24, uplink: nat}\n    outside: {uplink: site}",
        "    gw: {appliance: acme/gateway, ports: {wan: outside, lan: inside}, gateway: {from: lan, to: wan}}\n",
        "spec.members.gw.gateway.from",
        "has an uplink, which has a router",
    );
    refuses(
        "inside: {subnet: 10.20.0.0/24, services: {dhcp: true}}\n    outside: {uplink: site}",
        "    gw: {appliance: acme/gateway, ports: {wan: outside, lan: inside}, gateway: {from: lan, to: wan}}\n",
        "spec.networks.inside.services",
        "gw is the gateway of inside",
    );
    refuses(
        "inside: {subnet: 10.20.0.0/24}\n    outside: {uplink: site}",
        "    gw: {appliance: acme/gateway, ports: {wan: outside, lan: {mirror: inside}}, gateway: {from: lan, to: wan}}\n",
        "spec.members.gw.gateway.from",
        "watches and sends nothing",
    );
}

#[test]
fn refuses_rules_about_uplinks_that_lead_nowhere() {
    for (uplink, rule, field, message) in [
        ("", "{from: one, to: uplink, tcp: [80]}", "from", "no network with `uplink: nat`"),
        (", uplink: nat", "{from: uplink, to: one, tcp: [80]}", "from", "spec.networks.inside.publish"),
        (", uplink: routed", "{from: uplink, to: inside, tcp: [80]}", "to", "write a member"),
        (", uplink: nat", "{from: one, to: uplink, tcp: [80], via: two}", "via", "remove `via`"),
    ] {
        let text = bundle("o", &format!("    inside: {{subnet: 10.20.0.0/24{uplink}}}\n"), TWO, rule);
        let found = issues(&with_watcher(), &text);
        assert_eq!(found[0].field, format!("spec.access[0].{field}"), "{found:?}");
        assert!(found[0].message.contains(message), "{found:?}");
    }
}

#[test]
fn refuses_sites_with_impossible_mtus() {
    for (from, to, field) in [
        ("  lan:\n", "  underlay_mtu: 600\n  lan:\n", "spec.underlay_mtu"),
        ("  lan:\n", "  lan:\n    mtu: 500\n", "spec.lan.mtu"),
    ] {
        let found = issues(&catalogue(), &SITE.replace(from, to));
        assert_eq!(found[0].field, field, "{found:?}");
    }
    let small = SITE.replace("  lan:\n", "  underlay_mtu: 1300\n  lan:\n");
    let cluster = apply(&with_watcher(), &small).unwrap().draft.cluster;
    let found = issues(&cluster, &bundle("o", "    inside: {subnet: \"fd00::/64\"}\n", TWO, ""));
    assert!(found[0].message.contains("IPv6 needs 1280"), "{found:?}");
}

#[test]
fn nothing_is_left_of_a_deployment_that_is_deleted() {
    let documents = controller_model::document::parse(WATCHED).unwrap();
    let gone = controller_model::apply::delete(&applied(WATCHED), &documents).unwrap().draft.cluster;
    assert!(gone.networks.is_empty() && gone.mirrors.is_empty() && gone.instances.is_empty());
}

#[test]
fn applying_networks_again_changes_nothing() {
    let first = watched_office("h1", "h2", "h3");
    assert_eq!(apply(&first, WATCHED).unwrap().draft.writes, BTreeMap::new());
}

fn uplink() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", ", uplink: nat", ", uplink: routed", ", services: {dhcp: true}"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is written and wherever it runs: no name, number, address or MAC twice, and every tunnel has two ends.
    #[test]
    fn what_hosts_are_told_fits_together(
        uplinks in prop::collection::vec(uplink(), 1..4),
        members in prop::collection::vec((0usize..4, 0usize..3, prop::option::of(0usize..4)), 1..6),
    ) {
        let name = |index: usize| format!("n{}", index % uplinks.len());
        let networks: String = uplinks
            .iter()
            .enumerate()
            .map(|(index, uplink)| format!("    n{index}: {{subnet: 10.2{index}.0.0/24, subnet6: \"fd00:{index}::/64\"{uplink}}}\n"))
            .collect();
        let text: String = members
            .iter()
            .enumerate()
            .map(|(index, (network, _, watched))| {
                let (eth0, sniff) = (name(*network), watched.map(&name));
                let (appliance, sniff) = match sniff {
                    Some(sniff) => ("watcher", format!(", sniff: {{mirror: {sniff}}}")),
                    None => ("plain", String::new()),
                };
                format!("    m{index}: {{appliance: acme/{appliance}, ports: {{eth0: {eth0}{sniff}}}}}\n")
            })
            .collect();
        let places: Vec<_> = members
            .iter()
            .enumerate()
            .map(|(index, (_, host, _))| (format!("o/m{index}"), format!("h{}", host + 1)))
            .collect();
        let places: Vec<_> = places.iter().map(|(id, host)| (id.as_str(), host.as_str())).collect();
        let documents = told(&placed(applied(&bundle("o", &networks, &text, "")), &places));
        fits_together(&documents)?;
    }
}

fn fits_together(documents: &BTreeMap<String, HostDesired>) -> Result<(), TestCaseError> {
    let mut addresses = BTreeSet::new();
    let mut routers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut tunnels: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    for document in documents.values() {
        let mut links = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        for network in &document.networks {
            prop_assert!(links.insert(&network.bridge));
            if let Uplink::Vxlan { vni, link, .. } = &network.uplink {
                prop_assert!(numbers.insert(*vni) && links.insert(link));
            }
            let ips = network.ports.iter().flat_map(|port| port.addresses.clone());
            for ip in ips.chain(
                network
                    .router
                    .iter()
                    .filter(|r| !r.elsewhere)
                    .flat_map(|r| r.addresses.iter().map(ipnet::IpNet::addr)),
            ) {
                prop_assert!(addresses.insert((network.id.clone(), ip)), "{ip} twice");
                prop_assert!(network.subnets.iter().any(|subnet| subnet.contains(&ip)));
            }
            if let Some(router) = &network.router {
                *routers.entry(&network.id).or_default() += usize::from(!router.elsewhere);
                prop_assert!(links.insert(&router.link));
                if let Some(outside) = &router.outside {
                    prop_assert!(links.insert(&outside.link));
                    if !router.elsewhere {
                        prop_assert!(addresses.insert(("lan".into(), outside.addresses[0].addr())));
                    }
                }
            }
        }
        for mirror in &document.mirrors {
            let ways = [
                match &mirror.from {
                    MirrorFrom::Tunnel(tunnel) => Some(tunnel),
                    _ => None,
                },
                match &mirror.to {
                    MirrorTo::Tunnel(tunnel) => Some(tunnel),
                    _ => None,
                },
            ];
            for tunnel in ways.into_iter().flatten() {
                prop_assert!(numbers.insert(tunnel.vni) && links.insert(&tunnel.link), "{tunnel:?} twice");
                *tunnels.entry((tunnel.vni, &tunnel.link)).or_default() += 1;
            }
            if let MirrorFrom::Network { id } = &mirror.from {
                prop_assert!(document.networks.iter().any(|network| network.id == *id));
            }
            if let MirrorTo::Watcher { tap } = &mirror.to {
                prop_assert!(document.watchers.iter().any(|watcher| watcher.tap == *tap));
            }
        }
        for watcher in &document.watchers {
            prop_assert!(links.insert(&watcher.tap));
        }
    }
    prop_assert!(routers.values().all(|count| *count == 1), "{routers:?}");
    prop_assert!(tunnels.values().all(|ends| *ends == 2), "{tunnels:?}");
    Ok(())
}
