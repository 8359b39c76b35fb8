//! What the model promises about documents, names and desired documents.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, reason = "support is a module of several tests")]

mod support;

use controller_api::rest::ChangeAction;
use controller_model::apply::{self, Refusal};
use controller_model::placement::{self, Census, Observed};
use controller_model::{Draft, desired, document, record};
use netd_api::{Direction, Protocol, Uplink};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use support::{OFFICE, SITE, add_host, catalogue, counting, issues, office, put_version, with_site};
use types::{ByteSize, Generation};

#[test]
fn the_office_becomes_exactly_these_documents() {
    let documents = desired::desired(&office(), &BTreeSet::new());
    insta::assert_json_snapshot!("office_h1", documents[&"h1".parse().unwrap()]);
    insta::assert_json_snapshot!("office_h2", documents[&"h2".parse().unwrap()]);
}

#[test]
fn the_gateways_environment_says_what_it_forwards() {
    let documents = desired::desired(&office(), &BTreeSet::new());
    let env = &documents[&"h1".parse().unwrap()].instances[0].config["instance.env"];
    insta::assert_snapshot!(env);
}

#[test]
fn applying_again_changes_nothing() {
    let first = office();
    let again = support::apply(&first, OFFICE).unwrap();
    assert!(
        again.changes.iter().all(|change| change.action == ChangeAction::Unchanged && change.diff.is_empty())
    );
    assert_eq!(again.draft.writes, BTreeMap::new());
}

#[test]
fn a_changed_forward_makes_the_gateway_anew_and_leaves_the_workspace() {
    let before = office();
    let applied = support::apply(&before, &OFFICE.replace("tcp: [80]", "tcp: [80, 443]")).unwrap();
    let keys: Vec<&String> = applied.draft.writes.keys().collect();
    assert_eq!(keys, ["bundles/office", "instances/office/gateway", "placements/office/gateway"]);
    assert!(applied.changes[0].diff.iter().any(|line| line.starts_with('+') && line.contains("443")));
}

#[test]
fn a_documents_generation_grows_only_with_its_content() {
    let mut draft = Draft::new(office());
    for (host, document) in desired::desired(&draft.cluster, &BTreeSet::new()) {
        assert_eq!(document.generation, Generation(1));
        draft.put(format!("desired/{host}"), &document);
    }
    assert!(
        desired::desired(&draft.cluster, &BTreeSet::new()).iter().all(|(host, document)| draft
            .cluster
            .desired[host]
            .value
            == *document)
    );
    draft.delete("placements/office/workspace");
    let after = desired::desired(&draft.cluster, &BTreeSet::new());
    assert_eq!(after[&"h2".parse().unwrap()].generation, Generation(2));
    // The other host's VXLAN lost its peer.
    assert_eq!(after[&"h1".parse().unwrap()].generation, Generation(2));
}

#[test]
fn nothing_but_the_forwarded_port_is_open_on_the_outside() {
    let documents = desired::desired(&office(), &BTreeSet::new());
    let networks = &documents[&"h1".parse().unwrap()].networks;
    let outside = networks.iter().find(|network| network.id == "office/outside").unwrap();
    assert_eq!(outside.uplink, Uplink::Site { site: "main".parse().unwrap() });
    let [port] = outside.ports.as_slice() else { panic!("one port") };
    let [accept] = port.accept.as_slice() else { panic!("one permission: {:?}", port.accept) };
    assert_eq!(
        (accept.direction, &accept.protocol),
        (Direction::ToGuest, &Protocol::Tcp { listen_port: 80 })
    );
    assert!(!port.routes);
}

