//! `events`: what happened.

use super::Session;
use crate::failure::Failure;
use crate::output::{self, Format, printable};
use crate::time;
use std::io::Write as _;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  collective events --follow --object instance/office/workspace")]
pub(crate) struct Args {
    /// Stay, and write what happens
    #[arg(short, long)]
    follow: bool,
    /// Only those after this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    since: u64,
    /// Only those of one object, such as host/h1
    #[arg(long, value_name = "KIND/NAME")]
    object: Option<String>,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let mut events = session.client.events(types::Revision(args.since), args.follow).await?;
    let mut out = std::io::stdout();
    while let Some(event) = events.next().await? {
        if args.object.as_ref().is_some_and(|object| *object != event.object) {
            continue;
        }
        match session.format {
            Format::Json => output::json_line(&mut out, &event)?,
            Format::Yaml => output::yaml(&mut out, &[&event])?,
            Format::Name => writeln!(out, "{}", event.object)?,
            Format::Table | Format::Wide => writeln!(
                out,
                "{}  {:<28}  {:<20}  {}",
                time::utc(event.at_ms),
                printable(&event.object),
                printable(&event.reason),
                printable(&event.message)
            )?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
