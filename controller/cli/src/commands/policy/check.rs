//! `policy check`.

use super::component;
use crate::failure::Failure;
use crate::output::{self, Format, Row};
use plugins_conformance::{Claim, Outcome, Report};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component, a .wasm file
    file: PathBuf,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Line<'a>(&'a Claim);

impl Row for Line<'_> {
    const COLUMNS: &'static [&'static str] = &["OUTCOME", "CLAIM", "SEEN"];
    const WIDE: &'static [&'static str] = &[];
    fn name(&self) -> String {
        self.0.name.clone()
    }
    fn cells(&self, _: u64) -> Vec<String> {
        let outcome = match self.0.outcome {
            Outcome::Passed => "passed",
            Outcome::Warned => "WARNED",
            Outcome::Failed => "FAILED",
        };
        vec![outcome.to_owned(), self.0.name.clone(), self.0.detail.clone()]
    }
    fn wide_cells(&self, _: u64) -> Vec<String> {
        Vec::new()
    }
}

pub(super) fn run(args: &Args, format: Format) -> Result<ExitCode, Failure> {
    let bytes = component::component(&args.file)?;
    let report: Report = plugins_conformance::check(&component::runtime(|_| ())?, &bytes);
    let mut out = std::io::stdout();
    match format {
        Format::Json => output::json(&mut out, &report)?,
        Format::Yaml => output::yaml(&mut out, &report)?,
        Format::Table | Format::Wide | Format::Name => {
            let lines: Vec<_> = report.claims.iter().map(Line).collect();
            output::list(&mut out, &lines, format, 0)?;
        }
    }
    Ok(ExitCode::from(u8::from(!report.passed())))
}
