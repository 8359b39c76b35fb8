//! `appliance`: publish, list, show.

mod release;
mod smoke;

use super::publisher::Place;
use super::{Session, note, path_of};
use crate::appliance_file::{self, Checked};
use crate::context::{config_folder, private_folder};
use crate::failure::{Failure, chain};
use crate::kinds::Kind;
use crate::progress::Bar;
use crate::{output, profile_files, time};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use controller_api::rest::{ApplianceView, PublishVersion, PublisherKey, SignedVersion, VersionView};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use streamer_api::{PublishRequest, Published};
use streamer_client::PublishError;
use types::{ApplianceRef, Base64, ChannelName, PublisherName, VersionName};

/// Given as a channel: none is moved.
const NO_CHANNEL: &str = "none";
/// Where a host's streamer listens.
const STREAMER_SOCKET: &str = "/run/collective/streamer.sock";

/// Publish appliances and look at the catalogue
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Cut, hash, seed, sign and register the appliance in a folder
    #[command(
        after_help = "The folder holds appliance.yaml and the raw disk it names. The publisher's key is made on \
        first use and kept in ~/.config/collective/publishers; back it up.\n\n\
        A profile names the pieces guests read, in order, so that they are fetched before they are asked for. To make \
        one, let some guests boot and ask for what was learnt. Publishing the same version again replaces it.\n\n\
        The appliance is booted once before, without a network. With --repo it goes to a repository that controllers follow \
        (see `collective publisher init`), and no controller is asked.\n\n\
        Examples:\n  collective appliance publish ./gateway --channel beta\n  \
        collective appliance publish ./gateway --repo /srv/acme --channel none\n  \
        collective stream profiles acme/gateway@1.0.0 -o json > ./gateway/profiles/boot.json"
    )]
    Publish(PublishArgs),
    /// Let a channel of a repository point to a version
    Promote {
        /// PUBLISHER/APPLIANCE
        name: ApplianceRef,
        /// The version
        version: VersionName,
        /// The channel
        #[arg(long, value_name = "NAME", default_value = "stable")]
        channel: ChannelName,
        #[command(flatten)]
        place: Place,
    },
    /// Withdraw a version of a repository: no channel leads to it, who runs it goes on
    Yank {
        /// PUBLISHER/APPLIANCE
        name: ApplianceRef,
        /// The version
        version: VersionName,
        /// Why, for those who run it
        #[arg(long, value_name = "TEXT", required_unless_present = "undo")]
        reason: Option<String>,
        /// Take the withdrawal back
        #[arg(long, conflicts_with = "reason")]
        undo: bool,
        #[command(flatten)]
        place: Place,
    },
    /// The catalogue
    #[command(visible_alias = "ls")]
    List,
    /// One appliance with its versions
    Show {
        /// PUBLISHER/APPLIANCE
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// Folder with appliance.yaml
    folder: PathBuf,
    /// Socket of the streamer that will seed it
    #[arg(long, value_name = "SOCKET", env = "COLLECTIVE_STREAMER")]
    streamer: Option<PathBuf>,
    /// Let this channel point to the version; `none` for no channel
    #[arg(long, value_name = "NAME", default_value = "stable")]
    channel: ChannelName,
    /// What guests are known to read, as `collective stream profiles -o json` writes it; else what is in profiles/ beside
    /// appliance.yaml
    #[arg(long, value_name = "FILE")]
    profile: Vec<PathBuf>,
    /// URL of the disk's raw bytes on a web server that answers range requests: asked when no peer has a piece
    #[arg(long, value_name = "URL")]
    web_seed: Option<String>,
    /// The publisher's Ed25519 key (PEM, PKCS#8)
    #[arg(long, value_name = "FILE", conflicts_with = "repo")]
    key: Option<PathBuf>,
    #[command(flatten)]
    smoke: smoke::SmokeArgs,
    #[command(flatten)]
    release: release::ReleaseArgs,
}

impl Command {
    /// It is about a repository: no controller is asked.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Publish(args) => args.release.repo.is_some(),
            Self::Promote { .. } | Self::Yank { .. } => true,
            Self::List | Self::Show { .. } => false,
        }
    }
}

