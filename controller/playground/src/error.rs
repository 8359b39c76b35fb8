//! Why a playground command failed, for people: what, where, and what to do.

use std::path::PathBuf;

/// Why a playground command failed.
#[derive(Debug, thiserror::Error)]
pub enum PlaygroundError {
    /// Namespaces need privilege.
    #[error("a playground makes namespaces and needs root: run the command with sudo")]
    NotRoot,
    /// The configuration cannot be.
    #[error("{0}")]
    Invalid(String),
    /// There is one already.
    #[error(
        "playground {name:?} exists already in {}: `collective playground down --name {name}` removes it",
        state_dir.display()
    )]
    Exists {
        /// Its name.
        name: String,
        /// Its folder.
        state_dir: PathBuf,
    },
    /// There is none.
    #[error("there is no playground in {}: `collective playground up` makes one", state_dir.display())]
    Absent {
        /// Where it was looked for.
        state_dir: PathBuf,
    },
    /// The folder is no playground's.
    #[error("{} is not a playground's folder (it has no {file}); nothing was removed", state_dir.display())]
    Foreign {
        /// The folder.
        state_dir: PathBuf,
        /// What it lacks.
        file: &'static str,
    },
    /// Somebody else is at it.
    #[error("another command is working on the playground in {}: wait for it to end", state_dir.display())]
    Busy {
        /// Its folder.
        state_dir: PathBuf,
    },
    /// A program is not there.
    #[error("{program} is missing in {}: build it (`cargo build`) or name its folder with --bin", folder.display())]
    MissingBinary {
        /// Which.
        program: &'static str,
        /// Where it should be.
        folder: PathBuf,
    },
    /// The port on 127.0.0.1 is somebody else's.
    #[error("127.0.0.1:{port} is taken: choose another with --port, or --port 0 for any free one")]
    PortTaken {
        /// Which.
        port: u16,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A file, process or socket said no.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted, with its path.
        attempt: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// `ip` said no.
    #[error("cannot make the links of {part}: {message}")]
    Links {
        /// The box.
        part: String,
        /// Of `ip`.
        message: String,
    },
    /// Something started and did not come to serve.
    #[error("{what} {problem}; the end of {}:\n{tail}", log.display())]
    Part {
        /// What was waited for.
        what: String,
        /// What happened instead.
        problem: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The controller refused something.
    #[error("the controller refused to {attempt}: {message}")]
    Refused {
        /// What.
        attempt: String,
        /// Its words.
        message: String,
    },
    /// No such host, or no such daemon in it.
    #[error("{0}")]
    Unknown(String),
}

impl PlaygroundError {
    /// For `map_err`: what was attempted.
    pub(crate) fn io(attempt: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Io { attempt, source }
    }
}
