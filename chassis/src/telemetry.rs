//! Logs: JSON lines for machines, short lines on a terminal; and an error with its whole chain of causes.

use std::fmt;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts logging to standard error. `COLLECTIVE_LOG` filters (default `info`), `COLLECTIVE_LOG_FORMAT` chooses `json`
/// or `text` (default: text on a terminal, else JSON).
///
/// Later calls in one process do nothing.
pub fn init(daemon: &'static str) {
    let filter = EnvFilter::try_from_env("COLLECTIVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let json = match std::env::var("COLLECTIVE_LOG_FORMAT").as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        _ => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    if started.is_ok() {
        tracing::debug!(daemon, "logging");
    }
}

/// An error followed by its causes: `cannot read x: permission denied`.
#[must_use]
pub fn chain<'a>(error: &'a (dyn std::error::Error + 'static)) -> Chain<'a> {
    Chain(error)
}

/// Displays an error and its causes. Made by [`chain`].
#[derive(Debug)]
pub struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
