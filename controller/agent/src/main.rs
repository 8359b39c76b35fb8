//! `collective-agent`: one host's instances.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use controller_agent::config::Config;
use controller_agent::join::{Join, join};
use std::path::PathBuf;
use std::process::ExitCode;
use types::{HostName, SiteName};

/// Runs one host's instances as the controller desires.
#[derive(Debug, Parser)]
#[command(name = "collective-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent (the default).
    Run(Run),
    /// Makes this machine a host: buys a certificate with a one-time token.
    Join {
        /// The controller, https://name:port.
        #[arg(long)]
        server: String,
        /// One-time token from `collective host token`.
        #[arg(long)]
        token: String,
        /// Folder for ca.pem, host.pem and host.key.
        #[arg(long, default_value = "/etc/collective/identity")]
        state: PathBuf,
        /// This host's name.
        #[arg(long)]
        host: HostName,
        /// Its site.
        #[arg(long)]
        site: SiteName,
    },
    /// Stops leased instances when their lease runs out; the agent starts this.
    #[command(hide = true)]
    Fence(Fence),
}

#[derive(Debug, clap::Args)]
struct Fence {
    /// The agent's run folder.
    #[arg(long)]
    run: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Configuration file.
    #[arg(long, default_value = "/etc/collective/agent.toml")]
    config: PathBuf,
    /// Checks the configuration and ends.
    #[arg(long)]
    check_config: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    // It compiles components in a process of its own, which is this program run again.
    if let Some(code) = plugins_runtime::compile_child() {
        return Ok(code);
    }
    run(Cli::parse()).map(|()| ExitCode::SUCCESS)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    chassis::telemetry::init("collective-agent");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.command {
        Some(Command::Join { server, token, state, host, site }) => {
            let joined = runtime.block_on(join(&Join { server, token, state, host, site }))?;
            tracing::info!(role = joined.role, state = %joined.state.display(), "joined");
            Ok(())
        }
        Some(Command::Fence(fence)) => {
            controller_agent::fence::run(&fence.run);
            Ok(())
        }
        Some(Command::Run(run)) => start(&runtime, &run),
        None => start(&runtime, &cli.run),
    }
}

fn start(runtime: &tokio::runtime::Runtime, run: &Run) -> anyhow::Result<()> {
    let config: Config = chassis::config::load(&run.config)?;
    if run.check_config {
        return Ok(());
    }
    runtime.block_on(async {
        let shutdown = chassis::shutdown::on_signal().context("cannot listen to signals")?;
        controller_agent::run(config, shutdown).await
    })
}
