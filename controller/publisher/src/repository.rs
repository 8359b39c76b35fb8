//! The maker's side: reads a repository it trusts, changes it in memory, signs and writes what changed.
//!
//! Order of writing: targets, then each role's file under a new number, then snapshot, the timestamp last. Whoever
//! fetches meanwhile sees the old state or the new one, and so does the next run after a crash.

use crate::error::PublisherError;
use crate::keys::{KeyRing, PublicKey, short};
use crate::layout::{
    Channels, IMAGES, METADATA, Meaning, PUBLISHER_FIELD, Role, SPEC_VERSION, TARGETS, is_appliance,
};
use crate::write::{self, must_sign, role_keys, signatures};
use jiff::{SignedDuration, Timestamp as Instant};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use tough::TargetName;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{
    DelegatedRole, Delegations, PathPattern, PathSet, Role as _, RoleType, Root, Signed, Snapshot, Targets,
    Timestamp,
};
use types::{ChannelName, PublisherName, VersionName};

const FIRST: NonZeroU64 = NonZeroU64::MIN;
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// A role that expires sooner is signed anew by [`Repository::refresh`], if its keys are at hand.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 60);

/// How long what is signed now is good for.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// Root, targets and the appliances' roles, in days.
    pub long_days: u32,
    /// The snapshot, in days.
    pub snapshot_days: u32,
    /// The timestamp, in days: so long may newer versions be hidden from a subscriber without its noticing.
    pub timestamp_days: u32,
}

impl Default for Validity {
    fn default() -> Self {
        Self { long_days: 365, snapshot_days: 60, timestamp_days: 14 }
    }
}

/// The keys that a new root asks for.
#[derive(Debug, Clone, Copy)]
pub struct RootKeys {
    /// How many are made.
    pub count: usize,
    /// How many must sign the next root.
    pub threshold: u64,
}

/// What a version consists of.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The signed bytes of a direct publish.
    pub signed: &'a [u8],
    /// BitTorrent metainfo of its system disk.
    pub metainfo: &'a [u8],
    /// Manifest of its system disk.
    pub manifest: &'a [u8],
}

/// A role for people to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleView {
    /// Which.
    pub role: Role,
    /// Signatures needed.
    pub threshold: u64,
    /// Short ids of its keys.
    pub keys: Vec<String>,
    /// Of its file.
    pub version: u64,
    /// Milliseconds since 1970 UTC.
    pub expires_ms: u64,
}

/// One publisher's repository, nobody else writing it meanwhile.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    publisher: PublisherName,
    root: Signed<Root>,
    targets: Signed<Targets>,
    appliances: BTreeMap<String, Signed<Targets>>,
    snapshot: u64,
    timestamp: u64,
    expires: [Instant; 2],
    changed: BTreeSet<Role>,
    _lock: File,
}

impl Repository {
    /// Makes one with new keys, and writes its first metadata.
    ///
    /// # Errors
    /// There is one, or it cannot be written.
    pub fn create(
        folder: &Path,
        publisher: &PublisherName,
        ring: &mut KeyRing,
        root_keys: RootKeys,
        validity: Validity,
        now: Instant,
    ) -> Result<Self, PublisherError> {
        let threshold = NonZeroU64::new(root_keys.threshold)
            .filter(|threshold| threshold.get() <= root_keys.count as u64)
            .ok_or(PublisherError::Threshold { threshold: root_keys.threshold, keys: root_keys.count })?;
        write::folder(&folder.join(METADATA))?;
        let lock = lock(folder)?;
        if write::metadata(folder, "1.root.json").exists() {
            return Err(PublisherError::Exists(folder.to_owned()));
        }
        write::folder(&folder.join(TARGETS))?;
        write::folder(&folder.join(IMAGES))?;
        let mut root = Root {
            spec_version: SPEC_VERSION.into(),
            consistent_snapshot: true,
            version: FIRST,
            expires: now,
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::from([(PUBLISHER_FIELD.to_owned(), publisher.to_string().into())]),
        };
        let mut give = |role: RoleType, label: &str, count: usize, threshold| {
            let mut ids = Vec::new();
            for _ in 0..count {
                let key = ring.make(label)?;
                root.keys.insert(key.id.clone(), key.key);
                ids.push(key.id);
            }
            root.roles.insert(role, role_keys(ids, threshold));
            Ok::<_, PublisherError>(())
        };
        give(RoleType::Root, "root", root_keys.count, threshold)?;
        give(RoleType::Targets, "targets", 1, FIRST)?;
        give(RoleType::Snapshot, "snapshot", 1, FIRST)?;
        give(RoleType::Timestamp, "timestamp", 1, FIRST)?;
        let targets = Targets::new(SPEC_VERSION.into(), FIRST, now);
        let mut made = Self {
            folder: folder.to_owned(),
            publisher: publisher.clone(),
            root: Signed { signed: root, signatures: Vec::new() },
            targets: Signed { signed: targets, signatures: Vec::new() },
            appliances: BTreeMap::new(),
            snapshot: 0,
            timestamp: 0,
            expires: [now, now],
            changed: BTreeSet::new(),
            _lock: lock,
        };
        // Written with the number after the one they have.
        made.changed.extend([Role::Root, Role::Targets]);
        made.write(ring, validity, now, None)?;
        Ok(made)
    }

