//! The agent's wiring: observe, plan, start the steps, report. One loop; the steps run beside it.

use crate::chain::CaptureId;
use crate::channel;
use crate::config::Config;
use crate::dirty::Written;
use crate::disks::Disks;
use crate::facts;
use crate::fence::Leases;
use crate::health::{Listener, Run};
use crate::layout::Layout;
use crate::lease::Leave;
use crate::moving::{self, Moves};
use crate::plan::captures::id_of;
use crate::plan::{Fetched, Key, Observed, ObservedDomain, Plan, Step, plan, wanted};
use crate::status;
use crate::store::Store;
use crate::watch;
use crate::work::Works;
use anyhow::Context as _;
use chassis::clock::unix_ms;
use chassis::reconcile::{self, Hint, Pass, Reconciler};
use chassis::telemetry::chain;
use chassis::tls::{Identity, client_config};
use controller_api::agent::{HostDesired, HostStatus, InstanceState, STATUS_INTERVAL_MS};
use controller_api::life::CaptureStep;
use controller_hypervisor::{DomainState, Hypervisor};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use streamer_api::ImageStatus;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::Digest;
use uuid::Uuid;

/// Longest wait for a local daemon's word about what is.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(3);
/// A step that failed is not tried again before.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Steps under way may end after a shutdown began; what is cut off is repaired at the next start.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);
/// Events kept for a controller that is away.
const EVENTS_MAX: usize = 1024;
/// How often guests are asked what they have written.
const WRITTEN_PAUSE: Duration = Duration::from_secs(5);
/// A serial log larger than this is emptied: a guest must not fill the disk.
const CONSOLE_LOG_BYTES_MAX: u64 = 16 << 20;

/// Runs the agent until `shutdown`. Guests go on.
///
/// # Errors
/// The configuration's files cannot be used, or the state folder cannot be read.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let layout = Layout::make(&config.state_dir, &config.run_dir)
        .with_context(|| format!("cannot make folders in {}", config.state_dir.display()))?;
    let _lock = lock(&layout)?;
    let identity = Identity::load(&config.identity.ca, &config.identity.cert, &config.identity.key)?;
    let (moves, entrance) = Moves::listen(&config, &identity).await?;
    let tls = client_config(identity)?;
    let controller =
        reqwest::Client::builder().tls_backend_preconfigured(tls.clone()).https_only(true).build()?;
    let machine = {
        let (config, cache) = (config.clone(), layout.accelerator());
        tokio::task::spawn_blocking(move || facts::Machine::find_out(&config, &cache)).await?
    };
    tracing::info!(
        accelerator = machine.accelerator.kind.as_str(),
        reason = machine.accelerator.reason.as_deref(),
        state = %layout.state().display(),
        controller = config.controller,
        "started"
    );
    let works = Arc::new(Works {
        machine,
        // What is half-removed goes first.
        store: Store::open(layout.clone())?,
        disks: Disks::open(layout)?,
        written: Written::default(),
        hypervisor: Hypervisor::connect(&config.libvirt_uri)?,
        netd: netd_client::Client::new(&config.netd_socket),
        streamer: streamer_client::Client::new(&config.streamer_socket),
        controller,
        networks_taken: Mutex::default(),
        events: broadcast::Sender::new(EVENTS_MAX),
        moves,
        leases: Leases::open(&config.run_dir),
        gone: Mutex::default(),
        watches: Mutex::default(),
        config,
    });
    let events = works.events.subscribe();
    let (ready_sender, ready) = mpsc::channel(64);
    let host = Host {
        works: Arc::clone(&works),
        busy: Arc::default(),
        problems: Arc::default(),
        tasks: TaskTracker::new(),
        hint: Arc::default(),
        listener: Listener::new(ready_sender),
        holds: BTreeMap::new(),
        written_at: None,
    };
    let (tasks, hint_cell) = (host.tasks.clone(), Arc::clone(&host.hint));
    let handle = reconcile::spawn(host, shutdown.clone());
    let hint = handle.hint();
    let _ = hint_cell.set(hint.clone());
    // The first pass may have started steps before it could be hinted at.
    hint.now();
    tokio::spawn(forward_hints(Arc::clone(&works), hint.clone(), ready));
    let watching = tokio::spawn(watch::run(Arc::clone(&works), hint.clone(), shutdown.clone()));
    if let Some(entrance) = entrance {
        tokio::spawn(moving::serve(Arc::clone(&works), entrance, shutdown.clone()));
    }
    let channel = channel::run(works, tls, handle.status.clone(), events, hint, shutdown.clone());
    let channel = tokio::spawn(channel);
    shutdown.cancelled().await;
    tasks.close();
    let rest = async {
        let _ = tokio::join!(handle.task, channel, watching);
        tasks.wait().await;
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, rest).await.is_err() {
        tracing::warn!("steps under way were cut off; the next start repairs them");
    }
    Ok(())
}

