//! What somebody between maker and subscriber can do, with nothing or with stolen keys; each against the real
//! [`load`].

use crate::error::{LoadError, PublisherError};
use crate::keys::KeyRing;
use crate::layout::{Channels, METADATA, Role as OurRole, TARGETS};
use crate::repository::{Files, Repository, RootKeys, Validity};
use crate::transport::{METADATA_LEN_MAX, Source};
use crate::{Loaded, load, write};
use jiff::{SignedDuration, Timestamp as Instant};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tough::schema::{Role, RoleType, Root, Signed, Snapshot, Targets, Timestamp};
use types::{PublisherName, VersionName};

/// A maker, and a subscriber who trusts the first root.
struct Stage {
    repository: TempDir,
    keys: TempDir,
    subscriber: TempDir,
    root: Vec<u8>,
}

fn acme() -> PublisherName {
    "acme".parse().unwrap()
}

fn version(text: &str) -> VersionName {
    text.parse().unwrap()
}

fn ago(days: i64) -> Instant {
    Instant::now() - SignedDuration::from_hours(24 * days)
}

fn copy(from: &Path, to: &Path) {
    for folder in [METADATA, TARGETS] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
        for entry in std::fs::read_dir(from.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(folder).join(path.file_name().unwrap())).unwrap();
        }
    }
}

impl Stage {
    fn with(root: RootKeys, validity: Validity, now: Instant) -> Self {
        let (repository, keys, subscriber) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut ring = KeyRing::open(keys.path(), &[]).unwrap();
        Repository::create(repository.path(), &acme(), &mut ring, root, validity, now).unwrap();
        let root = std::fs::read(repository.path().join("metadata/1.root.json")).unwrap();
        Self { repository, keys, subscriber, root }
    }

    /// `web` and `mail` in version 1.0.0, which the subscriber has seen.
    async fn seen() -> Self {
        let stage = Self::with(RootKeys { count: 1, threshold: 1 }, Validity::default(), Instant::now());
        stage.publish("web", "1.0.0");
        stage.publish("mail", "1.0.0");
        stage.load().await.unwrap();
        stage
    }

    fn ring(&self) -> KeyRing {
        KeyRing::open(self.keys.path(), &[]).unwrap()
    }

    fn open(&self) -> Repository {
        Repository::open(self.repository.path()).unwrap()
    }

    fn publish(&self, appliance: &str, text: &str) {
        self.publish_at(appliance, text, Validity::default(), Instant::now());
    }

