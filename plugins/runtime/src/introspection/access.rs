//! One call's way to the views: grants, the quota of bytes, and every limit that the contract names.

use super::pages::{self, Place};
use super::search::Pattern;
use super::views::{Disk, Flow, GuestViews, Paging, Region, ViewError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Bytes that one read may have.
const READ_LEN_MAX: u32 = 1 << 20;
const PATTERN_LENS: std::ops::RangeInclusive<usize> = 4..=256;
const MATCHES_MAX: u32 = 10_000;
const FLOWS_MAX: u32 = 10_000;
const REGISTERS_MAX: usize = 256;
const PAGES_MAX: u32 = 65_536;
const PAGE: u64 = 4096;
const SECTOR: u64 = 512;
/// Bytes that are searched or hashed at a time: they stay in the processor's cache, and the deadline is looked at between.
const CHUNK: usize = 128 << 10;

/// What an operator lets a policy see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// The guest's memory.
    Memory,
    /// Registers of its processors.
    Cpu,
    /// Who it speaks with.
    Flows,
    /// Its disks.
    Disk,
}

impl Grant {
    /// The word for it in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Flows => "flows",
            Self::Disk => "disk",
        }
    }
}

/// Views as one call gets them.
#[derive(Debug)]
pub(crate) struct Access {
    views: Arc<dyn GuestViews>,
    grants: BTreeSet<Grant>,
    bytes_max: u64,
    bytes_left: u64,
    /// Asked for once a call.
    regions: Option<Vec<Region>>,
    paging: Option<Paging>,
    disks: Option<Vec<Disk>>,
    /// Tells whether the call's time is used up; native work looks at it, because it cannot be interrupted.
    overdue: Overdue,
    buffer: Vec<u8>,
}

type Seen<T> = Result<T, ViewError>;

struct Overdue(Box<dyn Fn() -> bool + Send>);

impl std::fmt::Debug for Overdue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Overdue")
    }
}

impl Access {
    pub(crate) fn new(
        views: Arc<dyn GuestViews>,
        grants: BTreeSet<Grant>,
        bytes_max: u64,
        overdue: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        Self {
            views,
            grants,
            bytes_max,
            bytes_left: bytes_max,
            regions: None,
            paging: None,
            disks: None,
            overdue: Overdue(Box::new(overdue)),
            buffer: Vec::new(),
        }
    }

    /// Bytes read, searched and hashed so far.
    #[cfg(test)]
    pub(crate) fn bytes_used(&self) -> u64 {
        self.bytes_max - self.bytes_left
    }

    pub(crate) fn regions(&mut self) -> Seen<Vec<Region>> {
        self.granted(Grant::Memory)?;
        self.known_regions().map(<[Region]>::to_vec)
    }