    /// Reads one and keeps others from changing it.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, PublisherError> {
        if !write::metadata(folder, "1.root.json").exists() {
            return Err(PublisherError::Absent(folder.to_owned()));
        }
        let lock = lock(folder)?;
        let newest = (1..).take_while(|n| write::metadata(folder, &format!("{n}.root.json")).exists()).last();
        let newest = newest.unwrap_or(1);
        let root: Signed<Root> = write::read(&write::metadata(folder, &format!("{newest}.root.json")))?;
        let timestamp: Signed<Timestamp> = write::read(&write::metadata(folder, "timestamp.json"))?;
        let damaged =
            |detail: &str| PublisherError::Damaged { path: folder.to_owned(), detail: detail.to_owned() };
        let snapshot_version = timestamp.signed.meta.get("snapshot.json").map(|meta| meta.version);
        let snapshot_version = snapshot_version.ok_or_else(|| damaged("the timestamp names no snapshot"))?;
        let snapshot: Signed<Snapshot> =
            write::read(&write::metadata(folder, &format!("{snapshot_version}.snapshot.json")))?;
        let read = |name: &str| -> Result<Signed<Targets>, PublisherError> {
            let meta = snapshot.signed.meta.get(&format!("{name}.json"));
            let meta = meta.ok_or_else(|| damaged(&format!("the snapshot does not name {name}")))?;
            write::read(&write::metadata(folder, &format!("{}.{name}.json", meta.version)))
        };
        let targets = read("targets")?;
        let mut appliances = BTreeMap::new();
        for role in targets.signed.delegations.iter().flat_map(|delegations| &delegations.roles) {
            appliances.insert(role.name.clone(), read(&role.name)?);
        }
        let publisher = root.signed._extra.get(PUBLISHER_FIELD).and_then(|value| value.as_str());
        let publisher = publisher
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| damaged("the root does not say whose it is"))?;
        Ok(Self {
            folder: folder.to_owned(),
            publisher,
            root,
            targets,
            appliances,
            snapshot: snapshot.signed.version.get(),
            timestamp: timestamp.signed.version.get(),
            expires: [snapshot.signed.expires, timestamp.signed.expires],
            changed: BTreeSet::new(),
            _lock: lock,
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn publisher(&self) -> &PublisherName {
        &self.publisher
    }

    /// Where an image's bytes are carried along.
    #[must_use]
    pub fn image_file(&self, image: &types::Digest) -> PathBuf {
        self.folder.join(IMAGES).join(format!("{}.raw", image.hex()))
    }

    /// The root to hand out, by another way than the repository.
    #[must_use]
    pub fn root_file(&self) -> PathBuf {
        write::metadata(&self.folder, &format!("{}.root.json", self.root.signed.version))
    }

    /// Every role with its keys.
    #[must_use]
    pub fn roles(&self) -> Vec<RoleView> {
        let [snapshot, timestamp] = self.expires;
        let mut views = Vec::new();
        let mut view = |role: Role, version: u64, expires: Instant| {
            let Ok((keys, threshold)) = self.keys(&role) else { return };
            views.push(RoleView {
                role,
                threshold: threshold.get(),
                keys: keys.iter().map(short).collect(),
                version,
                expires_ms: u64::try_from(expires.as_millisecond()).unwrap_or_default(),
            });
        };
        view(Role::Root, self.root.signed.version.get(), self.root.signed.expires);
        view(Role::Targets, self.targets.signed.version.get(), self.targets.signed.expires);
        view(Role::Snapshot, self.snapshot, snapshot);
        view(Role::Timestamp, self.timestamp, timestamp);
        for (name, role) in &self.appliances {
            view(Role::Appliance(name.clone()), role.signed.version.get(), role.signed.expires);
        }
        views
    }

    fn keys(&self, role: &Role) -> Result<(Vec<Decoded<Hex>>, NonZeroU64), PublisherError> {
        let of_root =
            |kind| self.root.signed.roles.get(&kind).map(|keys| (keys.keyids.clone(), keys.threshold));
        let found = match role {
            Role::Root => of_root(RoleType::Root),
            Role::Targets => of_root(RoleType::Targets),
            Role::Snapshot => of_root(RoleType::Snapshot),
            Role::Timestamp => of_root(RoleType::Timestamp),
            Role::Appliance(name) => {
                let roles = self.targets.signed.delegations.iter().flat_map(|delegations| &delegations.roles);
                roles
                    .clone()
                    .find(|role| role.name == *name)
                    .map(|role| (role.keyids.clone(), role.threshold))
            }
        };
        found.ok_or_else(|| PublisherError::NoRole(role.clone()))
    }

    /// Lets a role have these keys and no others.
    fn set_keys(&mut self, role: &Role, keys: &[PublicKey], threshold: u64) -> Result<(), PublisherError> {
        let fits = NonZeroU64::new(threshold).filter(|threshold| threshold.get() <= keys.len() as u64);
        let threshold = fits.ok_or(PublisherError::Threshold { threshold, keys: keys.len() })?;
        let ids: Vec<_> = keys.iter().map(|key| key.id.clone()).collect();
        let pairs = keys.iter().map(|key| (key.id.clone(), key.key.clone()));
        let kind = match role {
            Role::Root => RoleType::Root,
            Role::Targets => RoleType::Targets,
            Role::Snapshot => RoleType::Snapshot,
            Role::Timestamp => RoleType::Timestamp,
            Role::Appliance(name) => {
                let delegations = self.targets.signed.delegations.get_or_insert_default();
                let found = delegations.roles.iter_mut().find(|role| role.name == *name);
                let found = found.ok_or_else(|| PublisherError::NoRole(role.clone()))?;
                (found.keyids, found.threshold) = (ids, threshold);
                delegations.keys.extend(pairs);
                prune(delegations);
                self.changed.extend([Role::Targets, role.clone()]);
                return Ok(());
            }
        };
        let root = &mut self.root.signed;
        root.keys.extend(pairs);
        root.roles.insert(kind, role_keys(ids, threshold));
        let used: BTreeSet<_> = root.roles.values().flat_map(|keys| keys.keyids.clone()).collect();
        root.keys.retain(|id, _| used.contains(id));
        self.changed.extend([Role::Root, role.clone()]);
        Ok(())
    }

    fn public_keys(&self, role: &Role) -> Result<Vec<PublicKey>, PublisherError> {
        let (ids, _) = self.keys(role)?;
        let known = |id: &Decoded<Hex>| {
            let delegated = self.targets.signed.delegations.as_ref();
            let key = self.root.signed.keys.get(id).or_else(|| delegated?.keys.get(id))?;
            Some(PublicKey { id: id.clone(), key: key.clone() })
        };
        Ok(ids.iter().filter_map(known).collect())
    }

    /// Adds a key to a role. Without a threshold the one it has stays.
    ///
    /// # Errors
    /// There is no such role, or the threshold cannot be met.
    pub fn add_key(
        &mut self,
        role: &Role,
        key: PublicKey,
        threshold: Option<u64>,
    ) -> Result<(), PublisherError> {
        let mut keys = self.public_keys(role)?;
        let (_, held) = self.keys(role)?;
        if !keys.iter().any(|known| known.id == key.id) {
            keys.push(key);
        }
        self.set_keys(role, &keys, threshold.unwrap_or(held.get()))
    }

    /// Gives a role as many new keys as it has, and takes the old ones away.
    ///
    /// # Errors
    /// There is no such role, or keys cannot be made.
    pub fn rotate(&mut self, role: &Role, ring: &mut KeyRing) -> Result<(), PublisherError> {
        let (ids, threshold) = self.keys(role)?;
        let keys: Vec<_> = ids.iter().map(|_| ring.make(&role.label())).collect::<Result<_, _>>()?;
        self.set_keys(role, &keys, threshold.get())
    }

    /// Adds a version. The first of an appliance makes its role, with a key of its own.
    ///
    /// # Errors
    /// It is there with other content, or files cannot be written.
    pub fn add_version(
        &mut self,
        ring: &mut KeyRing,
        appliance: &str,
        version: &VersionName,
        files: Files<'_>,
    ) -> Result<(), PublisherError> {
        let role = Role::Appliance(appliance.to_owned());
        if !is_appliance(appliance) {
            return Err(PublisherError::NoRole(role));
        }
        if self.has(appliance, version)? {
            let held = self.appliances[appliance]
                .signed
                .targets
                .get(&name(&Meaning::Version(version.clone()).name(appliance))?);
            let same = held.is_some_and(|held| *held.hashes.sha256 == *write::sha256(files.signed));
            let (appliance, version) = (appliance.to_owned(), version.clone());
            return if same { Ok(()) } else { Err(PublisherError::Published { appliance, version }) };
        }
        if !self.appliances.contains_key(appliance) {
            let (keys, threshold) = self.keys(&Role::Targets)?;
            must_sign(&Role::Targets, &keys, threshold, ring)?;
            self.delegate(appliance, ring.make(&role.label())?)?;
        }
        for (meaning, bytes) in [
            (Meaning::Version(version.clone()), files.signed),
            (Meaning::Metainfo(version.clone()), files.metainfo),
            (Meaning::Manifest(version.clone()), files.manifest),
        ] {
            self.put_target(appliance, &meaning, bytes)?;
        }
        Ok(())
    }

    fn delegate(&mut self, appliance: &str, key: PublicKey) -> Result<(), PublisherError> {
        let pattern = PathPattern::new(format!("{appliance}.*"));
        let pattern = pattern.map_err(|error| PublisherError::Metadata(error.to_string()))?;
        let delegations = self.targets.signed.delegations.get_or_insert_default();
        delegations.roles.push(DelegatedRole {
            name: appliance.to_owned(),
            keyids: vec![key.id.clone()],
            threshold: FIRST,
            paths: PathSet::Paths(vec![pattern]),
            terminating: true,
            targets: None,
        });
        delegations.keys.insert(key.id, key.key);
        let mut targets = Targets::new(SPEC_VERSION.into(), FIRST, self.targets.signed.expires);
        targets.delegations = None;
        self.appliances.insert(appliance.to_owned(), Signed { signed: targets, signatures: Vec::new() });
        self.changed.extend([Role::Targets, Role::Appliance(appliance.to_owned())]);
        Ok(())
    }

    fn put_target(&mut self, appliance: &str, meaning: &Meaning, bytes: &[u8]) -> Result<(), PublisherError> {
        let text = meaning.name(appliance);
        let file = format!("{}.{text}", hex::encode(write::sha256(bytes)));
        write::put(&self.folder.join(TARGETS).join(file), bytes)?;
        let role = Role::Appliance(appliance.to_owned());
        let targets =
            self.appliances.get_mut(appliance).ok_or_else(|| PublisherError::NoRole(role.clone()))?;
        targets.signed.targets.insert(name(&text)?, write::target(bytes));
        self.changed.insert(role);
        Ok(())
    }

    fn has(&self, appliance: &str, version: &VersionName) -> Result<bool, PublisherError> {
        let target = name(&Meaning::Version(version.clone()).name(appliance))?;
        Ok(self.appliances.get(appliance).is_some_and(|role| role.signed.targets.contains_key(&target)))
    }

    fn must_have(&self, appliance: &str, version: &VersionName) -> Result<(), PublisherError> {
        let (appliance_name, version_name) = (appliance.to_owned(), version.clone());
        let absent = PublisherError::NoVersion { appliance: appliance_name, version: version_name };
        if self.has(appliance, version)? { Ok(()) } else { Err(absent) }
    }

    /// Where an appliance's channels point.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn channels(&self, appliance: &str) -> Result<Channels, PublisherError> {
        let text = Meaning::Channels.name(appliance);
        let target = name(&text)?;
        let held = self.appliances.get(appliance).and_then(|role| role.signed.targets.get(&target));
        match held {
            None => Ok(Channels::default()),
            Some(held) => {
                let file = format!("{}.{text}", hex::encode(&*held.hashes.sha256));
                write::read(&self.folder.join(TARGETS).join(file))
            }
        }
    }

    fn change_channels(&mut self, appliance: &str, channels: &Channels) -> Result<(), PublisherError> {
        let bytes =
            serde_json::to_vec(channels).map_err(|error| PublisherError::Metadata(error.to_string()))?;
        self.put_target(appliance, &Meaning::Channels, &bytes)
    }

    /// Lets a channel point to a version.
    ///
    /// # Errors
    /// There is no such version, or it is yanked.
    pub fn promote(
        &mut self,
        appliance: &str,
        version: &VersionName,
        channel: &ChannelName,
    ) -> Result<(), PublisherError> {
        self.must_have(appliance, version)?;
        let mut channels = self.channels(appliance)?;
        if channels.yanked.contains_key(version) {
            let appliance = appliance.to_owned();
            return Err(PublisherError::Yanked { appliance, version: version.clone() });
        }
        if channels.channels.insert(channel.clone(), version.clone()).as_ref() == Some(version) {
            return Ok(());
        }
        self.change_channels(appliance, &channels)
    }

    /// Withdraws a version with a reason, or takes that back. It stays in the repository for those who run it.
    ///
    /// # Errors
    /// There is no such version, or a channel points to it.
    pub fn yank(
        &mut self,
        appliance: &str,
        version: &VersionName,
        reason: Option<&str>,
    ) -> Result<(), PublisherError> {
        self.must_have(appliance, version)?;
        let mut channels = self.channels(appliance)?;
        let before = channels.clone();
        match reason {
            None => drop(channels.yanked.remove(version)),
            Some(reason) => {
                if let Some((channel, _)) = channels.channels.iter().find(|(_, to)| *to == version) {
                    let (appliance, version, channel) =
                        (appliance.to_owned(), version.clone(), channel.clone());
                    return Err(PublisherError::Offered { appliance, version, channel });
                }
                channels.yanked.insert(version.clone(), reason.to_owned());
            }
        }
        if channels == before { Ok(()) } else { self.change_channels(appliance, &channels) }
    }

    /// Signs timestamp and snapshot anew, and every role that expires soon and whose keys are at hand. Answers which
    /// roles expire soon and could not be renewed.
    ///
    /// # Errors
    /// The online keys are not at hand, or files cannot be written.
    pub fn refresh(
        &mut self,
        ring: &KeyRing,
        validity: Validity,
        now: Instant,
    ) -> Result<Vec<Role>, PublisherError> {
        let mut left = Vec::new();
        let mut due =
            vec![(Role::Root, self.root.signed.expires), (Role::Targets, self.targets.signed.expires)];
        let roles = self.appliances.iter();
        due.extend(roles.map(|(name, role)| (Role::Appliance(name.clone()), role.signed.expires)));
        for (role, _) in due.into_iter().filter(|(_, expires)| expires.duration_since(now) < RENEW_BEFORE) {
            let (keys, threshold) = self.keys(&role)?;
            match must_sign(&role, &keys, threshold, ring) {
                Ok(()) => drop(self.changed.insert(role)),
                Err(_) => left.push(role),
            }
        }
        self.changed.insert(Role::Timestamp);
        self.commit(ring, validity, now)?;
        Ok(left)
    }

    /// Signs and writes what changed; nothing if nothing did.
    ///
    /// # Errors
    /// Keys are not at hand: nothing that refers to the change is written then.
    pub fn commit(&mut self, ring: &KeyRing, validity: Validity, now: Instant) -> Result<(), PublisherError> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let path = self.root_file();
        let former: Signed<Root> = write::read(&path)?;
        self.write(ring, validity, now, Some(&former.signed))
    }

    fn write(
        &mut self,
        ring: &KeyRing,
        validity: Validity,
        now: Instant,
        former: Option<&Root>,
    ) -> Result<(), PublisherError> {
        let until = |days: u32| whole(now + DAY * i32::try_from(days).unwrap_or(i32::MAX));
        for role in self.changed.iter().chain([&Role::Snapshot, &Role::Timestamp]) {
            let (keys, threshold) = self.keys(role)?;
            must_sign(role, &keys, threshold, ring)?;
        }
        let root_changed = self.changed.contains(&Role::Root);
        if root_changed {
            self.write_root(ring, until(validity.long_days), former)?;
        }
        for role in self.changed.clone() {
            let (keys, _) = self.keys(&role)?;
            let (name, held) = match &role {
                Role::Appliance(name) => match self.appliances.get_mut(name) {
                    Some(held) => (name.as_str(), held),
                    None => continue,
                },
                Role::Targets => ("targets", &mut self.targets),
                Role::Root | Role::Snapshot | Role::Timestamp => continue,
            };
            if !held.signatures.is_empty() {
                held.signed.version = held.signed.version.saturating_add(1);
            }
            held.signed.expires = until(validity.long_days);
            held.signatures = signatures(&held.signed, ring, &keys)?;
            let file = format!("{}.{name}.json", held.signed.version);
            write::put(&write::metadata(&self.folder, &file), &write::text(held)?)?;
        }
        self.write_snapshot(ring, until(validity.snapshot_days), until(validity.timestamp_days))?;
        self.changed.clear();
        Ok(())
    }

    /// A new root is signed by the keys of the former one as well: so its subscribers follow.
    fn write_root(
        &mut self,
        ring: &KeyRing,
        expires: Instant,
        former: Option<&Root>,
    ) -> Result<(), PublisherError> {
        let (mut keys, _) = self.keys(&Role::Root)?;
        if let Some(former) = former {
            self.root.signed.version = former.version.saturating_add(1);
            if let Some(held) = former.roles.get(&RoleType::Root) {
                must_sign(&Role::Root, &held.keyids, held.threshold, ring)?;
                keys.extend(held.keyids.iter().filter(|id| !keys.contains(id)).cloned().collect::<Vec<_>>());
            }
        }
        self.root.signed.expires = expires;
        self.root.signatures = signatures(&self.root.signed, ring, &keys)?;
        write::put(&self.root_file(), &write::text(&self.root)?)
    }

    fn write_snapshot(
        &mut self,
        ring: &KeyRing,
        snapshot: Instant,
        timestamp: Instant,
    ) -> Result<(), PublisherError> {
        let number = |version: u64| NonZeroU64::new(version).unwrap_or(FIRST);
        let mut news = Snapshot::new(SPEC_VERSION.into(), number(self.snapshot + 1), snapshot);
        let roles = std::iter::once(("targets", &self.targets))
            .chain(self.appliances.iter().map(|(name, role)| (name.as_str(), role)));
        for (name, role) in roles {
            // As it is on disk: maps have no order, so that the same role may be written otherwise.
            let path = write::metadata(&self.folder, &format!("{}.{name}.json", role.signed.version));
            let bytes = std::fs::read(&path).map_err(|source| PublisherError::File { path, source })?;
            let meta = write::metafile(&bytes, role.signed.version);
            news.meta.insert(format!("{name}.json"), meta);
        }
        let (keys, _) = self.keys(&Role::Snapshot)?;
        let news = Signed { signatures: signatures(&news, ring, &keys)?, signed: news };
        let bytes = write::text(&news)?;
        write::put(&write::metadata(&self.folder, &news.signed.filename(true)), &bytes)?;
        let mut newest = Timestamp::new(SPEC_VERSION.into(), number(self.timestamp + 1), timestamp);
        newest.meta.insert("snapshot.json".into(), write::metafile(&bytes, news.signed.version));
        let (keys, _) = self.keys(&Role::Timestamp)?;
        let newest = Signed { signatures: signatures(&newest, ring, &keys)?, signed: newest };
        write::put(&write::metadata(&self.folder, "timestamp.json"), &write::text(&newest)?)?;
        (self.snapshot, self.timestamp) = (self.snapshot + 1, self.timestamp + 1);
        self.expires = [snapshot, timestamp];
        Ok(())
    }
}

/// Metadata holds no fractions of a second.
fn whole(at: Instant) -> Instant {
    Instant::from_second(at.as_second()).unwrap_or(at)
}

fn name(text: &str) -> Result<TargetName, PublisherError> {
    TargetName::new(text).map_err(|error| PublisherError::Metadata(error.to_string()))
}

fn prune(delegations: &mut Delegations) {
    let used: BTreeSet<_> = delegations.roles.iter().flat_map(|role| role.keyids.clone()).collect();
    delegations.keys.retain(|id, _| used.contains(id));
}

fn lock(folder: &Path) -> Result<File, PublisherError> {
    let path = folder.join(".lock");
    let failed = |source| PublisherError::File { path: path.clone(), source };
    let file = File::create(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}
