//! `host`: list them, make a join token, join.

use super::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::time;
use controller_api::rest::{HostView, JoinToken, JoinTokenRequest};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Beside this program or on the path.
const AGENT: &str = "collective-agent";

/// Hosts, and how a machine becomes one
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All hosts
    #[command(visible_alias = "ls")]
    List,
    /// A one-time token for a machine that shall join
    Token {
        /// What it joins as: host or origin
        #[arg(long, default_value = "host", value_parser = ["host", "origin"])]
        role: String,
        /// How long it is valid, up to 1d
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = time::duration)]
        valid: Duration,
    },
    /// Make this machine a host: ask for its certificate (run it on the machine, with a token from `host token`)
    #[command(
        after_help = "Example:\n  collective host join --controller https://10.0.0.1:8443 \\\n      --join-token cj1... --host h1 --site main"
    )]
    Join(JoinArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// The controller's address
    #[arg(long, value_name = "URL")]
    controller: String,
    /// The one-time token; it also says which controller to trust
    #[arg(long, value_name = "TOKEN")]
    join_token: String,
    /// This machine's name
    #[arg(long, value_name = "NAME")]
    host: types::HostName,
    /// Its site
    #[arg(long, value_name = "NAME", default_value = "main")]
    site: types::SiteName,
    /// Where its key and certificate are kept
    #[arg(long, value_name = "FOLDER", default_value = "/etc/collective/identity")]
    state: PathBuf,
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    match command {
        Command::List => {
            let hosts: Vec<HostView> = session.client.hosts().await?;
            output::list(&mut out, &hosts, session.format, chassis::clock::unix_ms())?;
        }
        Command::Token { role, valid } => {
            let body = JoinTokenRequest { role: Some(role.clone()), valid_s: Some(valid.as_secs()) };
            let token: JoinToken = session.client.join_token(&body).await?;
            match session.format {
                Format::Json => output::json(&mut out, &token)?,
                Format::Yaml => output::yaml(&mut out, &token)?,
                _ => writeln!(out, "{}", token.token)?,
            }
        }
        Command::Join(args) => return join(args),
    }
    Ok(ExitCode::SUCCESS)
}

/// The agent knows how to join; this is its command under the name people look for.
pub(crate) fn join(args: &JoinArgs) -> Result<ExitCode, Failure> {
    let beside =
        std::env::current_exe().ok().map(|path| path.with_file_name(AGENT)).filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from(AGENT));
    let status = std::process::Command::new(&program)
        .args(["join", "--server", &args.controller, "--token", &args.join_token])
        .args(["--host", args.host.as_str(), "--site", args.site.as_str(), "--state"])
        .arg(&args.state)
        .status()
        .map_err(|error| {
            Failure::failed(format!("cannot run {}: {error}; is it installed?", program.display()))
        })?;
    if status.success() {
        super::note(format_args!("{} has joined; start collective-agent to put it to work", args.host));
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(Code::Failed, format!("the join failed ({status})")))
}
