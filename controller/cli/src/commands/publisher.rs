//! `publisher`: a publisher's own repository and its keys. No controller is asked.

use super::note;
use crate::context::config_folder;
use crate::failure::{Code, Failure, chain};
use crate::output::{self, Format, Row};
use crate::time;
use controller_publisher::{
    KeyRing, PublicKey, PublisherError, Repository, Role, RoleView, RootKeys, Validity,
};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use types::PublisherName;

/// A publisher's repository (The Update Framework) and its keys
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a repository in a folder, with keys for every role
    #[command(
        after_help = "The folder can be served by any web server or carried on a stick; it holds no secret. Keys go to \
        ~/.config/collective/publishers/NAME, one file each, readable by you only. Whoever has the root keys is the \
        publisher: keep them offline, and a copy elsewhere. Give subscribers metadata/1.root.json by another way than the \
        repository.\n\nExample:\n  collective publisher init ./repo --name acme --root-keys 3 --root-threshold 2"
    )]
    Init(InitArgs),
    /// Keys of the roles
    #[command(subcommand)]
    Key(KeyCommand),
    /// Replace a role's keys by new ones; subscribers follow by themselves
    #[command(
        after_help = "Every change of root's, targets', snapshot's or timestamp's keys makes a new root, which a threshold of \
        the root keys must sign. Old key files stay: move them away once subscribers have seen the new root.\n\n\
        Examples:\n  collective publisher rotate timestamp --repo ./repo\n  \
        collective publisher rotate root --repo ./repo --keys /media/stick/root"
    )]
    Rotate {
        /// root, targets, snapshot, timestamp or appliance/NAME
        role: Role,
        #[command(flatten)]
        place: Place,
    },
    /// Sign anew what expires, so that subscribers know that nothing is hidden from them
    #[command(
        after_help = "To be run by a timer, more often than the timestamp's days. It needs the keys of timestamp and \
        snapshot; other roles are renewed as well if they expire within 60 days and their keys are at hand.\n\n\
        Example (crontab):\n  17 3 * * * collective publisher refresh --repo /srv/acme"
    )]
    Refresh {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        validity: ValidityArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Folder to make it in
    folder: PathBuf,
    /// The publisher's name
    #[arg(long)]
    name: PublisherName,
    /// Root keys to make
    #[arg(long, value_name = "N", default_value_t = 1)]
    root_keys: usize,
    /// Root keys that must sign a new root
    #[arg(long, value_name = "N", default_value_t = 1)]
    root_threshold: u64,
    /// Folder for the keys
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    #[command(flatten)]
    validity: ValidityArgs,
}

/// How long signatures are good for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ValidityArgs {
    /// Days until the timestamp expires: so long may somebody hide newer versions
    #[arg(long, value_name = "DAYS", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=3650))]
    valid_days: u32,
}

impl ValidityArgs {
    fn validity(&self) -> Validity {
        let usual = Validity::default();
        Validity {
            timestamp_days: self.valid_days,
            snapshot_days: usual.snapshot_days.max(self.valid_days),
            long_days: usual.long_days.max(self.valid_days),
        }
    }
}

/// Which repository, with which keys.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// The repository's folder
    #[arg(long, value_name = "DIR", env = "COLLECTIVE_REPO")]
    pub(crate) repo: PathBuf,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

