//! What can be done with a playground that is up: look at it, run things in it, break it.

use crate::error::PlaygroundError;
use crate::init::InitStatus;
use crate::layout::{self, Folders, InitSpec};
use crate::process::{self, ProcessIdentity};
use crate::state::{Record, SWITCH};
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::time::Duration;

/// A killed daemon is gone within this.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A playground that is up.
#[derive(Debug)]
pub struct Playground {
    pub(crate) state_dir: PathBuf,
    pub(crate) record: Record,
    /// Of leashed boxes: they end when this is dropped.
    pub(crate) leashes: Vec<ChildStdin>,
}

/// How to talk to a playground's controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The administrator's token.
    pub token: String,
    /// PEM of its certificate authority.
    pub ca: String,
    /// File of the same.
    pub ca_file: PathBuf,
}

/// One box of a playground: a host, or the switch.
#[derive(Debug, Clone)]
pub struct Part {
    name: String,
    folders: Folders,
    process: ProcessIdentity,
}

/// What runs of a playground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlaygroundStatus {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub state_dir: PathBuf,
    /// `up` came to its end, and every box and daemon runs.
    pub up: bool,
    /// Where its controller is reached.
    pub url: String,
    /// The switch and the hosts.
    pub boxes: Vec<HostStatus>,
}

/// What runs of one box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Its address on the underlay.
    pub address: String,
    /// Its process 1; none if it has ended.
    pub pid: Option<i32>,
    /// Its daemons.
    pub daemons: Vec<DaemonStatus>,
}

/// One daemon of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DaemonStatus {
    /// Its name.
    pub name: String,
    /// In the machine's own pid namespace; none if it does not run.
    pub pid: Option<i32>,
    /// Starts so far.
    pub starts: u32,
    /// How it last ended.
    pub ended: Option<String>,
    /// Its log.
    pub log: PathBuf,
}

