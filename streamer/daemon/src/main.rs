//! `collective-streamer`: a disk before its bytes have arrived.
//!
//! Wires the swarm, the cache and the block export together behind `streamer-api`. Needs no privilege: it is the one
//! that parses bytes from strangers. Start at [`streamer`]; [`image`] is where a guest's read goes.

mod config;
mod descriptors;
mod diary;
mod events;
mod image;
mod limits;
mod problem;
mod publish;
mod reader;
mod readers;
mod routes;
mod shelf;
mod sources;
mod streamer;
mod telemetry;
mod upkeep;

use anyhow::Context as _;
use clap::Parser;
use config::Config;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use streamer::Streamer;
use streamer_export::fuse;
use tokio::runtime::Handle;

/// Longest wait for reads, answers and goodbyes at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// A disk before its bytes have arrived.
#[derive(Debug, Parser)]
#[command(name = "collective-streamer", version)]
struct Arguments {
    /// The configuration.
    #[arg(long, default_value = "/etc/collective/streamer.toml")]
    config: PathBuf,
    /// Check the configuration, and do nothing else.
    #[arg(long)]
    check_config: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config: Config = chassis::config::load(&arguments.config)?;
    let engine = config.engine()?;
    if arguments.check_config {
        return Ok(());
    }
    chassis::telemetry::init("streamer");
    descriptors::take_all();
    let stop = chassis::shutdown::on_signal()?;
    // Whoever holds the API's socket is the daemon: nothing else is touched before.
    let api = chassis::unix_http::bind(&config.socket, 0o660)
        .with_context(|| format!("cannot serve {}", config.socket.display()))?;
    let streamer = Streamer::start(&config, engine).await?;
    let exports = streamer
        .exports()
        .serve(&config.nbd_socket, stop.clone())
        .with_context(|| format!("cannot serve {}", config.nbd_socket.display()))?;
    let exports = tokio::spawn(exports);
    let mount = match &config.mount_dir {
        Some(folder) => Some(fuse::mount(&streamer.exports(), folder, Handle::current())?),
        None => None,
    };
    let upkeep = tokio::spawn(Arc::clone(&streamer).upkeep(stop.clone()));
    tracing::info!(
        socket = %config.socket.display(),
        nbd_socket = %config.nbd_socket.display(),
        peers = %streamer.announce_addr(),
        cache = %config.cache_dir.display(),
        "serving"
    );
    chassis::unix_http::serve(api, routes::router(Arc::clone(&streamer)), stop).await;
    drop(mount);
    let drain = async {
        let _ = tokio::join!(exports, upkeep);
        streamer.shutdown().await;
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, drain).await.is_err() {
        tracing::warn!("not everything was closed in time; the next start verifies the cache");
    }
    Ok(())
}
