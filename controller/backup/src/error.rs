use std::io;
use std::path::PathBuf;

/// Why something was not done with a repository. The repository is as good as before in any case.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no location.
    #[error(
        "{text:?} is no repository: {reason}. Write /a/folder, sftp:user@host:/a/folder or s3:https://host/bucket/prefix"
    )]
    Location {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is there.
    #[error("there is no repository at {location}: make it first")]
    Absent {
        /// Where.
        location: String,
    },
    /// Something is there already.
    #[error("there is a repository at {location} already: nothing was changed")]
    Exists {
        /// Where.
        location: String,
    },
    /// None of the repository's keys opens with this password.
    #[error("the password does not open the repository at {location}")]
    Password {
        /// Where.
        location: String,
    },
    /// Somebody else works on the repository.
    #[error(
        "the repository at {location} is locked by {holder} since {since}; if that process is gone, `restic unlock` removes its lock"
    )]
    Locked {
        /// Where.
        location: String,
        /// Host, user and process.
        holder: String,
        /// When it was taken or last renewed.
        since: String,
    },
    /// The storage has no room left.
    #[error(
        "the repository at {location} is full: what it holds is unharmed; make room, or forget backups, and try again"
    )]
    Full {
        /// Where.
        location: String,
        /// What the storage said.
        #[source]
        source: io::Error,
    },
    /// The storage did not do what it was asked.
    #[error("cannot {doing} in the repository at {location}")]
    Storage {
        /// What was tried.
        doing: String,
        /// Where.
        location: String,
        /// What the storage said.
        #[source]
        source: io::Error,
    },
    /// A file that shall be backed up, or be written when restoring.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file was another one when it was read than when the backup began.
    #[error("{} changed while it was backed up: only files that never change again are", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// The caller called it off.
    #[error("the work was cancelled")]
    Cancelled,
    /// No such backup.
    #[error("the repository at {location} has no backup {id}")]
    NoSuchBackup {
        /// Where.
        location: String,
        /// What was asked for.
        id: String,
    },
    /// What is stored is not what was stored.
    #[error("the repository at {location} is damaged: {what}")]
    Damaged {
        /// Where.
        location: String,
        /// What is wrong.
        what: String,
    },
    /// Anything else that the format's library says.
    #[error("cannot {doing} with the repository at {location}: {reason}")]
    Format {
        /// What was tried.
        doing: &'static str,
        /// Where.
        location: String,
        /// The library's words.
        reason: String,
    },
}

impl Error {
    /// The storage's word as an error of ours: a full one is told apart, because it is mended elsewhere.
    pub(crate) fn storage(doing: impl Into<String>, location: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { location: location.to_owned(), source }
            }
            _ => Self::Storage { doing: doing.into(), location: location.to_owned(), source },
        }
    }
}