impl Playground {
    /// The playground in a folder, running or not.
    ///
    /// # Errors
    /// There is none.
    pub fn open(state_dir: &Path) -> Result<Self, PlaygroundError> {
        let record = Record::load(state_dir)?;
        Ok(Self { state_dir: state_dir.to_owned(), record, leashes: Vec::new() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its folder.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// How many hosts it has.
    #[must_use]
    pub fn host_count(&self) -> u8 {
        self.record.hosts
    }

    /// How to talk to its controller.
    ///
    /// # Errors
    /// The controller has not written its token or certificate authority yet.
    pub fn endpoint(&self) -> Result<Endpoint, PlaygroundError> {
        let controller = Folders::new(&self.state_dir, SWITCH).state_of("controller");
        let read = |file: &str| {
            let path = controller.join(file);
            std::fs::read_to_string(&path).map_err(PlaygroundError::io(format!("read {}", path.display())))
        };
        Ok(Endpoint {
            url: format!("https://127.0.0.1:{}", self.record.port),
            token: read("admin.token")?.trim().to_owned(),
            ca: read("ca.pem")?,
            ca_file: controller.join("ca.pem"),
        })
    }

    /// Host `number`, from 1.
    ///
    /// # Errors
    /// There is none, or it was never started.
    pub fn host(&self, number: u8) -> Result<Part, PlaygroundError> {
        self.part(&layout::host_name(number))
    }

    /// The switch, with the controller, the origin and the person in the office.
    ///
    /// # Errors
    /// It was never started.
    pub fn switch(&self) -> Result<Part, PlaygroundError> {
        self.part(SWITCH)
    }

    /// A box by its name: `switch`, `h1`, `h2`...
    ///
    /// # Errors
    /// There is none.
    pub fn part(&self, name: &str) -> Result<Part, PlaygroundError> {
        let Some(process) = self.record.boxes.get(name) else {
            let known: Vec<_> = self.record.boxes.keys().map(String::as_str).collect();
            return Err(PlaygroundError::Unknown(format!(
                "there is no box {name:?} in playground {:?}; there are {}",
                self.record.name,
                known.join(", ")
            )));
        };
        Ok(Part { name: name.to_owned(), folders: Folders::new(&self.state_dir, name), process: *process })
    }

    /// What runs.
    #[must_use]
    pub fn status(&self) -> PlaygroundStatus {
        let mut names: Vec<_> = self.record.boxes.keys().cloned().collect();
        names.sort_by_key(|name| (name != SWITCH, name.len(), name.clone()));
        let boxes: Vec<_> = names
            .iter()
            .filter_map(|name| self.part(name).ok())
            .map(|part| part.status(&self.record))
            .collect();
        let complete = self.record.complete && boxes.len() == usize::from(self.record.hosts) + 1;
        let runs = |part: &HostStatus| part.daemons.iter().all(|daemon| daemon.pid.is_some());
        PlaygroundStatus {
            name: self.record.name.clone(),
            state_dir: self.state_dir.clone(),
            up: complete && boxes.iter().all(|part| part.pid.is_some() && runs(part)),
            url: format!("https://127.0.0.1:{}", self.record.port),
            boxes,
        }
    }

    /// Removes it with all it holds.
    ///
    /// # Errors
    /// See [`crate::down`].
    pub fn down(self) -> Result<crate::Removed, PlaygroundError> {
        crate::down(&self.state_dir)
    }
}

impl Part {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process 1, in the machine's own pid namespace. Killing it is a power failure of this box.
    #[must_use]
    pub fn process(&self) -> ProcessIdentity {
        self.process
    }

    /// Its folders.
    #[must_use]
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The log of one of its daemons.
    #[must_use]
    pub fn log(&self, daemon: &str) -> PathBuf {
        self.folders.log_of(daemon)
    }

    /// A program and its arguments that run `argv` inside the box, in all its namespaces. For whichever `Command` the
    /// caller uses.
    #[must_use]
    pub fn enter(&self, argv: &[&str]) -> Vec<String> {
        let target = self.process.pid.to_string();
        let enter = ["nsenter", "--target", &target, "--mount", "--uts", "--net", "--pid", "--wd=/", "--"];
        enter.iter().chain(argv).map(|part| (*part).to_owned()).collect()
    }

    /// Runs a program inside the box to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn exec(&self, argv: &[&str]) -> io::Result<std::process::Output> {
        let command = self.enter(argv);
        std::process::Command::new(&command[0])
            .args(&command[1..])
            .env_clear()
            .envs(crate::spawn::environment())
            .stdin(std::process::Stdio::null())
            .output()
    }

    /// Runs `work` on a thread inside the box's network namespace: what it connects to or listens on is there.
    ///
    /// # Errors
    /// The box has ended.
    pub fn in_namespace<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        crate::namespace::run(&crate::namespace::network_of(self.process.pid), work)
    }

    /// A daemon's process: `agent`, `netd`, `streamer`, `libvirtd`, in the switch `controller`, `relay`, `streamer`.
    ///
    /// # Errors
    /// There is no such daemon, or it does not run at this moment.
    pub fn daemon(&self, name: &str) -> Result<ProcessIdentity, PlaygroundError> {
        let spec = self.spec()?;
        if !spec.daemons.iter().any(|daemon| daemon.name == name) {
            return Err(PlaygroundError::Unknown(format!("there is no daemon {name:?} in {}", self.name)));
        }
        let inner = self.init_status().daemons.remove(name).and_then(|runs| runs.pid);
        process::children(self.process.pid)
            .into_iter()
            .find(|pid| inner.is_some() && process::inner_pid(*pid) == inner)
            .and_then(|pid| ProcessIdentity::of(pid).ok())
            .filter(|daemon| self.process.alive() && daemon.alive())
            .ok_or_else(|| {
                PlaygroundError::Unknown(format!("{name} does not run in {} right now", self.name))
            })
    }

    /// A daemon's pid in the machine's own pid namespace.
    ///
    /// # Errors
    /// See [`Part::daemon`].
    pub fn daemon_pid(&self, name: &str) -> Result<i32, PlaygroundError> {
        self.daemon(name).map(|process| process.pid)
    }

    /// Kills a daemon the hard way and waits until it is gone. Its supervisor starts it again.
    ///
    /// # Errors
    /// See [`Part::daemon`].
    pub fn kill9(&self, name: &str) -> Result<ProcessIdentity, PlaygroundError> {
        let process = self.daemon(name)?;
        process.kill(KILL_PATIENCE).map_err(PlaygroundError::io(format!("kill {name} of {}", self.name)))?;
        Ok(process)
    }

    fn spec(&self) -> Result<InitSpec, PlaygroundError> {
        let path = self.folders.init_spec();
        std::fs::read(&path)
            .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
            .map_err(PlaygroundError::io(format!("read {}", path.display())))
    }

    pub(crate) fn init_status(&self) -> InitStatus {
        std::fs::read(self.folders.init_status())
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    fn status(&self, record: &Record) -> HostStatus {
        let alive = record.alive().iter().any(|(name, _)| *name == self.name);
        let runs = self.init_status().daemons;
        let names =
            self.spec().map(|spec| spec.daemons.into_iter().map(|daemon| daemon.name).collect::<Vec<_>>());
        let daemons = names
            .unwrap_or_default()
            .into_iter()
            .map(|name| {
                let seen = runs.get(&name).cloned().unwrap_or_default();
                let pid = if alive { self.daemon_pid(&name).ok() } else { None };
                DaemonStatus { pid, starts: seen.starts, ended: seen.ended, log: self.log(&name), name }
            })
            .collect();
        let number = self.name.strip_prefix('h').and_then(|digits| digits.parse().ok());
        let address = number.map_or(layout::CONTROLLER_ADDRESS, layout::underlay_address).to_string();
        HostStatus { name: self.name.clone(), address, pid: alive.then_some(self.process.pid), daemons }
    }
}
