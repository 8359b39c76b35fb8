//! The planner against a model of the kernel.
#![allow(clippy::unwrap_used, reason = "in a test's helpers too, a panic is the failure")]

use ipnet::IpNet;
use netd_api::{
    Accept, Desired, Direction, Dns, Mirror, MirrorFrom, MirrorTo, MirrorTunnel, Network, Outside, Port,
    Protocol, Rate, Router, Uplink, Watcher,
};
use netd_plan::{
    Action, Chains, Element, End, FlowsStep, GROUP, Host, Link, LinkKind, MirrorStep, Observed, ObservedEnd,
    ObservedFlows, ObservedMirrors, ObservedNamespace, ObservedRouter, ObservedRules, ObservedShape, Place,
    RouterStep, Set, ShapeStep, Side, Step, Target, networks_status, plan,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use types::{Generation, MacAddress, SiteName};

fn host() -> Host {
    Host {
        underlay: Some("192.0.2.1".parse().unwrap()),
        uplinks: [(SiteName::new("lab").unwrap(), "eth1".to_owned())].into(),
        trunks: [("core".to_owned(), "eth2".to_owned())].into(),
    }
}

fn link(kind: LinkKind) -> Link {
    Link {
        group: 0,
        kind,
        mtu: 1500,
        master: None,
        up: false,
        carrier: false,
        alias: None,
        addressed: false,
        ipv6: true,
    }
}

/// A machine with links of others, and a physical link granted to us.
fn machine(eth1_up: bool) -> Observed {
    let mut observed = Observed { bridge_netfilter: true, ..Observed::default() };
    let ether = || link(LinkKind::Other("veth".to_owned()));
    let mut add = |name: &str, link| observed.links.insert(name.to_owned(), link);
    add("eth0", Link { up: true, addressed: true, ..ether() });
    add("eth1", Link { up: eth1_up, ..ether() });
    add("eth2", Link { up: true, ..ether() });
    add(
        "docker0",
        Link {
            up: true,
            addressed: true,
            ..link(LinkKind::Bridge { stp: true, snooping: true, wire: false })
        },
    );
    add("veth7", Link { up: true, master: Some("docker0".to_owned()), ..ether() });
    // Our group without our prefix is somebody else's choice of number.
    add("tun0", Link { group: GROUP, ..ether() });
    observed
}

fn create(observed: &mut Observed, name: &str, mtu: u32, kind: LinkKind) {
    let made = Link { group: GROUP, mtu, ..link(kind) };
    assert!(observed.links.insert(name.to_owned(), made).is_none(), "{name} was there already");
}

fn change<'a>(observed: &'a mut Observed, name: &str) -> &'a mut Link {
    let link = observed.links.get_mut(name).unwrap_or_else(|| panic!("{name} is not there"));
    assert!(link.is_ours(name) || ["eth1", "eth2"].contains(&name), "{name} is not ours");
    link
}

/// What the kernel does with one step.
fn apply(observed: &mut Observed, step: &Step, target: &Target) {
    match step {
        Step::Router(step) => apply_router(observed, step),
        Step::Mirror(step) => apply_mirror(observed, step),
        Step::Shape(step) => apply_shape(observed, step),
        Step::Detach { link } => change(observed, link).master = None,
        Step::Release { link, up } => {
            let link = change(observed, link);
            link.master = None;
            link.up = *up;
        }
        Step::Flows(step) => apply_flows(observed, step),
        Step::ReplaceRules { rules, counters, used } => {
            observed.rules = ObservedRules::Intact(rules.clone());
            observed.counters = counters.clone();
            observed.used = used.clone();
        }
        Step::AmendRules { remove, add } => {
            let ObservedRules::Intact(rules) = &mut observed.rules else { panic!("no rules to amend") };
            for element in remove {
                assert!(rules.elements.remove(element), "{element:?} was not there");
            }
            rules.elements.extend(add.iter().cloned());
        }
        Step::RemoveRules => observed.rules = ObservedRules::Absent,
        Step::Delete { link } => {
            change(observed, link);
            observed.links.remove(link);
            forget_ends(observed, link);
            observed.shapes.remove(link);
            for action in observed.mirrors.chains.values_mut().flatten() {
                // The kernel forgets the name.
                if let Action::Copy { to, .. } | Action::Divert { to } = action
                    && to == link
                {
                    *to = "7".to_owned();
                }
            }
            for other in observed.links.values_mut().filter(|l| l.master.as_ref() == Some(link)) {
                other.master = None;
            }
        }
        Step::BypassHostFirewall => observed.bridge_netfilter = false,
        Step::CreateBridge { .. } | Step::TameBridge { .. } | Step::Wire { .. } => {
            apply_bridge(observed, step)
        }
        Step::CreateVxlan { .. } | Step::CreateVlan { .. } => create_uplink(observed, step),
        Step::CreateTap { link, mtu } => create(observed, link, *mtu, LinkKind::Tap),
        Step::Name { link, alias } => change(observed, link).alias = Some(alias.clone()),
        Step::Resize { link, mtu } => change(observed, link).mtu = *mtu,
        Step::Mute { link } => change(observed, link).ipv6 = false,
        Step::AddPeer { link, peer } => assert!(flood(observed, link).insert(*peer)),
        Step::RemovePeer { link, peer } => assert!(flood(observed, link).remove(peer)),
        Step::Attach { link, bridge } => {
            assert_eq!(
                observed.rules,
                target.rules.clone().map_or(ObservedRules::Absent, ObservedRules::Intact),
                "{link} is attached before its rules are in force"
            );
            assert!(observed.links[bridge].is_ours(bridge));
            change(observed, link).master = Some(bridge.clone());
        }
        Step::Up { link } => {
            if let LinkKind::Vlan { parent, .. } = &observed.links[link].kind {
                assert!(observed.links[parent].up, "{link} is up before its trunk");
            }
            let found = change(observed, link);
            assert!(found.master.is_some() || found.kind != LinkKind::Tap, "{link} would speak to the host");
            found.up = true;
        }
        Step::Down { link } => change(observed, link).up = false,
        Step::Announce { link, alias, announcement } => {
            assert!(announcement.uplinks.iter().all(|uplink| observed.links.contains_key(uplink)));
            let tap = change(observed, link);
            assert!(tap.up && tap.master.is_some(), "{link} is announced before frames can reach it");
            tap.alias = Some(alias.clone());
        }
    }
}

