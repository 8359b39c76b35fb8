//! One call of a policy: what it may see, what it has used, why it failed.

use crate::checkpoint::{self, CheckpointsView};
use crate::deadline::{self, DeadlinePassed};
use crate::decision::{LogLevel, LogLine};
use crate::error::{PolicyError, Refusal};
use crate::instances::InstancesView;
use crate::introspection;
use crate::limits::Limits;
use crate::placement;
use crate::runtime::Shared;
use crate::symbols::Symbols;
use crate::update;
use crate::world::Exports;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Store, Trap};

/// Tables may have this many elements, all together.
const TABLE_ELEMENTS_MAX: usize = 60_000;

/// What the imports of one call read: the facts that all kinds share, and the view of one kind.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) header: Header,
    pub(crate) view: View,
}

/// What `context` reads.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) decision_id: String,
    pub(crate) seed: u32,
    pub(crate) now_ms: u64,
    pub(crate) revision: u64,
    pub(crate) settings: Arc<str>,
    pub(crate) symbols: Arc<Symbols>,
}

/// What the other imports read, by kind.
#[derive(Debug)]
pub(crate) enum View {
    Placement(placement::View),
    Update(Box<update::View>),
    Checkpoint(Box<checkpoint::View>),
    Introspection(Box<introspection::View>),
}

/// The data of a call's store.
#[derive(Debug)]
pub(crate) struct CallState {
    /// Nothing while the plugin is asked about itself.
    scene: Option<Scene>,
    usage: Usage,
    host_calls_left: u32,
    pub(crate) deadline_ms: u64,
    pub(crate) log_bytes_left: usize,
    pub(crate) log_lines_max: usize,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) logs_dropped: u32,
}

impl CallState {
    /// Linear memory that the call has, bytes.
    pub(crate) fn memory_bytes(&self, limits: &Limits) -> usize {
        limits.memory_bytes_max.saturating_sub(self.usage.memory_bytes_left)
    }

    fn new(limits: &Limits, scene: Option<Scene>) -> Self {
        Self {
            scene,
            usage: Usage {
                memory_bytes_left: limits.memory_bytes_max,
                memory_refused: false,
                table_elements_left: TABLE_ELEMENTS_MAX,
            },
            host_calls_left: limits.host_calls_max,
            deadline_ms: limits.deadline_ms,
            log_bytes_left: limits.log_bytes_max,
            log_lines_max: limits.log_lines_max,
            logs: Vec::new(),
            logs_dropped: 0,
        }
    }

    /// Every import comes through here.
    fn scene(&mut self) -> wasmtime::Result<&mut Scene> {
        let Some(left) = self.host_calls_left.checked_sub(1) else {
            return Err(wasmtime::Error::new(Refusal::HostCalls));
        };
        self.host_calls_left = left;
        self.scene.as_mut().ok_or_else(|| wasmtime::Error::new(Refusal::NoSceneYet))
    }

    /// Of the decision that is under way; empty while the plugin is asked about itself.
    pub(crate) fn decision_id(&self) -> &str {
        self.scene.as_ref().map_or("", |scene| &scene.header.decision_id)
    }

    /// The facts that all kinds share; counts as a host call.
    pub(crate) fn header(&mut self) -> wasmtime::Result<&Header> {
        Ok(&self.scene()?.header)
    }

    /// The view of a placement; counts as a host call.
    pub(crate) fn placement(&mut self) -> wasmtime::Result<&mut placement::View> {
        match &mut self.scene()?.view {
            View::Placement(view) => Ok(view),
            _ => Err(wasmtime::Error::new(Refusal::NotOfItsKind)),
        }
    }

    /// The instances of a rollout or of a deployment; counts as a host call.
    pub(crate) fn instances(&mut self) -> wasmtime::Result<&InstancesView> {
        match &self.scene()?.view {
            View::Update(view) => Ok(&view.instances),
            View::Checkpoint(view) => Ok(&view.instances),
            _ => Err(wasmtime::Error::new(Refusal::NotOfItsKind)),
        }
    }

    /// The checkpoints of a deployment; counts as a host call.
    pub(crate) fn checkpoints(&mut self) -> wasmtime::Result<&CheckpointsView> {
        match &self.scene()?.view {
            View::Checkpoint(view) => Ok(&view.checkpoints),
            _ => Err(wasmtime::Error::new(Refusal::NotOfItsKind)),
        }
    }

    /// The view of a guest; counts as a host call.
    pub(crate) fn introspection(&mut self) -> wasmtime::Result<&mut introspection::View> {
        match &mut self.scene()?.view {
            View::Introspection(view) => Ok(view),
            _ => Err(wasmtime::Error::new(Refusal::NotOfItsKind)),
        }
    }
}

/// Memory over all linear memories of the call, and elements over all its tables.
#[derive(Debug)]
struct Usage {
    memory_bytes_left: usize,
    memory_refused: bool,
    table_elements_left: usize,
}

impl ResourceLimiter for Usage {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        match self.memory_bytes_left.checked_sub(desired.saturating_sub(current)) {
            Some(left) => self.memory_bytes_left = left,
            None => self.memory_refused = true,
        }
        Ok(!self.memory_refused)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let left = self.table_elements_left.checked_sub(desired.saturating_sub(current));
        self.table_elements_left = left.unwrap_or(self.table_elements_left);
        Ok(left.is_some())
    }
}

/// Runs one export in a fresh instance and drops it. The state comes back with what was logged.
pub(crate) fn run<E: Exports, T>(
    shared: &Shared,
    limits: &Limits,
    exports: &E,
    scene: Option<Scene>,
    export: impl FnOnce(&mut Store<CallState>, &E::Instance) -> wasmtime::Result<T>,
) -> (Result<T, PolicyError>, CallState) {
    let mut store = Store::new(&shared.engine, CallState::new(limits, scene));
    store.limiter(|state| &mut state.usage);
    store.set_hostcall_fuel(limits.copy_bytes_max);
    deadline::set(&mut store, Duration::from_millis(limits.deadline_ms));
    let ticking = shared.ticker.call();
    let answer = exports.instantiate(&mut store).and_then(|instance| export(&mut store, &instance));
    drop(ticking);
    let state = store.into_data();
    (answer.map_err(|error| classify(&error, limits, &state)), state)
}

fn classify(error: &wasmtime::Error, limits: &Limits, state: &CallState) -> PolicyError {
    let detail = || format!("{:#}", error.root_cause());
    if error.downcast_ref::<DeadlinePassed>().is_some() {
        return PolicyError::Deadline { deadline_ms: limits.deadline_ms };
    }
    match error.downcast_ref::<Refusal>() {
        Some(Refusal::HostCalls) => return PolicyError::HostCalls { calls_max: limits.host_calls_max },
        Some(refusal) => return PolicyError::Forbidden { detail: refusal.to_string() },
        None => {}
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return PolicyError::Busy { calls_max: limits.calls_max };
    }
    if state.usage.memory_refused {
        return PolicyError::Memory { bytes_max: limits.memory_bytes_max as u64 };
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        let logged = state.logs.iter().rev().find(|line| line.level == LogLevel::Error);
        let logged = logged.map(|line| format!(": {}", line.message)).unwrap_or_default();
        return PolicyError::Trap { detail: format!("{trap}{logged}") };
    }
    let detail = detail();
    // The engine keeps the type of this error to itself.
    if detail.contains("fuel allocated for hostcalls") {
        return PolicyError::Copied { bytes_max: limits.copy_bytes_max as u64 };
    }
    PolicyError::Malformed { detail }
}
