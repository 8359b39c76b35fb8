//! What makes a lease binding: a process of its own that outlives the agent and kills leased guests when their time is
//! up. It speaks with nobody. The agent writes down until when which guests may run; the process reads that, and kills
//! emulators by their UUID, without libvirt: a guest is stopped though the agent, libvirtd or its disk hangs.
//!
//! One process a host, whoever started it: it holds a lock while it lives. An agent that cannot find it starts another,
//! before it starts any leased guest. It ends by itself when nothing is left to watch.

use crate::lease::{Lease, Leave};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use types::InstanceId;
use uuid::Uuid;

/// Longest time between two looks at the file.
const LOOK_MS: u64 = 250;
/// While guests without a lease are there, or were a little while ago.
const KILL_MS: u64 = 50;
/// What that little while is.
const EAGER_MS: u64 = 10_000;
/// So long after it last had something to do it ends.
const IDLE_MS: u64 = 60_000;
/// How long a new process waits for the lock: its starter may be trying it.
const LOCK_TRIES: u32 = 40;

/// What the agent writes down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Orders {
    /// Times of another boot mean nothing.
    boot: String,
    /// Milliseconds since that boot.
    until_ms: Option<u64>,
    /// Incarnations that may not run longer.
    guests: BTreeSet<Uuid>,
}

/// Milliseconds since boot, sleep included. Nobody can set it.
pub(crate) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or(Duration::MAX);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Where the orders and the lock are.
#[derive(Debug, Clone)]
struct Files {
    orders: PathBuf,
    lock: PathBuf,
}

impl Files {
    fn of(run: &Path) -> Self {
        Self { orders: run.join("lease.json"), lock: run.join("fence.lock") }
    }

    /// The orders of this boot; none if there are none.
    fn read(&self, boot: &str) -> Option<Orders> {
        let orders: Orders = serde_json::from_slice(&std::fs::read(&self.orders).ok()?).ok()?;
        Some(orders).filter(|orders| orders.boot == boot)
    }

    /// They need not outlive a crash of the machine: the guests do not, either.
    fn write(&self, orders: &Orders) -> std::io::Result<()> {
        let beside = self.orders.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec(orders)?)?;
        std::fs::rename(beside, &self.orders)
    }

    fn lock(&self) -> Option<Flock<File>> {
        let file = File::options().create(true).truncate(false).write(true).open(&self.lock).ok()?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
    }
}

/// The lease of this host, and the orders that follow from it.
#[derive(Debug)]
pub(crate) struct Leases {
    files: Files,
    run: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    lease: Lease,
    orders: Orders,
    /// The orders on disk are not these.
    unwritten: bool,
    child: Option<Child>,
}

impl Leases {
    /// With what an earlier process of this boot left behind.
    pub(crate) fn open(run: &Path) -> Self {
        let (files, boot) = (Files::of(run), boot());
        let orders = files.read(&boot).unwrap_or(Orders { boot, ..Orders::default() });
        let lease = Lease::inherited(orders.until_ms);
        let inner = Inner { lease, orders, unwritten: false, child: None };
        Self { files, run: run.to_owned(), inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins.
    pub(crate) fn connected(&self) {
        self.inner().lease.connected();
    }

    /// The connection has brought a document.
    pub(crate) fn told(&self) {
        self.inner().lease.told();
    }

    /// The number of the status that is sent next.
    pub(crate) fn beat(&self) -> u64 {
        self.inner().lease.beat(now_ms())
    }

    /// A status was heard. True if leased instances could not run before, and can now.
    pub(crate) fn heard(&self, beat: u64, lease_ms: u64, kept: bool) -> bool {
        let mut inner = self.inner();
        let now = now_ms();
        let before = inner.lease.leave(now);
        inner.lease.heard(beat, lease_ms, kept, now);
        inner.orders.until_ms = inner.lease.until_ms();
        inner.unwritten = true;
        if !inner.orders.guests.is_empty() {
            self.write(&mut inner);
        }
        before != inner.lease.leave(now)
    }

    fn write(&self, inner: &mut Inner) {
        match self.files.write(&inner.orders) {
            Ok(()) => inner.unwritten = false,
            Err(error) => {
                inner.unwritten = true;
                tracing::error!(%error, path = %self.files.orders.display(), "a lease is not written down");
            }
        }
    }

    /// Guests in `leased` run under the lease from now on, those in `alive` still do if they did. Says what may be done
    /// with them: nothing is started that would not be stopped.
    pub(crate) fn guard(&self, leased: &BTreeSet<Uuid>, alive: impl Fn(&Uuid) -> bool) -> Leave {
        let mut inner = self.inner();
        let mut guests: BTreeSet<Uuid> =
            inner.orders.guests.iter().filter(|guest| alive(guest)).copied().collect();
        guests.extend(leased);
        if guests != inner.orders.guests || (inner.unwritten && !guests.is_empty()) {
            inner.orders.guests = guests;
            self.write(&mut inner);
        }
        let leave = inner.lease.leave(now_ms());
        if inner.orders.guests.is_empty() {
            return leave;
        }
        let guarded = self.have_fence(&mut inner) && !inner.unwritten;
        Leave { start: leave.start && guarded, ..leave }
    }

    /// A fence lives; one is started if not.
    fn have_fence(&self, inner: &mut Inner) -> bool {
        if let Some(child) = &mut inner.child
            && !matches!(child.try_wait(), Ok(None))
        {
            inner.child = None;
        }
        let Some(lock) = self.files.lock() else { return true };
        drop(lock);
        if inner.child.is_none() {
            // This program, also if another one has taken its file's place.
            let spawned = Command::new("/proc/self/exe")
                .arg0("collective-agent")
                .args(["fence", "--run"])
                .arg(&self.run)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn();
            match spawned {
                Ok(child) => inner.child = Some(child),
                Err(error) => tracing::error!(%error, "no process to stop leased instances can be started"),
            }
        }
        // It has the lock at the next look.
        false
    }

    /// A start of a leased instance begins, if it may. `named`: the document that is acted on names it; it is asked while
    /// nothing can be heard.
    pub(crate) fn begin_start(&self, named: impl FnOnce() -> bool) -> Option<Starting<'_>> {
        let mut inner = self.inner();
        inner.lease.begin_start(named(), now_ms()).then_some(Starting(self))
    }
}

/// A start of a leased instance under way. As long as it is, a lease that has run out is not renewed.
#[derive(Debug)]
pub(crate) struct Starting<'a>(&'a Leases);

