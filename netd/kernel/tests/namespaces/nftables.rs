//! The tables over netlink: what is written is what is read, and whatever others do to them is found.

use crate::frames::{ACK, SYN, SYN_ACK, echo, ipv4, ipv6, tcp, udp};
use crate::namespace::Namespace;
use crate::world::{World, from_guest, mac, network, open, port, talker, to_guest};
use netd_api::{Accept, Counter, Direction, Port, Protocol, RuleStatus, Uplink};
use netd_plan::{Host, Observed, ObservedFlows, ObservedRules, Plan, Rules, Step, Target, flows};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Kernels, and the `nft` that compiles the chains, are slow to start: few cases of many elements.
const CASES: u32 = 24;

fn accepts() -> impl Strategy<Value = Vec<Accept>> {
    let net = prop_oneof![
        Just(None),
        (any::<u32>(), 0..=32u8)
            .prop_map(|(a, len)| Some(ipnet::Ipv4Net::new(a.into(), len).unwrap().into())),
        (any::<u128>(), 0..=128u8)
            .prop_map(|(a, len)| Some(ipnet::Ipv6Net::new(a.into(), len).unwrap().into())),
    ];
    let protocol = prop_oneof![
        Just(Protocol::Any),
        Just(Protocol::Icmp),
        (1..u16::MAX).prop_map(|listen_port| Protocol::Tcp { listen_port }),
        (1..u16::MAX).prop_map(|listen_port| Protocol::Udp { listen_port }),
    ];
    let accept = (any::<bool>(), net, protocol).prop_map(|(from, remote, protocol)| Accept {
        direction: if from { Direction::FromGuest } else { Direction::ToGuest },
        remote,
        protocol,
    });
    prop::collection::vec(accept, 0..12)
}

/// The rules of a document with such ports; of two on a wire, too.
fn rules() -> impl Strategy<Value = Rules> {
    prop::collection::vec((accepts(), any::<bool>()), 0..8).prop_map(|ports| {
        let mut world = Vec::new();
        let mut wire = network("cb2", Uplink::None, vec![port(100, vec![]), port(101, vec![])]);
        wire.wire = true;
        let ports = (1u8..).zip(ports).map(|(n, (accept, routes))| Port { routes, ..port(n, accept) });
        world.push(network("cb1", Uplink::None, ports.collect()));
        world.push(wire);
        let desired = netd_api::Desired { networks: world, ..netd_api::Desired::default() };
        Target::new(&desired, &Host::default()).unwrap().rules.unwrap()
    })
}

fn apply(namespace: &Namespace, step: Step) {
    namespace.run(move |runtime, kernel| runtime.block_on(kernel.apply_step(&step))).unwrap();
}

