use crate::backend::{Backend, Outcome, chain};
use crate::lock::{Kind, Lock};
use crate::restore;
use crate::source::Sources;
use crate::storage::{self, TEMPORARY};
use crate::{Control, Credentials, Error, Location, SourceFile};
use aes256ctr_poly1305aes::Key;
use rustic_core::repofile::{MasterKey, SnapshotFile};
use rustic_core::{
    BackupOptions, CheckOptions, ConfigOptions, KeyOptions, LimitOption, LsOptions, NoProgress, OpenStatus,
    ParentOptions, Progress, ProgressBars, ProgressType, PruneOptions, ReadSubsetOption, RepairIndexOptions,
    RepositoryBackends, RepositoryOptions, RusticError, RusticProgress, SnapshotGroupCriterion,
    SnapshotOptions,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The tag of every backup of ours.
const TAG: &str = "collective";
/// What the paths in our snapshots begin with.
const ROOT: &str = "/collective";
/// Version of the format: packs are compressed. restic 0.14 and later read it.
const FORMAT_VERSION: u32 = 2;

/// Where a repository is and what opens it. Keep one as long as the repository is in use: deriving the key from the
/// password takes a good part of a second by design, and is done once.
#[derive(Debug)]
pub struct Place {
    /// Where.
    pub location: Location,
    /// What opens it.
    pub credentials: Credentials,
    /// Where copies of a remote repository's indexes may be kept; they are encrypted as there.
    pub cache: Option<PathBuf>,
    master: OnceLock<MasterKey>,
    /// A backup from here may have ended before its index was written: so it is until one has not.
    unfinished: Arc<AtomicBool>,
}

impl Place {
    /// A place whose key is not known yet.
    #[must_use]
    pub fn new(location: Location, credentials: Credentials, cache: Option<PathBuf>) -> Self {
        Self {
            location,
            credentials,
            cache,
            master: OnceLock::new(),
            unfinished: Arc::new(AtomicBool::new(true)),
        }
    }
}

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// A deployment's name.
    pub deployment: String,
    /// One of its members.
    pub member: String,
    /// The checkpoint: a UUID.
    pub checkpoint: String,
    /// The host that took it.
    pub host: String,
}

impl Part {
    fn root(&self) -> PathBuf {
        Path::new(ROOT).join(&self.deployment).join(&self.member)
    }
}

/// One backup in a repository: a snapshot, in restic's words.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What it is of.
    pub part: Part,
    /// When it was made, milliseconds since 1970 UTC.
    pub made_ms: u64,
    /// Bytes of its files.
    pub total_bytes: u64,
    /// Bytes that the repository grew by for it, compressed and encrypted.
    pub added_bytes: u64,
    snapshot: SnapshotFile,
}

/// A file that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredFile {
    /// Its name in the backup.
    pub name: String,
    /// Where it is now.
    pub path: PathBuf,
    /// Its bytes; holes count.
    pub bytes: u64,
}

/// How much of what a repository holds is read when it is verified.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Thoroughness {
    /// Everything that names something, and that what is named is there with its size.
    Structure,
    /// And this share of all bytes, in percent, chosen anew each time.
    Percent(f64),
    /// And all bytes.
    Everything,
}

/// An open repository: one piece of work is done with it.
pub struct Repository {
    backend: Arc<Backend>,
    inner: rustic_core::Repository<OpenStatus>,
    key: Key,
    unfinished: Arc<AtomicBool>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("location", &self.backend.location).finish_non_exhaustive()
    }
}

