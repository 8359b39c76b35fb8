//! `console`: an instance's serial console on this terminal.

use super::{Session, instance_id, note};
use crate::failure::Failure;
use controller_client::Console;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use tokio::io::AsyncReadExt as _;

/// Ctrl-]: telnet's and libvirt's way out.
const LEAVE: u8 = 0x1d;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ctrl-] leaves. Without a terminal, standard input is sent and the console is written until the \
    other end closes or input ends."
)]
pub(crate) struct Args {
    /// DEPLOYMENT/MEMBER
    #[arg(value_name = "INSTANCE")]
    instance: String,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let console = session.client.console(&instance_id(&args.instance)?).await?;
    let raw = RawTerminal::enter()?;
    if raw.is_some() {
        note(format_args!("connected to {}; Ctrl-] leaves\r", args.instance));
    }
    let ended = carry(console).await;
    drop(raw);
    if std::io::stdin().is_terminal() {
        note("");
    }
    ended.map(|()| ExitCode::SUCCESS)
}

async fn carry(mut console: Console) -> Result<(), Failure> {
    let mut input = tokio::io::stdin();
    let mut out = std::io::stdout();
    let mut buffer = [0; 4096];
    let mut listening = true;
    loop {
        tokio::select! {
            bytes = console.receive() => {
                let Some(bytes) = bytes? else { return Ok(()) };
                out.write_all(&bytes)?;
                out.flush()?;
            }
            count = input.read(&mut buffer), if listening => {
                let bytes = &buffer[..count?];
                let leave = bytes.iter().position(|byte| *byte == LEAVE);
                let keys = &bytes[..leave.unwrap_or(bytes.len())];
                if !keys.is_empty() {
                    console.send(keys.to_vec()).await?;
                }
                if leave.is_some() {
                    return Ok(());
                }
                listening = !bytes.is_empty();
            }
        }
    }
}

/// A terminal that sends every key; as it was before when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Result<Option<Self>, Failure> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed = |errno: nix::errno::Errno| Failure::failed(format!("cannot use the terminal: {errno}"));
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
