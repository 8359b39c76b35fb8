//! `log`.

use crate::bindings::log;
use crate::call::CallState;
use crate::decision::{LogLevel, LogLine};

/// A longer log message is cut.
const MESSAGE_BYTES_MAX: usize = 4096;

impl log::Host for CallState {
    fn write(&mut self, level: u8, mut message: String) -> wasmtime::Result<()> {
        self.header()?;
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
