//! What a host is told, and says, of the life of its instances beyond running them: power, layers, captures, moves and
//! leases. Travels within [`crate::agent::HostDesired`] and [`crate::agent::HostStatus`].
//!
//! A *capture* is one instance's part of a checkpoint. It freezes what the instance's disks hold into *layers*, which
//! never change again, and lets the guest go on upon fresh files over them; if asked, it also saves the guest's memory
//! of the same instant. Parts of one checkpoint are consistent with each other because nothing passes between their
//! guests from before the first is taken until after the last: their ports are held meanwhile (a consistent cut, Chandy
//! and Lamport, ACM TOCS 1985, with empty channels).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use types::{Digest, HostName, InstanceId, NameError, VolumeName};
use utoipa::ToSchema;

/// Whether a guest runs. Its disks stay in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// It runs, and is started again when it ends.
    #[default]
    On,
    /// It does not run.
    Off,
}

impl Power {
    /// It is the one that needs no word.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self == Self::On
    }
}

/// A disk of an instance: `system`, or `volume/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskName {
    /// The overlay over the version's image.
    System,
    /// A user's own.
    Volume(VolumeName),
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Volume(name) => write!(f, "volume/{name}"),
        }
    }
}

impl FromStr for DiskName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("volume/") {
            Some(name) => VolumeName::new(name).map(Self::Volume),
            None if text == "system" => Ok(Self::System),
            // A volume's name cannot be empty: this says what is wrong with it.
            None => VolumeName::new("").map(Self::Volume),
        }
    }
}

impl Serialize for DiskName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DiskName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A frozen part of a disk: a file that never changes again. It stands on the layer before it, the first one on the
/// version's image (`system`) or on nothing (`volume/NAME`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The checkpoint that froze it: a UUID.
    pub checkpoint: String,
    /// Whose disk it was then.
    pub instance: InstanceId,
    /// Which of its disks.
    #[schema(value_type = String, example = "volume/home")]
    pub disk: DiskName,
    /// How its bytes are laid out.
    pub format: LayerFormat,
    /// Bytes of the file, a multiple of 512.
    pub file_bytes: u64,
    /// Bytes of the disk that the guest sees.
    pub disk_bytes: u64,
    /// The file as an image: how a host that has not got it fetches it. None if it was not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
}

/// How a layer's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerFormat {
    /// As the guest sees them.
    Raw,
    /// QEMU's copy-on-write format, version 3: clusters that it does not hold are those of what it stands on.
    Qcow2,
}

/// A guest's memory and devices at the instant of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedMemory {
    /// The checkpoint it belongs to: a UUID.
    pub checkpoint: String,
    /// Whose it was then.
    pub instance: InstanceId,
    /// Bytes of the file, a multiple of 512.
    pub file_bytes: u64,
    /// The file as an image; none if it was not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
}

/// One instance's part of a checkpoint, as its host shall have it. One that is named no more is dropped: its memory goes,
/// and each of its layers as soon as nothing stands on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredCapture {
    /// The checkpoint: a UUID.
    pub checkpoint: String,
    /// Whose part.
    pub instance: InstanceId,
    /// Of this incarnation; it may be gone by the time that the capture is only kept.
    pub incarnation: String,
    /// With its memory; only of a guest that runs.
    pub with_memory: bool,
    /// How far it shall be.
    pub step: CaptureStep,
    /// Its files shall be images that other hosts can fetch.
    pub publish: bool,
}

/// How far a capture shall be. The agent takes one step when it is told to, and never one back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureStep {
    /// The instance's ports pass nothing.
    Hold,
    /// It is captured, and its ports are held still.
    Take,
    /// It is captured, its ports pass again, and its files stay.
    Keep,
}

/// How a capture is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CaptureStatus {
    /// The checkpoint: a UUID.
    pub checkpoint: String,
    /// Whose part.
    pub instance: InstanceId,
    /// How far it is.
    pub state: CaptureState,
    /// Why it failed, or why its files are not images yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was taken, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub taken_ms: u64,
    /// How long the guest's processors stood, in microseconds.
    #[serde(default)]
    pub pause_us: u64,
    /// Each disk's whole chain at that instant, oldest layer first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<CapturedDisk>,
    /// Its memory, if it was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<SavedMemory>,
    /// Bytes that were written for it: the layers it froze, and its memory.
    #[serde(default)]
    pub new_bytes: u64,
}

/// A disk at the instant of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CapturedDisk {
    /// Which.
    #[schema(value_type = String, example = "volume/home")]
    pub disk: DiskName,
    /// Oldest first; the last one was frozen by this capture.
    pub layers: Vec<Layer>,
}

/// How far a capture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CaptureState {
    /// Its ports are not held yet.
    Waiting,
    /// Its ports pass nothing; nothing is taken.
    Held,
    /// It is taken and on this host's disk.
    Taken,
    /// It is taken, and all its files are images.
    Published,
    /// It was not taken and will not be.
    Failed,
}

/// One end of a live move. Both ends are told the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredMove {
    /// A UUID.
    pub id: String,
    /// What moves.
    pub instance: InstanceId,
    /// Its incarnation.
    pub incarnation: String,
    /// Which end this host is.
    pub end: MoveEnd,
    /// It is called off: the source sends no more, and says whether its guest runs there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
}

/// An end of a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum MoveEnd {
    /// The guest runs here, and goes.
    Source {
        /// To this host...
        to: HostName,
        /// ... whose agent listens for moves here.
        address: SocketAddr,
    },
    /// It comes from another host: its ports are made and held, its images exported.
    Target {
        /// From this host.
        from: HostName,
    },
}

/// How a move is at one end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MoveStatus {
    /// A UUID.
    pub id: String,
    /// What moves.
    pub instance: InstanceId,
    /// How far it is.
    pub state: MoveState,
    /// Why it failed or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes of memory and disks sent so far.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes that there are to send, as known so far.
    #[serde(default)]
    pub total_bytes: u64,
    /// How long the guest's processors stood, in milliseconds, once it is done.
    #[serde(default)]
    pub downtime_ms: u64,
}

/// How far a move is at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MoveState {
    /// What it needs is being made.
    Preparing,
    /// The target waits for it.
    Prepared,
    /// Bytes travel; the guest runs at its source.
    Moving,
    /// The guest runs at its target, and nowhere else.
    Done,
    /// It runs at its source as before.
    Failed,
}
