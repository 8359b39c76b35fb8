//! `policy wrap`.

use super::component;
use crate::failure::Failure;
use plugins_artifact::{COMPONENT_BYTES_MAX, Kind};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The core module, a .wasm file
    module: PathBuf,
    /// Where the component goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Kind of the policy, where the module does not say it itself (Rust's bindings do)
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let module = component::read(&args.module, COMPONENT_BYTES_MAX)?;
    let refused = |problem: String| Failure::refused(vec![format!("{}: {problem}", args.module.display())]);
    let bytes = plugins_kit::wrap(&module, args.kind).map_err(|error| refused(error.to_string()))?;
    std::fs::write(&args.out, bytes)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", args.out.display())))?;
    Ok(ExitCode::SUCCESS)
}