fn apply_flows(observed: &mut Observed, step: &FlowsStep) {
    match step {
        FlowsStep::Replace { taps } => observed.flows = ObservedFlows::Intact(taps.clone()),
        FlowsStep::Amend { remove, add } => {
            let ObservedFlows::Intact(taps) = &mut observed.flows else { panic!("no table to amend") };
            assert!(remove.iter().all(|tap| taps.remove(tap)));
            assert!(add.iter().all(|tap| taps.insert(tap.clone())));
        }
        FlowsStep::Remove => observed.flows = ObservedFlows::Absent,
    }
}

fn apply_bridge(observed: &mut Observed, step: &Step) {
    match step {
        Step::CreateBridge { link, mtu } => {
            create(observed, link, *mtu, LinkKind::Bridge { stp: false, snooping: false, wire: false });
        }
        Step::TameBridge { link } => {
            let LinkKind::Bridge { stp, snooping, .. } = &mut change(observed, link).kind else {
                panic!("{link}")
            };
            (*stp, *snooping) = (false, false);
        }
        Step::Wire { link, on } => {
            let LinkKind::Bridge { wire, .. } = &mut change(observed, link).kind else { panic!("{link}") };
            *wire = *on;
        }
        other => panic!("{other}"),
    }
}

fn create_uplink(observed: &mut Observed, step: &Step) {
    match step {
        Step::CreateVxlan { link, vni, local, mtu } => {
            let clash = observed
                .links
                .values()
                .any(|l| matches!(&l.kind, LinkKind::Vxlan { vni: v, .. } if v == vni));
            assert!(!clash, "vni {vni} is in use");
            let kind = LinkKind::Vxlan { vni: *vni, local: Some(*local), port: 4789, flood: BTreeSet::new() };
            create(observed, link, *mtu, kind);
        }
        Step::CreateVlan { link, vid, parent, mtu } => {
            assert!(observed.links[parent].mtu >= *mtu, "{parent} is too narrow for {link}");
            let kind = LinkKind::Vlan { vid: *vid, parent: parent.clone() };
            assert!(observed.links.values().all(|l| l.kind != kind), "vid {vid} is in use");
            create(observed, link, *mtu, kind);
        }
        other => panic!("{other}"),
    }
}

fn apply_mirror(observed: &mut Observed, step: &MirrorStep) {
    match step {
        MirrorStep::CreateTunnel { link, vni, local, mtu } => {
            let kind = LinkKind::Vxlan { vni: *vni, local: Some(*local), port: 4789, flood: BTreeSet::new() };
            create(observed, link, *mtu, kind);
        }
        MirrorStep::Replace { chains, counters } => {
            let needed = chains.values().flatten().filter_map(Action::counter);
            let counters = needed
                .map(|name| (name.to_owned(), counters.get(name).copied().unwrap_or_default()))
                .collect();
            check_chains(observed, chains);
            observed.mirrors =
                ObservedMirrors { found: true, altered: false, chains: chains.clone(), counters };
        }
        MirrorStep::Amend { remove, put, forget } => {
            check_chains(observed, put);
            let mirrors = &mut observed.mirrors;
            assert!(mirrors.found && !mirrors.altered);
            assert!(remove.iter().all(|place| mirrors.chains.remove(place).is_some()));
            mirrors.chains.extend(put.clone());
            for counter in put.values().flatten().filter_map(Action::counter) {
                mirrors.counters.entry(counter.to_owned()).or_default();
            }
            for counter in forget {
                let needed = |action: &Action| action.counter() == Some(counter);
                assert!(!mirrors.chains.values().flatten().any(needed), "{counter} is in use");
                assert!(mirrors.counters.remove(counter).is_some());
            }
        }
        MirrorStep::Remove => observed.mirrors = ObservedMirrors::default(),
        MirrorStep::Open { link } => {
            let place = Place { link: link.clone(), side: Side::Incoming };
            let last = observed.mirrors.chains.get(&place).and_then(|actions| actions.last());
            assert!(matches!(last, Some(Action::Drop { .. })), "{link} would speak to the host");
            let found = change(observed, link);
            assert_eq!(found.master, None);
            found.up = true;
        }
    }
}

fn check_chains(observed: &Observed, chains: &Chains) {
    for (place, actions) in chains {
        for link in actions.iter().filter_map(Action::needs).chain([place.link.as_str()]) {
            assert!(observed.links.contains_key(link), "{link} is not there yet");
        }
    }
}

