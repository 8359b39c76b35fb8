//! Who speaks with whom.

use crate::commands::{Session, note};
use crate::failure::Failure;
use crate::output::{self, Row};
use crate::time;
use controller_api::network::FlowView;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Conversations are counted on networks whose bundle says `flows: true`, and forgotten a minute after their last frame."
)]
pub(crate) struct Args {
    /// DEPLOYMENT or DEPLOYMENT/NETWORK
    #[arg(value_name = "OF")]
    of: String,
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let view = session.client.flows(&args.of).await?;
    for silent in &view.silent {
        note(silent);
    }
    if !view.uncounted.is_empty() {
        let names: Vec<_> = view.uncounted.iter().map(ToString::to_string).collect();
        note(format_args!("not counted, their bundle does not say `flows: true`: {}", names.join(", ")));
    }
    let rows: Vec<Shown> = view.flows.into_iter().map(Shown).collect();
    output::list(&mut std::io::stdout(), &rows, session.format, 0)?;
    Ok(if view.silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct Shown(FlowView);

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        number => number.to_string(),
    }
}

fn end(address: IpAddr, port: u16) -> String {
    if port == 0 { address.to_string() } else { SocketAddr::new(address, port).to_string() }
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &["PORT", "PROTOCOL", "FROM", "TO", "FRAMES", "BYTES", "IDLE"];
    const WIDE: &'static [&'static str] = &["HOST"];

    fn name(&self) -> String {
        self.0.flow.port.clone()
    }

    fn cells(&self, _: u64) -> Vec<String> {
        let flow = &self.0.flow;
        vec![
            flow.port.clone(),
            protocol(flow.protocol),
            end(flow.from, flow.from_port),
            end(flow.to, flow.to_port),
            flow.counter.frames.to_string(),
            time::bytes(flow.counter.bytes),
            format!("{}s", flow.idle_seconds),
        ]
    }

    fn wide_cells(&self, _: u64) -> Vec<String> {
        vec![self.0.host.to_string()]
    }
}
