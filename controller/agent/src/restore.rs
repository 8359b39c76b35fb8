//! Disks as they are made, and as libvirt is told of them: an active file over layers, here or from the swarm.

use crate::chain::{CaptureId, Chain, DiskError, DiskId, LayerId, format_name};
use crate::disks::{failed, first_active, make_folder, qcow2_size};
use crate::stream;
use crate::work::Works;
use controller_api::agent::{DesiredInstance, DesiredVolume};
use controller_api::life::{DiskName, Layer, LayerFormat};
use controller_hypervisor::{Chain as MachineChain, DiskFile, Export, Format, Under, VolumeDisk};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;
use types::Digest;
use uuid::Uuid;

/// One start of one incarnation, as the streamer knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) desired: &'a DesiredInstance,
    pub(crate) incarnation: Uuid,
    pub(crate) starts: u32,
}

impl Works {
    /// Makes the overlay unless it is there. It is made beside and renamed: a half-made one is never started.
    pub(crate) async fn make_system(
        &self,
        desired: &DesiredInstance,
        incarnation: Uuid,
    ) -> Result<(), DiskError> {
        let disk = DiskId::System(incarnation);
        if self.disks.chain(&disk).is_some() {
            return Ok(());
        }
        let path = self.disks.layout().overlay(incarnation);
        let disk_bytes = desired.layers.last().map_or(0, |top| top.disk_bytes).max(desired.image_size_bytes);
        if !path.exists() {
            let backing = match desired.layers.last() {
                Some(top) => self.backing(top)?,
                None => (self.export_url(desired.image), LayerFormat::Raw),
            };
            create_overlay(&path, backing, disk_bytes).await?;
        }
        let chain = Chain {
            incarnation: String::new(),
            layers: desired.layers.clone(),
            active: first_active(&DiskName::System, "", LayerFormat::Qcow2),
            format: LayerFormat::Qcow2,
            disk_bytes,
        };
        Ok(self.disks.keep_chain(&disk, chain)?)
    }

    /// Makes a volume, grows it, or makes it anew as another disk. No guest uses it, unless it is not there.
    pub(crate) async fn make_volume(&self, volume: &DesiredVolume) -> Result<(), DiskError> {
        if !volume.incarnation.is_empty() && volume.incarnation.parse::<Uuid>().is_err() {
            return Err(DiskError::Name(volume.incarnation.clone()));
        }
        let disk = DiskId::Volume(volume.instance.clone(), volume.name.clone());
        match self.disks.chain(&disk) {
            Some(chain) if chain.incarnation == volume.incarnation => self.grow(&disk, chain, volume).await,
            _ => self.make_anew(&disk, volume).await,
        }
    }

    async fn grow(&self, disk: &DiskId, chain: Chain, volume: &DesiredVolume) -> Result<(), DiskError> {
        let path = self.disks.layout().active(disk, &chain);
        match chain.format {
            LayerFormat::Raw => lengthen(&path, volume.size.0)?,
            LayerFormat::Qcow2 if chain.disk_bytes < volume.size.0 => {
                // What it stands on is not opened: it may be elsewhere, and has no say.
                let file = serde_json::json!({
                    "driver": "qcow2", "backing": null,
                    "file": { "driver": "file", "filename": path.to_string_lossy() },
                });
                let size = volume.size.0.to_string();
                qemu_img("grow", &path, &["resize", "-q", &format!("json:{file}"), &size]).await?;
            }
            LayerFormat::Qcow2 => {}
        }
        let disk_bytes = chain.disk_bytes.max(volume.size.0);
        Ok(self.disks.keep_chain(disk, Chain { disk_bytes, ..chain })?)
    }

