//! `collective-bench life`: what it costs to keep appliances' states, beside who does a part of it.

mod backup;

use crate::figures::Figures;
use crate::say;
use anyhow::Context as _;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Instant;

/// Arms take turns within each round; figures are of medians over rounds. Needs Debian's restic and 6 GiB in /var/tmp.
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
    #[arg(long, value_name = "FILE", default_value = "bench/life.json")]
    out: PathBuf,
}

/// A group of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// `backup_vs_restic`, and beside it `backup_first_vs_restic`, `backup_cold_vs_restic`.
    Backup,
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
        let measured = match group {
            Group::Backup => backup::run(usize::from(arguments.rounds), &mut figures),
        };
        match measured {
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