impl Repository {
    /// Makes a repository where none is.
    ///
    /// # Errors
    /// One is there, or its storage cannot be written.
    pub fn create(place: &Place, control: &Arc<Control>) -> Result<Self, Error> {
        let (backend, closed) = Self::prepare(place, control)?;
        if Self::is_there(&backend, &closed)? {
            return Err(Error::Exists { location: backend.location.clone() });
        }
        let mut options = ConfigOptions::default();
        options.set_version = Some(FORMAT_VERSION);
        let credentials = rustic_core::Credentials::password(place.credentials.password.expose());
        let inner = closed
            .init(&credentials, &KeyOptions::default(), &options)
            .map_err(|error| failed(&backend, "make a repository", &error))?;
        Ok(Self::opened(place, backend, inner))
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// None is there, the password does not open it, or its storage cannot be read.
    pub fn open(place: &Place, control: &Arc<Control>) -> Result<Self, Error> {
        let (backend, closed) = Self::prepare(place, control)?;
        if !Self::is_there(&backend, &closed)? {
            return Err(Error::Absent { location: backend.location.clone() });
        }
        let credentials = match place.master.get() {
            Some(key) => rustic_core::Credentials::Masterkey(key.clone()),
            None => rustic_core::Credentials::password(place.credentials.password.expose()),
        };
        let inner = closed.open(&credentials).map_err(|error| {
            if error.is_incorrect_password() {
                Error::Password { location: backend.location.clone() }
            } else {
                failed(&backend, "open", &error)
            }
        })?;
        Ok(Self::opened(place, backend, inner))
    }

    fn prepare(
        place: &Place,
        control: &Arc<Control>,
    ) -> Result<(Arc<Backend>, rustic_core::Repository<()>), Error> {
        let location = place.location.to_string();
        let storage = storage::open(&place.location, &place.credentials)?;
        let backend = Arc::new(Backend {
            storage,
            location: location.clone(),
            control: Arc::clone(control),
            outcome: Arc::new(Outcome::default()),
        });
        let mut options = RepositoryOptions::default();
        match (&place.location, &place.cache) {
            (Location::Sftp { .. } | Location::S3 { .. }, Some(folder)) => {
                options.cache_dir = Some(folder.clone())
            }
            _ => options.no_cache = true,
        }
        let backends = RepositoryBackends::new(backend.clone(), None);
        let closed =
            rustic_core::Repository::new_with_progress(&options, &backends, Bars(Arc::clone(control)))
                .map_err(|error| failed(&backend, "prepare work", &error))?;
        Ok((backend, closed))
    }

    fn is_there(backend: &Backend, closed: &rustic_core::Repository<()>) -> Result<bool, Error> {
        closed
            .config_id()
            .map(|id| id.is_some())
            .map_err(|error| failed(backend, "look for a repository", &error))
    }

    fn opened(place: &Place, backend: Arc<Backend>, inner: rustic_core::Repository<OpenStatus>) -> Self {
        let master = inner.key();
        let mut key = Key::default();
        for (to, from) in key.iter_mut().zip(master.encrypt.iter().chain(&master.mac.k).chain(&master.mac.r))
        {
            *to = *from;
        }
        // Another thread's is the same.
        let _ = place.master.set(master);
        Self { backend, inner, key, unfinished: Arc::clone(&place.unfinished) }
    }

    fn lock(&self, kind: Kind) -> Result<Lock, Error> {
        Lock::take(&self.backend.storage, self.key, &self.backend.location, kind)
    }

    /// Backs files up as one snapshot: all of them, or there is no snapshot. What is in the repository already is not
    /// sent again, and a file that the newest backup of the same member has under its name is not even read, if its size
    /// and time are the same.
    ///
    /// # Errors
    /// A file cannot be read or changed, the storage is full or fails, somebody prunes, or it was cancelled. What was
    /// written until then helps the next try.
    pub fn back_up(self, part: &Part, files: Vec<SourceFile>) -> Result<Backup, Error> {
        let backend = Arc::clone(&self.backend);
        let unfinished = Arc::clone(&self.unfinished);
        let mut lock = self.lock(Kind::Shared)?;
        if unfinished.swap(true, Ordering::Relaxed) || lock.found_stale {
            drop(lock);
            self.adopt_unfinished()?;
            lock = self.lock(Kind::Shared)?;
        }
        let root = part.root();
        let sources = Sources::new(&root, files, &backend.control, &backend.outcome)?;
        backend.control.expect(sources.total_bytes);
        let mut options = SnapshotOptions::default()
            .host(part.host.clone())
            .label(TAG.to_owned())
            .command("collective".to_owned());
        for tag in [
            TAG.to_owned(),
            format!("deployment={}", part.deployment),
            format!("member={}", part.member),
            format!("checkpoint={}", part.checkpoint),
        ] {
            options = options.add_tags(&tag).map_err(|error| failed(&backend, "tag a backup", &error))?;
        }
        let snapshot =
            options.to_snapshot().map_err(|error| failed(&backend, "describe a backup", &error))?;
        let indexed =
            self.inner.to_indexed_ids().map_err(|error| failed(&backend, "read the index", &error))?;
        let mut parents = ParentOptions::default();
        // Whichever host made it: a member may move.
        let mut group = SnapshotGroupCriterion::new();
        (group.label, group.paths) = (true, true);
        parents.group_by = Some(group);
        parents.ignore_ctime = true;
        parents.ignore_inode = true;
        let options = BackupOptions::default().parent_opts(parents).no_scan(true);
        let (files, total_bytes) = (sources.files, sources.total_bytes);
        let snapshot = indexed
            .archive(&options, &sources, snapshot, std::slice::from_ref(&root))
            .map_err(|error| failed(&backend, "back up", &error))?;
        if let Some(error) = backend.outcome.take() {
            return Err(error);
        }
        // Nothing is said to be a backup that the library left something out of.
        if snapshot
            .summary
            .as_ref()
            .map(|summary| (summary.total_files_processed, summary.total_bytes_processed))
            != Some((files, total_bytes))
        {
            let _ = backend.storage.remove(&format!("snapshots/{}", snapshot.id.to_hex().as_str()));
            return Err(Error::Format {
                doing: "back up",
                location: backend.location.clone(),
                reason: "a file is not in what was written".into(),
            });
        }
        unfinished.store(false, Ordering::Relaxed);
        drop(lock);
        backup(snapshot).ok_or_else(|| Error::Format {
            doing: "back up",
            location: backend.location.clone(),
            reason: "the snapshot lacks its tags".into(),
        })
    }

    /// Gives what an earlier backup sent, but died or failed before it could name, its place in the index, so that it is not
    /// sent again. Only if nobody else is at work, whose packs would look the same.
    fn adopt_unfinished(&self) -> Result<(), Error> {
        let _lock = match self.lock(Kind::Exclusive) {
            Err(Error::Locked { .. }) => return Ok(()),
            taken => taken?,
        };
        self.inner
            .repair_index(&RepairIndexOptions::default(), false)
            .map_err(|error| failed(&self.backend, "find what was sent before", &error))
    }

    /// All backups of ours, oldest first. Others' snapshots in the repository are not.
    ///
    /// # Errors
    /// The storage cannot be read, or a snapshot's file is damaged.
    pub fn list(&self) -> Result<Vec<Backup>, Error> {
        let snapshots =
            self.inner.get_all_snapshots().map_err(|error| failed(&self.backend, "list backups", &error))?;
        let mut backups: Vec<_> = snapshots.into_iter().filter_map(backup).collect();
        backups.sort_by(|one, other| (one.made_ms, &one.id).cmp(&(other.made_ms, &other.id)));
        Ok(backups)
    }

    /// One small file of a backup, such as the description of its checkpoint.
    ///
    /// # Errors
    /// The backup has no such file, or the storage cannot be read.
    pub fn read(self, of: &Backup, name: &str) -> Result<Vec<u8>, Error> {
        let backend = Arc::clone(&self.backend);
        let _lock = self.lock(Kind::Shared)?;
        let indexed = self.inner.to_indexed().map_err(|error| failed(&backend, "read the index", &error))?;
        let path = of.part.root().join(name);
        let mut bytes = Vec::new();
        indexed
            .node_from_snapshot_and_path(&of.snapshot, &path.to_string_lossy())
            .and_then(|node| indexed.dump(&node, &mut bytes))
            .map_err(|error| failed(&backend, "read a file of a backup", &error))?;
        Ok(bytes)
    }

    /// Writes all files of a backup below a folder, zeros as holes. What lies there already under the same names is
    /// looked at first: a restore that was interrupted goes on. Every byte is authenticated by the repository's key.
    ///
    /// # Errors
    /// What is stored is damaged or missing, the folder cannot be written, or it was cancelled.
    pub fn restore(self, from: &Backup, folder: &Path) -> Result<Vec<RestoredFile>, Error> {
        let backend = Arc::clone(&self.backend);
        let _lock = self.lock(Kind::Shared)?;
        let indexed = self.inner.to_indexed().map_err(|error| failed(&backend, "read the index", &error))?;
        let root = from.part.root();
        let nodes = indexed
            .node_from_snapshot_and_path(&from.snapshot, &root.to_string_lossy())
            .and_then(|root| indexed.ls(&root, &LsOptions::default())?.collect::<Result<Vec<_>, _>>())
            .map_err(|error| failed(&backend, "find the files of a backup", &error))?;
        // A storage that fails is told as such, not as damage.
        restore::run(&indexed, nodes, folder, &backend.location, &backend.control)
            .map_err(|error| backend.outcome.take().unwrap_or(error))
    }

    /// Removes backups, and then what no snapshot of the repository needs any more, others' snapshots included.
    ///
    /// # Errors
    /// Somebody else works on the repository, or the storage fails. A removal that was interrupted is finished by the
    /// next one.
    pub fn forget(self, which: &[Backup]) -> Result<(), Error> {
        let backend = Arc::clone(&self.backend);
        let _lock = self.lock(Kind::Exclusive)?;
        let ids: Vec<_> = which.iter().map(|backup| backup.snapshot.id).collect();
        self.inner.delete_snapshots(&ids).map_err(|error| failed(&backend, "forget backups", &error))?;
        let mut options = PruneOptions::default();
        // Nobody else writes now: what is not needed can go at once.
        options.instant_delete = true;
        options.max_repack = LimitOption::Unlimited;
        let plan = self
            .inner
            .prune_plan(&options)
            .map_err(|error| failed(&backend, "find what is not needed", &error))?;
        self.inner
            .prune(&options, plan)
            .map_err(|error| failed(&backend, "remove what is not needed", &error))?;
        for folder in ["data", "index", "snapshots", "keys", "locks"] {
            for (name, _) in backend
                .storage
                .list(folder)
                .map_err(|source| Error::storage("list files", &backend.location, source))?
            {
                // What a process left that died while it wrote.
                if name.ends_with(TEMPORARY) {
                    backend
                        .storage
                        .remove(&name)
                        .map_err(|source| Error::storage("remove a half file", &backend.location, source))?;
                }
            }
        }
        Ok(())
    }

    /// Looks whether everything is there that backups need, and how much of it is as it was written. Others may add
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::Damaged`] with what was found, or the storage cannot be read at all.
    pub fn verify(self, thoroughness: Thoroughness) -> Result<(), Error> {
        let _lock = self.lock(Kind::Shared)?;
        let mut options = CheckOptions::default();
        options.trust_cache = true;
        options.read_data = thoroughness != Thoroughness::Structure;
        if let Thoroughness::Percent(share) = thoroughness {
            options.read_data_subset = ReadSubsetOption::Percentage(share);
        }
        let found = self.inner.check(options).map_err(|error| failed(&self.backend, "verify", &error))?;
        if found.is_ok().is_ok() {
            return Ok(());
        }
        let damages: Vec<_> = found
            .0
            .iter()
            .map(|(level, finding)| (format!("{level:?}"), chain(finding)))
            .filter(|(level, _)| level == "Error")
            .map(|(_, text)| text)
            .collect();
        let more = damages.len().saturating_sub(DAMAGES_SHOWN_MAX);
        let mut what = damages.iter().take(DAMAGES_SHOWN_MAX).cloned().collect::<Vec<_>>().join("; ");
        if more > 0 {
            what.push_str(&format!("; and {more} more"));
        }
        Err(Error::Damaged { location: self.backend.location.clone(), what })
    }
}

/// Damages that an error names.
const DAMAGES_SHOWN_MAX: usize = 5;

/// The snapshot as a backup, if it is one of ours.
fn backup(snapshot: SnapshotFile) -> Option<Backup> {
    if !snapshot.tags.contains(TAG) {
        return None;
    }
    let tag = |key: &str| snapshot.tags.iter().find_map(|tag| tag.strip_prefix(key)).map(str::to_owned);
    let part = Part {
        deployment: tag("deployment=")?,
        member: tag("member=")?,
        checkpoint: tag("checkpoint=")?,
        host: snapshot.hostname.clone(),
    };
    let (total_bytes, added_bytes) = snapshot
        .summary
        .as_ref()
        .map_or((0, 0), |summary| (summary.total_bytes_processed, summary.data_added_packed));
    Some(Backup {
        id: snapshot.id.to_hex().as_str().to_owned(),
        part,
        made_ms: u64::try_from(snapshot.time.timestamp().as_millisecond()).unwrap_or(0),
        total_bytes,
        added_bytes,
        snapshot,
    })
}

/// What went wrong by our own account if there is one, else by the library's.
fn failed(backend: &Backend, doing: &'static str, error: &RusticError) -> Error {
    backend.outcome.take().unwrap_or_else(|| {
        let reason = error.to_string();
        Error::Format {
            doing,
            location: backend.location.clone(),
            reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    })
}

/// Gives the library's counts to the caller's control.
#[derive(Debug)]
struct Bars(Arc<Control>);

impl ProgressBars for Bars {
    fn progress(&self, kind: ProgressType, _prefix: &str) -> Progress {
        match kind {
            ProgressType::Bytes => Progress::new(Bar(Arc::clone(&self.0))),
            ProgressType::Spinner | ProgressType::Counter => Progress::new(NoProgress),
        }
    }
}

#[derive(Debug)]
struct Bar(Arc<Control>);

impl RusticProgress for Bar {
    fn is_hidden(&self) -> bool {
        false
    }

    fn set_length(&self, bytes: u64) {
        self.0.expect(bytes);
    }

    fn set_title(&self, _title: &str) {}

    fn inc(&self, bytes: u64) {
        self.0.advance(bytes);
    }

    fn finish(&self) {}
}
