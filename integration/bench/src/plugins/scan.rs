//! How fast an introspection policy searches a guest's memory, beside copying it.

use super::Lab;
use crate::figures::{Figures, median, ratios};
use plugins_conformance::specimen::Specimen;
use plugins_runtime::introspection::{
    Disk, Flow, Grant, GuestFacts, GuestViews, IntrospectionInput, Paging, Region, Trigger, ViewError,
};
use plugins_runtime::{Kind, State, thread_time};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use types::Revision;

const BYTES: usize = 256 << 20;

pub(super) fn run(lab: &Lab, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    // `search(0, BYTES, "no such word", "", 1)`: the pattern is at 8192, the result goes to 8256.
    let search = format!(
        "(call $search (i64.const 0) (i64.const {BYTES}) (i32.const 8192) (i32.const 12) (i32.const 0) (i32.const 0) \
         (i32.const 1) (i32.const 8256))"
    );
    let parts = r#"(import "collective:policy/guest-memory@0.1.1" "search"
        (func $search (param i64 i64 i32 i32 i32 i32 i32 i32)))
        (data (i32.const 8192) "no such word")"#;
    let specimen = Specimen { parts: parts.to_owned(), ..Specimen::that(Kind::Introspection, &search) };
    let policy = lab.specimen(&specimen)?;
    let memory =
        Arc::new(Memory((0..BYTES).map(|at| u8::try_from(at * 31 / 7 % 251).unwrap_or(0)).collect()));
    let input = input();
    let mut copy = vec![0u8; BYTES];
    let (mut scans, mut copies) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let began = thread_time();
        policy.inspect(&input, Arc::clone(&memory) as Arc<dyn GuestViews>)?;
        let scan_s = (thread_time() - began).as_secs_f64();
        let began = thread_time();
        black_box(&mut copy).copy_from_slice(black_box(&memory.0));
        let copy_s = (thread_time() - began).as_secs_f64();
        // The first touch of the copy's pages is not copying.
        if round > 0 {
            scans.push(1.0 / scan_s);
            copies.push(1.0 / copy_s);
        }
    }
    let gib = |rate: f64| rate / 4.0;
    figures.add(
        "scan_vs_memcpy",
        median(&scans) / median(&copies),
        &ratios(&scans, &copies),
        &format!(
            "an introspection policy searches 256 MiB of a guest's memory for 12 bytes that are not there {:.2} GiB/s ÷ \
             copying them {:.2} GiB/s; processor time, instance included; the guest is memory of this process",
            gib(median(&scans)),
            gib(median(&copies))
        ),
    );
    Ok(())
}

fn input() -> IntrospectionInput {
    IntrospectionInput {
        decision_id: "bench".to_owned(),
        seed: 7,
        now_ms: 1_700_000_000_000,
        revision: Revision(1),
        settings: serde_json::Value::Null,
        guest: GuestFacts {
            instance: "office/desktop".to_owned(),
            arch: "x86_64".to_owned(),
            vcpus: 1,
            memory_bytes: BYTES as u64,
            paused: true,
            ..GuestFacts::default()
        },
        grants: BTreeSet::from([Grant::Memory]),
        bytes_max: 1 << 40,
        trigger: Trigger::Person,
        trigger_attributes: BTreeMap::new(),
        state: State::default(),
    }
}

/// A guest that is nothing but memory.
struct Memory(Vec<u8>);

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({} bytes)", self.0.len())
    }
}

impl GuestViews for Memory {
    fn regions(&self) -> Result<Vec<Region>, ViewError> {
        Ok(vec![Region { start: 0, len: self.0.len() as u64 }])
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), ViewError> {
        let start = usize::try_from(address).map_err(|_| ViewError::OutOfRange)?;
        let end = start.checked_add(into.len()).ok_or(ViewError::OutOfRange)?;
        into.copy_from_slice(self.0.get(start..end).ok_or(ViewError::OutOfRange)?);
        Ok(())
    }

    fn paging(&self) -> Result<Paging, ViewError> {
        Ok(Paging::FourLevels)
    }

    fn registers(&self, _: u32) -> Result<BTreeMap<String, u64>, ViewError> {
        Err(ViewError::OutOfRange)
    }

    fn flows(&self, _: usize) -> Result<Vec<Flow>, ViewError> {
        Ok(Vec::new())
    }

    fn disks(&self) -> Result<Vec<Disk>, ViewError> {
        Ok(Vec::new())
    }

    fn read_disk(&self, _: u32, _: u64, _: &mut [u8]) -> Result<(), ViewError> {
        Err(ViewError::OutOfRange)
    }
}
