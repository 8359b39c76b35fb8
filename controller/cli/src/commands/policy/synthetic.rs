//! Invented questions of any size. The same size always gives the same question.

use super::ask::Question;
use plugins_runtime::checkpoint::{self, Checkpoint, CheckpointInput};
use plugins_runtime::instances::{Health, Instance, InstanceColumns, InstanceState};
use plugins_runtime::introspection::{
    Disk, Flow, Grant, GuestFacts, GuestViews, IntrospectionInput, Paging, Region, Trigger, ViewError,
};
use plugins_runtime::placement::{Columns, HostState, PlacementInput, Request};
use plugins_runtime::update::{Rollout, UpdateInput};
use plugins_runtime::{Kind, State};

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::Revision;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const HOUR_MS: u64 = 3_600_000;
/// 2026-01-01T00:00:00Z.
const NOW_MS: u64 = 1_767_225_600_000;
const SEED: u32 = 7;
const REVISION: Revision = Revision(1);

/// A question of that many hosts, instances, checkpoints or MiB of guest memory.
pub(super) fn question(kind: Kind, size: u32, settings: &Value) -> Question {
    let settings = settings.clone();
    match kind {
        Kind::Placement => Question::Placement(Box::new(placement(size, settings))),
        Kind::Update => Question::Update(Box::new(update(size, settings))),
        Kind::Checkpoint => Question::Checkpoint(Box::new(checkpoint(size, settings))),
        Kind::Introspection => {
            let guest = Arc::new(Patterned { memory_bytes: u64::from(size) * MIB });
            Question::Introspection(Box::new(introspection(size, settings)), guest)
        }
    }
}

/// Some number below `below` that follows from `index` alone.
fn scattered(index: u32, below: u64) -> u64 {
    let mixed = (u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) % below.max(1)
}

fn placement(hosts: u32, settings: Value) -> PlacementInput {
    fn column<T>(hosts: u32, of: impl Fn(u32) -> T) -> Vec<T> {
        (0..hosts).map(of).collect()
    }
    let ready = |index| if index % 50 == 49 { HostState::Cordoned } else { HostState::Ready };
    PlacementInput {
        decision_id: format!("bench-{hosts}"),
        seed: SEED,
        now_ms: NOW_MS,
        revision: REVISION,
        settings,
        request: Request {
            instance: "office/workspace".to_owned(),
            deployment: "office".to_owned(),
            member: "workspace".to_owned(),
            appliance: "acme/workspace".to_owned(),
            version: "1.0.0".to_owned(),
            vcpus_milli: 2000,
            memory_bytes: 4 * GIB,
            disk_bytes: 8 * GIB,
            image_bytes: 2 * GIB,
            ..Request::default()
        },
        hosts: Columns {
            names: column(hosts, |index| format!("host-{index:05}")),
            sites: column(hosts, |index| format!("site-{:02}", index % 20)),
            states: column(hosts, ready),
            memory_total_bytes: column(hosts, |_| 128 * GIB),
            memory_free_bytes: column(hosts, |index| scattered(index, 128) * GIB),
            disk_free_bytes: column(hosts, |index| 20 * GIB + scattered(index, 1000) * GIB),
            cpu_total_milli: column(hosts, |_| 64_000),
            cpu_free_milli: column(hosts, |index| u32::try_from(scattered(index, 64_000)).unwrap_or(0)),
            instance_counts: column(hosts, |index| index % 24),
            loads: column(hosts, |index| f32::from(u8::try_from(index % 100).unwrap_or(0)) / 100.0),
            image_cached_bytes: column(hosts, |index| if index % 3 == 0 { 2 * GIB } else { 0 }),
            peers: column(hosts, |index| u32::from(index % 97 == 0)),
            disk_total_bytes: column(hosts, |_| 2000 * GIB),
            attested: column(hosts, |index| index.is_multiple_of(2)),
            labels: BTreeMap::new(),
            rivals: column(hosts, |_| 0),
        },
    }
}

