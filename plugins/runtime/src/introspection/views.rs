//! What the embedder shows of one guest, whatever it runs on.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Read-only views of one guest, given by whoever runs it. Nothing in here is limited: grants and quotas are kept
/// around it, by this crate. Calls block; none may wait for the guest.
pub trait GuestViews: Send + Sync + std::fmt::Debug {
    /// RAM by guest-physical address: ascending, not touching each other, not empty.
    ///
    /// # Errors
    /// [`ViewError::Unavailable`]: the guest is gone.
    fn regions(&self) -> Result<Vec<Region>, ViewError>;

    /// Fills `into` from guest-physical `address`; all of it lies in one of the regions.
    ///
    /// # Errors
    /// [`ViewError::Unavailable`]: the guest is gone. Nothing is known of `into` then.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), ViewError>;

    /// How many levels the page tables of the first vCPU have now.
    ///
    /// # Errors
    /// [`ViewError::Unavailable`]: the guest is gone, or does not use page tables of 4 or 5 levels.
    fn paging(&self) -> Result<Paging, ViewError>;

    /// Registers of one vCPU, by names in lower case.
    ///
    /// # Errors
    /// [`ViewError::OutOfRange`]: there is no such vCPU.
    fn registers(&self, vcpu: u32) -> Result<BTreeMap<String, u64>, ViewError>;

    /// Who the guest speaks with, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ViewError::Unavailable`]: nobody counts now.
    fn flows(&self, limit: usize) -> Result<Vec<Flow>, ViewError>;

    /// Its disks.
    ///
    /// # Errors
    /// [`ViewError::Unavailable`]: they cannot be opened now.
    fn disks(&self) -> Result<Vec<Disk>, ViewError>;

    /// Fills `into` from a disk, as the guest sees it; all of it lies in the disk.
    ///
    /// # Errors
    /// [`ViewError::Unavailable`]: it cannot be read now.
    fn read_disk(&self, disk: u32, offset: u64, into: &mut [u8]) -> Result<(), ViewError>;
}

/// Why a view shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// Not granted, or the quota is used up.
    #[error("denied: {0}")]
    Denied(String),
    /// There is no such address, disk, vCPU or register.
    #[error("out of range")]
    OutOfRange,
    /// The address is valid and nothing is mapped there.
    #[error("nothing is mapped there")]
    NotMapped,
    /// More than the documented maximum was asked for.
    #[error("too large")]
    TooLarge,
    /// It cannot be had now.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// RAM at a guest-physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Where it begins.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Levels of page tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging {
    /// 48-bit addresses.
    FourLevels,
    /// 57-bit addresses.
    FiveLevels,
}

/// Frames between two ends, since they were first seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Milliseconds since 1970.
    pub first_seen_ms: u64,
    /// Milliseconds since 1970.
    pub last_seen_ms: u64,
    /// Port of the bundle.
    pub port: String,
    /// IANA number.
    pub protocol: u8,
    /// 4 or 16 bytes, network order.
    pub source: Vec<u8>,
    /// 4 or 16 bytes, network order.
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

/// One disk of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// `system`, or a volume's name.
    pub name: String,
    /// Bytes.
    pub size: u64,
}
