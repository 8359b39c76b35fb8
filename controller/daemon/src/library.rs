//! What guests read of each image: their runs on disk, and the profiles made of them that hosts are given.
//!
//! One folder an image: `run-NUMBER.json` for each of the newest runs, `published.json` of its maker, `served.json`: what
//! hosts are given, with the number that tells them to fetch it again. Runs are hints. One that cannot be read is left
//! out and removed; losing all costs speed and nothing else.

use crate::problem::{Answer, Refused};
use controller_model::profiles::{RUNS_KEPT, changed_much, merge};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use streamer_api::{Profile, Run};
use types::Digest;

/// What hosts are given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Grows when they gain by fetching it again.
    pub(crate) source: u64,
    /// Best known first.
    pub(crate) profiles: Vec<Profile>,
}

/// All images' runs. Its functions block.
#[derive(Debug)]
pub(crate) struct Library {
    folder: PathBuf,
    /// One writer at a time: what is served is made of all that is there.
    turn: Mutex<()>,
}

impl Library {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("profiles"), turn: Mutex::default() }
    }

    fn folder(&self, image: &Digest) -> PathBuf {
        self.folder.join(image.hex())
    }

    /// What hosts are given of an image; nothing of one that is not known.
    pub(crate) fn served(&self, image: &Digest) -> Served {
        read(&self.folder(image).join("served.json")).unwrap_or_default()
    }

    /// Takes a guest's run up, and forgets the oldest beyond [`RUNS_KEPT`].
    ///
    /// # Errors
    /// The disk takes no note: nothing is served otherwise then.
    pub(crate) fn add(&self, image: &Digest, run: &Run) -> Answer<Served> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.make(image)?;
        let numbers = numbers(&folder).map_err(|error| Refused::unwritten(&folder, error))?;
        write(&run_path(&folder, numbers.last().map_or(0, |last| last + 1)), run)?;
        for number in numbers.iter().take((numbers.len() + 1).saturating_sub(RUNS_KEPT)) {
            let path = run_path(&folder, *number);
            chassis::durable::remove(&path).map_err(|error| Refused::unwritten(&path, error))?;
        }
        renew(&folder, false)
    }

    /// Takes up what a maker published: other profiles, or something else of the image's source (`other`).
    ///
    /// # Errors
    /// As [`Self::add`].
    pub(crate) fn publish(&self, image: &Digest, profiles: &[Profile], other: bool) -> Answer<Served> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.make(image)?;
        if !profiles.is_empty() {
            write(&folder.join("published.json"), &profiles)?;
        }
        renew(&folder, other)
    }

    /// Forgets an image that was not published after all.
    pub(crate) fn discard(&self, image: &Digest) {
        let folder = self.folder(image);
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %folder.display(), "profiles of no image stay on disk");
        }
    }

    fn make(&self, image: &Digest) -> Answer<PathBuf> {
        let folder = self.folder(image);
        std::fs::create_dir_all(&folder).map_err(|error| Refused::unwritten(&folder, error))?;
        Ok(folder)
    }
}

/// Makes what is served anew of all that is there; it stays as it is if hosts would gain nothing.
fn renew(folder: &Path, other: bool) -> Answer<Served> {
    let path = folder.join("served.json");
    let held: Served = read(&path).unwrap_or_default();
    let published: Vec<Profile> = read(&folder.join("published.json")).unwrap_or_default();
    let numbers = numbers(folder).map_err(|error| Refused::unwritten(folder, error))?;
    let runs: Vec<Run> = numbers.iter().filter_map(|number| read(&run_path(folder, *number))).collect();
    let profiles = merge(&published, &held.profiles, &runs);
    if !other && !changed_much(&held.profiles, &profiles) {
        return Ok(held);
    }
    let served = Served { source: held.source + 1, profiles };
    write(&path, &served)?;
    Ok(served)
}

fn run_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("run-{number:020}.json"))
}

/// Numbers of the runs in a folder, oldest first.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_prefix("run-")?.strip_suffix(".json")?.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "cannot be read");
            return None;
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "holds something else than expected: removed");
            // If it stays, the next reader says so again.
            let _ = std::fs::remove_file(path);
            None
        }
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> Answer<()> {
    let bytes = serde_json::to_vec(value).map_err(|error| Refused::internal(&error))?;
    chassis::durable::write(path, &bytes, 0o600).map_err(|error| Refused::unwritten(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamer_api::{ProfileEntry, Touch};

    const IMAGE: Digest = Digest::from_bytes([3; 32]);

    fn run(pieces: std::ops::Range<u32>) -> Run {
        let touched = pieces.map(|piece| Touch { piece, at_ms: piece }).collect();
        Run { whole: true, touched, ..Run::default() }
    }

    #[test]
    fn hosts_are_told_anew_only_when_they_gain_by_it_and_old_runs_go() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::new(folder.path());
        assert_eq!(library.served(&IMAGE), Served::default());
        let sources: Vec<u64> =
            (0..RUNS_KEPT + 5).map(|_| library.add(&IMAGE, &run(0..50)).unwrap().source).collect();
        // With one run, and with twice as many each time since: 1, 2, 4, 8, 16, 32.
        assert_eq!(sources.last(), Some(&6));
        assert_eq!((sources[0], sources[1], sources[2], sources[3]), (1, 2, 2, 3));
        let kept = numbers(&folder.path().join("profiles").join(IMAGE.hex())).unwrap();
        assert_eq!((kept.len(), kept[0]), (RUNS_KEPT, 5));
        let served = Library::new(folder.path()).served(&IMAGE);
        assert_eq!((served.profiles.len(), served.profiles[0].runs), (1, 32));
    }

    #[test]
    fn a_damaged_run_is_left_out_and_a_published_profile_is_served_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::new(folder.path());
        let entries = vec![ProfileEntry { piece: 9, at_ms: 5, runs: 1 }];
        let profile = Profile { name: "office".into(), runs: 1, entries };
        let served = library.publish(&IMAGE, std::slice::from_ref(&profile), false).unwrap();
        assert_eq!((served.source, &served.profiles), (1, &vec![profile]));
        assert_eq!(library.publish(&IMAGE, &[], true).unwrap().source, 2, "something else has changed");
        let damaged = run_path(&folder.path().join("profiles").join(IMAGE.hex()), 7);
        std::fs::write(&damaged, b"{").unwrap();
        let served = library.add(&IMAGE, &run(0..50)).unwrap();
        assert_eq!(served.profiles.len(), 2);
        assert!(!damaged.exists());
        library.discard(&IMAGE);
        assert_eq!(library.served(&IMAGE), Served::default());
    }
}
