//! Removing a playground: kill process 1 of each box, remove the folder. The kernel does the rest.

use crate::error::PlaygroundError;
use crate::state::{Claim, Record};
use std::path::Path;
use std::time::Duration;

/// A killed box ends within this: the kernel ends everything in its pid namespace first.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// What `down` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// A playground, of which so many boxes still ran.
    Playground {
        /// Boxes killed.
        boxes: usize,
    },
    /// Nothing.
    Nothing,
}

/// Removes a playground with all it holds, running or not. Nothing there is success.
///
/// # Errors
/// Another command works on it, the folder is not a playground's, or the file system refuses.
pub fn down(state_dir: &Path) -> Result<Removed, PlaygroundError> {
    match Claim::take(state_dir) {
        Err(PlaygroundError::Absent { .. }) => Ok(Removed::Nothing),
        Err(error) => Err(error),
        Ok(claim) => {
            let removed = remove(state_dir);
            drop(claim);
            removed
        }
    }
}

/// The same for whoever holds the claim.
pub(crate) fn remove(state_dir: &Path) -> Result<Removed, PlaygroundError> {
    let record = match Record::load(state_dir) {
        Ok(record) => record,
        // `up` was killed between making the folder and its first record: an empty folder is nobody's work.
        Err(PlaygroundError::Foreign { .. }) if std::fs::remove_dir(state_dir).is_ok() => {
            return Ok(Removed::Nothing);
        }
        Err(error) => return Err(error),
    };
    let alive = record.alive();
    // All are told first, so that they end at the same time.
    std::thread::scope(|scope| {
        let kills: Vec<_> =
            alive.iter().map(|(name, process)| (*name, scope.spawn(|| process.kill(END_PATIENCE)))).collect();
        kills.into_iter().try_for_each(|(name, kill)| {
            let result =
                kill.join().unwrap_or_else(|_| Err(std::io::Error::other("the killing thread panicked")));
            result.map_err(PlaygroundError::io(format!("end the box {name}")))
        })
    })?;
    std::fs::remove_dir_all(state_dir)
        .map_err(PlaygroundError::io(format!("remove {}", state_dir.display())))?;
    remove_parents(state_dir);
    Ok(Removed::Playground { boxes: alive.len() })
}

/// Our own default folders go when they are empty; a folder somebody chose is not ours to judge.
fn remove_parents(state_dir: &Path) {
    let root = Path::new(crate::STATE_ROOT);
    if state_dir.parent() == Some(root) && std::fs::remove_dir(root).is_ok() {
        let _ = root.parent().map(std::fs::remove_dir);
    }
}
