//! `policy replay`: what a component would have answered to what a cluster really asked.

use super::{component, remote};
use crate::commands::{Session, note};
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Row};
use crate::time;
use controller_api::policy::{DecisionView, PolicyKind};
use plugins_runtime::checkpoint::CheckpointInput;
use plugins_runtime::placement::PlacementInput;
use plugins_runtime::update::UpdateInput;
use plugins_runtime::{Kind, Outcome as _, Policy, PolicyError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use types::PolicyName;

pub(super) const HELP: &str = "\
WHAT is a file (.wasm), or the name of an installed policy. The inputs of recorded decisions are fetched
and the component answers them on this machine; the cluster notices nothing. Each is asked with the
settings of then, unless others are given. Shown are the decisions that would be others.

Exit code 1 says that something would be otherwise. What introspection policies saw is not recorded.

Examples:
  collective policy replay new.wasm --policy balanced --since 1d
  collective policy replay balanced --settings spread.json --limit 100
  collective policy replay new.wasm -o json | jq .summary";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A component, or an installed policy
    what: String,
    /// Only decisions of this policy
    #[arg(long, value_name = "NAME")]
    policy: Option<PolicyName>,
    /// Only decisions of the last so long, such as 1d
    #[arg(long, value_name = "TIME", value_parser = time::duration)]
    since: Option<Duration>,
    /// At most so many, the newest
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Settings instead of those of then (JSON or YAML)
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// One decision that was asked about again.
#[derive(Debug, Serialize)]
struct Replayed {
    decision: u64,
    at_ms: u64,
    subject: String,
    before: String,
    after: String,
    differs: bool,
    took_us: u64,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    component: String,
    digest: String,
    asked: usize,
    differ: usize,
    failed: usize,
    /// Inputs that are not kept any more.
    lost: usize,
    median_us: u64,
    worst_us: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    summary: Summary,
    differences: Vec<Replayed>,
}

impl Row for Replayed {
    const COLUMNS: &'static [&'static str] = &["DECISION", "SUBJECT", "BEFORE", "AFTER", "AGE"];
    const WIDE: &'static [&'static str] = &["TOOK"];
    fn name(&self) -> String {
        self.decision.to_string()
    }
    fn cells(&self, now_ms: u64) -> Vec<String> {
        let age = time::age(self.at_ms, now_ms);
        vec![Row::name(self), self.subject.clone(), self.before.clone(), self.after.clone(), age]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        vec![format!("{} us", self.took_us)]
    }
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let (bytes, of) = bytes(session, args).await?;
    let runtime = component::runtime(|_| ())?;
    let policy = component::load(&runtime, &bytes, &args.what)?;
    if policy.kind() == Kind::Introspection {
        return Err(Failure::usage(
            "introspection cannot be replayed: what the policy saw of its guest is not kept",
        ));
    }
    let settings = args.settings.as_deref().map(remote::settings).transpose()?;
    if let Some(settings) = &settings {
        policy.validate_settings(settings).map_err(|issues| {
            let line = |issue: &plugins_runtime::SettingsIssue| format!("{}: {}", issue.path, issue.message);
            Failure::refused(issues.iter().map(line).collect())
        })?;
    }
    let decisions = decisions(session, args, of.as_ref(), policy.kind()).await?;
    let report = replay(session, &policy, settings.as_ref(), decisions).await?;
    show(session, &report)?;
    Ok(if report.summary.differ > 0 { ExitCode::from(Code::Failed as u8) } else { ExitCode::SUCCESS })
}

/// The component, and whose decisions are asked about again; all of its kind if none.
async fn bytes(session: &Session, args: &Args) -> Result<(Vec<u8>, Option<PolicyName>), Failure> {
    let path = Path::new(&args.what);
    if path.is_file() || args.what.ends_with(".wasm") {
        return Ok((component::component(path)?, args.policy.clone()));
    }
    let name: PolicyName = args.what.parse().map_err(|_| {
        Failure::new(Code::NotFound, format!("{} is neither a file nor the name of a policy", args.what))
    })?;
    let bytes = session.client.policy_component(&name, None).await?;
    Ok((bytes, Some(args.policy.clone().unwrap_or(name))))
}

