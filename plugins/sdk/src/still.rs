//! A guest that stands still, made of parts, for the native tests of introspection policies.

use crate::introspection::{Flow, Guest, GuestFacts, READ_LEN_MAX, ViewError};
use crate::{Context, Level};
use std::cell::RefCell;
use std::collections::BTreeMap;

const PAGE_LEN: u64 = 4096;

/// A guest whose every view is what a test says. What is absent is not there: memory that is not given is out of range,
/// a virtual address that is not mapped is not mapped, a register that is not given does not exist.
#[derive(Debug, Clone, Default)]
pub struct Still {
    /// What the policy is told about it.
    pub facts: GuestFacts,
    /// The instant of the call, milliseconds since 1970.
    pub now_ms: u64,
    /// RAM: guest-physical address and bytes.
    pub memory: BTreeMap<u64, Vec<u8>>,
    /// Virtual pages to guest-physical ones, under every root: addresses of 4 KiB pages.
    pub pages: BTreeMap<u64, u64>,
    /// Registers of each vCPU.
    pub registers: Vec<BTreeMap<String, u64>>,
    /// Flows, newest first.
    pub flows: Vec<Flow>,
    /// Disks: name and bytes.
    pub disks: Vec<(String, Vec<u8>)>,
    /// Every view is denied: nothing was granted.
    pub denied: bool,
    log: RefCell<Vec<(Level, String)>>,
}

impl Still {
    /// What the policy logged.
    #[must_use]
    pub fn log_lines(&self) -> Vec<(Level, String)> {
        self.log.borrow().clone()
    }

    fn granted(&self) -> Result<(), ViewError> {
        if self.denied { Err(ViewError::Denied("not granted".to_owned())) } else { Ok(()) }
    }

    /// From an address to the end of the piece of RAM that holds it.
    fn from(&self, address: u64) -> Result<&[u8], ViewError> {
        let (start, bytes) = self.memory.range(..=address).next_back().ok_or(ViewError::OutOfRange)?;
        let offset = usize::try_from(address - start).map_err(|_| ViewError::OutOfRange)?;
        bytes.get(offset..).filter(|rest| !rest.is_empty()).ok_or(ViewError::OutOfRange)
    }
}

impl Guest for Still {
    fn about(&self) -> GuestFacts {
        self.facts.clone()
    }

    fn regions(&self) -> Result<Vec<(u64, u64)>, ViewError> {
        self.granted()?;
        Ok(self.memory.iter().map(|(start, bytes)| (*start, bytes.len() as u64)).collect())
    }

    fn read(&self, address: u64, len: u32) -> Result<Vec<u8>, ViewError> {
        self.granted()?;
        if len > READ_LEN_MAX {
            return Err(ViewError::TooLarge);
        }
        self.from(address)?.get(..len as usize).map(<[u8]>::to_vec).ok_or(ViewError::OutOfRange)
    }

