//! Takes a repository in. `tough` judges; here are the limits, the memory, and what names mean to us.
//!
//! The memory is one file, replaced whole: the newest root that was believed and the newest timestamp, snapshot and
//! targets. With it nobody can show an older state, also not after a crash. It is never made anew from nothing while the
//! subscription lasts: one that cannot be read is an error, not a fresh start.

use crate::error::{LoadError, chain};
use crate::layout::{Channels, METADATA, Meaning, PUBLISHER_FIELD, TARGETS, is_appliance};
use crate::transport::{Fetch, METADATA_LEN_MAX, Source};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;
use tough::schema::{RoleType, Root, Signed};
use tough::{IntoVec as _, RepositoryLoader, TargetName};
use types::{Digest, PublisherName, VersionName};

/// Longest time all metadata together may take, and one target.
const METADATA_TIME_MAX: Duration = Duration::from_secs(300);
const TARGET_TIME_MAX: Duration = Duration::from_secs(180);
/// Roots on the way from the one that is remembered.
const ROOTS_MAX: u64 = 256;
/// Appliances of a publisher, and versions of an appliance.
const APPLIANCES_MAX: usize = 256;
const VERSIONS_MAX: usize = 1_024;
/// Files of the verifier that are remembered.
const REMEMBERED: [&str; 5] =
    ["root.json", "timestamp.json", "snapshot.json", "targets.json", "latest_known_time.json"];

/// What an intact root says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Whose repository.
    pub publisher: PublisherName,
    /// The root's version.
    pub version: u64,
    /// Milliseconds since 1970 UTC.
    pub expires_ms: u64,
}

/// A version that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// SHA-256 of the signed bytes.
    pub signed: Digest,
}

/// What a repository offers of one appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub appliance: String,
    /// Versions that are whole: signed bytes, metainfo and manifest are listed.
    pub versions: BTreeMap<VersionName, Release>,
    /// It has channels.
    has_channels: bool,
}

/// A repository that was believed.
#[derive(Debug)]
pub struct Loaded {
    repository: tough::Repository,
    /// What the root says.
    pub root: Known,
    /// When the first of its roles expires, milliseconds since 1970 UTC.
    pub expires_ms: u64,
    _scratch: TempDir,
}

/// Checks that bytes are a root signed by itself, and says whose.
///
/// # Errors
/// One sentence.
pub fn check_root(bytes: &[u8]) -> Result<Known, LoadError> {
    if bytes.len() as u64 > METADATA_LEN_MAX {
        return Err(LoadError::Refused("the root is larger than any root".to_owned()));
    }
    let root: Signed<Root> = serde_json::from_slice(bytes)
        .map_err(|error| LoadError::Refused(format!("that is no root.json of a repository: {error}")))?;
    root.signed
        .verify_role(&root)
        .map_err(|error| LoadError::Refused(format!("the root is not signed by its own keys: {error}")))?;
    known(&root)
}

fn known(root: &Signed<Root>) -> Result<Known, LoadError> {
    let name = root.signed._extra.get(PUBLISHER_FIELD).and_then(|value| value.as_str()).unwrap_or_default();
    let publisher = name.parse().map_err(|_| {
        LoadError::Refused(format!("the root does not say whose repository it is ({PUBLISHER_FIELD})"))
    })?;
    Ok(Known { publisher, version: root.signed.version.get(), expires_ms: millis(root.signed.expires) })
}

fn millis(at: jiff::Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or_default()
}

/// Fetches and verifies all metadata. `root` is what was trusted by hand, `memory` the file that remembers since.
///
/// # Errors
/// [`LoadError`]; what was verified before the failure is remembered all the same, as the specification has it.
pub async fn load(
    publisher: &PublisherName,
    source: &Source,
    root: &[u8],
    memory: &Path,
) -> Result<Loaded, LoadError> {
    let fetch = Fetch::new(source).map_err(LoadError::Unreachable)?;
    let base = |folder| fetch.base(folder).map_err(LoadError::Unreachable);
    let (scratch, remembered) = recall(memory)?;
    let trusted = remembered.unwrap_or_else(|| root.to_vec());
    let loader = RepositoryLoader::new(&trusted, base(METADATA)?, base(TARGETS)?)
        .transport(fetch.clone())
        .limits(tough::Limits {
            max_root_size: METADATA_LEN_MAX,
            max_targets_size: METADATA_LEN_MAX,
            max_timestamp_size: METADATA_LEN_MAX,
            max_snapshot_size: METADATA_LEN_MAX,
            max_root_updates: ROOTS_MAX,
        })
        .datastore(scratch.path());
    let loaded = timeout(METADATA_TIME_MAX, loader.load()).await;
    remember(memory, scratch.path())?;
    let repository = loaded
        .map_err(|_| LoadError::Unreachable(format!("{source} takes longer than {METADATA_TIME_MAX:?}")))?
        .map_err(|error| judged(&error))?;
    let root = known(repository.root())?;
    if root.publisher != *publisher {
        return Err(LoadError::Refused(format!("the repository is {}'s, not {publisher}'s", root.publisher)));
    }
    let expires = [
        repository.root().signed.expires,
        repository.timestamp().signed.expires,
        repository.snapshot().signed.expires,
        repository.targets().signed.expires,
    ];
    let expires_ms = expires.into_iter().map(millis).min().unwrap_or_default();
    Ok(Loaded { repository, root, expires_ms, _scratch: scratch })
}