fn apply_shape(observed: &mut Observed, step: &ShapeStep) {
    match step {
        ShapeStep::Create { link, mtu } => create(observed, link, *mtu, LinkKind::Ifb),
        ShapeStep::Limit { link, limit } => {
            change(observed, link);
            let shape = ObservedShape { rate: limit.rate, queue: limit.queue };
            observed.shapes.insert(link.clone(), shape);
        }
        ShapeStep::Unlimit { link } => assert!(observed.shapes.remove(link).is_some()),
    }
}

fn apply_router(observed: &mut Observed, step: &RouterStep) {
    let mut join = None;
    let routers = &mut observed.routers;
    let found = |routers: &'_ mut std::collections::BTreeMap<String, ObservedRouter>, router: &String| {
        let found =
            routers.get_mut(router).filter(|r| r.namespace == ObservedNamespace::Ours).map(std::mem::take);
        found.unwrap_or_else(|| panic!("{router} has no namespace"))
    };
    let (name, router) = match step {
        RouterStep::Delete { router } => {
            let gone = routers.remove(router).expect("nothing to delete");
            assert_eq!((gone.lan, gone.wan), (None, None), "{router} goes before its links");
            return;
        }
        RouterStep::CreateNamespace { router } => {
            (router, ObservedRouter { namespace: ObservedNamespace::Ours, ..ObservedRouter::default() })
        }
        RouterStep::ReplaceRules { router, rules } => {
            (router, ObservedRouter { rules: Some(rules.clone()), ..found(routers, router) })
        }
        RouterStep::Settle { router } => (router, ObservedRouter { settled: true, ..found(routers, router) }),
        RouterStep::Join { router, end, link, mac, mtu } => {
            let mut found = found(routers, router);
            assert!(found.rules.is_some() && found.settled, "{router} is joined before it is closed");
            assert!(
                *end == End::Wan || found.server.is_none(),
                "{router}'s servers hold on to a link that is gone"
            );
            join = Some((link, *mtu));
            let made = ObservedEnd {
                peer: Some(link.clone()),
                mac: *mac,
                mtu: *mtu,
                up: false,
                addresses: BTreeSet::new(),
            };
            assert!(side(&mut found, *end).replace(made).is_none());
            (router, found)
        }
        RouterStep::Up { router, end } => {
            let mut found = found(routers, router);
            side(&mut found, *end).as_mut().expect("no such end").up = true;
            (router, found)
        }
        RouterStep::Address { router, end, remove, add } => {
            let mut found = found(routers, router);
            let addresses = &mut side(&mut found, *end).as_mut().expect("no such end").addresses;
            assert!(remove.iter().all(|net| addresses.remove(net)));
            addresses.extend(add);
            (router, found)
        }
        RouterStep::Route { router, remove, add } => {
            let mut found = found(routers, router);
            assert!(
                add.is_empty() || found.wan.as_ref().is_some_and(|wan| wan.up && !wan.addresses.is_empty())
            );
            found.gateways.retain(|gateway| !remove.contains(gateway));
            found.gateways.extend(add);
            (router, found)
        }
        RouterStep::Serve { router, config } => {
            let found = found(routers, router);
            assert!(found.lan.is_some(), "{router} serves before it is joined");
            (router, ObservedRouter { server: Some(config.clone()), ..found })
        }
        RouterStep::Silence { router } => (router, ObservedRouter { server: None, ..found(routers, router) }),
    };
    observed.routers.insert(name.clone(), router);
    if let Some((link, mtu)) = join {
        create(observed, link, mtu, LinkKind::Veth);
    }
}

/// A pair goes as a whole.
fn forget_ends(observed: &mut Observed, link: &String) {
    for router in observed.routers.values_mut() {
        router.lan.take_if(|end| end.peer.as_ref() == Some(link));
        if router.wan.take_if(|end| end.peer.as_ref() == Some(link)).is_some() {
            router.gateways.clear();
        }
    }
}

fn side(router: &mut ObservedRouter, end: End) -> &mut Option<ObservedEnd> {
    match end {
        End::Lan => &mut router.lan,
        End::Wan => &mut router.wan,
    }
}

fn flood<'a>(observed: &'a mut Observed, name: &str) -> &'a mut BTreeSet<std::net::IpAddr> {
    match &mut change(observed, name).kind {
        LinkKind::Vxlan { flood, .. } => flood,
        other => panic!("{name} is {other:?}"),
    }
}

fn converge(observed: &mut Observed, target: &Target) {
    for step in plan(target, observed).steps {
        apply(observed, &step, target);
    }
    assert_eq!(plan(target, observed).steps, vec![], "a second pass has work");
}

fn others(observed: &Observed) -> Observed {
    let mut others = observed.clone();
    others.links.retain(|name, link| !link.is_ours(name) && name != "eth1");
    Observed { links: others.links, ..Observed::default() }
}

#[derive(Debug, Clone)]
struct NetworkChoice {
    uplink: u8,
    vni_shift: u32,
    mtu: u16,
    peers: u8,
    /// If it can be one.
    wire: bool,
}

/// Which port or network is watched, by what.
#[derive(Debug, Clone)]
struct MirrorChoice {
    from: u8,
    to: u8,
    what: usize,
}

