//! Guests that move between this host and another one, as either end sees them. What is to be done says `plan.rs`; the way
//! there is `tunnel.rs`. Nothing of a move is told to the guest.

pub(crate) mod plan;

use crate::chain::{DiskId, FileId, LayerId};
use crate::config::Config;
use crate::config_disk::config_disk;
use crate::plan::{Observed, own_wires, wait_of};
use crate::restore::disks_of;
use crate::store::{Record, read_json, write_json};
use crate::tunnel::{self, Answer, Dialler, Guest, GuestDisk, Ways, What, socket_path};
use crate::work::Works;
use chassis::reconcile::Hint;
use chassis::telemetry::chain;
use chassis::tls::{ClientCertificate, Identity, TlsError, client_config, server_config};
use controller_api::agent::{DesiredInstance, DesiredVolume, HostDesired};
use controller_api::life::{DesiredMove, DiskName, LayerFormat, MoveEnd, MoveStatus};
use controller_hypervisor::{Machine, Migration, MigrationProgress};
use plan::{Held, Plan, Run, Seen, Stage, Step, plan};
use rustls::{ClientConfig, ServerConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use types::HostName;
use uuid::Uuid;

/// Where guests come in, if the configuration does not say.
const PORT: u16 = 4250;
/// Longest wait for libvirt's word about one guest.
const STANDING_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between two looks at how far a migration is.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait of a target for the images that a guest's disks stand on.
const IMAGES_WAIT_MAX: Duration = Duration::from_secs(240);
/// Sockets of libvirtd, in order of trying: of one daemon for all, of one for QEMU.
const LIBVIRT_SOCKETS: [&str; 2] = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];

/// What is known of moves.
#[derive(Debug)]
pub(crate) struct Moves {
    /// Where guests come in; none if nobody listens.
    address: Option<SocketAddr>,
    tls: Arc<ClientConfig>,
    /// Records, one a move.
    folder: PathBuf,
    /// Sockets.
    sockets: PathBuf,
    held: Mutex<BTreeMap<String, Held>>,
    under_way: Mutex<BTreeMap<String, MigrationProgress>>,
    doors: Mutex<BTreeMap<String, Door>>,
    said: Mutex<Vec<MoveStatus>>,
}

/// A move that comes here.
#[derive(Debug, Clone)]
struct Door {
    from: HostName,
    incarnation: Uuid,
    ends: CancellationToken,
}

/// What [`Moves::listen`] has opened.
pub(crate) struct Entrance {
    listener: TcpListener,
    tls: ServerConfig,
}

impl Moves {
    /// Listens for guests of other hosts. If that fails, none come here; all else works.
    pub(crate) async fn listen(
        config: &Config,
        identity: &Identity,
    ) -> Result<(Self, Option<Entrance>), TlsError> {
        let tls = server_config(identity.clone(), ClientCertificate::Required)?;
        let wanted = config.move_listen.unwrap_or_else(|| (config.underlay_address, PORT).into());
        let listener = TcpListener::bind(wanted).await;
        let listener = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, entrance) = match listener {
            Ok((address, listener)) => (Some(address), Some(Entrance { listener, tls })),
            Err(error) => {
                tracing::warn!(%error, address = %wanted, "no guests can move here: see move_listen in agent.toml");
                (None, None)
            }
        };
        let (folder, sockets) = (config.state_dir.join("moves"), config.run_dir.join("move"));
        for made in [&folder, &sockets] {
            if let Err(error) = std::fs::create_dir_all(made) {
                tracing::warn!(%error, folder = %made.display(), "moves will fail");
            }
        }
        let moves = Self {
            address,
            tls: Arc::new(client_config(identity.clone())?),
            held: Mutex::new(read_all(&folder)),
            folder,
            sockets,
            under_way: Mutex::default(),
            doors: Mutex::default(),
            said: Mutex::default(),
        };
        Ok((moves, entrance))
    }

    /// Where guests come in.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// For the controller.
    pub(crate) fn statuses(&self) -> Vec<MoveStatus> {
        locked(&self.said).clone()
    }

    fn keep(&self, held: Held) -> Result<(), String> {
        write_json(&self.file(&held.named.id), &held).map_err(|error| said(&error))?;
        locked(&self.held).insert(held.named.id.clone(), held);
        Ok(())
    }

    fn forget(&self, id: &str) -> Result<(), String> {
        // QEMU leaves what it listened on.
        for what in [What::Libvirt, What::Memory, What::Disks] {
            let _ = std::fs::remove_file(socket_path(&self.sockets, id, &what));
        }
        chassis::durable::remove(&self.file(id)).map_err(|error| error.to_string())?;
        locked(&self.held).remove(id);
        Ok(())
    }

    /// Ids are UUIDs: [`Self::doors_for`] and the plan let nothing else pass.
    fn file(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Opens a door for each move that comes here, and shuts all others.
    fn doors_for(&self, named: &[DesiredMove]) {
        let coming = |named: &DesiredMove| match &named.end {
            MoveEnd::Target { from } => {
                Some((named.id.clone(), from.clone(), named.incarnation.parse().ok()?))
            }
            MoveEnd::Source { .. } => None,
        };
        let coming: BTreeMap<String, (HostName, Uuid)> =
            named.iter().filter_map(coming).map(|(id, from, guest)| (id, (from, guest))).collect();
        let mut doors = locked(&self.doors);
        doors.retain(|id, door| {
            let stays = coming.get(id) == Some(&(door.from.clone(), door.incarnation));
            if !stays {
                door.ends.cancel();
            }
            stays
        });
        for (id, (from, incarnation)) in coming {
            doors.entry(id).or_insert_with(|| Door { from, incarnation, ends: CancellationToken::new() });
        }
    }
}

