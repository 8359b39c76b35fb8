//! The main job, end to end: two hosts, two appliances from a swarm, a private network, and the proof.
//!
//! Starts a playground, publishes, applies a bundle, waits until it serves, prints the proof and stays up until Ctrl-C.
//! With `--check` it goes on to verify every claim of the README on the real system (faults included), prints the
//! figures, writes `bench/demo.json`, and ends; it exits 0 only if every claim held. `--story networks` tells of what
//! networks do for real guests (NAT, watching, interposing, explaining) in the same way, `--story life` of an appliance's
//! life (updates, checkpoints, moves, a host that loses power).
//!
//! What a user does is done with the user's tool: the `collective` program. What is measured is read from the REST API,
//! the kernel, and the wire. Start reading at [`stage`], then [`scenario`] or [`networks`].

mod claims;
mod cli;
mod console;
mod deletion;
mod figures;
mod life;
mod load;
mod machine;
mod networks;
mod observe;
mod probe;
mod scenario;
mod stage;
mod stream;
mod wire;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// The main job, end to end. Needs root; touches nothing of this machine's own network or libvirt.
#[derive(Debug, Clone, Parser)]
#[command(name = "collective-demo", version)]
struct Arguments {
    /// What to tell.
    #[arg(long, value_enum, default_value_t = Story::Office)]
    story: Story,
    /// Verify every claim, print the figures, and end.
    #[arg(long)]
    check: bool,
    /// Folder of the programs `collective`, `collectived`, `collective-agent`, ...
    #[arg(long, value_name = "DIR")]
    binaries: PathBuf,
    /// Folder of `balanced.wasm` and `packed.wasm`.
    #[arg(long, value_name = "DIR")]
    policies: PathBuf,
    /// Folder with a folder for each appliance of the story, each with `appliance.yaml` and `system.raw`.
    #[arg(long, value_name = "DIR")]
    appliances: PathBuf,
    /// Folder for everything the demo makes; removed at its end.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/collective/playground/demo")]
    state: PathBuf,
    /// The bundle to apply, with its deployment.
    #[arg(long, value_name = "FILE", default_value = "examples/office.yaml")]
    bundle: PathBuf,
    /// Folder of the dashboard's sources, for its browser test; without it that claim fails.
    #[arg(long, value_name = "DIR")]
    web: Option<PathBuf>,
    /// Where the figures are written.
    #[arg(long, value_name = "FILE", default_value = "bench/demo.json")]
    figures: PathBuf,
    /// TCP port on 127.0.0.1 for the API and the dashboard.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Leave the playground up when something fails, to look at it.
    #[arg(long)]
    keep_on_failure: bool,
}

/// The stories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Story {
    /// The main job: an office that boots from a swarm, behind a gateway.
    Office,
    /// What networks do for real guests.
    Networks,
    /// The life of an appliance: updated, checkpointed, restored, moved, and running on elsewhere.
    Life,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match stage::run(arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("demo: failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One line for the person watching.
fn say(line: &str) {
    #[expect(clippy::print_stdout, reason = "the demo speaks to a person")]
    {
        println!("{line}");
    }
}
