//! What can be typed.

use crate::commands;
use crate::output::Format;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// After the options of every `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it differs, or what was waited for or checked is not so
  2  the command line is wrong
  3  a document was refused
  4  not found
  5  it contradicts what is there
  6  no token, or it may not do this
  7  the controller (or another daemon) does not answer
  8  it took too long

Examples:
  collective apply -f office.yaml
  collective get instances -o wide --watch
  collective wait deployment/office --for ready --timeout 2m
  collective describe instance office/workspace
  collective playground up && collective get hosts";

/// Virtual appliances on libvirt hosts: publish them, wire them into bundles, run them.
#[derive(Debug, Parser)]
#[command(name = "collective", version, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// The controller's address, such as https://controller.example:8443
    #[arg(long, global = true, value_name = "URL", env = "COLLECTIVE_SERVER", help_heading = "Controller")]
    pub(crate) server: Option<String>,
    /// The token that says who you are
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "COLLECTIVE_TOKEN",
        hide_env_values = true,
        help_heading = "Controller"
    )]
    pub(crate) token: Option<String>,
    /// File with the controller's certificate authority (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "COLLECTIVE_CA", help_heading = "Controller")]
    pub(crate) ca: Option<PathBuf>,
    /// A context of ~/.config/collective/config.toml, instead of its current one
    #[arg(long, global = true, value_name = "NAME", env = "COLLECTIVE_CONTEXT", help_heading = "Controller")]
    pub(crate) context: Option<String>,
    /// How results are written
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish appliances and look at the catalogue
    #[command(subcommand)]
    Appliance(commands::appliance::Command),
    /// A publisher's repository and its keys
    #[command(subcommand)]
    Publisher(commands::publisher::Command),
    /// Follow publishers' repositories
    #[command(subcommand)]
    Catalog(commands::catalog::Command),
    /// Make documents so: bundles, deployments, sites
    Apply(commands::apply::Args),
    /// Show what applying would change; exit 1 if anything
    Diff(commands::diff::Args),
    /// List things, or show one
    Get(commands::get::Args),
    /// Tell everything about one thing, with reasons
    Describe(commands::describe::Args),
    /// Delete what documents name, or one thing
    Delete(commands::delete::Args),
    /// Wait until a thing is ready, running or deleted
    Wait(commands::wait::Args),
    /// States of a deployment one can go back to: take, restore, pin, compare
    #[command(subcommand)]
    Checkpoint(commands::checkpoint::Command),
    /// Switch a deployment off so that it can go on later, here or elsewhere
    Suspend(commands::checkpoint::SuspendArgs),
    /// Let a suspended deployment go on
    Resume(commands::checkpoint::ResumeArgs),
    /// Hosts, and how a machine becomes one
    #[command(subcommand)]
    Host(commands::host::Command),
    /// Whether a site could go on without the rest of the world
    #[command(subcommand)]
    Site(commands::site::Command),
    /// Move running instances to other hosts
    Move(commands::moving::Args),
    /// Which instances would be better off on other hosts, and move them there
    Rebalance(commands::host::RebalanceArgs),
    /// Updates on their way: waves of instances that go to a new version
    #[command(subcommand)]
    Rollout(commands::rollout::Command),
    /// Tokens for people and programs
    #[command(subcommand)]
    Token(commands::token::Command),
    /// Policies: WebAssembly components that decide
    #[command(subcommand)]
    Policy(commands::policy::Command),
    /// What happened
    Events(commands::events::Args),
    /// Who changed what, with its hash chain checked
    Audit(commands::audit::Args),
    /// The serial log of an instance
    Logs(commands::logs::Args),
    /// The serial console of an instance; Ctrl-] leaves
    Console(commands::console::Args),
    /// An instance's disk arriving: piece map, bytes by source
    Stream(commands::stream::Args),
    /// Networks: what is there, why something passes, who speaks with whom
    #[command(subcommand)]
    Network(commands::network::Command),
    /// Put an appliance into the path of a running port, or take it out
    Interpose(commands::interpose::Args),
    /// Check whether this machine can be a host, and say what to do
    Doctor(commands::doctor::Args),
    /// A whole site on this machine: hosts in namespaces
    #[command(subcommand)]
    Playground(commands::playground::Command),
    /// Write a completion script for a shell
    Completion(commands::completion::Args),
    /// Versions of this program and of the controller
    Version,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
