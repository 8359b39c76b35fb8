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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 50,
            memory_bytes_max: 64 << 20,
            component_bytes_max: 16 << 20,
            copy_bytes_max: 8 << 20,
            host_calls_max: 10_000,
            log_bytes_max: 16 << 10,
            log_lines_max: 256,
            calls_max: 16,
        }
    }
}
