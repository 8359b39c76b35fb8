//! `collective-bench streamer`: which figures, how often, where to.

use crate::arms::{boot, crowd, download, huge, update, urgent, warm};
use crate::figures::Figures;
use crate::lab::Lab;
use crate::say;
use anyhow::Context as _;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Instant;

/// Arms are interleaved within each round; figures are medians over rounds. With everything selected this takes about
/// half an hour, of which one download of 4 GiB at 100 Mbit/s is six minutes.
///
/// Figures of groups that are not selected keep their values in the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Measure these only, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "GROUPS")]
    only: Vec<Group>,
    /// Rounds of everything; the download is done once whatever this says.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Where the figures are written.
    #[arg(long, value_name = "FILE", default_value = "bench/streamer.json")]
    out: PathBuf,
    /// The streamer's program: a release build, else the figures mean nothing.
    #[arg(long, value_name = "FILE")]
    streamer: PathBuf,
    /// Folder with `workspace/system.raw` (`make appliances`).
    #[arg(long, value_name = "DIR")]
    appliances: PathBuf,
    /// Hosts of the crowd.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u8).range(2..=200))]
    crowd: u8,
}

/// A group of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// `boot_vs_local_*`: real guests, streamed with a profile and from a local disk.
    Boot,
    /// `wrong_profile_vs_none`: real guests.
    WrongProfile,
    /// `download_vs_streamed`: real guests, one real download.
    Download,
    /// `crowd_*`: replayed boots on many hosts.
    Crowd,
    /// `warm_iops_*`: beside qemu-nbd and nbdkit.
    Warm,
    /// `urgent_p99_busy_vs_idle`.
    Urgent,
    /// `update_bytes_*`: beside rsync and a full fetch.
    Update,
    /// `huge_*`: an image of 100 GiB.
    Huge,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let lab = Lab::new(&arguments.streamer, &arguments.appliances, usize::from(arguments.rounds))?;
    let mut figures = Figures::default();
    let mut failed = Vec::new();
    for group in Group::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(group) {
            continue;
        }
        say(&format!("{group:?} begins"));
        let began = Instant::now();
        let result = measure(&lab, &mut figures, *group, usize::from(arguments.crowd)).await;
        // One group that fails must not cost the others their figures.
        match result {
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

async fn measure(lab: &Lab, figures: &mut Figures, group: Group, crowd: usize) -> anyhow::Result<()> {
    match group {
        Group::Boot => boot::against_local(lab, figures).await,
        Group::WrongProfile => boot::wrong_profile(lab, figures).await,
        Group::Download => download::run(lab, figures).await,
        Group::Crowd => crowd::run(lab, figures, crowd).await,
        Group::Warm => warm::run(lab, figures).await,
        Group::Urgent => urgent::run(lab, figures).await,
        Group::Update => update::run(lab, figures).await,
        Group::Huge => huge::run(lab, figures).await,
    }
}
