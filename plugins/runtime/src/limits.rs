//! What a policy may use.

use serde::{Deserialize, Serialize};

/// What one policy, and one call of it, may use. The defaults suit clusters up to 20,000 hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Processor time of a call, milliseconds. On a busy machine it may take 20 times as long by the wall clock.
    pub deadline_ms: u64,
    /// Linear memory of a call in all, bytes.
    pub memory_bytes_max: usize,
    /// Size of a component, bytes. Compiling takes about a second for each megabyte.
    pub component_bytes_max: usize,
    /// Bytes that go from the guest to the runtime in one import call or one answer.
    pub copy_bytes_max: usize,
    /// Calls of imports in one call.
    pub host_calls_max: u32,
    /// Log bytes kept of a call.
    pub log_bytes_max: usize,
    /// Log lines kept of a call.
    pub log_lines_max: usize,
    /// Calls at the same time, of all policies of a runtime.
    pub calls_max: u32,
    /// What compiling may use, where it has a process of its own.
    pub compile: CompileLimits,
}

/// What compiling a component may use in a process of its own. The defaults let interpreters of 18 MB through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompileLimits {
    /// Address space, bytes.
    pub memory_bytes_max: usize,
    /// Processor time, seconds, over all threads. On a busy machine it may take 20 times as long by the wall clock.
    pub cpu_s: u64,
    /// Size of the code, bytes.
    pub code_bytes_max: usize,
}

impl CompileLimits {
    /// Most time by the wall clock, seconds.
    #[must_use]
    pub fn wall_s(&self) -> u64 {
        self.cpu_s.saturating_mul(20)
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { memory_bytes_max: 4 << 30, cpu_s: 60, code_bytes_max: 128 << 20 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 50,
            memory_bytes_max: 64 << 20,
            component_bytes_max: 32 << 20,
            copy_bytes_max: 8 << 20,
            host_calls_max: 10_000,
            log_bytes_max: 16 << 10,
            log_lines_max: 256,
            calls_max: 16,
            compile: CompileLimits::default(),
        }
    }
}