#[derive(Debug, Clone)]
struct PortChoice {
    rate: u8,
    network: usize,
    address: u8,
    routes: bool,
    held: bool,
    accept: Vec<(bool, u8, u8)>,
}

fn accept(choice: &(bool, u8, u8)) -> Accept {
    let remotes: [Option<&str>; 4] = [None, Some("10.0.0.0/8"), Some("10.1.0.0/16"), Some("fd00::/8")];
    let remote: Option<IpNet> = remotes[usize::from(choice.1 % 4)].map(|r| r.parse().unwrap());
    Accept {
        direction: if choice.0 { Direction::FromGuest } else { Direction::ToGuest },
        remote,
        protocol: match choice.2 {
            0 => Protocol::Any,
            1 => Protocol::Icmp,
            2 => Protocol::Tcp { listen_port: 80 },
            _ => Protocol::Udp { listen_port: 53 },
        },
    }
}

fn document(networks: &[Option<NetworkChoice>], ports: &[Option<PortChoice>]) -> Desired {
    let mut desired = Desired { generation: Generation(1), ..Desired::default() };
    for (i, choice) in networks.iter().enumerate() {
        let Some(choice) = choice else { continue };
        let index = u32::try_from(i).unwrap();
        let uplink = match choice.uplink {
            0 => Uplink::None,
            1 => Uplink::Site { site: SiteName::new("lab").unwrap() },
            2 => Uplink::Vlan {
                trunk: "core".to_owned(),
                vid: u16::try_from(100 + (index + choice.vni_shift) % 4 + 10 * choice.vni_shift).unwrap(),
                link: format!("cv{i}"),
            },
            _ => Uplink::Vxlan {
                // Two documents may swap identifiers between links.
                vni: 100 + (index + choice.vni_shift) % 4 + 10 * choice.vni_shift,
                link: format!("cx{i}"),
                peers: (0..3u8)
                    .filter(|bit| choice.peers & (1 << bit) != 0)
                    .map(|bit| format!("192.0.2.{}", 10 + bit).parse().unwrap())
                    .collect(),
            },
        };
        let ports = ports
            .iter()
            .enumerate()
            .filter_map(|(p, port)| Some((p, port.as_ref().filter(|port| port.network == i)?)))
            .map(|(p, port)| Port {
                addresses: vec![format!("10.0.{p}.{}", port.address).parse().unwrap()],
                routes: port.routes,
                held: port.held,
                accept: port.accept.iter().map(accept).collect(),
                rate: (port.rate > 0).then(|| Rate {
                    from_guest_bits: (port.rate & 1 != 0).then_some(1_000_000 * u64::from(port.rate)),
                    to_guest_bits: (port.rate & 2 != 0).then_some(2_000_000),
                }),
                ..Port::closed(
                    format!("office/m{p}/eth0"),
                    format!("ct{p}"),
                    MacAddress([2, 0, 0, 0, 0, u8::try_from(p).unwrap()]),
                )
            })
            .collect::<Vec<Port>>();
        let ends = ports.len() + usize::from(choice.uplink > 2);
        desired.networks.push(Network {
            wire: choice.wire && ends <= 2 && (choice.uplink == 0 || choice.uplink > 2),
            id: format!("office/n{i}"),
            bridge: format!("cb{i}"),
            mtu: choice.mtu,
            router: (choice.peers & 4 != 0 && choice.uplink != 1).then(|| router(i, choice)),
            uplink,
            ports,
            ..Network::default()
        });
    }
    desired
}

fn router(i: usize, choice: &NetworkChoice) -> Router {
    let mac = |kind| MacAddress([2, 0, 0, 1, kind, u8::try_from(i).unwrap()]);
    let outside = (choice.peers & 2 != 0).then(|| Outside {
        site: SiteName::new("lab").unwrap(),
        link: format!("co{i}"),
        mac: mac(1),
        addresses: vec![format!("198.51.100.{}/24", i + 10).parse().unwrap()],
        gateways: vec![format!("198.51.100.{}", choice.vni_shift + 1).parse().unwrap()],
        nat: choice.vni_shift == 1,
        published: Vec::new(),
    });
    Router {
        link: format!("cr{i}"),
        elsewhere: choice.peers & 7 == 7,
        mac: mac(choice.peers & 1),
        addresses: vec!["10.0.9.1/24".parse().unwrap(), format!("fd00:{i}::1/64").parse().unwrap()],
        dhcp: None,
        dns: (choice.vni_shift < 2).then(|| Dns { domain: "office.test".to_owned(), forward: Vec::new() }),
        advertises: choice.vni_shift == 0,
        outside,
    }
}