    fn publish_at(&self, appliance: &str, text: &str, validity: Validity, now: Instant) {
        let (mut repository, mut ring) = (self.open(), self.ring());
        let bytes = format!("{appliance} {text}").into_bytes();
        let files = Files { signed: &bytes, metainfo: &bytes, manifest: &bytes };
        repository.add_version(&mut ring, appliance, &version(text), files).unwrap();
        repository.commit(&ring, validity, now).unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut Repository, &mut KeyRing)) {
        let (mut repository, mut ring) = (self.open(), self.ring());
        change(&mut repository, &mut ring);
        repository.commit(&ring, Validity::default(), Instant::now()).unwrap();
    }

    fn memory(&self) -> PathBuf {
        self.subscriber.path().join("acme.json")
    }

    async fn load(&self) -> Result<Loaded, LoadError> {
        self.load_from(self.repository.path()).await
    }

    async fn load_from(&self, folder: &Path) -> Result<Loaded, LoadError> {
        load(&acme(), &Source::Folder { path: folder.to_owned() }, &self.root, &self.memory()).await
    }

    /// The repository as it is now, for later.
    fn keep(&self) -> TempDir {
        let kept = tempfile::tempdir().unwrap();
        copy(self.repository.path(), kept.path());
        kept
    }

    fn metadata(&self, name: &str) -> PathBuf {
        self.repository.path().join(METADATA).join(name)
    }

    /// The file of a role by its name in the snapshot, with its number.
    fn newest(&self, name: &str) -> PathBuf {
        let timestamp: Signed<Timestamp> = write::read(&self.metadata("timestamp.json")).unwrap();
        let number = timestamp.signed.meta["snapshot.json"].version;
        let snapshot = self.metadata(&format!("{number}.snapshot.json"));
        if name == "snapshot" {
            return snapshot;
        }
        let snapshot: Signed<Snapshot> = write::read(&snapshot).unwrap();
        self.metadata(&format!("{}.{name}.json", snapshot.signed.meta[&format!("{name}.json")].version))
    }

    /// Changes a role's file as somebody can who has stolen the keys of `by`.
    fn forge<T: Role + DeserializeOwned>(&self, path: &Path, by: &OurRole, change: impl FnOnce(&mut T)) {
        let mut role: Signed<T> = write::read(path).unwrap();
        change(&mut role.signed);
        let root: Signed<Root> = write::read(&self.open().root_file()).unwrap();
        let kind = match by {
            OurRole::Snapshot => Some(RoleType::Snapshot),
            OurRole::Timestamp => Some(RoleType::Timestamp),
            OurRole::Targets => Some(RoleType::Targets),
            OurRole::Root => Some(RoleType::Root),
            OurRole::Appliance(_) => None,
        };
        let keys = match (kind, by) {
            (Some(kind), _) => root.signed.roles[&kind].keyids.clone(),
            (None, by) => {
                let targets: Signed<Targets> = write::read(&self.newest("targets")).unwrap();
                let roles = targets.signed.delegations.unwrap().roles;
                let name = by.to_string().replace("appliance/", "");
                roles.into_iter().find(|role| role.name == name).unwrap().keyids
            }
        };
        role.signatures = write::signatures(&role.signed, &self.ring(), &keys).unwrap();
        std::fs::write(path, write::text(&role).unwrap()).unwrap();
    }

    /// Lets snapshot and timestamp name a role's file as it is now: their keys are stolen, too.
    fn relink(&self, name: &str, number: Option<u64>) {
        let role = self.newest(name);
        let (old, bytes) = (self.newest("snapshot"), std::fs::read(&role).unwrap());
        let snapshot: Signed<Snapshot> = write::read(&old).unwrap();
        let next = snapshot.signed.version.saturating_add(1);
        let new = self.metadata(&format!("{next}.snapshot.json"));
        std::fs::copy(&old, &new).unwrap();
        self.forge::<Snapshot>(&new, &OurRole::Snapshot, |snapshot| {
            snapshot.version = next;
            let meta = snapshot.meta.get_mut(&format!("{name}.json")).unwrap();
            let number = number.map_or(meta.version, |number| number.try_into().unwrap());
            *meta = write::metafile(&bytes, number);
        });
        let bytes = std::fs::read(&new).unwrap();
        self.forge::<Timestamp>(&self.metadata("timestamp.json"), &OurRole::Timestamp, |timestamp| {
            timestamp.version = timestamp.version.saturating_add(1);
            timestamp.meta.insert("snapshot.json".into(), write::metafile(&bytes, next));
        });
    }
}

fn refused(result: Result<Loaded, LoadError>, words: &str) {
    match result {
        Err(LoadError::Refused(why)) if why.contains(words) => {}
        other => panic!("expected a refusal with {words:?}, got {other:?}"),
    }
}

#[tokio::test]
async fn what_is_published_is_offered_as_it_was_published() {
    let stage = Stage::seen().await;
    stage.publish("web", "2.0.0");
    stage.change(|repository, _| {
        repository.promote("web", &version("2.0.0"), &"stable".parse().unwrap()).unwrap();
        repository.yank("web", &version("1.0.0"), Some("it leaks")).unwrap();
    });
    let loaded = stage.load().await.unwrap();
    let offers = loaded.offers().unwrap();
    let web = offers.iter().find(|offer| offer.appliance == "web").unwrap();
    assert_eq!(web.versions.keys().map(VersionName::as_str).collect::<Vec<_>>(), ["1.0.0", "2.0.0"]);
    let [signed, metainfo, manifest] = loaded.version("web", &version("2.0.0")).await.unwrap();
    assert_eq!(
        (signed.as_slice(), metainfo.as_slice(), manifest.as_slice()),
        (&b"web 2.0.0"[..], &b"web 2.0.0"[..], &b"web 2.0.0"[..])
    );
    let channels = loaded.channels(web).await.unwrap();
    assert_eq!(channels.channels[&"stable".parse().unwrap()], version("2.0.0"));
    assert_eq!(channels.yanked[&version("1.0.0")], "it leaks");
    let mail = offers.iter().find(|offer| offer.appliance == "mail").unwrap();
    assert_eq!(loaded.channels(mail).await.unwrap(), Channels::default());
}

