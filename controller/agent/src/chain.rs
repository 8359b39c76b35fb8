//! What a disk on this host is made of: frozen layers, oldest first, and the one file that its guest writes. Pure.
//!
//! ```text
//!   image (system only) <── layer <── layer <── active
//! ```
//!
//! A capture makes the active file a layer and puts a fresh qcow2 file over it. A disk that was never captured is the
//! chain of none: `system.qcow2`, or `NAME.raw`.

use crate::store::StoreError;
use controller_api::life::{DiskName, Layer, LayerFormat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use types::{InstanceId, VolumeName};
use uuid::Uuid;

/// A disk on this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum DiskId {
    /// The system disk of an incarnation.
    System(Uuid),
    /// A volume; it outlives incarnations.
    Volume(InstanceId, VolumeName),
}

impl DiskId {
    /// The disk of an incarnation by its name.
    pub(crate) fn of(name: &DiskName, instance: &InstanceId, incarnation: Uuid) -> Self {
        match name {
            DiskName::System => Self::System(incarnation),
            DiskName::Volume(volume) => Self::Volume(instance.clone(), volume.clone()),
        }
    }
}

/// Chains by disk.
pub(crate) type Chains = BTreeMap<DiskId, Chain>;

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chain {
    /// Of a volume: which disk of this name it is. Empty, or a UUID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) incarnation: String,
    /// Oldest first.
    #[serde(default)]
    pub(crate) layers: Vec<Layer>,
    /// Name of the active file in the disk's folder.
    pub(crate) active: String,
    /// Of the active file.
    pub(crate) format: LayerFormat,
    /// What the guest sees, in bytes.
    pub(crate) disk_bytes: u64,
}

impl Chain {
    /// The chain after its active file was frozen as `layer` and the guest goes on in `active`.
    pub(crate) fn frozen(&self, layer: Layer, active: String) -> Self {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Self { layers, active, format: LayerFormat::Qcow2, ..self.clone() }
    }
}

/// Name of the format in files' names and for qemu-img.
pub(crate) fn format_name(format: LayerFormat) -> &'static str {
    match format {
        LayerFormat::Raw => "raw",
        LayerFormat::Qcow2 => "qcow2",
    }
}

/// A layer by what froze it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LayerId {
    pub(crate) checkpoint: Uuid,
    pub(crate) instance: InstanceId,
    pub(crate) disk: DiskName,
}

impl LayerId {
    /// None if its checkpoint is no UUID: it must never become part of a path.
    pub(crate) fn of(layer: &Layer) -> Option<Self> {
        let checkpoint = layer.checkpoint.parse().ok()?;
        Some(Self { checkpoint, instance: layer.instance.clone(), disk: layer.disk.clone() })
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} in checkpoint {}", self.disk, self.instance, self.checkpoint)
    }
}

/// One instance's part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CaptureId {
    pub(crate) checkpoint: Uuid,
    pub(crate) instance: InstanceId,
}

impl fmt::Display for CaptureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "capture {} of {}", self.checkpoint, self.instance)
    }
}

/// Name of the file that a disk's guest writes after a capture.
pub(crate) fn active_after(disk: &DiskName, checkpoint: Uuid) -> String {
    match disk {
        DiskName::System => format!("system.{checkpoint}.qcow2"),
        DiskName::Volume(name) => format!("{name}.{checkpoint}.qcow2"),
    }
}

/// Name of a layer's file in its capture's folder.
pub(crate) fn layer_file(disk: &DiskName, format: LayerFormat) -> String {
    let format = format_name(format);
    match disk {
        DiskName::System => format!("system.{format}"),
        DiskName::Volume(name) => format!("volume.{name}.{format}"),
    }
}

/// What a layer's file is called; none of a file that is no layer's.
pub(crate) fn parse_layer_file(name: &str) -> Option<(DiskName, LayerFormat)> {
    let (stem, format) = match name.rsplit_once('.')? {
        (stem, "raw") => (stem, LayerFormat::Raw),
        (stem, "qcow2") => (stem, LayerFormat::Qcow2),
        _ => return None,
    };
    match stem.strip_prefix("volume.") {
        Some(volume) => Some((DiskName::Volume(VolumeName::new(volume).ok()?), format)),
        None => (stem == "system").then_some((DiskName::System, format)),
    }
}

/// The size of the disk in a qcow2 file's header, in bytes. None if it is not the header of one.
pub(crate) fn qcow2_disk_bytes(header: &[u8]) -> Option<u64> {
    let header = header.strip_prefix(b"QFI\xfb")?;
    Some(u64::from_be_bytes(*header.get(20..28)?.first_chunk()?))
}

