//! `collective-bench plugins`: what it costs to ask a policy, beside the same policy as native code.
//!
//! Times of calls are processor times of the calling thread, so that a busy machine does not show; a policy waits for
//! nothing. What is compared by the wall clock says so in its note.

mod contain;
mod leak;
mod native;
mod pipe;
mod place;
mod rate;
mod scan;
mod scene;
mod trivial;

use crate::figures::Figures;
use crate::say;
use anyhow::Context as _;
use clap::ValueEnum;
use plugins_runtime::{Limits, Policy, Runtime, thread_time};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub(crate) use pipe::serve as serve_pipe;

/// Arms take turns within each round; figures are of medians over rounds. All together take about ten minutes on an
/// idle machine, most of it for a million decisions over 5,000 hosts. Needs no privilege.
///
/// Figures of groups that are not selected keep their values in the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Measure these only, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "GROUPS")]
    only: Vec<Group>,
    /// Rounds of everything but the two groups that count to a million.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Where the figures are written.
    #[arg(long, value_name = "FILE", default_value = "bench/plugins.json")]
    out: PathBuf,
    /// Folder of the built policies: `cargo xtask policies`.
    #[arg(long, value_name = "DIR")]
    policies: PathBuf,
    /// Folder of the contract.
    #[arg(long, value_name = "DIR", default_value = "plugins/wit")]
    wit: PathBuf,
    /// Decisions of the group `rate`, calls of the group `leak`.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(20_000..))]
    calls: u32,
}

/// A group of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// `call_added_us`: a policy that does nothing.
    Call,
    /// `place_10k_p99_us`, `place_10k_prefiltered_p99_us`.
    Place,
    /// `pipe_vs_wasm`.
    Pipe,
    /// `loop_containment_vs_deadline`.
    Contain,
    /// `scan_vs_memcpy`.
    Scan,
    /// `rss_growth_mb`.
    Leak,
    /// `decisions_per_s`, `decisions_flatness`.
    Rate,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    let mut failed = Vec::new();
    for group in Group::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(group) {
            continue;
        }
        say(&format!("{group:?} begins"));
        let began = Instant::now();
        match measure(arguments, &mut figures, *group) {
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

fn measure(arguments: &Arguments, figures: &mut Figures, group: Group) -> anyhow::Result<()> {
    let rounds = usize::from(arguments.rounds);
    let lab = Lab::new(&arguments.policies, &arguments.wit, Limits::default())?;
    match group {
        Group::Call => trivial::run(&lab, rounds, figures),
        Group::Place => place::run(&lab, rounds, figures),
        Group::Pipe => pipe::run(&lab, rounds, figures),
        Group::Contain => contain::run(&lab, rounds, figures),
        Group::Scan => scan::run(&lab, rounds, figures),
        Group::Leak => leak::run(&lab, arguments.calls, figures),
        Group::Rate => rate::run(&lab, arguments.calls, figures),
    }
}

/// A runtime with a cache of its own, gone with it.
struct Lab {
    runtime: Runtime,
    policies: PathBuf,
    wit: PathBuf,
    _cache: tempfile::TempDir,
}

impl Lab {
    fn new(policies: &Path, wit: &Path, limits: Limits) -> anyhow::Result<Self> {
        let cache = tempfile::tempdir()?;
        let runtime = Runtime::new(limits, cache.path())?;
        Ok(Self { runtime, policies: policies.to_owned(), wit: wit.to_owned(), _cache: cache })
    }

    /// A first-party policy.
    fn policy(&self, name: &str) -> anyhow::Result<Arc<Policy>> {
        let path = self.policies.join(name).with_extension("wasm");
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        self.runtime.load(&bytes).with_context(|| format!("load {}", path.display()))
    }

    fn specimen(&self, specimen: &plugins_conformance::specimen::Specimen) -> anyhow::Result<Arc<Policy>> {
        Ok(self.runtime.load(&specimen.build(&self.wit)?)?)
    }
}

/// Processor time that it took, microseconds.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let before = thread_time();
    let done = work();
    ((thread_time() - before).as_secs_f64() * 1e6, done)
}