#[tokio::test]
async fn a_whole_repository_of_earlier_is_refused_also_after_a_restart() {
    let stage = Stage::seen().await;
    let earlier = stage.keep();
    stage.publish("web", "2.0.0");
    stage.load().await.unwrap();
    // Nothing lives on between loads but the memory's file.
    refused(stage.load_from(earlier.path()).await, "timestamp");
    stage.load().await.unwrap();
}

#[tokio::test]
async fn an_older_snapshot_is_refused_though_the_timestamp_key_is_stolen() {
    let stage = Stage::seen().await;
    let (old, number) = (std::fs::read(stage.newest("snapshot")).unwrap(), stage.newest("snapshot"));
    let number: u64 =
        number.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().parse().unwrap();
    stage.publish("web", "2.0.0");
    stage.load().await.unwrap();
    stage.forge::<Timestamp>(&stage.metadata("timestamp.json"), &OurRole::Timestamp, |timestamp| {
        timestamp.version = timestamp.version.saturating_add(1);
        timestamp.meta.insert("snapshot.json".into(), write::metafile(&old, number.try_into().unwrap()));
    });
    refused(stage.load().await, "Snapshot version");
}

#[tokio::test]
async fn an_older_role_is_refused_though_all_online_keys_are_stolen() {
    for name in ["web", "targets"] {
        let stage = Stage::seen().await;
        let old = stage.newest(name);
        let number: u64 =
            old.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().parse().unwrap();
        stage.publish("web", "2.0.0");
        stage.publish("news", "1.0.0");
        stage.load().await.unwrap();
        stage.relink(name, Some(number));
        refused(stage.load().await, name);
    }
}

#[tokio::test]
async fn keys_that_were_rotated_away_open_nothing_even_with_the_roots_of_then() {
    let stage = Stage::seen().await;
    let earlier = stage.keep();
    stage.change(|repository, ring| repository.rotate(&OurRole::Timestamp, ring).unwrap());
    stage.load().await.unwrap();
    // The thief signs on with the timestamp key of then, and hides the root that takes it away.
    stage.forge::<Timestamp>(
        &earlier.path().join("metadata/timestamp.json"),
        &OurRole::Timestamp,
        |timestamp| {
            timestamp.version = timestamp.version.saturating_add(90);
        },
    );
    let path = earlier.path().join("metadata/timestamp.json");
    let mut role: Signed<Timestamp> = write::read(&path).unwrap();
    let root: Signed<Root> = write::read(&earlier.path().join("metadata/1.root.json")).unwrap();
    let keys = &root.signed.roles[&RoleType::Timestamp].keyids;
    role.signatures = write::signatures(&role.signed, &stage.ring(), keys).unwrap();
    assert_eq!(role.signatures.len(), 1, "the thief has the old key");
    std::fs::write(&path, write::text(&role).unwrap()).unwrap();
    refused(stage.load_from(earlier.path()).await, "timestamp");
    let fresh = tempfile::tempdir().unwrap();
    let source = Source::Folder { path: earlier.path().to_owned() };
    load(&acme(), &source, &stage.root, &fresh.path().join("m"))
        .await
        .expect("who never saw the new root believes it");
}

#[tokio::test]
async fn a_frozen_repository_is_noticed_and_goes_on_once_renewed() {
    let stage = Stage::with(RootKeys { count: 1, threshold: 1 }, Validity::default(), ago(30));
    stage.publish_at("web", "1.0.0", Validity::default(), ago(30));
    assert_eq!(stage.load().await.unwrap_err(), LoadError::Expired("timestamp".into()));
    let left = stage.open().refresh(&stage.ring(), Validity::default(), Instant::now()).unwrap();
    assert_eq!(left, []);
    assert_eq!(stage.load().await.unwrap().offers().unwrap().len(), 1);
}