    pub(crate) fn read(&mut self, address: u64, len: u32) -> Seen<Vec<u8>> {
        self.granted(Grant::Memory)?;
        at_most(len, READ_LEN_MAX)?;
        if self.ram_from(address)? < u64::from(len) {
            return Err(ViewError::OutOfRange);
        }
        self.charge(len.into())?;
        let mut bytes = vec![0; len as usize];
        self.views.read(address, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn read_virtual(&mut self, root: u64, address: u64, len: u32) -> Seen<Vec<u8>> {
        self.granted(Grant::Memory)?;
        at_most(len, READ_LEN_MAX)?;
        address.checked_add(len.saturating_sub(1).into()).ok_or(ViewError::OutOfRange)?;
        self.charge(len.into())?;
        let mut bytes = vec![0; len as usize];
        let mut done = 0;
        while done < bytes.len() {
            let place = self.place(root, address + done as u64)?;
            let part = usize::try_from(place.len).unwrap_or(usize::MAX).min(bytes.len() - done);
            if self.ram_from(place.physical)? < part as u64 {
                return Err(ViewError::OutOfRange);
            }
            self.views.read(place.physical, &mut bytes[done..done + part])?;
            done += part;
        }
        Ok(bytes)
    }

    pub(crate) fn translate(&mut self, root: u64, address: u64) -> Seen<u64> {
        self.granted(Grant::Memory)?;
        Ok(self.place(root, address)?.physical)
    }

    pub(crate) fn search(
        &mut self,
        start: u64,
        len: u64,
        pattern: &[u8],
        mask: &[u8],
        limit: u32,
    ) -> Seen<Vec<u64>> {
        self.granted(Grant::Memory)?;
        if pattern.len() > *PATTERN_LENS.end() {
            return Err(ViewError::TooLarge);
        }
        at_most(limit, MATCHES_MAX)?;
        let masked = mask.is_empty() || mask.len() == pattern.len();
        if !PATTERN_LENS.contains(&pattern.len()) || !masked || limit == 0 {
            return Err(ViewError::OutOfRange);
        }
        let end = start.checked_add(len).ok_or(ViewError::OutOfRange)?;
        let pattern = Pattern::new(pattern, mask);
        let regions = self.known_regions()?.to_vec();
        let mut found = Vec::new();
        for region in regions {
            let region_end = region.start + region.len;
            let (from, to) = (region.start.max(start), region_end.min(end));
            if from < to {
                self.search_ram(from, to, region_end, &pattern, limit as usize, &mut found)?;
            }
            if found.len() >= limit as usize {
                break;
            }
        }
        Ok(found)
    }

    /// Where the pattern begins in `from .. to`; it may end anywhere before `ram_end`.
    fn search_ram(
        &mut self,
        from: u64,
        to: u64,
        ram_end: u64,
        pattern: &Pattern,
        limit: usize,
        found: &mut Vec<u64>,
    ) -> Seen<()> {
        let mut at = from;
        while at < to && found.len() < limit {
            let begins = (CHUNK as u64).min(to - at);
            // What begins in this chunk may end in the next.
            let len = (begins + pattern.len() as u64 - 1).min(ram_end - at);
            self.charge(begins)?;
            let chunk = self.fill(at, len)?;
            let starts = pattern.find_in(chunk).take_while(|offset| (*offset as u64) < begins);
            found.extend(starts.take(limit - found.len()).map(|offset| at + offset as u64));
            at += begins;
        }
        Ok(())
    }

    pub(crate) fn hash_pages(&mut self, start: u64, pages: u32) -> Seen<Vec<u64>> {
        self.granted(Grant::Memory)?;
        at_most(pages, PAGES_MAX)?;
        let end = u64::from(pages).checked_mul(PAGE).and_then(|len| start.checked_add(len));
        let end = end.filter(|_| start.is_multiple_of(PAGE)).ok_or(ViewError::OutOfRange)?;
        let mut hashes = Vec::with_capacity(pages as usize);
        let mut at = start;
        while at < end {
            let whole = self.ram_from(at)? / PAGE * PAGE;
            let len = whole.min(end - at).min(CHUNK as u64);
            if len == 0 {
                hashes.push(0);
                at += PAGE;
                continue;
            }
            self.charge(len)?;
            hashes.extend(self.fill(at, len)?.chunks_exact(PAGE as usize).map(XxHash3_64::oneshot));
            at += len;
        }
        Ok(hashes)
    }

    pub(crate) fn registers(&mut self, vcpu: u32, names: &[String]) -> Seen<Vec<u64>> {
        self.granted(Grant::Cpu)?;
        if names.len() > REGISTERS_MAX {
            return Err(ViewError::TooLarge);
        }
        let registers = self.views.registers(vcpu)?;
        names.iter().map(|name| registers.get(name).copied().ok_or(ViewError::OutOfRange)).collect()
    }

    pub(crate) fn flows(&mut self, limit: u32) -> Seen<Vec<Flow>> {
        self.granted(Grant::Flows)?;
        at_most(limit, FLOWS_MAX)?;
        if limit == 0 {
            return Err(ViewError::OutOfRange);
        }
        let mut flows = self.views.flows(limit as usize)?;
        flows.truncate(limit as usize);
        Ok(flows)
    }

    pub(crate) fn disks(&mut self) -> Seen<Vec<Disk>> {
        self.granted(Grant::Disk)?;
        self.known_disks().map(<[Disk]>::to_vec)
    }

    pub(crate) fn read_disk(&mut self, disk: u32, offset: u64, len: u32) -> Seen<Vec<u8>> {
        self.granted(Grant::Disk)?;
        at_most(len, READ_LEN_MAX)?;
        if !offset.is_multiple_of(SECTOR) || !u64::from(len).is_multiple_of(SECTOR) {
            return Err(ViewError::OutOfRange);
        }
        let size = self.known_disks()?.get(disk as usize).ok_or(ViewError::OutOfRange)?.size;
        if offset.checked_add(len.into()).is_none_or(|end| end > size) {
            return Err(ViewError::OutOfRange);
        }
        self.charge(len.into())?;
        let mut bytes = vec![0; len as usize];
        self.views.read_disk(disk, offset, &mut bytes)?;
        Ok(bytes)
    }

    fn granted(&self, grant: Grant) -> Seen<()> {
        if self.grants.contains(&grant) {
            return Ok(());
        }
        Err(ViewError::Denied(format!("{} is not granted", grant.as_str())))
    }

    fn charge(&mut self, len: u64) -> Seen<()> {
        if (self.overdue.0)() {
            return Err(ViewError::Unavailable("the call's time is used up".to_owned()));
        }
        let used_up = || format!("the call's quota of {} bytes is used up", self.bytes_max);
        self.bytes_left = self.bytes_left.checked_sub(len).ok_or_else(|| ViewError::Denied(used_up()))?;
        Ok(())
    }

    fn known_regions(&mut self) -> Seen<&[Region]> {
        let known = match self.regions.take() {
            Some(known) => known,
            None => self.views.regions()?,
        };
        Ok(self.regions.insert(known))
    }

    fn known_disks(&mut self) -> Seen<&[Disk]> {
        let known = match self.disks.take() {
            Some(known) => known,
            None => self.views.disks()?,
        };
        Ok(self.disks.insert(known))
    }

    /// Bytes of RAM from an address on, 0 if it is none.
    fn ram_from(&mut self, address: u64) -> Seen<u64> {
        let regions = self.known_regions()?;
        let next = regions.partition_point(|region| region.start <= address);
        let region = next.checked_sub(1).and_then(|index| regions.get(index));
        Ok(region.map_or(0, |region| (region.start + region.len).saturating_sub(address)))
    }

    fn place(&mut self, root: u64, address: u64) -> Seen<Place> {
        let paging = match self.paging {
            Some(paging) => paging,
            None => *self.paging.insert(self.views.paging()?),
        };
        let views = Arc::clone(&self.views);
        pages::translate(paging, root, address, |at| {
            if self.ram_from(at)? < 8 {
                return Err(ViewError::OutOfRange);
            }
            let mut entry = [0; 8];
            views.read(at, &mut entry)?;
            Ok(u64::from_le_bytes(entry))
        })
    }

    /// The call's buffer with these bytes in it.
    fn fill(&mut self, address: u64, len: u64) -> Seen<&[u8]> {
        let len = usize::try_from(len).map_err(|_| ViewError::TooLarge)?;
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        let place = &mut self.buffer[..len];
        self.views.read(address, place)?;
        Ok(place)
    }
}

fn at_most(asked: u32, most: u32) -> Seen<()> {
    if asked > most { Err(ViewError::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
