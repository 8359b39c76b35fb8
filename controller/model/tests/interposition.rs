//! Claims about appliances in the path of running ports, phase by phase.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{HostDesired, HostStatus, InstanceState, InstanceStatus};
use controller_api::interpose::{InterpositionPhase as Phase, InterpositionSpec, MemberPort};
use controller_model::apply::Refusal;
use controller_model::placement::{self, Census, Observed};
use controller_model::{Cluster, Draft, desired, interpose, reach, record};
use netd_api::{End, Network, NetworkStatus, Port, PortStatus, Service};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use support::{OFFICE, counting, office, put_version, with_site};
use types::{DeploymentName, HostName, InstanceId};

const VIA: &str = "office/via-workspace-eth0-1";

fn entry(port: &str, with: &str) -> InterpositionSpec {
    InterpositionSpec {
        port: port.parse().unwrap(),
        with: with.parse().unwrap(),
        channel: None,
        version: None,
        pair: None,
    }
}

fn deployment() -> DeploymentName {
    "office".parse().unwrap()
}

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

/// The running office with proxies in its catalogue.
fn world() -> Cluster {
    let mut draft = Draft::new(office());
    put_version(&mut draft, "acme/proxy", "1.0.0", &["wan", "lan"], &[]);
    put_version(&mut draft, "acme/recorder", "1.0.0", &["a", "b", "c"], &[]);
    put_version(&mut draft, "acme/stateful", "1.0.0", &["a", "b"], &["disk"]);
    draft.cluster
}

fn add(cluster: &Cluster, entry: InterpositionSpec) -> Result<Cluster, Refusal> {
    let mut draft = Draft::new(cluster.clone());
    // Other numbers than those that the members have.
    let mut fresh = counting();
    let mut fresh = move || fresh().replace("4000", "4001");
    interpose::add(&mut draft, &deployment(), entry, &mut fresh)?;
    Ok(draft.cluster)
}

fn remove(cluster: &Cluster, port: &str, with: Option<&str>) -> Result<Cluster, Refusal> {
    let mut draft = Draft::new(cluster.clone());
    let with = with.map(|with| with.parse().unwrap());
    let port: MemberPort = port.parse().unwrap();
    interpose::remove(&mut draft, &deployment(), &port, with.as_ref(), &mut counting())?;
    Ok(draft.cluster)
}

/// Places what has no host, where it has to be or on the host named here.
fn place(cluster: &Cluster, otherwise: &str) -> Cluster {
    let mut draft = Draft::new(cluster.clone());
    for id in placement::unplaced(&draft.cluster) {
        let online = ["h1".parse().unwrap(), "h2".parse().unwrap()].into();
        let question =
            placement::question(&draft.cluster, &Census::new(&draft.cluster, &Observed::new(), &online), &id)
                .unwrap();
        let host = question.pinned.clone().unwrap_or_else(|| otherwise.parse().unwrap());
        assert_eq!(placement::forbidden(&question, &host), None);
        draft.put(record::placement_key(&id), &record::Placement { host, decision: 2 });
    }
    publish(draft)
}

fn publish(mut draft: Draft) -> Cluster {
    for (host, document) in desired::desired(&draft.cluster, &BTreeSet::new()) {
        draft.put(format!("desired/{host}"), &document);
    }
    draft.cluster
}

/// What a host says that has done all it was told, where these instances are ready.
fn says(document: &HostDesired, ready: &[&str]) -> HostStatus {
    let instance = |instance: &controller_api::agent::DesiredInstance| InstanceStatus {
        id: instance.id.clone(),
        incarnation: instance.incarnation.clone(),
        state: match ready.contains(&instance.id.to_string().as_str()) {
            true => InstanceState::Ready,
            false => InstanceState::Booting,
        },
        reason: None,
        started_ms: None,
        ready_ms: None,
        starts: 1,
        dirty_bytes: 0,
        health: None,
    };
    let port = |port: &Port| PortStatus {
        id: port.id.clone(),
        tap: port.tap.clone(),
        ready: true,
        ..PortStatus::default()
    };
    let network = |network: &Network| NetworkStatus {
        id: network.id.clone(),
        up: true,
        ports: network.ports.iter().map(port).collect(),
        router: None,
    };
    HostStatus {
        watches: vec![],
        generation: document.generation,
        instances: document.instances.iter().map(instance).collect(),
        networks: Some(netd_api::Status {
            networks: document.networks.iter().map(network).collect(),
            ..netd_api::Status::default()
        }),
        ..HostStatus::default()
    }
}

