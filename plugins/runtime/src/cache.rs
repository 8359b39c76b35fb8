//! Compiled code on disk, each file authenticated.
//!
//! Loading compiled code is trusting it with the process, so a file counts only if it carries the HMAC-SHA-256 of
//! its name and contents under a key that lies beside it, readable by our user alone. A file that fails is as good
//! as absent: it is compiled anew and replaced.

use aws_lc_rs::{hmac, rand};
use sha2::{Digest as _, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use types::Digest;
use wasmtime::Engine;

/// Bytes of compiled code that are kept: some hundred small policies, or a dozen interpreters.
const KEPT_BYTES_MAX: u64 = 512 << 20;

const KEY_FILE: &str = "key";
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 32;

/// A cache folder that cannot be trusted or used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder cannot be made, read or restricted to us.
    #[error("cannot use the cache folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key cannot be read or made.
    #[error("cannot use the key {path}")]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else may have written or read it.
    #[error(
        "{path} must be a {kind} of the user who runs this, closed to all others: remove it, it is made anew"
    )]
    NotOurs {
        /// The folder or the key's file.
        path: PathBuf,
        /// Folder or file.
        kind: &'static str,
    },
}

/// The folder and its key.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    key: hmac::Key,
}

impl Cache {
    /// Opens the folder, or makes it with a new key.
    pub(crate) fn open(folder: &Path) -> Result<Self, CacheError> {
        let unusable = |source| CacheError::Folder { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let found = fs::symlink_metadata(folder).map_err(unusable)?;
        if !found.is_dir() || found.uid() != our_user() {
            return Err(CacheError::NotOurs { path: folder.to_owned(), kind: "folder" });
        }
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(unusable)?;
        let key = key(&folder.join(KEY_FILE))?;
        Ok(Self { folder: folder.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &key) })
    }

    /// The compiled code of that name, if it is there and authentic.
    pub(crate) fn get(&self, name: &Digest) -> Option<Vec<u8>> {
        let path = self.path(name);
        let mut bytes = fs::read(&path).ok()?;
        let authentic = bytes.len() > TAG_LEN
            && hmac::verify(&self.key, &message(name, &bytes[TAG_LEN..]), &bytes[..TAG_LEN]).is_ok();
        if !authentic {
            tracing::warn!(path = %path.display(), "compiled policy is not authentic: compiling it anew");
            return None;
        }
        bytes.drain(..TAG_LEN);
        // What is used stays longest. A clock that cannot be set costs only that.
        let _ =
            File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(bytes)
    }

    /// Keeps compiled code for the next start.
    pub(crate) fn put(&self, name: &Digest, code: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!("{}.{}.{number}.new", name.hex(), std::process::id()));
        let tag = hmac::sign(&self.key, &message(name, code));
        let written = write_new(&temporary, &[tag.as_ref(), code])
            .and_then(|()| fs::rename(&temporary, self.path(name)));
        if written.is_err() {
            // It may never have come to be.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.prune(KEPT_BYTES_MAX)
    }

    /// Removes the code that was not used for longest until the rest is within `bytes_max`. What is removed is compiled
    /// again when it is wanted.
    fn prune(&self, bytes_max: u64) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|end| end == "cwasm") {
                let found = entry.metadata()?;
                kept.push((found.modified()?, found.len(), entry.path()));
            }
        }
        kept.sort_unstable();
        let mut sum: u64 = kept.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in kept {
            if sum <= bytes_max {
                break;
            }
            fs::remove_file(path)?;
            sum -= len;
        }
        Ok(())
    }

    fn path(&self, name: &Digest) -> PathBuf {
        self.folder.join(name.hex()).with_extension("cwasm")
    }
}

/// Name of the compiled form: it depends on the component and on everything in the engine that shapes code.
pub(crate) fn name(component: &Digest, engine: &Engine) -> Digest {
    struct Sink(Sha256);
    impl Hasher for Sink {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sink = Sink(Sha256::new_with_prefix(component.as_bytes()));
    engine.precompile_compatibility_hash().hash(&mut sink);
    Digest::from_bytes(sink.0.finalize().into())
}

fn message(name: &Digest, code: &[u8]) -> Vec<u8> {
    [name.as_bytes().as_slice(), code].concat()
}

/// Reads the key, or makes one. Of several that make one at once, all use the first.
fn key(path: &Path) -> Result<[u8; KEY_LEN], CacheError> {
    let unusable = |source| CacheError::Key { path: path.to_owned(), source };
    if !path.try_exists().map_err(unusable)? {
        let mut key = [0; KEY_LEN];
        rand::fill(&mut key).map_err(|_| unusable(io::Error::other("the system gave no random bytes")))?;
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let linked = write_new(&temporary, &[&key]).and_then(|()| fs::hard_link(&temporary, path));
        let _ = fs::remove_file(&temporary);
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(error)),
            _ => {}
        }
    }
    let mut file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(unusable)?;
    let found = file.metadata().map_err(unusable)?;
    let closed = found.is_file() && found.uid() == our_user() && found.mode() & 0o077 == 0;
    if !closed || found.len() != KEY_LEN as u64 {
        return Err(CacheError::NotOurs { path: path.to_owned(), kind: "file" });
    }
    let mut key = [0; KEY_LEN];
    file.read_exact(&mut key).map_err(unusable)?;
    Ok(key)
}

fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

fn our_user() -> u32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes([byte; 32])
    }

    #[test]
    fn gives_back_what_was_put_also_to_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        Cache::open(folder.path()).unwrap().put(&digest(1), b"code").unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        assert_eq!(cache.get(&digest(1)).unwrap(), b"code");
        assert_eq!(cache.get(&digest(2)), None);
    }

    #[test]
    fn refuses_code_that_was_changed_cut_or_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        cache.put(&digest(1), b"code").unwrap();
        let good = fs::read(cache.path(&digest(1))).unwrap();
        fs::write(cache.path(&digest(2)), &good).unwrap();
        assert_eq!(cache.get(&digest(2)), None);
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(cache.path(&digest(1)), &bad).unwrap();
            assert_eq!(cache.get(&digest(1)), None);
            fs::write(cache.path(&digest(1)), &good[..position]).unwrap();
            assert_eq!(cache.get(&digest(1)), None);
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        for byte in 1..=3 {
            cache.put(&digest(byte), &[byte; 100]).unwrap();
            let file = File::options().append(true).open(cache.path(&digest(byte))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(byte.into())).unwrap();
        }
        assert!(cache.get(&digest(1)).is_some());
        cache.prune(300).unwrap();
        assert_eq!(cache.get(&digest(2)), None);
        assert!(cache.get(&digest(1)).is_some() && cache.get(&digest(3)).is_some());
        cache.prune(0).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the key is left");
    }

    #[test]
    fn code_of_another_key_is_refused() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (cache, other) = (Cache::open(ours.path()).unwrap(), Cache::open(theirs.path()).unwrap());
        other.put(&digest(1), b"code").unwrap();
        fs::copy(other.path(&digest(1)), cache.path(&digest(1))).unwrap();
        assert_eq!(cache.get(&digest(1)), None);
    }

    #[test]
    fn closes_its_folder_and_refuses_a_key_that_others_can_read() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        Cache::open(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        let key = folder.join(KEY_FILE);
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Cache::open(&folder), Err(CacheError::NotOurs { kind: "file", .. })));
    }

    #[test]
    fn refuses_a_folder_that_is_a_link() {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        assert!(matches!(Cache::open(&link), Err(CacheError::NotOurs { kind: "folder", .. })));
    }
}
