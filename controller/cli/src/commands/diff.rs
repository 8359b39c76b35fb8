//! `diff`: what applying would change.

use super::Session;
use super::apply::{self, Verb};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::{documents, failure};
use controller_api::rest::{ApplyResult, ChangeAction};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code 0: nothing would change. 1: something would.\n\nExample:\n  \
    collective diff -f office.yaml || collective apply -f office.yaml")]
pub(crate) struct Args {
    /// YAML file, or - for standard input; may be repeated
    #[arg(short, long = "file", required = true, num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let documents = documents::read(&args.files)?;
    let result = apply::send(session, Verb::Apply, &documents, true).await?;
    let mut out = std::io::stdout();
    match session.format {
        Format::Table | Format::Wide => show(&mut out, &result, output::colours())?,
        format => apply::show(&mut out, &result, format, true)?,
    }
    let differs = result.changes.iter().any(|change| change.action != ChangeAction::Unchanged);
    Ok(if differs { ExitCode::from(failure::Code::Failed as u8) } else { ExitCode::SUCCESS })
}

fn show(out: &mut impl Write, result: &ApplyResult, colours: bool) -> Result<(), Failure> {
    for change in result.changes.iter().filter(|change| change.action != ChangeAction::Unchanged) {
        let object = apply::object(change);
        writeln!(out, "--- {object} (stored)\n+++ {object} (given)")?;
        for line in &change.diff {
            writeln!(out, "{}", painted(line, colours))?;
        }
    }
    Ok(())
}

fn painted(line: &str, colours: bool) -> String {
    let colour = match line.chars().next() {
        Some('+') => "32",
        Some('-') => "31",
        Some('@') => "36",
        _ => return line.to_owned(),
    };
    if colours { format!("\u{1b}[{colour}m{line}\u{1b}[0m") } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_only_what_differs_and_paints_only_when_asked() {
        let result: ApplyResult = serde_json::from_value(serde_json::json!({"revision": 4, "changes": [
            {"document": "Bundle", "name": "office", "action": "updated", "diff": ["@@", "-a: 1", "+a: 2", " b: 3"]},
            {"document": "Site", "name": "main", "action": "unchanged"},
        ]}))
        .unwrap();
        let render = |colours| {
            let mut out = Vec::new();
            show(&mut out, &result, colours).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            render(false),
            "--- bundle/office (stored)\n+++ bundle/office (given)\n@@\n-a: 1\n+a: 2\n b: 3\n"
        );
        assert!(render(true).contains("\u{1b}[31m-a: 1\u{1b}[0m"));
    }
}
