//! Figures of the streamer, of netd, of policies and of appliances' lives, measured beside their peers: real daemons, real guests, shaped links.
//!
//! Every daemon runs in a network namespace of its own; links are shaped both ways at a switch that is a namespace too.
//! The arms of a comparison take turns within each round, and a figure is a median over rounds, never the best of them.
//! What was a real guest and what a replay is said in each figure's note.
//!
//! Start reading at [`netd`] for switches; at [`plugins`] for policies; at [`life`] for checkpoints and backups; at [`streamer`] for disks, then [`lab`] (what the arms stand on) and one arm, such as [`arms::boot`].
//!
//! Invariants:
//! - No link is ever made in the machine's own network namespace: namespaces exist as open files of this process, so
//!   nothing is left when it ends, however it ends.
//! - Every program is on a leash: it is killed when this process closes its standard input or dies.

mod arms;
mod figures;
mod guest;
mod lab;
mod leash;
mod life;
mod nbd;
mod netd;
mod network;
mod plugins;
mod profile;
mod recording;
mod replay;
mod streamer;
mod tracker;

use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::process::ExitCode;

/// Measures Collective's streamer, netd and policies on this machine. Needs root, QEMU, qemu-utils, nbdkit, fio, rsync, iperf3.
#[derive(Debug, Parser)]
#[command(name = "collective-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the streamer; prints `figure NAME VALUE UNIT` lines and writes them as JSON.
    Streamer(streamer::Arguments),
    /// Measure netd; prints `figure NAME VALUE UNIT` lines and writes them as JSON.
    Netd(netd::Arguments),
    /// Measure policies; prints `figure NAME VALUE UNIT` lines and writes them as JSON.
    Plugins(plugins::Arguments),
    /// Measure what it costs to keep appliances' states; prints `figure NAME VALUE UNIT` lines and writes them as JSON.
    Life(life::Arguments),
    /// Be the native policy at the other end of a pipe.
    #[command(hide = true)]
    PipePolicy,
    /// Record boots of the workspace from a complete local disk, for replays.
    Record(recording::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let work = async {
        match arguments.command {
            Command::Streamer(arguments) => streamer::run(&arguments).await,
            Command::Netd(arguments) => netd::run(&arguments).await,
            // Nothing in there waits: it may have the thread.
            Command::Plugins(arguments) => tokio::task::block_in_place(|| plugins::run(&arguments)),
            Command::Life(arguments) => tokio::task::block_in_place(|| life::run(&arguments)),
            Command::PipePolicy => tokio::task::block_in_place(plugins::serve_pipe),
            Command::Record(arguments) => recording::run(&arguments).await,
        }
    };
    // Dropping the work drops what it made.
    let result = tokio::select! {
        result = work => result,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// One line of progress.
fn say(line: &str) {
    // Whoever listens may have gone; the measurement goes on.
    let _ = writeln!(std::io::stdout(), "bench: {line}");
}