impl Starting<'_> {
    /// Whether the guest that was started may run. If not, it has to be gone before this is dropped.
    pub(crate) fn may_run_on(&self) -> bool {
        self.0.inner().lease.may_run_on(now_ms())
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.inner().lease.end_start();
    }
}

/// Why a leased instance does not run.
pub(crate) fn why_not(id: &InstanceId) -> String {
    format!("the controller is not heard, and {id} may run on another host by now: it needs the host's lease")
}

/// Kills leased guests when their time is up, until nothing is left to watch. `run` is the agent's run folder.
pub fn run(run: &Path) {
    // A session of its own: what ends the agent does not end it. Only the leader of one cannot make another.
    let _ = nix::unistd::setsid();
    // The kernel takes others first when memory is short; without the right to say so it is like others.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let (files, boot) = (Files::of(run), boot());
    #[expect(clippy::disallowed_methods, reason = "a process of its own that only watches the clock")]
    let pause = |ms| std::thread::sleep(Duration::from_millis(ms));
    let Some(_lock) = (0..LOCK_TRIES).find_map(|_| {
        files.lock().or_else(|| {
            pause(KILL_MS);
            None
        })
    }) else {
        return;
    };
    let mut orders = Orders::default();
    let mut busy_ms = now_ms();
    loop {
        let read = files.read(&boot);
        let (read, lost) = (read.clone().unwrap_or(orders), read.is_none());
        orders = read;
        if lost && emulators(&orders.guests).is_empty() {
            return;
        }
        let now = now_ms();
        let until_ms = orders.until_ms.unwrap_or(0);
        if now < until_ms {
            pause((until_ms - now).min(LOOK_MS));
            continue;
        }
        if kill_guests(&orders.guests) > 0 {
            busy_ms = now;
        }
        match now.saturating_sub(until_ms.max(busy_ms)) {
            quiet if quiet <= EAGER_MS => pause(KILL_MS),
            quiet if quiet <= IDLE_MS => pause(LOOK_MS),
            _ => return,
        }
    }
}

/// Kills the emulators of these guests; says how many there were.
pub(crate) fn kill_guests(guests: &BTreeSet<Uuid>) -> usize {
    // One that has ended meanwhile is none any more.
    emulators(guests).into_iter().filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok()).count()
}

/// The processes of these guests.
fn emulators(guests: &BTreeSet<Uuid>) -> Vec<i32> {
    if guests.is_empty() {
        return Vec::new();
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| emulated(*pid).is_some_and(|guest| guests.contains(&guest))).collect()
}

/// The guest that a process emulates, by the `-uuid` that libvirt starts it with.
fn emulated(pid: i32) -> Option<Uuid> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0);
    let program = Path::new(std::str::from_utf8(words.next()?).ok()?).file_name()?.to_str()?.to_owned();
    if !program.starts_with("qemu-") {
        return None;
    }
    words.find(|word| *word == b"-uuid")?;
    std::str::from_utf8(words.next()?).ok()?.parse().ok()
}
