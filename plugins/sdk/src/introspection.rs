//! Watching one guest from outside: its facts, read-only views of it, and what was found.

use crate::{Context, Plugin, PolicyError, Reason};
use std::fmt;

/// Bytes that one read gives at most.
pub const READ_LEN_MAX: u32 = 1 << 20;

/// An introspection policy. The functions are pure but for what they read of the guest.
pub trait IntrospectionPolicy: Plugin {
    /// Looks at the guest. `state` is what the call before gave back, empty at the first.
    ///
    /// # Errors
    /// The policy has no decision.
    fn inspect(
        settings: &Self::Settings,
        trigger: &Trigger,
        state: &[u8],
        guest: &impl Guest,
        context: &impl Context,
    ) -> Result<Report, PolicyError>;
}

/// One guest. Limits and units as in `guest-*` of the WIT package; a view that was not granted is
/// [`ViewError::Denied`]. The guest runs unless its facts say that it stands still: two reads may differ.
pub trait Guest {
    /// What is known without looking inside.
    fn about(&self) -> GuestFacts;
    /// RAM by guest-physical address, ascending: start and bytes.
    ///
    /// # Errors
    /// [`ViewError`], as of all that follow.
    fn regions(&self) -> Result<Vec<(u64, u64)>, ViewError>;
    /// Guest-physical bytes.
    ///
    /// # Errors
    /// [`ViewError`].
    fn read(&self, address: u64, len: u32) -> Result<Vec<u8>, ViewError>;
    /// Bytes at a virtual address under a page-table root.
    ///
    /// # Errors
    /// [`ViewError`].
    fn read_virtual(&self, root: u64, address: u64, len: u32) -> Result<Vec<u8>, ViewError>;
    /// Guest-physical address of a virtual one.
    ///
    /// # Errors
    /// [`ViewError`].
    fn translate(&self, root: u64, address: u64) -> Result<u64, ViewError>;
    /// Where a pattern of 4 ..= 256 bytes begins; `mask` is empty or as long.
    ///
    /// # Errors
    /// [`ViewError`].
    fn search(
        &self,
        start: u64,
        len: u64,
        pattern: &[u8],
        mask: &[u8],
        limit: u32,
    ) -> Result<Vec<u64>, ViewError>;
    /// XXH3-64 of each 4 KiB page from `start`; 0 where there is no RAM.
    ///
    /// # Errors
    /// [`ViewError`].
    fn hash_pages(&self, start: u64, pages: u32) -> Result<Vec<u64>, ViewError>;
    /// Registers of a vCPU by architectural names in lower case.
    ///
    /// # Errors
    /// [`ViewError`].
    fn registers(&self, vcpu: u32, names: &[&str]) -> Result<Vec<u64>, ViewError>;
    /// Who the guest speaks with, newest first.
    ///
    /// # Errors
    /// [`ViewError`].
    fn flows(&self, limit: u32) -> Result<Vec<Flow>, ViewError>;
    /// Its disks: name and bytes.
    ///
    /// # Errors
    /// [`ViewError`].
    fn disks(&self) -> Result<Vec<(String, u64)>, ViewError>;
    /// Bytes of a disk as the guest sees it; offset and length are multiples of 512.
    ///
    /// # Errors
    /// [`ViewError`].
    fn read_disk(&self, disk: u32, offset: u64, len: u32) -> Result<Vec<u8>, ViewError>;
}

/// Why a view shows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewError {
    /// Not granted, or the call's quota is used up.
    Denied(String),
    /// There is no such address, disk, vCPU or register.
    OutOfRange,
    /// The address is valid and nothing is mapped there.
    NotMapped,
    /// More than the documented maximum was asked for.
    TooLarge,
    /// It cannot be had now; a retry may work.
    Unavailable(String),
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "denied: {why}"),
            Self::OutOfRange => f.write_str("out of range"),
            Self::NotMapped => f.write_str("nothing is mapped there"),
            Self::TooLarge => f.write_str("more than the maximum was asked for"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
        }
    }
}

impl std::error::Error for ViewError {}

/// Why the policy is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trigger {
    /// 0 its time has come, 1 a person asks, 2 the guest started, 3 before a checkpoint.
    pub kind: u8,
    /// Extension point: key and value.
    pub attributes: Vec<(String, String)>,
}

/// What is known of a guest without looking inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestFacts {
    /// `deployment/member`.
    pub instance: String,
    /// `publisher/appliance`.
    pub appliance: String,
    /// Version of the appliance.
    pub version: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Start of its present run.
    pub started_ms: u64,
    /// It stands still during the call.
    pub paused: bool,
    /// What its maker and operators say of it: key and value.
    pub attributes: Vec<(String, String)>,
}

/// Frames between two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Milliseconds since 1970.
    pub first_seen_ms: u64,
    /// Milliseconds since 1970.
    pub last_seen_ms: u64,
    /// Port of the bundle.
    pub port: String,
    /// IANA number.
    pub protocol: u8,
    /// 4 or 16 bytes.
    pub source: Vec<u8>,
    /// 4 or 16 bytes.
    pub destination: Vec<u8>,
    /// 0 where the protocol has none.
    pub source_port: u16,
    /// 0 where the protocol has none.
    pub destination_port: u16,
    /// How many.
    pub frames: u64,
    /// How much.
    pub bytes: u64,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// At most 256.
    pub findings: Vec<Finding>,
    /// What was looked at, at most 32.
    pub reasons: Vec<Reason>,
    /// Ask again after this time, 100 ..= 86,400,000.
    pub next_call_ms: u64,
    /// For the next call, at most 1 MiB.
    pub state: Vec<u8>,
}

/// Something that should not be so.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Finding {
    /// Stable identifier, at most 128 bytes.
    pub rule: String,
    /// 0 info, 1 low, 2 medium, 3 high, 4 critical.
    pub severity: u8,
    /// 0.0 ..= 1.0.
    pub confidence: f32,
    /// One sentence, at most 1 KiB.
    pub title: String,
    /// Equal: the same finding seen again; empty = the rule and the title.
    pub fingerprint: String,
    /// At most 32.
    pub evidence: Vec<Evidence>,
    /// `alert`, `checkpoint`, `isolate`, `pause`, `stop`; at most 8.
    pub proposals: Vec<String>,
}

/// What was seen, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// `memory`, `disk`, `flow`, `register`, `note` or `vendor/kind`.
    pub kind: String,
    /// Guest address or offset.
    pub address: Option<u64>,
    /// At most 1 KiB.
    pub text: String,
    /// At most 4 KiB.
    pub bytes: Vec<u8>,
}
