//! `logs`: the serial log of an instance.

use super::{Session, instance_id};
use crate::failure::{Code, Failure};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Between two looks at a followed log.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most the API gives at once.
const BYTES_MAX: u32 = 1024 * 1024;
/// Bytes of the known end that are looked for in the next answer.
const OVERLAP_BYTES: usize = 512;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// DEPLOYMENT/MEMBER
    #[arg(value_name = "INSTANCE")]
    instance: String,
    /// Stay, and write what comes
    #[arg(short, long)]
    follow: bool,
    /// At most so many bytes from its end
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=i64::from(BYTES_MAX)))]
    bytes: u32,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let id = instance_id(&args.instance)?;
    let mut known = session.client.log(&id, args.bytes).await?;
    let mut out = std::io::stdout();
    write!(out, "{known}")?;
    out.flush()?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match session.client.log(&id, args.bytes).await.map_err(Failure::from) {
            Ok(now) => {
                write!(out, "{}", fresh(&known, &now))?;
                out.flush()?;
                known = now;
            }
            // A host that reboots or a controller that restarts comes back; an instance that is gone does not.
            Err(failure) if failure.code == Code::Unreachable => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// What of `now` was not in `known`: both are ends of one growing text.
fn fresh<'a>(known: &str, now: &'a str) -> &'a str {
    if let Some(rest) = now.strip_prefix(known) {
        return rest;
    }
    let mut at = known.len().saturating_sub(OVERLAP_BYTES);
    while !known.is_char_boundary(at) {
        at += 1;
    }
    let end = &known[at..];
    // The log began anew, or grew by more than we see: all of it is news.
    now.rfind(end).map_or(now, |found| &now[found + end.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_written() {
        assert_eq!(fresh("", "abc"), "abc");
        assert_eq!(fresh("abc", "abc"), "");
        assert_eq!(fresh("abc", "abcdef"), "def");
        assert_eq!(fresh("old\n", "boot\n"), "boot\n");
    }

    #[test]
    fn a_window_that_moved_on_is_recognised() {
        let known: String = (0..400).map(|n| format!("line {n}\n")).collect();
        let now = format!("{}line 400 ä\n", &known[100..]);
        assert_eq!(fresh(&known, &now), "line 400 ä\n");
        let odd = format!("{}ä{}", "x".repeat(300), "y".repeat(511));
        assert_eq!(fresh(&odd, &format!("{}z", &odd[5..])), "z");
    }
}
