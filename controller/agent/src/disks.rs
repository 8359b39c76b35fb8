//! What the agent remembers of disks: chains, captures and the images made of frozen files; and where those files are.
//!
//! ```text
//!   instances/INCARNATION/system.json                     chain of a system disk, beside its active file
//!   volumes/DEPLOYMENT/MEMBER/NAME.json                   chain of a volume, beside its active file
//!   layers/CHECKPOINT/DEPLOYMENT/MEMBER/                  one capture:
//!       capture.json  system.qcow2  volume.NAME.raw  memory.save  and FILE.image.json of what became an image
//! ```
//!
//! A layer's file is a hard link to what was the active file: freezing moves and copies nothing, and a guest that has
//! it open under its old name is not disturbed. The old names go when the guest is next started, or with it.

use crate::chain::{
    Capture, CaptureId, Chain, Chains, DiskError, DiskId, FileId, FileImage, LayerId, layer_file,
    parse_layer_file, qcow2_disk_bytes,
};
use crate::layout::Layout;
use crate::store::{StoreError, names, read_json, write_json};
use controller_api::life::{DiskName, LayerFormat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use types::{InstanceId, VolumeName};
use uuid::Uuid;

/// Images are cut at sectors.
const SECTOR_BYTES: u64 = 512;

/// What is remembered of disks.
#[derive(Debug)]
pub(crate) struct Disks {
    layout: Layout,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    chains: Chains,
    captures: BTreeMap<CaptureId, Capture>,
    images: BTreeMap<FileId, FileImage>,
}

impl Disks {
    /// Reads everything. A disk without a record is one that was never captured.
    pub(crate) fn open(layout: Layout) -> Result<Self, StoreError> {
        let mut held = Held::default();
        for name in names(&layout.instances())? {
            let Ok(incarnation) = name.parse::<Uuid>() else { continue };
            let disk = DiskId::System(incarnation);
            if let Some(chain) =
                read_json(&layout.chain(&disk))?.or_else(|| bare_system(&layout, incarnation))
            {
                held.chains.insert(disk, chain);
            }
        }
        for instance in instances(&layout.volumes())? {
            let folder = layout.volumes_of(&instance);
            for file in names(&folder)? {
                let name = file.strip_suffix(".json").or_else(|| file.strip_suffix(".raw"));
                let Some(Ok(name)) = name.map(VolumeName::new) else { continue };
                let bare = bare_volume(&layout, &instance, &name);
                let disk = DiskId::Volume(instance.clone(), name);
                if let Some(chain) = read_json(&layout.chain(&disk))?.or(bare) {
                    held.chains.insert(disk, chain);
                }
            }
        }
        for id in captures(&layout)? {
            if let Some(capture) = read_json(&layout.capture_record(&id))? {
                held.captures.insert(id.clone(), capture);
            }
        }
        for id in files(&layout)? {
            // What cannot be read is made again.
            let image: Result<Option<FileImage>, _> = read_json(&image_record(&layout.frozen(&id)));
            if let Ok(Some(image)) = image {
                held.images.insert(id, image);
            }
        }
        Ok(Self { layout, held: Mutex::new(held) })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn chains(&self) -> Chains {
        self.held().chains.clone()
    }

    pub(crate) fn chain(&self, disk: &DiskId) -> Option<Chain> {
        self.held().chains.get(disk).cloned()
    }

    pub(crate) fn captures(&self) -> BTreeMap<CaptureId, Capture> {
        self.held().captures.clone()
    }

    pub(crate) fn capture(&self, id: &CaptureId) -> Option<Capture> {
        self.held().captures.get(id).cloned()
    }

    pub(crate) fn images(&self) -> BTreeMap<FileId, FileImage> {
        self.held().images.clone()
    }

    /// Keeps a chain: on disk, then in memory. Its active file is there by now.
    pub(crate) fn keep_chain(&self, disk: &DiskId, chain: Chain) -> Result<(), StoreError> {
        write_json(&self.layout.chain(disk), &chain)?;
        self.held().chains.insert(disk.clone(), chain);
        Ok(())
    }

    /// Forgets a system disk whose folder is gone.
    pub(crate) fn forget_system(&self, incarnation: Uuid) {
        self.held().chains.remove(&DiskId::System(incarnation));
    }

    pub(crate) fn keep_capture(&self, id: &CaptureId, capture: Capture) -> Result<(), StoreError> {
        make_folder(&self.layout.capture(id))?;
        write_json(&self.layout.capture_record(id), &capture)?;
        self.held().captures.insert(id.clone(), capture);
        Ok(())
    }

    /// As [`Self::keep_capture`], in memory even if the disk does not take it: a full disk must not hide a failure.
    pub(crate) fn note_capture(&self, id: &CaptureId, capture: Capture) {
        if let Err(error) = self.keep_capture(id, capture.clone()) {
            let error = chassis::telemetry::chain(&error).to_string();
            tracing::warn!(error, %id, "a note is kept in memory only");
            self.held().captures.insert(id.clone(), capture);
        }
    }

    pub(crate) fn keep_image(&self, id: &FileId, image: FileImage) -> Result<(), StoreError> {
        write_json(&image_record(&self.layout.frozen(id)), &image)?;
        self.held().images.insert(id.clone(), image);
        Ok(())
    }

    /// Removes a frozen file with what is known of its image.
    pub(crate) fn remove_file(&self, id: &FileId) -> Result<(), StoreError> {
        let path = self.layout.frozen(id);
        // The file goes first: a record without a file is removed with the next attempt.
        remove(&path)?;
        remove(&image_record(&path))?;
        self.held().images.remove(id);
        let (FileId::Layer(LayerId { checkpoint, instance, .. })
        | FileId::Memory(CaptureId { checkpoint, instance })) = id;
        self.layout.prune(&CaptureId { checkpoint: *checkpoint, instance: instance.clone() });
        Ok(())
    }

    /// Forgets a capture; its layers stay.
    pub(crate) fn forget_capture(&self, id: &CaptureId) -> Result<(), StoreError> {
        remove(&self.layout.capture_record(id))?;
        self.held().captures.remove(id);
        self.layout.prune(id);
        Ok(())
    }

    /// Frozen files that are on this host.
    pub(crate) fn files(&self) -> Result<BTreeSet<FileId>, StoreError> {
        files(&self.layout)
    }

    /// What each volume has: bytes that its guest sees, and which disk of its name it is.
    pub(crate) fn volumes(&self) -> BTreeMap<(InstanceId, VolumeName), (u64, String)> {
        let held = self.held();
        let volumes = held.chains.iter().filter_map(|(disk, chain)| {
            let DiskId::Volume(instance, name) = disk else { return None };
            let bytes = match chain.format {
                LayerFormat::Raw => {
                    fs::metadata(self.layout.active(disk, chain)).map_or(0, |meta| meta.len())
                }
                LayerFormat::Qcow2 => chain.disk_bytes,
            };
            Some(((instance.clone(), name.clone()), (bytes, chain.incarnation.clone())))
        });
        volumes.collect()
    }

    /// Removes a volume's files, and its record after them; layers stay.
    pub(crate) fn delete_volume(&self, instance: &InstanceId, name: &VolumeName) -> Result<(), StoreError> {
        let disk = DiskId::Volume(instance.clone(), name.clone());
        self.tidy(&disk, None)?;
        remove(&self.layout.chain(&disk))?;
        self.held().chains.remove(&disk);
        // Folders that are empty now; those that are not stay.
        for folder in self.layout.volumes_of(instance).ancestors().take(2) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Removes a disk's files under names that are not its active file's: what a capture or a half-made disk left. Its
    /// guest does not run.
    pub(crate) fn tidy(&self, disk: &DiskId, active: Option<&str>) -> Result<(), StoreError> {
        let chain = self.layout.chain(disk);
        let (Some(folder), Some(stem)) = (chain.parent(), chain.file_stem().and_then(|s| s.to_str())) else {
            return Ok(());
        };
        let record = chain.file_name().and_then(|name| name.to_str());
        let ours = format!("{stem}.");
        for file in names(folder)? {
            if file.starts_with(&ours) && Some(file.as_str()) != active && Some(file.as_str()) != record {
                remove(&folder.join(file))?;
            }
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layout {
    pub(crate) fn chain(&self, disk: &DiskId) -> PathBuf {
        match disk {
            DiskId::System(incarnation) => self.instance(*incarnation).join("system.json"),
            DiskId::Volume(instance, name) => self.volumes_of(instance).join(format!("{name}.json")),
        }
    }
    /// Where a disk's active file of this name is.
    pub(crate) fn active_file(&self, disk: &DiskId, name: &str) -> PathBuf {
        self.chain(disk).with_file_name(name)
    }
    pub(crate) fn active(&self, disk: &DiskId, chain: &Chain) -> PathBuf {
        self.active_file(disk, &chain.active)
    }
    pub(crate) fn volumes_of(&self, instance: &InstanceId) -> PathBuf {
        self.volumes().join(instance.deployment.as_str()).join(instance.member.as_str())
    }
    pub(crate) fn layers(&self) -> PathBuf {
        self.state().join("layers")
    }
    pub(crate) fn capture(&self, id: &CaptureId) -> PathBuf {
        let of = self.layers().join(id.checkpoint.to_string());
        of.join(id.instance.deployment.as_str()).join(id.instance.member.as_str())
    }
    pub(crate) fn capture_record(&self, id: &CaptureId) -> PathBuf {
        self.capture(id).join("capture.json")
    }
    pub(crate) fn memory(&self, id: &CaptureId) -> PathBuf {
        self.capture(id).join("memory.save")
    }
    /// Where a layer's file of this format is.
    pub(crate) fn layer(&self, id: &LayerId, format: LayerFormat) -> PathBuf {
        let capture = CaptureId { checkpoint: id.checkpoint, instance: id.instance.clone() };
        self.capture(&capture).join(layer_file(&id.disk, format))
    }
    /// Where a frozen file is; a layer's format is found out.
    pub(crate) fn frozen(&self, id: &FileId) -> PathBuf {
        match id {
            FileId::Memory(capture) => self.memory(capture),
            FileId::Layer(layer) => {
                let raw = self.layer(layer, LayerFormat::Raw);
                if raw.exists() { raw } else { self.layer(layer, LayerFormat::Qcow2) }
            }
        }
    }
    /// The memory that an incarnation goes on from, fetched from elsewhere.
    pub(crate) fn fetched_memory(&self, incarnation: Uuid) -> PathBuf {
        self.instance(incarnation).join("memory.save")
    }
    /// Removes a capture's folders as far as they are empty.
    fn prune(&self, id: &CaptureId) {
        for folder in self.capture(id).ancestors().take(3) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// Makes a file that nobody writes any more a layer, under a second name, and tells its bytes and those that it takes on
/// the disk. Done already is fine.
pub(crate) fn freeze(active: &Path, layer: &Path) -> Result<(u64, u64), DiskError> {
    if let Some(folder) = layer.parent() {
        make_folder(folder)?;
    }
    if !layer.exists() {
        fs::hard_link(active, layer).map_err(|source| failed("freeze", active, source))?;
    }
    settle_file(layer)
}

/// Makes a frozen file's length one that an image can have, and sees that it is on the disk. Tells its bytes and those
/// that it takes there.
pub(crate) fn settle_file(path: &Path) -> Result<(u64, u64), DiskError> {
    let look = |source| failed("settle", path, source);
    let file = fs::OpenOptions::new().write(true).open(path).map_err(look)?;
    let bytes = file.metadata().map_err(look)?.len();
    let padded = bytes.next_multiple_of(SECTOR_BYTES);
    if padded != bytes {
        file.set_len(padded).map_err(look)?;
    }
    file.sync_all().map_err(look)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(look)?;
    }
    let taken = file.metadata().map_err(look)?.blocks() * 512;
    Ok((padded, taken.min(padded)))
}

/// The disk's size in a qcow2 file's header; none if it is none.
pub(crate) fn qcow2_size(path: &Path) -> Option<u64> {
    let mut header = [0; 32];
    fs::File::open(path).ok()?.read_exact(&mut header).ok()?;
    qcow2_disk_bytes(&header)
}

pub(crate) fn failed(what: &'static str, path: &Path, source: std::io::Error) -> DiskError {
    DiskError::File { what, path: path.to_owned(), source }
}

pub(crate) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(folder).map_err(|source| StoreError::File {
        what: "make",
        path: folder.to_owned(),
        source,
    })
}

pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match chassis::durable::remove(path) {
        // Its folder is gone, too.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::File { what: "remove", path: path.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

fn image_record(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".image.json");
    file.with_file_name(name)
}

/// The chain of a system disk that has no record.
fn bare_system(layout: &Layout, incarnation: Uuid) -> Option<Chain> {
    let path = layout.overlay(incarnation);
    let disk_bytes = qcow2_size(&path)?;
    Some(Chain {
        incarnation: String::new(),
        layers: Vec::new(),
        active: "system.qcow2".to_owned(),
        format: LayerFormat::Qcow2,
        disk_bytes,
    })
}

/// The chain of a volume that has no record.
fn bare_volume(layout: &Layout, instance: &InstanceId, name: &VolumeName) -> Option<Chain> {
    let disk_bytes = fs::metadata(layout.volume(instance, name)).ok()?.len();
    Some(Chain {
        incarnation: String::new(),
        layers: Vec::new(),
        active: format!("{name}.raw"),
        format: LayerFormat::Raw,
        disk_bytes,
    })
}

/// Instances that have a folder `root/DEPLOYMENT/MEMBER`.
fn instances(root: &Path) -> Result<Vec<InstanceId>, StoreError> {
    let mut all = Vec::new();
    for deployment in names(root)? {
        for member in names(&root.join(&deployment))? {
            all.extend(format!("{deployment}/{member}").parse::<InstanceId>().ok());
        }
    }
    Ok(all)
}

/// Captures that have a folder.
fn captures(layout: &Layout) -> Result<Vec<CaptureId>, StoreError> {
    let mut all = Vec::new();
    for name in names(&layout.layers())? {
        let Ok(checkpoint) = name.parse::<Uuid>() else { continue };
        let found = instances(&layout.layers().join(&name))?;
        all.extend(found.into_iter().map(|instance| CaptureId { checkpoint, instance }));
    }
    Ok(all)
}

fn files(layout: &Layout) -> Result<BTreeSet<FileId>, StoreError> {
    let mut found = BTreeSet::new();
    for id in captures(layout)? {
        for name in names(&layout.capture(&id))? {
            if name == "memory.save" {
                found.insert(FileId::Memory(id.clone()));
            } else if let Some((disk, _)) = parse_layer_file(&name) {
                let CaptureId { checkpoint, instance } = id.clone();
                found.insert(FileId::Layer(LayerId { checkpoint, instance, disk }));
            }
        }
    }
    Ok(found)
}

/// Name of the first active file of a volume.
pub(crate) fn first_active(disk: &DiskName, incarnation: &str, format: LayerFormat) -> String {
    let format = crate::chain::format_name(format);
    match (disk, incarnation) {
        (DiskName::System, _) => format!("system.{format}"),
        (DiskName::Volume(name), "") => format!("{name}.{format}"),
        (DiskName::Volume(name), incarnation) => format!("{name}.{incarnation}.{format}"),
    }
}

#[cfg(test)]
mod tests;