fn add_mirrors(desired: &mut Desired, choices: &[MirrorChoice]) {
    let tunnel = |number: u32| MirrorTunnel {
        vni: 900 + number,
        link: format!("cxm{number}"),
        peer: "192.0.2.10".parse().unwrap(),
    };
    for (i, choice) in choices.iter().enumerate() {
        let ports: Vec<&Port> = desired.networks.iter().flat_map(|n| &n.ports).collect();
        let from = match choice.from {
            0 => ports.get(choice.what).map(|port| MirrorFrom::Port { tap: port.tap.clone() }),
            1 => desired.networks.get(choice.what).map(|n| MirrorFrom::Network { id: n.id.clone() }),
            _ => Some(MirrorFrom::Tunnel(tunnel(choice.what.try_into().unwrap()))),
        };
        let Some(from) = from else { continue };
        let to = if choice.to == 0 && choice.from < 2 {
            MirrorTo::Tunnel(tunnel(10 + u32::try_from(i).unwrap()))
        } else {
            let watcher = Watcher {
                id: format!("office/w{}/eth0", choice.to),
                tap: format!("ctw{}", choice.to),
                mtu: 1450,
            };
            let to = MirrorTo::Watcher { tap: watcher.tap.clone() };
            if !desired.watchers.contains(&watcher) {
                desired.watchers.push(watcher);
            }
            to
        };
        let id = format!("office/w{}/eth0", choice.to);
        let mirror = Mirror { id, from, to };
        if !desired.mirrors.contains(&mirror) {
            desired.mirrors.push(mirror);
        }
    }
}

fn documents() -> impl Strategy<Value = Desired> {
    let network = (0..5u8, 0..3u32, prop_oneof![Just(1450u16), Just(1400)], 0..8u8, any::<bool>()).prop_map(
        |(uplink, vni_shift, mtu, peers, wire)| NetworkChoice { uplink, vni_shift, mtu, peers, wire },
    );
    let port = (
        0..4u8,
        0..4usize,
        1..3u8,
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec((any::<bool>(), 0..4u8, 0..4u8), 0..4),
    )
        .prop_map(|(rate, network, address, routes, held, accept)| PortChoice {
            rate,
            network,
            address,
            routes,
            held,
            accept,
        });
    let networks = prop::collection::vec(prop::option::of(network), 4);
    let ports = prop::collection::vec(prop::option::of(port), 6);
    let mirror = (0..3u8, 0..3u8, 0..4usize).prop_map(|(from, to, what)| MirrorChoice { from, to, what });
    let mirrors = prop::collection::vec(mirror, 0..4);
    (networks, ports, mirrors)
        .prop_map(|(networks, ports, mirrors)| {
            let mut desired = document(&networks, &ports);
            add_mirrors(&mut desired, &mirrors);
            desired
        })
        .prop_filter("two networks drew one vni", |desired| Target::new(desired, &host()).is_ok())
}

proptest! {
    #[test]
    fn any_document_follows_any_other_from_any_step(
        first in documents(), second in documents(), eth1_up: bool, stop in 0..200usize,
    ) {
        let (first, second) = (Target::new(&first, &host()).unwrap(), Target::new(&second, &host()).unwrap());
        let mut observed = machine(eth1_up);
        let before = others(&observed);
        converge(&mut observed, &first);
        // Killed after any step, then asked for the other document, then back.
        for step in plan(&second, &observed).steps.iter().take(stop) {
            apply(&mut observed, step, &second);
        }
        converge(&mut observed, &first);
        converge(&mut observed, &second);
        prop_assert_eq!(others(&observed), before);
    }

    #[test]
    fn an_empty_document_leaves_the_machine_as_found(desired in documents(), eth1_up: bool, stop in 0..200usize) {
        let target = Target::new(&desired, &host()).unwrap();
        let found = Observed { bridge_netfilter: false, ..machine(eth1_up) };
        let mut observed = found.clone();
        for step in plan(&target, &observed).steps.iter().take(stop) {
            apply(&mut observed, step, &target);
        }
        converge(&mut observed, &Target::default());
        observed.counters.clear();
        prop_assert_eq!(observed, found);
    }

    #[test]
    fn drift_of_any_link_is_repaired(desired in documents(), victim in any::<prop::sample::Index>(), how in 0..6u8) {
        let target = Target::new(&desired, &host()).unwrap();
        let mut observed = machine(true);
        converge(&mut observed, &target);
        let wanted = observed.clone();
        let names: Vec<String> = observed.ours().map(|(name, _)| name.clone()).collect();
        prop_assume!(!names.is_empty());
        let name = victim.get(&names);
        let link = observed.links.get_mut(name).unwrap();
        match how {
            0 => link.up = false,
            1 => link.mtu = 1280,
            2 => link.master = Some("docker0".to_owned()),
            3 => link.ipv6 = true,
            4 => apply(&mut observed, &Step::Delete { link: name.clone() }, &target),
            _ => observed.rules = ObservedRules::Altered,
        }
        if how == 2 && matches!(observed.links[name].kind, LinkKind::Bridge { .. }) {
            return Ok(());
        }
        converge(&mut observed, &target);
        prop_assert_eq!(observed, wanted);
    }
}

