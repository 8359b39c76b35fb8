//! `catalog`: publishers' repositories that the controller follows.

use super::{Session, note};
use crate::failure::{Code, Failure};
use crate::output::{self, Row};
use crate::time;
use controller_api::subscription::{RepositorySource, Subscribe, SubscriptionState, SubscriptionView};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use types::{Base64, PublisherName};

/// Largest root file taken.
const ROOT_BYTES_MAX: u64 = 4 << 20;

/// Follow publishers' repositories: their versions and channels come into the catalogue by themselves
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Follow a publisher's repository
    #[command(
        after_help = "The root file is where all trust begins: get it from the publisher by another way than the repository. \
        The controller looks at the repository at once and refuses what it cannot believe; then again in turn. Later roots \
        are followed by themselves.\n\nExamples:\n  \
        collective catalog subscribe acme --url https://acme.example/collective --root acme.root.json\n  \
        collective catalog subscribe acme --folder /mnt/stick/acme --root acme.root.json"
    )]
    Subscribe(SubscribeArgs),
    /// Subscriptions, how they stand and since when
    #[command(visible_alias = "ls")]
    List,
    /// One subscription
    Show {
        /// The publisher
        publisher: PublisherName,
    },
    /// Look at a repository now
    Refresh {
        /// The publisher
        publisher: PublisherName,
    },
    /// Follow a repository no more; what is in the catalogue stays
    Unsubscribe {
        /// The publisher
        publisher: PublisherName,
    },
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["url", "folder"])))]
pub(crate) struct SubscribeArgs {
    /// The publisher
    publisher: PublisherName,
    /// The repository on a web server, https://...
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The repository in a folder of the controller's machine, absolute
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// A root.json of the repository, got by a way you trust
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Certificates (PEM) of the web server's authority, if the controller's machine does not trust it
    #[arg(long, value_name = "FILE", requires = "url")]
    url_ca: Option<PathBuf>,
    /// Pause between two looks, such as 30m
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    every: Option<std::time::Duration>,
}

impl Row for SubscriptionView {
    const COLUMNS: &'static [&'static str] =
        &["PUBLISHER", "STATE", "SINCE", "VERSIONS", "EXPIRES", "PROBLEM"];
    const WIDE: &'static [&'static str] = &["SOURCE", "ROOT", "REFRESHED", "EVERY"];
    fn name(&self) -> String {
        self.publisher.to_string()
    }
    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            Row::name(self),
            word(self.state).to_owned(),
            format!("{} ago", time::age(self.since_ms, now_ms)),
            self.versions.to_string(),
            time::utc(self.expires_ms),
            self.problem.clone().unwrap_or_default(),
        ]
    }
    fn wide_cells(&self, now_ms: u64) -> Vec<String> {
        let source = match &self.source {
            RepositorySource::Web { url, .. } => url.clone(),
            RepositorySource::Folder { path } => path.clone(),
        };
        let refreshed = format!("{} ago", time::age(self.refreshed_ms, now_ms));
        vec![source, self.root_version.to_string(), refreshed, format!("{}s", self.interval_s)]
    }
}

fn word(state: SubscriptionState) -> &'static str {
    match state {
        SubscriptionState::Current => "current",
        SubscriptionState::Failing => "failing",
        SubscriptionState::Frozen => "frozen",
    }
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    let (mut out, now) = (std::io::stdout(), chassis::clock::unix_ms());
    let view = match command {
        Command::List => {
            let list = session.client.subscriptions().await?;
            output::list(&mut out, &list, session.format, now)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Unsubscribe { publisher } => {
            session.client.unsubscribe(publisher).await?;
            note(format_args!("{publisher} is followed no more; its versions stay in the catalogue"));
            return Ok(ExitCode::SUCCESS);
        }
        Command::Show { publisher } => session.client.get(&format!("/v1/subscriptions/{publisher}")).await?,
        Command::Refresh { publisher } => session.client.refresh_subscription(publisher).await?,
        Command::Subscribe(args) => session.client.subscribe(&args.publisher, &request(args)?).await?,
    };
    let view: SubscriptionView = view;
    output::one(&mut out, &view, session.format, now)?;
    match &view.problem {
        Some(problem) if !matches!(command, Command::Show { .. }) => {
            Err(Failure::new(Code::Failed, format!("{} is {}: {problem}", view.publisher, word(view.state))))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn request(args: &SubscribeArgs) -> Result<Subscribe, Failure> {
    let source = match (&args.url, &args.folder) {
        (Some(url), _) => {
            let ca = args.url_ca.as_deref().map(read).transpose()?;
            let ca = ca.map(String::from_utf8).transpose();
            let ca = ca.map_err(|_| Failure::usage("the authority's file holds no certificate (PEM)"))?;
            RepositorySource::Web { url: url.clone(), ca }
        }
        (None, Some(folder)) => {
            let path = std::path::absolute(folder).map_err(|error| Failure::usage(error.to_string()))?;
            RepositorySource::Folder { path: path.to_string_lossy().into_owned() }
        }
        (None, None) => return Err(Failure::usage("write --url or --folder")),
    };
    let interval_s = args.every.map(|every| every.as_secs());
    Ok(Subscribe { source, root: Base64(read(&args.root)?), interval_s })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(ROOT_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    if bytes.len() as u64 > ROOT_BYTES_MAX {
        return Err(Failure::usage(format!("{} is larger than any root or certificate", path.display())));
    }
    Ok(bytes)
}
