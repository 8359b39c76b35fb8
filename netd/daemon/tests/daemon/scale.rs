//! Many networks.

use crate::changes::{document, network};
use crate::machine::{Machine, pause};
use netd_api::Change;
use std::time::{Duration, Instant};
use types::Generation;

/// As many as a host may be asked for, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

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

#[test]
fn twenty_thousand_networks_do_not_break_it() {
    let machine = Machine::new();
    let _netd = machine.start();
    let mut desired = document(20_000, 0);
    let deadline = Instant::now() + PATIENCE;
    let begin = Instant::now();
    // It may take longer than a client waits.
    let answered = machine.put(&desired);
    while !matches!(machine.runtime.block_on(machine.client.status()), Ok(s) if s.converged && s.networks.len() == 20_000)
    {
        assert!(Instant::now() < deadline, "it does not converge: {answered:?}");
        pause(Duration::from_millis(100));
    }
    tell("20,000 networks from nothing", begin);
    let change = Change {
        from: Generation(1),
        generation: Generation(2),
        put: vec![network(10_000, 1)],
        remove: vec!["d7/inside".into()],
    };
    let begin = Instant::now();
    let status = machine.change(&change).unwrap();
    tell("one port on top of them", begin);
    assert!(status.converged && status.networks[0].ports[0].ready, "{status:?}");
    // One clear error, and nothing is changed.
    desired.generation = Generation(3);
    desired.networks[19_999].bridge = "cb0".into();
    let error = machine.put(&desired).unwrap_err().to_string();
    assert!(error.contains("bridge cb0 is already used by network d0/inside"), "{error}");
}