    async fn make_anew(&self, disk: &DiskId, volume: &DesiredVolume) -> Result<(), DiskError> {
        let top = volume.layers.last();
        let format = if top.is_some() { LayerFormat::Qcow2 } else { LayerFormat::Raw };
        let name = DiskName::Volume(volume.name.clone());
        let active = first_active(&name, &volume.incarnation, format);
        let path = self.disks.layout().active_file(disk, &active);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let disk_bytes = top.map_or(0, |top| top.disk_bytes).max(volume.size.0);
        match top {
            Some(top) => create_overlay(&path, self.backing(top)?, disk_bytes).await?,
            None => lengthen(&path, disk_bytes)?,
        }
        let (incarnation, layers) = (volume.incarnation.clone(), volume.layers.clone());
        let chain = Chain { incarnation, layers, active: active.clone(), format, disk_bytes };
        self.disks.keep_chain(disk, chain)?;
        // The disk that it was goes once the new one is there.
        Ok(self.disks.tidy(disk, Some(&active))?)
    }

    /// Removes what captures left of the old names of an instance's files. Its guest does not run.
    pub(crate) fn tidy(&self, desired: &DesiredInstance, incarnation: Uuid) -> Result<(), DiskError> {
        for name in disks_of(desired) {
            let disk = DiskId::of(&name, &desired.id, incarnation);
            if let Some(chain) = self.disks.chain(&disk) {
                self.disks.tidy(&disk, Some(&chain.active))?;
            }
        }
        Ok(())
    }

    /// An instance's disks as libvirt is told of them: the system's, then the volumes'.
    pub(crate) fn machine_disks(
        &self,
        reader: Reader<'_>,
    ) -> Result<(MachineChain, Vec<VolumeDisk>), DiskError> {
        let mut system = self.machine_chain(&DiskName::System, reader)?;
        let image = self.export(reader.desired.image, reader);
        system.under.push(Under::Export { export: image, format: Format::Raw });
        let volumes = reader.desired.volumes.iter().map(|name| {
            let chain = self.machine_chain(&DiskName::Volume(name.clone()), reader)?;
            Ok(VolumeDisk { name: name.clone(), chain })
        });
        Ok((system, volumes.collect::<Result<_, DiskError>>()?))
    }

    fn machine_chain(&self, name: &DiskName, reader: Reader<'_>) -> Result<MachineChain, DiskError> {
        let disk = DiskId::of(name, &reader.desired.id, reader.incarnation);
        let chain = self.disks.chain(&disk).ok_or_else(|| DiskError::NotMade(name.clone()))?;
        let under = chain.layers.iter().rev().map(|layer| match self.local(layer)? {
            Some(path) => Ok(Under::File(DiskFile { path, format: format(layer.format) })),
            None => {
                let image = self.image(layer)?;
                Ok(Under::Export { export: self.export(image, reader), format: format(layer.format) })
            }
        });
        let under = under.collect::<Result<_, DiskError>>()?;
        let path = self.disks.layout().active(&disk, &chain);
        Ok(MachineChain { active: DiskFile { path, format: format(chain.format) }, under })
    }

    fn export(&self, image: Digest, reader: Reader<'_>) -> Export {
        let Reader { desired, incarnation, starts } = reader;
        let name = stream::export(image, &desired.id, incarnation, starts);
        Export { name, socket: self.config.nbd_socket.clone() }
    }

    /// What qemu-img writes into a new file as what it stands on.
    pub(crate) fn backing(&self, layer: &Layer) -> Result<(String, LayerFormat), DiskError> {
        Ok(match self.local(layer)? {
            Some(path) => (path.to_string_lossy().into_owned(), layer.format),
            None => (self.export_url(self.image(layer)?), layer.format),
        })
    }

    fn export_url(&self, image: Digest) -> String {
        format!("nbd+unix:///{}?socket={}", image.hex(), self.config.nbd_socket.display())
    }

    /// A layer's file, if it is here.
    fn local(&self, layer: &Layer) -> Result<Option<PathBuf>, DiskError> {
        let id = LayerId::of(layer).ok_or_else(|| DiskError::Name(layer.checkpoint.clone()))?;
        let path = self.disks.layout().layer(&id, layer.format);
        Ok(path.exists().then_some(path))
    }

    fn image(&self, layer: &Layer) -> Result<Digest, DiskError> {
        let absent = || format!("{} of {} in checkpoint {}", layer.disk, layer.instance, layer.checkpoint);
        layer.image.ok_or_else(|| DiskError::Absent(absent()))
    }

