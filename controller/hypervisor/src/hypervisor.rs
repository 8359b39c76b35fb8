//! The connection and what can be done over it.

use crate::console::Console;
use crate::guest_memory::{GuestMemory, MemoryError};
use crate::lane::Lane;
use crate::machine::{MARK_URI, Machine, Mark, parse_mark};
use crate::monitor;
use crate::native::{Connection, ConsoleStream, start_event_loop};
use crate::saved::SavedError;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::broadcast;
use uuid::Uuid;
use virt::domain::Domain as Handle;
use virt::error::ErrorNumber;
use virt_sys as sys;

/// Longest wait for an answer of libvirtd; starting a guest on a busy machine is the slowest of them.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for one that copies a guest's memory or its disks: 64 GiB at 100 MB/s take 11 minutes.
pub(crate) const COPY_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Pauses between attempts to reach a libvirtd that is away.
const RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long a guest may go on after it was resumed before its disk counts as answering again.
const RESUME_PROOF: Duration = Duration::from_millis(300);
/// Events a slow listener may be behind; then it misses some, which [`broadcast`] tells it.
const EVENTS_MAX: usize = 256;

/// A cloneable hold of one libvirtd, connected whenever that is there.
#[derive(Debug, Clone)]
pub struct Hypervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Calls that are answered at once.
    quick: Lane,
    /// Calls that copy.
    copying: Lane,
}

/// Something happened. A hint to look again: also a foreign domain's changes are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// libvirtd answers; what happened before is unknown.
    Connected,
    /// libvirtd went away.
    Disconnected,
    /// A domain changed.
    Lifecycle {
        /// Which.
        uuid: Uuid,
        /// How.
        change: Change,
    },
}

/// How a domain changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It exists, or its definition changed.
    Defined,
    /// Its definition is gone.
    Undefined,
    /// It runs.
    Started,
    /// It was paused because a disk does not answer.
    PausedByIoError,
    /// It was paused otherwise.
    Paused,
    /// It goes on.
    Resumed,
    /// It ended.
    Stopped,
    /// Something else.
    Other,
}

/// One of our domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Whose it is.
    pub mark: Mark,
    /// What it does.
    pub state: DomainState,
}

/// What a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DomainState {
    /// Its processors run.
    Running,
    /// Stopped by QEMU because a disk did not answer; [`Hypervisor::resume`] once it does.
    PausedByIoError,
    /// Paused by somebody.
    Paused,
    /// Not running.
    Stopped {
        /// `poweroff`, `destroyed`, `crashed`, `failed`, `unknown`.
        reason: &'static str,
    },
}

/// How a domain is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The power button is pressed; the guest may take its time or ignore it.
    PowerButton,
    /// The power goes.
    PowerOff,
}

/// libvirt's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LibvirtError {
    pub(crate) message: String,
    pub(crate) absent: bool,
}

impl From<virt::error::Error> for LibvirtError {
    fn from(error: virt::error::Error) -> Self {
        let absent = matches!(error.code(), ErrorNumber::NoDomain | ErrorNumber::NoDomainMetadata);
        Self { message: error.message().to_owned(), absent }
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// libvirtd cannot be reached.
    #[error("cannot reach libvirt at {uri}")]
    Down {
        /// The connection's URI.
        uri: String,
        /// Why.
        #[source]
        source: LibvirtError,
    },
    /// The domain is not there.
    #[error("there is no domain {0}")]
    Absent(Uuid),
    /// A domain of that name or UUID exists without our mark: it is somebody else's.
    #[error("domain {0} exists and is not ours: rename or remove it")]
    Foreign(String),
    /// libvirt refused.
    #[error("libvirt cannot {what} {name}")]
    Refused {
        /// The operation.
        what: &'static str,
        /// The domain.
        name: String,
        /// Why.
        #[source]
        source: LibvirtError,
    },
    /// A file cannot be made.
    #[error("cannot make {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why; it may be there already.
        #[source]
        source: std::io::Error,
    },
    /// A file of saved memory cannot be used.
    #[error("cannot use the saved memory {}", file.display())]
    Saved {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: SavedError,
    },
    /// A guest's memory cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No answer in time; the operation may still happen.
    #[error("libvirt did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// No thread could be made, or a call ended abnormally.
    #[error("libvirt calls cannot be made: {0}")]
    Threads(String),
}

impl Hypervisor {
    /// Takes hold of the libvirtd at `uri`, such as `qemu:///system`. It need not be there yet: it is dialled for ever,
    /// and again whenever it goes away. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Threads cannot be made, or libvirt's library cannot be initialised.
    pub fn connect(uri: &str) -> Result<Self, HypervisorError> {
        start_event_loop().map_err(|source| HypervisorError::Down { uri: uri.to_owned(), source })?;
        let quick = Lane::new(uri, CALL_TIMEOUT, broadcast::Sender::new(EVENTS_MAX))?;
        // What it tells, the other one tells too.
        let copying = Lane::new(uri, COPY_TIMEOUT, broadcast::Sender::new(1))?;
        let events = quick.events();
        let inner = Arc::new(Inner { quick, copying });
        tokio::spawn(keep_connected(Arc::downgrade(&inner), events));
        Ok(Self(inner))
    }

