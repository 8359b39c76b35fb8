//! The hosts, frozen: everything about them that does not depend on who asks, checked and lowered once, shared by all
//! calls until a host changes.

use super::digest::{self, Blocks, HostRow};
use super::{Columns, HOSTS_MAX, HostState, LABELS_MAX};
use crate::error::PolicyError;
use crate::symbols::Symbols;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};
use types::Digest;

/// Numbers stay below this, so that a guest whose only number is a double loses nothing.
pub(crate) const NUMBER_MAX: u64 = (1 << 53) - 1;

/// The hosts as every call on the same state of the cluster sees them. What depends on the request (cached images,
/// peers, rivals) is in the [`super::PlacementQuestion`]. A changed host makes a new snapshot that shares what did
/// not change.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) names: Arc<[Arc<str>]>,
    /// The names rise: then one is found by bisection.
    in_order: bool,
    pub(crate) symbols: Arc<Symbols>,
    pub(crate) sites: Arc<[u32]>,
    pub(crate) states: Arc<[u8]>,
    pub(crate) memory_total_bytes: Arc<[u64]>,
    pub(crate) memory_free_bytes: Arc<[u64]>,
    pub(crate) disk_total_bytes: Arc<[u64]>,
    pub(crate) disk_free_bytes: Arc<[u64]>,
    pub(crate) cpu_total_milli: Arc<[u32]>,
    pub(crate) cpu_free_milli: Arc<[u32]>,
    pub(crate) instance_counts: Arc<[u32]>,
    pub(crate) loads: Arc<[f32]>,
    pub(crate) attested: Arc<[u8]>,
    labels: Arc<BTreeMap<String, Arc<[u32]>>>,
    /// Columns of zeros, for what nobody set.
    pub(crate) zeros_u32: Arc<[u32]>,
    pub(crate) zeros_u64: Arc<[u64]>,
    blocks: OnceLock<Blocks>,
}

/// What a placement takes away from a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFree {
    /// Memory not promised, bytes.
    pub memory_bytes: u64,
    /// Disk not promised, bytes.
    pub disk_bytes: u64,
    /// CPU not promised, milli-vCPU.
    pub cpu_milli: u32,
    /// Instances there.
    pub instances: u32,
}

impl Snapshot {
    /// Checks and freezes the columns of the hosts; those that depend on the request are not looked at.
    ///
    /// # Errors
    /// [`PolicyError::BadInput`]: a column has another length, a number is out of range, a name occurs twice.
    pub fn new(hosts: &Columns) -> Result<Arc<Self>, PolicyError> {
        check(hosts).map_err(|detail| PolicyError::BadInput { detail })?;
        let count = hosts.names.len();
        let mut symbols = Symbols::default();
        let sites = symbols.column(&hosts.sites);
        let labels = hosts.labels.iter();
        let labels = labels.map(|(key, values)| (key.clone(), symbols.column(values))).collect();
        let zeros_u64: Arc<[u64]> = vec![0; count].into();
        let disk_total = &hosts.disk_total_bytes;
        let attested: Vec<u8> = hosts.attested.iter().map(|attested| u8::from(*attested)).collect();
        Ok(Arc::new(Self {
            names: hosts.names.iter().map(|name| Arc::from(name.as_str())).collect(),
            in_order: hosts.names.is_sorted(),
            symbols: Arc::new(symbols),
            sites,
            states: hosts.states.iter().map(|state| state.code()).collect(),
            memory_total_bytes: hosts.memory_total_bytes.as_slice().into(),
            memory_free_bytes: hosts.memory_free_bytes.as_slice().into(),
            disk_total_bytes: if disk_total.is_empty() {
                Arc::clone(&zeros_u64)
            } else {
                disk_total.as_slice().into()
            },
            disk_free_bytes: hosts.disk_free_bytes.as_slice().into(),
            cpu_total_milli: hosts.cpu_total_milli.as_slice().into(),
            cpu_free_milli: hosts.cpu_free_milli.as_slice().into(),
            instance_counts: hosts.instance_counts.as_slice().into(),
            loads: hosts.loads.as_slice().into(),
            attested: if attested.is_empty() { vec![0; count].into() } else { attested.into() },
            labels: Arc::new(labels),
            zeros_u32: vec![0; count].into(),
            zeros_u64,
            blocks: OnceLock::new(),
        }))
    }