/// Two agents on one state folder would undo each other.
fn lock(layout: &Layout) -> anyhow::Result<nix::fcntl::Flock<std::fs::File>> {
    let path = layout.state().join("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .with_context(|| format!("another agent uses {}", layout.state().display()))
}

/// libvirt's events and guests' words ask for a pass.
async fn forward_hints(works: Arc<Works>, hint: Hint, mut ready: mpsc::Receiver<Run>) {
    let mut events = works.hypervisor.events();
    loop {
        tokio::select! {
            event = events.recv() => {
                if matches!(event, Err(broadcast::error::RecvError::Closed)) {
                    return;
                }
            }
            run = ready.recv() => {
                let Some(run) = run else { return };
                note_ready(&works, run);
            }
        }
        hint.now();
    }
}

fn note_ready(works: &Works, run: Run) {
    let now = unix_ms();
    match works.store.note_ready(run.incarnation, run.started_ms, now) {
        Ok(true) => {
            if let Some(record) = works.store.records().get(&run.incarnation) {
                let seconds = Duration::from_millis(now.saturating_sub(run.started_ms)).as_secs_f32();
                let message = format!("{} is ready after {seconds:.1} s", record.instance);
                works.tell(&record.instance, "instance-ready", message);
            }
        }
        Ok(false) => {}
        Err(error) => tracing::error!(error = %chain(&error), "a guest's ready was not kept"),
    }
}

struct Host {
    works: Arc<Works>,
    busy: Arc<Mutex<BTreeSet<Key>>>,
    /// What failed last, by what it was about.
    problems: Arc<Mutex<BTreeMap<Key, String>>>,
    tasks: TaskTracker,
    hint: Arc<OnceLock<Hint>>,
    listener: Listener,
    /// Since when each capture has been told to be at its step.
    holds: BTreeMap<(CaptureId, CaptureStep), Instant>,
    /// When the guests were last asked what they have written.
    written_at: Option<Instant>,
}

/// What is, in the plan's words and in the status's.
struct Seen {
    observed: Observed,
    images: BTreeMap<String, ImageStatus>,
    /// Who does not answer, and what cannot be kept.
    troubles: Vec<String>,
}

impl Reconciler for Host {
    type Status = HostStatus;
    const NAME: &'static str = "instances";
    const RESYNC: Duration = Duration::from_millis(STATUS_INTERVAL_MS);

    async fn reconcile(&mut self) -> Pass<HostStatus> {
        let not_kept = self.works.store.keep_waiting();
        // Without a document nothing is known to be wanted, and nothing is touched.
        let Some(desired) = self.works.store.desired() else {
            let mut seen = self.observe(&HostDesired::default()).await;
            seen.troubles.extend(not_kept);
            let status = self.status(&HostDesired::default(), seen, &Plan::default());
            return Pass { status, retry_after: None };
        };
        let mut seen = self.observe(&desired).await;
        seen.troubles.extend(not_kept);
        seen.observed.leave = self.guard(&desired, &seen.observed);
        (seen.observed.moving, seen.observed.arrived) =
            moving::pass(&self.works, &desired, &seen.observed, &self.hint).await;
        let plan = plan(&desired, &seen.observed);
        self.forget_problems(&seen.observed, &plan);
        for step in &plan.steps {
            self.begin(step.clone());
        }
        self.listen(&seen.observed);
        self.hear_written(&seen.observed);
        self.bound_logs(&seen.observed);
        Pass { status: self.status(&desired, seen, &plan), retry_after: None }
    }
}

impl Host {
    async fn observe(&mut self, desired: &HostDesired) -> Seen {
        let held_ms = self.held_ms(desired);
        // What is busy is read before the rest: a step that ends meanwhile is looked at again in the next pass.
        let busy = locked(&self.busy).clone();
        let networks_taken = locked(&self.works.networks_taken).clone();
        let works = &self.works;
        let (domains, networks, images, limits) = tokio::join!(
            in_time("libvirt", works.hypervisor.list()),
            in_time("netd", works.netd.status()),
            in_time("the streamer", self.images(desired)),
            in_time("the streamer", works.streamer.limits()),
        );
        let mut silent = Vec::new();
        let domains = keep(domains, &mut silent).map(|domains| {
            let pair = |domain: controller_hypervisor::Domain| {
                (
                    domain.mark.incarnation,
                    ObservedDomain { instance: domain.mark.instance, state: domain.state },
                )
            };
            domains.into_iter().map(pair).collect()
        });
        let images = keep(images, &mut silent);
        let files = keep(works.disks.files().map_err(|e| chain(&e).to_string()), &mut silent);
        let observed = Observed {
            domains,
            records: works.store.records(),
            volumes: works.disks.volumes(),
            chains: works.disks.chains(),
            captures: works.disks.captures(),
            held_ms,
            files: files.unwrap_or_default(),
            images: works.disks.images(),
            fetched: fetched(works, desired),
            dirty_bytes: works.dirty_bytes(),
            exported: images.as_ref().map(|images| images.keys().copied().collect()),
            named: works.store.named(),
            // If it does not answer at all, that is said above.
            limits: limits.ok(),
            limits_set: works.store.limits_set(),
            networks: keep(networks, &mut silent),
            networks_taken,
            busy,
            leave: Leave::default(),
            moving: BTreeSet::new(),
            arrived: BTreeSet::new(),
            now_ms: unix_ms(),
        };
        let images =
            images.unwrap_or_default().into_iter().map(|(d, status)| (d.to_string(), status)).collect();
        Seen { observed, images, troubles: silent }
    }

    /// Writes down who runs under the lease, before anything of it is started. Not knowing what runs keeps them all.
    fn guard(&self, desired: &HostDesired, observed: &Observed) -> Leave {
        let leased = desired.instances.iter().filter(|instance| instance.leased);
        let leased = leased.filter_map(|instance| instance.incarnation.parse().ok()).collect();
        let gone =
            |guest: &Uuid| observed.domains.as_ref().is_some_and(|domains| !domains.contains_key(guest));
        // One that is named, and needs no lease any more, is let go.
        let free = |guest: &Uuid| wanted(desired, *guest).is_some_and(|instance| !instance.leased);
        let alive = |guest: &Uuid| !free(guest) && (!gone(guest) || observed.records.contains_key(guest));
        self.works.leases.guard(&leased, alive)
    }

    /// For how long each capture has been told to be at its step.
    fn held_ms(&mut self, desired: &HostDesired) -> BTreeMap<(CaptureId, CaptureStep), u64> {
        let told: BTreeSet<(CaptureId, CaptureStep)> =
            desired.captures.iter().filter_map(|capture| Some((id_of(capture)?, capture.step))).collect();
        self.holds.retain(|key, _| told.contains(key));
        let now = Instant::now();
        let since = told.into_iter().map(|key| {
            let since = *self.holds.entry(key.clone()).or_insert(now);
            (key, u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX))
        });
        since.collect()
    }

    /// Asks the guests that run what they have written, now and then.
    fn hear_written(&mut self, observed: &Observed) {
        let Some(domains) = &observed.domains else { return };
        if self.written_at.is_some_and(|at| at.elapsed() < WRITTEN_PAUSE) {
            return;
        }
        self.written_at = Some(Instant::now());
        let running = domains.iter().filter(|(_, domain)| domain.state == DomainState::Running);
        let running: Vec<Uuid> = running.map(|(incarnation, _)| *incarnation).collect();
        let works = Arc::clone(&self.works);
        self.tasks.spawn(async move { works.hear_written(&running).await });
    }

    /// Every image here, with the piece maps of those an instance stands on.
    async fn images(
        &self,
        desired: &HostDesired,
    ) -> Result<BTreeMap<Digest, ImageStatus>, chassis::unix_http::CallError> {
        let mut images = BTreeMap::new();
        for status in self.works.streamer.images().await? {
            let Ok(digest) = format!("sha256:{}", status.export).parse::<Digest>() else { continue };
            let used = desired.instances.iter().any(|instance| instance.image == digest);
            let whole = if used { self.works.streamer.image(digest).await.ok() } else { None };
            images.insert(digest, whole.unwrap_or(status));
        }
        Ok(images)
    }

    /// Starts a step; its end asks for another pass.
    fn begin(&self, step: Step) {
        let key = step.key();
        if !locked(&self.busy).insert(key.clone()) {
            return;
        }
        let (works, busy, problems, hint) = (
            Arc::clone(&self.works),
            Arc::clone(&self.busy),
            Arc::clone(&self.problems),
            Arc::clone(&self.hint),
        );
        self.tasks.spawn(async move {
            let result = works.carry_out(step).await;
            match result {
                Ok(()) => drop(locked(&problems).remove(&key)),
                Err(error) => {
                    let text = format!("{key}: {}", chain(&error));
                    let before = locked(&problems).insert(key.clone(), text.clone());
                    if before.as_ref() != Some(&text) {
                        tracing::warn!("{text}");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            locked(&busy).remove(&key);
            if let Some(hint) = hint.get() {
                hint.now();
            }
        });
    }

    /// Forgets what failed about things nothing is to be done about any more.
    fn forget_problems(&self, observed: &Observed, plan: &Plan) {
        let open = |key: &Key| {
            observed.busy.contains(key)
                || plan.steps.iter().any(|step| step.key() == *key)
                || matches!(key, Key::Instance(id) if plan.waits.contains_key(id))
        };
        locked(&self.problems).retain(|key, _| open(key));
    }

    /// Listens to every run that goes on.
    fn listen(&mut self, observed: &Observed) {
        let Some(domains) = &observed.domains else { return };
        let alive = |incarnation: &Uuid| {
            domains.get(incarnation).is_some_and(|d| !matches!(d.state, DomainState::Stopped { .. }))
        };
        let runs: Vec<Run> = observed
            .records
            .iter()
            .filter(|(incarnation, record)| !record.ended && alive(incarnation))
            .filter_map(|(incarnation, record)| {
                Some(Run { incarnation: *incarnation, started_ms: record.started_ms? })
            })
            .collect();
        let layout = self.works.store.layout();
        self.listener.listen(&runs, |incarnation| layout.health_socket(incarnation));
    }

    fn bound_logs(&self, observed: &Observed) {
        for incarnation in observed.records.keys() {
            let path = self.works.store.layout().console_log(*incarnation);
            if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > CONSOLE_LOG_BYTES_MAX) {
                // It is written by appending: the writer goes on at the new end.
                let emptied =
                    std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0));
                if let Err(error) = emptied {
                    tracing::warn!(%error, path = %path.display(), "a serial log cannot be emptied");
                }
            }
        }
    }

    fn status(&self, desired: &HostDesired, seen: Seen, plan: &Plan) -> HostStatus {
        let Seen { observed, images, troubles } = seen;
        let instances = if self.works.store.desired().is_some() {
            status::instances(desired, &observed, plan)
        } else {
            Vec::new()
        };
        let mut problems: Vec<String> = troubles;
        problems.extend(plan.refusals.iter().map(|(id, refusal)| format!("instance {id}: {refusal}")));
        problems.extend(locked(&self.problems).values().cloned());
        let captures = status::captures(desired, &observed, &locked(&self.problems));
        let given: u64 = desired.instances.iter().map(|instance| instance.memory.0).sum();
        let leaving = instances.iter().any(|instance| instance.state == InstanceState::Removing);
        HostStatus {
            generation: desired.generation,
            converged: problems.is_empty()
                && !leaving
                && status::converged(desired, &observed, plan, &instances),
            problems,
            memory_free_bytes: self.works.machine.memory_bytes().saturating_sub(given),
            disk_free_bytes: facts::disk(&self.works.config.state_dir).1,
            load: self.works.machine.load(),
            instances,
            streamer_up: observed.exported.is_some(),
            images,
            networks: observed.networks,
            watches: locked(&self.works.watches).clone(),
            captures,
            moves: self.works.moves.statuses(),
            beat: 0,
        }
    }
}

/// How much of the memory that instances go on from was fetched.
fn fetched(works: &Works, desired: &HostDesired) -> BTreeMap<Uuid, Fetched> {
    use std::os::unix::fs::MetadataExt as _;
    let goes_on = desired.instances.iter().filter(|instance| instance.memory_from.is_some());
    let found = goes_on.filter_map(|instance| {
        let incarnation = instance.incarnation.parse().ok()?;
        let path = works.store.layout().fetched_memory(incarnation);
        if path.exists() {
            return Some((incarnation, Fetched::Whole));
        }
        let meta = std::fs::metadata(path.with_extension("new")).ok()?;
        Some((incarnation, Fetched::Bytes(meta.blocks() * 512)))
    });
    found.collect()
}

async fn in_time<T, E: std::error::Error + 'static>(
    who: &str,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(OBSERVE_TIMEOUT, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{who} does not answer: {}", chain(&error))),
        Err(_) => Err(format!("{who} does not answer within {} s", OBSERVE_TIMEOUT.as_secs())),
    }
}

fn keep<T>(result: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
