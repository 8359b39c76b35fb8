//! One call of a policy: what it may see, what it has used, why it failed.

use crate::bindings::{PlacementPolicy, PlacementPolicyPre, cluster, context, log, types};
use crate::deadline::{self, DeadlinePassed};
use crate::limits::Limits;
use crate::placement::Columns;
use crate::placement::scene::Scene;
use crate::runtime::Shared;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Store, Trap};

/// A longer log message is cut.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Tables may have this many elements.
const TABLE_ELEMENTS_MAX: usize = 60_000;

/// Why a policy gave no decision. None of these places anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PolicyError {
    /// The policy says that it has none.
    #[error("the policy has no decision ({reason}): {text}")]
    Declined {
        /// `unsupported`, `invalid-input`, `bad-settings` or `internal`.
        reason: String,
        /// The policy's words.
        text: String,
    },
    /// It used up its processor time.
    #[error("the policy was ended: it ran for more than {deadline_ms} ms")]
    Deadline {
        /// The limit.
        deadline_ms: u64,
    },
    /// It asked for more memory than it may have, and did not survive the no.
    #[error("the policy was ended: it needs more than {bytes_max} bytes of memory")]
    Memory {
        /// The limit.
        bytes_max: u64,
    },
    /// It called its imports too often.
    #[error("the policy was ended: it called the runtime more than {calls_max} times")]
    HostCalls {
        /// The limit.
        calls_max: u32,
    },
    /// It passed too much data at once.
    #[error("the policy was ended: it passed more than {bytes_max} bytes at once")]
    Copied {
        /// The limit.
        bytes_max: u64,
    },
    /// It crashed.
    #[error("the policy crashed: {detail}")]
    Trap {
        /// The kind of trap, and the last error that the policy logged.
        detail: String,
    },
    /// It used an import as the contract forbids.
    #[error("the policy broke the contract: {detail}")]
    Forbidden {
        /// What it did.
        detail: String,
    },
    /// Its data is not what the contract's types say (a pointer, a length, a text that is not UTF-8).
    #[error("the policy's data is malformed: {detail}")]
    Malformed {
        /// What the engine says.
        detail: String,
    },
    /// Its answer has the right types and breaks a rule of the contract.
    #[error("the policy's answer is nonsense: {detail}")]
    BadAnswer {
        /// Which part, and which rule.
        detail: String,
    },
    /// What the caller gave breaks a rule of the contract; the policy was not asked.
    #[error("the policy was not asked: {detail}")]
    BadInput {
        /// Which part, and which rule.
        detail: String,
    },
    /// Too many calls run at the same time; the policy was not asked.
    #[error("the policy was not asked: {calls_max} calls are under way")]
    Busy {
        /// The limit.
        calls_max: u32,
    },
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For authors.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

/// One line that a policy wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// At most 4 KiB.
    pub message: String,
}

/// Why a host function ended the guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("it called an import while it was asked about itself or its settings")]
    NoSceneYet,
    #[error("too many host calls")]
    HostCalls,
    #[error("it asked for the name of host {index} of {count}")]
    NoSuchHost { index: u32, count: usize },
}

/// The data of a call's store.
#[derive(Debug)]
pub(crate) struct CallState {
    /// Nothing while the plugin is asked about itself.
    scene: Option<Scene>,
    usage: Usage,
    host_calls_left: u32,
    log_bytes_left: usize,
    log_lines_max: usize,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) logs_dropped: u32,
}

impl CallState {
    pub(crate) fn new(limits: &Limits, scene: Option<Scene>) -> Self {
        Self {
            scene,
            usage: Usage { memory_bytes_left: limits.memory_bytes_max, memory_refused: false },
            host_calls_left: limits.host_calls_max,
            log_bytes_left: limits.log_bytes_max,
            log_lines_max: limits.log_lines_max,
            logs: Vec::new(),
            logs_dropped: 0,
        }
    }

    /// Every import comes through here.
    fn scene(&mut self) -> wasmtime::Result<&Scene> {
        let Some(left) = self.host_calls_left.checked_sub(1) else {
            return Err(wasmtime::Error::new(Refusal::HostCalls));
        };
        self.host_calls_left = left;
        self.scene.as_ref().ok_or_else(|| wasmtime::Error::new(Refusal::NoSceneYet))
    }

    fn column<T: Clone>(&mut self, of: impl Fn(&Columns) -> &Vec<T>) -> wasmtime::Result<Vec<T>> {
        Ok(of(&self.scene()?.input.hosts).clone())
    }
}

/// Memory over all linear memories of the call.
#[derive(Debug)]
struct Usage {
    memory_bytes_left: usize,
    memory_refused: bool,
}