#[tokio::test]
async fn every_expired_role_is_noticed() {
    let brief = Validity { long_days: 1, ..Validity::default() };
    let stage = Stage::with(RootKeys { count: 1, threshold: 1 }, brief, ago(2));
    assert_eq!(stage.load().await.unwrap_err(), LoadError::Expired("root".into()));
    let stage = Stage::with(RootKeys { count: 1, threshold: 1 }, Validity::default(), Instant::now());
    stage.publish_at("web", "1.0.0", brief, ago(2));
    assert_eq!(stage.load().await.unwrap_err(), LoadError::Expired("targets".into()));
    let stage = Stage::with(RootKeys { count: 1, threshold: 1 }, Validity::default(), Instant::now());
    stage.publish("web", "1.0.0");
    stage.publish_at("web", "2.0.0", brief, ago(2));
    assert_eq!(
        stage.load().await.unwrap_err(),
        LoadError::Expired("targets".into()),
        "the appliance's own role"
    );
    let brief = Validity { snapshot_days: 1, ..Validity::default() };
    let stage = Stage::with(RootKeys { count: 1, threshold: 1 }, brief, ago(2));
    assert_eq!(stage.load().await.unwrap_err(), LoadError::Expired("snapshot".into()));
}

#[tokio::test]
async fn files_of_different_states_do_not_fit_together() {
    let stage = Stage::seen().await;
    let old = std::fs::read(stage.newest("web")).unwrap();
    stage.publish("web", "2.0.0");
    std::fs::write(stage.newest("web"), &old).unwrap();
    assert!(stage.load().await.is_err(), "an older file in the place of a newer one");
    let stage = Stage::seen().await;
    let old = std::fs::read(stage.newest("snapshot")).unwrap();
    stage.publish("web", "2.0.0");
    std::fs::write(stage.newest("snapshot"), &old).unwrap();
    assert!(stage.load().await.is_err(), "an older snapshot under the number of a newer one");
}

#[tokio::test]
async fn another_makers_repository_is_refused() {
    let (stage, other) = (Stage::seen().await, Stage::seen().await);
    refused(stage.load_from(other.repository.path()).await, "ignature");
    let mut ring = other.ring();
    let folder = tempfile::tempdir().unwrap();
    let keys = RootKeys { count: 1, threshold: 1 };
    let evil = "evil".parse().unwrap();
    drop(
        Repository::create(folder.path(), &evil, &mut ring, keys, Validity::default(), Instant::now())
            .unwrap(),
    );
    let root = std::fs::read(folder.path().join("metadata/1.root.json")).unwrap();
    let source = Source::Folder { path: folder.path().to_owned() };
    let loaded = load(&acme(), &source, &root, &folder.path().join("m")).await;
    refused(loaded, "the repository is evil's, not acme's");
}

#[tokio::test]
async fn a_key_that_the_root_does_not_name_counts_for_nothing() {
    let stage = Stage::seen().await;
    stage.publish("web", "2.0.0");
    let foreign = tempfile::tempdir().unwrap();
    let mut ring = KeyRing::open(foreign.path(), &[]).unwrap();
    let key = ring.make("foreign").unwrap();
    let path = stage.metadata("timestamp.json");
    let mut role: Signed<Timestamp> = write::read(&path).unwrap();
    role.signed.version = role.signed.version.saturating_add(1);
    role.signatures = write::signatures(&role.signed, &ring, &[key.id]).unwrap();
    std::fs::write(&path, write::text(&role).unwrap()).unwrap();
    refused(stage.load().await, "ignature");
}