fn read_all(folder: &Path) -> BTreeMap<String, Held> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let read = files.filter_map(|file| match read_json::<Held>(&file.path()) {
        Ok(held) => held,
        Err(error) => {
            tracing::error!(error = %chain(&error), "a move's record is lost: look at its guest at both hosts");
            None
        }
    });
    read.map(|held| (held.named.id.clone(), held)).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes every move one step on. Says which incarnations are left alone by everybody else, and which have come.
pub(crate) async fn pass(
    works: &Arc<Works>,
    desired: &HostDesired,
    observed: &Observed,
    hint: &Arc<OnceLock<Hint>>,
) -> (BTreeSet<Uuid>, BTreeSet<Uuid>) {
    let named: Vec<DesiredMove> =
        desired.moves.iter().filter(|named| named.id.parse::<Uuid>().is_ok()).cloned().collect();
    works.moves.doors_for(&named);
    if named.is_empty() && locked(&works.moves.held).is_empty() {
        locked(&works.moves.said).clear();
        return Default::default();
    }
    let seen = works.see_moves(named, desired, observed).await;
    let Plan { steps, statuses, alone, arrived } = plan(&seen);
    for step in steps {
        if let Err(problem) = works.take_step(step, desired, hint).await {
            tracing::warn!(problem, "a step of a move failed");
        }
    }
    *locked(&works.moves.said) = statuses;
    (alone, arrived)
}

/// Lets guests in until `shutdown`.
pub(crate) async fn serve(works: Arc<Works>, entrance: Entrance, shutdown: CancellationToken) {
    tunnel::serve(entrance.listener, entrance.tls, works, shutdown).await;
}

impl Works {
    async fn see_moves(&self, named: Vec<DesiredMove>, desired: &HostDesired, observed: &Observed) -> Seen {
        let held = locked(&self.moves.held).clone();
        let under_way = locked(&self.moves.under_way).clone();
        let incarnation = |instance: &DesiredInstance| instance.incarnation.parse::<Uuid>().ok();
        let moving: BTreeSet<Uuid> = named
            .iter()
            .filter_map(|named| named.incarnation.parse().ok())
            .chain(held.values().filter_map(Held::incarnation))
            .collect();
        let mut standing = BTreeMap::new();
        for guest in &moving {
            let found = tokio::time::timeout(STANDING_TIMEOUT, self.hypervisor.standing(*guest)).await;
            if let Ok(Ok(found)) = found {
                standing.insert(*guest, found);
            }
        }
        let wait = |instance: &DesiredInstance| {
            let guest = incarnation(instance).filter(|guest| moving.contains(guest))?;
            Some((guest, wait_of(desired, instance, guest, observed)?))
        };
        let waits = desired.instances.iter().filter_map(wait).collect();
        let wanted = desired.instances.iter().filter_map(incarnation).collect();
        Seen { named, held, standing, under_way, wanted, waits }
    }

