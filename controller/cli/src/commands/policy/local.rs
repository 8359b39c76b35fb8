//! What an author does on his own machine: no controller is asked.

use super::{bench, check, inspect, key, new, registry, sign, test, wrap};
use crate::failure::Failure;
use crate::output::Format;
use std::process::ExitCode;

/// Commands that need no controller.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a folder with a policy that builds, answers and is measured
    #[command(after_help = "Examples:\n  collective policy new spread --kind placement --lang rust\n  \
        cd spread && make test && make bench")]
    New(new::Args),
    /// Make a component of the core module that a compiler wrote
    Wrap(wrap::Args),
    /// Tell what a component is: kind, contract, imports, settings, digest, who signed it
    Inspect(inspect::Args),
    /// Answer recorded inputs and compare with the verdicts expected beside them
    #[command(after_help = test::HELP)]
    Test(test::Args),
    /// Measure decisions: time and memory, by the size of the question
    Bench(bench::Args),
    /// Ask a component everything a cluster may ask: edges, nonsense, twice the same
    Check(check::Args),
    /// Keys that vouch for components
    #[command(subcommand)]
    Key(key::Command),
    /// Vouch for a component: writes FILE.sig beside it
    Sign(sign::Args),
    /// Put a component and its signature into an OCI registry
    #[command(after_help = registry::HELP)]
    Push(registry::PushArgs),
    /// Fetch a component and its signature from an OCI registry
    #[command(after_help = registry::HELP)]
    Pull(registry::PullArgs),
}

pub(crate) async fn run(format: Format, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::New(args) => new::run(args),
        Command::Wrap(args) => wrap::run(args),
        Command::Inspect(args) => inspect::run(args, format).await,
        Command::Test(args) => test::run(args, format),
        Command::Bench(args) => bench::run(args, format),
        Command::Check(args) => check::run(args, format),
        Command::Key(command) => key::run(command, format),
        Command::Sign(args) => sign::run(args),
        Command::Push(args) => registry::push(args, format).await,
        Command::Pull(args) => registry::pull(args, format).await,
    }
}