    /// The snapshot in which one host has that much left. Costs a copy of four columns and a small part of the digest.
    /// A host out of range changes nothing.
    #[must_use]
    pub fn with_free(&self, host: u32, free: HostFree) -> Arc<Self> {
        let mut changed = self.clone();
        let at = host as usize;
        if at < self.names.len() {
            Arc::make_mut(&mut changed.memory_free_bytes)[at] = free.memory_bytes.min(NUMBER_MAX);
            Arc::make_mut(&mut changed.disk_free_bytes)[at] = free.disk_bytes.min(NUMBER_MAX);
            Arc::make_mut(&mut changed.cpu_free_milli)[at] = free.cpu_milli;
            Arc::make_mut(&mut changed.instance_counts)[at] = free.instances;
            if let Some(mut blocks) = changed.blocks.take() {
                blocks.renew(at, changed.names.len(), |row, out| changed.write_row(row, out));
                changed.blocks = OnceLock::from(blocks);
            }
        }
        Arc::new(changed)
    }

    /// The snapshot in which one host has the state of that code, also of one that this version of the contract does not
    /// know and a later one may: for asking policies about it. A host out of range changes nothing.
    #[must_use]
    pub fn with_state_code(&self, host: u32, code: u8) -> Arc<Self> {
        let mut changed = self.clone();
        if let Some(state) = Arc::make_mut(&mut changed.states).get_mut(host as usize) {
            *state = code;
        }
        changed.blocks = OnceLock::new();
        Arc::new(changed)
    }

    /// What a host has left; none if there is no such host.
    #[must_use]
    pub fn free(&self, host: u32) -> Option<HostFree> {
        let at = host as usize;
        Some(HostFree {
            memory_bytes: *self.memory_free_bytes.get(at)?,
            disk_bytes: *self.disk_free_bytes.get(at)?,
            cpu_milli: *self.cpu_free_milli.get(at)?,
            instances: *self.instance_counts.get(at)?,
        })
    }

    /// Number of hosts.
    #[must_use]
    pub fn host_count(&self) -> u32 {
        u32::try_from(self.names.len()).unwrap_or(u32::MAX)
    }

