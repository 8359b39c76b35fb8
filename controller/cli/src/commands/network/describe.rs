//! Hosts, ports and counters of one network.

use super::counted;
use crate::commands::Session;
use crate::failure::Failure;
use crate::output::{self, Format, printable};
use controller_api::network::{NetworkHost, NetworkPort, NetworkView};
use netd_api::Uplink;
use std::io::Write;
use std::process::ExitCode;
use types::{DeploymentName, NameError, NetworkName};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// DEPLOYMENT/NETWORK
    #[arg(value_name = "NETWORK", value_parser = parse_network)]
    network: (DeploymentName, NetworkName),
}

fn parse_network(text: &str) -> Result<(DeploymentName, NetworkName), String> {
    let (deployment, network) = text
        .split_once('/')
        .ok_or_else(|| format!("{text:?} is no network: write DEPLOYMENT/NETWORK, such as office/inside"))?;
    let said = |error: NameError| error.to_string();
    Ok((deployment.parse().map_err(said)?, network.parse().map_err(said)?))
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let view = session.client.network(&args.network.0, &args.network.1).await?;
    let mut out = std::io::stdout();
    match session.format {
        Format::Json => output::json(&mut out, &view)?,
        Format::Yaml => output::yaml(&mut out, &view)?,
        Format::Name => writeln!(out, "{}/{}", view.deployment, view.name)?,
        Format::Table | Format::Wide => write(&mut out, &view)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write(out: &mut impl Write, view: &NetworkView) -> Result<(), Failure> {
    let kind = if view.wire { " (wire)" } else { "" };
    writeln!(out, "Network:  {}/{}{kind}", view.deployment, view.name)?;
    writeln!(out, "Ready:    {}", if view.ready { "yes" } else { "no" })?;
    writeln!(out, "Subnets:  {}", printable(&view.subnets.join(", ")))?;
    if !view.outside.is_empty() {
        writeln!(out, "Outside:  {}", printable(&view.outside.join(", ")))?;
    }
    writeln!(out, "MTU:      {}", view.mtu)?;
    for host in &view.hosts {
        write_host(out, host)?;
    }
    Ok(())
}

fn write_host(out: &mut impl Write, host: &NetworkHost) -> Result<(), Failure> {
    let state = match (host.online, host.up) {
        (false, _) => "offline",
        (true, true) => "up",
        (true, false) => "not up",
    };
    writeln!(out, "\nHost {}: {state}, bridge {}, {}", host.host, host.bridge, uplink(&host.uplink))?;
    if let Some(router) = &host.router {
        let ready = if router.ready { "ready" } else { "not ready" };
        let namespace = printable(&router.namespace);
        writeln!(out, "  router {ready} in namespace {namespace}, {} leases", router.leases)?;
    }
    for conflict in &host.conflicts {
        writeln!(out, "  conflict: {}", printable(conflict))?;
    }
    for failure in &host.failures {
        writeln!(out, "  failure: {}", printable(failure))?;
    }
    let headers = ["PORT", "ADDRESSES", "READY", "OPEN", "SENT", "RECEIVED", "SPOOFED", "REFUSED"];
    let rows: Vec<_> = host.ports.iter().map(cells).collect();
    Ok(output::table(out, &headers, &rows)?)
}

fn cells(port: &NetworkPort) -> Vec<String> {
    let status = port.status.clone().unwrap_or_default();
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let refused = status.dropped_from_guest.frames.saturating_add(status.dropped_to_guest.frames);
    vec![
        port.id.clone(),
        port.addresses.join(","),
        if port.held { "held".into() } else { yes(status.ready) },
        yes(status.carrier),
        counted(status.from_guest),
        counted(status.to_guest),
        status.dropped_spoofed.frames.to_string(),
        refused.to_string(),
    ]
}

fn uplink(uplink: &Uplink) -> String {
    match uplink {
        Uplink::None => "leaves this host nowhere".into(),
        Uplink::Vxlan { vni, peers, .. } => {
            let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
            format!("VXLAN {vni} to {}", if peers.is_empty() { "nobody".into() } else { peers.join(", ") })
        }
        Uplink::Vlan { trunk, vid, .. } => format!("VLAN {vid} of trunk {trunk}"),
        Uplink::Site { site } => format!("LAN of site {site}"),
    }
}