    async fn take_step(
        self: &Arc<Self>,
        step: Step,
        desired: &HostDesired,
        hint: &Arc<OnceLock<Hint>>,
    ) -> Result<(), String> {
        match step {
            Step::Expect(named) => self.expect_guest(named, desired),
            Step::Begin(named) => self.begin_move(named, hint),
            Step::Abort(_, incarnation) => {
                let aborted = self.hypervisor.abort_migration(incarnation).await;
                aborted.map_err(|error| said(&error))
            }
            Step::Keep(held) => self.moves.keep(held),
            Step::Arrived(held) => self.arrived(held),
            Step::Resume(incarnation) => {
                let resumed = self.hypervisor.resume(incarnation).await;
                resumed.map(drop).map_err(|error| said(&error))
            }
            Step::Forget(id) => self.moves.forget(&id),
        }
    }

    /// What is on disk of a guest that is to come: its ports stay until it is gone again.
    fn expect_guest(&self, named: DesiredMove, desired: &HostDesired) -> Result<(), String> {
        let held = Held::new(named, Stage::Expected);
        let (Some(incarnation), Some(instance)) = (held.incarnation(), instance_of(desired, &held.named))
        else {
            return Err(format!("the document does not name {}", held.named.instance));
        };
        let wires = own_wires(desired, instance);
        let new = Record::new(instance.id.clone(), instance.image, wires.clone());
        let kept = self.store.change(incarnation, Some(new), |record| {
            record.wires = wires;
            // The memory it once went on from is that of its first run, elsewhere.
            record.resumed = true;
        });
        kept.map_err(|error| said(&error))?;
        self.moves.keep(held)
    }

    /// The run goes on here: it began, and said that it is ready, elsewhere.
    fn arrived(&self, held: Held) -> Result<(), String> {
        let incarnation = held.incarnation().ok_or("no incarnation")?;
        let run = held.run.unwrap_or_default();
        let changed = self.store.change(incarnation, None, |record| {
            record.starts = run.starts.max(1);
            record.started_ms = run.started_ms.or_else(|| Some(chassis::clock::unix_ms()));
            record.ready_ms = run.ready_ms;
            (record.ended, record.failure) = (false, None);
            // What it read as it booted is told where it did.
            record.run_told = record.starts;
        });
        changed.map_err(|error| said(&error))?;
        let MoveEnd::Target { from } = &held.named.end else { return Ok(()) };
        let (instance, message) =
            (held.named.instance.clone(), format!("{} has come from {from}", held.named.instance));
        self.moves.keep(held)?;
        self.tell(&instance, "instance-arrived", message);
        Ok(())
    }

    /// Written down first: whoever is killed from here on knows that the guest may be elsewhere.
    fn begin_move(self: &Arc<Self>, named: DesiredMove, hint: &Arc<OnceLock<Hint>>) -> Result<(), String> {
        let held = Held::new(named, Stage::Moving);
        let id = held.named.id.clone();
        if locked(&self.moves.under_way).contains_key(&id) {
            return Ok(());
        }
        self.moves.keep(held.clone())?;
        locked(&self.moves.under_way).insert(id.clone(), MigrationProgress::default());
        let (works, hint) = (Arc::clone(self), Arc::clone(hint));
        tokio::spawn(async move {
            let ended = match works.send(&held).await {
                Ok(done) => Held {
                    stage: Stage::Done,
                    sent_bytes: done.sent_bytes,
                    total_bytes: done.total_bytes,
                    downtime_ms: done.downtime_ms,
                    ..held
                },
                // Where the guest is now says libvirt.
                Err(why) => Held { reason: Some(why), ..held },
            };
            tracing::info!(instance = %ended.named.instance, stage = ?ended.stage, reason = ended.reason, "a move ended here");
            if let Err(problem) = works.moves.keep(ended) {
                tracing::error!(problem, "a move's end is not kept: it is found out again");
            }
            locked(&works.moves.under_way).remove(&id);
            if let Some(hint) = hint.get() {
                hint.now();
            }
        });
        Ok(())
    }

