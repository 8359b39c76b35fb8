//! Watching guests from outside: which policy is asked about which guest, and when.
//!
//! One look at a time, on a thread that may block; between two looks the thread rests, so that watching has at most a
//! share of one processor. What a policy keeps between looks is kept here, in memory, and belongs to one run of one
//! guest: the next run, another component, other settings or other grants begin anew. The agent's loop only reads what
//! is left in `Works::watches`.

mod component;
mod findings;
mod views;

use crate::store::Record;
use crate::work::Works;
use chassis::clock::unix_ms;
use chassis::reconcile::Hint;
use component::Components;
use controller_api::agent::HostDesired;
use controller_api::watch::{DesiredWatch, Grant, WatchStatus};
use controller_hypervisor::GuestMemory;
use findings::Findings;
use plugins_runtime::State;
use plugins_runtime::introspection::{self, BYTES_MAX_DEFAULT, GuestFacts, IntrospectionInput, Trigger};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use types::{InstanceId, PolicyName, Revision};
use uuid::Uuid;
use views::LiveGuest;

/// Longest time until the desired document is looked at again.
const ROUND: Duration = Duration::from_millis(500);
/// After a look, at least this many times its time passes before the next.
const REST_PER_LOOK: u32 = 4;
/// A look that failed is not tried again before, milliseconds.
const RETRY_MS: u64 = 5_000;
/// Shortest time between two looks at one guest, milliseconds.
const NEXT_MS_MIN: u64 = 100;

type Key = (InstanceId, PolicyName);

/// One policy that watches one run of one guest.
#[derive(Debug)]
struct Watch {
    desired: DesiredWatch,
    run: Run,
    state: State,
    findings: Findings,
    due_ms: u64,
    memory: Option<Arc<GuestMemory>>,
    status: WatchStatus,
}

/// One run of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    incarnation: Uuid,
    started_ms: u64,
}