    /// The memory that an incarnation's first run goes on from. It is here, or was fetched.
    pub(crate) fn memory_of(
        &self,
        desired: &DesiredInstance,
        incarnation: Uuid,
    ) -> Result<Option<PathBuf>, DiskError> {
        let Some(memory) = &desired.memory_from else { return Ok(None) };
        let name = || DiskError::Name(memory.checkpoint.clone());
        let checkpoint = memory.checkpoint.parse().map_err(|_| name())?;
        let layout = self.disks.layout();
        let here = layout.memory(&CaptureId { checkpoint, instance: memory.instance.clone() });
        let fetched = layout.fetched_memory(incarnation);
        let found = [fetched, here].into_iter().find(|path| path.exists());
        found.map(Some).ok_or_else(|| DiskError::Absent(format!("memory of {}", memory.instance)))
    }

    /// Copies memory out of the swarm: a guest that goes on needs it whole.
    pub(crate) async fn fetch_memory(
        &self,
        incarnation: Uuid,
        image: Digest,
        bytes: u64,
    ) -> Result<(), DiskError> {
        let path = self.disks.layout().fetched_memory(incarnation);
        let beside = path.with_extension("new");
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let (from, to) = (self.export_url(image), beside.to_string_lossy().into_owned());
        qemu_img("fetch", &path, &["convert", "-q", "-f", "raw", "-O", "raw", &from, &to]).await?;
        let (fetched, _) = crate::disks::settle_file(&beside)?;
        if fetched != bytes {
            let said = format!("it has {fetched} bytes, not the {bytes} that it should have");
            return Err(DiskError::QemuImg { what: "fetch", path, said });
        }
        std::fs::rename(&beside, &path).map_err(|source| failed("rename", &beside, source))
    }
}

/// The disks of an instance by name: the system's, then the volumes'.
pub(crate) fn disks_of(desired: &DesiredInstance) -> impl Iterator<Item = DiskName> + '_ {
    std::iter::once(DiskName::System).chain(desired.volumes.iter().cloned().map(DiskName::Volume))
}

/// Makes a qcow2 file over something that need not be there now. After a crash it is whole or absent.
pub(crate) async fn create_overlay(
    path: &Path,
    (backing, format): (String, LayerFormat),
    disk_bytes: u64,
) -> Result<(), DiskError> {
    let beside = path.with_extension("new");
    let (to, size) = (beside.to_string_lossy().into_owned(), disk_bytes.to_string());
    let format = format_name(format);
    // Without -u it would open what it stands on to learn its size, which may wait for the swarm.
    let args = ["create", "-q", "-f", "qcow2", "-u", "-F", format, "-b", &backing, &to, &size];
    let made = qemu_img("make", path, &args).await.and_then(|()| {
        // Not found by its size: not whole.
        qcow2_size(&beside).ok_or_else(|| DiskError::QemuImg {
            what: "make",
            path: path.to_owned(),
            said: "the file is not whole".to_owned(),
        })?;
        crate::disks::settle_file(&beside)?;
        std::fs::rename(&beside, path).map_err(|source| failed("rename", &beside, source))
    });
    if made.is_err() {
        // A half-written file would keep a full disk full.
        let _ = std::fs::remove_file(&beside);
    }
    made
}

async fn qemu_img(what: &'static str, path: &Path, args: &[&str]) -> Result<(), DiskError> {
    let output = Command::new("qemu-img")
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(DiskError::NoQemuImg)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DiskError::QemuImg { what, path: path.to_owned(), said })
}

/// Makes a file, or makes it longer. It never shrinks.
fn lengthen(path: &Path, bytes: u64) -> Result<(), DiskError> {
    let fail = |source| failed("make", path, source);
    let file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.len() < bytes {
        file.set_len(bytes).map_err(fail)?;
        file.sync_all().map_err(fail)?;
    }
    Ok(())
}

pub(crate) fn format(format: LayerFormat) -> Format {
    match format {
        LayerFormat::Raw => Format::Raw,
        LayerFormat::Qcow2 => Format::Qcow2,
    }
}
