//! What a person asks a running netd on the command line.

use anyhow::{Context as _, bail};
use clap::Args;
use netd_api::{Capture, End, Explanation, Question, Service, Stage, Verdict};
use netd_client::Client;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// `collective-netd explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  May the web server's clients reach it? Then let the kernel prove it:
    collective-netd explain --from office/a/eth0 --to office/web/eth0 --tcp 80 --prove
  May somebody on the site's LAN?
    collective-netd explain --from 192.0.2.7 --to office/web/eth0 --tcp 80
  From the second of a port's addresses:
    collective-netd explain --from office/a/eth0@fd00::10 --to office/b/eth0 --echo")]
pub(crate) struct ExplainArguments {
    /// Who opens the connection: a port's id, ID@ADDRESS for one of its addresses, or the ADDRESS of somebody outside.
    #[arg(long, value_name = "END", value_parser = parse_end)]
    from: End,
    /// To whom, written alike.
    #[arg(long, value_name = "END", value_parser = parse_end)]
    to: End,
    #[command(flatten)]
    service: ServiceArguments,
    /// Sends such frames through a copy of the two ports and their rules, and sees what arrives.
    #[arg(long)]
    prove: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ServiceArguments {
    /// A TCP connection to this port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    tcp: Option<u16>,
    /// UDP datagrams to this port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    udp: Option<u16>,
    /// ICMP or ICMPv6 echo.
    #[arg(long)]
    echo: bool,
    /// Address resolution only.
    #[arg(long)]
    resolve: bool,
}

impl ServiceArguments {
    fn service(&self) -> Service {
        match (self.tcp, self.udp) {
            (Some(listen_port), _) => Service::Tcp { listen_port },
            (_, Some(listen_port)) => Service::Udp { listen_port },
            _ if self.echo => Service::Echo,
            _ => Service::Resolve,
        }
    }
}

/// `collective-netd capture`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  Watch a port for a minute:
    collective-netd capture office/a/eth0 | tcpdump -n -r -
  Keep ten seconds of a whole network's ports on this host:
    collective-netd capture office/lan --seconds 10 --write lan.pcapng")]
pub(crate) struct CaptureArguments {
    /// Ids of ports, or of networks for all of their ports on this host.
    #[arg(required = true, value_name = "ID")]
    of: Vec<String>,
    /// How long, 1 to 3,600.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Bytes kept of each frame, 14 to 65,535.
    #[arg(long, value_name = "BYTES", default_value_t = 65_535)]
    snap: u32,
    /// Bytes of the whole capture, 1,024 to 1,073,741,824.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    bytes: u64,
    /// To a file, or - for the standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    write: PathBuf,
}

/// A port's id has a slash, an address has none.
fn parse_end(text: &str) -> Result<End, String> {
    if let Ok(address) = text.parse() {
        return Ok(End::Outside { address });
    }
    let Some((id, address)) = text.rsplit_once('@') else {
        return Ok(End::Port { id: text.to_owned(), address: None });
    };
    let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is no IP address"))?;
    Ok(End::Port { id: id.to_owned(), address: Some(address) })
}

/// The answer, a line a place.
pub(crate) async fn explain(client: &Client, arguments: ExplainArguments) -> anyhow::Result<Vec<String>> {
    let ExplainArguments { from, to, service, prove } = arguments;
    let question = Question { from, to, service: service.service(), prove };
    Ok(table(&client.explain(&question).await?))
}

fn table(explanation: &Explanation) -> Vec<String> {
    let width = explanation.stages.iter().map(|stage| stage.place.chars().count()).max().unwrap_or_default();
    let mut lines: Vec<String> = explanation.stages.iter().map(|stage| line(stage, width)).collect();
    let proof = match explanation.proven {
        None => String::new(),
        Some(seen) if seen == explanation.verdict => "; the kernel does the same".to_owned(),
        Some(seen) => {
            format!("; but the kernel does not: {}. This is a fault of netd, please report it", word(seen))
        }
    };
    lines.push(format!("{}{proof}", word(explanation.verdict)));
    lines
}

fn line(stage: &Stage, width: usize) -> String {
    let counter =
        stage.counter.map(|counter| format!(" ({} frames so far)", counter.frames)).unwrap_or_default();
    format!("{}  {:width$}  {}{counter}", word(stage.verdict), stage.place, stage.why)
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
    }
}