#[test]
fn two_members_behind_a_gateway_cannot_speak_with_each_other() {
    let second = OFFICE.replace(
        "  access:\n",
        "    other:\n      appliance: acme/plain\n      ports: {eth0: inside}\n  access:\n    - {from: other, to: outside, tcp: [80], via: gateway}\n",
    );
    let mut draft = support::apply(&with_site(), &second).unwrap().draft;
    add_host(&mut draft, "h1", "10.99.0.1");
    for member in ["gateway", "workspace", "other"] {
        let placement = record::Placement { host: "h1".parse().unwrap(), decision: 1 };
        draft.put(format!("placements/office/{member}"), &placement);
    }
    let documents = desired::desired(&draft.cluster, &BTreeSet::new());
    let inside =
        documents[&"h1".parse().unwrap()].networks.iter().find(|n| n.id == "office/inside").unwrap().clone();
    let address = |member: &str| inside.ports.iter().find(|p| p.id.contains(member)).unwrap().addresses[0];
    let other = address("other");
    let workspace = inside.ports.iter().find(|p| p.id.contains("workspace")).unwrap();
    let lets_other_in = workspace
        .accept
        .iter()
        .filter(|accept| accept.direction == Direction::ToGuest)
        .any(|accept| accept.remote.is_none_or(|remote| remote.contains(&other)));
    assert!(!lets_other_in, "{:?}", workspace.accept);
}

#[test]
fn deleting_a_bundle_with_deployments_is_refused_unless_they_go_too() {
    let cluster = office();
    let bundle_only = document::parse(OFFICE.split("---").next().unwrap()).unwrap();
    let refused = apply::delete(&cluster, &bundle_only).unwrap_err();
    assert_eq!(
        refused,
        Refusal::Conflict("bundle office is run by office: delete the deployment first".into())
    );
    let both = apply::delete(&cluster, &document::parse(OFFICE).unwrap()).unwrap();
    assert!(both.draft.cluster.instances.is_empty() && both.draft.cluster.networks.is_empty());
    assert_eq!(both.draft.cluster.volumes.len(), 1, "the user's volume stays");
    assert!(both.changes.iter().all(|change| change.action == ChangeAction::Deleted));
}

#[test]
fn a_renewed_instance_keeps_its_address_and_volume_and_gets_the_channels_version() {
    let mut draft = Draft::new(office());
    let id = "office/workspace".parse().unwrap();
    let before = draft.cluster.instances[&id].value.clone();
    put_version(&mut draft, "acme/workspace", "1.1.0", &["eth0"], &["home"]);
    let mut fresh = || "another".to_owned();
    apply::renew_instance(&mut draft, &id, &mut fresh).unwrap();
    let after = &draft.cluster.instances[&id];
    assert_eq!((after.incarnation.as_str(), after.version.as_str()), ("another", "1.1.0"));
    assert_eq!((&after.ports, &after.volumes), (&before.ports, &before.volumes));
    assert_eq!(draft.writes.get("instances/office/gateway"), None);
}

#[test]
fn a_volume_pins_its_instance_and_other_hosts_are_forbidden() {
    let mut draft = Draft::new(office());
    let volume = record::Volume {
        size: ByteSize(256 << 20),
        host: Some("h2".parse().unwrap()),
        incarnation: String::new(),
        layers: Vec::new(),
    };
    draft.put("volumes/office/workspace/home", &volume);
    draft.delete("placements/office/workspace");
    let id = "office/workspace".parse().unwrap();
    let online = BTreeSet::from(["h1".parse().unwrap(), "h2".parse().unwrap()]);
    let question =
        placement::question(&draft.cluster, &Census::new(&draft.cluster, &Observed::new(), &online), &id)
            .unwrap();
    assert_eq!(
        placement::forbidden(&question, &"h1".parse().unwrap()).unwrap(),
        "h1 does not hold the instance's volumes, h2 does"
    );
    assert_eq!(placement::forbidden(&question, &"h2".parse().unwrap()), None);
    assert_eq!(question.candidates[0].memory_free, (1 << 30) - (192 << 20));
    assert_eq!(question.candidates[0].peers, 1);
    let nobody = placement::question(
        &draft.cluster,
        &Census::new(&draft.cluster, &Observed::new(), &BTreeSet::new()),
        &id,
    )
    .unwrap();
    assert_eq!(placement::forbidden(&nobody, &"h2".parse().unwrap()).unwrap(), "h2 is offline");
}

/// One claim about a wrong document: where and what.
fn refuses(from: &str, to: &str, line: u32, field: &str, message: &str) {
    assert!(OFFICE.contains(from), "{from:?} is not in the example");
    let found = issues(&with_site(), &OFFICE.replacen(from, to, 1));
    let shown: Vec<_> = found.iter().map(|i| (i.line, i.field.as_str(), i.message.as_str())).collect();
    assert_eq!(shown, [(line, field, message)]);
}