#[tokio::test]
async fn a_root_signed_by_too_few_is_refused() {
    let stage = Stage::with(RootKeys { count: 3, threshold: 2 }, Validity::default(), Instant::now());
    stage.load().await.unwrap();
    stage.change(|repository, ring| repository.rotate(&OurRole::Timestamp, ring).unwrap());
    let path = stage.metadata("2.root.json");
    let mut root: Signed<Root> = write::read(&path).unwrap();
    assert_eq!(root.signatures.len(), 3);
    root.signatures.truncate(1);
    std::fs::write(&path, write::text(&root).unwrap()).unwrap();
    refused(stage.load().await, "ignature");
    // The same signature twice is one.
    let again = root.signatures[0].clone();
    root.signatures.push(again);
    std::fs::write(&path, write::text(&root).unwrap()).unwrap();
    assert!(stage.load().await.is_err());
}

#[tokio::test]
async fn roots_are_followed_over_several_versions_and_only_with_the_former_keys() {
    let stage = Stage::seen().await;
    for role in
        [OurRole::Root, OurRole::Timestamp, OurRole::Root, OurRole::Snapshot, OurRole::Targets, OurRole::Root]
    {
        stage.change(|repository, ring| repository.rotate(&role, ring).unwrap());
    }
    stage.change(|repository, ring| repository.rotate(&OurRole::Appliance("web".into()), ring).unwrap());
    stage.publish("web", "2.0.0");
    assert_eq!(stage.load().await.unwrap().root.version, 7);
    // A subscriber who remembers nothing comes from the first to the last as well.
    let fresh = tempfile::tempdir().unwrap();
    let source = Source::Folder { path: stage.repository.path().to_owned() };
    let loaded = load(&acme(), &source, &stage.root, &fresh.path().join("m")).await.unwrap();
    assert_eq!((loaded.root.version, loaded.offers().unwrap().len()), (7, 2));
    // Without one on the way nobody follows.
    std::fs::remove_file(stage.metadata("3.root.json")).unwrap();
    assert!(load(&acme(), &source, &stage.root, &fresh.path().join("n")).await.is_err());
}

#[tokio::test]
async fn an_appliances_key_speaks_for_no_other_appliance() {
    let stage = Stage::seen().await;
    // Whoever makes `web` lists a version of `mail`; all online keys are stolen.
    stage.forge::<Targets>(&stage.newest("web"), &OurRole::Appliance("web".into()), |web| {
        let name = "mail.9.9.9.version.json".try_into().unwrap();
        web.targets.insert(name, write::target(b"evil"));
    });
    stage.relink("web", None);
    refused(stage.load().await, "mail.9.9.9");
    // Or signs the file of `mail`.
    let stage = Stage::seen().await;
    stage.forge::<Targets>(&stage.newest("mail"), &OurRole::Appliance("web".into()), |mail| {
        let name = "mail.9.9.9.version.json".try_into().unwrap();
        mail.targets.insert(name, write::target(b"evil"));
    });
    stage.relink("mail", None);
    refused(stage.load().await, "ignature");
}