/// Watches until `shutdown`. A look that is under way then ends by its deadline.
pub(crate) async fn run(works: Arc<Works>, hint: Hint, shutdown: CancellationToken) {
    let mut watches: BTreeMap<Key, Watch> = BTreeMap::new();
    let components = Components::default();
    while !shutdown.is_cancelled() {
        let desired = works.store.desired().unwrap_or_default();
        keep_desired(&mut watches, &desired, &works.store.records());
        let now_ms = unix_ms();
        let mut rest = Duration::ZERO;
        let due =
            watches.values_mut().filter(|watch| watch.due_ms <= now_ms).min_by_key(|watch| watch.due_ms);
        if let Some(watch) = due {
            let begun = Instant::now();
            let news = watch.look(&works, &desired, &components).await;
            rest = begun.elapsed() * REST_PER_LOOK;
            publish(&works, &watches);
            if news {
                hint.now();
            }
        } else {
            publish(&works, &watches);
        }
        let next_ms = watches.values().map(|watch| watch.due_ms).min().unwrap_or(u64::MAX);
        let until_due = Duration::from_millis(next_ms.saturating_sub(unix_ms()));
        let pause = rest.max(until_due.min(ROUND));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn publish(works: &Works, watches: &BTreeMap<Key, Watch>) {
    let all = watches.values().map(|watch| watch.status.clone()).collect();
    *works.watches.lock().unwrap_or_else(PoisonError::into_inner) = all;
}

/// Brings the watches into line with the document and with what runs.
fn keep_desired(watches: &mut BTreeMap<Key, Watch>, desired: &HostDesired, records: &BTreeMap<Uuid, Record>) {
    let wanted: BTreeMap<Key, (&DesiredWatch, Run)> = desired
        .watches
        .iter()
        .filter_map(|watch| Some((key(watch), (watch, present_run(desired, records, &watch.instance)?))))
        .collect();
    watches.retain(|key, held| {
        wanted.get(key).is_some_and(|(watch, run)| **watch == held.desired && *run == held.run)
    });
    for (key, (watch, run)) in wanted {
        watches.entry(key).or_insert_with(|| Watch::new(watch.clone(), run));
    }
}

fn key(watch: &DesiredWatch) -> Key {
    (watch.instance.clone(), watch.policy.clone())
}

/// The run that goes on of an instance that is wanted.
fn present_run(desired: &HostDesired, records: &BTreeMap<Uuid, Record>, id: &InstanceId) -> Option<Run> {
    let instance = desired.instances.iter().find(|instance| instance.id == *id)?;
    let incarnation = instance.incarnation.parse().ok()?;
    let record = records.get(&incarnation).filter(|record| !record.ended)?;
    Some(Run { incarnation, started_ms: record.started_ms? })
}

/// What a look found out.
struct Looked {
    report: introspection::Report,
    took_us: u64,
}

impl Watch {
    fn new(desired: DesiredWatch, run: Run) -> Self {
        let status = WatchStatus {
            instance: desired.instance.clone(),
            policy: desired.policy.clone(),
            looked_ms: None,
            took_us: 0,
            looks: 0,
            problem: None,
            reasons: Vec::new(),
            findings: Vec::new(),
            findings_dropped: 0,
        };
        Self {
            desired,
            run,
            state: State::default(),
            findings: Findings::default(),
            due_ms: 0,
            memory: None,
            status,
        }
    }

    /// Looks once. True: the controller should hear of it at once.
    async fn look(&mut self, works: &Arc<Works>, desired: &HostDesired, components: &Components) -> bool {
        let looked = self.try_look(works, desired, components).await;
        let now_ms = unix_ms();
        match looked {
            Ok(Looked { report, took_us }) => {
                let fresh = self.findings.take(report.findings, now_ms);
                for finding in &fresh {
                    let (policy, id) = (&self.desired.policy, &self.desired.instance);
                    let message = format!(
                        "{policy} sees in {id}: {} ({}, {})",
                        finding.title, finding.severity, finding.rule
                    );
                    works.tell(id, "introspection-finding", message);
                }
                self.state = report.state;
                let next_ms = self
                    .desired
                    .every_ms
                    .map_or(report.next_call_ms, |every| every.min(report.next_call_ms).max(NEXT_MS_MIN));
                self.due_ms = now_ms.saturating_add(next_ms);
                let reasons = report.reasons.into_iter();
                self.status = WatchStatus {
                    looked_ms: Some(now_ms),
                    took_us,
                    looks: self.status.looks + 1,
                    problem: None,
                    reasons: reasons.map(|reason| format!("{}: {}", reason.code, reason.text)).collect(),
                    findings: self.findings.newest_first(),
                    findings_dropped: self.findings.dropped(),
                    ..self.status.clone()
                };
                !fresh.is_empty()
            }
            Err(problem) => {
                // The guest may be another by now: its memory is opened anew.
                self.memory = None;
                self.due_ms = now_ms + RETRY_MS;
                let news = self.status.problem.as_ref() != Some(&problem);
                if news {
                    let (policy, id) = (&self.desired.policy, &self.desired.instance);
                    works.tell(
                        id,
                        "introspection-failed",
                        format!("{policy} cannot look into {id}: {problem}"),
                    );
                }
                self.status.problem = Some(problem);
                news
            }
        }
    }

    async fn try_look(
        &mut self,
        works: &Arc<Works>,
        desired: &HostDesired,
        components: &Components,
    ) -> Result<Looked, String> {
        let policy = components.policy(works, self.desired.component).await?;
        let instance = desired.instances.iter().find(|instance| instance.id == self.desired.instance);
        let instance = instance.ok_or("it is not wanted here any more")?;
        let memory = match &self.memory {
            Some(memory) if memory.is_there() => Arc::clone(memory),
            _ => {
                let opened = works.hypervisor.guest_memory(self.run.incarnation).await;
                let opened = opened.map_err(|error| chassis::telemetry::chain(&error).to_string())?;
                Arc::clone(self.memory.insert(Arc::new(opened)))
            }
        };
        let guest =
            Arc::new(LiveGuest::new(works, desired, instance, self.run.incarnation, Arc::clone(&memory)));
        let input = self.input(GuestFacts {
            instance: self.desired.instance.to_string(),
            appliance: self.desired.appliance.clone(),
            version: self.desired.version.clone(),
            arch: "x86_64".to_owned(),
            vcpus: instance.vcpus,
            memory_bytes: instance.memory.0,
            started_ms: self.run.started_ms,
            paused: false,
            attributes: BTreeMap::new(),
        });
        let asked = tokio::task::spawn_blocking(move || policy.inspect(&input, guest)).await;
        let decision = asked.map_err(|error| format!("the look was cut off: {error}"))?;
        let decision = decision.map_err(|error| error.to_string())?;
        if !memory.is_there() {
            return Err("the guest went away while it was looked at".to_owned());
        }
        Ok(Looked { report: decision.verdict, took_us: decision.took_us })
    }

    fn input(&self, guest: GuestFacts) -> IntrospectionInput {
        let looks = self.status.looks;
        IntrospectionInput {
            decision_id: format!("{}/{}/{looks}", self.desired.instance, self.desired.policy),
            seed: u32::try_from(looks & 0xffff_ffff).unwrap_or(0),
            now_ms: unix_ms(),
            revision: Revision(0),
            settings: self.desired.settings.clone().unwrap_or_default(),
            guest,
            grants: self.desired.grants.iter().map(|grant| granted(*grant)).collect(),
            bytes_max: self.desired.bytes_max.unwrap_or(BYTES_MAX_DEFAULT),
            trigger: if looks == 0 { Trigger::Started } else { Trigger::Time },
            trigger_attributes: BTreeMap::new(),
            state: self.state.clone(),
        }
    }
}

fn granted(grant: Grant) -> introspection::Grant {
    match grant {
        Grant::Memory => introspection::Grant::Memory,
        Grant::Cpu => introspection::Grant::Cpu,
        Grant::Flows => introspection::Grant::Flows,
        Grant::Disk => introspection::Grant::Disk,
    }
}

#[cfg(test)]
mod tests;