#[test]
fn refuses_what_no_catalogue_knows() {
    refuses(
        "acme/gateway  ",
        "acme/gatewax  ",
        11,
        "spec.members.gateway.appliance",
        "acme/gatewax is not in the catalogue: write one of acme/gateway, acme/plain, acme/workspace",
    );
    refuses(
        "channel: stable",
        "channel: beta",
        12,
        "spec.members.gateway.channel",
        "acme/gateway has no channel beta: write stable",
    );
    refuses(
        "channel: stable",
        "version: 9.9.9",
        12,
        "spec.members.gateway.version",
        "acme/gateway has no version 9.9.9: write 1.0.0",
    );
    refuses(
        "channel: stable",
        "channel: stable\n      version: 1.0.0",
        13,
        "spec.members.gateway.version",
        "write either channel or version, not both",
    );
    refuses(
        "placement: balanced",
        "placement: mine",
        22,
        "spec.policies.placement",
        "mine is not an installed policy: write one of balanced, packed",
    );
}

#[test]
fn refuses_ports_volumes_and_networks_that_do_not_fit() {
    refuses(
        "ports: {eth0: inside}",
        "ports: {eth0: insidde}",
        18,
        "spec.members.workspace.ports.eth0",
        "there is no network insidde: write one of inside, outside",
    );
    refuses(
        "ports: {eth0: inside}",
        "ports: {eth0: inside, eth9: outside}",
        18,
        "spec.members.workspace.ports.eth9",
        "acme/workspace 1.0.0 has no port eth9: write eth0",
    );
    refuses(
        "volumes: {home: {size: 256MiB}}",
        "volumes: {home: {size: 1MiB}, data: {size: 1GiB}}",
        19,
        "spec.members.workspace.volumes.data",
        "acme/workspace 1.0.0 expects no volume data: write home",
    );
    refuses(
        "{size: 256MiB}",
        "{size: 1KiB}",
        19,
        "spec.members.workspace.volumes.home.size",
        "1KiB is not 1MiB to 16TiB",
    );
    refuses(
        "{subnet: 10.20.0.0/24}",
        "{subnet: 10.20.0.5/24}",
        7,
        "spec.networks.inside.subnet",
        "10.20.0.5/24 has bits set after its prefix: write 10.20.0.0/24",
    );
    refuses(
        "outside: {uplink: site} ",
        "more: {subnet: 10.20.0.128/25}\n    outside: {uplink: site} ",
        8,
        "spec.networks.more.subnet",
        "10.20.0.128/25 overlaps 10.20.0.0/24 of network inside: take another",
    );
    refuses(
        "{uplink: site}",
        "{uplink: site, subnet: 10.1.0.0/24}",
        8,
        "spec.networks.outside.subnet",
        "a network with `uplink: site` has the site's own subnet: remove this line",
    );
}

#[test]
fn refuses_addresses_that_cannot_be() {
    let field = "spec.members.gateway.ports.lan.address";
    refuses("address: 10.20.0.1}", "address: 10.21.0.1}", 13, field, "10.21.0.1 is not inside 10.20.0.0/24");
    refuses(
        "address: 10.20.0.1}",
        "address: 10.20.0.0}",
        13,
        field,
        "10.20.0.0 is the network address of 10.20.0.0/24: take another",
    );
    refuses(
        "address: 10.20.0.1}",
        "address: 10.20.0.255}",
        13,
        field,
        "10.20.0.255 is the broadcast address of 10.20.0.0/24: take another",
    );
    refuses(
        "{eth0: inside}",
        "{eth0: {network: inside, address: 10.20.0.1}}",
        18,
        "spec.members.workspace.ports.eth0.address",
        "10.20.0.1 is already the address of gateway's port lan: take another",
    );
    refuses(
        "{wan: outside,",
        "{wan: inside,",
        13,
        "spec.members.gateway.ports.wan",
        "ports lan and wan both join inside: give each its own network",
    );
}

