//! Versions and channels of a publisher's repository.

use super::{NO_CHANNEL, PublishArgs, STREAMER_SOCKET, seed, smoke};
use crate::appliance_file;
use crate::commands::note;
use crate::commands::publisher::{Keys, Place, commit, open};
use crate::failure::Failure;
use crate::time;
use controller_api::rest::SignedVersion;
use controller_publisher::{Files, PublisherError, Repository};
use std::path::{Path, PathBuf};
use types::{ApplianceRef, ChannelName, Digest, VersionName};

/// The metainfo's tracker: a subscriber's controller is the tracker of its own hosts.
const NO_TRACKER: &str = "https://tracker.invalid/announce";

/// Options of publishing into a repository.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReleaseArgs {
    /// Publish into this repository instead of a controller
    #[arg(long, value_name = "DIR", env = "COLLECTIVE_REPO", conflicts_with_all = ["profile", "web_seed"])]
    pub(crate) repo: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
    /// Leave the disk out of the repository: subscribers get it from peers only
    #[arg(long, requires = "repo")]
    without_image: bool,
}

pub(crate) async fn publish(args: &PublishArgs) -> Result<(), Failure> {
    let Some(repo) = &args.release.repo else { return Err(Failure::usage("write --repo")) };
    let checked = appliance_file::check(&args.folder)?;
    let metadata = checked.appliance.metadata.clone();
    // Nobody else changes it until it is written.
    let (mut repository, mut ring) = open(repo, &args.release.keys)?;
    whose(&repository, &metadata.publisher)?;
    let untested = smoke::test(&args.smoke, &checked.appliance.spec, &checked.disk).await?;
    let socket = args.streamer.clone().unwrap_or_else(|| STREAMER_SOCKET.into());
    let published = seed(&socket, &checked, NO_TRACKER.to_owned()).await?;
    let signed = serde_json::to_vec(&SignedVersion {
        publisher: metadata.publisher.clone(),
        appliance: metadata.name.clone(),
        version: metadata.version.clone(),
        image: published.digest,
        size_bytes: published.size_bytes,
        spec: checked.appliance.spec.clone(),
        untested,
    })
    .map_err(|error| Failure::failed(error.to_string()))?;
    let files = Files { signed: &signed, metainfo: &published.metainfo.0, manifest: &published.manifest.0 };
    repository.add_version(&mut ring, &metadata.name, &metadata.version, files)?;
    if !args.release.without_image {
        carry(&repository, &checked.disk, &published.digest)?;
    }
    if args.channel.as_str() != NO_CHANNEL {
        repository.promote(&metadata.name, &metadata.version, &args.channel)?;
    }
    commit(&mut repository, &ring)?;
    note(format_args!(
        "published {}/{} {} into {} ({}, image {})",
        metadata.publisher,
        metadata.name,
        metadata.version,
        repo.display(),
        time::bytes(checked.disk_bytes),
        published.digest.short()
    ));
    Ok(())
}

fn whose(repository: &Repository, given: &types::PublisherName) -> Result<(), Failure> {
    let held = repository.publisher();
    if held == given {
        return Ok(());
    }
    Err(PublisherError::OtherPublisher { held: held.clone(), given: given.clone() }.into())
}

/// Copies the disk beside the targets. It is whole or absent.
fn carry(repository: &Repository, disk: &Path, image: &Digest) -> Result<(), Failure> {
    let path = repository.image_file(image);
    if path.exists() {
        return Ok(());
    }
    let beside = path.with_extension("new");
    let copied = std::fs::copy(disk, &beside)
        .and_then(|_| std::fs::File::open(&beside)?.sync_all())
        .and_then(|()| std::fs::rename(&beside, &path));
    copied.map_err(|error| {
        // It may never have come to be.
        let _ = std::fs::remove_file(&beside);
        Failure::failed(format!("cannot copy the disk to {}: {error}", path.display()))
    })
}

pub(crate) fn promote(
    name: &ApplianceRef,
    version: &VersionName,
    channel: &ChannelName,
    place: &Place,
) -> Result<(), Failure> {
    let (mut repository, ring) = open(&place.repo, &place.keys)?;
    whose(&repository, &name.publisher)?;
    repository.promote(&name.appliance, version, channel)?;
    commit(&mut repository, &ring)?;
    note(format_args!("channel {channel} of {name} points to {version}"));
    Ok(())
}

/// Without a reason it is taken back.
pub(crate) fn yank(
    name: &ApplianceRef,
    version: &VersionName,
    reason: Option<&str>,
    place: &Place,
) -> Result<(), Failure> {
    let (mut repository, ring) = open(&place.repo, &place.keys)?;
    whose(&repository, &name.publisher)?;
    repository.yank(&name.appliance, version, reason)?;
    commit(&mut repository, &ring)?;
    let what = if reason.is_some() { "yanked" } else { "offered again" };
    note(format_args!("{name} {version} is {what}"));
    Ok(())
}
