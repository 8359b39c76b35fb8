//! Networks and how they are.

use crate::commands::Session;
use crate::failure::Failure;
use crate::output::{self, Row};
use controller_api::network::NetworkView;
use std::process::ExitCode;
use types::DeploymentName;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this deployment's
    #[arg(value_name = "DEPLOYMENT")]
    deployment: Option<DeploymentName>,
    /// Exit 1 if one is not ready
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let mut views = session.client.networks().await?;
    views.retain(|view| args.deployment.as_ref().is_none_or(|name| *name == view.deployment));
    let ready = views.iter().all(|view| view.ready);
    let rows: Vec<Shown> = views.into_iter().map(Shown).collect();
    output::list(&mut std::io::stdout(), &rows, session.format, 0)?;
    Ok(if args.check && !ready { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct Shown(NetworkView);

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &["NETWORK", "READY", "SUBNETS", "HOSTS", "PORTS"];
    const WIDE: &'static [&'static str] = &["MTU", "BRIDGES", "CONFLICTS"];

    fn name(&self) -> String {
        format!("{}/{}", self.0.deployment, self.0.name)
    }

    fn cells(&self, _: u64) -> Vec<String> {
        let view = &self.0;
        let ports = || view.hosts.iter().flat_map(|host| &host.ports);
        let ready = ports().filter(|port| port.status.as_ref().is_some_and(|status| status.ready)).count();
        let hosts: Vec<_> = view.hosts.iter().map(|host| host.host.to_string()).collect();
        vec![
            self.name(),
            if view.ready { "yes" } else { "no" }.into(),
            if view.wire { "wire".into() } else { view.subnets.join(",") },
            hosts.join(","),
            format!("{ready}/{}", ports().count()),
        ]
    }

    fn wide_cells(&self, _: u64) -> Vec<String> {
        let hosts = &self.0.hosts;
        let bridges: Vec<_> = hosts.iter().map(|host| format!("{}:{}", host.host, host.bridge)).collect();
        let conflicts: Vec<_> = hosts.iter().flat_map(|host| host.conflicts.clone()).collect();
        vec![self.0.mtu.to_string(), bridges.join(","), conflicts.join("; ")]
    }
}
