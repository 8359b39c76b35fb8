//! `stream`: disks arriving, why they were waited for, and how hosts are told to fetch them.

mod boot;
mod hold;
mod limits;
mod profiles;
mod top;
mod why;

use super::Session;
use crate::failure::Failure;
use crate::output::Format;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;
use types::{ApplianceRef, VersionName};

/// Between two pictures.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "In the map of an instance each cell stands for some pieces: # all here, + some here, > being fetched, \
    . absent, 0 known to be zero.\n\nExamples:\n  collective stream office/workspace\n  collective stream top\n  \
    collective stream why office/workspace\n  collective stream prefetch acme/workspace@2.0.0 --wait\n  \
    collective stream limits --site main --site-download 20MB/s"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// DEPLOYMENT/MEMBER
    #[arg(value_name = "INSTANCE", required = true)]
    instance: Option<String>,
    /// Only one picture, also on a terminal
    #[arg(long)]
    once: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every image on every host: readers, rates, waits, profiles
    Top(top::Args),
    /// What an instance's boot waited for, and why
    Why(why::Args),
    /// Fetch a version ahead of its roll-out
    Prefetch(hold::PrefetchArgs),
    /// Keep a version's image on hosts, whatever else is evicted
    Pin(hold::PinArgs),
    /// Let a version's image be evicted again
    Unpin(hold::UnpinArgs),
    /// Versions that hosts hold ahead of need, and how far they are
    Holds,
    /// How fast hosts may fetch and send; shown, or changed
    Limits(limits::Args),
    /// What guests of a version are known to read
    Profiles(profiles::Args),
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Some(Command::Top(args)) => top::run(session, args).await,
        Some(Command::Why(args)) => why::run(session, args).await,
        Some(Command::Prefetch(args)) => hold::prefetch(session, args).await,
        Some(Command::Pin(args)) => hold::pin(session, args).await,
        Some(Command::Unpin(args)) => hold::unpin(session, args).await,
        Some(Command::Holds) => hold::list(session).await,
        Some(Command::Limits(args)) => limits::run(session, args).await,
        Some(Command::Profiles(args)) => profiles::run(session, args).await,
        None => boot::run(session, args.instance.as_deref().unwrap_or_default(), args.once).await,
    }
}

/// Draws a picture, and on a terminal again and again in its place.
async fn live(
    session: &Session,
    once: bool,
    mut draw: impl AsyncFnMut(&mut Vec<u8>) -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    let live = out.is_terminal() && !once && matches!(session.format, Format::Table | Format::Wide);
    let mut drawn = 0;
    loop {
        let mut text = Vec::new();
        draw(&mut text).await?;
        if drawn > 0 {
            // Up to the first line of the last picture, then clear to the end of the screen.
            write!(out, "\u{1b}[{drawn}A\u{1b}[J")?;
        }
        drawn = text.iter().filter(|byte| **byte == b'\n').count();
        out.write_all(&text)?;
        out.flush()?;
        if !live {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `PUBLISHER/APPLIANCE`, of which one version is meant or what a channel points to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    appliance: ApplianceRef,
    version: Option<VersionName>,
}

fn parse_target(text: &str) -> Result<Target, String> {
    let (appliance, version) = match text.split_once('@') {
        Some((appliance, version)) => (appliance, Some(version)),
        None => (text, None),
    };
    let appliance = appliance.parse().map_err(|error: types::NameError| error.to_string())?;
    let version = version.map(str::parse).transpose().map_err(|error: types::NameError| error.to_string())?;
    Ok(Target { appliance, version })
}

/// The version that is meant.
async fn version_of(session: &Session, target: &Target, channel: &str) -> Result<VersionName, Failure> {
    if let Some(version) = &target.version {
        return Ok(version.clone());
    }
    let view = session.client.appliance(&target.appliance).await?;
    let pointer = view.channels.iter().find(|(name, _)| name.as_str() == channel);
    pointer.map(|(_, version)| version.clone()).ok_or_else(|| {
        let name = &target.appliance;
        Failure::new(
            crate::failure::Code::NotFound,
            format!("{name} has no channel {channel}: name a version, such as {name}@1.0.0"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_behind_an_at_sign() {
        let named = parse_target("acme/workspace@2.0.0").unwrap();
        assert_eq!(
            (named.appliance.to_string(), named.version.unwrap().to_string()),
            ("acme/workspace".into(), "2.0.0".into())
        );
        assert_eq!(parse_target("acme/workspace").unwrap().version, None);
        for wrong in ["workspace", "acme/", "acme/workspace@", "a/b@c/d"] {
            assert!(parse_target(wrong).is_err(), "{wrong}");
        }
    }
}
