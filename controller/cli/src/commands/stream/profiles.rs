//! What guests of a version are known to read.

use super::{Target, parse_target, version_of};
use crate::commands::{Session, note};
use crate::failure::{Code, Failure};
use crate::output::{self, Row};
use crate::time;
use std::process::ExitCode;
use streamer_api::Profile;
use types::ChannelName;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A profile is learnt from the boots of all hosts. Written as JSON it can be published with the next \
    version: see `collective appliance publish --help`.\n\nExamples:\n  collective stream profiles acme/workspace\n  \
    collective stream profiles acme/workspace@1.0.0 -o json > profiles/boot.json"
)]
pub(super) struct Args {
    /// PUBLISHER/APPLIANCE@VERSION, or PUBLISHER/APPLIANCE for what the channel points to
    #[arg(value_name = "VERSION", value_parser = parse_target)]
    target: Target,
    /// The channel that says which version
    #[arg(long, value_name = "NAME", default_value = "stable")]
    channel: ChannelName,
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let version = version_of(session, &args.target, args.channel.as_str()).await?;
    let view = session.client.appliance(&args.target.appliance).await?;
    let published = view.versions.iter().find(|published| published.version == version).ok_or_else(|| {
        let name = &args.target.appliance;
        Failure::new(Code::NotFound, format!("there is no version {version} of {name}"))
    })?;
    let profiles = session.client.profiles(&published.image).await?;
    if profiles.is_empty() {
        note(format_args!("no guest of {}@{version} was seen to boot yet", args.target.appliance));
    }
    output::list(&mut std::io::stdout(), &profiles, session.format, 0)?;
    Ok(ExitCode::SUCCESS)
}

impl Row for Profile {
    const COLUMNS: &'static [&'static str] = &["NAME", "RUNS", "PIECES", "SPAN"];
    const WIDE: &'static [&'static str] = &["FIRST PIECES"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let span = self.entries.last().map_or(0, |last| u64::from(last.at_ms));
        vec![self.name.clone(), self.runs.to_string(), self.entries.len().to_string(), time::span(0, span)]
    }

    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let first = self.entries.iter().take(8).map(|entry| entry.piece.to_string());
        vec![first.collect::<Vec<_>>().join(",")]
    }
}