    /// Hints of what happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.quick.events()
    }

    /// libvirt's version, such as `11.3.0`.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn version(&self) -> Result<String, HypervisorError> {
        let number = self
            .call(|connection| {
                connection.connect.get_lib_version().map_err(|e| refused("tell", "its version", e))
            })
            .await?;
        Ok(format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000))
    }

    /// All our domains.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn list(&self) -> Result<Vec<Domain>, HypervisorError> {
        self.call(|connection| {
            let all =
                connection.connect.list_all_domains(0).map_err(|e| refused("list", "the domains", e))?;
            // One that goes while it is looked at is not there.
            Ok(all.iter().filter_map(|handle| observe(handle).ok().flatten()).collect())
        })
        .await
    }

    /// Defines the machine, replacing an earlier definition of the same incarnation, and starts it unless it runs.
    ///
    /// # Errors
    /// [`HypervisorError::Foreign`] if the name or UUID is taken by a domain without our mark.
    pub async fn start(&self, machine: &Machine) -> Result<(), HypervisorError> {
        let (name, uuid, xml) = (machine.name(), machine.mark.incarnation, machine.xml());
        self.call(move |connection| {
            refuse_foreign(connection, &name, uuid)?;
            let handle =
                Handle::define_xml(&connection.connect, &xml).map_err(|e| refused("define", &name, e))?;
            if handle.is_active().map_err(|e| refused("look at", &name, e))? {
                return Ok(());
            }
            handle.create().map_err(|e| refused("start", &name, e))?;
            Ok(())
        })
        .await
    }

    /// Stops a domain. One that is not running or not there is fine.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn stop(&self, uuid: Uuid, how: Stop) -> Result<(), HypervisorError> {
        self.call(move |connection| {
            let Some(handle) = ours(connection, uuid)? else { return Ok(()) };
            let stopped = match how {
                Stop::PowerButton => handle.shutdown().map(drop),
                Stop::PowerOff => handle.destroy(),
            };
            match stopped {
                Err(error) if handle.is_active().unwrap_or(true) => {
                    Err(refused("stop", &uuid.to_string(), error))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// Forgets a stopped domain's definition. One that is not there is fine.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn undefine(&self, uuid: Uuid) -> Result<(), HypervisorError> {
        self.call(move |connection| {
            let Some(handle) = ours(connection, uuid)? else { return Ok(()) };
            let flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
            handle.undefine_flags(flags).map_err(|e| refused("undefine", &uuid.to_string(), e))
        })
        .await
    }

    /// Lets a domain go on that was paused because its disk did not answer, and tells whether it then ran.
    ///
    /// The first resume after an outage often only makes QEMU dial the export again and pauses at once; so it is tried
    /// twice.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn resume(&self, uuid: Uuid) -> Result<bool, HypervisorError> {
        for _ in 0..2 {
            let mut events = self.events();
            self.call(move |connection| {
                let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
                handle.resume().map_err(|e| refused("resume", &uuid.to_string(), e))?;
                Ok(())
            })
            .await?;
            let paused = Event::Lifecycle { uuid, change: Change::PausedByIoError };
            let again = async {
                while let Ok(event) = events.recv().await {
                    if event == paused {
                        return;
                    }
                }
            };
            if tokio::time::timeout(RESUME_PROOF, again).await.is_err() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens a running domain's serial console; an earlier viewer's is closed.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn console(&self, uuid: Uuid) -> Result<Console, HypervisorError> {
        self.call(move |connection| {
            let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
            ConsoleStream::open(connection, &handle)
                .map(|(stream, output)| Console::new(stream, output))
                .map_err(|source| HypervisorError::Refused {
                    what: "open the console of",
                    name: uuid.to_string(),
                    source,
                })
        })
        .await
    }

    /// Opens a running domain's memory for reading. It is of this run: open it again after the next start.
    ///
    /// # Errors
    /// [`HypervisorError::Memory`] if it is not to be found.
    pub async fn guest_memory(&self, uuid: Uuid) -> Result<GuestMemory, HypervisorError> {
        let ram = monitor::ram(&self.monitor(uuid, "info mtree -f").await?);
        self.call(move |_| {
            let ram = ram.ok_or(MemoryError::NoMap(uuid))?;
            Ok(GuestMemory::open(uuid, ram)?)
        })
        .await
    }

    /// Registers of each processor of a running domain, by architectural names in lower case: `cr3`, `rip`,
    /// `idt.base`, `gs.base`. QEMU's monitor does not tell model-specific ones.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn registers(&self, uuid: Uuid) -> Result<Vec<BTreeMap<String, u64>>, HypervisorError> {
        Ok(monitor::registers(&self.monitor(uuid, "info registers -a").await?))
    }

    /// Pauses a running domain's processors; one that is paused is fine. [`Hypervisor::resume`] lets it go on.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn pause(&self, uuid: Uuid) -> Result<(), HypervisorError> {
        self.call(move |connection| {
            let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
            match handle.suspend() {
                Err(error) if !matches!(handle.get_state(), Ok((sys::VIR_DOMAIN_PAUSED, _))) => {
                    Err(refused("pause", &uuid.to_string(), error))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// A call that is answered at once.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Arc<Connection>) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.0.quick.call(f).await
    }

    /// A call that copies memory or disks.
    pub(crate) async fn call_copying<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Arc<Connection>) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.0.copying.call(f).await
    }

    /// What QEMU's monitor answers to a command for people.
    async fn monitor(&self, uuid: Uuid, command: &'static str) -> Result<String, HypervisorError> {
        self.call(move |connection| {
            let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
            handle
                .qemu_monitor_command(command, sys::VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
                .map_err(|e| refused("ask the monitor of", &uuid.to_string(), e))
        })
        .await
    }
}

/// Dials whenever the connection is lost, until the [`Hypervisor`] is dropped.
async fn keep_connected(inner: Weak<Inner>, mut events: broadcast::Receiver<Event>) {
    let mut pause = RECONNECT_PAUSE.0;
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let connected = strong.quick.call(|_| Ok(())).await;
        drop(strong);
        if let Err(error) = connected {
            tracing::debug!(error = %error, "libvirt is away");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_PAUSE.1);
            continue;
        }
        pause = RECONNECT_PAUSE.0;
        loop {
            match events.recv().await {
                Ok(Event::Disconnected) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

pub(crate) fn refused(what: &'static str, name: &str, error: virt::error::Error) -> HypervisorError {
    HypervisorError::Refused { what, name: name.to_owned(), source: error.into() }
}

fn mark_of(handle: &Handle) -> Result<Option<Mark>, LibvirtError> {
    match handle.get_metadata(sys::VIR_DOMAIN_METADATA_ELEMENT as i32, Some(MARK_URI), 0) {
        Ok(xml) => Ok(parse_mark(&xml)),
        Err(error) => {
            let error = LibvirtError::from(error);
            if error.absent { Ok(None) } else { Err(error) }
        }
    }
}

fn observe(handle: &Handle) -> Result<Option<Domain>, LibvirtError> {
    let Some(mark) = mark_of(handle)? else { return Ok(None) };
    let (state, reason) = handle.get_state()?;
    Ok(Some(Domain { mark, state: domain_state(state, reason) }))
}

fn domain_state(state: sys::virDomainState, reason: i32) -> DomainState {
    let reason = u32::try_from(reason).unwrap_or_default();
    match state {
        sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED => match reason {
            sys::VIR_DOMAIN_PAUSED_IOERROR => DomainState::PausedByIoError,
            sys::VIR_DOMAIN_PAUSED_STARTING_UP => DomainState::Running,
            _ => DomainState::Paused,
        },
        sys::VIR_DOMAIN_SHUTOFF => DomainState::Stopped {
            reason: match reason {
                sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => "poweroff",
                sys::VIR_DOMAIN_SHUTOFF_DESTROYED => "destroyed",
                sys::VIR_DOMAIN_SHUTOFF_CRASHED => "crashed",
                sys::VIR_DOMAIN_SHUTOFF_FAILED => "failed",
                _ => "unknown",
            },
        },
        sys::VIR_DOMAIN_CRASHED => DomainState::Stopped { reason: "crashed" },
        _ => DomainState::Running,
    }
}

/// The domain if it is there and ours.
pub(crate) fn ours(connection: &Connection, uuid: Uuid) -> Result<Option<Handle>, HypervisorError> {
    let name = || uuid.to_string();
    let handle = match Handle::lookup_by_uuid(&connection.connect, uuid) {
        Ok(handle) => handle,
        Err(error) if error.code() == ErrorNumber::NoDomain => return Ok(None),
        Err(error) => return Err(refused("look up", &name(), error)),
    };
    match mark_of(&handle) {
        Ok(Some(mark)) if mark.incarnation == uuid => Ok(Some(handle)),
        Ok(_) => Err(HypervisorError::Foreign(name())),
        Err(source) => Err(HypervisorError::Refused { what: "look at", name: name(), source }),
    }
}

/// libvirt would replace the definition of whatever has the UUID.
pub(crate) fn refuse_foreign(connection: &Connection, name: &str, uuid: Uuid) -> Result<(), HypervisorError> {
    ours(connection, uuid)?;
    match Handle::lookup_by_name(&connection.connect, name) {
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(()),
        Err(error) => Err(refused("look up", name, error)),
        Ok(other) => match mark_of(&other) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(HypervisorError::Foreign(name.to_owned())),
            Err(source) => Err(HypervisorError::Refused { what: "look at", name: name.to_owned(), source }),
        },
    }
}
