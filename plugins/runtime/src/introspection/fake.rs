//! A guest that is a few bytes, for tests.

use super::views::{Disk, Flow, GuestViews, Paging, Region, ViewError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// RAM in pieces, one vCPU, one disk.
#[derive(Debug, Default)]
pub(crate) struct FakeGuest {
    pub(crate) ram: BTreeMap<u64, Vec<u8>>,
    pub(crate) disk: Vec<u8>,
    pub(crate) gone: AtomicBool,
}

impl FakeGuest {
    fn here(&self) -> Result<(), ViewError> {
        let gone = self.gone.load(Ordering::SeqCst);
        if gone { Err(ViewError::Unavailable("the guest is gone".to_owned())) } else { Ok(()) }
    }
}

impl GuestViews for FakeGuest {
    fn regions(&self) -> Result<Vec<Region>, ViewError> {
        self.here()?;
        Ok(self.ram.iter().map(|(start, bytes)| Region { start: *start, len: bytes.len() as u64 }).collect())
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), ViewError> {
        self.here()?;
        let (start, bytes) = self.ram.range(..=address).next_back().expect("only RAM is read");
        let from = usize::try_from(address - start).unwrap();
        into.copy_from_slice(&bytes[from..from + into.len()]);
        Ok(())
    }

    fn paging(&self) -> Result<Paging, ViewError> {
        Ok(Paging::FourLevels)
    }

    fn registers(&self, vcpu: u32) -> Result<BTreeMap<String, u64>, ViewError> {
        self.here()?;
        if vcpu > 0 {
            return Err(ViewError::OutOfRange);
        }
        Ok(BTreeMap::from([("cr3".to_owned(), 0x1000), ("rip".to_owned(), u64::MAX)]))
    }

    fn flows(&self, limit: usize) -> Result<Vec<Flow>, ViewError> {
        self.here()?;
        let flow = Flow {
            first_seen_ms: 1,
            last_seen_ms: 2,
            port: "eth0".to_owned(),
            protocol: 6,
            source: vec![10, 0, 0, 1],
            destination: vec![10, 0, 0, 2],
            source_port: 1024,
            destination_port: 80,
            frames: 3,
            bytes: 180,
        };
        Ok(vec![flow; limit.min(2)])
    }

    fn disks(&self) -> Result<Vec<Disk>, ViewError> {
        self.here()?;
        Ok(vec![Disk { name: "system".to_owned(), size: self.disk.len() as u64 }])
    }

    fn read_disk(&self, _: u32, offset: u64, into: &mut [u8]) -> Result<(), ViewError> {
        self.here()?;
        let from = usize::try_from(offset).unwrap();
        into.copy_from_slice(&self.disk[from..from + into.len()]);
        Ok(())
    }
}
