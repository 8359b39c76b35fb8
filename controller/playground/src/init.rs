//! What runs as process 1 of each box: mounts, a supervisor of daemons, and the reaper of orphans.
//!
//! ```text
//!   up ── spawns ──▶ enter(): new mount, network, UTS and pid namespaces; starts the box's process 1; says its pid; ends
//!                      └──▶ run(): waits for "go", mounts, starts daemons, restarts what dies
//!   up ── standard input ──▶ "go", "start NAME"; the end of input before "go" ends the box
//! ```
//!
//! libvirtd must not be process 1: QEMU makes itself a daemon, its orphan would become libvirtd's zombie and libvirt
//! waits for minutes for that pid to vanish.

use crate::layout::{DaemonSpec, InitSpec};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// First pause before a dead daemon is started again.
const PAUSE_MS_MIN: u64 = 100;
/// Longest pause.
const PAUSE_MS_MAX: u64 = 5_000;
/// A daemon that ran so long starts again with the first pause.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// What process 1 says of its daemons, in its status file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitStatus {
    /// Daemons by name.
    pub daemons: BTreeMap<String, DaemonRuns>,
}

/// How often one daemon was started and how it last ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRuns {
    /// Starts so far.
    pub starts: u32,
    /// Its pid inside the box, if it runs.
    pub pid: Option<i32>,
    /// How it last ended, for people.
    pub ended: Option<String>,
}

/// First stage: makes the namespaces, starts the box's process 1 in them and says its pid.
///
/// Call it from a process without other threads.
///
/// # Errors
/// The kernel refuses a namespace, or the program cannot be started again.
pub fn enter(spec_path: &Path) -> io::Result<()> {
    let spec = read_spec(spec_path)?;
    nix::unistd::setsid()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    if let Some(target) = &spec.outer_network {
        File::create(target)?;
        bind(Path::new("/proc/self/ns/net"), target)?;
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWPID)?;
    let child = Command::new(std::env::current_exe()?)
        .args(["playground", "host-init", "--inside", "--spec"])
        .arg(spec_path)
        .stdin(Stdio::inherit())
        .stdout(Stdio::null())
        .spawn()?;
    let mut out = io::stdout();
    writeln!(out, "{}", child.id())?;
    out.flush()
}

/// Second stage, process 1 of the box: runs until it is killed.
///
/// # Errors
/// It was not told to go, or something cannot be mounted.
pub async fn run(spec_path: &Path) -> io::Result<()> {
    let spec = read_spec(spec_path)?;
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    if commands.next_line().await?.as_deref() != Some("go") {
        return Err(io::Error::other("whoever started this box has gone before it was ready"));
    }
    nix::unistd::sethostname(&spec.hostname)?;
    prepare_mounts(&spec)?;
    Supervisor::new(&spec)?.run(commands).await
}

fn read_spec(path: &Path) -> io::Result<InitSpec> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn prepare_mounts(spec: &InitSpec) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>)?;
    // A fresh /run: the machine's own sockets are out of sight, and mount points can be made without leaving a trace.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))?;
    // libvirt locks a console's device there.
    std::fs::create_dir("/run/lock")?;
    for (source, target) in &spec.binds {
        if target.starts_with("/run") {
            fs::create_dir_all(target)?;
        }
        bind(source, target)?;
    }
    Ok(())
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|error| {
        let problem = format!("cannot mount {} on {}: {error}", source.display(), target.display());
        io::Error::new(io::Error::from(error).kind(), problem)
    })
}

struct Daemon<'a> {
    spec: &'a DaemonSpec,
    pid: Option<Pid>,
    started: Instant,
    /// When it is to be started; none while it runs or has not been asked for.
    due: Option<Instant>,
    pause: Duration,
    runs: DaemonRuns,
}

struct Supervisor<'a> {
    spec: &'a InitSpec,
    daemons: Vec<Daemon<'a>>,
    log: io::Stderr,
}

