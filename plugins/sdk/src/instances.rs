//! Instances as columns, as update and checkpoint policies see them, and a fleet made of rows for native tests.

use crate::Context;
use std::collections::BTreeMap;

/// Codes of [`Instances::states`]. A policy treats a code that is not among these as not eligible.
pub mod state {
    /// Wanted, and on no host yet.
    pub const WAITING: u8 = 0;
    /// On its way up.
    pub const STARTING: u8 = 1;
    /// The guest runs.
    pub const RUNNING: u8 = 2;
    /// Meant to be down.
    pub const STOPPED: u8 = 3;
    /// Meant to run, and cannot.
    pub const FAILED: u8 = 4;
    /// Its host has not been heard of.
    pub const UNREACHABLE: u8 = 5;
}

/// Codes of [`Instances::healths`].
pub mod health {
    /// The guest says nothing.
    pub const UNKNOWN: u8 = 0;
    /// It says that it is well.
    pub const HEALTHY: u8 = 1;
    /// It says that it is not.
    pub const UNHEALTHY: u8 = 2;
}

/// The instances as columns, in the order of their names. Every list has [`instance_count`](Self::instance_count)
/// elements; units as in `instances` of the WIT package. Texts are symbols, see [`Context::symbol_text`].
pub trait Instances {
    /// Number of instances.
    fn instance_count(&self) -> usize;
    /// `deployment/member`; an index out of range traps.
    fn instance_name(&self, instance: u32) -> String;
    /// Deployment symbols.
    fn deployments(&self) -> Vec<u32>;
    /// Member symbols.
    fn members(&self) -> Vec<u32>;
    /// Host symbols, 0 = none.
    fn hosts(&self) -> Vec<u32>;
    /// Symbols of the hosts' sites, 0 = none.
    fn sites(&self) -> Vec<u32>;
    /// Symbols of `publisher/appliance`.
    fn appliances(&self) -> Vec<u32>;
    /// Symbols of the versions that run.
    fn versions(&self) -> Vec<u32>;
    /// See [`state`].
    fn states(&self) -> Vec<u8>;
    /// See [`health`].
    fn healths(&self) -> Vec<u8>;
    /// Start of the present run, milliseconds since 1970; 0 if it does not run.
    fn started(&self) -> Vec<u64>;
    /// Memory of the guests, bytes.
    fn memory_bytes(&self) -> Vec<u64>;
    /// Bytes written since the newest checkpoint, or since the start if there is none: an estimate.
    fn dirty_bytes(&self) -> Vec<u64>;
    /// Newest checkpoints, milliseconds since 1970; 0 if there is none.
    fn checkpointed(&self) -> Vec<u64>;
}

/// One instance of a [`Fleet`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    /// Name of the deployment.
    pub deployment: String,
    /// Member of the bundle.
    pub member: String,
    /// Host; empty = none.
    pub host: String,
    /// Site of the host; empty = none.
    pub site: String,
    /// `publisher/appliance`.
    pub appliance: String,
    /// Version that it runs.
    pub version: String,
    /// See [`state`].
    pub state: u8,
    /// See [`health`].
    pub health: u8,
    /// Milliseconds since 1970; 0 if it does not run.
    pub started_ms: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes.
    pub dirty_bytes: u64,
    /// Milliseconds since 1970; 0 if there is none.
    pub checkpointed_ms: u64,
}

impl Instance {
    /// `deployment/member`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.deployment, self.member)
    }
}

/// Instances and their context made of rows, for a policy's native tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    now_ms: u64,
    rows: Vec<Instance>,
    texts: Vec<String>,
    symbols: BTreeMap<String, u32>,
}

impl Fleet {
    /// These instances at that instant, sorted by name.
    #[must_use]
    pub fn new(now_ms: u64, mut rows: Vec<Instance>) -> Self {
        rows.sort_by_cached_key(Instance::name);
        let mut fleet = Self { now_ms, ..Self::default() };
        for row in &rows {
            let texts = [&row.deployment, &row.member, &row.host, &row.site, &row.appliance, &row.version];
            for text in texts {
                fleet.intern(text);
            }
        }
        fleet.rows = rows;
        fleet
    }

    /// The instances, sorted by name.
    #[must_use]
    pub fn rows(&self) -> &[Instance] {
        &self.rows
    }

    fn intern(&mut self, text: &str) {
        if text.is_empty() || self.symbols.contains_key(text) {
            return;
        }
        self.texts.push(text.to_owned());
        self.symbols.insert(text.to_owned(), u32::try_from(self.texts.len()).unwrap_or(0));
    }

    fn column<T>(&self, of: impl Fn(&Instance) -> T) -> Vec<T> {
        self.rows.iter().map(of).collect()
    }

    fn texts(&self, of: impl Fn(&Instance) -> &String) -> Vec<u32> {
        self.column(|row| self.find_symbol(of(row)))
    }
}

impl Instances for Fleet {
    fn instance_count(&self) -> usize {
        self.rows.len()
    }
    fn instance_name(&self, instance: u32) -> String {
        self.rows[instance as usize].name()
    }
    fn deployments(&self) -> Vec<u32> {
        self.texts(|row| &row.deployment)
    }
    fn members(&self) -> Vec<u32> {
        self.texts(|row| &row.member)
    }
    fn hosts(&self) -> Vec<u32> {
        self.texts(|row| &row.host)
    }
    fn sites(&self) -> Vec<u32> {
        self.texts(|row| &row.site)
    }
    fn appliances(&self) -> Vec<u32> {
        self.texts(|row| &row.appliance)
    }
    fn versions(&self) -> Vec<u32> {
        self.texts(|row| &row.version)
    }
    fn states(&self) -> Vec<u8> {
        self.column(|row| row.state)
    }
    fn healths(&self) -> Vec<u8> {
        self.column(|row| row.health)
    }
    fn started(&self) -> Vec<u64> {
        self.column(|row| row.started_ms)
    }
    fn memory_bytes(&self) -> Vec<u64> {
        self.column(|row| row.memory_bytes)
    }
    fn dirty_bytes(&self) -> Vec<u64> {
        self.column(|row| row.dirty_bytes)
    }
    fn checkpointed(&self) -> Vec<u64> {
        self.column(|row| row.checkpointed_ms)
    }
}

impl Context for Fleet {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }
    fn seed(&self) -> u32 {
        0
    }
    fn symbol_text(&self, symbol: u32) -> String {
        let position = (symbol as usize).checked_sub(1);
        position.and_then(|position| self.texts.get(position)).cloned().unwrap_or_default()
    }
    fn find_symbol(&self, text: &str) -> u32 {
        self.symbols.get(text).copied().unwrap_or(0)
    }
}
