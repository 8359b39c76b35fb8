//! Recorded boots, and replaying their reads with the guest's think times.

use crate::nbd::Nbd;
use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use std::time::{Duration, Instant};

/// One read of a recorded boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    /// When it was asked, since the first.
    pub(crate) at: Duration,
    /// How long its answer took, from a local disk.
    pub(crate) took: Duration,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// Reads of one boot in the order they were asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace(pub(crate) Vec<Read>);

/// What was recorded; of more boots those that other work on the machine disturbed least.
const RECORDED: [&str; 4] = [
    include_str!("../traces/workspace-boot-1.csv"),
    include_str!("../traces/workspace-boot-2.csv"),
    include_str!("../traces/workspace-boot-3.csv"),
    include_str!("../traces/workspace-boot-4.csv"),
];

/// The recorded boots that ship with this program.
pub(crate) fn recorded() -> anyhow::Result<Vec<Trace>> {
    RECORDED.iter().map(|text| Trace::parse(text)).collect()
}

impl Trace {
    /// Reads `at_us,took_us,offset,length` lines below a heading.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        ensure!(lines.next() == Some(HEADING), "a trace begins with {HEADING}");
        let read = |line: &str| -> anyhow::Result<Read> {
            let fields: Vec<u64> = line.split(',').map(str::parse).collect::<Result<_, _>>()?;
            let [at, took, offset, length] = fields[..] else { anyhow::bail!("not four fields") };
            Ok(Read {
                at: Duration::from_micros(at),
                took: Duration::from_micros(took),
                offset,
                length: u32::try_from(length)?,
            })
        };
        lines
            .map(|line| read(line).with_context(|| format!("the trace's line {line:?}")))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn to_csv(&self) -> String {
        let lines = self.0.iter().map(|read| {
            format!("{},{},{},{}\n", read.at.as_micros(), read.took.as_micros(), read.offset, read.length)
        });
        std::iter::once(format!("{HEADING}\n")).chain(lines).collect()
    }

    /// Pieces in order of first access, each with its time without waits.
    pub(crate) fn touched(&self, piece_bytes: u64) -> Vec<(u32, Duration)> {
        let mut seen = std::collections::BTreeSet::new();
        let mut touched = Vec::new();
        for read in &self.0 {
            let last = (read.offset + u64::from(read.length)).saturating_sub(1) / piece_bytes;
            for piece in read.offset / piece_bytes..=last {
                if seen.insert(piece) {
                    touched.push((u32::try_from(piece).unwrap_or(u32::MAX), read.at));
                }
            }
        }
        touched
    }

    /// From the first read's question to the last one's answer.
    pub(crate) fn duration(&self) -> Duration {
        self.0.iter().map(|read| read.at + read.took).max().unwrap_or_default()
    }

    /// For each read: how many of the earlier ones (by time of answer) it followed, and how long after the last of
    /// those the guest asked. So the guest's thinking is kept, and what it asked at once is asked at once.
    fn follows(&self) -> Vec<(usize, Duration)> {
        let mut answers: Vec<Duration> = self.0.iter().map(|read| read.at + read.took).collect();
        answers.sort_unstable();
        let follow = |read: &Read| {
            let before = answers.partition_point(|answer| *answer <= read.at);
            let since = before.checked_sub(1).map_or(Duration::ZERO, |last| answers[last]);
            (before, read.at - since)
        };
        self.0.iter().map(follow).collect()
    }

    /// The same boot in slow motion: all its times so many times as long.
    pub(crate) fn slowed(&self, times: u32) -> Self {
        let slow = |read: &Read| Read { at: read.at * times, took: read.took * times, ..*read };
        Self(self.0.iter().map(slow).collect())
    }

    /// Asks as the guest did: each read as long after the answers it followed as in the recording.
    ///
    /// Answers are counted, not named: reads under way together may be answered in another order.
    pub(crate) async fn replay(&self, nbd: &Nbd) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut answers = vec![];
        let mut under_way = FuturesUnordered::new();
        for (read, (before, think)) in self.0.iter().zip(self.follows()) {
            while answers.len() < before {
                under_way.next().await.context("a trace waits for what it never asked")??;
                answers.push(Instant::now());
            }
            let due = before.checked_sub(1).map_or(began, |last| answers[last]) + think;
            // While the guest thinks, answers still come.
            loop {
                tokio::select! {
                    biased;
                    Some(answer) = under_way.next() => { answer?; answers.push(Instant::now()); }
                    () = tokio::time::sleep_until(due.into()) => break,
                }
            }
            under_way.push(ask(nbd, *read));
        }
        while let Some(answer) = under_way.next().await {
            answer?;
        }
        Ok(began.elapsed())
    }
}

const HEADING: &str = "at_us,took_us,offset,length";

async fn ask(nbd: &Nbd, read: Read) -> anyhow::Result<()> {
    nbd.read(read.offset, read.length).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(reads: &[(u64, u64, u64, u32)]) -> Trace {
        let read = |&(at, took, offset, length): &(u64, u64, u64, u32)| Read {
            at: Duration::from_micros(at),
            took: Duration::from_micros(took),
            offset,
            length,
        };
        Trace(reads.iter().map(read).collect())
    }

    #[test]
    fn a_trace_survives_text() {
        let trace = trace(&[(0, 10, 512, 4096), (20, 5, 0, 512)]);
        assert_eq!(Trace::parse(&trace.to_csv()).ok(), Some(trace));
        assert!(Trace::parse("at,offset\n").is_err());
    }

    #[test]
    fn reads_asked_together_follow_the_same_answer() {
        let trace = trace(&[(0, 10, 0, 1), (30, 10, 1, 1), (31, 20, 2, 1), (60, 1, 3, 1)]);
        let us = Duration::from_micros;
        assert_eq!(trace.follows(), [(0, us(0)), (1, us(20)), (1, us(21)), (3, us(9))]);
    }

    #[test]
    fn a_read_over_an_edge_touches_both_pieces_once() {
        let touched = trace(&[(0, 1, 90, 20), (5, 1, 100, 1), (9, 1, 0, 1)]).touched(100);
        assert_eq!(touched, [(0, Duration::ZERO), (1, Duration::ZERO)]);
    }

    #[test]
    fn the_recorded_boots_are_boots() {
        let traces = recorded().unwrap_or_default();
        assert_eq!(traces.len(), RECORDED.len());
        for trace in traces {
            let pieces = trace.touched(256 * 1024).len();
            assert!((200..500).contains(&pieces), "{pieces} pieces");
            assert!(trace.duration() > Duration::from_secs(3));
        }
    }
}
