//! What can go wrong on either side.

use crate::layout::Role;
use std::path::PathBuf;
use types::{ChannelName, PublisherName, VersionName};

/// Why a repository was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PublisherError {
    /// A file or folder.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that holds something else than it should.
    #[error("{} cannot be understood: {detail}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// There is one already.
    #[error("{} holds a repository already", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("{} holds no repository: make one with `collective publisher init`", .0.display())]
    Absent(PathBuf),
    /// It is somebody else's.
    #[error("the repository is {held}'s, not {given}'s")]
    OtherPublisher {
        /// Whose it is.
        held: PublisherName,
        /// Who was meant.
        given: PublisherName,
    },
    /// Secret keys are not at hand.
    #[error(
        "role {role} needs signatures of {threshold} of the keys {}; at hand are {at_hand}: name the folders of \
        the others with --keys", keys.join(", ")
    )]
    KeysMissing {
        /// Of which role.
        role: Role,
        /// Signatures needed.
        threshold: u64,
        /// Its keys' short ids.
        keys: Vec<String>,
        /// How many of them are there.
        at_hand: usize,
    },
    /// Others may read a secret key.
    #[error("the key {} may be read by others (mode {mode:03o}): chmod 600 it, or make a new one", path.display())]
    KeyOpen {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A threshold that its role's keys cannot meet.
    #[error("a threshold of {threshold} cannot be met by {keys} keys: write 1 to {keys}")]
    Threshold {
        /// As asked.
        threshold: u64,
        /// Keys there are.
        keys: usize,
    },
    /// A version is immutable.
    #[error("{appliance} {version} is published with other content: give it a new version")]
    Published {
        /// Of which appliance.
        appliance: String,
        /// Which.
        version: VersionName,
    },
    /// No such version.
    #[error("the repository has no {appliance} {version}: publish it first")]
    NoVersion {
        /// Of which appliance.
        appliance: String,
        /// Which.
        version: VersionName,
    },
    /// It was withdrawn.
    #[error("{appliance} {version} is yanked: publish a new version, or take the yank back first")]
    Yanked {
        /// Of which appliance.
        appliance: String,
        /// Which.
        version: VersionName,
    },
    /// A channel leads to it.
    #[error("channel {channel} of {appliance} points to {version}: promote another version first")]
    Offered {
        /// Of which appliance.
        appliance: String,
        /// Which.
        version: VersionName,
        /// The channel.
        channel: ChannelName,
    },
    /// No such role.
    #[error("the repository has no role {0}")]
    NoRole(Role),
    /// The library refused.
    #[error("cannot make metadata: {0}")]
    Metadata(String),
}

/// Why a repository was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// It does not answer, or not in time, or with too much.
    #[error("{0}")]
    Unreachable(String),
    /// Its metadata is over: nobody renewed it, or somebody hides what is newer.
    #[error(
        "the {0} metadata has expired: the publisher has not renewed it, or somebody hides newer metadata"
    )]
    Expired(String),
    /// It is not what its signatures or our memory say.
    #[error("{0}")]
    Refused(String),
    /// What we remember of it cannot be read or written.
    #[error("{0}")]
    Memory(String),
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}