proptest! {
    #[test]
    fn a_guest_that_arrives_is_announced_though_netd_is_stopped_at_any_step(
        first in documents(), second in documents(), stop in 0..200usize,
    ) {
        let (first, second) = (Target::new(&first, &host()).unwrap(), Target::new(&second, &host()).unwrap());
        let mut observed = machine(true);
        converge(&mut observed, &first);
        for (_, tap) in observed.links.iter_mut().filter(|(_, l)| l.kind == LinkKind::Tap) {
            tap.carrier = true;
        }
        let before = observed.clone();
        let mut told = BTreeSet::new();
        for passes in [stop, usize::MAX] {
            for step in plan(&second, &observed).steps.iter().take(passes) {
                apply(&mut observed, step, &second);
                match step {
                    Step::Announce { link, .. } => drop(told.insert(link.clone())),
                    Step::Attach { link, .. } => drop(told.remove(link)),
                    _ => {}
                }
            }
        }
        for (name, tap) in second.taps.iter().filter(|(_, t)| !t.held) {
            let found = before.links.get(name).filter(|l| l.is_ours(name));
            let stayed = found.is_none_or(|l| l.master.as_ref() == Some(&tap.bridge));
            let stayed = stayed || tap.announcement.is_none();
            prop_assert!(stayed || told.contains(name), "{name} was not announced");
            prop_assert_eq!(observed.links[name].alias.as_ref(), Some(&tap.alias));
        }
    }

    #[test]
    fn a_held_port_is_never_attached_up_or_ruled(first in documents(), second in documents()) {
        let (first, second) = (Target::new(&first, &host()).unwrap(), Target::new(&second, &host()).unwrap());
        let mut observed = machine(true);
        converge(&mut observed, &first);
        // What the step before found may still be there; once closed it stays closed.
        let mut closed = BTreeSet::new();
        for step in plan(&second, &observed).steps {
            apply(&mut observed, &step, &second);
            for name in second.taps.iter().filter(|(_, t)| t.held).map(|(n, _)| n) {
                let open = observed.links.get(name).is_some_and(|l| l.up || l.master.is_some());
                prop_assert!(!(open && closed.contains(name)), "{name} was opened by {step}");
                if !open {
                    closed.insert(name.clone());
                }
            }
        }
        let ruled = second.rules.map(|rules| rules.elements).unwrap_or_default();
        for name in second.taps.iter().filter(|(_, t)| t.held).map(|(n, _)| n) {
            prop_assert!(closed.contains(name));
            prop_assert!(!ruled.contains(&(Set::Ports, Element::Link(name.clone()))));
        }
    }
}

proptest! {
    #[test]
    fn a_port_that_moves_is_cut_off_only_while_the_rules_change(first in documents(), second in documents()) {
        let (first, second) = (Target::new(&first, &host()).unwrap(), Target::new(&second, &host()).unwrap());
        let mut observed = machine(true);
        converge(&mut observed, &first);
        let steps = plan(&second, &observed).steps;
        for (name, tap) in second.taps.iter().filter(|(_, t)| !t.held) {
            let Some(found) = observed.links.get(name).filter(|l| l.is_ours(name)) else { continue };
            if found.master.as_ref().is_none_or(|bridge| *bridge == tap.bridge) {
                continue;
            }
            let at = |wanted: &Step| steps.iter().position(|step| step == wanted);
            let attached = at(&Step::Attach { link: name.clone(), bridge: tap.bridge.clone() }).unwrap();
            let down = at(&Step::Down { link: name.clone() });
            prop_assert!(down.is_some(), "{name} moves open");
            let begin = down.unwrap_or(attached);
            let end = at(&Step::Up { link: name.clone() }).unwrap_or(attached);
            let brief = |step: &Step| match step {
                Step::Name { link, .. } => second.taps.contains_key(link),
                Step::Down { .. } | Step::Detach { .. } | Step::Attach { .. } | Step::Up { .. } => true,
                Step::Release { .. } => true,
                step => is_rules(step),
            };
            for step in &steps[begin..=end] {
                prop_assert!(brief(step), "{name} waits for {step}");
            }
            prop_assert_eq!(at(&Step::Detach { link: name.clone() }), None);
        }
    }
}

fn is_rules(step: &Step) -> bool {
    matches!(step, Step::AmendRules { .. } | Step::ReplaceRules { .. })
}

/// A proxy with two taps: its outer one takes over the port's identity, its inner one is the other end of a wire.
fn interposed(spliced: bool) -> Desired {
    let port = |number: u8, tap: &str| Port {
        addresses: vec![format!("10.0.0.{number}").parse().unwrap()],
        ..Port::closed(format!("office/{tap}/eth0"), tap.to_owned(), MacAddress([2, 0, 0, 0, 0, number]))
    };
    let guest = port(1, "ct-guest");
    let inner = Port { addresses: Vec::new(), ..port(9, "ct-inner") };
    let outer = if spliced {
        port(1, "ct-outer")
    } else {
        Port { held: true, addresses: Vec::new(), ..port(8, "ct-outer") }
    };
    let network = |id: &str, ports| Network {
        id: format!("office/{id}"),
        bridge: format!("cb-{id}"),
        mtu: 1450,
        ports,
        ..Network::default()
    };
    let (inside, wire) = if spliced {
        (vec![outer, port(2, "ct-other")], vec![guest, inner])
    } else {
        (vec![guest, port(2, "ct-other"), outer], vec![inner])
    };
    let mut networks = vec![network("inside", inside), network("wire", wire)];
    networks[1].wire = true;
    Desired { generation: Generation(1), networks, ..Desired::default() }
}

#[test]
fn a_splice_reads_in_order() {
    let mut observed = machine(true);
    let [before, after] = [false, true].map(|spliced| Target::new(&interposed(spliced), &host()).unwrap());
    converge(&mut observed, &before);
    observed.links.get_mut("ct-guest").unwrap().carrier = true;
    let read = |steps: &[Step]| steps.iter().map(Step::to_string).collect::<Vec<_>>().join("\n");
    let there = plan(&after, &observed).steps;
    for step in &there {
        apply(&mut observed, step, &after);
    }
    let back = plan(&before, &observed).steps;
    insta::assert_snapshot!(format!("{}\n\nand back:\n{}", read(&there), read(&back)));
}

