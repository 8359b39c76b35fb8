//! Thousands of ports: from nothing, one more, and nothing to do.

use super::document::{self, ip_lines, offices};
use super::machine::Machine;
use crate::figures::{Figures, median, ratios};
use crate::network::Namespace;
use crate::say;
use netd_api::{Change, Desired};
use std::path::Path;
use std::time::Instant;
use types::Generation;

const PORTS: u32 = 10;
/// Ports added, and passes with nothing to do, in each round.
const TURNS: usize = 10;

/// `converge_vs_ip_batch`, `one_port_ms`, `idle_reconcile_ms`.
pub(super) async fn run(
    netd: &Path,
    rounds: usize,
    networks: u32,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let desired = offices(1, networks, PORTS);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut one_port, mut idle) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let machine = Machine::start(netd).await?;
        let began = Instant::now();
        let status = machine.client.put_desired(&desired).await?;
        ours.push(began.elapsed().as_secs_f64());
        anyhow::ensure!(status.converged, "netd did not converge: {:?}", status.failures);
        let rules = machine.namespace.output("nft", &["list", "table", "bridge", "collective"])?;
        theirs.push(by_hand(&desired, rules)?);
        let (added, passes) = (added_ports(&machine, networks).await?, idle_passes(&machine).await?);
        say(&format!(
            "round {round}: from nothing: netd {:.2} s, ip and nft {:.2} s; one port {:.2} ms; nothing to do {:.0} ms",
            ours[round - 1],
            theirs[round - 1],
            median(&added),
            median(&passes)
        ));
        one_port.push(median(&added));
        idle.push(median(&passes));
    }
    let ports = networks * PORTS;
    let state = format!(
        "{networks} networks of {PORTS} ports, each with a bridge, a VXLAN with one peer, 5 rules a port for IPv4 and IPv6"
    );
    figures.add(
        "converge_vs_ip_batch",
        median(&ours) / median(&theirs),
        &ratios(&ours, &theirs),
        &format!(
            "{state}, from nothing: PUT of the whole document until it is stored, applied and verified {:.2} s ÷ the same state \
             by one ip -batch, one bridge -batch, one sysctl -p (no IPv6 of the host on these links) and one nft -f \
             {:.2} s; each in a new namespace",
            median(&ours),
            median(&theirs)
        ),
    );
    figures.add(
        "one_port_ms",
        median(&one_port),
        &one_port,
        &format!(
            "PATCH that adds one port to one of {networks} networks, on top of {ports} ports, until it is stored (fsync on this \
             disk), applied, verified and answered; median of {TURNS} a round"
        ),
    );
    figures.add(
        "idle_reconcile_ms",
        median(&idle),
        &idle,
        &format!(
            "GET of the status at {ports} ports: everything observed and planned, nothing to do, answered with every port's \
             counters; median of {TURNS} a round"
        ),
    );
    Ok(())
}

/// Seconds the usual tools take.
fn by_hand(desired: &Desired, rules: String) -> anyhow::Result<f64> {
    use std::fmt::Write as _;
    let namespace = Namespace::new()?;
    let (links, floods) = ip_lines(desired);
    let mut mute = String::new();
    for line in links.lines().filter(|line| line.starts_with("link add") || line.starts_with("tuntap")) {
        if let Some(name) = line.split("dev ").nth(1).and_then(|rest| rest.split(' ').next()) {
            let _ = writeln!(mute, "net.ipv6.conf.{name}.disable_ipv6 = 1");
        }
    }
    let began = Instant::now();
    namespace.batch("ip", links)?;
    namespace.batch("bridge", floods)?;
    namespace.feed("sysctl", &["-q", "-p", "-"], mute)?;
    namespace.feed("nft", &["-f", "-"], rules)?;
    Ok(began.elapsed().as_secs_f64())
}

/// Milliseconds each.
async fn added_ports(machine: &Machine, networks: u32) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    let mut held = machine.client.status().await?.generation;
    for turn in 0..TURNS {
        let number = networks / 2 + u32::try_from(turn)?.min(networks / 2 - 1);
        let next = Generation(held.0 + 1);
        let put = vec![document::network(number, PORTS + 1)];
        let change = Change { from: held, generation: next, put, ..Change::default() };
        let began = Instant::now();
        let status = machine.client.change(&change).await?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        anyhow::ensure!(status.converged, "netd did not converge: {:?}", status.failures);
        let ready =
            status.networks.iter().flat_map(|network| &network.ports).filter(|port| port.ready).count();
        anyhow::ensure!(ready == PORTS as usize + 1, "{ready} ports are ready");
        held = next;
    }
    Ok(times)
}

/// Milliseconds each.
async fn idle_passes(machine: &Machine) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let began = Instant::now();
        let status = machine.client.status().await?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        anyhow::ensure!(status.converged, "netd did not converge: {:?}", status.failures);
    }
    Ok(times)
}
