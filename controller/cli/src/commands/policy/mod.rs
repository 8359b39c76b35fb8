//! `policy`: what an author does here ([`local`]), and what a controller is asked to do ([`remote`]).

mod ask;
mod bench;
mod check;
mod component;
mod explain;
mod guest_file;
mod inspect;
mod key;
pub(crate) mod local;
mod new;
mod registry;
pub(crate) mod remote;
mod replay;
mod sign;
mod synthetic;
mod test;
mod trust;
mod wrap;

use super::Session;
use crate::failure::Failure;
use std::process::ExitCode;

/// Policies: WebAssembly components that decide
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Local(local::Command),
    #[command(flatten)]
    Remote(remote::Command),
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Local(command) => local::run(session.format, command).await,
        Command::Remote(command) => remote::run(session, command).await,
    }
}
