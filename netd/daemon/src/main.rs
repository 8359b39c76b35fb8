//! `collective-netd`: one host's virtual switches.
//!
//! One task owns the kernel, the stored document and the loop ([`switch`]); everything else sends it requests. Start
//! at [`switch::Switch`]. On SIGTERM everything stays in place: guests keep running, doors stay as they are.

mod cli;
mod config;
mod http;
mod inspect;
mod store;
mod switch;
mod table;

use anyhow::{Context as _, bail};
use chassis::unix_http::CallError;
use clap::{Parser, Subcommand};
use config::Config;
use netd_client::Client;
use std::path::{Path, PathBuf};
use switch::Switch;

/// One host's virtual switches.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, default_value = "/etc/collective/netd.toml")]
    config: PathBuf,
    /// Reads the configuration, says what is wrong with it, and ends.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves (the default).
    Run,
    /// Shows what is, freshly looked at: networks, ports, frames, and what is wrong.
    Status {
        /// All of it, as the socket answers.
        #[arg(long)]
        json: bool,
    },
    /// Shows what a desired document would change, a line a step. Changes nothing.
    #[command(after_help = "Examples:
  What would this document do here?
    collective-netd plan --desired office.json
  A document that netd can hold:
    {\"generation\": 2, \"networks\": [{\"id\": \"office/lan\", \"bridge\": \"cb1\", \"mtu\": 1500,
      \"uplink\": {\"kind\": \"none\"}, \"ports\": []}]}
  Nothing is printed if all is as desired. Then hand it over:
    curl --unix-socket /run/collective/netd.sock -X PUT --data @office.json http://netd/v1/desired")]
    Plan {
        /// The document, JSON. Its generation is no less than the one netd holds.
        #[arg(long, value_name = "FILE")]
        desired: PathBuf,
        /// Said or not: a plan is never carried out.
        #[arg(long)]
        dry_run: bool,
    },
    /// Says why a connection would pass or not, place by place.
    Explain(cli::ExplainArguments),
    /// Captures frames of ports as pcapng.
    Capture(cli::CaptureArguments),
    /// Shows who speaks with whom, busiest first.
    Flows,
    /// Removes everything of netd's from this host, also without a running netd: guests lose their networks.
    Purge {
        /// Do it. Without, it says what would go.
        #[arg(long)]
        yes: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    chassis::telemetry::init("netd");
    let config = Config::load(&arguments.config)?;
    if arguments.check_config {
        return Ok(());
    }
    // Two workers: one for the switch, one for the socket.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        match arguments.command.unwrap_or(Command::Run) {
            Command::Run => run(config).await,
            Command::Status { json } => show(&Client::new(&config.socket).status().await?, json),
            Command::Plan { desired, .. } => plan(&config, &desired).await,
            Command::Explain(question) => {
                print_lines(&cli::explain(&Client::new(&config.socket), question).await?);
                Ok(())
            }
            Command::Capture(capture) => cli::capture(&Client::new(&config.socket), capture).await,
            Command::Flows => {
                print_lines(&cli::flows(&Client::new(&config.socket)).await?);
                Ok(())
            }
            Command::Purge { yes: true } => purge(config).await,
            Command::Purge { yes: false } => say_what_a_purge_removes(&config).await,
        }
    });
    runtime.shutdown_background();
    result
}

async fn run(config: Config) -> anyhow::Result<()> {
    let shutdown = chassis::shutdown::on_signal()?;
    let metrics = chassis::metrics::router();
    let switch = Switch::open(&config)?;
    let listener = chassis::unix_http::bind(&config.socket, 0o660)
        .with_context(|| format!("cannot listen on {}", config.socket.display()))?;
    let (requests, task) = switch.spawn(shutdown.clone());
    tracing::info!(socket = %config.socket.display(), "serving");
    chassis::unix_http::serve(listener, http::router(requests).merge(metrics), shutdown).await;
    task.await?;
    Ok(())
}

async fn plan(config: &Config, path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let desired =
        http::read_document(&text).map_err(|message| anyhow::anyhow!("{}: {message}", path.display()))?;
    print_lines(&Client::new(&config.socket).plan(&desired).await?.steps);
    Ok(())
}

async fn purge(config: Config) -> anyhow::Result<()> {
    let status = match Client::new(&config.socket).purge().await {
        Err(CallError::Connect { .. }) => Switch::open(&config)?.purge().await?,
        answer => answer?,
    };
    if !status.failures.is_empty() {
        bail!("not everything could be removed: {}", status.failures.join("; "));
    }
    Ok(())
}

async fn say_what_a_purge_removes(config: &Config) -> anyhow::Result<()> {
    let status = Client::new(&config.socket).status().await?;
    let ports: usize = status.networks.iter().map(|network| network.ports.len()).sum();
    bail!(
        "{} networks with {ports} ports would go, and guests lose them; add --yes to do it",
        status.networks.len()
    );
}

fn show(status: &netd_api::Status, json: bool) -> anyhow::Result<()> {
    let lines = if json { vec![serde_json::to_string_pretty(status)?] } else { table::of(status) };
    print_lines(&lines);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a person asked for on the command line")]
fn print_lines(lines: &[String]) {
    for line in lines {
        println!("{line}");
    }
}
