//! What a guest reads, and what its reads wait for: asked of the streamer, told to the controller.
//!
//! Each start of each incarnation is a reader of its own, so that no two boots are taken for one.

use crate::plan::RUN_AFTER_READY_MS;
use crate::store::Record;
use crate::work::{WorkError, Works};
use chassis::clock::unix_ms;
use chassis::telemetry::chain;
use chassis::unix_http::CallError;
use controller_api::stream::{RunSummary, StreamReport};
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;
use streamer_api::Run;
use types::{Digest, InstanceId};
use uuid::Uuid;

/// Reports of instances that are gone are kept of so many.
const GONE_MAX: usize = 64;
/// Digits of the incarnation in a reader's name: enough to tell those of one instance apart.
const INCARNATION_DIGITS: usize = 8;
/// QEMU opens its disk so soon after the start; a run that began later began with another daemon.
const OPEN_MS_MAX: u64 = 10_000;
/// Pause before another attempt to tell a run.
const RUN_PAUSE_MS: u64 = 30_000;
/// Longest time telling a run may take.
const TELL_TIMEOUT: Duration = Duration::from_secs(20);
/// The same while something waits for it: an instance on its way out.
const PARTING_TIMEOUT: Duration = Duration::from_secs(2);

/// What instances that are gone had waited for, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Gone(VecDeque<(InstanceId, StreamReport)>);

impl Gone {
    fn keep(&mut self, id: InstanceId, report: StreamReport) {
        if self.0.len() >= GONE_MAX {
            self.0.pop_front();
        }
        self.0.push_back((id, report));
    }

    fn last(&self, id: &InstanceId) -> Option<StreamReport> {
        self.0.iter().rev().find(|(gone, _)| gone == id).map(|(_, report)| report.clone())
    }
}

/// `office/workspace:0f3a9c21.1`: by this name the streamer knows one start of one incarnation.
fn reader(id: &InstanceId, incarnation: Uuid, starts: u32) -> String {
    let digits = incarnation.simple().to_string();
    format!("{id}:{}.{starts}", &digits[..INCARNATION_DIGITS])
}

/// Name of the export for one start of one incarnation.
pub(crate) fn export(image: Digest, id: &InstanceId, incarnation: Uuid, starts: u32) -> String {
    format!("{}/{}", image.hex(), reader(id, incarnation, starts))
}

/// The run of a record's present start as the controller is told it: whole, and nothing long after the boot.
fn boot(runs: Vec<Run>, reader: &str, record: &Record) -> Option<Run> {
    let (started, ready) = (record.started_ms?, record.ready_ms?);
    let ours =
        |run: &Run| run.reader == reader && run.whole && run.began_unix_ms.abs_diff(started) <= OPEN_MS_MAX;
    let mut run = runs.into_iter().find(ours)?;
    let end_ms = ready.saturating_sub(started) + RUN_AFTER_READY_MS;
    run.touched.retain(|touch| u64::from(touch.at_ms) <= end_ms);
    (!run.touched.is_empty()).then_some(run)
}

fn summary(run: Run) -> RunSummary {
    RunSummary {
        began_unix_ms: run.began_unix_ms,
        connected: run.connected,
        whole: run.whole,
        profile: run.profile,
        scores: run.scores,
        touched: u32::try_from(run.touched.len()).unwrap_or(u32::MAX),
    }
}

/// An image the streamer does not have has nothing to tell.
fn or_none<T: Default>(answer: Result<T, CallError>) -> Result<T, CallError> {
    match answer {
        Err(CallError::Refused { status: 404, .. }) => Ok(T::default()),
        answer => answer,
    }
}

impl Works {
    /// Tells the controller what an instance has read since its start, once.
    pub(crate) async fn tell_run(&self, incarnation: Uuid) -> Result<(), WorkError> {
        let Some(record) = self.store.records().remove(&incarnation) else { return Ok(()) };
        let told = self.post_run(incarnation, &record).await;
        let starts = record.starts;
        self.store.note(incarnation, record, |record| match told {
            Ok(()) => record.run_told = starts,
            Err(_) => record.run_not_before_ms = unix_ms() + RUN_PAUSE_MS,
        });
        told
    }

    async fn post_run(&self, incarnation: Uuid, record: &Record) -> Result<(), WorkError> {
        let image = record.image;
        let runs = or_none(self.streamer.runs(image).await).map_err(|e| WorkError::Runs(image.short(), e))?;
        let Some(run) = boot(runs, &reader(&record.instance, incarnation, record.starts), record) else {
            return Ok(());
        };
        let url = format!("{}/agent/v1/images/{image}/runs", self.config.controller.trim_end_matches('/'));
        let request = self.controller.post(url).timeout(TELL_TIMEOUT).json(&run);
        let answer = request.send().await.map_err(|error| WorkError::Tell(image.short(), error))?;
        if answer.status().is_client_error() {
            // Nor will it take it later.
            tracing::warn!(instance = %record.instance, status = %answer.status(), "the controller refused a run");
            return Ok(());
        }
        answer.error_for_status().map(drop).map_err(|error| WorkError::Tell(image.short(), error))
    }