/// Writes the capture as it comes.
pub(crate) async fn capture(client: &Client, arguments: CaptureArguments) -> anyhow::Result<()> {
    let CaptureArguments { of, seconds, snap, bytes, write } = arguments;
    let mut stream = client.capture(&Capture { of, snap_bytes: snap, seconds, bytes }).await?;
    let mut output = output(&write)?;
    while let Some(chunk) = stream.chunk().await? {
        let written = output.write_all(&chunk).and_then(|()| output.flush());
        match written {
            // Whoever read has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.with_context(|| format!("cannot write to {}", write.display()))?,
        }
    }
    Ok(())
}

fn output(path: &Path) -> anyhow::Result<Box<dyn Write>> {
    if path != Path::new("-") {
        let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
        return Ok(Box::new(file));
    }
    if io::stdout().is_terminal() {
        bail!("a capture is not for a terminal: say --write FILE, or pipe it into tcpdump -n -r -");
    }
    Ok(Box::new(io::stdout()))
}

/// Who speaks with whom, busiest first.
pub(crate) async fn flows(client: &Client) -> anyhow::Result<Vec<String>> {
    let mut flows = client.flows().await?;
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.counter.bytes));
    let rows = flows.iter().map(|flow| {
        let end = |address: IpAddr, port: u16| match (address, port) {
            (address, 0) => address.to_string(),
            (IpAddr::V4(v4), port) => format!("{v4}:{port}"),
            (IpAddr::V6(v6), port) => format!("[{v6}]:{port}"),
        };
        let protocol = match flow.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            other => other.to_string(),
        };
        let (from, to) = (end(flow.from, flow.from_port), end(flow.to, flow.to_port));
        let (frames, bytes, idle) = (flow.counter.frames, flow.counter.bytes, flow.idle_seconds);
        format!("{}  {protocol}  {from} > {to}  {frames} frames  {bytes} bytes  {idle} s ago", flow.port)
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_api::Counter;

    #[test]
    fn ends_are_told_apart() {
        let port = |address: Option<&str>| End::Port {
            id: "office/a/eth0".to_owned(),
            address: address.map(|text| text.parse().unwrap()),
        };
        assert_eq!(parse_end("office/a/eth0"), Ok(port(None)));
        assert_eq!(parse_end("office/a/eth0@fd00::1"), Ok(port(Some("fd00::1"))));
        assert_eq!(parse_end("192.0.2.7"), Ok(End::Outside { address: "192.0.2.7".parse().unwrap() }));
        assert!(parse_end("office/a/eth0@here").is_err());
    }

    #[test]
    fn an_explanation_is_a_table() {
        let stage = |place: &str, verdict, why: &str, frames: Option<u64>| Stage {
            place: place.to_owned(),
            verdict,
            why: why.to_owned(),
            counter: frames.map(|frames| Counter { frames, bytes: 0 }),
        };
        let explanation = Explanation {
            verdict: Verdict::Drop,
            stages: vec![
                stage("a sends", Verdict::Pass, "accepted", None),
                stage("bb is sent it", Verdict::Drop, "no accept rule", Some(3)),
            ],
            proven: Some(Verdict::Drop),
        };
        assert_eq!(
            table(&explanation),
            [
                "pass  a sends        accepted",
                "drop  bb is sent it  no accept rule (3 frames so far)",
                "drop; the kernel does the same",
            ]
        );
    }
}
