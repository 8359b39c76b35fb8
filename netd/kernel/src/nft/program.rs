//! This machine's `nft`, as a child of the thread that polls it: it works in that thread's namespace.

use super::NftError;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Longest run, which compiles a few hundred lines.
pub(crate) const NFT_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs it to its end, whatever it says.
pub(crate) async fn run(arguments: &[&str], input: &str, longest: Duration) -> Result<Output, NftError> {
    let mut child = Command::new("nft")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NftError::Run)?;
    let work = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A refusal may close the pipe early; the exit status tells.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    tokio::time::timeout(longest, work).await.map_err(|_| NftError::Timeout)?.map_err(NftError::Run)
}

/// Carries out a text, as a whole or not at all.
pub(crate) async fn load(text: &str) -> Result<(), NftError> {
    let output = run(&["-f", "-"], text, NFT_TIMEOUT).await?;
    if output.status.success() { Ok(()) } else { Err(refused(&output)) }
}

/// What it says against it.
pub(crate) fn refused(output: &Output) -> NftError {
    NftError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
