//! How each step is carried out. It chooses nothing; what fails is said, and the next plan tries again.

use crate::chain::{Capture, DiskError, Stage};
use crate::config::Config;
use crate::config_disk::{ConfigDiskError, config_disk};
use crate::dirty::Written;
use crate::disks::Disks;
use crate::facts;
use crate::fence::{self, Leases};
use crate::moving::Moves;
use crate::plan::{Step, note_end, wanted};
use crate::restore::Reader;
use crate::store::{Named, Naming, Record, Store, StoreError, Wires};
use crate::stream::Gone;
use chassis::clock::unix_ms;
use chassis::telemetry::chain;
use chassis::unix_http::CallError;
use controller_api::agent::{AgentEvent, DesiredInstance};
use controller_api::life::DiskName;
use controller_api::watch::WatchStatus;
use controller_hypervisor::{DomainState, Hypervisor, HypervisorError, Machine, Mark, Nic, Stop};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use streamer_api::{ImageSource, Limits};
use tokio::sync::broadcast;
use types::{Digest, InstanceId};
use uuid::Uuid;

/// Longest wait for the controller to hand out an image's source.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(20);
/// A guest whose power button was pressed has so long to end by itself.
const SWITCH_OFF_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between two looks whether it has.
const SWITCH_OFF_LOOK: Duration = Duration::from_millis(200);