    /// Row of the host of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<u32> {
        let position = if self.in_order {
            self.names.binary_search_by(|known| known.as_ref().cmp(name)).ok()
        } else {
            self.names.iter().position(|known| known.as_ref() == name)
        };
        position.and_then(|position| u32::try_from(position).ok())
    }

    /// Name of the host in that row.
    #[must_use]
    pub fn name(&self, host: u32) -> Option<&str> {
        self.names.get(host as usize).map(AsRef::as_ref)
    }

    /// SHA-256 over all hosts. Computed once for each snapshot, at first use.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.blocks
            .get_or_init(|| Blocks::new(self.names.len(), |row, out| self.write_row(row, out)))
            .digest()
    }

    /// Values of one label as symbols.
    pub(crate) fn label(&self, key: &str) -> Arc<[u32]> {
        Arc::clone(self.labels.get(key).unwrap_or(&self.zeros_u32))
    }

    /// The recorded form, without the columns that depend on the request.
    pub(crate) fn columns(&self) -> Columns {
        let text = |symbol: &u32| self.symbols.text(*symbol).to_owned();
        let texts = |symbols: &[u32]| symbols.iter().map(text).collect();
        Columns {
            names: self.names.iter().map(|name| name.as_ref().to_owned()).collect(),
            sites: texts(&self.sites),
            states: self.states.iter().map(|code| HostState::of_code(*code)).collect(),
            memory_total_bytes: self.memory_total_bytes.to_vec(),
            memory_free_bytes: self.memory_free_bytes.to_vec(),
            disk_free_bytes: self.disk_free_bytes.to_vec(),
            cpu_total_milli: self.cpu_total_milli.to_vec(),
            cpu_free_milli: self.cpu_free_milli.to_vec(),
            instance_counts: self.instance_counts.to_vec(),
            loads: self.loads.to_vec(),
            image_cached_bytes: Vec::new(),
            peers: Vec::new(),
            disk_total_bytes: self.disk_total_bytes.to_vec(),
            attested: self.attested.iter().map(|attested| *attested != 0).collect(),
            labels: self.labels.iter().map(|(key, values)| (key.clone(), texts(values))).collect(),
            rivals: Vec::new(),
        }
    }

    fn write_row(&self, row: usize, out: &mut Vec<u8>) {
        let labels = self.labels.iter();
        digest::write_row(
            &HostRow {
                name: &self.names[row],
                site: self.symbols.text(self.sites[row]),
                state: self.states[row],
                attested: self.attested[row] != 0,
                memory_total_bytes: self.memory_total_bytes[row],
                memory_free_bytes: self.memory_free_bytes[row],
                disk_total_bytes: self.disk_total_bytes[row],
                disk_free_bytes: self.disk_free_bytes[row],
                cpu_total_milli: self.cpu_total_milli[row],
                cpu_free_milli: self.cpu_free_milli[row],
                instance_count: self.instance_counts[row],
                load: self.loads[row],
            },
            labels.map(|(key, values)| (key.as_str(), self.symbols.text(values[row]))),
            out,
        );
    }
}

fn check(hosts: &Columns) -> Result<(), String> {
    let count = hosts.names.len();
    if count > HOSTS_MAX {
        return Err(format!("hosts: {count} are more than {HOSTS_MAX}"));
    }
    if let Some((name, len)) = lens(hosts).into_iter().find(|(_, len)| *len != count) {
        return Err(format!("hosts.{name} has {len} elements for {count} hosts"));
    }
    if hosts.labels.len() > LABELS_MAX {
        return Err(format!("hosts.labels: {} keys are more than {LABELS_MAX}", hosts.labels.len()));
    }
    if let Some((key, values)) = hosts.labels.iter().find(|(_, values)| values.len() != count) {
        return Err(format!("hosts.labels.{key} has {} elements for {count} hosts", values.len()));
    }
    let rising = hosts.names.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising && hosts.names.iter().collect::<HashSet<_>>().len() != count {
        return Err("hosts.names: a name occurs twice".to_owned());
    }
    if !hosts.loads.iter().all(|load| (0.0..=1.0).contains(load)) {
        return Err("hosts.loads: a load is not in 0.0 ..= 1.0".to_owned());
    }
    let wide = [
        &hosts.memory_total_bytes,
        &hosts.memory_free_bytes,
        &hosts.disk_free_bytes,
        &hosts.disk_total_bytes,
    ];
    if wide.into_iter().flatten().any(|number| *number > NUMBER_MAX) {
        return Err(format!("a number is above {NUMBER_MAX}"));
    }
    Ok(())
}

fn lens(hosts: &Columns) -> [(&'static str, usize); 11] {
    let count = hosts.names.len();
    let or_none = |len: usize| if len == 0 { count } else { len };
    [
        ("sites", hosts.sites.len()),
        ("states", hosts.states.len()),
        ("memory_total_bytes", hosts.memory_total_bytes.len()),
        ("memory_free_bytes", hosts.memory_free_bytes.len()),
        ("disk_free_bytes", hosts.disk_free_bytes.len()),
        ("cpu_total_milli", hosts.cpu_total_milli.len()),
        ("cpu_free_milli", hosts.cpu_free_milli.len()),
        ("instance_counts", hosts.instance_counts.len()),
        ("loads", hosts.loads.len()),
        ("disk_total_bytes", or_none(hosts.disk_total_bytes.len())),
        ("attested", or_none(hosts.attested.len())),
    ]
}