#[tokio::test]
async fn a_target_that_is_otherwise_shorter_longer_or_absent_is_not_taken() {
    let stage = Stage::seen().await;
    let loaded = stage.load().await.unwrap();
    let folder = stage.repository.path().join(TARGETS);
    let path = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| path.to_str().unwrap().contains(".web.1.0.0.manifest")).unwrap();
    for bytes in [&b"web 1.0.1"[..], b"web 1.0", b"web 1.0.0 and more", b""] {
        std::fs::write(&path, bytes).unwrap();
        assert!(loaded.version("web", &version("1.0.0")).await.is_err(), "{bytes:?}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(loaded.version("web", &version("1.0.0")).await.is_err());
    std::fs::write(&path, b"web 1.0.0").unwrap();
    loaded.version("web", &version("1.0.0")).await.unwrap();
}

#[tokio::test]
async fn more_metadata_than_the_limit_is_not_read() {
    for name in ["timestamp.json", "2.root.json"] {
        let stage = Stage::seen().await;
        let file = std::fs::File::create(stage.metadata(name)).unwrap();
        file.set_len(METADATA_LEN_MAX + 1).unwrap();
        let failed = stage.load().await;
        if name == "timestamp.json" {
            assert!(
                matches!(&failed, Err(LoadError::Unreachable(why)) if why.contains("longer than")),
                "{failed:?}"
            );
        } else {
            // A root that cannot be fetched is one that is not there.
            failed.unwrap();
        }
    }
    // Also if the signed snapshot allows it.
    let stage = Stage::seen().await;
    let path = stage.newest("web");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.resize(usize::try_from(METADATA_LEN_MAX).unwrap() + 1, b' ');
    std::fs::write(&path, bytes).unwrap();
    stage.relink("web", None);
    assert!(stage.load().await.unwrap_err().to_string().contains("longer than"));
}

#[tokio::test]
async fn truncated_metadata_and_rubbish_are_refused() {
    for name in ["timestamp", "snapshot", "targets", "web"] {
        let stage = Stage::seen().await;
        stage.publish("web", "2.0.0");
        let path = if name == "timestamp" { stage.metadata("timestamp.json") } else { stage.newest(name) };
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 3] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(stage.load().await.is_err(), "{name} cut at {cut}");
        }
        std::fs::write(&path, &bytes).unwrap();
        stage.load().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_memory_is_no_fresh_start() {
    let stage = Stage::seen().await;
    let memory = std::fs::read(stage.memory()).unwrap();
    std::fs::write(stage.memory(), &memory[..memory.len() / 2]).unwrap();
    assert!(matches!(stage.load().await, Err(LoadError::Memory(why)) if why.contains("damaged")));
}

#[test]
fn a_maker_without_the_keys_changes_nothing() {
    let stage = Stage::with(RootKeys { count: 2, threshold: 2 }, Validity::default(), Instant::now());
    stage.publish("web", "1.0.0");
    // One root key lies in a safe.
    std::fs::rename(stage.keys.path().join("root-2.key"), stage.keys.path().join("root-2.away")).unwrap();
    let before = std::fs::read_dir(stage.repository.path().join(METADATA)).unwrap().count();
    let (mut repository, mut ring) = (stage.open(), stage.ring());
    repository.rotate(&OurRole::Timestamp, &mut ring).unwrap();
    let missing = repository.commit(&ring, Validity::default(), Instant::now()).unwrap_err();
    assert!(matches!(missing, PublisherError::KeysMissing { threshold: 2, at_hand: 1, .. }), "{missing}");
    assert_eq!(std::fs::read_dir(stage.repository.path().join(METADATA)).unwrap().count(), before);
}

#[test]
fn a_version_is_immutable_and_a_yanked_one_is_not_promoted() {
    let stage = Stage::with(RootKeys { count: 1, threshold: 1 }, Validity::default(), Instant::now());
    stage.publish("web", "1.0.0");
    stage.publish("web", "1.0.0");
    let (mut repository, mut ring) = (stage.open(), stage.ring());
    let files = Files { signed: b"other", metainfo: b"", manifest: b"" };
    let other = repository.add_version(&mut ring, "web", &version("1.0.0"), files).unwrap_err();
    assert!(matches!(other, PublisherError::Published { .. }));
    let stable = "stable".parse().unwrap();
    repository.promote("web", &version("1.0.0"), &stable).unwrap();
    let offered = repository.yank("web", &version("1.0.0"), Some("bad")).unwrap_err();
    assert!(matches!(offered, PublisherError::Offered { .. }), "{offered}");
    let absent = repository.promote("web", &version("3.0.0"), &stable).unwrap_err();
    assert!(matches!(absent, PublisherError::NoVersion { .. }), "{absent}");
    drop(repository);
    stage.publish("web", "2.0.0");
    stage.change(|repository, _| {
        repository.promote("web", &version("2.0.0"), &stable).unwrap();
        repository.yank("web", &version("1.0.0"), Some("bad")).unwrap();
        let yanked = repository.promote("web", &version("1.0.0"), &stable).unwrap_err();
        assert!(matches!(yanked, PublisherError::Yanked { .. }), "{yanked}");
    });
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::with(RootKeys { count: 1, threshold: 1 }, Validity::default(), Instant::now());
    let path = stage.keys.path().join("root-1.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        KeyRing::open(stage.keys.path(), &[]),
        Err(PublisherError::KeyOpen { mode: 0o644, .. })
    ));
}
