//! Whether a component is a policy to rely on.
//!
//! [`check`] loads a component as the controller would and asks it about the edges of what the contract allows: no host
//! and the most hosts, everything full, codes of a later contract, labels that nobody has. Each question is asked twice,
//! because the same input must give the same answer. The [`Report`] says which claims hold, and what the answers cost.
//!
//! [`specimen`] makes policies that misbehave in ways no compiler would; the suite of hostile ones is in `tests`.
//!
//! This crate judges no wisdom: a policy that places badly, but as the contract says, passes. It needs nothing but a
//! [`Runtime`], so that anybody can run it on a component of his own.

mod cases;
mod checkpoint;
mod introspection;
mod placement;
pub mod questions;
mod settings;
pub mod specimen;
mod update;

use cases::Case;
use plugins_runtime::{Kind, Policy, PolicyError, Runtime};
use serde::Serialize;
use types::Digest;

/// A policy that needs more than this share of its deadline, in per cent, is warned.
const DEADLINE_SHARE_MAX: u64 = 50;

/// Calls that a cost is the median of.
const COST_CALLS: usize = 15;

/// What was found out about a component.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// SHA-256 of the component.
    pub digest: Digest,
    /// Size of the component.
    pub bytes: usize,
    /// Which decision it makes, if it could be loaded.
    pub kind: Option<Kind>,
    /// What it calls itself.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// What was asked, in order.
    pub claims: Vec<Claim>,
    /// What answers cost, by size of the question.
    pub costs: Vec<Cost>,
}

impl Report {
    /// Whether no claim failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.claims.iter().all(|claim| claim.outcome != Outcome::Failed)
    }
}

/// One thing that a policy to rely on does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// Which, as a sentence without a full stop.
    pub name: String,
    /// Whether it holds.
    pub outcome: Outcome,
    /// What was seen; empty where there is nothing to say.
    pub detail: String,
}

impl Claim {
    fn new(name: impl Into<String>, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { name: name.into(), outcome, detail: detail.into() }
    }
}

/// Whether a claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It does.
    Passed,
    /// The contract allows what was seen, and an author will want to know.
    Warned,
    /// It does not.
    Failed,
}

/// What an answer costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Rows of the question: hosts, instances or checkpoints.
    pub rows: u32,
    /// Median over some calls, microseconds by the wall clock.
    pub median_us: u64,
    /// The slowest of them.
    pub worst_us: u64,
    /// Processor time that a call may take.
    pub deadline_us: u64,
}

/// Asks a component everything. Takes some seconds, of which most is compiling.
#[must_use]
pub fn check(runtime: &Runtime, component: &[u8]) -> Report {
    let mut report = Report {
        digest: plugins_runtime::component_digest(component),
        bytes: component.len(),
        kind: None,
        name: None,
        version: None,
        imports: Vec::new(),
        claims: Vec::new(),
        costs: Vec::new(),
    };
    let loads =
        "it loads: a component of a world of the contract that describes itself and accepts its own settings";
    let policy = match runtime.load(component) {
        Ok(policy) => policy,
        Err(error) => {
            report.claims.push(Claim::new(loads, Outcome::Failed, chain(&error)));
            return report;
        }
    };
    report.claims.push(Claim::new(loads, Outcome::Passed, ""));
    report.kind = Some(policy.kind());
    report.name = Some(policy.manifest().name.clone());
    report.version = Some(policy.manifest().version.clone());
    report.imports = policy.imports().to_vec();
    report.claims.extend(settings::claims(&policy));
    let cases = match policy.kind() {
        Kind::Placement => placement::cases(),
        Kind::Update => update::cases(),
        Kind::Checkpoint => checkpoint::cases(),
        Kind::Introspection => introspection::cases(),
    };
    let mut differs = Vec::new();
    for case in &cases {
        report.claims.push(ask_twice(&policy, case, &mut differs));
    }
    let same = "the same question gives the same answer";
    report.claims.push(match differs.first() {
        None => Claim::new(same, Outcome::Passed, ""),
        Some(first) => Claim::new(same, Outcome::Failed, first.as_str()),
    });
    let deadline_us = runtime.limits().deadline_ms * 1000;
    for case in cases.iter().filter(|case| case.rows > 0) {
        report.costs.extend(cost(&policy, case, deadline_us));
    }
    report.claims.extend(report.costs.last().map(hurry));
    report
}

/// Asks one question twice. What differs is noted; the claim is that there is an answer.
fn ask_twice(policy: &Policy, case: &Case, differs: &mut Vec<String>) -> Claim {
    let name = format!("it answers about {}", case.name);
    let (first, second) = ((case.ask)(policy), (case.ask)(policy));
    let same = match (&first, &second) {
        (Ok(first), Ok(second)) => first.verdict == second.verdict,
        (Err(first), Err(second)) => first == second,
        _ => false,
    };
    if !same {
        differs.push(format!("it did not about {}", case.name));
    }
    match first {
        Ok(answer) => match answer.unwise {
            None => Claim::new(name, Outcome::Passed, answer.summary),
            Some(unwise) => Claim::new(name, Outcome::Warned, unwise),
        },
        Err(error @ PolicyError::Declined { .. }) => Claim::new(name, Outcome::Warned, error.to_string()),
        Err(error) => Claim::new(name, Outcome::Failed, error.to_string()),
    }
}

fn cost(policy: &Policy, case: &Case, deadline_us: u64) -> Option<Cost> {
    let times = std::iter::repeat_with(|| (case.ask)(policy).map(|answer| answer.took_us));
    let mut times: Vec<u64> = times.take(COST_CALLS).collect::<Result<_, _>>().ok()?;
    times.sort_unstable();
    Some(Cost { rows: case.rows, median_us: times[times.len() / 2], worst_us: *times.last()?, deadline_us })
}

/// Whether the largest question leaves time to spare.
fn hurry(cost: &Cost) -> Claim {
    let share = cost.median_us * 100 / cost.deadline_us.max(1);
    let detail = format!("{} rows take {} us of {} us", cost.rows, cost.median_us, cost.deadline_us);
    let outcome = if share > DEADLINE_SHARE_MAX { Outcome::Warned } else { Outcome::Passed };
    Claim::new("the largest question leaves half of the deadline", outcome, detail)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
