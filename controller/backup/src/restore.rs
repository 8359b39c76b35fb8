//! Writes a backup's files. The format's library can, too, but ends its process at a damaged byte.

use crate::{Control, Error, RestoredFile};
use rustic_core::repofile::{BlobType, Node};
use rustic_core::{DataId, IndexedFullStatus, Repository};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

/// Parts that are fetched at the same time: a remote storage answers late, but many at once.
const FETCHES_MAX: usize = 8;

/// A part of a file, which the repository holds as one blob.
struct Blob {
    file: usize,
    offset: u64,
    len: u64,
    id: DataId,
}

struct Target {
    restored: RestoredFile,
    file: File,
    /// Bytes that were there before.
    had_bytes: u64,
    modified: Option<SystemTime>,
}

type Indexed = Repository<IndexedFullStatus>;

/// All files of a backup below a folder.
pub(crate) fn run(
    indexed: &Indexed,
    nodes: Vec<(PathBuf, Node)>,
    folder: &Path,
    location: &str,
    control: &Control,
) -> Result<Vec<RestoredFile>, Error> {
    let (mut targets, mut blobs) = (Vec::new(), Vec::new());
    for (name, node) in nodes.into_iter().filter(|(_, node)| node.is_file()) {
        // The names come from a repository that others may write.
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Error::Damaged {
                location: location.to_owned(),
                what: format!("{} is no name of a file", name.display()),
            });
        }
        let mut offset = 0;
        for id in node.content.iter().flatten() {
            let entry = indexed.get_index_entry(id).map_err(|_| Error::Damaged {
                location: location.to_owned(),
                what: format!("a part of {} is not in the index", name.display()),
            })?;
            let len = u64::from(entry.data_length());
            blobs.push(Blob { file: targets.len(), offset, len, id: *id });
            offset += len;
        }
        if offset != node.meta.size {
            return Err(Error::Damaged {
                location: location.to_owned(),
                what: format!("{} has {offset} of its {} bytes", name.display(), node.meta.size),
            });
        }
        targets.push(open(folder, &name, &node)?);
    }
    control.expect(blobs.iter().map(|blob| blob.len).sum());
    fill(indexed, &targets, &blobs, location, control)?;
    for target in &targets {
        let unwritable =
            |source| Error::File { doing: "restore", path: target.restored.path.clone(), source };
        if let Some(time) = target.modified {
            target.file.set_modified(time).map_err(unwritable)?;
        }
        target.file.sync_all().map_err(unwritable)?;
    }
    Ok(targets.into_iter().map(|target| target.restored).collect())
}

fn open(folder: &Path, name: &Path, node: &Node) -> Result<Target, Error> {
    let path = folder.join(name);
    let unwritable = |source| Error::File { doing: "restore", path: path.clone(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(unwritable)?;
    }
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(unwritable)?;
    let had_bytes = file.metadata().map_err(unwritable)?.len();
    file.set_permissions(Permissions::from_mode(0o600))
        .and_then(|()| file.set_len(node.meta.size))
        .map_err(unwritable)?;
    let modified = node.meta.mtime.and_then(|time| {
        let since = time.duration_since(jiff::Timestamp::UNIX_EPOCH);
        Duration::try_from(since).ok().and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
    });
    Ok(Target {
        restored: RestoredFile { name: name.to_string_lossy().into_owned(), path, bytes: node.meta.size },
        file,
        had_bytes,
        modified,
    })
}

fn fill(
    indexed: &Indexed,
    targets: &[Target],
    blobs: &[Blob],
    location: &str,
    control: &Control,
) -> Result<(), Error> {
    let (next, stop, first) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    thread::scope(|scope| {
        for _ in 0..FETCHES_MAX.min(blobs.len()) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    let Some(target) = targets.get(blob.file) else { return };
                    if let Err(error) = control.check().and_then(|()| place(indexed, target, blob, location))
                    {
                        stop.store(true, Ordering::Relaxed);
                        first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        return;
                    }
                    control.advance(blob.len);
                }
            });
        }
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Writes one part, unless it is there.
fn place(indexed: &Indexed, target: &Target, blob: &Blob, location: &str) -> Result<(), Error> {
    let path = || target.restored.path.clone();
    let len = usize::try_from(blob.len).unwrap_or(usize::MAX);
    let is_old = blob.offset < target.had_bytes;
    if is_old {
        let mut bytes = vec![0; len];
        target.file.read_exact_at(&mut bytes, blob.offset).map_err(|source| Error::File {
            doing: "read what was restored before of",
            path: path(),
            source,
        })?;
        if Sha256::digest(&bytes).as_slice() == hex::decode(blob.id.to_hex().as_str()).unwrap_or_default() {
            return Ok(());
        }
    }
    let bytes = indexed.get_blob_cached(&blob.id.into(), BlobType::Data).map_err(|error| {
        let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Error::Damaged {
            location: location.to_owned(),
            what: format!("a part of {} cannot be read: {reason}", target.restored.name),
        }
    })?;
    if bytes.len() != len {
        return Err(Error::Damaged {
            location: location.to_owned(),
            what: format!("a part of {} has another length", target.restored.name),
        });
    }
    // What was not there reads as zeros: a hole is as good.
    if !is_old && bytes.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    target.file.write_all_at(&bytes, blob.offset).map_err(|source| Error::File {
        doing: "restore",
        path: path(),
        source,
    })
}