    fn read_virtual(&self, root: u64, address: u64, len: u32) -> Result<Vec<u8>, ViewError> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < u64::from(len) {
            let at = address + bytes.len() as u64;
            let rest = u64::from(len) - bytes.len() as u64;
            let step = rest.min(PAGE_LEN - at % PAGE_LEN);
            bytes.extend(self.read(self.translate(root, at)?, u32::try_from(step).unwrap_or(u32::MAX))?);
        }
        Ok(bytes)
    }

    fn translate(&self, _root: u64, address: u64) -> Result<u64, ViewError> {
        self.granted()?;
        let offset = address % PAGE_LEN;
        self.pages.get(&(address - offset)).map(|page| page + offset).ok_or(ViewError::NotMapped)
    }

    fn search(
        &self,
        start: u64,
        len: u64,
        pattern: &[u8],
        mask: &[u8],
        limit: u32,
    ) -> Result<Vec<u64>, ViewError> {
        self.granted()?;
        let bits = |index: usize| mask.get(index).copied().unwrap_or(u8::MAX);
        let same = |window: &[u8]| {
            window.iter().zip(pattern).enumerate().all(|(index, (a, b))| (a ^ b) & bits(index) == 0)
        };
        let mut found = Vec::new();
        for (base, bytes) in &self.memory {
            let hits = bytes.windows(pattern.len().max(1)).enumerate().filter(|(_, window)| same(window));
            found.extend(hits.map(|(offset, _)| base + offset as u64));
        }
        found.retain(|address| (start..start.saturating_add(len)).contains(address));
        found.truncate(limit as usize);
        Ok(found)
    }

    /// Equal pages have equal hashes, others others; the values are not those of XXH3.
    fn hash_pages(&self, start: u64, pages: u32) -> Result<Vec<u64>, ViewError> {
        self.granted()?;
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = |page| match self.read(start + page * PAGE_LEN, 4096) {
            Ok(bytes) => bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv),
            Err(_) => 0,
        };
        Ok((0..u64::from(pages)).map(hash).collect())
    }

    fn registers(&self, vcpu: u32, names: &[&str]) -> Result<Vec<u64>, ViewError> {
        self.granted()?;
        let registers = self.registers.get(vcpu as usize).ok_or(ViewError::OutOfRange)?;
        names.iter().map(|name| registers.get(*name).copied().ok_or(ViewError::OutOfRange)).collect()
    }

    fn flows(&self, limit: u32) -> Result<Vec<Flow>, ViewError> {
        self.granted()?;
        Ok(self.flows.iter().take(limit as usize).cloned().collect())
    }

    fn disks(&self) -> Result<Vec<(String, u64)>, ViewError> {
        self.granted()?;
        Ok(self.disks.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }

    fn read_disk(&self, disk: u32, offset: u64, len: u32) -> Result<Vec<u8>, ViewError> {
        self.granted()?;
        let (_, bytes) = self.disks.get(disk as usize).ok_or(ViewError::OutOfRange)?;
        let start = usize::try_from(offset).map_err(|_| ViewError::OutOfRange)?;
        let end = start.checked_add(len as usize).ok_or(ViewError::OutOfRange)?;
        bytes.get(start..end).map(<[u8]>::to_vec).ok_or(ViewError::OutOfRange)
    }
}

impl Context for Still {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }
    fn seed(&self) -> u32 {
        0
    }
    fn symbol_text(&self, _symbol: u32) -> String {
        String::new()
    }
    fn find_symbol(&self, _text: &str) -> u32 {
        0
    }
    fn log(&self, level: Level, message: &str) {
        self.log.borrow_mut().push((level, message.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Still {
        Still {
            memory: [(0x1000, b"hello world".to_vec()), (0x3000, vec![7; 8192])].into(),
            pages: [(0xffff_0000, 0x3000), (0xffff_1000, 0x4000)].into(),
            registers: vec![[("cr3".to_owned(), 5)].into()],
            ..Still::default()
        }
    }

    #[test]
    fn what_was_not_given_is_not_there() {
        let guest = guest();
        assert_eq!(guest.read(0x1000, 5).unwrap(), b"hello");
        assert_eq!(guest.read(0x1006, 6), Err(ViewError::OutOfRange));
        assert_eq!(guest.read(0x0, 1), Err(ViewError::OutOfRange));
        assert_eq!(guest.read_virtual(5, 0xfffe_ffff, 2), Err(ViewError::NotMapped));
        assert_eq!(guest.registers(0, &["cr3", "rip"]), Err(ViewError::OutOfRange));
        assert_eq!(guest.registers(1, &["cr3"]), Err(ViewError::OutOfRange));
    }

    #[test]
    fn virtual_reads_cross_pages_and_searches_heed_the_mask() {
        let guest = guest();
        assert_eq!(guest.read_virtual(5, 0xffff_0fff, 2).unwrap(), [7, 7]);
        assert_eq!(guest.search(0, u64::MAX, b"l\0w", &[255, 0, 255], 9).unwrap(), [] as [u64; 0]);
        assert_eq!(guest.search(0, u64::MAX, b"o\0w", &[255, 0, 255], 9).unwrap(), [0x1004]);
    }

    #[test]
    fn without_a_grant_nothing_is_seen() {
        let guest = Still { denied: true, ..guest() };
        assert!(matches!(guest.read(0x1000, 1), Err(ViewError::Denied(_))));
        assert!(matches!(guest.registers(0, &["cr3"]), Err(ViewError::Denied(_))));
    }
}
