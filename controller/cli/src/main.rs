//! `collective`: everything the API can do, from a terminal.
//!
//! One module per command in [`commands`]; what they share: [`context`] (which controller),
//! [`output`] (tables, JSON, YAML), [`failure`] (exit codes). Results go to standard output, progress and errors to
//! standard error. Start reading at [`args`].

mod appliance_file;
mod appliance_text;
mod args;
mod commands;
mod context;
mod documents;
mod failure;
mod kinds;
mod output;
mod profile_files;
mod progress;
mod time;

use args::{Cli, Command};
use clap::Parser as _;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    // A box's first stage makes namespaces for the whole process: no other thread may exist then.
    if let Command::Playground(command) = &cli.command
        && let Some(result) = commands::playground::first_stage(command)
    {
        return result.map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(commands::dispatch(cli));
    // Reads of standard input cannot be cancelled: do not wait for them.
    runtime.shutdown_background();
    result
}
