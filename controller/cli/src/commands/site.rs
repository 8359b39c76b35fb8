//! `site`: what one could start without the rest of the world.

use super::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::time;
use controller_api::recovery::{DeploymentReadiness, SiteReadiness};
use std::io::Write;
use std::process::ExitCode;
use types::SiteName;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Whether a site could start its deployments if it were cut off now, and what is missing; exit 1 if not
    #[command(
        after_help = "A deployment is ready if all of its instances are on connected hosts of the site, those have taken up their\ndocuments, and every image and checkpoint file that its disks stand on is wholly on one of them. Fetch what is\nmissing with: collective stream prefetch.\n\nExample:\n  collective site readiness berlin"
    )]
    Readiness {
        /// The site; all if absent
        #[arg(value_name = "SITE")]
        site: Option<SiteName>,
    },
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    let Command::Readiness { site } = command;
    let names = match site {
        Some(site) => vec![site.clone()],
        None => session.client.sites().await?.into_iter().map(|site| site.name).collect(),
    };
    let mut views = Vec::new();
    for name in &names {
        views.push(session.client.site_readiness(name).await?);
    }
    show(&mut std::io::stdout(), &views, session.format)?;
    if views.iter().all(|view| view.ready) {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::from(Code::Failed as u8))
    }
}

fn show(out: &mut impl Write, views: &[SiteReadiness], format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(out, &views),
        Format::Yaml => output::yaml(out, &views),
        Format::Name => {
            for view in views.iter().filter(|view| view.ready) {
                writeln!(out, "{}", view.site)?;
            }
            Ok(())
        }
        Format::Table | Format::Wide => table(out, views),
    }
}

fn table(out: &mut impl Write, views: &[SiteReadiness]) -> Result<(), Failure> {
    let row = |site: &SiteReadiness, deployment: &DeploymentReadiness| {
        let ready = match (deployment.ready, deployment.leased) {
            (false, _) => "no",
            (true, false) => "yes",
            (true, true) => "stops",
        };
        vec![
            site.site.to_string(),
            deployment.deployment.to_string(),
            ready.to_owned(),
            time::bytes(deployment.missing_bytes),
        ]
    };
    let rows: Vec<_> = views
        .iter()
        .flat_map(|site| site.deployments.iter().map(move |deployment| row(site, deployment)))
        .collect();
    output::table(out, &["SITE", "DEPLOYMENT", "READY", "MISSING"], &rows)?;
    for deployment in views.iter().flat_map(|view| &view.deployments) {
        for obstacle in &deployment.obstacles {
            writeln!(out, "{}: {}", deployment.deployment, output::printable(obstacle))?;
        }
        for missing in &deployment.missing {
            let most = missing
                .most_at
                .as_ref()
                .map(|host| format!("; host {host} has the rest"))
                .unwrap_or_default();
            let (bytes, image) = (time::bytes(missing.missing_bytes), missing.image.short());
            writeln!(out, "{}: {bytes} of image {image} are not here{most}", deployment.deployment)?;
        }
        if deployment.leased {
            writeln!(out, "{}: runs under a lease: a site that is cut off stops it", deployment.deployment)?;
        }
    }
    for view in views {
        let (site, online, hosts) = (&view.site, view.hosts_online, view.hosts);
        writeln!(out, "site {site}: {online} of {hosts} hosts are connected")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_missing_where_and_what_stops_by_design() {
        let view: SiteReadiness = serde_json::from_value(serde_json::json!({
            "site": "berlin", "ready": false, "hosts": 2, "hosts_online": 1, "deployments": [
                {"deployment": "office", "ready": false, "leased": false, "missing_bytes": 1048576,
                 "missing": [{"image": format!("sha256:{}", "ab".repeat(32)), "missing_bytes": 1048576,
                              "most_at": "h1"}],
                 "obstacles": ["workspace is on host p1, elsewhere"]},
                {"deployment": "lab", "ready": true, "leased": true, "missing_bytes": 0, "missing": [],
                 "obstacles": []},
            ],
        }))
        .unwrap();
        let mut text = Vec::new();
        show(&mut text, &[view], Format::Table).unwrap();
        let text = String::from_utf8(text).unwrap();
        for part in ["workspace is on host p1, elsewhere", "host h1 has the rest", "stops", "1 of 2 hosts"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
