//! Prints what the planner makes of a crowd, of faults, and of other figures than the chosen ones.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

mod sweep;

use anyhow::Context as _;
use clap::Parser;
use simulation::{Outcome, Prefetch, Scenario, Trace, faults};
use std::path::PathBuf;
use std::time::Instant;
use streamer_plan::Background;

/// Swarms of planners in virtual time, over recorded boots.
#[derive(Debug, Parser)]
struct Arguments {
    /// Hosts that boot at once.
    #[arg(long, default_value_t = 64)]
    hosts: usize,
    /// Sites they are spread over.
    #[arg(long, default_value_t = 1)]
    sites: usize,
    /// Of every link, in Mbit/s.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// First touches of a boot: `at_ms,piece` lines below a heading. The recorded boot if none is named.
    #[arg(long, value_name = "FILE", conflicts_with = "synthetic")]
    trace: Option<PathBuf>,
    /// An invented boot.
    #[arg(long)]
    synthetic: bool,
    /// What hosts believe their guests will read.
    #[arg(long, value_enum, default_value = "right")]
    profile: Prefetch,
    /// Fetch everything beside it.
    #[arg(long)]
    full: bool,
    /// Print curves over the planner's figures.
    #[arg(long)]
    sweep: bool,
    /// Print what one planning costs.
    #[arg(long)]
    planning: bool,
    /// Faults instead of a boot.
    #[arg(long)]
    faults: bool,
    /// Of faults.
    #[arg(long, default_value_t = 24)]
    virtual_hours: u64,
    /// Of everything random; printed.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let trace = match &arguments.trace {
        Some(path) => Trace::parse(
            &std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        )?,
        None if arguments.synthetic => Trace::synthetic(seed),
        None => Trace::recorded()?,
    };
    if arguments.faults {
        return endure(&arguments, seed);
    }
    if arguments.planning {
        sweep::planning();
        return Ok(());
    }
    let mut scenario = Scenario::new(arguments.hosts, arguments.rate, trace);
    scenario.sites = arguments.sites.max(1);
    scenario.profile = arguments.profile;
    scenario.background = if arguments.full { Background::Full } else { Background::Off };
    scenario.seed = seed;
    if arguments.sweep {
        sweep::curves(&scenario);
        return Ok(());
    }
    let began = Instant::now();
    let outcome = scenario.boot();
    let thinking = scenario.trace.thinking();
    println!(
        "{} hosts at {} Mbit/s, {} pieces, {:.2} s of thought",
        scenario.hosts,
        scenario.mbit_per_s,
        scenario.trace.steps.len(),
        thinking.as_secs_f64()
    );
    println!("{}", heading());
    println!("{}", row("", &outcome));
    println!("simulated in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn endure(arguments: &Arguments, seed: u64) -> anyhow::Result<()> {
    let weather = faults::Weather {
        hosts: arguments.hosts.min(16),
        pieces: 96,
        hours: arguments.virtual_hours,
        mbit_per_s: arguments.rate,
        pause_s: 120,
    };
    let day = faults::endure(&weather, seed)?;
    println!(
        "{} hours, {} faults, {} MB from the origin, {} MB from hosts, {} MB wasted: nothing is missing",
        weather.hours,
        day.faults,
        day.origin_bytes >> 20,
        day.host_bytes >> 20,
        day.wasted_bytes >> 20
    );
    Ok(())
}

fn heading() -> String {
    format!(
        "{:<28} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>10} {:>8}",
        "", "p50 s", "p95 s", "max s", "stalls", "p50 ms", "p99 ms", "origin/uni", "wasted %"
    )
}

fn row(name: &str, outcome: &Outcome) -> String {
    let at = |share: f64| {
        let index = (outcome.stalls.len() as f64 * share) as usize;
        outcome.stalls.get(index).map_or(0.0, |stall| stall.as_secs_f64() * 1e3)
    };
    let sent = (outcome.origin_bytes + outcome.host_bytes).max(1);
    format!(
        "{name:<28} {:>8.2} {:>8.2} {:>8.2} {:>9.1} {:>9.1} {:>9.1} {:>10.2} {:>8.2}",
        outcome.time(0.5).as_secs_f64(),
        outcome.time(0.95).as_secs_f64(),
        outcome.time(1.0).as_secs_f64(),
        outcome.stalls.len() as f64 / outcome.times.len() as f64,
        at(0.5),
        at(0.99),
        outcome.origin_vs_unique(),
        outcome.wasted_bytes as f64 / sent as f64 * 100.0
    )
}