fn instances(count: u32) -> InstanceColumns {
    let instance = |index: u32| Instance {
        name: format!("office-{:05}/desk", index),
        deployment: format!("office-{index:05}"),
        member: "desk".to_owned(),
        host: format!("host-{:04}", index % 1000),
        site: format!("site-{:02}", index % 20),
        appliance: "acme/workspace".to_owned(),
        version: "1.0.0".to_owned(),
        state: InstanceState::Running,
        health: Health::Healthy,
        started_ms: NOW_MS - HOUR_MS,
        memory_bytes: 4 * GIB,
        dirty_bytes: scattered(index, 4096) * MIB,
        checkpointed_ms: 0,
    };
    (0..count).map(instance).collect()
}

fn update(count: u32, settings: Value) -> UpdateInput {
    UpdateInput {
        decision_id: format!("bench-{count}"),
        seed: SEED,
        now_ms: NOW_MS,
        revision: REVISION,
        settings,
        rollout: Rollout {
            id: "acme/workspace@2.0.0".to_owned(),
            appliance: "acme/workspace".to_owned(),
            channel: "stable".to_owned(),
            target: "2.0.0".to_owned(),
            started_ms: NOW_MS,
            unavailable_max: 10,
            outcomes: Vec::new(),
            attributes: BTreeMap::new(),
        },
        instances: instances(count),
        state: State::default(),
    }
}

fn checkpoint(count: u32, settings: Value) -> CheckpointInput {
    let one = |index: u32| Checkpoint {
        name: format!("c{index:05}"),
        taken_ms: NOW_MS - u64::from(count - index) * HOUR_MS,
        size_bytes: scattered(index, 2048) * MIB,
        with_memory: false,
        cause: checkpoint::Cause::Policy,
        pinned: index.is_multiple_of(100),
        verified: checkpoint::Verified::Never,
    };
    CheckpointInput {
        decision_id: format!("bench-{count}"),
        seed: SEED,
        now_ms: NOW_MS,
        revision: REVISION,
        settings,
        subject: checkpoint::Subject {
            deployment: "office".to_owned(),
            created_ms: NOW_MS - u64::from(count) * HOUR_MS,
            used_bytes: u64::from(count) * GIB,
            quota_bytes: 0,
            attributes: BTreeMap::new(),
        },
        instances: instances(4),
        checkpoints: (0..count).map(one).collect(),
        state: State::default(),
    }
}

fn introspection(mebibytes: u32, settings: Value) -> IntrospectionInput {
    IntrospectionInput {
        decision_id: format!("bench-{mebibytes}"),
        seed: SEED,
        now_ms: NOW_MS,
        revision: REVISION,
        settings,
        guest: GuestFacts {
            instance: "office/workspace".to_owned(),
            appliance: "acme/workspace".to_owned(),
            version: "1.0.0".to_owned(),
            arch: "x86_64".to_owned(),
            vcpus: 1,
            memory_bytes: u64::from(mebibytes) * MIB,
            started_ms: NOW_MS - HOUR_MS,
            paused: false,
            attributes: BTreeMap::new(),
        },
        grants: [Grant::Memory, Grant::Cpu, Grant::Flows, Grant::Disk].into(),
        bytes_max: 4 * GIB,
        trigger: Trigger::Time,
        trigger_attributes: BTreeMap::new(),
        state: State::default(),
    }
}

/// A guest of which every byte follows from its address; nothing is mapped in it.
#[derive(Debug)]
struct Patterned {
    memory_bytes: u64,
}

const REGISTERS: [&str; 8] = ["cr0", "cr3", "cr4", "efer", "lstar", "rip", "idt.base", "gdt.base"];

impl GuestViews for Patterned {
    fn regions(&self) -> Result<Vec<Region>, ViewError> {
        Ok(vec![Region { start: 0, len: self.memory_bytes }])
    }
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), ViewError> {
        into.fill(address.to_le_bytes()[1]);
        Ok(())
    }
    fn paging(&self) -> Result<Paging, ViewError> {
        Ok(Paging::FourLevels)
    }
    fn registers(&self, vcpu: u32) -> Result<BTreeMap<String, u64>, ViewError> {
        let all = || REGISTERS.map(|name| (name.to_owned(), 0x1000)).into();
        (vcpu == 0).then(all).ok_or(ViewError::OutOfRange)
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