    async fn send(&self, held: &Held) -> Result<MigrationProgress, String> {
        let (MoveEnd::Source { to, address }, Some(incarnation)) = (&held.named.end, held.incarnation())
        else {
            return Err("it is no source".to_owned());
        };
        let (id, tls) = (held.named.id.clone(), Arc::clone(&self.moves.tls));
        let dialler = Dialler { tls, id: id.clone(), to: to.clone(), address: *address };
        let guest = self.guest(&held.named, incarnation)?;
        let volumes = guest.disks.len().saturating_sub(1);
        let (document, sockets) = dialler.machine(guest).await?;
        let folder = &self.moves.sockets;
        if sockets != *folder {
            return Err(format!(
                "{to} has its sockets in {}, this host in {}: write the same run_dir into both agent.toml",
                sockets.display(),
                folder.display()
            ));
        }
        let ways = Ways::open(folder, &dialler)?;
        let system = std::iter::once(Machine::SYSTEM_TARGET.to_owned());
        let migration = Migration {
            to: format!("qemu:///system?socket={}", socket_path(folder, &id, &What::Libvirt).display()),
            document,
            memory: socket_path(folder, &id, &What::Memory),
            disks: socket_path(folder, &id, &What::Disks),
            copied: system.chain((0..volumes).map(Machine::volume_target)).collect(),
        };
        let moved = self.hypervisor.migrate(incarnation, migration);
        tokio::pin!(moved);
        let ended = loop {
            tokio::select! {
                ended = &mut moved => break ended,
                () = tokio::time::sleep(LOOK_PAUSE) => {
                    if let Ok(Some(progress)) = self.hypervisor.migration_progress(incarnation).await {
                        locked(&self.moves.under_way).insert(id.clone(), progress);
                    }
                }
            }
        };
        drop(ways);
        ended.map_err(|error| said(&error))
    }

    /// A guest of this host, for the other one to make it room.
    fn guest(&self, named: &DesiredMove, incarnation: Uuid) -> Result<Guest, String> {
        let desired = self.store.desired().unwrap_or_default();
        let instance = instance_of(&desired, named).ok_or("the document does not name it")?;
        let images = self.disks.images();
        let lengths = self.disks.volumes();
        let disks = disks_of(instance).map(|name| {
            let held = self.disks.chain(&DiskId::of(&name, &named.instance, incarnation));
            let mut held = held.ok_or_else(|| format!("its disk {name} is not here"))?;
            for layer in held.layers.iter_mut().filter(|layer| layer.image.is_none()) {
                let image = LayerId::of(layer).and_then(|id| images.get(&FileId::Layer(id)));
                layer.image = image.and_then(|image| image.digest);
            }
            let length = match &name {
                DiskName::System => None,
                DiskName::Volume(volume) => lengths.get(&(named.instance.clone(), volume.clone())),
            };
            Ok(GuestDisk {
                disk: name,
                incarnation: held.incarnation,
                layers: held.layers,
                format: held.format,
                disk_bytes: length.map_or(held.disk_bytes, |(bytes, _)| *bytes),
            })
        });
        let disks = disks.collect::<Result<Vec<_>, String>>()?;
        let run = self.store.records().get(&incarnation).map(|record| Run {
            starts: record.starts,
            started_ms: record.started_ms,
            ready_ms: record.ready_ms,
        });
        Ok(Guest { run: run.unwrap_or_default(), disks })
    }

    /// Makes the disks of a guest that comes, empty, over what they stand on at its source.
    async fn make_room(&self, id: &str, guest: Guest) -> Result<String, String> {
        let desired = self.store.desired().unwrap_or_default();
        let named = desired.moves.iter().find(|named| named.id == id).ok_or("it is named no more")?;
        let incarnation: Uuid = named.incarnation.parse().map_err(|_| "it has no incarnation")?;
        let instance = instance_of(&desired, named).ok_or("its document does not name the guest")?;
        if self.hypervisor.standing(incarnation).await.map_err(|error| said(&error))?.is_some() {
            return Err("it is here already, or what is left of an earlier attempt is".to_owned());
        }
        let theirs: BTreeSet<&DiskName> = guest.disks.iter().map(|disk| &disk.disk).collect();
        let ours: Vec<DiskName> = disks_of(instance).collect();
        if theirs != ours.iter().collect() {
            return Err(format!("it has the disks {theirs:?}, and should have {ours:?}"));
        }
        for disk in &guest.disks {
            self.make_disk(instance, incarnation, disk).await?;
        }
        self.wait_for_images(&guest).await?;
        let run = Run { starts: guest.run.starts.max(1), ..guest.run };
        let path = self.store.layout().config_disk(incarnation);
        let config = config_disk(&instance.config).map_err(|error| said(&error))?;
        chassis::durable::write(&path, &config, 0o644)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let held = locked(&self.moves.held).get(id).cloned().ok_or("it is not expected yet")?;
        self.moves.keep(Held { run: Some(run), ..held })?;
        let hardware = self.hardware(instance, incarnation, run.starts).map_err(|error| said(&error))?;
        Ok(hardware.xml())
    }

