//! Locks as restic's: files that say who works on a repository, so that nobody prunes what another one writes.
//!
//! The format's library leaves them out, for its own programs never delete at once. Ours share the repository with
//! restic, which does. A shared lock is taken for whatever reads or adds, an exclusive one for whatever deletes; each is
//! a file, sealed with the repository's key, that is written anew every few minutes and counts no more when it is old.

use crate::storage::Storage;
use crate::{Error, backend};
use aes256ctr_poly1305aes::aead::{Aead as _, AeadInPlace as _};
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a lock is written anew: restic's own interval.
const RENEW_INTERVAL: Duration = Duration::from_mins(5);
/// Age in seconds at which a lock counts no more: restic's own.
const STALE_S: i64 = 30 * 60;
/// Bytes of a lock when it is unpacked, at most.
const LOCK_LEN_MAX: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Shared,
    Exclusive,
}

/// What a lock's file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    time: Timestamp,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

impl Record {
    fn now(kind: Kind) -> Self {
        let hostname =
            nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        Self {
            time: Timestamp::now(),
            exclusive: kind == Kind::Exclusive,
            hostname,
            username: "collective".to_owned(),
            pid: Pid::this().as_raw(),
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        }
    }

    /// Its holder is gone: it is old, or of a process of this machine that is no more.
    fn is_stale(&self, here: &Self) -> bool {
        if here.time.as_second() - self.time.as_second() > STALE_S {
            return true;
        }
        self.hostname == here.hostname
            && self.pid > 0
            && kill(Pid::from_raw(self.pid), None) == Err(Errno::ESRCH)
    }
}

/// A lock that is held until it is dropped.
pub(crate) struct Lock {
    shared: Arc<Renewal>,
    thread: Option<JoinHandle<()>>,
    /// Locks of processes that are gone were found, and removed: their work may be half done.
    pub(crate) found_stale: bool,
}

struct Renewal {
    storage: Arc<dyn Storage>,
    key: Key,
    kind: Kind,
    /// The name of the file as it is now; none once it shall end.
    name: Mutex<Option<String>>,
    ended: Condvar,
}

impl Lock {
    /// Takes one, or says who is in the way. Removes those whose holders are gone.
    pub(crate) fn take(
        storage: &Arc<dyn Storage>,
        key: Key,
        location: &str,
        kind: Kind,
    ) -> Result<Self, Error> {
        let found_stale = check(storage.as_ref(), &key, location, kind, None)?;
        let name = write(storage.as_ref(), &key, kind)
            .map_err(|source| Error::storage("write a lock", location, source))?;
        let renewal = Arc::new(Renewal {
            storage: Arc::clone(storage),
            key,
            kind,
            name: Mutex::new(Some(name.clone())),
            ended: Condvar::new(),
        });
        let mut held = Self { shared: Arc::clone(&renewal), thread: None, found_stale };
        // Two that came at the same time see each other now; both go then, none works beside another.
        check(storage.as_ref(), &key, location, kind, Some(&name))?;
        held.thread = Some(
            thread::Builder::new()
                .name("backup-lock".into())
                .spawn(move || renewal.run())
                .map_err(|source| Error::storage("renew a lock", location, source))?,
        );
        Ok(held)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let name = self.shared.name.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shared.ended.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(name) = name
            && let Err(error) = self.shared.storage.remove(&name)
        {
            tracing::warn!(%error, name, "a lock stays behind until it is old");
        }
    }
}

impl Renewal {
    fn run(&self) {
        let mut name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Also right at once if it ended before this thread began.
            name = self
                .ended
                .wait_timeout_while(name, RENEW_INTERVAL, |name| name.is_some())
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if name.is_none() {
                return;
            }
            // The new one first: there is no moment without.
            match write(self.storage.as_ref(), &self.key, self.kind) {
                Ok(new) => {
                    if let Some(old) = name.replace(new) {
                        let _ = self.storage.remove(&old);
                    }
                }
                Err(error) => tracing::warn!(%error, "a lock could not be renewed; it is tried again"),
            }
        }
    }
}

fn check(
    storage: &dyn Storage,
    key: &Key,
    location: &str,
    kind: Kind,
    own: Option<&str>,
) -> Result<bool, Error> {
    let mut found_stale = false;
    let here = Record::now(kind);
    for (name, _) in storage.list("locks").map_err(|source| Error::storage("list locks", location, source))? {
        let id = name.rsplit('/').next().unwrap_or_default();
        if own == Some(name.as_str()) || id.len() != 64 {
            continue;
        }
        let bytes = match storage.read(&name) {
            Ok(bytes) => bytes,
            // Its holder is done.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::storage("read a lock", location, source)),
        };
        let Some(record) = open(key, &bytes) else {
            return Err(Error::Locked {
                location: location.to_owned(),
                holder: format!("somebody whose lock {id} cannot be read"),
                since: "an unknown time".into(),
            });
        };
        if record.is_stale(&here) {
            tracing::info!(
                name,
                holder = record.hostname,
                pid = record.pid,
                "a lock whose holder is gone is removed"
            );
            found_stale = true;
            storage.remove(&name).map_err(|source| Error::storage("remove an old lock", location, source))?;
        } else if record.exclusive || kind == Kind::Exclusive {
            let holder = format!("{} on {} (process {})", record.username, record.hostname, record.pid);
            return Err(Error::Locked {
                location: location.to_owned(),
                holder,
                since: record.time.to_string(),
            });
        }
    }
    Ok(found_stale)
}

fn write(storage: &dyn Storage, key: &Key, kind: Kind) -> io::Result<String> {
    let text = serde_json::to_vec(&Record::now(kind)).map_err(io::Error::other)?;
    let sealed = seal(key, &text).map_err(|error| io::Error::other(backend::chain(&error)))?;
    let name = format!("locks/{}", hex::encode(Sha256::digest(&sealed)));
    storage.write(&name, &[sealed.into()])?;
    Ok(name)
}

fn seal(key: &Key, text: &[u8]) -> Result<Vec<u8>, aes256ctr_poly1305aes::aead::Error> {
    let mut nonce = Nonce::default();
    rand::rng().fill_bytes(&mut nonce);
    let mut sealed = Vec::with_capacity(text.len() + 32);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(text);
    let tag = Aes256CtrPoly1305Aes::new(key).encrypt_in_place_detached(
        &nonce,
        &[],
        sealed.get_mut(16..).unwrap_or_default(),
    )?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

fn open(key: &Key, sealed: &[u8]) -> Option<Record> {
    let (nonce, rest) = sealed.split_at_checked(16)?;
    let text = Aes256CtrPoly1305Aes::new(key).decrypt(Nonce::from_slice(nonce), rest).ok()?;
    match text.first()? {
        b'{' => serde_json::from_slice(&text).ok(),
        // Version 2 of the format compresses, and says so with a 2.
        2 => serde_json::from_slice(&zstd::bulk::decompress(text.get(1..)?, LOCK_LEN_MAX).ok()?).ok(),
        _ => None,
    }
}