/// Where keys are.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Keys {
    /// Folder with key files, may be given several times; new keys go to the first. Default:
    /// ~/.config/collective/publishers/NAME
    #[arg(long, value_name = "DIR")]
    keys: Vec<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyCommand {
    /// Roles with their keys, and which of them are at hand
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Give a role one key more: a new one, or somebody else's
    Add {
        /// root, targets, snapshot, timestamp or appliance/NAME
        role: Role,
        /// Signatures the role needs from now on; as before if absent
        #[arg(long, value_name = "N")]
        threshold: Option<u64>,
        /// An Ed25519 public key (64 hexadecimal digits) whose secret somebody else has
        #[arg(long, value_name = "HEX")]
        public: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}

impl From<PublisherError> for Failure {
    fn from(error: PublisherError) -> Self {
        use PublisherError as P;
        let code = match &error {
            P::File { .. } | P::Damaged { .. } | P::Metadata(_) => Code::Failed,
            P::Exists(_) | P::Published { .. } | P::Offered { .. } | P::Yanked { .. } => Code::Conflict,
            P::Absent(_) | P::NoVersion { .. } | P::NoRole(_) => Code::NotFound,
            P::KeysMissing { .. } | P::KeyOpen { .. } => Code::Forbidden,
            P::OtherPublisher { .. } | P::Threshold { .. } => Code::Refused,
        };
        Self::new(code, chain(&error))
    }
}

/// The keys at hand for a publisher.
pub(crate) fn ring(publisher: &PublisherName, keys: &Keys) -> Result<KeyRing, Failure> {
    let usual = || Ok::<_, Failure>(config_folder()?.join("publishers").join(publisher.as_str()));
    match keys.keys.split_first() {
        Some((first, others)) => Ok(KeyRing::open(first, others)?),
        None => Ok(KeyRing::open(&usual()?, &[])?),
    }
}

/// A repository with the keys at hand.
pub(crate) fn open(repo: &Path, keys: &Keys) -> Result<(Repository, KeyRing), Failure> {
    let repository = Repository::open(repo)?;
    let ring = ring(repository.publisher(), keys)?;
    Ok((repository, ring))
}

/// Signs and writes with the usual times.
pub(crate) fn commit(repository: &mut Repository, ring: &KeyRing) -> Result<(), Failure> {
    Ok(repository.commit(ring, Validity::default(), now())?)
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[derive(Serialize)]
struct Shown {
    role: String,
    threshold: u64,
    keys: Vec<String>,
    at_hand: Vec<String>,
    version: u64,
    expires_ms: u64,
}

impl Shown {
    fn new(view: RoleView, ring: &KeyRing) -> Self {
        let at_hand = view.keys.iter().filter(|id| ring.file(id).is_some()).cloned().collect();
        let RoleView { role, threshold, keys, version, expires_ms } = view;
        Self { role: role.to_string(), threshold, keys, at_hand, version, expires_ms }
    }
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &["ROLE", "NEEDS", "KEYS", "AT-HAND", "VERSION", "EXPIRES"];
    const WIDE: &'static [&'static str] = &[];
    fn name(&self) -> String {
        self.role.clone()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        vec![
            self.role.clone(),
            format!("{} of {}", self.threshold, self.keys.len()),
            self.keys.join(","),
            self.at_hand.len().to_string(),
            self.version.to_string(),
            time::utc(self.expires_ms),
        ]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }
}

fn show(repository: &Repository, ring: &KeyRing, format: Format) -> Result<(), Failure> {
    let rows: Vec<_> = repository.roles().into_iter().map(|view| Shown::new(view, ring)).collect();
    output::list(&mut std::io::stdout(), &rows, format, chassis::clock::unix_ms())
}

pub(crate) fn run(command: &Command, format: Format) -> Result<ExitCode, Failure> {
    match command {
        Command::Init(args) => init(args, format)?,
        Command::Key(KeyCommand::List { place }) => {
            let (repository, ring) = open(&place.repo, &place.keys)?;
            show(&repository, &ring, format)?;
        }
        Command::Key(KeyCommand::Add { role, threshold, public, place }) => {
            let (mut repository, mut ring) = open(&place.repo, &place.keys)?;
            let key = match public {
                Some(text) => PublicKey::parse(text)?,
                None => ring.make(&role.to_string().replace('/', "-"))?,
            };
            repository.add_key(role, key, *threshold)?;
            commit(&mut repository, &ring)?;
            show(&repository, &ring, format)?;
        }
        Command::Rotate { role, place } => {
            let (mut repository, mut ring) = open(&place.repo, &place.keys)?;
            repository.rotate(role, &mut ring)?;
            commit(&mut repository, &ring)?;
            show(&repository, &ring, format)?;
        }
        Command::Refresh { place, validity } => {
            let (mut repository, ring) = open(&place.repo, &place.keys)?;
            for role in repository.refresh(&ring, validity.validity(), now())? {
                note(format_args!(
                    "role {role} expires within 60 days and its keys are not at hand: run this again with --keys"
                ));
            }
            show(&repository, &ring, format)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn init(args: &InitArgs, format: Format) -> Result<(), Failure> {
    if args.folder.join("metadata/1.root.json").exists() {
        return Err(PublisherError::Exists(args.folder.clone()).into());
    }
    let keys = Keys { keys: args.keys.iter().cloned().collect() };
    let mut ring = ring(&args.name, &keys)?;
    let root = RootKeys { count: args.root_keys, threshold: args.root_threshold };
    let made =
        Repository::create(&args.folder, &args.name, &mut ring, root, args.validity.validity(), now())?;
    note(format_args!(
        "made {}'s repository; give subscribers {} by a way they trust, and keep the root keys offline",
        args.name,
        made.root_file().display()
    ));
    show(&made, &ring, format)
}