#[test]
fn refuses_gateways_and_rules_that_lead_nowhere() {
    refuses(
        "{from: lan, to: wan}",
        "{from: lan, to: lan}",
        14,
        "spec.members.gateway.gateway.to",
        "it leads from lan to itself: write the port of the other side",
    );
    refuses(
        "{from: lan, to: wan}",
        "{from: lam, to: wan}",
        14,
        "spec.members.gateway.gateway.from",
        "this member has no port lam: write one of lan, wan",
    );
    refuses(
        "to: workspace,",
        "to: workspaze,",
        21,
        "spec.access[0].to",
        "\"workspaze\" is neither a member nor a network: write one of gateway, workspace, inside, outside",
    );
    refuses(
        ", via: gateway}",
        "}",
        21,
        "spec.access[0]",
        "outside and workspace share no network: write `via: gateway`",
    );
    refuses(
        "via: gateway",
        "via: workspace",
        21,
        "spec.access[0].via",
        "workspace is no gateway: add `gateway: {from: PORT, to: PORT}` to it",
    );
    refuses("tcp: [80], ", "", 21, "spec.access[0]", "it opens nothing: write tcp: [80] or udp: [53]");
    refuses("tcp: [80]", "tcp: [0]", 21, "spec.access[0].tcp[0]", "0 is no port: write 1 to 65535");
    refuses(
        "    - {from: outside, to: workspace, tcp: [80], via: gateway}",
        "    - {from: outside, to: workspace, tcp: [80], via: gateway}\n    - {from: outside, to: inside, tcp: [80], via: gateway}",
        22,
        "spec.access[1].to",
        "gateway forwards to one member: write a member of inside instead of inside",
    );
}

#[test]
fn refuses_two_members_behind_one_listen_port() {
    let two = OFFICE.replace(
        "  access:\n",
        "    other:\n      appliance: acme/plain\n      ports: {eth0: inside}\n  access:\n    - {from: outside, to: other, tcp: [80], via: gateway}\n",
    );
    let found = issues(&with_site(), &two);
    assert_eq!(
        found[0].message,
        "gateway already forwards tcp:80 to other: one listen port leads to one member"
    );
    assert_eq!(found[0].field, "spec.access[1]");
}

#[test]
fn refuses_gateways_in_a_circle() {
    let text = "apiVersion: collective/v1\nkind: Bundle\nmetadata: {name: ring}\nspec:\n  networks:\n    a: {subnet: 10.1.0.0/24}\n    b: {subnet: 10.2.0.0/24}\n  members:\n    one: {appliance: acme/gateway, ports: {lan: a, wan: b}, gateway: {from: lan, to: wan}}\n    two: {appliance: acme/gateway, ports: {lan: b, wan: a}, gateway: {from: lan, to: wan}}\n";
    let found = issues(&catalogue(), text);
    assert_eq!(found[0].message, "gateways lead in a circle from a back to a");
}

#[test]
fn refuses_text_that_is_no_document_with_its_line_and_column() {
    let cases = [
        ("apiVersion: collective/v1\nkind: Bundle\nmetadata: {name: x}\nspec: [", 4, "", "this is no YAML"),
        (
            "apiVersion: collective/v2\nkind: Bundle\n",
            1,
            "apiVersion",
            "\"collective/v2\" is not known: write collective/v1",
        ),
        ("apiVersion: collective/v1\nkind: Bumble\n", 2, "kind", "\"Bumble\" is no kind of document"),
        (
            "apiVersion: collective/v1\nkind: Site\nmetadata: {name: X}\nspec: {}\n",
            3,
            "metadata.name",
            "\"X\" is not a site name",
        ),
        (
            "apiVersion: collective/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  bundle: b\n  usr: c\n",
            6,
            "spec.usr",
            "unknown field `usr`",
        ),
        (
            "apiVersion: collective/v1\nkind: Deployment\nmetadata: {name: 7}\nspec: {bundle: b}\n",
            3,
            "metadata.name",
            "invalid type: integer `7`, expected a string: write it in quotes",
        ),
        ("a: &x 1\nb: *x\n", 1, "", "anchors (&name) are not taken"),
        ("a: 1\na: 2\n", 2, "", "\"a\" is there twice"),
        ("", 0, "", "there is no document in it"),
    ];
    for (text, line, field, message) in cases {
        let found = document::parse(text).unwrap_err();
        let [issue] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((issue.line, issue.field.as_str()), (line, field), "{issue:?}");
        assert!(issue.message.starts_with(message), "{issue:?}");
    }
}