fn observe(namespace: &Namespace) -> Observed {
    namespace.run(|runtime, kernel| runtime.block_on(kernel.observe())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_what_is_read(first in rules(), second in rules(), count in 1..u64::from(u32::MAX)) {
        let namespace = Namespace::new();
        let used: BTreeMap<_, _> = first
            .elements
            .iter()
            .filter(|(_, e)| matches!(e, netd_plan::Element::Remote(..) | netd_plan::Element::Service(..)))
            .map(|entry| (entry.clone(), Counter { frames: count, bytes: count * 60 }))
            .collect();
        let replace = Step::ReplaceRules { rules: first.clone(), counters: BTreeMap::new(), used: used.clone() };
        apply(&namespace, replace);
        let observed = observe(&namespace);
        prop_assert_eq!(&observed.rules, &ObservedRules::Intact(first.clone()));
        prop_assert_eq!(observed.used, used);
        apply(&namespace, Step::AmendRules {
            remove: first.elements.difference(&second.elements).cloned().collect(),
            add: second.elements.difference(&first.elements).cloned().collect(),
        });
        prop_assert_eq!(observe(&namespace).rules, ObservedRules::Intact(second));
        apply(&namespace, Step::RemoveRules);
        prop_assert_eq!(observe(&namespace).rules, ObservedRules::Absent);
    }
}

/// Two ports that speak: everybody may open everything, and whoever is asked says so.
fn speakers() -> World {
    World::with(vec![network("cb1", Uplink::None, vec![port(1, open()), port(2, open())])])
}

#[test]
fn whatever_others_do_to_the_tables_is_found_and_repaired() {
    let mut world = speakers();
    world.desired.networks[0].flows = true;
    let web = to_guest(Protocol::Tcp { listen_port: 80 });
    world.desired.networks[0].ports[1].accept.push(Accept { remote: "10.9.0.0/16".parse().ok(), ..web });
    world.converge();
    for damage in [
        "nft flush ruleset",
        "nft delete table bridge collective",
        "nft delete table bridge collective_flows",
        "nft add chain bridge collective theirs",
        "nft add set bridge collective theirs '{ type ifname; }'",
        "nft add map bridge collective theirs '{ type ifname : verdict; }'",
        "nft 'add table bridge collective { flags dormant; }'",
        "nft 'add chain bridge collective theirs { type filter hook forward priority -300; policy accept; }'",
        "nft add rule bridge collective close_to accept",
        "nft insert rule bridge collective forward accept",
        "nft flush chain bridge collective forward",
        "nft flush set bridge collective ports",
        "nft flush set bridge collective any4_from_all",
        "nft delete element bridge collective passed_to '{ \"ct2\" }'",
        "nft flush set bridge collective open4_to_16",
        "nft flush set bridge collective open4_to_some",
        // A prefix, and one that no packet is compared with.
        "nft add element bridge collective open4_to_24 '{ \"ct2\" . 10.20.0.0 . 6 . 80 }'",
        "nft add element bridge collective open4_to_24 '{ \"ct2\" . 10.20.0.5 . 6 . 80 }'",
        "nft add element bridge collective any4_to_some '{ \"ct1\" }'",
        "nft add element bridge collective open6_from_fine '{ \"ct1\" . 6 . 80 }'",
        "nft flush chain bridge collective to_open4_to",
        "nft add element bridge collective uplinks '{ \"eth7\" }'",
        "nft delete element bridge collective_flows observed '{ \"ct1\" }'",
        "nft flush chain bridge collective_flows forward",
    ] {
        world.namespace.shell(damage);
        assert_ne!(world.plan(), Plan::default(), "{damage} is not seen");
        world.converge();
        let observed = world.observe();
        assert!(matches!(observed.rules, ObservedRules::Intact(_)), "{damage}: {:?}", observed.rules);
        let listing = world.namespace.shell("nft list ruleset");
        assert!(!listing.contains("theirs") && !listing.contains("dormant"), "{damage}: {listing}");
    }
}

/// Of prefixes on every ladder, too: people keep rulesets as text.
#[test]
fn nft_reads_what_it_lists_of_our_tables() {
    let remotes = ["10.9.0.0/17", "fd00::/64", "fd00::/9", "fd00::/99"];
    let rules = [Protocol::Any, Protocol::Icmp, Protocol::Tcp { listen_port: 80 }];
    let accept = remotes.iter().flat_map(|remote| {
        rules.iter().map(|rule| Accept { remote: Some(remote.parse().unwrap()), ..to_guest(rule.clone()) })
    });
    let world = World::with(vec![network("cb1", Uplink::None, vec![port(1, accept.collect())])]);
    // A refusal is a failure.
    world.namespace.shell("nft list ruleset | sed '1i flush ruleset' | nft -f -");
    let listed = world.namespace.shell("nft list ruleset");
    for set in ["any4_to_20", "echo6_to_64", "open6_to_12", "open6_to_100"] {
        assert!(listed.contains(set), "no {set}");
    }
    world.converge();
}

#[test]
fn counters_of_ports_and_permissions_outlive_a_replaced_table() {
    let world = speakers();
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    let frame = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(1000, 80, SYN));
    for _ in 0..3 {
        one.send(&frame);
        two.wait_for(&frame);
    }
    let before = (world.port("ct1"), world.port("ct2"));
    assert_eq!(before.0.from_guest, Counter { frames: 3, bytes: 3 * frame.len() as u64 });
    assert_eq!(before.0.rules[0].counter, before.0.from_guest);
    assert_eq!(before.1.rules[0].counter, before.0.from_guest);
    world.namespace.shell("nft insert rule bridge collective forward accept");
    assert_eq!(world.observe().rules, ObservedRules::Altered);
    world.converge();
    assert_eq!((world.port("ct1"), world.port("ct2")), before);
}

#[test]
fn a_permission_counts_what_it_let_through_and_nothing_else() {
    let from =
        |protocol, remote: &str| Accept { remote: Some(remote.parse().unwrap()), ..from_guest(protocol) };
    let web = Protocol::Tcp { listen_port: 80 };
    let accept = vec![
        from(web.clone(), "10.0.0.2/32"),
        from(web.clone(), "10.0.0.0/24"),
        from_guest(Protocol::Icmp),
        to_guest(Protocol::Udp { listen_port: 53 }),
        from_guest(Protocol::Tcp { listen_port: 443 }),
    ];
    let world =
        World::with(vec![network("cb1", Uplink::None, vec![port(1, accept.clone()), port(2, open())])]);
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    let out = |protocol, payload: &[u8]| ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", protocol, payload);
    let back = |protocol, payload: &[u8]| ipv4(mac(1), mac(2), "10.0.0.2", "10.0.0.1", protocol, payload);
    let passes = [
        (&one, &two, out(6, &tcp(9, 80, SYN))),
        (&two, &one, back(6, &tcp(80, 9, SYN_ACK))),
        (&one, &two, out(6, &tcp(9, 80, ACK))),
        (&one, &two, out(1, &echo(8))),
        (&two, &one, back(1, &echo(0))),
        (&two, &one, back(17, &udp(9, 53))),
        (&one, &two, ipv6(mac(2), mac(1), "fd00::1", "fd00::2", 6, &tcp(9, 443, SYN))),
    ];
    let drops = [out(6, &tcp(9, 81, SYN)), out(6, &tcp(53, 9, SYN)), out(17, &udp(9, 53))];
    for frame in &drops {
        one.send(frame);
    }
    for (sender, receiver, frame) in &passes {
        sender.send(frame);
        assert_eq!(receiver.wait_for(frame), Vec::<Vec<u8>>::new());
    }
    let status = world.port("ct1");
    let frames: Vec<(Accept, u64)> =
        status.rules.iter().map(|RuleStatus { accept, counter }| (accept.clone(), counter.frames)).collect();
    // The address is inside of the prefix: one element of the kernel serves both, and both say what it counted.
    let wanted: Vec<(Accept, u64)> = accept.into_iter().zip([3, 3, 2, 1, 1]).collect();
    assert_eq!(frames, wanted);
    let sum: u64 = [3, 2, 1, 1].iter().sum();
    assert_eq!(status.from_guest.frames + status.to_guest.frames, sum);
    assert_eq!(status.dropped_from_guest.frames, drops.len() as u64);
}