#[test]
fn a_vlan_that_cannot_be_is_refused_by_name_and_the_rest_goes_on() {
    let mut desired = small();
    desired.networks[0].uplink = Uplink::Vlan { trunk: "core".into(), vid: 100, link: "cv0".into() };
    let target = Target::new(&desired, &host()).unwrap();
    let check = |edit: &dyn Fn(&mut Observed), part: &str| {
        let mut observed = machine(true);
        edit(&mut observed);
        let before = observed.links.get("eth2").cloned();
        for step in plan(&target, &observed).steps {
            apply(&mut observed, &step, &target);
        }
        let again = plan(&target, &observed);
        assert_eq!(again.steps, vec![]);
        assert!(again.refusals.len() == 1 && again.refusals[0].contains(part), "{:?}", again.refusals);
        assert_eq!(observed.links.get("eth2").cloned(), before);
        let status = networks_status(&desired, &host(), &observed);
        assert!(!status[0].up && status[1].up && status[1].ports[0].ready);
    };
    check(&|o| drop(o.links.remove("eth2")), "its trunk eth2 does not exist");
    check(&|o| o.links.get_mut("eth2").unwrap().mtu = 1400, "mtu 1450 does not fit eth2, which has 1400");
    check(&|o| o.links.get_mut("eth2").unwrap().master = Some("docker0".into()), "attached to docker0");
    let twin = || link(LinkKind::Vlan { vid: 100, parent: "eth2".into() });
    check(&|o| drop(o.links.insert("eth2.100".into(), twin())), "eth2.100 has it on eth2 already");
    // Its own link was made on a trunk that was replaced since.
    check(&|o| drop(o.links.insert("cv0".into(), twin())), "link cv0 exists without netd's mark");
}

#[test]
fn a_trunk_is_brought_up_and_otherwise_stays_as_it_is() {
    let mut desired = small();
    desired.networks[0].uplink = Uplink::Vlan { trunk: "core".into(), vid: 100, link: "cv0".into() };
    let mut observed = machine(true);
    observed.links.get_mut("eth2").unwrap().up = false;
    let found = observed.links["eth2"].clone();
    converge(&mut observed, &Target::new(&desired, &host()).unwrap());
    assert_eq!(observed.links["eth2"], Link { up: true, ..found });
    desired.networks[0].uplink = Uplink::Vlan { trunk: "core".into(), vid: 101, link: "cv0".into() };
    converge(&mut observed, &Target::new(&desired, &host()).unwrap());
    assert_eq!(observed.links["cv0"].kind, LinkKind::Vlan { vid: 101, parent: "eth2".into() });
}

#[test]
fn an_underlay_too_narrow_for_a_tunnel_is_reported() {
    let mut observed = machine(true);
    observed.addresses.insert("192.0.2.1".parse().unwrap(), "eth0".to_owned());
    let target = Target::new(&small(), &host()).unwrap();
    converge(&mut observed, &target);
    assert_eq!(plan(&target, &observed).refusals, Vec::<String>::new());
    observed.links.get_mut("eth0").unwrap().mtu = 1499;
    let refusals = plan(&target, &observed).refusals;
    assert_eq!(
        refusals,
        [
            "tunnel cx1 (and 1 more): mtu 1450 needs 1500 bytes of eth0, which holds 192.0.2.1 and has 1499; raise \
          that or lower this"
        ]
    );
    let six = Host { underlay: Some("2001:db8::1".parse().unwrap()), ..host() };
    let mut desired = small();
    for network in &mut desired.networks {
        let Uplink::Vxlan { peers, .. } = &mut network.uplink else { panic!() };
        *peers = vec!["2001:db8::2".parse().unwrap()];
    }
    observed.links.get_mut("eth0").unwrap().mtu = 1500;
    observed.addresses.insert("2001:db8::1".parse().unwrap(), "eth0".to_owned());
    let refusals = plan(&Target::new(&desired, &six).unwrap(), &observed).refusals;
    assert!(refusals[0].contains("needs 1520 bytes of eth0"), "{refusals:?}");
}

fn small() -> Desired {
    let network = Some(NetworkChoice { uplink: 3, vni_shift: 0, mtu: 1450, peers: 1, wire: false });
    let port = |network| {
        Some(PortChoice {
            rate: 0,
            network,
            address: 1,
            routes: false,
            held: false,
            accept: vec![(false, 0, 2)],
        })
    };
    document(&[network.clone(), network], &[port(0), port(1)])
}

#[test]
fn a_plan_reads_in_order() {
    let target = Target::new(&small(), &host()).unwrap();
    let steps: Vec<String> = plan(&target, &Observed::default()).steps.iter().map(Step::to_string).collect();
    insta::assert_snapshot!(steps.join("\n"));
}

#[test]
fn a_foreign_link_under_our_name_is_reported_and_the_rest_goes_on() {
    let target = Target::new(&small(), &host()).unwrap();
    let mut observed = machine(false);
    observed.links.insert("ct0".to_owned(), link(LinkKind::Tap));
    for step in plan(&target, &observed).steps {
        apply(&mut observed, &step, &target);
    }
    let again = plan(&target, &observed);
    assert_eq!(again.steps, vec![]);
    assert_eq!(again.conflicts.len(), 1, "{:?}", again.conflicts);
    assert_eq!(observed.links["ct0"], link(LinkKind::Tap));
    let status = networks_status(&small(), &host(), &observed);
    assert!(!status[0].ports[0].ready);
    assert!(status[1].ports[0].ready);
}