async fn decisions(
    session: &Session,
    args: &Args,
    of: Option<&PolicyName>,
    kind: Kind,
) -> Result<Vec<DecisionView>, Failure> {
    let mut query = vec![("limit", args.limit.to_string()), ("kind", kind.as_str().to_owned())];
    if let Some(since) = args.since {
        let now_ms = u128::from(chassis::clock::unix_ms());
        query.push(("since_ms", now_ms.saturating_sub(since.as_millis()).to_string()));
    }
    query.extend(of.map(|of| ("policy", of.to_string())));
    Ok(session.client.decisions_where(&query).await?)
}

async fn replay(
    session: &Session,
    policy: &Policy,
    settings: Option<&Value>,
    decisions: Vec<DecisionView>,
) -> Result<Report, Failure> {
    let manifest = policy.manifest();
    let mut summary = Summary {
        component: format!("{} {}", manifest.name, manifest.version),
        digest: policy.digest().to_string(),
        ..Summary::default()
    };
    let (mut differences, mut costs, total) = (Vec::new(), Vec::new(), decisions.len());
    let terminal = std::io::stderr().is_terminal();
    for (done, decision) in decisions.into_iter().enumerate() {
        if terminal {
            // Progress that nobody can read is not worth failing for.
            let _ = write!(std::io::stderr(), "\rasking again: {} of {total} ", done + 1);
        }
        let mut input = match session.client.decision_input(decision.id).await {
            Ok(input) => input,
            Err(error) if error.code() == Some(controller_api::rest::ProblemCode::NotFound) => {
                summary.lost += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(settings) = settings {
            input["settings"] = settings.clone();
        }
        summary.asked += 1;
        let (after, took_us) = match ask(policy, decision.kind, input)? {
            Ok(answer) => answer,
            Err(error) => {
                summary.failed += 1;
                (format!("error: {error}"), 0)
            }
        };
        costs.push(took_us);
        let differs = after != decision.outcome;
        if differs {
            let DecisionView { id, at_ms, subject, outcome, .. } = decision;
            differences.push(Replayed {
                decision: id,
                at_ms,
                subject,
                before: outcome,
                after,
                differs,
                took_us,
            });
        }
    }
    if terminal && total > 0 {
        let _ = writeln!(std::io::stderr());
    }
    costs.sort_unstable();
    summary.differ = differences.len();
    summary.median_us = costs.get(costs.len() / 2).copied().unwrap_or_default();
    summary.worst_us = costs.last().copied().unwrap_or_default();
    Ok(Report { summary, differences })
}

/// What it comes to, and the time it took.
type Asked = Result<(String, u64), PolicyError>;

fn ask(policy: &Policy, kind: PolicyKind, input: Value) -> Result<Asked, Failure> {
    Ok(match kind {
        PolicyKind::Placement => policy
            .place(&parse::<PlacementInput>(input)?)
            .map(|decision| (decision.verdict.outcome(), decision.took_us)),
        PolicyKind::Update => policy
            .next_step(&parse::<UpdateInput>(input)?)
            .map(|decision| (decision.verdict.outcome(), decision.took_us)),
        PolicyKind::Checkpoint => policy
            .schedule(&parse::<CheckpointInput>(input)?)
            .map(|decision| (decision.verdict.outcome(), decision.took_us)),
        PolicyKind::Introspection => {
            return Err(Failure::usage("introspection cannot be replayed"));
        }
    })
}

fn parse<T: DeserializeOwned>(input: Value) -> Result<T, Failure> {
    serde_json::from_value(input)
        .map_err(|error| Failure::failed(format!("a recorded input cannot be read by this program: {error}")))
}

fn show(session: &Session, report: &Report) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    match session.format {
        Format::Json => return output::json(&mut out, report),
        Format::Yaml => return output::yaml(&mut out, report),
        Format::Name | Format::Table | Format::Wide => {}
    }
    if !report.differences.is_empty() {
        output::list(&mut out, &report.differences, session.format, chassis::clock::unix_ms())?;
    }
    let Summary { component, asked, differ, failed, lost, median_us, worst_us, .. } = &report.summary;
    note(format_args!(
        "{component} was asked about {asked} decisions again: {differ} would be others, {failed} of these without an \
         answer; {median_us} us each, {worst_us} us at most"
    ));
    if *lost > 0 {
        note(format_args!("{lost} older inputs are not kept any more"));
    }
    Ok(())
}
