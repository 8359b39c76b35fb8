//! `collectived`: see the library.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use controller_daemon::Server;
use controller_daemon::config::Config;
use std::path::PathBuf;
use std::process::ExitCode;

/// Decides what should exist, and is the only one people talk to.
#[derive(Debug, Parser)]
#[command(name = "collectived", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/collective/collectived.toml", global = true)]
    config: PathBuf,
    /// Only check the configuration file.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Run,
    /// Print the API's OpenAPI document.
    Openapi,
}

fn main() -> anyhow::Result<ExitCode> {
    // It compiles components in a process of its own, which is this program run again.
    if let Some(code) = plugins_runtime::compile_child() {
        return Ok(code);
    }
    run(&Arguments::parse()).map(|()| ExitCode::SUCCESS)
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(Command::Openapi) = arguments.command {
        return print_openapi();
    }
    chassis::telemetry::init("collectived");
    let config: Config = chassis::config::load(&arguments.config)?;
    config.check().with_context(|| format!("in {}", arguments.config.display()))?;
    if arguments.check_config {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(&config))
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let shutdown = chassis::shutdown::on_signal()?;
    chassis::metrics::recorder();
    let server = Server::bind(config, shutdown).await?;
    tracing::info!(listen = %server.address(), state_dir = %config.state_dir.display(), "serving");
    server.run().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the document is this command's output")]
fn print_openapi() -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(&controller_daemon::openapi())?);
    Ok(())
}