#[test]
fn conversations_of_observed_ports_are_counted_and_nobody_elses() {
    let mut world = speakers();
    let quiet = network("cb2", Uplink::None, vec![port(3, open()), port(4, talker())]);
    world.desired.networks[0].flows = true;
    world.desired.networks[0].ports[1].accept = vec![to_guest(Protocol::Tcp { listen_port: 80 })];
    world.desired.networks.push(quiet);
    world.converge();
    let guests: Vec<_> = (1..=4).map(|n| world.guest(&format!("ct{n}"))).collect();
    let syn = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(1000, 80, SYN));
    let six = ipv6(mac(2), mac(1), "fd00::1", "fd00::2", 6, &tcp(1001, 80, SYN));
    let refused = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 1, &echo(8));
    let elsewhere = ipv4(mac(3), mac(4), "10.0.0.4", "10.0.0.3", 6, &tcp(1, 2, SYN));
    guests[0].send(&refused);
    guests[3].send(&elsewhere);
    guests[2].wait_for(&elsewhere);
    for frame in [&syn, &syn, &six] {
        guests[0].send(frame);
        guests[1].wait_for(frame);
    }
    let heard = world.namespace.run(|runtime, kernel| runtime.block_on(kernel.conversations())).unwrap();
    let heard = flows(&world.desired, heard);
    let told: Vec<_> = heard
        .iter()
        .map(|f| (f.port.as_str(), f.to.to_string(), f.protocol, f.from_port, f.to_port, f.counter.frames))
        .collect();
    let (one, two) = ("office/m1/eth0", "office/m2/eth0");
    let wanted = [
        // It was sent, and passed at the port that sent it; the port it was for refused it.
        (one, "10.0.0.2".to_owned(), 1, 0, 0, 1),
        (one, "10.0.0.2".to_owned(), 6, 1000, 80, 2),
        (one, "fd00::2".to_owned(), 6, 1001, 80, 1),
        (two, "10.0.0.2".to_owned(), 6, 1000, 80, 2),
        (two, "fd00::2".to_owned(), 6, 1001, 80, 1),
    ];
    assert_eq!(told, wanted);
    assert_eq!(heard[1].counter.bytes, 2 * syn.len() as u64);
    assert!(heard.iter().all(|flow| flow.idle_seconds < 60), "{heard:?}");
    world.desired.networks[0].flows = false;
    world.converge();
    assert_eq!(world.observe().flows, ObservedFlows::Absent);
}

#[test]
fn the_generation_tells_of_our_commits_and_of_every_other() {
    let mut world = speakers();
    let as_left = |world: &World| {
        world.namespace.run(|runtime, kernel| {
            (runtime.block_on(kernel.rules_are_as_left()).unwrap(), kernel.rules_generation())
        })
    };
    let (left, before) = as_left(&world);
    assert!(left && before.is_some());
    world.desired.networks[0].ports.push(port(3, open()));
    world.apply(world.plan());
    let (left, after) = as_left(&world);
    assert!(left && after != before, "a commit of our own is known");
    world.namespace.shell("nft add table ip theirs");
    assert_eq!(as_left(&world), (false, after));
    world.observe();
    assert!(as_left(&world).0);
    world.namespace.shell("nft flush ruleset");
    assert!(!as_left(&world).0);
    // A change that began at an unknown generation leaves an unknown one.
    world.apply(Plan { steps: vec![Step::RemoveRules], ..Plan::default() });
    assert_eq!(as_left(&world), (false, None));
}

#[test]
fn commits_of_others_interrupt_no_reading_and_no_change() {
    let mut world = speakers();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let namespace = world.namespace.run(|_, _| std::fs::File::open("/proc/thread-self/ns/net").unwrap());
    let other = std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut commits = 0;
        while !stopped.load(Ordering::Relaxed) {
            let line = "add table ip theirs; delete table ip theirs";
            let status = std::process::Command::new("nft").arg(line).status().unwrap();
            assert!(status.success());
            commits += 1;
        }
        commits
    });
    for round in 0..50u8 {
        world.desired.networks[0].ports[0].accept = if round % 2 == 0 { talker() } else { open() };
        world.apply(world.plan());
    }
    stop.store(true, Ordering::Relaxed);
    assert!(other.join().unwrap() > 0, "nobody was in the way");
    world.converge();
}
