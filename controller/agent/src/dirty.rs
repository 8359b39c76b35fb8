//! How much an instance's guest has written since its last capture: what the next one costs at most.

use crate::store::Record;
use crate::work::Works;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

/// Bytes written in the present run of each incarnation, as last heard from QEMU.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<BTreeMap<Uuid, u64>>);

impl Written {
    fn get(&self, incarnation: Uuid) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&incarnation).copied().unwrap_or(0)
    }

    fn set(&self, incarnation: Uuid, bytes: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(incarnation, bytes);
    }

    /// Its run is over.
    fn forget(&self, incarnation: Uuid) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&incarnation).unwrap_or(0)
    }
}

/// Bytes written since the last capture, given those of the present run.
fn dirty(record: &Record, written: u64) -> u64 {
    record.dirty_before.saturating_add(written.saturating_sub(record.captured_bytes))
}

/// The run is over: what it wrote is carried on.
fn carry(record: &mut Record, written: u64) {
    record.dirty_before = dirty(record, written);
    record.captured_bytes = 0;
}

impl Works {
    /// Asks QEMU what these incarnations have written. One that does not tell keeps its last word.
    pub(crate) async fn hear_written(&self, running: &[Uuid]) {
        for incarnation in running {
            if let Ok(disks) = self.hypervisor.block_stats(*incarnation).await
                && !disks.is_empty()
            {
                self.written.set(*incarnation, disks.values().sum());
            }
        }
    }

    /// Bytes written since each incarnation's last capture.
    pub(crate) fn dirty_bytes(&self) -> BTreeMap<Uuid, u64> {
        let records = self.store.records();
        let all = records.iter().map(|(incarnation, record)| {
            let written = if record.ended { 0 } else { self.written.get(*incarnation) };
            (*incarnation, dirty(record, written))
        });
        all.collect()
    }

    /// Called when a run has ended, before its record says so.
    pub(crate) fn carry_written(&self, incarnation: Uuid) {
        let written = self.written.forget(incarnation);
        self.note_record(incarnation, |record| carry(record, written));
    }

    /// Called when a capture was taken: what is written from now on counts.
    pub(crate) async fn note_captured(&self, incarnation: Uuid) {
        self.hear_written(&[incarnation]).await;
        let written = self.written.get(incarnation);
        self.note_record(incarnation, |record| {
            record.dirty_before = 0;
            record.captured_bytes = if record.ended { 0 } else { written };
        });
    }

    fn note_record(&self, incarnation: Uuid, note: impl Fn(&mut Record)) {
        if let Some(record) = self.store.records().remove(&incarnation) {
            self.store.note(incarnation, record, note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Wires;
    use types::Digest;

    #[test]
    fn what_was_written_counts_from_the_last_capture_over_runs() {
        let id = "office/a".parse().unwrap();
        let mut record = Record::new(id, Digest::from_bytes([1; 32]), Wires::default());
        assert_eq!(dirty(&record, 700), 700);
        record.captured_bytes = 700;
        assert_eq!(dirty(&record, 1_000), 300);
        carry(&mut record, 1_000);
        assert_eq!(dirty(&record, 0), 300);
        assert_eq!(dirty(&record, 50), 350, "the next run counts from nothing");
    }
}
