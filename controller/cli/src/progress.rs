//! A progress bar on standard error.

use crate::time;
use std::io::{IsTerminal as _, Write as _};

const CELLS: u64 = 30;

/// Shown only if standard error is a terminal.
pub(crate) struct Bar {
    what: &'static str,
    terminal: bool,
    shown: Option<u64>,
}

impl Bar {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, terminal: std::io::stderr().is_terminal(), shown: None }
    }

    pub(crate) fn show(&mut self, done: u64, total: u64) {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
        if self.terminal && self.shown != Some(percent) {
            self.shown = Some(percent);
            let _ = write!(std::io::stderr(), "\r{}", line(self.what, done, total));
        }
    }

    pub(crate) fn end(&mut self) {
        if self.shown.is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn line(what: &str, done: u64, total: u64) -> String {
    let full = done.saturating_mul(CELLS).checked_div(total).unwrap_or(CELLS).min(CELLS);
    let bar: String = (0..CELLS).map(|cell| if cell < full { '=' } else { ' ' }).collect();
    format!("{what} [{bar}] {} of {} ", time::bytes(done), time::bytes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        assert_eq!(line("hashing", 0, 0), format!("hashing [{}] 0 B of 0 B ", "=".repeat(30)));
        assert!(line("x", 50, 100).contains(&format!("[{}{}]", "=".repeat(15), " ".repeat(15))));
    }
}
