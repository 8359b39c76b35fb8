//! `interpose`: appliances into and out of the paths of running ports.

use super::{Session, note};
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Row, or_dash};
use crate::time;
use controller_api::interpose::{InterpositionPhase, InterpositionSpec, InterpositionView, MemberPort};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use types::{ApplianceRef, ChannelName, DeploymentName, NameError, VersionName};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The appliance boots beside the path and comes into it once it is ready: the guest's link stays up and its \
    connections live on. From then on nothing passes without it. Its first two ports are used, the outer and the inner \
    one. Several at one port form a chain, the first nearest to the guest. With --remove they leave the path first, \
    then they go. It all stands in the deployment's document (spec.interpositions).\n\nExamples:\n  \
    collective interpose office/workspace/eth0 --with acme/proxy --wait\n  \
    collective interpose office/workspace/eth0 --with acme/crypt --pair server/eth0\n  \
    collective interpose office/workspace/eth0 --remove\n  collective interpose office/workspace/eth0"
)]
pub(crate) struct Args {
    /// DEPLOYMENT/MEMBER/PORT
    #[arg(value_name = "PORT", value_parser = parse_port)]
    port: (DeploymentName, MemberPort),
    /// PUBLISHER/APPLIANCE that goes into the path, or with --remove the only one to leave it
    #[arg(long, value_name = "APPLIANCE")]
    with: Option<ApplianceRef>,
    /// Follow this channel instead of stable
    #[arg(long, requires = "with", conflicts_with_all = ["version", "remove"])]
    channel: Option<ChannelName>,
    /// Stay at this version
    #[arg(long, requires = "with", conflicts_with = "remove")]
    version: Option<VersionName>,
    /// MEMBER/PORT of the other end: the appliance goes there too, and both come into the path at once
    #[arg(long, value_name = "PORT", requires = "with", conflicts_with = "remove")]
    pair: Option<MemberPort>,
    /// Take out of the path what is in it
    #[arg(long)]
    remove: bool,
    /// Stay until it is in the path, or gone
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = time::duration)]
    timeout: Duration,
}

fn parse_port(text: &str) -> Result<(DeploymentName, MemberPort), String> {
    let wrong =
        || format!("{text:?} is no port: write DEPLOYMENT/MEMBER/PORT, such as office/workspace/eth0");
    let (deployment, port) = text.split_once('/').ok_or_else(wrong)?;
    if !port.contains('/') {
        return Err(wrong());
    }
    let said = |error: NameError| error.to_string();
    Ok((deployment.parse().map_err(said)?, port.parse().map_err(said)?))
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let (deployment, port) = &args.port;
    let client = &session.client;
    let view = match (&args.with, args.remove) {
        (with, true) => client.end_interposition(deployment, port, with.as_ref()).await?,
        (Some(with), false) => client.interpose(deployment, &entry(args, with)).await?,
        (None, false) => client.deployment(deployment).await?,
    };
    if !args.wait {
        return shown(session, args, view.interpositions);
    }
    let begin = Instant::now();
    let mut told = String::new();
    loop {
        let now = client.deployment(deployment).await?.interpositions;
        match pending(args, &now) {
            None => return shown(session, args, now),
            Some(what) if begin.elapsed() >= args.timeout => {
                let message = format!("{deployment}/{port}: {what} after {:?}", args.timeout);
                return Err(Failure::new(Code::Timeout, message));
            }
            Some(what) => {
                if told != what {
                    note(&what);
                    told = what;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn entry(args: &Args, with: &ApplianceRef) -> InterpositionSpec {
    InterpositionSpec {
        port: args.port.1.clone(),
        with: with.clone(),
        channel: args.channel.clone(),
        version: args.version.clone(),
        pair: args.pair.clone(),
    }
}

fn concerns(args: &Args, view: &InterpositionView) -> bool {
    view.port == args.port.1 && args.with.as_ref().is_none_or(|with| *with == view.with)
}

/// What is still waited for.
fn pending(args: &Args, views: &[InterpositionView]) -> Option<String> {
    let mut own = views.iter().filter(|view| concerns(args, view));
    let pending =
        own.find(|view| args.remove || view.phase != InterpositionPhase::Spliced || !view.passes)?;
    let reason = pending.reason.as_deref().unwrap_or("it is on its way");
    Some(format!("{}: {reason}", pending.instance))
}

fn shown(session: &Session, args: &Args, views: Vec<InterpositionView>) -> Result<ExitCode, Failure> {
    let rows: Vec<Shown> = views.into_iter().filter(|view| view.port == args.port.1).map(Shown).collect();
    if rows.is_empty() && matches!(session.format, Format::Table | Format::Wide) {
        note(format_args!("nothing is interposed at {}/{}", args.port.0, args.port.1));
        return Ok(ExitCode::SUCCESS);
    }
    output::list(&mut std::io::stdout(), &rows, session.format, 0)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct Shown(InterpositionView);

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &["PORT", "WITH", "INSTANCE", "PHASE", "PASSES"];
    const WIDE: &'static [&'static str] = &["PAIR", "REASON"];

    fn name(&self) -> String {
        self.0.instance.to_string()
    }

    fn cells(&self, _: u64) -> Vec<String> {
        let view = &self.0;
        let phase = match view.phase {
            InterpositionPhase::Prepared => "prepared",
            InterpositionPhase::Spliced => "spliced",
            InterpositionPhase::Leaving => "leaving",
        };
        vec![
            view.port.to_string(),
            view.with.to_string(),
            view.instance.to_string(),
            phase.into(),
            if view.passes { "yes" } else { "no" }.into(),
        ]
    }

    fn wide_cells(&self, _: u64) -> Vec<String> {
        vec![or_dash(self.0.pair.as_ref()), or_dash(self.0.reason.as_ref())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_named_by_three_names() {
        let (deployment, port) = parse_port("office/workspace/eth0").unwrap();
        assert_eq!((deployment.as_str(), port.to_string().as_str()), ("office", "workspace/eth0"));
        for wrong in ["office", "office/workspace", "office/workspace/", "office/workspace/eth0/x", "//"] {
            assert!(parse_port(wrong).is_err(), "{wrong}");
        }
    }
}