/// How far a capture's record is. What is said in it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub(crate) enum Stage {
    /// Its ports pass nothing, and have not since.
    Held,
    /// It is being taken: each of these files becomes a layer if libvirt did it.
    Intended {
        freezes: Vec<Freeze>,
        /// Its guest ran when it began.
        running: bool,
    },
    /// It is taken.
    Taken,
    /// It was not and will not be.
    Failed { reason: String },
}

/// One disk of a capture that is being taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Freeze {
    pub(crate) disk: DiskName,
    /// The chain that it has before.
    pub(crate) chain: Chain,
    /// Name of the active file it gets.
    pub(crate) to: String,
}

/// What is remembered of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capture {
    pub(crate) incarnation: Uuid,
    pub(crate) with_memory: bool,
    #[serde(flatten)]
    pub(crate) stage: Stage,
    /// Milliseconds since 1970 UTC; 0 before it is taken.
    pub(crate) taken_ms: u64,
    pub(crate) pause_us: u64,
    pub(crate) disks: Vec<controller_api::life::CapturedDisk>,
    /// Bytes of its memory's file, if it was saved.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) new_bytes: u64,
}

impl Capture {
    pub(crate) fn new(incarnation: Uuid, with_memory: bool, stage: Stage) -> Self {
        Self {
            incarnation,
            with_memory,
            stage,
            taken_ms: 0,
            pause_us: 0,
            disks: Vec::new(),
            memory_bytes: None,
            new_bytes: 0,
        }
    }

    /// Layers that it keeps on disk: of one under way, those that it makes.
    pub(crate) fn keeps<'a>(&'a self, id: &'a CaptureId) -> Box<dyn Iterator<Item = LayerId> + 'a> {
        match &self.stage {
            Stage::Intended { freezes, .. } => Box::new(freezes.iter().map(|freeze| LayerId {
                checkpoint: id.checkpoint,
                instance: id.instance.clone(),
                disk: freeze.disk.clone(),
            })),
            Stage::Taken => Box::new(self.disks.iter().flat_map(|disk| &disk.layers).filter_map(LayerId::of)),
            Stage::Held | Stage::Failed { .. } => Box::new(std::iter::empty()),
        }
    }
}

/// A frozen file as an image: what the streamer made of it, and whether the controller has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileImage {
    /// The streamer's answer, until the controller has it.
    pub(crate) draft: Option<streamer_api::Published>,
    /// The controller has it under this digest.
    pub(crate) digest: Option<types::Digest>,
}

/// Frozen files of this host that can be images.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FileId {
    Layer(LayerId),
    Memory(CaptureId),
}

/// Why a disk cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the layer {0} is neither on this host nor an image that could be fetched: restore it on the host that has it"
    )]
    Absent(String),
    #[error("its disk {0} is not made")]
    NotMade(DiskName),
    #[error("{0:?} is no UUID: a checkpoint and a volume's incarnation are named by one")]
    Name(String),
    #[error("qemu-img cannot {what} {}: {said}", path.display())]
    QemuImg { what: &'static str, path: std::path::PathBuf, said: String },
    #[error("cannot run qemu-img: apt-get install qemu-utils")]
    NoQemuImg(#[source] std::io::Error),
    #[error("cannot {what} {}", path.display())]
    File {
        what: &'static str,
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::VolumeName;

    #[test]
    fn names_of_layers_are_read_back_and_others_are_no_layers() {
        for disk in [DiskName::System, DiskName::Volume(VolumeName::new("home").unwrap())] {
            for format in [LayerFormat::Raw, LayerFormat::Qcow2] {
                assert_eq!(parse_layer_file(&layer_file(&disk, format)), Some((disk.clone(), format)));
            }
        }
        for other in ["memory.save", "capture.json", "system.qcow2.image.json", "volume..raw", "volume.A.raw"]
        {
            assert_eq!(parse_layer_file(other), None, "{other}");
        }
    }

    #[test]
    fn a_layer_whose_checkpoint_could_leave_its_folder_is_none() {
        let layer = Layer {
            checkpoint: "../../etc".to_owned(),
            instance: "office/a".parse().unwrap(),
            disk: DiskName::System,
            format: LayerFormat::Qcow2,
            file_bytes: 0,
            disk_bytes: 0,
            image: None,
        };
        assert_eq!(LayerId::of(&layer), None);
    }

    #[test]
    fn the_size_of_a_disk_is_read_from_its_header_only() {
        let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
        header.extend([0; 16]);
        header.extend((1_u64 << 20).to_be_bytes());
        assert_eq!(qcow2_disk_bytes(&header), Some(1 << 20));
        assert_eq!(qcow2_disk_bytes(&header[..31]), None);
        assert_eq!(qcow2_disk_bytes(b"raw bytes that are long enough for one"), None);
    }
}