#[test]
fn a_wrong_port_says_why_it_is_wrong() {
    let found =
        document::parse(&OFFICE.replace("{eth0: inside}", "{eth0: {network: inside, addres: 10.20.0.9}}"))
            .unwrap_err();
    assert_eq!(found[0].field, "spec.members.workspace.ports.eth0.addres");
    assert!(found[0].message.starts_with("unknown field `addres`"), "{found:?}");
}

#[test]
fn hostile_yaml_is_refused_within_its_limits() {
    let bomb = (0..20)
        .fold("a0: &a0 x\n".to_owned(), |text, n| format!("{text}a{}: &a{} [*a{n}, *a{n}]\n", n + 1, n + 1));
    assert!(document::parse(&bomb).is_err());
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(document::parse(&deep).is_err());
    let long = "x".repeat(controller_model::TEXT_LEN_MAX + 1);
    assert!(document::parse(&long).unwrap_err()[0].message.contains("more than 1048576"));
    let wide = format!("a: [{}]", "1,".repeat(controller_model::NODES_MAX + 1));
    assert!(document::parse(&wide).unwrap_err()[0].message.contains("more than 50000 values"));
}

#[test]
fn deployments_without_bundle_or_site_are_refused() {
    let deployment = OFFICE.split("---\n").nth(1).unwrap();
    let found = issues(&with_site(), deployment);
    assert_eq!((found[0].line, found[0].field.as_str()), (4, "spec.bundle"));
    assert_eq!(found[0].message, "there is no bundle office: apply it first, or together with this");
    let found = issues(&catalogue(), OFFICE);
    assert_eq!(
        found[0].message,
        "its network outside is a site's LAN, and there is no site: apply a Site first"
    );
    let found = issues(&catalogue(), &SITE.replace("last: 10.88.0.199", "last: 10.88.0.99"));
    assert_eq!((found[0].line, found[0].message.as_str()), (9, "10.88.0.99 is before 10.88.0.100"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ -~\n]{0,200}") {
        let _ = document::parse(&text);
    }

    #[test]
    fn no_damage_to_a_document_makes_anything_panic(at in 0usize..900, with in "[ -~\n]{0,6}") {
        let mut text = OFFICE.to_owned();
        let at = at.min(text.len() - 1);
        if text.is_char_boundary(at) {
            text.replace_range(at..=at, &with);
            let _ = support::apply(&with_site(), &text);
        }
    }

    #[test]
    fn no_two_ports_share_a_mac_tap_address_or_vni(deployments in prop::collection::btree_set("[a-z]{1,6}", 1..12)) {
        let mut cluster = with_site();
        let bundle = OFFICE.split("---").next().unwrap();
        cluster = support::apply(&cluster, bundle).unwrap().draft.cluster;
        for name in &deployments {
            let text = format!("apiVersion: collective/v1\nkind: Deployment\nmetadata: {{name: \"{name}\"}}\nspec: {{bundle: office}}\n");
            let documents = document::parse(&text).unwrap();
            cluster = apply::apply(&cluster, &documents, &mut counting()).unwrap().draft.cluster;
        }
        let ports: Vec<_> = cluster.instances.values().flat_map(|instance| instance.ports.clone()).collect();
        let macs: BTreeSet<_> = ports.iter().map(|port| port.mac).collect();
        let taps: BTreeSet<_> = ports.iter().map(|port| port.tap.clone()).collect();
        let lan: Vec<_> = ports.iter().filter(|port| port.mtu == 1_500).flat_map(record::Port::ips).collect();
        let vnis: BTreeSet<_> = cluster.networks.values().map(|network| network.vni).collect();
        prop_assert_eq!(macs.len(), ports.len());
        prop_assert_eq!(taps.len(), ports.len());
        prop_assert!(taps.iter().all(|tap| tap.len() <= netd_api::LINK_NAME_LEN_MAX));
        prop_assert_eq!(lan.iter().collect::<BTreeSet<_>>().len(), lan.len());
        prop_assert_eq!(vnis.len(), deployments.len());
    }
}
