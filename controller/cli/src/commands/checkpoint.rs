//! `checkpoint`, `suspend`, `resume`: states of a deployment one can go back to.

use super::{Session, note};
use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::time;
use chassis::clock::unix_ms;
use controller_api::checkpoint::{CreateCheckpoint, RestoreCheckpoint, Resume};
use std::process::ExitCode;
use std::time::Duration;
use types::{DeploymentName, HostName, MemberName, SiteName};

mod show;
mod wait;

#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "A checkpoint is of all members of a deployment at one instant: their ports are held while they \
    are taken, so that nobody remembers what another has not done yet. It costs what was written since the last one.\
    \n\nExamples:\n  collective checkpoint create office --memory\n  collective checkpoint list office\n  \
    collective checkpoint diff office 20260131-120000 20260201-120000\n  \
    collective checkpoint restore office 20260131-120000\n  \
    collective checkpoint restore office before-the-change --as-new office-copy"
)]
pub(crate) enum Command {
    /// Take one
    Create(Create),
    /// Those of a deployment, newest first
    List {
        /// The deployment
        deployment: DeploymentName,
    },
    /// One with its members, disks and replicas
    Show(Named),
    /// Go back to one, after a checkpoint of what is there now
    Restore(Restore),
    /// Forbid that it is dropped, by policies and by `delete`
    Pin(Named),
    /// Allow again that it is dropped
    Unpin(Named),
    /// What a later one holds that an earlier one does not
    Diff {
        /// The deployment
        deployment: DeploymentName,
        /// The earlier one
        from: String,
        /// The later one
        to: String,
    },
    /// Drop one, or cancel one that is being taken
    Delete(Named),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The deployment
    deployment: DeploymentName,
    /// The checkpoint, as `list` names it
    checkpoint: String,
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct Waiting {
    /// Order it, and do not wait for it
    #[arg(long)]
    no_wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = time::duration, conflicts_with = "no_wait")]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ports are held for no longer than --hold-max, and with --memory for 10s longer for every GiB of \
    it on one host; if a host is slower, nothing is taken and the guests go on. A host that is out of reach is a \
    refusal: a checkpoint is of all members or none.\n\nExamples:\n  collective checkpoint create office\n  \
    collective checkpoint create office --name before-the-change --pin\n  \
    collective checkpoint create office --memory --hold-max 20s"
)]
pub(crate) struct Create {
    /// The deployment
    deployment: DeploymentName,
    /// Its name: a-z, 0-9 and dashes; the time (UTC) if absent
    #[arg(long)]
    name: Option<String>,
    /// With the guests' memory: a restore goes on where they were
    #[arg(long)]
    memory: bool,
    /// No policy drops it
    #[arg(long)]
    pin: bool,
    /// Longest time that the guests are without a network (100ms to 10m; 5s if absent)
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    hold_max: Option<Duration>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Members go back together, to the version, hardware and disks of then. What is there now becomes a \
    checkpoint first, unless --discard-current says that it is not wanted. With --as-new the deployment stays as it is, \
    and another one of the same bundle begins with the checkpoint's disks; its guests boot, as their addresses are \
    others.\n\nExamples:\n  collective checkpoint restore office 20260131-120000\n  \
    collective checkpoint restore office 20260131-120000 --memory\n  \
    collective checkpoint restore office 20260131-120000 --member workspace --discard-current\n  \
    collective checkpoint restore office 20260131-120000 --as-new office-copy"
)]
pub(crate) struct Restore {
    #[command(flatten)]
    which: Named,
    /// Only this member; may be given several times
    #[arg(long, value_name = "MEMBER")]
    member: Vec<MemberName>,
    /// Go on from the saved memory instead of booting
    #[arg(long)]
    memory: bool,
    /// Take no checkpoint of what is there now: it is lost
    #[arg(long)]
    discard_current: bool,
    /// Make a new deployment of this name from it instead
    #[arg(long, value_name = "NAME", conflicts_with_all = ["member", "memory", "discard_current"])]
    as_new: Option<DeploymentName>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Takes a checkpoint with memory and switches the guests off before their ports pass again: what \
    others have seen of them is in it. `collective resume` goes on from there, on the same or another host.\n\n\
    Examples:\n  collective suspend office\n  collective suspend office --no-wait"
)]
pub(crate) struct SuspendArgs {
    /// The deployment
    deployment: DeploymentName,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  collective resume office\n  collective resume office --host h2\n  \
    collective resume office --site branch\n  collective resume office --boot")]
pub(crate) struct ResumeArgs {
    /// The deployment
    deployment: DeploymentName,
    /// All members on this host; where they were if absent
    #[arg(long, conflicts_with = "site")]
    host: Option<HostName>,
    /// At this site, wherever they fit
    #[arg(long)]
    site: Option<SiteName>,
    /// From this checkpoint instead of the one that it was suspended into
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<String>,
    /// Boot from the disks, without the memory
    #[arg(long)]
    boot: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    let client = &session.client;
    match command {
        Command::Create(args) => create(session, args).await,
        Command::List { deployment } => {
            let rows: Vec<_> = client.checkpoints(deployment).await?.into_iter().map(show::Line).collect();
            if rows.is_empty() && matches!(session.format, Format::Table | Format::Wide) {
                note(format_args!("deployment {deployment} has no checkpoint"));
                return Ok(ExitCode::SUCCESS);
            }
            output::list(&mut std::io::stdout(), &rows, session.format, unix_ms())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Show(which) => {
            show::one(session, client.checkpoint(&which.deployment, &which.checkpoint).await?)
        }
        Command::Restore(args) => restore(session, args).await,
        Command::Pin(which) => pin(session, which, true).await,
        Command::Unpin(which) => pin(session, which, false).await,
        Command::Diff { deployment, from, to } => {
            show::diff(session, &client.diff_checkpoints(deployment, from, to).await?)
        }
        Command::Delete(which) => {
            client.delete_checkpoint(&which.deployment, &which.checkpoint).await?;
            note(format_args!("checkpoint {} of {} is dropped", which.checkpoint, which.deployment));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn create(session: &Session, args: &Create) -> Result<ExitCode, Failure> {
    let pause_max_ms = args.hold_max.map(|hold| u64::try_from(hold.as_millis()).unwrap_or(u64::MAX));
    let wish = CreateCheckpoint {
        name: args.name.clone(),
        with_memory: args.memory,
        pause_max_ms,
        pinned: args.pin,
    };
    let ordered = session.client.create_checkpoint(&args.deployment, &wish).await?;
    if args.waiting.no_wait {
        return show::line(session, ordered);
    }
    let taken = wait::until_taken(session, &args.deployment, &ordered.name, args.waiting.timeout).await?;
    show::line(session, taken)
}

async fn pin(session: &Session, which: &Named, pinned: bool) -> Result<ExitCode, Failure> {
    show::line(session, session.client.pin_checkpoint(&which.deployment, &which.checkpoint, pinned).await?)
}

async fn restore(session: &Session, args: &Restore) -> Result<ExitCode, Failure> {
    let wish = RestoreCheckpoint {
        members: args.member.iter().cloned().collect(),
        with_memory: args.memory,
        discard_current: args.discard_current,
        as_new: args.as_new.clone(),
    };
    let begun =
        session.client.restore_checkpoint(&args.which.deployment, &args.which.checkpoint, &wish).await?;
    if let Some(before) = &begun.before {
        note(format_args!("what is there now becomes checkpoint {before}"));
    }
    if !args.waiting.no_wait {
        if let Some(before) = &begun.before {
            wait::until_taken(session, &begun.deployment, before, args.waiting.timeout).await?;
        }
        wait::until_ready(session, &begun.deployment, args.waiting.timeout).await?;
    }
    done(session, &begun, "goes on from checkpoint")
}

pub(crate) async fn suspend(session: &Session, args: &SuspendArgs) -> Result<ExitCode, Failure> {
    let begun = session.client.suspend(&args.deployment).await?;
    if !args.waiting.no_wait {
        wait::until_taken(session, &args.deployment, &begun.checkpoint, args.waiting.timeout).await?;
    }
    done(session, &begun, "is suspended into checkpoint")
}

pub(crate) async fn resume(session: &Session, args: &ResumeArgs) -> Result<ExitCode, Failure> {
    let wish = Resume {
        checkpoint: args.checkpoint.clone(),
        host: args.host.clone(),
        site: args.site.clone(),
        without_memory: args.boot,
    };
    let begun = session.client.resume(&args.deployment, &wish).await?;
    if !args.waiting.no_wait {
        wait::until_ready(session, &args.deployment, args.waiting.timeout).await?;
    }
    done(session, &begun, "goes on from checkpoint")
}

fn done(
    session: &Session,
    begun: &controller_api::checkpoint::RestoreView,
    what: &str,
) -> Result<ExitCode, Failure> {
    match session.format {
        Format::Json => output::json(&mut std::io::stdout(), begun)?,
        Format::Yaml => output::yaml(&mut std::io::stdout(), begun)?,
        _ => note(format_args!("deployment {} {what} {}", begun.deployment, begun.checkpoint)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A wait that was not long enough.
fn too_long(what: &str, timeout: Duration, last: &str) -> Failure {
    Failure::new(Code::Timeout, format!("{what} after {timeout:?}: {last}"))
}
