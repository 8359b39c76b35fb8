//! `apply`: make documents so.

use super::Session;
use crate::documents::{self, Documents};
use crate::failure::Failure;
use crate::output::{self, Format, printable};
use controller_api::host::PlannedPlacement;
use controller_api::rest::{AppliedChange, ApplyResult, ChangeAction};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "All files are one change: either all of it is taken, or nothing.\n\nExamples:\n  \
    collective apply -f site.yaml -f office.yaml\n  cat office.yaml | collective apply -f -\n  \
    collective apply -f office.yaml --dry-run")]
pub(crate) struct Args {
    /// YAML file, or - for standard input; may be repeated
    #[arg(short, long = "file", required = true, num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Check, and say what would change, but change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let documents = documents::read(&args.files)?;
    let result = send(session, Verb::Apply, &documents, args.dry_run).await?;
    show(&mut std::io::stdout(), &result, session.format, args.dry_run)?;
    Ok(ExitCode::SUCCESS)
}

/// What is done with documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Apply,
    Delete,
}

/// Sends documents; a refusal says the file and line.
pub(crate) async fn send(
    session: &Session,
    verb: Verb,
    documents: &Documents,
    dry_run: bool,
) -> Result<ApplyResult, Failure> {
    let text = documents.text.as_str();
    let result = match verb {
        Verb::Apply => session.client.apply(text, dry_run).await,
        Verb::Delete => session.client.delete(text, dry_run).await,
    };
    result.map_err(|error| match error.problem() {
        Some(problem) => Failure::from_problem(problem, |issue| documents.place(issue)),
        None => error.into(),
    })
}

pub(crate) fn show(
    out: &mut impl Write,
    result: &ApplyResult,
    format: Format,
    dry_run: bool,
) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(out, result),
        Format::Yaml => output::yaml(out, result),
        Format::Name => {
            result.changes.iter().try_for_each(|change| writeln!(out, "{}", object(change)))?;
            Ok(())
        }
        Format::Table | Format::Wide => {
            let suffix = if dry_run { " (dry run)" } else { "" };
            for change in &result.changes {
                writeln!(out, "{} {}{suffix}", object(change), word(change.action))?;
                if format == Format::Wide {
                    change.diff.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
                }
            }
            result.placements.iter().try_for_each(|planned| placement(out, planned))
        }
    }
}

/// Where a new instance would go, and why: the policy was really asked.
fn placement(out: &mut impl Write, planned: &PlannedPlacement) -> Result<(), Failure> {
    let (id, decision) = (&planned.instance, &planned.decision);
    let why = match &decision.host {
        Some(host) => {
            writeln!(out, "instance/{id} would go to {host} (policy {})", decision.policy)?;
            let taken = decision.choices.iter().find(|choice| choice.host == *host);
            taken.map_or(&[][..], |choice| choice.reasons.as_slice())
        }
        None => {
            writeln!(
                out,
                "instance/{id} would find no host (policy {}: {})",
                decision.policy, decision.verdict
            )?;
            decision.notes.as_slice()
        }
    };
    why.iter().try_for_each(|reason| writeln!(out, "  {}", printable(reason)))?;
    Ok(())
}

/// `bundle/office`.
pub(crate) fn object(change: &AppliedChange) -> String {
    format!("{}/{}", change.document.to_lowercase(), change.name)
}

fn word(action: ChangeAction) -> &'static str {
    match action {
        ChangeAction::Created => "created",
        ChangeAction::Updated => "updated",
        ChangeAction::Unchanged => "unchanged",
        ChangeAction::Deleted => "deleted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_happened_to_each_document() {
        let result: ApplyResult = serde_json::from_value(serde_json::json!({"revision": 4, "changes": [
            {"document": "Bundle", "name": "office", "action": "created", "diff": ["+kind: Bundle"]},
            {"document": "Site", "name": "main", "action": "unchanged"},
        ]}))
        .unwrap();
        let mut out = Vec::new();
        show(&mut out, &result, Format::Table, true).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "bundle/office created (dry run)\nsite/main unchanged (dry run)\n");
    }
}
