//! Clusters to decide about. Hosts differ, and a third of them is too full.

use plugins_runtime::PolicyError;
use plugins_runtime::placement::{Columns, HostState, PlacementQuestion, Request, Snapshot};
use std::sync::Arc;
use types::Revision;

pub(super) const GIB: u64 = 1 << 30;

pub(super) fn snapshot(hosts: u32) -> Result<Arc<Snapshot>, PolicyError> {
    let each = || 0..u64::from(hosts);
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let percent = |number: u64| f32::from(u8::try_from(number % 101).unwrap_or(0)) / 100.0;
    Snapshot::new(&Columns {
        names: each().map(|row| format!("host-{row:05}")).collect(),
        sites: each().map(|row| format!("site-{}", row % 16)).collect(),
        states: each()
            .map(|row| if row % 50 == 7 { HostState::Draining } else { HostState::Ready })
            .collect(),
        memory_total_bytes: each().map(|_| 256 * GIB).collect(),
        memory_free_bytes: each().map(|row| row * 7919 % 240 * GIB).collect(),
        disk_free_bytes: each().map(|row| row * 104_729 % 900 * GIB).collect(),
        cpu_total_milli: each().map(|_| 256_000).collect(),
        cpu_free_milli: each().map(|row| narrow(row * 7907 % 256_000)).collect(),
        instance_counts: each().map(|row| narrow(row % 40)).collect(),
        loads: each().map(percent).collect(),
        image_cached_bytes: Vec::new(),
        peers: Vec::new(),
        ..Columns::default()
    })
}

/// An instance with an image that every eleventh host holds, and peers on three.
pub(super) fn question(hosts: u32) -> PlacementQuestion {
    PlacementQuestion {
        decision_id: "bench".to_owned(),
        seed: 7,
        now_ms: 1_700_000_000_000,
        revision: Revision(1),
        settings: serde_json::Value::Null,
        request: Request {
            instance: "office/desktop".to_owned(),
            deployment: "office".to_owned(),
            member: "desktop".to_owned(),
            appliance: "acme/desktop".to_owned(),
            version: "1.0.0".to_owned(),
            vcpus_milli: 2000,
            memory_bytes: 4 * GIB,
            disk_bytes: 10 * GIB,
            image_bytes: 8 * GIB,
            ..Request::default()
        },
        image_cached_bytes: (0..hosts).map(|row| if row.is_multiple_of(11) { 8 * GIB } else { 0 }).collect(),
        peers: (0..hosts).map(|row| u32::from(row < 3)).collect(),
        rivals: Arc::default(),
    }
}