    /// What an instance's reads waited for: of its present start, or of one that is gone.
    pub(crate) async fn stream_report(&self, id: &InstanceId) -> Result<StreamReport, String> {
        // Two incarnations are here while the older is removed.
        let present = self.store.records().into_iter().filter(|(_, record)| record.instance == *id);
        let Some((incarnation, record)) = present.max_by_key(|(_, record)| record.started_ms) else {
            let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            return gone.last(id).ok_or_else(|| format!("there is and was no instance {id} on this host"));
        };
        let report = self.report(incarnation, &record).await;
        report.map_err(|error| format!("the streamer does not tell: {}", chain(&error)))
    }

    async fn report(&self, incarnation: Uuid, record: &Record) -> Result<StreamReport, CallError> {
        let reader = reader(&record.instance, incarnation, record.starts);
        let (stalls, runs) =
            tokio::join!(self.streamer.stalls(record.image), self.streamer.runs(record.image));
        let mut stalls = or_none(stalls)?;
        stalls.retain(|stall| stall.reader == reader);
        let run = or_none(runs)?.into_iter().find(|run| run.reader == reader);
        Ok(StreamReport {
            image: record.image,
            started_ms: record.started_ms,
            ready_ms: record.ready_ms,
            gone: false,
            run: run.map(summary),
            stalls,
        })
    }

    /// Keeps what is known of an instance's reads before it is forgotten, and tells its run if that was not done. A
    /// streamer or controller that does not answer holds nobody up.
    pub(crate) async fn remember(&self, incarnation: Uuid) {
        let Some(record) = self.store.records().remove(&incarnation) else { return };
        if record.ready_ms.is_some() && record.run_told != record.starts {
            // It is a hint; without it profiles are no worse than before.
            let _ = tokio::time::timeout(PARTING_TIMEOUT, self.post_run(incarnation, &record)).await;
        }
        let asked = tokio::time::timeout(PARTING_TIMEOUT, self.report(incarnation, &record)).await;
        if let Ok(Ok(report)) = asked {
            let report = StreamReport { gone: true, ..report };
            self.gone.lock().unwrap_or_else(PoisonError::into_inner).keep(record.instance, report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamer_api::Touch;

    fn record(started_ms: u64, ready_ms: Option<u64>) -> Record {
        let mut record = Record::new(
            "office/workspace".parse().unwrap(),
            Digest::from_bytes([1; 32]),
            crate::store::Wires::default(),
        );
        (record.started_ms, record.ready_ms, record.starts) = (Some(started_ms), ready_ms, 2);
        record
    }

    fn run(reader: &str, began_unix_ms: u64) -> Run {
        let touched = [10, 4_000, 60_000].map(|at_ms| Touch { piece: at_ms, at_ms }).into();
        Run { reader: reader.into(), began_unix_ms, whole: true, touched, ..Run::default() }
    }

    #[test]
    fn a_readers_name_tells_starts_and_incarnations_apart_and_fits_the_export() {
        let long = "n".repeat(types::NAME_LEN_MAX);
        let id: InstanceId = format!("{long}/{long}").parse().unwrap();
        let name = reader(&id, Uuid::from_bytes([0xab; 16]), u32::MAX);
        assert!(name.ends_with(":abababab.4294967295") && name.len() <= 128, "{name}");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
        assert!(name.chars().all(allowed));
        assert_ne!(reader(&id, Uuid::nil(), 1), reader(&id, Uuid::nil(), 2));
    }

    #[test]
    fn only_a_whole_boot_that_became_ready_is_told_and_not_what_came_long_after() {
        let told =
            boot(vec![run("other", 1_000), run("r", 1_500)], "r", &record(1_000, Some(9_000))).unwrap();
        assert_eq!(told.touched.iter().map(|touch| touch.at_ms).collect::<Vec<_>>(), [10, 4_000]);
        assert_eq!(boot(vec![run("r", 1_500)], "r", &record(1_000, None)), None);
        assert_eq!(boot(vec![run("r", 40_000)], "r", &record(1_000, Some(9_000))), None, "it began half-way");
        let partly = Run { whole: false, ..run("r", 1_500) };
        assert_eq!(boot(vec![partly], "r", &record(1_000, Some(9_000))), None);
    }

    #[test]
    fn the_oldest_of_many_that_are_gone_is_forgotten() {
        let mut gone = Gone::default();
        let id = |number: usize| format!("office/m{number}").parse::<InstanceId>().unwrap();
        let report = StreamReport {
            image: Digest::from_bytes([1; 32]),
            started_ms: None,
            ready_ms: None,
            gone: true,
            run: None,
            stalls: vec![],
        };
        (0..=GONE_MAX).for_each(|number| gone.keep(id(number), report.clone()));
        assert_eq!(gone.last(&id(0)), None);
        assert!(gone.last(&id(1)).is_some() && gone.last(&id(GONE_MAX)).is_some());
    }
}
