use crate::frames::{SYN, ipv4, tcp};
use crate::world::{World, mac, network, open, port, talker, to_guest, vxlan};
use netd_api::{Protocol, Uplink};
use netd_plan::{LinkKind, ObservedRules, Plan, Target, plan};

fn office() -> World {
    let mut world = World::new();
    world.desired.networks = vec![
        network("cb1", vxlan(7, &["192.0.2.2", "192.0.2.3"]), vec![port(1, open()), port(2, talker())]),
        network("cb2", Uplink::None, vec![port(3, vec![to_guest(Protocol::Tcp { listen_port: 80 })])]),
    ];
    world
}

#[test]
fn converges_from_nothing_in_one_pass_and_a_second_has_nothing_to_do() {
    let world = office();
    world.converge();
    let observed = world.observe();
    assert_eq!(observed.links["ct1"].kind, LinkKind::Tap);
    assert_eq!(observed.links["ct1"].mtu, 1450);
    assert_eq!(observed.links["cb1"].mtu, 1450);
    assert_eq!(observed.links["cx7"].mtu, 1450);
    assert_eq!(observed.links["cx7"].alias.as_deref(), Some("collective tunnel office/cb1"));
    assert!(!observed.bridge_netfilter);
    let port = world.port("ct1");
    assert!(port.ready && !port.carrier, "{port:?}");
    let guest = world.guest("ct1");
    assert!(world.port("ct1").carrier);
    drop(guest);
    assert!(world.port("ct1").ready, "the tap outlives its guest");
}

#[test]
fn an_empty_document_leaves_nothing_behind() {
    let mut world = office();
    let before = world.observe();
    world.converge();
    world.desired.networks.clear();
    world.converge();
    let mut after = world.observe();
    after.bridge_netfilter = before.bridge_netfilter;
    assert_eq!(after, before);
}

#[test]
fn killed_after_any_step_converges() {
    let mut world = World::new();
    let first = vec![network("cb1", vxlan(7, &["192.0.2.2"]), vec![port(1, open())])];
    // The port moves, the tunnel is renumbered: the hardest change.
    let second = vec![
        network("cb1", vxlan(8, &["192.0.2.3"]), vec![]),
        network("cb2", Uplink::None, vec![port(1, talker())]),
    ];
    for stop in 0.. {
        world.desired.networks.clear();
        world.converge();
        world.desired.networks = first.clone();
        let whole = world.plan();
        let mut part = whole.clone();
        part.steps.truncate(stop);
        world.apply(part);
        world.converge();
        world.desired.networks = second.clone();
        let mut part = world.plan();
        let count = part.steps.len().max(whole.steps.len());
        part.steps.truncate(stop);
        world.apply(part);
        world.converge();
        if stop >= count {
            return;
        }
    }
}

#[test]
fn links_of_others_stay_as_they_are() {
    let mut world = office();
    world.namespace.shell(
        "ip link add br0 type bridge stp_state 1 && ip link add v0 type veth peer name v1 && \
         ip link set v0 master br0 up && ip link set br0 up && ip addr add 203.0.113.1/24 dev br0 && \
         ip link add ct2 type veth peer name other && ip tuntap add ctother mode tap",
    );
    let look = |world: &World| {
        let mut observed = world.observe();
        observed.links.retain(|name, link| !link.is_ours(name));
        observed.links
    };
    let before = look(&world);
    let plan = world.plan();
    assert_eq!(plan.conflicts.len(), 1, "{:?}", plan.conflicts);
    assert!(plan.conflicts[0].contains("ct2"));
    world.apply(plan);
    assert_eq!(world.plan().steps, vec![]);
    assert!(!world.port("ct2").ready);
    assert!(world.port("ct1").ready && world.port("ct3").ready);
    assert_eq!(look(&world), before);
    world.desired.networks.clear();
    world.converge();
    assert_eq!(look(&world), before);
}

#[test]
fn drift_is_repaired() {
    let world = office();
    world.converge();
    for damage in [
        "ip link set ct1 nomaster",
        "ip link set ct1 down",
        "ip link set cb1 mtu 1300",
        "ip link del cx7",
        "ip link del cb1",
        "ip link del ct1",
        "bridge fdb del 00:00:00:00:00:00 dev cx7 dst 192.0.2.2",
        "bridge fdb append 00:00:00:00:00:00 dev cx7 dst 192.0.2.77",
        "echo 0 > /proc/sys/net/ipv6/conf/ct1/disable_ipv6",
        "ip link set cb1 type bridge stp_state 1 mcast_snooping 1",
        "nft flush ruleset",
        "nft add rule bridge collective close_to accept",
        "nft flush chain bridge collective forward",
        "nft add element bridge collective ports '{ \"eth0\" }'",
        "nft delete element bridge collective own4 '{ \"ct1\" . 02:00:00:00:00:01 . 10.0.0.1 }'",
    ] {
        world.namespace.shell(damage);
        assert_ne!(world.plan(), Plan::default(), "{damage} is not seen");
        world.converge();
    }
}

#[test]
fn a_renamed_mark_is_a_conflict_and_not_ours() {
    let world = office();
    world.converge();
    world.namespace.shell("ip link set ct1 group 0");
    let plan = world.plan();
    assert!(plan.conflicts[0].contains("ct1"), "{plan:?}");
    assert_eq!(plan.steps, vec![]);
}

#[test]
fn counters_survive_changes_of_others_and_a_replaced_table() {
    let mut world = World::with(vec![network("cb1", Uplink::None, vec![port(1, open()), port(2, open())])]);
    let (one, two) = (world.guest("ct1"), world.guest("ct2"));
    let frame = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(1000, 80, SYN));
    for _ in 0..3 {
        one.send(&frame);
        two.wait_for(&frame);
    }
    let check = |world: &World| {
        let status = world.port("ct1");
        assert_eq!((status.from_guest.frames, status.from_guest.bytes), (3, 3 * frame.len() as u64));
        assert_eq!(world.port("ct2").to_guest, status.from_guest);
    };
    check(&world);
    world.desired.networks[0].ports.push(port(3, open()));
    world.desired.networks[0].ports[0].accept = talker();
    world.converge();
    check(&world);
    world.namespace.shell("nft add rule bridge collective close_to accept");
    assert_eq!(world.observe().rules, ObservedRules::Altered);
    world.converge();
    check(&world);
}

#[test]
fn a_failed_step_is_reported_and_the_rest_goes_on() {
    let world = office();
    let mut plan = plan(&world.target(), &world.observe());
    plan.steps.insert(1, netd_plan::Step::Up { link: "ctnone".to_owned() });
    let applied = world.namespace.run(move |runtime, kernel| runtime.block_on(kernel.apply(&plan)));
    assert_eq!(applied.failures.len(), 1);
    assert_eq!(applied.failures[0].1.to_string(), "ctnone is gone or carries no mark of netd");
    assert_eq!(world.plan(), Plan::default());
    assert_eq!(netd_plan::plan(&Target::default(), &World::new().observe()), Plan::default());
}

#[test]
fn a_change_by_others_is_heard_at_once() {
    let world = office();
    world.converge();
    for damage in ["nft flush ruleset", "ip link set ct1 down"] {
        world.namespace.run(move |runtime, kernel| {
            runtime.block_on(async {
                let mut changes = netd_kernel::Changes::open(kernel).unwrap();
                assert!(std::process::Command::new("sh").args(["-c", damage]).status().unwrap().success());
                tokio::time::timeout(std::time::Duration::from_secs(5), changes.next()).await.expect(damage);
                let _ = kernel;
            });
        });
    }
}
