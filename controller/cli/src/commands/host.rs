//! `host`: list them, make a join token, join; say what they are and whether they take instances.

pub(crate) mod moves;
mod removal;

use super::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::time;
use controller_api::host::{AskMoves, ChangeLabels, HostService};
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
    /// Say what a host is: KEY=VALUE sets a label, KEY- removes it
    #[command(
        after_help = "Members of a bundle ask for labels: placement: {labels: {disk: nvme}}.\n\nExample:\n  collective host label h1 disk=nvme rack=7 gpu-"
    )]
    Label {
        /// The host
        host: types::HostName,
        /// KEY=VALUE or KEY-
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
    },
    /// A host takes no new instances; those on it run on
    Cordon {
        /// The host
        host: types::HostName,
        /// Somebody works on it, and it may be gone at any time
        #[arg(long)]
        maintenance: bool,
    },
    /// Remove a host: its certificate is refused from then on
    #[command(
        after_help = "A host that holds instances or volumes is not removed: delete or move them first. With --force, for a\nhost that will never come back, what it ran under a lease starts elsewhere as soon as the lease has surely\nrun out, and everything else at once; volumes that no checkpoint holds elsewhere are lost, and said so.\nIf the machine runs after all, it goes on running what was not leased.\n\nExamples:\n  collective host remove h3\n  collective host remove h3 --force --restore"
    )]
    Remove {
        /// The host
        host: types::HostName,
        /// It will never come back
        #[arg(long)]
        force: bool,
        /// With --force: go on from the newest checkpoints that other hosts hold
        #[arg(long, requires = "force")]
        restore: bool,
    },
    /// A host takes new instances again
    Uncordon {
        /// The host
        host: types::HostName,
    },
    /// Vouch for a host's firmware and software, as the machine it is now
    #[command(
        after_help = "The word holds for the host's certificate: a machine that joins anew has lost it. Members of a bundle\nask for it: placement: {attested: true}.\n\nExample:\n  collective host attest h1 --note 'measured boot checked, ticket 4711'"
    )]
    Attest {
        /// The host
        host: types::HostName,
        /// What was looked at, and how
        #[arg(long, required_unless_present = "revoke")]
        note: Option<String>,
        /// Vouch for it no more
        #[arg(long, conflicts_with = "note")]
        revoke: bool,
    },
    /// Empty a host: it takes no new instances, and its own move to other hosts, alive
    #[command(
        after_help = "The placement policies say where each instance goes; they move one after the other between two hosts, and\nrun on meanwhile. What cannot move is said with the reason, and stays. `collective host uncordon` ends it.\n\nExamples:\n  collective host drain h1 --dry-run\n  collective host drain h1"
    )]
    Drain {
        /// The host
        host: types::HostName,
        /// Ask the placement policies, and change nothing
        #[arg(long, conflicts_with = "no_wait")]
        dry_run: bool,
        /// Do not wait until it is empty
        #[arg(long)]
        no_wait: bool,
        /// How long to wait; what is on its way goes on
        #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = time::duration)]
        timeout: Duration,
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
        Command::Label { host, labels } => {
            let view = session.client.change_labels(host, &labels_of(labels)?).await?;
            output::one(&mut out, &view, session.format, chassis::clock::unix_ms())?;
        }
        Command::Cordon { host, maintenance } => {
            let service = if *maintenance { HostService::Maintenance } else { HostService::Cordoned };
            serve(session, host, service).await?;
        }
        Command::Remove { host, force: false, .. } => {
            session.client.delete_host(host).await?;
            super::note(format_args!("host {host} is removed"));
        }
        Command::Remove { host, force: true, restore } => {
            let removed = session.client.remove_host_by_force(host, *restore).await?;
            removal::show(&mut out, &removed, session.format)?;
        }
        Command::Uncordon { host } => serve(session, host, HostService::InService).await?,
        Command::Attest { host, note, .. } => {
            let view = match note {
                Some(note) => session.client.attest(host, note).await?,
                None => session.client.revoke_attestation(host).await?,
            };
            output::one(&mut out, &view, session.format, chassis::clock::unix_ms())?;
        }
        Command::Drain { host, dry_run, no_wait, timeout } => {
            if !dry_run {
                session.client.set_service(host, HostService::Draining).await?;
                super::note(format_args!("{host} takes no new instances"));
            }
            let ask = AskMoves { execute: !dry_run, ..AskMoves::default() };
            let view = session.client.evacuation(host, &ask).await?;
            moves::show(&mut out, &view, session.format)?;
            if !dry_run {
                let wait = (!no_wait).then_some(*timeout);
                return super::moving::follow(session, &view, wait).await;
            }
        }
        Command::Join(args) => return join(args),
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(session: &Session, host: &types::HostName, service: HostService) -> Result<(), Failure> {
    let view = session.client.set_service(host, service).await?;
    output::one(&mut std::io::stdout(), &view, session.format, chassis::clock::unix_ms())
}

/// `KEY=VALUE` sets, `KEY-` removes.
fn labels_of(words: &[String]) -> Result<ChangeLabels, Failure> {
    let mut change = ChangeLabels::default();
    for word in words {
        match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => drop(change.set.insert(key.to_owned(), value.to_owned())),
            (None, Some(key)) => drop(change.remove.insert(key.to_owned())),
            (None, None) => {
                return Err(Failure::usage(format!(
                    "{word:?} is no label: write KEY=VALUE, or KEY- to remove"
                )));
            }
        }
    }
    Ok(change)
}

/// Which instances would be better off on other hosts, and move them there
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The answers are stored as decisions (collective get decisions).\n\nExamples:\n  collective rebalance --dry-run --gain 0.2\n  collective rebalance --execute --moves 3"
)]
pub(crate) struct RebalanceArgs {
    /// Ask the placement policies, and change nothing
    #[arg(long, required_unless_present = "execute", conflicts_with = "execute")]
    dry_run: bool,
    /// Move them, alive, one after the other between two hosts
    #[arg(long)]
    execute: bool,
    /// How long to wait; what is on its way goes on
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = time::duration)]
    timeout: Duration,
    /// Most moves, 1 to 1000
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    moves: u32,
    /// The least gain worth a move, as a share of the present host's score, 0 to 10
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    gain: f64,
}

pub(crate) async fn rebalance(session: &Session, args: &RebalanceArgs) -> Result<ExitCode, Failure> {
    let ask = AskMoves { moves_max: Some(args.moves), gain_min: Some(args.gain), execute: args.execute };
    let view = session.client.rebalance(&ask).await?;
    moves::show(&mut std::io::stdout(), &view, session.format)?;
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    super::moving::follow(session, &view, Some(args.timeout)).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_set_with_a_value_and_removed_with_a_dash() {
        let words = ["disk=nvme".to_owned(), "gpu-".to_owned(), "row=a=b-".to_owned()];
        let change = labels_of(&words).unwrap();
        assert_eq!(change.set["disk"], "nvme");
        assert_eq!(change.set["row"], "a=b-");
        assert!(change.remove.contains("gpu") && change.remove.len() == 1);
        assert!(labels_of(&["disk".to_owned()]).is_err());
    }
}
