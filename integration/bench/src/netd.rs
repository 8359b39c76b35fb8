//! `collective-bench netd`: netd beside `ip -batch` and `nft -f`, and its rules beside a plain bridge.

mod document;
mod guest;
mod hostile;
mod machine;
mod path;
mod scale;
mod splice;

use crate::figures::Figures;
use crate::say;
use anyhow::Context as _;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Instant;

/// Arms are interleaved within each round; figures are quotients of medians over rounds. All together take about ten
/// minutes. Needs root, iproute2, nftables and iperf3.
///
/// Figures of groups that are not selected keep their values in the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Measure these only, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "GROUPS")]
    only: Vec<Group>,
    /// Rounds of everything.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Where the figures are written.
    #[arg(long, value_name = "FILE", default_value = "bench/netd.json")]
    out: PathBuf,
    /// netd's program: a release build, else the figures mean nothing.
    #[arg(long, value_name = "FILE")]
    netd: PathBuf,
    /// Networks of the group `scale`, of 10 ports each.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4000))]
    networks: u32,
    /// Hostile frames.
    #[arg(long, default_value_t = 1_000_000)]
    frames: u32,
    /// Of the hostile frames' generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A group of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// `converge_vs_ip_batch`, `one_port_ms`, `idle_reconcile_ms`.
    Scale,
    /// `throughput_vs_bridge`: iperf3 between namespaces.
    Throughput,
    /// `latency_5000_vs_10_ports`.
    Latency,
    /// `frames_leaked`: 50 deployments with equal addresses.
    Hostile,
    /// `splice_outage_ms`: a TCP stream while a proxy is spliced in.
    Splice,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    let mut failed = Vec::new();
    for group in Group::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(group) {
            continue;
        }
        say(&format!("{group:?} begins"));
        let began = Instant::now();
        match measure(arguments, &mut figures, *group).await {
            Ok(()) => say(&format!("{group:?} took {:.0} s", began.elapsed().as_secs_f64())),
            Err(error) => {
                say(&format!("{group:?} FAILED: {error:#}"));
                failed.push(format!("{group:?}"));
            }
        }
        figures.write(&arguments.out).context("keep the figures")?;
    }
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

async fn measure(arguments: &Arguments, figures: &mut Figures, group: Group) -> anyhow::Result<()> {
    let (netd, rounds) = (arguments.netd.as_path(), usize::from(arguments.rounds));
    match group {
        Group::Scale => scale::run(netd, rounds, arguments.networks, figures).await,
        Group::Throughput => path::throughput(netd, rounds, figures).await,
        Group::Latency => path::latency(netd, rounds, figures).await,
        Group::Hostile => hostile::run(netd, arguments.frames, arguments.seed, figures).await,
        Group::Splice => splice::run(netd, rounds, figures).await,
    }
}