impl<'a> Supervisor<'a> {
    fn new(spec: &'a InitSpec) -> io::Result<Self> {
        let now = Instant::now();
        let daemons = spec
            .daemons
            .iter()
            .map(|spec| Daemon {
                spec,
                pid: None,
                started: now,
                due: spec.at_once.then_some(now),
                pause: Duration::from_millis(PAUSE_MS_MIN),
                runs: DaemonRuns::default(),
            })
            .collect();
        let supervisor = Self { spec, daemons, log: io::stderr() };
        supervisor.report()?;
        Ok(supervisor)
    }

    async fn run(mut self, mut commands: Lines<BufReader<Stdin>>) -> io::Result<()> {
        let mut child_ended = signal(SignalKind::child())?;
        let mut listening = true;
        loop {
            self.start_due()?;
            let due = self.daemons.iter().filter_map(|daemon| daemon.due).min();
            let wake = due.unwrap_or_else(|| Instant::now() + HEALTHY_AFTER);
            tokio::select! {
                _ = child_ended.recv() => self.reap()?,
                () = tokio::time::sleep_until(wake) => {}
                line = commands.next_line(), if listening => match line {
                    Ok(Some(line)) => self.obey(&line),
                    Ok(None) | Err(_) if self.spec.leashed => return Ok(()),
                    Ok(None) | Err(_) => listening = false,
                },
            }
        }
    }

    fn obey(&mut self, line: &str) {
        let Some(name) = line.strip_prefix("start ") else { return };
        for daemon in
            self.daemons.iter_mut().filter(|daemon| daemon.spec.name == name && daemon.pid.is_none())
        {
            daemon.due = Some(Instant::now());
        }
    }

    fn start_due(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let mut changed = false;
        for daemon in self.daemons.iter_mut().filter(|daemon| daemon.due.is_some_and(|due| due <= now)) {
            changed = true;
            daemon.start(now);
        }
        if changed { self.report() } else { Ok(()) }
    }

    /// Takes every ended child: daemons are started again later, orphans only leave the process table.
    fn reap(&mut self) -> io::Result<()> {
        let mut changed = false;
        while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { break };
            let Some(daemon) = self.daemons.iter_mut().find(|daemon| daemon.pid == Some(pid)) else {
                continue;
            };
            let how = describe(status);
            let pause = daemon.pause.as_millis();
            daemon.ended(&how);
            changed = true;
            writeln!(self.log, "{} ended ({how}); starting it again in {pause} ms", daemon.spec.name)?;
        }
        if changed { self.report() } else { Ok(()) }
    }

    fn report(&self) -> io::Result<()> {
        let daemons =
            self.daemons.iter().map(|daemon| (daemon.spec.name.clone(), daemon.runs.clone())).collect();
        let text = serde_json::to_vec(&InitStatus { daemons })?;
        let beside = self.spec.status.with_extension("new");
        fs::write(&beside, text)?;
        fs::rename(&beside, &self.spec.status)
    }
}

impl Daemon<'_> {
    fn start(&mut self, now: Instant) {
        self.due = None;
        self.started = now;
        self.runs.starts += 1;
        match self.spawn() {
            Ok(pid) => {
                self.pid = Some(pid);
                self.runs.pid = Some(pid.as_raw());
            }
            Err(error) => self.ended(&format!("cannot start {}: {error}", self.spec.argv[0])),
        }
    }

    fn spawn(&self) -> io::Result<Pid> {
        let log = OpenOptions::new().append(true).create(true).open(&self.spec.log)?;
        let child = Command::new(&self.spec.argv[0])
            .args(&self.spec.argv[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
    }

    fn ended(&mut self, how: &str) {
        let now = Instant::now();
        if now.duration_since(self.started) >= HEALTHY_AFTER {
            self.pause = Duration::from_millis(PAUSE_MS_MIN);
        }
        self.due = Some(now + self.pause);
        self.pause = (self.pause * 2).min(Duration::from_millis(PAUSE_MS_MAX));
        self.pid = None;
        self.runs.pid = None;
        self.runs.ended = Some(how.to_owned());
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("{other:?}"),
    }
}
