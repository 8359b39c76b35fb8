//! A process that is killed after any step of a plan, and its successor.

use crate::world::{World, network, open, port, talker, vxlan};
use netd_api::{Desired, Network, Uplink};
use netd_kernel::Kernel;
use netd_plan::{Host, Link, LinkKind, ObservedRules, Target, plan};
use nix::sys::signal::{Signal, raise};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

const DOCUMENT: &str = "NETD_TEST_DOCUMENT";
const STEPS: &str = "NETD_TEST_STEPS";

fn host() -> Host {
    World::new().host
}

/// The other process. Started by the tests below, in the network namespace of theirs.
#[test]
#[ignore = "started by other tests, as a process of its own"]
fn carries_out_some_steps_and_is_killed() {
    let Ok(document) = std::env::var(DOCUMENT) else { return };
    let desired: Desired = serde_json::from_str(&document).unwrap();
    let steps: usize = std::env::var(STEPS).unwrap().parse().unwrap();
    let target = Target::new(&desired, &host()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kernel = Kernel::open().unwrap();
        let mut plan = plan(&target, &kernel.observe().await.unwrap());
        plan.steps.truncate(steps);
        let applied = kernel.apply(&plan).await;
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
        raise(Signal::SIGKILL).unwrap();
    });
}

fn killed_after(world: &World, steps: usize) {
    let document = serde_json::to_string(&world.desired).unwrap();
    let status = world.namespace.run(move |_, _| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::carries_out_some_steps_and_is_killed", "--ignored", "--nocapture"])
            .env(DOCUMENT, document)
            .env(STEPS, steps.to_string())
            .stdout(Stdio::null())
            .status()
            .unwrap()
    });
    assert_eq!(status.signal(), Some(9), "after {steps} steps: {status}");
}

/// Whatever is attached is behind our table, which drops what it does not know.
fn nothing_is_open(world: &World) {
    let observed = world.observe();
    let is_attached = |link: &Link| link.kind == LinkKind::Tap && link.master.is_some();
    let attached: Vec<_> = observed.ours().filter(|(_, link)| is_attached(link)).collect();
    let is_closed = attached.is_empty() || matches!(observed.rules, ObservedRules::Intact(_));
    assert!(is_closed, "attached without rules: {attached:?}");
}

/// From `first` to `second`, killed after each step; the successor does the rest, and goes back for the next round.
fn every_step_may_be_the_last(first: &[Network], second: &[Network]) {
    let mut world = World::new();
    world.desired.networks = first.to_vec();
    world.converge();
    let before = world.observe().links;
    for steps in 0.. {
        world.desired.networks = second.to_vec();
        let all = world.plan().steps.len();
        killed_after(&world, steps);
        nothing_is_open(&world);
        world.converge();
        world.desired.networks = first.to_vec();
        world.converge();
        assert_eq!(world.observe().links.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        if steps >= all {
            return;
        }
    }
}

fn first() -> Vec<Network> {
    vec![
        network("cb1", vxlan(7, &["192.0.2.2"]), vec![port(1, open()), port(2, talker())]),
        network("cb3", Uplink::None, vec![port(5, open()), port(6, open())]),
    ]
}

/// A port moves, a tunnel is renumbered, a network goes, another comes.
fn second() -> Vec<Network> {
    vec![
        network("cb1", vxlan(8, &["192.0.2.3"]), vec![port(2, open())]),
        network("cb2", Uplink::None, vec![port(1, talker()), port(3, open())]),
    ]
}

#[test]
fn killed_after_each_step_of_a_plan_that_creates_its_successor_converges() {
    every_step_may_be_the_last(&[], &first());
}

#[test]
fn killed_after_each_step_of_a_plan_that_changes_and_deletes_its_successor_converges() {
    every_step_may_be_the_last(&first(), &second());
}

#[test]
fn killed_after_each_step_of_a_plan_that_deletes_everything_its_successor_converges() {
    every_step_may_be_the_last(&first(), &[]);
}

#[test]
fn links_doomed_by_one_that_was_killed_go_and_their_names_are_free() {
    let mut world = World::with(first());
    // Marked and down, not deleted any more.
    world.namespace.shell("ip link set ct1 down group 201400008; ip link set cb3 down group 201400008");
    world.converge();
    assert!(world.port("ct1").ready && world.port("ct5").ready);
    // Somebody else's choice of the same number: not taken along.
    world.namespace.shell("ip link add v0 group 201400008 type veth peer name v1");
    world.desired.networks.clear();
    world.converge();
    world.namespace.shell("ip link show v0 && ip link show v1");
}