    async fn make_disk(
        &self,
        instance: &DesiredInstance,
        incarnation: Uuid,
        disk: &GuestDisk,
    ) -> Result<(), String> {
        let files = self.disks.files().map_err(|error| said(&error))?;
        let here = |id: LayerId| files.contains(&FileId::Layer(id));
        let absent =
            disk.layers.iter().find(|layer| layer.image.is_none() && !LayerId::of(layer).is_some_and(here));
        if let Some(layer) = absent {
            return Err(format!(
                "a layer of its disk {} of checkpoint {} is on its source only: publish that checkpoint or drop it, \
                 then move",
                disk.disk, layer.checkpoint
            ));
        }
        let made = match &disk.disk {
            DiskName::System => {
                // What an earlier attempt left.
                self.disks.tidy(&DiskId::System(incarnation), None).map_err(|error| said(&error))?;
                self.disks.forget_system(incarnation);
                let like = DesiredInstance {
                    layers: disk.layers.clone(),
                    image_size_bytes: disk.disk_bytes,
                    ..instance.clone()
                };
                self.make_system(&like, incarnation).await
            }
            DiskName::Volume(name) => {
                let deleted = self.disks.delete_volume(&instance.id, name);
                deleted.map_err(|error| said(&error))?;
                let volume = DesiredVolume {
                    instance: instance.id.clone(),
                    name: name.clone(),
                    size: types::ByteSize(disk.disk_bytes),
                    incarnation: disk.incarnation.clone(),
                    layers: disk.layers.clone(),
                };
                self.make_volume(&volume).await
            }
        };
        made.map_err(|error| said(&error))?;
        let id = DiskId::of(&disk.disk, &instance.id, incarnation);
        let is = self.disks.chain(&id).map(|made| (made.format, made.disk_bytes));
        let expected = (disk.format, disk.disk_bytes);
        // A raw file's length is its own.
        let fits = is.is_some_and(|is| is == expected || (is.0 == expected.0 && is.0 == LayerFormat::Raw));
        fits.then_some(())
            .ok_or_else(|| format!("its disk {} is {expected:?} and was made {is:?}", disk.disk))
    }

    /// They are named to the streamer as soon as disks that stand on them are known.
    async fn wait_for_images(&self, guest: &Guest) -> Result<(), String> {
        let files = self.disks.files().map_err(|error| said(&error))?;
        let here = |id: LayerId| files.contains(&FileId::Layer(id));
        let layers = guest.disks.iter().flat_map(|disk| &disk.layers);
        let absent = layers.filter(|layer| !LayerId::of(layer).is_some_and(here));
        let mut needed: BTreeSet<String> = absent.filter_map(|layer| Some(layer.image?.hex())).collect();
        let deadline = Instant::now() + IMAGES_WAIT_MAX;
        while !needed.is_empty() {
            if let Ok(images) = self.streamer.images().await {
                for image in images {
                    needed.remove(&image.export);
                }
            }
            if Instant::now() > deadline {
                return Err(format!("{} images of its disks' layers are not exported in time", needed.len()));
            }
            if !needed.is_empty() {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        }
        Ok(())
    }

    /// The local libvirtd's socket.
    fn libvirt_socket(&self) -> PathBuf {
        let uri = &self.config.libvirt_uri;
        let named = uri.split_once("socket=").map(|(_, rest)| rest.split('&').next().unwrap_or(rest));
        let usual = LIBVIRT_SOCKETS.into_iter().find(|path| Path::new(path).exists());
        PathBuf::from(named.or(usual).unwrap_or(LIBVIRT_SOCKETS[0]))
    }
}

fn said(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).to_string()
}

fn instance_of<'a>(desired: &'a HostDesired, named: &DesiredMove) -> Option<&'a DesiredInstance> {
    desired.instances.iter().find(|instance| instance.incarnation == named.incarnation)
}

impl tunnel::Gate for Works {
    fn expects(&self, id: &str) -> Option<(HostName, CancellationToken)> {
        locked(&self.moves.doors).get(id).map(|door| (door.from.clone(), door.ends.clone()))
    }

    fn socket(&self, id: &str, what: &What) -> Option<PathBuf> {
        match what {
            What::Libvirt => Some(self.libvirt_socket()),
            What::Memory | What::Disks => Some(socket_path(&self.moves.sockets, id, what)),
            What::Machine(_) => None,
        }
    }

    async fn machine(&self, id: &str, guest: Guest) -> Answer {
        match self.make_room(id, guest).await {
            Ok(document) => Answer::Machine { document, sockets: self.moves.sockets.clone() },
            Err(why) => Answer::Refused(why),
        }
    }
}
