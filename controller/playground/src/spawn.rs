//! Starting a box, and running `ip` in it.

use crate::error::PlaygroundError;
use crate::layout::{Folders, InitSpec};
use crate::namespace;
use crate::process::ProcessIdentity;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

/// What a box inherits of its starter's environment. Nothing else: tokens and contexts stay outside.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "COLLECTIVE_LOG", "COLLECTIVE_LOG_FORMAT"];

/// The part of this process's environment that may go into a box.
pub(crate) fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(key, _)| ENVIRONMENT.iter().any(|kept| key == kept))
}

/// A box that was started and listens for what it shall do. Dropping it before [`Started::tell`] said `go` ends it.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: ProcessIdentity,
    commands: ChildStdin,
}

impl Started {
    pub(crate) fn tell(&mut self, command: &str) -> io::Result<()> {
        writeln!(self.commands, "{command}")
    }

    /// The leash of a leashed box: it lives until this is dropped.
    pub(crate) fn leash(self) -> ChildStdin {
        self.commands
    }
}

/// Starts the box's process 1. It waits to be told to go.
pub(crate) fn start(binaries: &Path, folders: &Folders, spec: &InitSpec) -> Result<Started, PlaygroundError> {
    let log = folders.log_of("init");
    let spec_path = folders.init_spec();
    let attempt = format!("start the box {}", spec.hostname);
    let spawn = || -> io::Result<Started> {
        fs::write(&spec_path, serde_json::to_vec_pretty(spec)?)?;
        let errors = OpenOptions::new().append(true).create(true).open(&log)?;
        let mut child = Command::new(binaries.join("collective"))
            .args(["playground", "host-init", "--spec"])
            .arg(&spec_path)
            .env_clear()
            .envs(environment())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let commands = child.stdin.take().ok_or_else(|| io::Error::other("no standard input"))?;
        child.wait()?;
        let pid = line.trim().parse().map_err(|_| io::Error::other("it ended at once"))?;
        Ok(Started { process: ProcessIdentity::of(pid)?, commands })
    };
    spawn().map_err(|error| PlaygroundError::Part {
        what: attempt,
        problem: format!("failed: {error}"),
        tail: tail(&log),
        log: log.clone(),
    })
}

/// Runs `ip -batch` inside the network namespace of a process.
pub(crate) fn links(part: &str, pid: i32, lines: String) -> Result<(), PlaygroundError> {
    let output = namespace::run(&namespace::network_of(pid), move || -> io::Result<std::process::Output> {
        let mut ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = ip.stdin.take() {
            input.write_all(lines.as_bytes())?;
        }
        ip.wait_with_output()
    });
    let attempt = format!("run ip (package iproute2) in {part}");
    let output = output.and_then(|inner| inner).map_err(PlaygroundError::io(attempt))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(PlaygroundError::Links { part: part.to_owned(), message })
}

/// Lines of a log that are shown with an error.
const TAIL_LINES: usize = 12;
/// Bytes of a log that are looked at for that.
const TAIL_BYTES: usize = 16 * 1024;

/// The end of a log.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    if last.is_empty() {
        return "  (nothing)".to_owned();
    }
    last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