impl ResourceLimiter for Usage {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        match self.memory_bytes_left.checked_sub(desired.saturating_sub(current)) {
            Some(left) => self.memory_bytes_left = left,
            None => self.memory_refused = true,
        }
        Ok(!self.memory_refused)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

/// Runs one export in a fresh instance and drops it. The state comes back with what was logged.
pub(crate) fn run<T>(
    shared: &Shared,
    policy: &PlacementPolicyPre<CallState>,
    scene: Option<Scene>,
    export: impl FnOnce(&mut Store<CallState>, &PlacementPolicy) -> wasmtime::Result<T>,
) -> (Result<T, PolicyError>, CallState) {
    let limits = &shared.limits;
    let mut store = Store::new(&shared.engine, CallState::new(limits, scene));
    store.limiter(|state| &mut state.usage);
    store.set_hostcall_fuel(limits.copy_bytes_max);
    deadline::set(&mut store, Duration::from_millis(limits.deadline_ms));
    let ticking = shared.ticker.call();
    let answer = policy.instantiate(&mut store).and_then(|instance| export(&mut store, &instance));
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

impl types::Host for CallState {}

impl context::Host for CallState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.scene()?.input.now_ms)
    }

    fn seed(&mut self) -> wasmtime::Result<u32> {
        Ok(self.scene()?.input.seed)
    }

    fn decision_id(&mut self) -> wasmtime::Result<String> {
        Ok(self.scene()?.input.decision_id.clone())
    }

    fn revision(&mut self) -> wasmtime::Result<u64> {
        Ok(self.scene()?.input.revision.0)
    }

    fn time_budget(&mut self) -> wasmtime::Result<u64> {
        Ok(self.scene()?.deadline_ms)
    }

    fn settings(&mut self) -> wasmtime::Result<String> {
        Ok(self.scene()?.settings.clone())
    }

    fn symbol_text(&mut self, symbol: u32) -> wasmtime::Result<String> {
        Ok(self.scene()?.symbols.text(symbol).to_owned())
    }

    fn find_symbol(&mut self, text: String) -> wasmtime::Result<u32> {
        Ok(self.scene()?.symbols.find(&text))
    }
}

impl log::Host for CallState {
    fn write(&mut self, level: u8, mut message: String) -> wasmtime::Result<()> {
        self.scene()?;
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        match self.log_bytes_left.checked_sub(message.len()) {
            Some(left) if self.logs.len() < self.log_lines_max => {
                self.log_bytes_left = left;
                let level = match level {
                    0 => LogLevel::Trace,
                    1 => LogLevel::Debug,
                    2 => LogLevel::Info,
                    3 => LogLevel::Warn,
                    _ => LogLevel::Error,
                };
                self.logs.push(LogLine { level, message });
            }
            _ => self.logs_dropped += 1,
        }
        Ok(())
    }
}

impl cluster::Host for CallState {
    fn host_count(&mut self) -> wasmtime::Result<u32> {
        Ok(self.scene()?.host_count())
    }

    fn host_name(&mut self, host: u32) -> wasmtime::Result<String> {
        let names = &self.scene()?.input.hosts.names;
        let missing = || wasmtime::Error::new(Refusal::NoSuchHost { index: host, count: names.len() });
        names.get(host as usize).cloned().ok_or_else(missing)
    }

    fn sites(&mut self) -> wasmtime::Result<Vec<u32>> {
        Ok(self.scene()?.sites.clone())
    }

    fn states(&mut self) -> wasmtime::Result<Vec<u8>> {
        Ok(self.scene()?.input.hosts.states.iter().map(|state| state.code()).collect())
    }

    fn memory_total_bytes(&mut self) -> wasmtime::Result<Vec<u64>> {
        self.column(|hosts| &hosts.memory_total_bytes)
    }

    fn memory_free_bytes(&mut self) -> wasmtime::Result<Vec<u64>> {
        self.column(|hosts| &hosts.memory_free_bytes)
    }

    fn disk_free_bytes(&mut self) -> wasmtime::Result<Vec<u64>> {
        self.column(|hosts| &hosts.disk_free_bytes)
    }

    fn cpu_total_milli(&mut self) -> wasmtime::Result<Vec<u32>> {
        self.column(|hosts| &hosts.cpu_total_milli)
    }

    fn cpu_free_milli(&mut self) -> wasmtime::Result<Vec<u32>> {
        self.column(|hosts| &hosts.cpu_free_milli)
    }

    fn instance_counts(&mut self) -> wasmtime::Result<Vec<u32>> {
        self.column(|hosts| &hosts.instance_counts)
    }

    fn loads(&mut self) -> wasmtime::Result<Vec<f32>> {
        self.column(|hosts| &hosts.loads)
    }

    fn image_cached_bytes(&mut self) -> wasmtime::Result<Vec<u64>> {
        self.column(|hosts| &hosts.image_cached_bytes)
    }

    fn peers(&mut self) -> wasmtime::Result<Vec<u32>> {
        self.column(|hosts| &hosts.peers)
    }
}
