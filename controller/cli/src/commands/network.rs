//! `network`: what is there, why something passes, who speaks with whom, frames on demand.

mod capture;
mod describe;
mod explain;
mod flows;
mod list;

use super::Session;
use crate::failure::Failure;
use netd_api::Counter;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Networks and how they are; exit 1 with --check if one is not ready
    List(list::Args),
    /// Hosts, ports and counters of one network
    Describe(describe::Args),
    /// Whether a connection would be let through, and why; exit 1 if not
    Explain(explain::Args),
    /// Who speaks with whom
    Flows(flows::Args),
    /// Frames of a member's ports, as pcapng
    Capture(capture::Args),
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::List(args) => list::run(session, args).await,
        Command::Describe(args) => describe::run(session, args).await,
        Command::Explain(args) => explain::run(session, args).await,
        Command::Flows(args) => flows::run(session, args).await,
        Command::Capture(args) => capture::run(session, args).await,
    }
}

/// `1234 (1.5 MiB)`: frames and bytes.
fn counted(counter: Counter) -> String {
    format!("{} ({})", counter.frames, crate::time::bytes(counter.bytes))
}
