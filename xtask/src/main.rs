//! `cargo xtask TASK`.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Build steps that cargo alone does not know.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the first-party policies as WebAssembly components.
    Policies {
        /// Folder for the components [default: policies in the target directory].
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[expect(clippy::print_stdout, reason = "a command line tool")]
fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Policies { out } => {
            let built = xtask::policies::build(out.as_deref())?;
            for policy in &built.policies {
                println!("{} {:>7} bytes  {}", policy.digest, policy.bytes_len, policy.path.display());
            }
            if !built.rebuilt {
                println!("unchanged");
            }
        }
    }
    Ok(())
}