/// What the steps work with.
#[derive(Debug)]
pub(crate) struct Works {
    pub(crate) config: Config,
    pub(crate) machine: facts::Machine,
    pub(crate) store: Store,
    pub(crate) disks: Disks,
    /// What the guests have written.
    pub(crate) written: Written,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) netd: netd_client::Client,
    pub(crate) streamer: streamer_client::Client,
    /// Shows the host's certificate and trusts the controller's authority only.
    pub(crate) controller: reqwest::Client,
    pub(crate) networks_taken: Mutex<Option<netd_api::Desired>>,
    pub(crate) events: broadcast::Sender<AgentEvent>,
    /// Guests on their way.
    pub(crate) moves: Moves,
    /// What this host may do with leased instances.
    pub(crate) leases: Leases,
    /// What instances that are gone had waited for.
    pub(crate) gone: Mutex<Gone>,
    /// How the watches of guests do.
    pub(crate) watches: Mutex<Vec<WatchStatus>>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    #[error(transparent)]
    ConfigDisk(#[from] ConfigDiskError),
    #[error("netd did not take the networks")]
    Netd(#[source] CallError),
    #[error("the streamer did not take image {0}")]
    Streamer(String, #[source] CallError),
    #[error("the streamer did not take the limits")]
    Limits(#[source] CallError),
    #[error("the streamer does not say what was read of image {0}")]
    Runs(String, #[source] CallError),
    #[error("cannot tell the controller what was read of image {0}")]
    Tell(String, #[source] reqwest::Error),
    #[error("cannot fetch image {0} from the controller")]
    Source(String, #[source] reqwest::Error),
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("its guest does not have the disk {disk} open as {}", path.display())]
    OtherFile { disk: DiskName, path: PathBuf },
    #[error("the streamer cannot make an image of {}", .0.display())]
    Publish(PathBuf, #[source] streamer_client::PublishError),
    #[error("the controller has named no image yet, so it is not known where the peers find each other")]
    NoTracker,
    #[error("the controller did not take the description of image {0}")]
    TellLayer(String, #[source] reqwest::Error),
    #[error("its incarnation is no UUID")]
    Incarnation,
    #[error("its disk still does not answer")]
    StillPaused,
    #[error("{0}")]
    NoLease(String),
}

impl Works {
    /// Carries a step out.
    pub(crate) async fn carry_out(self: &Arc<Self>, step: Step) -> Result<(), WorkError> {
        match step {
            Step::PutNetworks(networks) => self.put_networks(networks).await,
            Step::NameImage(digest, naming) => self.name_image(digest, naming).await,
            Step::DropImage(digest) => self.drop_image(digest).await,
            Step::SetLimits(limits) => self.set_limits(limits).await,
            Step::TellRun(_, incarnation) => self.tell_run(incarnation).await,
            Step::MakeVolume(volume) => Ok(self.make_volume(&volume).await?),
            Step::DeleteVolume(instance, name) => Ok(self.disks.delete_volume(&instance, &name)?),
            Step::Start(desired, wires) => self.start(&desired, wires).await,
            Step::Adopt(desired, wires) => self.adopt(&desired, wires),
            Step::NoteEnd(id, incarnation) => self.note_end(&id, incarnation),
            Step::Resume(id, incarnation) => self.resume(&id, incarnation).await,
            Step::Fence(id, incarnation) => self.fence(&id, incarnation).await,
            Step::SwitchOff(id, incarnation) => self.switch_off(&id, incarnation).await,
            Step::Remove(id, incarnation) => self.remove(&id, incarnation).await,
            Step::NoteHeld(id, incarnation) => {
                Ok(self.disks.keep_capture(&id, Capture::new(incarnation, false, Stage::Held))?)
            }
            Step::TakeCapture { id, instance, with_memory, running } => {
                self.take_capture(&id, &instance, with_memory, running).await
            }
            Step::SettleCapture(id) => self.settle_capture(&id).await,
            Step::FailCapture(id, reason) => {
                self.give_up_capture(&id, reason);
                Ok(())
            }
            Step::PublishCapture(id) => self.publish_capture(&id).await,
            Step::DropCapture(id) => Ok(self.disks.forget_capture(&id)?),
            Step::DropFile(file, image) => self.drop_file(&file, image).await,
            Step::FetchMemory(_, incarnation, image, bytes) => {
                Ok(self.fetch_memory(incarnation, image, bytes).await?)
            }
        }
    }

    /// Tells the controller, now or when it is back.
    pub(crate) fn tell(&self, instance: &InstanceId, reason: &str, message: String) {
        tracing::info!(%instance, reason, "{message}");
        let event = AgentEvent {
            at_ms: unix_ms(),
            instance: Some(instance.clone()),
            reason: reason.to_owned(),
            message,
        };
        // Without a listener the process is on its way out.
        let _ = self.events.send(event);
    }

    async fn put_networks(&self, networks: netd_api::Desired) -> Result<(), WorkError> {
        let held = self.networks_taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.netd.converge(held.as_ref(), &networks).await.map_err(WorkError::Netd)?;
        *self.networks_taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(networks);
        Ok(())
    }

    /// The streamer is told first: what is on disk as told was told.
    async fn name_image(&self, digest: Digest, naming: Naming) -> Result<(), WorkError> {
        let held = self.store.image(digest)?;
        let source = match held {
            Some(Named { naming: Naming { source, .. }, source: held }) if source == naming.source => held,
            _ => self.fetch_source(digest).await?,
        };
        let source = ImageSource { prefetch: naming.prefetch, pin: naming.pin, ..source };
        self.put_image(digest, &source).await?;
        Ok(self.store.keep_image(digest, &Named { naming, source })?)
    }

    async fn put_image(&self, digest: Digest, source: &ImageSource) -> Result<(), WorkError> {
        let put = self.streamer.put_image(digest, source).await;
        put.map(drop).map_err(|error| WorkError::Streamer(digest.short(), error))
    }

    async fn set_limits(&self, limits: Option<Limits>) -> Result<(), WorkError> {
        // Said before it is done and taken back after it is undone, so that a crash between leaves nothing behind.
        if limits.is_some() {
            self.store.keep_limits_set(true)?;
        }
        self.streamer.set_limits(&limits.unwrap_or_default()).await.map_err(WorkError::Limits)?;
        if limits.is_none() {
            self.store.keep_limits_set(false)?;
        }
        Ok(())
    }

    async fn fetch_source(&self, digest: Digest) -> Result<ImageSource, WorkError> {
        let fail = |error| WorkError::Source(digest.short(), error);
        let url = format!("{}/agent/v1/images/{digest}", self.config.controller.trim_end_matches('/'));
        let answer = self.controller.get(url).timeout(SOURCE_TIMEOUT).send().await.map_err(fail)?;
        answer.error_for_status().map_err(fail)?.json().await.map_err(fail)
    }

    async fn drop_image(&self, digest: Digest) -> Result<(), WorkError> {
        if let Some(Named { naming: Naming { pin: true, .. }, source }) = self.store.image(digest)? {
            // A pin outlives the name.
            self.put_image(digest, &ImageSource { pin: false, ..source }).await?;
        }
        match self.streamer.delete_image(digest).await {
            // It has forgotten it already.
            Ok(()) | Err(CallError::Refused { status: 404, .. }) => {}
            Err(error) => return Err(WorkError::Streamer(digest.short(), error)),
        }
        Ok(self.store.forget_image(digest)?)
    }

    async fn start(&self, desired: &DesiredInstance, wires: Wires) -> Result<(), WorkError> {
        let incarnation: Uuid = desired.incarnation.parse().map_err(|_| WorkError::Incarnation)?;
        let new = Record::new(desired.id.clone(), desired.image, wires.clone());
        let started = self.try_start(desired, incarnation, wires).await;
        match &started {
            Ok(record) => {
                let message = match record.as_ref().map_or(1, |record| record.starts) {
                    1 => format!("{} started", desired.id),
                    starts => format!("{} started again ({starts} starts)", desired.id),
                };
                self.tell(&desired.id, "instance-started", message);
            }
            Err(error) => {
                let why = chain(error).to_string();
                let news = self.store.records().get(&incarnation).and_then(|r| r.failure.clone())
                    != Some(why.clone());
                self.store.note(incarnation, new, |record| note_end(record, Some(why.clone()), unix_ms()));
                if news {
                    self.tell(&desired.id, "instance-failed", format!("{} cannot start: {why}", desired.id));
                }
            }
        }
        started.map(drop)
    }

    async fn try_start(
        &self,
        desired: &DesiredInstance,
        incarnation: Uuid,
        wires: Wires,
    ) -> Result<Option<Record>, WorkError> {
        let new = Record::new(desired.id.clone(), desired.image, wires.clone());
        self.store.change(incarnation, Some(new), |record| record.wires = wires)?;
        self.make_system(desired, incarnation).await?;
        self.tidy(desired, incarnation)?;
        let path = self.store.layout().config_disk(incarnation);
        let disk = config_disk(&desired.config)?;
        chassis::durable::write(&path, &disk, 0o644).map_err(|source| WorkError::Write(path, source))?;
        let held = self.store.records().remove(&incarnation);
        let (starts, resumed) = held.map_or((1, false), |record| (record.starts + 1, record.resumed));
        let hardware = self.hardware(desired, incarnation, starts)?;
        let memory = if resumed { None } else { self.memory_of(desired, incarnation)? };
        self.carry_written(incarnation);
        let now = unix_ms();
        let record = self.store.change(incarnation, None, |record| {
            record.starts = starts;
            record.started_ms = Some(now);
            record.ready_ms = None;
            record.ended = false;
            // Once its guest may have run on, its memory of before does not fit its disks any more.
            record.resumed = true;
        })?;
        match memory {
            Some(memory) => self.go_on(desired, incarnation, &hardware, &memory).await?,
            None => self.under_lease(desired, incarnation, self.hypervisor.start(&hardware)).await?,
        }
        self.store.change(incarnation, None, |record| record.failure = None)?;
        Ok(record)
    }

    /// Starts its first run from the memory that it shall go on from.
    async fn go_on(
        &self,
        desired: &DesiredInstance,
        incarnation: Uuid,
        hardware: &Machine,
        memory: &Path,
    ) -> Result<(), WorkError> {
        let started = self.hypervisor.start_from(hardware, memory);
        match self.under_lease(desired, incarnation, started).await {
            Err(WorkError::Hypervisor(
                error @ (HypervisorError::Refused { .. } | HypervisorError::Saved { .. }),
            )) => {
                // It has not run: the next attempt goes on from it, too.
                self.store.change(incarnation, None, |record| record.resumed = false)?;
                return Err(error.into());
            }
            started => started?,
        }
        // A copy of what the swarm has; what is not removed goes with the instance.
        let _ = std::fs::remove_file(self.store.layout().fetched_memory(incarnation));
        Ok(())
    }

    pub(crate) fn hardware(
        &self,
        desired: &DesiredInstance,
        incarnation: Uuid,
        starts: u32,
    ) -> Result<Machine, WorkError> {
        let layout = self.store.layout();
        let (system, volumes) = self.machine_disks(Reader { desired, incarnation, starts })?;
        Ok(Machine {
            mark: Mark { instance: desired.id.clone(), incarnation },
            accelerator: self.machine.accelerator.kind,
            vcpus: desired.vcpus,
            memory_bytes: desired.memory.0,
            cache: self.machine.cache,
            system,
            volumes,
            config_disk: layout.config_disk(incarnation),
            nics: desired
                .ports
                .iter()
                .map(|port| Nic { tap: port.tap.clone(), mac: port.mac, mtu: port.mtu })
                .collect(),
            console_log: layout.console_log(incarnation),
            health_socket: layout.health_socket(incarnation),
        })
    }

    fn adopt(&self, desired: &DesiredInstance, wires: Wires) -> Result<(), WorkError> {
        let incarnation: Uuid = desired.incarnation.parse().map_err(|_| WorkError::Incarnation)?;
        let new = Record::new(desired.id.clone(), desired.image, wires);
        self.store.change(incarnation, Some(new), |record| {
            record.starts = record.starts.max(1);
            record.started_ms = Some(unix_ms());
            record.ready_ms = None;
            record.ended = false;
            record.failure = None;
            record.resumed = true;
        })?;
        Ok(())
    }

    fn note_end(&self, id: &InstanceId, incarnation: Uuid) -> Result<(), WorkError> {
        self.carry_written(incarnation);
        self.store.change(incarnation, None, |record| note_end(record, None, unix_ms()))?;
        self.tell(id, "instance-stopped", format!("{id} ended by itself"));
        Ok(())
    }

    async fn resume(&self, id: &InstanceId, incarnation: Uuid) -> Result<(), WorkError> {
        if !self.hypervisor.resume(incarnation).await? {
            return Err(WorkError::StillPaused);
        }
        tracing::info!(instance = %id, "goes on: its disk answers again");
        Ok(())
    }

    /// Makes a guest run: a leased one only if it may, and not longer than that.
    async fn under_lease(
        &self,
        desired: &DesiredInstance,
        incarnation: Uuid,
        start: impl Future<Output = Result<(), HypervisorError>>,
    ) -> Result<(), WorkError> {
        if !desired.leased {
            return Ok(start.await?);
        }
        let named = || self.store.desired().is_some_and(|document| wanted(&document, incarnation).is_some());
        let no_lease = || WorkError::NoLease(fence::why_not(&desired.id));
        let starting = self.leases.begin_start(named).ok_or_else(no_lease)?;
        let started = start.await;
        if !starting.may_run_on() {
            fence::kill_guests(&[incarnation].into());
            self.hypervisor.stop(incarnation, Stop::PowerOff).await?;
            return Err(no_lease());
        }
        Ok(started?)
    }

    /// Its run is over, by no fault of its own.
    async fn fence(&self, id: &InstanceId, incarnation: Uuid) -> Result<(), WorkError> {
        self.hypervisor.stop(incarnation, Stop::PowerOff).await?;
        self.carry_written(incarnation);
        self.store.change(incarnation, None, |record| record.ended = true)?;
        self.tell(
            id,
            "instance-fenced",
            format!("{id} was stopped: the controller was not heard for its lease"),
        );
        Ok(())
    }

    /// Its power button is pressed; if it does not end by itself, its power goes.
    async fn switch_off(&self, id: &InstanceId, incarnation: Uuid) -> Result<(), WorkError> {
        self.hypervisor.stop(incarnation, Stop::PowerButton).await?;
        let ended = async {
            while self.runs(incarnation).await? {
                tokio::time::sleep(SWITCH_OFF_LOOK).await;
            }
            Ok::<(), WorkError>(())
        };
        if let Ok(looked) = tokio::time::timeout(SWITCH_OFF_TIMEOUT, ended).await {
            looked?;
        }
        self.hypervisor.stop(incarnation, Stop::PowerOff).await?;
        self.carry_written(incarnation);
        self.store.change(incarnation, None, |record| {
            record.ended = true;
            record.tries = 0;
            record.not_before_ms = 0;
            record.failure = None;
        })?;
        self.tell(id, "instance-stopped", format!("{id} was switched off as asked"));
        Ok(())
    }

    async fn runs(&self, incarnation: Uuid) -> Result<bool, WorkError> {
        let domains = self.hypervisor.list().await?;
        Ok(domains.iter().any(|domain| {
            domain.mark.incarnation == incarnation && !matches!(domain.state, DomainState::Stopped { .. })
        }))
    }

    async fn remove(&self, id: &InstanceId, incarnation: Uuid) -> Result<(), WorkError> {
        self.hypervisor.stop(incarnation, Stop::PowerOff).await?;
        self.hypervisor.undefine(incarnation).await?;
        self.remember(incarnation).await;
        self.store.forget(incarnation)?;
        self.disks.forget_system(incarnation);
        self.tell(id, "instance-removed", format!("{id} is removed from this host"));
        Ok(())
    }
}