#[test]
fn a_stranger_on_our_bridge_is_reported_and_left_alone() {
    let target = Target::new(&small(), &host()).unwrap();
    let mut observed = machine(false);
    converge(&mut observed, &target);
    observed.links.get_mut("veth7").unwrap().master = Some("cb0".to_owned());
    let plan = plan(&target, &observed);
    assert_eq!(plan.steps, vec![]);
    assert!(plan.conflicts[0].contains("veth7"), "{:?}", plan.conflicts);
}

#[test]
fn a_site_link_with_addresses_is_refused() {
    let mut desired = small();
    desired.networks[0].uplink = Uplink::Site { site: SiteName::new("lab").unwrap() };
    let target = Target::new(&desired, &host()).unwrap();
    let mut observed = machine(true);
    observed.links.get_mut("eth1").unwrap().addressed = true;
    let plan = plan(&target, &observed);
    assert!(plan.refusals[0].contains("carries IP addresses"), "{:?}", plan.refusals);
    assert!(!plan.steps.iter().any(|s| s.to_string().contains("eth1") && !matches!(s, Step::Name { .. })));
}

#[test]
fn two_deployments_share_one_bridge_per_site() {
    let mut desired = small();
    for network in &mut desired.networks {
        network.uplink = Uplink::Site { site: SiteName::new("lab").unwrap() };
    }
    desired.networks[0].ports[0].routes = true;
    let target = Target::new(&desired, &host()).unwrap();
    assert_eq!(target.bridges.keys().collect::<Vec<_>>(), ["cbs-lab"]);
    let rules = target.rules.unwrap();
    assert!(!rules.elements.contains(&(Set::Routers, Element::Link("ct0".to_owned()))));
    let mut observed = machine(false);
    let target = Target::new(&desired, &host()).unwrap();
    converge(&mut observed, &target);
    desired.networks.pop();
    converge(&mut observed, &Target::new(&desired, &host()).unwrap());
    assert_eq!(observed.links["eth1"].master.as_deref(), Some("cbs-lab"));
    converge(&mut observed, &Target::default());
    assert_eq!(observed.links["eth1"], machine(false).links["eth1"]);
}

#[test]
fn a_bad_document_gets_one_error_that_says_what_to_do() {
    let check = |edit: &dyn Fn(&mut Desired), part: &str| {
        let mut desired = small();
        edit(&mut desired);
        let error = Target::new(&desired, &host()).expect_err(part).to_string();
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    };
    check(&|d| d.networks[0].bridge = "br0".into(), "does not begin with cb");
    check(&|d| d.networks[0].bridge = "cb".into(), "does not begin with cb");
    check(&|d| d.networks[0].bridge = "cb0123456789abcd".into(), "longer than 15 bytes");
    check(&|d| d.networks[0].bridge = "cb\"; x".into(), "other characters");
    check(&|d| d.networks[0].bridge = "cbs-x".into(), "keeps for sites");
    check(&|d| d.networks[1].bridge = "cb0".into(), "bridge cb0 is already used by network office/n0");
    check(&|d| d.networks[1].id = "office/n0".into(), "network id");
    check(&|d| d.networks[0].mtu = 575, "576 to 65521");
    check(&|d| d.networks[0].ports[0].tap = "tap0".into(), "does not begin with ct");
    check(&|d| d.networks[1].ports[0].tap = "ct0".into(), "tap ct0 is already used");
    check(&|d| d.networks[1].ports[0].id = d.networks[0].ports[0].id.clone(), "port id");
    check(&|d| d.networks[0].ports[0].addresses = vec!["224.0.0.1".parse().unwrap()], "no unicast address");
    check(
        &|d| d.networks[0].ports[0].accept[0].protocol = Protocol::Udp { listen_port: 0 },
        "listen_port 0 cannot be opened",
    );
    let vxlan = |d: &mut Desired, new_vni: u32, peer: &str| {
        let Uplink::Vxlan { vni, peers, .. } = &mut d.networks[1].uplink else { panic!() };
        *vni = new_vni;
        *peers = vec![peer.parse().unwrap()];
    };
    check(&|d| vxlan(d, 0, "192.0.2.9"), "vni 0 is out of range");
    check(&|d| vxlan(d, 1 << 24, "192.0.2.9"), "out of range");
    check(&|d| vxlan(d, 100, "192.0.2.9"), "vni 100 is already used");
    check(&|d| vxlan(d, 9, "192.0.2.1"), "is this host itself");
    check(&|d| vxlan(d, 9, "fd00::1"), "another IP version");
    check(
        &|d| d.networks[0].uplink = Uplink::Site { site: SiteName::new("x").unwrap() },
        "no link is granted",
    );
    check(
        &|d| {
            let twin = Port { id: "t".into(), tap: "ctt".into(), ..d.networks[0].ports[0].clone() };
            d.networks[0].ports.push(twin);
        },
        "mac 02:00:00:00:00:00 is already used",
    );
    // The same MAC and address on two networks are two different guests.
    let mut desired = small();
    desired.networks[1].ports[0].mac = desired.networks[0].ports[0].mac;
    desired.networks[1].ports[0].addresses = desired.networks[0].ports[0].addresses.clone();
    Target::new(&desired, &host()).unwrap();
}
