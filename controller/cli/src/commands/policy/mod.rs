//! `policy`: what an author does here ([`local`]), and what a controller is asked to do.

mod ask;
mod bench;
mod check;
mod component;
mod guest_file;
mod inspect;
mod key;
pub(crate) mod local;
mod new;
mod registry;
mod sign;
mod synthetic;
mod test;
mod wrap;

use super::{Session, note};
use crate::failure::Failure;
use crate::output;
use controller_api::rest::PolicyView;
use std::path::PathBuf;
use std::process::ExitCode;
use types::PolicyName;

/// As the API says.
const COMPONENT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Policies: WebAssembly components that decide
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Local(local::Command),
    /// Check a component and let a name stand for it; running decisions are not disturbed
    Install {
        /// Name that bundles use
        name: PolicyName,
        /// The component, a .wasm file
        file: PathBuf,
    },
    /// All that are installed
    #[command(visible_alias = "ls")]
    List,
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    let now = chassis::clock::unix_ms();
    match command {
        Command::Local(command) => return local::run(session.format, command).await,
        Command::List => {
            let policies: Vec<PolicyView> = session.client.policies().await?;
            output::list(&mut out, &policies, session.format, now)?;
        }
        Command::Install { name, file } => {
            let cannot =
                |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", file.display()));
            let size = std::fs::metadata(file).map_err(cannot)?.len();
            if size > COMPONENT_BYTES_MAX {
                return Err(Failure::refused(vec![format!("{} is larger than 32 MiB", file.display())]));
            }
            let bytes = std::fs::read(file).map_err(cannot)?;
            let shown = file.display().to_string();
            let place = |issue: &_| crate::documents::issue_text(Some(&shown), issue);
            let view =
                session.client.put_policy(name, bytes).await.map_err(|error| match error.problem() {
                    Some(problem) => Failure::from_problem(problem, place),
                    None => error.into(),
                })?;
            note(format_args!("policy {name} is now {} {}", view.active.component, view.active.version));
            output::one(&mut out, &view, session.format, now)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
