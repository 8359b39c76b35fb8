//! Frames of a member's ports, as pcapng.

use crate::commands::{Session, note};
use crate::failure::Failure;
use crate::time;
use controller_api::network::CaptureQuery;
use std::fs::File;
use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is interposed at a port is an instance of its own. Ctrl-C ends it; what came until then is a whole \
    file.\n\nExamples:\n  collective network capture office/workspace -w workspace.pcapng --seconds 10\n  \
    collective network capture office/workspace/eth0 -w - | tshark -r -"
)]
pub(crate) struct Args {
    /// DEPLOYMENT/MEMBER or DEPLOYMENT/MEMBER/PORT
    #[arg(value_name = "OF")]
    of: String,
    /// Where to; - is standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// How long at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// Bytes kept of each frame
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(14..=65535))]
    snap: Option<u32>,
    /// Bytes of the file at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1024..=1 << 30))]
    bytes: Option<u64>,
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let path = args.write.as_ref().filter(|path| path.as_os_str() != "-");
    if path.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage("frames are not for a terminal: write them to a file with -w FILE"));
    }
    let query =
        CaptureQuery { of: args.of.clone(), seconds: args.seconds, snap_bytes: args.snap, bytes: args.bytes };
    // Asked first: what is refused leaves no empty file.
    let mut frames = session.client.capture(&query).await?;
    let mut out: Box<dyn Write> = match path {
        None => Box::new(std::io::stdout()),
        Some(path) => {
            let made = File::create(path);
            let failed = |error| Failure::failed(format!("cannot write {}: {error}", path.display()));
            Box::new(made.map_err(failed)?)
        }
    };
    let mut total = 0;
    loop {
        let next = tokio::select! {
            next = frames.next() => next?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                None
            }
        };
        let Some(bytes) = next else { break };
        out.write_all(&bytes)?;
        out.flush()?;
        total += bytes.len() as u64;
    }
    note(format_args!("{} captured", time::bytes(total)));
    Ok(ExitCode::SUCCESS)
}