fn judged(error: &tough::error::Error) -> LoadError {
    use tough::error::Error;
    match error {
        Error::ExpiredMetadata { role, .. } => LoadError::Expired(match role {
            RoleType::DelegatedTargets => "targets".to_owned(),
            role => role.to_string(),
        }),
        Error::Transport { .. } => LoadError::Unreachable(chain(error)),
        _ => LoadError::Refused(chain(error)),
    }
}

/// A scratch folder with what is remembered, and the root among it.
fn recall(memory: &Path) -> Result<(TempDir, Option<Vec<u8>>), LoadError> {
    let failed = |what: &dyn std::fmt::Display| {
        LoadError::Memory(format!("cannot use {}, which keeps older states away: {what}", memory.display()))
    };
    let folder = memory.parent().unwrap_or(Path::new("."));
    let scratch =
        tempfile::Builder::new().prefix("load-").tempdir_in(folder).map_err(|error| failed(&error))?;
    let bytes = match std::fs::read(memory) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((scratch, None)),
        Err(error) => return Err(failed(&error)),
    };
    let files: BTreeMap<String, String> = serde_json::from_slice(&bytes)
        .map_err(|error| failed(&format!("it is damaged ({error}): unsubscribe and subscribe anew")))?;
    for name in REMEMBERED {
        if let Some(text) = files.get(name) {
            std::fs::write(scratch.path().join(name), text).map_err(|error| failed(&error))?;
        }
    }
    Ok((scratch, files.get("root.json").map(|text| text.clone().into_bytes())))
}

fn remember(memory: &Path, scratch: &Path) -> Result<(), LoadError> {
    let failed = |what: &dyn std::fmt::Display| {
        LoadError::Memory(format!("cannot write {}, which keeps older states away: {what}", memory.display()))
    };
    let mut files = BTreeMap::new();
    for name in REMEMBERED {
        match std::fs::read_to_string(scratch.join(name)) {
            Ok(text) => drop(files.insert(name, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    // Without a root nothing was believed yet.
    if !files.contains_key("root.json") {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&files).map_err(|error| failed(&error))?;
    chassis::durable::write(memory, &bytes, 0o600).map_err(|error| failed(&error))
}

impl Loaded {
    /// What each appliance's own role lists. Targets of names that mean nothing to us are passed over.
    ///
    /// # Errors
    /// There are more than can be, or a role's name is no appliance's.
    pub fn offers(&self) -> Result<Vec<Offer>, LoadError> {
        let refused = |what: String| Err(LoadError::Refused(what));
        let Some(delegations) = &self.repository.targets().signed.delegations else { return Ok(Vec::new()) };
        if delegations.roles.len() > APPLIANCES_MAX {
            return refused(format!("the repository has more than {APPLIANCES_MAX} appliances"));
        }
        let mut offers = Vec::new();
        for role in &delegations.roles {
            if !is_appliance(&role.name) {
                return refused(format!("{:?} is no name of an appliance", role.name));
            }
            let Some(targets) = &role.targets else { continue };
            let meanings: BTreeMap<String, Digest> = targets
                .signed
                .targets
                .iter()
                .filter_map(|(name, target)| {
                    let bytes: [u8; 32] = target.hashes.sha256.to_vec().try_into().ok()?;
                    Some((name.raw().to_owned(), Digest::from_bytes(bytes)))
                })
                .collect();
            let has = |meaning: Meaning| meanings.contains_key(&meaning.name(&role.name));
            let mut versions = BTreeMap::new();
            for (name, signed) in &meanings {
                if let Some(Meaning::Version(version)) = Meaning::parse(&role.name, name)
                    && has(Meaning::Metainfo(version.clone()))
                    && has(Meaning::Manifest(version.clone()))
                {
                    versions.insert(version, Release { signed: *signed });
                }
            }
            if versions.len() > VERSIONS_MAX {
                return refused(format!("{} has more than {VERSIONS_MAX} versions", role.name));
            }
            let has_channels = has(Meaning::Channels);
            offers.push(Offer { appliance: role.name.clone(), versions, has_channels });
        }
        Ok(offers)
    }

    /// Signed bytes, metainfo and manifest of a version.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn version(&self, appliance: &str, version: &VersionName) -> Result<[Vec<u8>; 3], LoadError> {
        let read = |meaning: Meaning| self.target(meaning.name(appliance));
        Ok([
            read(Meaning::Version(version.clone())).await?,
            read(Meaning::Metainfo(version.clone())).await?,
            read(Meaning::Manifest(version.clone())).await?,
        ])
    }

    /// Where an appliance's channels point.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn channels(&self, offer: &Offer) -> Result<Channels, LoadError> {
        if !offer.has_channels {
            return Ok(Channels::default());
        }
        let name = Meaning::Channels.name(&offer.appliance);
        let bytes = self.target(name.clone()).await?;
        serde_json::from_slice(&bytes).map_err(|error| LoadError::Refused(format!("{name}: {error}")))
    }

    async fn target(&self, name: String) -> Result<Vec<u8>, LoadError> {
        let refused = |what: String| LoadError::Refused(format!("{name}: {what}"));
        let target = TargetName::new(&name).map_err(|error| refused(error.to_string()))?;
        let fetched = timeout(TARGET_TIME_MAX, async {
            match self.repository.read_target(&target).await {
                Ok(Some(stream)) => stream.into_vec().await.map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            }
        });
        match fetched.await {
            Err(_) => Err(LoadError::Unreachable(format!("{name} takes longer than {TARGET_TIME_MAX:?}"))),
            Ok(Err(error)) => Err(judged(&error)),
            Ok(Ok(None)) => Err(refused("it is not listed".to_owned())),
            Ok(Ok(Some(bytes))) => Ok(bytes),
        }
    }
}
