//! Many networks.

use crate::changes::{document, network};
use crate::machine::Machine;
use netd_api::Change;
use std::time::{Duration, Instant};
use types::Generation;

#[expect(clippy::print_stderr, reason = "figures for people")]
fn tell(what: &str, begin: Instant) {
    eprintln!("{what}: {:.1} ms", begin.elapsed().as_secs_f64() * 1000.0);
}

#[test]
fn a_hundred_networks_come_change_and_go_in_seconds() {
    let machine = Machine::new();
    let _netd = machine.start();
    let begin = Instant::now();
    let status = machine.put(&document(100, 10)).unwrap();
    tell("1,000 ports from nothing", begin);
    assert!(status.converged && status.networks.iter().flat_map(|n| &n.ports).all(|p| p.ready));
    for generation in 1..6 {
        let ports = 10 + u32::try_from(generation % 2).unwrap();
        let put = vec![network(50, ports)];
        let change = Change {
            from: Generation(generation),
            generation: Generation(generation + 1),
            put,
            remove: Vec::new(),
        };
        let begin = Instant::now();
        assert!(machine.change(&change).unwrap().converged);
        tell("one port more or less", begin);
    }
    let begin = Instant::now();
    assert!(machine.runtime.block_on(machine.client.status()).unwrap().converged);
    tell("a look at everything", begin);
    let begin = Instant::now();
    let status = machine.runtime.block_on(machine.client.purge()).unwrap();
    tell("purge", begin);
    assert!(status.failures.is_empty() && begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(machine.ours(), "");
}

/// They are not made: the kernel takes 25 ms under its one lock to take a bridge away, which is ten minutes in which
/// nobody on the machine changes a link.
#[test]
fn twenty_thousand_networks_are_checked_and_planned_and_do_not_break_it() {
    let machine = Machine::new();
    let _netd = machine.start();
    let mut desired = document(20_000, 1);
    let begin = Instant::now();
    let steps = machine.runtime.block_on(machine.client.plan(&desired)).unwrap().steps;
    tell("a plan of 20,000 networks", begin);
    let created = steps.iter().filter(|step| step.starts_with("create bridge")).count();
    assert_eq!(created, 20_000);
    // One clear error, and nothing is changed.
    desired.networks[19_999].bridge = "cb0".into();
    let error = machine.put(&desired).unwrap_err().to_string();
    assert!(error.contains("bridge cb0 is already used by network d0/inside"), "{error}");
    assert_eq!(machine.ours(), "");
    // It goes on with what can be.
    let mut few = document(2, 1);
    few.generation = Generation(4);
    assert!(machine.put(&few).unwrap().converged);
}
