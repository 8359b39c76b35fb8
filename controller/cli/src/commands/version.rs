//! `version`: of this program, and of the controller if there is one.

use super::Session;
use crate::args::Global;
use crate::failure::Failure;
use crate::output::{self, Format};
use controller_api::rest::VersionView;
use serde::Serialize;
use std::io::Write as _;
use std::process::ExitCode;

#[derive(Debug, Serialize)]
struct Versions {
    client: &'static str,
    controller: Option<VersionView>,
}

pub(crate) async fn run(global: &Global) -> Result<ExitCode, Failure> {
    let controller = match Session::new(global) {
        Ok(session) => {
            session.client.version().await.map_err(|error| Failure::from(error).messages.join("; "))
        }
        Err(failure) => Err(failure.messages.join("; ")),
    };
    let mut out = std::io::stdout();
    let client = env!("CARGO_PKG_VERSION");
    match global.output {
        Format::Json => output::json(&mut out, &Versions { client, controller: controller.ok() })?,
        Format::Yaml => output::yaml(&mut out, &Versions { client, controller: controller.ok() })?,
        _ => {
            writeln!(out, "collective {client}")?;
            match controller {
                Ok(view) => writeln!(out, "controller {} (revision {})", view.version, view.revision)?,
                Err(reason) => writeln!(out, "controller unknown: {reason}")?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
