//! Records boots: a guest on a complete local disk, exported by nbdkit with its log filter.

use crate::guest::{Backing, Guest};
use crate::leash::Leashed;
use crate::replay::{Read, Trace};
use crate::{argv, lab, say};
use anyhow::{Context as _, ensure};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of images up to 32 GiB.
const PIECE_BYTES: u64 = 256 * 1024;

/// Writes `workspace-boot-N.csv` (every read) and `workspace-boot.csv` (first accesses of pieces that are not zero).
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder with `workspace/system.raw`.
    #[arg(long, value_name = "DIR")]
    appliances: PathBuf,
    /// Where the recordings go.
    #[arg(long, value_name = "DIR", default_value = "integration/bench/traces")]
    out: PathBuf,
    /// How many boots.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let image = arguments.appliances.join("workspace/system.raw");
    for round in 1..=arguments.rounds {
        let (trace, took) = record(&image).await?;
        say(&format!("recording {round}: ready after {:.2} s, {} reads", took.as_secs_f64(), trace.0.len()));
        std::fs::write(arguments.out.join(format!("workspace-boot-{round}.csv")), trace.to_csv())?;
        if round == 1 {
            std::fs::write(arguments.out.join("workspace-boot.csv"), pieces(&trace, &image)?)?;
        }
    }
    Ok(())
}

async fn record(image: &Path) -> anyhow::Result<(Trace, Duration)> {
    let folder = tempfile::tempdir()?;
    let (socket, log) = (folder.path().join("nbd.sock"), folder.path().join("log"));
    let mut argv = argv!["nbdkit", "-f", "-r", "-U", &socket, "--filter=log", "file", image].to_vec();
    argv.push(format!("logfile={}", log.display()).into());
    let _nbdkit = Leashed::start(None, &argv, &folder.path().join("nbdkit"))?;
    let there = || async { Ok(socket.exists().then_some(())) };
    lab::until("nbdkit (packages nbdkit, libnbd-bin)", Duration::from_secs(10), there).await?;
    let guest = Guest::prepare(folder.path(), std::fs::metadata(image)?.len())?;
    let backing = Backing::Nbd { socket: socket.clone(), export: String::new() };
    let took = guest.boot(&backing, Instant::now()).await?;
    Ok((parse(&std::fs::read_to_string(&log)?)?, took))
}

/// nbdkit's log: `DATE TIME connection=C Read id=N offset=0xO count=0xL ...`, then `... ...Read id=N return=0`.
fn parse(log: &str) -> anyhow::Result<Trace> {
    let mut reads = Vec::new();
    let mut open = HashMap::new();
    let mut first = None;
    for line in log.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, time, connection, what, id, rest @ ..] = &words[..] else { continue };
        let at = time_of_day(time).with_context(|| format!("nbdkit's log: {line}"))?;
        match *what {
            "Read" => {
                let number = |word: usize, key: &str| -> Option<u64> {
                    u64::from_str_radix(rest.get(word)?.strip_prefix(key)?, 16).ok()
                };
                let range = number(0, "offset=0x").zip(number(1, "count=0x"));
                let (offset, length) = range.with_context(|| format!("nbdkit's log: {line}"))?;
                open.insert((*connection, *id), reads.len());
                let at = at - *first.get_or_insert(at);
                reads.push(Read { at, took: Duration::ZERO, offset, length: u32::try_from(length)? });
            }
            "...Read" => {
                let index =
                    open.remove(&(*connection, *id)).with_context(|| format!("an answer alone: {line}"))?;
                let read: &mut Read = &mut reads[index];
                read.took = at - first.unwrap_or(at) - read.at;
            }
            _ => {}
        }
    }
    ensure!(!reads.is_empty(), "nothing was read");
    Ok(Trace(reads))
}

fn time_of_day(text: &str) -> Option<Duration> {
    let mut fields = text.split(':');
    let (hours, minutes): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let seconds: f64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs(hours * 3600 + minutes * 60) + Duration::try_from_secs_f64(seconds).ok()?)
}

fn pieces(trace: &Trace, image: &Path) -> anyhow::Result<String> {
    use std::os::unix::fs::FileExt as _;
    let image = std::fs::File::open(image)?;
    let mut lines = "at_ms,piece\n".to_owned();
    for (piece, at) in trace.touched(PIECE_BYTES) {
        let mut bytes = vec![0; usize::try_from(PIECE_BYTES)?];
        let read = image.read_at(&mut bytes, u64::from(piece) * PIECE_BYTES)?;
        if bytes[..read].iter().any(|byte| *byte != 0) {
            lines.push_str(&format!("{},{piece}\n", at.as_millis()));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_under_way_together_are_told_apart() {
        let log = "2026-01-02 10:00:00.000000 Ready thread_model=3\n\
                   2026-01-02 10:00:01.000000 connection=2 Read id=1 offset=0x200 count=0x1000 ...\n\
                   2026-01-02 10:00:01.000100 connection=2 Read id=2 offset=0x0 count=0x200 ...\n\
                   2026-01-02 10:00:01.000150 connection=2 ...Read id=2 return=0\n\
                   2026-01-02 10:00:01.000300 connection=2 ...Read id=1 return=0\n";
        let us = |us: u64| Duration::from_micros(us);
        let trace = parse(log).unwrap();
        let close = |a: Duration, b: Duration| a.abs_diff(b) < us(1);
        assert!(close(trace.0[0].took, us(300)) && close(trace.0[1].took, us(50)));
        assert!(close(trace.0[1].at, us(100)));
        assert_eq!((trace.0[0].offset, trace.0[0].length), (512, 4096));
    }
}
