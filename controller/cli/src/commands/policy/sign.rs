//! `policy sign`.

use super::{component, key};
use crate::commands::note;
use crate::failure::Failure;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component, a .wasm file
    file: PathBuf,
    /// The secret key, as `collective policy key new` makes it or `openssl genpkey -algorithm ed25519`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the signature goes instead of FILE.sig
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let secret = key::secret(&args.key)?;
    let bytes = component::component(&args.file)?;
    // It is asked what it is, so that nobody signs for something that no controller would load.
    let policy = component::load(&component::runtime(|_| ())?, &bytes, &args.file.display().to_string())?;
    let statement = component::statement(&policy);
    let envelope = plugins_artifact::sign(&statement, &secret)
        .map_err(|error| Failure::refused(vec![format!("{}: {error}", args.file.display())]))?;
    let out = args.out.clone().unwrap_or_else(|| component::signature_path(&args.file));
    chassis::durable::write(&out, &envelope, 0o644)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", out.display())))?;
    note(format_args!(
        "{}: {} {} {} ({}) by key {}",
        out.display(),
        statement.kind,
        statement.name,
        statement.version,
        statement.component.short(),
        secret.public().id().0.short()
    ));
    Ok(ExitCode::SUCCESS)
}
