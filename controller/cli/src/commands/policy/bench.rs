//! `policy bench`: what decisions cost, by the size of the question.

use super::ask::Question;
use super::component;
use super::synthetic;
use crate::failure::{Failure, chain};
use crate::output::{self, Format, Row};
use crate::time;
use plugins_runtime::{Policy, thread_time};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Decisions before any is counted: the first ones fault their pages in.
const WARM_UP: usize = 5;
/// Time spent on one size, at most.
const BUDGET: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component, a .wasm file
    file: PathBuf,
    /// Sizes of the question: hosts, instances, checkpoints, or MiB of guest memory
    #[arg(
        long,
        visible_aliases = ["hosts", "instances", "checkpoints"],
        value_name = "N",
        value_delimiter = ',',
        default_value = "100,1000,10000"
    )]
    sizes: Vec<u32>,
    /// Decisions of each size, at most; 3 s are spent on one size
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rounds: usize,
    /// A file with settings instead of the policy's defaults (JSON)
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// A recorded question instead of invented ones
    #[arg(long, value_name = "FILE", conflicts_with = "sizes")]
    input: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Cost {
    /// Rows of the question; absent for a recorded one.
    size: Option<u32>,
    rounds: usize,
    /// Processor time of the policy and of the runtime around it.
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    /// Most linear memory that a call took, bytes.
    memory_bytes: u64,
}

impl Row for Cost {
    const COLUMNS: &'static [&'static str] = &["SIZE", "P50", "P99", "MAX", "MEMORY", "ROUNDS"];
    const WIDE: &'static [&'static str] = &[];
    fn name(&self) -> String {
        output::or_dash(self.size.as_ref())
    }
    fn cells(&self, _: u64) -> Vec<String> {
        let us = |us: u64| format!("{us} us");
        let memory = time::bytes(self.memory_bytes);
        vec![self.name(), us(self.p50_us), us(self.p99_us), us(self.max_us), memory, self.rounds.to_string()]
    }
    fn wide_cells(&self, _: u64) -> Vec<String> {
        Vec::new()
    }
}

pub(super) fn run(args: &Args, format: Format) -> Result<ExitCode, Failure> {
    let bytes = component::component(&args.file)?;
    let shown = args.file.display().to_string();
    let policy = component::load(&component::runtime(|_| ())?, &bytes, &shown)?;
    let settings = settings(args, &policy)?;
    let questions = match &args.input {
        Some(file) => vec![(None, Question::read(policy.kind(), file)?)],
        None => {
            let question = |size: &u32| (Some(*size), synthetic::question(policy.kind(), *size, &settings));
            args.sizes.iter().map(question).collect()
        }
    };
    let mut costs = Vec::new();
    for (size, question) in questions {
        let question = question.prepared().map_err(|error| Failure::failed(chain(&error)))?;
        let mut cost = measure(&policy, &question, args.rounds.max(1))?;
        cost.size = size;
        costs.push(cost);
    }
    output::list(&mut std::io::stdout(), &costs, format, 0)?;
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &Args, policy: &Policy) -> Result<serde_json::Value, Failure> {
    let Some(file) = &args.settings else { return Ok(serde_json::Value::Null) };
    let wrong = |problem: String| Failure::refused(vec![format!("{}: {problem}", file.display())]);
    let value: serde_json::Value =
        serde_json::from_slice(&component::read(file, 1 << 20)?).map_err(|error| wrong(error.to_string()))?;
    policy.validate_settings(&value).map_err(|issues| {
        let messages =
            issues.iter().map(|issue| format!("{}: {}: {}", file.display(), issue.path, issue.message));
        Failure::refused(messages.collect())
    })?;
    Ok(value)
}

fn measure(policy: &Policy, question: &Question, rounds: usize) -> Result<Cost, Failure> {
    let ask = || question.ask(policy).map_err(|error| Failure::failed(chain(&error)));
    for _ in 0..WARM_UP {
        ask()?;
    }
    let began = Instant::now();
    let (mut times, mut memory_bytes) = (Vec::new(), 0);
    while times.len() < rounds && (times.is_empty() || began.elapsed() < BUDGET) {
        let before = thread_time();
        let answer = ask()?;
        // What the deadline counts, and what a busy machine does not change.
        times.push(u64::try_from((thread_time() - before).as_micros()).unwrap_or(u64::MAX));
        memory_bytes = answer.memory_bytes.max(memory_bytes);
    }
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied().unwrap_or(0);
    let (rounds, p50_us, p99_us, max_us) = (times.len(), at(50), at(99), at(100));
    Ok(Cost { size: None, rounds, p50_us, p99_us, max_us, memory_bytes })
}
