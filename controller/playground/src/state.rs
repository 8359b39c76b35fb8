//! The folder of a playground: its record, and who may work on it.

use crate::error::PlaygroundError;
use crate::process::{self, ProcessIdentity};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The record's file name. A folder without it is never removed.
pub(crate) const RECORD: &str = "playground.json";
/// Format of the record; another is refused.
const FORMAT: u32 = 1;
/// Name of the box that is no host.
pub(crate) const SWITCH: &str = "switch";

/// What a playground consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Its name.
    pub(crate) name: String,
    /// Boot of the machine in which its processes were started.
    pub(crate) boot_id: String,
    /// Hosts it shall have.
    pub(crate) hosts: u8,
    /// TCP port on 127.0.0.1.
    pub(crate) port: u16,
    /// `up` came to its end.
    pub(crate) complete: bool,
    /// Process 1 of each box, by the box's name.
    pub(crate) boxes: BTreeMap<String, ProcessIdentity>,
}

impl Record {
    pub(crate) fn new(name: &str, hosts: u8, port: u16) -> Result<Self, PlaygroundError> {
        let boot_id = process::boot_id().map_err(PlaygroundError::io("read the boot's id"))?;
        let boxes = BTreeMap::new();
        Ok(Self { format: FORMAT, name: name.to_owned(), boot_id, hosts, port, complete: false, boxes })
    }

    /// Reads the record of a playground.
    pub(crate) fn load(state_dir: &Path) -> Result<Self, PlaygroundError> {
        let path = state_dir.join(RECORD);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !state_dir.exists() => {
                return Err(PlaygroundError::Absent { state_dir: state_dir.to_owned() });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(PlaygroundError::Foreign { state_dir: state_dir.to_owned(), file: RECORD });
            }
            Err(error) => return Err(PlaygroundError::io(format!("read {}", path.display()))(error)),
        };
        let record: Self = serde_json::from_slice(&bytes)
            .map_err(|error| PlaygroundError::Invalid(format!("{} is damaged: {error}", path.display())))?;
        if record.format == FORMAT {
            Ok(record)
        } else {
            Err(PlaygroundError::Invalid(format!(
                "{} has format {}, this program knows {FORMAT}: use the program that made it",
                path.display(),
                record.format
            )))
        }
    }

    pub(crate) fn store(&self, state_dir: &Path) -> Result<(), PlaygroundError> {
        let path = state_dir.join(RECORD);
        let attempt = format!("write {}", path.display());
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        text.and_then(|text| chassis::durable::write(&path, &text, 0o600))
            .map_err(PlaygroundError::io(attempt))
    }

    /// Its processes that have not ended. None are after another boot, whatever their numbers.
    pub(crate) fn alive(&self) -> Vec<(&str, ProcessIdentity)> {
        let same_boot = process::boot_id().is_ok_and(|boot| boot == self.boot_id);
        self.boxes
            .iter()
            .filter(|(_, process)| same_boot && process.alive())
            .map(|(name, process)| (name.as_str(), *process))
            .collect()
    }
}

/// The right to change a playground. Given back when dropped, or when its holder dies.
#[derive(Debug)]
pub(crate) struct Claim(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Claim {
    pub(crate) fn take(state_dir: &Path) -> Result<Self, PlaygroundError> {
        let attempt = format!("open {}", state_dir.display());
        let folder = match File::open(state_dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(PlaygroundError::Absent { state_dir: state_dir.to_owned() });
            }
            other => other.map_err(PlaygroundError::io(attempt))?,
        };
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Err(PlaygroundError::Busy { state_dir: state_dir.to_owned() }),
            Err((_, errno)) => {
                Err(PlaygroundError::io(format!("lock {}", state_dir.display()))(errno.into()))
            }
        }
    }
}

/// Makes the folder, which is the claim on the name: two `up` at once cannot both succeed.
pub(crate) fn create_folder(name: &str, state_dir: &Path) -> Result<(), PlaygroundError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let attempt = format!("make the folder {}", state_dir.display());
    let parent = state_dir.parent().map(Path::to_owned).unwrap_or_else(|| PathBuf::from("/"));
    std::fs::create_dir_all(parent).map_err(PlaygroundError::io(attempt.clone()))?;
    match std::fs::DirBuilder::new().mode(0o700).create(state_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            // An empty folder is as good as none: a test's, or one somebody made for us.
            let empty = std::fs::read_dir(state_dir).is_ok_and(|mut entries| entries.next().is_none());
            let exists =
                || PlaygroundError::Exists { name: name.to_owned(), state_dir: state_dir.to_owned() };
            if empty { Ok(()) } else { Err(exists()) }
        }
        other => other.map_err(PlaygroundError::io(attempt)),
    }
}