fn all_say(cluster: &Cluster, ready: &[&str]) -> Observed {
    cluster.desired.iter().map(|(host, document)| (host.clone(), says(document, ready))).collect()
}

fn settle(cluster: &Cluster, observed: &Observed) -> Cluster {
    let online: BTreeSet<HostName> = observed.keys().cloned().collect();
    publish(interpose::settle(cluster, observed, &online).draft)
}

fn phase(cluster: &Cluster, via: &str) -> Option<Phase> {
    cluster.vias.get(&id(via)).map(|via| via.phase)
}

fn network<'a>(cluster: &'a Cluster, host: &str, id: &str) -> Option<&'a Network> {
    cluster.desired[&host.parse().unwrap()].networks.iter().find(|network| network.id == id)
}

/// `held` behind a port that is.
fn ports(cluster: &Cluster, host: &str, id: &str) -> Vec<String> {
    let shown = |port: &Port| format!("{}{}", port.id, if port.held { " held" } else { "" });
    network(cluster, host, id).map(|network| network.ports.iter().map(shown).collect()).unwrap_or_default()
}

#[test]
fn a_proxy_is_prepared_beside_the_path_spliced_when_it_is_ready_and_taken_out_before_it_goes() {
    let before = publish(Draft::new(world()));
    let own = network(&before, "h2", "office/inside").unwrap().ports[0].clone();
    let prepared = place(&add(&before, entry("workspace/eth0", "acme/proxy")).unwrap(), "h1");
    // Beside it, on the guest's host; the guest is not touched.
    assert_eq!(prepared.placements[&id(VIA)].host, "h2".parse().unwrap());
    assert_eq!(prepared.instances[&id("office/workspace")], before.instances[&id("office/workspace")]);
    assert_eq!(
        ports(&prepared, "h2", "office/inside"),
        ["office/workspace/eth0".to_owned(), format!("{VIA}/wan held")]
    );
    assert_eq!(network(&prepared, "h2", "office/inside").unwrap().ports[0], own);
    let wire = network(&prepared, "h2", VIA).unwrap();
    assert!(wire.wire);
    assert_eq!(ports(&prepared, "h2", VIA), [format!("{VIA}/lan")]);

    // Not before it is ready.
    let waiting = settle(&prepared, &all_say(&prepared, &["office/workspace"]));
    assert_eq!(phase(&waiting, VIA), Some(Phase::Prepared));
    let spliced = settle(&prepared, &all_say(&prepared, &[VIA]));
    assert_eq!(phase(&spliced, VIA), Some(Phase::Spliced));
    assert_eq!(ports(&spliced, "h2", "office/inside"), [format!("{VIA}/wan")]);
    assert_eq!(ports(&spliced, "h2", VIA), ["office/workspace/eth0".to_owned(), format!("{VIA}/lan")]);
    let face = &network(&spliced, "h2", "office/inside").unwrap().ports[0];
    assert_eq!(
        (face.mac, &face.addresses, &face.accept, face.routes),
        (own.mac, &own.addresses, &own.accept, own.routes)
    );
    let told = |cluster: &Cluster| {
        let document = &cluster.desired[&"h2".parse().unwrap()];
        document.instances.iter().map(|i| (i.id.clone(), i.config.clone())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(told(&prepared), told(&spliced), "no guest may see that it is spliced");

    // Out of the path first, and gone only once the host says that it is out.
    let leaving = publish(Draft::new(remove(&spliced, "workspace/eth0", None).unwrap()));
    assert_eq!(phase(&leaving, VIA), Some(Phase::Leaving));
    assert_eq!(network(&leaving, "h2", "office/inside").unwrap().ports[0], own);
    assert!(leaving.instances.contains_key(&id(VIA)));
    let stale = settle(&leaving, &all_say(&spliced, &[VIA]));
    assert_eq!(phase(&stale, VIA), Some(Phase::Leaving));
    let gone = settle(&leaving, &all_say(&leaving, &[]));
    assert_eq!(phase(&gone, VIA), None);
    assert_eq!(network(&gone, "h2", VIA), None);
    let networks = |cluster: &Cluster| cluster.desired[&"h2".parse().unwrap()].networks.clone();
    assert_eq!(networks(&gone), networks(&before));
    assert!(!gone.instances.contains_key(&id(VIA)) && !gone.placements.contains_key(&id(VIA)));
}

#[test]
fn a_chain_keeps_its_documents_order_and_each_link_is_spliced_by_itself() {
    let one = add(&world(), entry("workspace/eth0", "acme/proxy")).unwrap();
    let two = place(&add(&one, entry("workspace/eth0", "acme/recorder")).unwrap(), "h1");
    let (first, second) = (VIA, "office/via-workspace-eth0-2");
    // The outer one is ready earlier.
    let half = settle(&two, &all_say(&two, &[second]));
    assert_eq!(ports(&half, "h2", "office/inside"), [format!("{second}/a"), format!("{first}/wan held")]);
    assert_eq!(ports(&half, "h2", second), ["office/workspace/eth0".to_owned(), format!("{second}/b")]);
    let whole = settle(&half, &all_say(&half, &[first, second]));
    assert_eq!(ports(&whole, "h2", "office/inside"), [format!("{second}/a")]);
    assert_eq!(ports(&whole, "h2", second), [format!("{first}/wan"), format!("{second}/b")]);
    assert_eq!(ports(&whole, "h2", first), ["office/workspace/eth0".to_owned(), format!("{first}/lan")]);
    // Out of the middle.
    let leaving = publish(Draft::new(remove(&whole, "workspace/eth0", Some("acme/proxy")).unwrap()));
    assert_eq!(ports(&leaving, "h2", second), ["office/workspace/eth0".to_owned(), format!("{second}/b")]);
    let gone = settle(&leaving, &all_say(&leaving, &[second]));
    assert_eq!((phase(&gone, first), phase(&gone, second)), (None, Some(Phase::Spliced)));
}

#[test]
fn a_pair_comes_into_both_paths_at_once_and_each_is_told_of_the_other() {
    let pair = InterpositionSpec {
        pair: Some("gateway/lan".parse().unwrap()),
        ..entry("workspace/eth0", "acme/proxy")
    };
    let prepared = place(&add(&world(), pair).unwrap(), "h1");
    let again = OFFICE.replace(
        "spec: {bundle: office}",
        "spec: {bundle: office, interpositions: [{port: workspace/eth0, with: acme/proxy, pair: gateway/lan}]}",
    );
    assert_eq!(support::apply(&prepared, &again).unwrap().draft.writes, BTreeMap::new());
    let far = "office/via-gateway-lan-1";
    assert_eq!(prepared.placements[&id(far)].host, "h1".parse().unwrap());
    let alone = settle(&prepared, &all_say(&prepared, &[VIA]));
    assert_eq!((phase(&alone, VIA), phase(&alone, far)), (Some(Phase::Prepared), Some(Phase::Prepared)));
    let both = settle(&prepared, &all_say(&prepared, &[VIA, far]));
    assert_eq!((phase(&both, VIA), phase(&both, far)), (Some(Phase::Spliced), Some(Phase::Spliced)));
    let env = |host: &str, id: &str| {
        let document = &both.desired[&host.parse().unwrap()];
        document.instances.iter().find(|i| i.id.to_string() == id).unwrap().config["instance.env"].clone()
    };
    let line = |env: &str, key: &str| {
        env.lines().find_map(|l| l.strip_prefix(&format!("{key}="))).map(str::to_owned).unwrap()
    };
    let (near, far) = (env("h2", VIA), env("h1", far));
    assert_eq!(line(&near, "INTERPOSED_PAIR_ADDRESSES"), line(&far, "INTERPOSED_ADDRESSES"));
    assert_eq!(line(&far, "INTERPOSED_PAIR_ADDRESSES"), line(&near, "INTERPOSED_ADDRESSES"));
    assert_eq!(line(&near, "INTERPOSED_PAIR_SECRET"), line(&far, "INTERPOSED_PAIR_SECRET"));
    assert_eq!(line(&near, "INTERPOSED_PAIR_SECRET").len(), 64 + 2);
    assert!(!near.contains("PORT_lan_ADDRESS"), "{near}");
}

#[test]
fn a_via_follows_its_guest_to_another_host_and_nothing_passes_without_it() {
    let prepared = place(&add(&world(), entry("workspace/eth0", "acme/proxy")).unwrap(), "h1");
    let spliced = settle(&prepared, &all_say(&prepared, &[VIA]));
    let mut draft = Draft::new(spliced.clone());
    let placement = record::Placement { host: "h1".parse().unwrap(), decision: 3 };
    draft.put("placements/office/workspace", &placement);
    let moved = settle(&draft.cluster, &all_say(&spliced, &[VIA]));
    assert!(!moved.placements.contains_key(&id(VIA)));
    // The guest alone, on the wire: no port of the network has its address.
    assert_eq!(ports(&moved, "h1", VIA), ["office/workspace/eth0"]);
    assert_eq!(ports(&moved, "h1", "office/inside"), ["office/gateway/lan"]);
    assert_eq!(ports(&moved, "h2", "office/inside"), Vec::<String>::new());
    let again = place(&moved, "h2");
    assert_eq!(again.placements[&id(VIA)].host, "h1".parse().unwrap());
    assert_eq!(phase(&again, VIA), Some(Phase::Spliced));
    assert!(ports(&again, "h1", "office/inside").contains(&format!("{VIA}/wan")));
}

#[test]
fn a_guest_without_a_host_never_speaks_without_its_proxy() {
    let mut draft = Draft::new(with_site());
    put_version(&mut draft, "acme/proxy", "1.0.0", &["wan", "lan"], &[]);
    support::add_host(&mut draft, "h1", "10.99.0.1");
    let text = OFFICE.replace(
        "spec: {bundle: office}",
        "spec: {bundle: office, interpositions: [{port: workspace/eth0, with: acme/proxy}]}",
    );
    let cluster = place(&support::apply(&draft.cluster, &text).unwrap().draft.cluster, "h1");
    assert_eq!(phase(&cluster, VIA), Some(Phase::Spliced));
    assert_eq!(ports(&cluster, "h1", VIA), ["office/workspace/eth0".to_owned(), format!("{VIA}/lan")]);
    let again = support::apply(&cluster, &text).unwrap();
    assert_eq!(again.draft.writes, BTreeMap::new());
}

#[test]
fn a_host_without_room_for_the_proxies_does_not_get_the_guest() {
    let cluster = add(&world(), entry("workspace/eth0", "acme/proxy")).unwrap();
    let mut draft = Draft::new(cluster);
    draft.delete("placements/office/workspace");
    let online = ["h1".parse().unwrap(), "h2".parse().unwrap()].into();
    let mut question = placement::question(
        &draft.cluster,
        &Census::new(&draft.cluster, &Observed::new(), &online),
        &id("office/workspace"),
    )
    .unwrap();
    assert_eq!(question.followers_memory, 192 << 20);
    question.candidates[1].memory_free = 300 << 20;
    let why = placement::forbidden(&question, &"h2".parse().unwrap()).unwrap();
    assert_eq!(why, "h2 has 300MiB of memory free, 384MiB are needed");
    // And the proxy is not asked about before its guest has a host.
    assert_eq!(
        placement::question(
            &draft.cluster,
            &Census::new(&draft.cluster, &Observed::new(), &online),
            &id(VIA)
        ),
        None
    );
}

#[test]
fn what_cannot_be_interposed_is_refused_with_what_to_write() {
    let world = world();
    let refusal = |entry| add(&world, entry).unwrap_err().to_string();
    let cases = [
        (entry("desk/eth0", "acme/proxy"), "there is no member desk: write one of gateway, workspace"),
        (entry("workspace/eth1", "acme/proxy"), "workspace has no port eth1: write workspace/eth0"),
        (
            entry("workspace/eth0", "acme/plain"),
            "acme/plain 1.0.0 has 1 ports: what is interposed needs an outer and an inner one",
        ),
        (
            entry("workspace/eth0", "acme/stateful"),
            "acme/stateful 1.0.0 expects a volume disk: it cannot be interposed",
        ),
        (
            InterpositionSpec {
                pair: Some("workspace/eth0".parse().unwrap()),
                ..entry("workspace/eth0", "acme/proxy")
            },
            "workspace/eth0 is no pair with itself: name another port",
        ),
    ];
    for (entry, message) in cases {
        assert_eq!(refusal(entry), message);
    }
    let strange = refusal(entry("workspace/eth0", "acme/unknown"));
    assert!(strange.starts_with("acme/unknown is not in the catalogue"), "{strange}");
    assert_eq!(
        remove(&world, "workspace/eth0", Some("acme/proxy")).unwrap_err(),
        Refusal::NotFound("no acme/proxy is interposed at office/workspace/eth0".into())
    );
    let twice = OFFICE.replace(
        "spec: {bundle: office}",
        "spec:\n  bundle: office\n  interpositions:\n    - {port: workspace/eth0, with: acme/proxy}\n    - {port: workspace/eth0, with: acme/proxy}",
    );
    let issues = support::issues(&world, &twice);
    assert_eq!(issues[0].field, "spec.interpositions[1].port");
    assert_eq!(issues[0].message, "workspace/eth0 goes through acme/proxy already: remove one");
}

#[test]
fn asking_twice_changes_nothing_and_a_deployment_takes_its_vias_with_it() {
    let once = add(&world(), entry("workspace/eth0", "acme/proxy")).unwrap();
    assert_eq!(add(&once, entry("workspace/eth0", "acme/proxy")).unwrap(), once);
    let mut draft = Draft::new(place(&once, "h1"));
    controller_model::apply::delete_deployment(&mut draft, &deployment()).unwrap();
    assert!(draft.cluster.vias.is_empty() && draft.cluster.instances.is_empty());
    assert!(draft.cluster.placements.is_empty());
}

#[test]
fn who_is_asked_about_a_connection_is_who_has_its_ends() {
    let service = Service::Tcp { listen_port: 80 };
    let prepared = place(&add(&world(), entry("workspace/eth0", "acme/proxy")).unwrap(), "h1");
    let ask = |cluster: &Cluster, from: &str, to: &str| reach::way(cluster, from, to, service, false);
    let way = ask(&prepared, "office/gateway/lan", "office/workspace").unwrap();
    let hosts: Vec<&str> = way.legs.iter().map(|leg| leg.host.as_str()).collect();
    assert_eq!(hosts, ["h1", "h2"]);
    let port = |id: &str| End::Port { id: id.into(), address: None };
    let outside = |address: &str| End::Outside { address: address.parse().unwrap() };
    assert_eq!(way.legs[0].question.from, port("office/gateway/lan"));
    assert_eq!(way.legs[0].question.to, outside("10.20.0.2"));
    assert_eq!(way.legs[1].question.from, outside("10.20.0.1"));
    assert_eq!(way.legs[1].question.to, port("office/workspace/eth0"));
    assert_eq!(
        ask(&prepared, "office/gateway/lan", "10.20.0.2").unwrap(),
        way,
        "an address that is a port's"
    );
    // Once spliced, the proxy's outer port stands for the guest's.
    let spliced = settle(&prepared, &all_say(&prepared, &[VIA]));
    let way = ask(&spliced, "office/gateway/lan", "office/workspace/eth0").unwrap();
    assert_eq!(way.legs[1].question.to, port(&format!("{VIA}/wan")));
    assert_eq!(way.into.vias, [id(VIA)]);

    let refused = |from: &str, to: &str| ask(&prepared, from, to).unwrap_err().to_string();
    assert!(refused("10.0.0.1", "10.0.0.2").contains("name a port"));
    assert!(refused("office/gateway", "10.0.0.2").contains("has 2 ports: write one of office/gateway/wan"));
    assert!(refused("office/gateway/wan", "office/workspace").contains("ask about each network on the way"));
    assert!(refused("office", "10.0.0.2").contains("write DEPLOYMENT/MEMBER/PORT"));
    assert!(refused("office/nobody/eth0", "10.0.0.2").contains("there is no instance office/nobody"));
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Happening {
    Add(&'static str, &'static str),
    Remove(&'static str, Option<&'static str>),
    Place(&'static str),
    Move(&'static str, &'static str),
    Lose(&'static str),
    /// Hosts do what they were told; these are ready.
    Say(Vec<&'static str>),
}

fn happening() -> impl Strategy<Value = Happening> {
    let port = prop::sample::select(vec!["workspace/eth0", "gateway/lan", "gateway/wan"]);
    let with = prop::sample::select(vec!["acme/proxy", "acme/recorder"]);
    let host = prop::sample::select(vec!["h1", "h2"]);
    let member = prop::sample::select(vec!["workspace", "gateway"]);
    let via = prop::sample::select(vec![
        "office/via-workspace-eth0-1",
        "office/via-workspace-eth0-2",
        "office/via-gateway-lan-1",
        "office/via-gateway-lan-2",
        "office/via-gateway-wan-1",
    ]);
    prop_oneof![
        3 => (port.clone(), with.clone()).prop_map(|(port, with)| Happening::Add(port, with)),
        2 => (port, prop::option::of(with)).prop_map(|(port, with)| Happening::Remove(port, with)),
        4 => host.clone().prop_map(Happening::Place),
        1 => (member.clone(), host).prop_map(|(member, host)| Happening::Move(member, host)),
        1 => member.prop_map(Happening::Lose),
        4 => prop::collection::vec(via, 0..5).prop_map(Happening::Say),
    ]
}

fn happens(cluster: Cluster, happening: &Happening) -> Cluster {
    let put = |cluster: Cluster, member: &str, host: &str| {
        let mut draft = Draft::new(cluster);
        let placement = record::Placement { host: host.parse().unwrap(), decision: 4 };
        draft.put(format!("placements/office/{member}"), &placement);
        draft.cluster
    };
    match happening {
        Happening::Add(port, with) => add(&cluster, entry(port, with)).unwrap_or(cluster),
        Happening::Remove(port, with) => remove(&cluster, port, *with).unwrap_or(cluster),
        Happening::Move(member, host) => put(cluster, member, host),
        Happening::Lose(member) => {
            let mut draft = Draft::new(cluster);
            draft.delete(format!("placements/office/{member}"));
            draft.cluster
        }
        Happening::Place(host) => {
            let cluster = settle(&cluster, &Observed::new());
            let mut draft = Draft::new(cluster);
            for id in placement::unplaced(&draft.cluster) {
                let question = placement::question(
                    &draft.cluster,
                    &Census::new(&draft.cluster, &Observed::new(), &BTreeSet::new()),
                    &id,
                );
                let Some(question) = question else { continue };
                let host = question.pinned.unwrap_or_else(|| host.parse().unwrap());
                draft.put(record::placement_key(&id), &record::Placement { host, decision: 5 });
            }
            draft.cluster
        }
        Happening::Say(ready) => {
            let told = publish(Draft::new(cluster));
            let observed = all_say(&told, ready);
            settle(&told, &observed)
        }
    }
}

/// What may never be in what hosts are told.
fn hold(cluster: &Cluster) {
    let documents = desired::desired(cluster, &BTreeSet::new());
    for member in ["workspace", "gateway"] {
        let Some(instance) = cluster.instances.get(&id(&format!("office/{member}"))) else { continue };
        for own in &instance.ports {
            let port = MemberPort { member: member.parse().unwrap(), port: own.name.clone() };
            let deployment = deployment();
            let chain = interpose::chain(cluster, &deployment, &port);
            let all = documents.values().flat_map(|document| &document.networks);
            let with_address: Vec<(&Network, &Port)> = all
                .flat_map(|network| network.ports.iter().map(move |port| (network, port)))
                .filter(|(_, port)| port.addresses.contains(&own.addresses[0].addr()))
                .collect();
            assert!(with_address.len() <= 1, "two ports speak for {port}: {with_address:?}");
            for (network, said) in with_address {
                assert!(!network.wire && !said.held);
                assert_eq!(said.tap == own.tap, chain.is_empty(), "{port} speaks without its vias");
            }
        }
    }
    for document in documents.values() {
        for network in &document.networks {
            assert!(!network.wire || (1..=2).contains(&network.ports.len()), "{network:?}");
            for port in network.ports.iter().filter(|port| network.wire || port.held) {
                assert!(port.accept.is_empty() && port.addresses.is_empty(), "{port:?} is open");
            }
        }
        let taps: Vec<&str> =
            document.networks.iter().flat_map(|n| &n.ports).map(|p| p.tap.as_str()).collect();
        let wanted = document.instances.iter().flat_map(|i| &i.ports).map(|port| port.tap.as_str());
        for tap in wanted {
            let count = taps.iter().filter(|other| **other == tap).count();
            assert_eq!(count, 1, "a NIC is made once: {document:#?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn whatever_happens_one_port_speaks_for_a_guest_and_never_without_what_is_spliced(
        happenings in prop::collection::vec(happening(), 0..24),
    ) {
        let mut cluster = world();
        for happening in &happenings {
            cluster = happens(cluster, happening);
            hold(&cluster);
        }
        // And it comes to rest: all placed, all ready, nothing on its way.
        for _ in 0..4 {
            cluster = happens(cluster, &Happening::Place("h1"));
            let all: Vec<String> = cluster.instances.keys().map(ToString::to_string).collect();
            let told = publish(Draft::new(cluster));
            let ready: Vec<&str> = all.iter().map(String::as_str).collect();
            cluster = settle(&told, &all_say(&told, &ready));
            hold(&cluster);
        }
        prop_assert!(cluster.vias.values().all(|via| via.phase == Phase::Spliced));
        prop_assert!(cluster.instances.keys().all(|id| cluster.placements.contains_key(id)));
    }
}