/// What is done to a repository.
pub(crate) async fn local(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Publish(args) => release::publish(args).await?,
        Command::Promote { name, version, channel, place } => {
            release::promote(name, version, channel, place)?
        }
        Command::Yank { name, version, reason, place, .. } => {
            release::yank(name, version, reason.as_deref(), place)?;
        }
        Command::List | Command::Show { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    let now = chassis::clock::unix_ms();
    match command {
        Command::Publish(args) => publish(session, args).await?,
        // They are local.
        Command::Promote { .. } | Command::Yank { .. } => {}
        Command::List => {
            let list: Vec<ApplianceView> = session.client.appliances().await?;
            output::list(&mut out, &list, session.format, now)?;
        }
        Command::Show { name } => {
            let view: ApplianceView = session.client.get(&path_of(Kind::Appliance, name)?).await?;
            super::describe::appliance(&mut out, &view, session.format)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn publish(session: &Session, args: &PublishArgs) -> Result<(), Failure> {
    let checked = appliance_file::check(&args.folder)?;
    let profiles = profile_files::read(&args.folder, &args.profile)?;
    let publisher = checked.appliance.metadata.publisher.clone();
    let key = key(&publisher, args.key.as_deref())?;
    let version: VersionView = session.client.version().await?;
    let untested = smoke::test(&args.smoke, &checked.appliance.spec, &checked.disk).await?;
    let in_context = || session.context.streamer.clone();
    let socket = args.streamer.clone().or_else(in_context).unwrap_or_else(|| STREAMER_SOCKET.into());
    let published = seed(&socket, &checked, version.tracker).await?;
    register(session, &publisher, &key).await?;
    let metadata = &checked.appliance.metadata;
    let signed = serde_json::to_vec(&SignedVersion {
        publisher: publisher.clone(),
        appliance: metadata.name.clone(),
        version: metadata.version.clone(),
        image: published.digest,
        size_bytes: published.size_bytes,
        spec: checked.appliance.spec.clone(),
        untested,
    })
    .map_err(|error| Failure::failed(error.to_string()))?;
    let body = PublishVersion {
        signature: Base64(key.sign(&signed).as_ref().to_vec()),
        signed: Base64(signed),
        metainfo: published.metainfo,
        manifest: published.manifest,
        channel: Some(args.channel.clone()).filter(|channel| channel.as_str() != NO_CHANNEL),
        profiles,
        web_seed: args.web_seed.clone(),
    };
    let view: ApplianceView = session.client.publish(&body).await?;
    note(format_args!(
        "published {publisher}/{} {} ({}, image {})",
        metadata.name,
        metadata.version,
        time::bytes(checked.disk_bytes),
        published.digest.short()
    ));
    output::one(&mut std::io::stdout(), &view, session.format, chassis::clock::unix_ms())
}

async fn register(session: &Session, publisher: &PublisherName, key: &Ed25519KeyPair) -> Result<(), Failure> {
    let public_key = PublisherKey { public_key: Base64(key.public_key().as_ref().to_vec()) };
    Ok(session.client.put_publisher(publisher, &public_key).await?)
}

/// Hands the disk to the streamer and shows how far it is.
async fn seed(socket: &Path, checked: &Checked, tracker: String) -> Result<Published, Failure> {
    let request = PublishRequest { path: checked.disk.clone(), tracker, piece_bytes: None, public: false };
    let mut bar = Bar::new("hashing");
    let client = streamer_client::Client::new(socket);
    let result = client.publish(&request, |line| bar.show(line.bytes_done, line.bytes_total)).await;
    bar.end();
    result.map_err(|error| match error {
        PublishError::Failed { message, .. } => {
            Failure::refused(vec![format!("the streamer refused: {message}")])
        }
        error => Failure::unreachable(format!(
            "the streamer at {} did not publish: {}; is it running, and is --streamer right?",
            socket.display(),
            chain(&error)
        )),
    })
}

/// The publisher's key. Without a named file it is made on first use, and said so.
fn key(publisher: &PublisherName, file: Option<&Path>) -> Result<Ed25519KeyPair, Failure> {
    let path = match file {
        Some(file) => file.to_owned(),
        None => config_folder()?.join("publishers").join(format!("{publisher}.key")),
    };
    let failed = |error: String| Failure::failed(format!("cannot use the key {}: {error}", path.display()));
    if file.is_none() && !path.exists() {
        let pem = make_key().map_err(failed)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        private_folder(folder).map_err(|error| failed(error.to_string()))?;
        chassis::durable::write(&path, pem.as_bytes(), 0o600).map_err(|error| failed(error.to_string()))?;
        note(format_args!(
            "made a new key for publisher {publisher}: {} (keep a copy: without it no new version can be published)",
            path.display()
        ));
    }
    let pem = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    read_key(&pem).map_err(failed)
}

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// A new Ed25519 key as PKCS#8 (RFC 8410) in PEM, as `openssl genpkey` would write it.
fn make_key() -> Result<String, String> {
    let key = Ed25519KeyPair::generate().map_err(|_| "no randomness".to_owned())?;
    let der = key.to_pkcs8v1().map_err(|_| "it cannot be encoded".to_owned())?;
    Ok(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(der.as_ref())))
}

fn read_key(pem: &str) -> Result<Ed25519KeyPair, String> {
    let body = pem.split_once(PEM_BEGIN).and_then(|(_, rest)| rest.split_once(PEM_END));
    let (body, _) = body.ok_or_else(|| format!("it does not hold a PKCS#8 key in PEM ({PEM_BEGIN})"))?;
    let text: String = body.split_whitespace().collect();
    let der = STANDARD.decode(text).map_err(|error| format!("its PEM is damaged: {error}"))?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|error| format!("it is no Ed25519 key: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written() {
        let pem = make_key().unwrap();
        let key = read_key(&pem).unwrap();
        let signature = key.sign(b"bytes");
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ED25519,
            key.public_key().as_ref().to_vec(),
        );
        public.verify(b"bytes", signature.as_ref()).unwrap();
        assert!(public.verify(b"other", signature.as_ref()).is_err());
        assert_eq!(read_key(&pem).unwrap().public_key().as_ref(), key.public_key().as_ref());
    }

    #[test]
    fn what_is_no_key_is_refused_with_a_reason() {
        assert!(read_key("hello").unwrap_err().contains("BEGIN PRIVATE KEY"));
        assert!(read_key(&format!("{PEM_BEGIN}\nAAAA\n{PEM_END}")).unwrap_err().contains("no Ed25519 key"));
    }
}
