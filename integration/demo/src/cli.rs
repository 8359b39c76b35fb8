//! The user's tool, as a user runs it.

use anyhow::{Context as _, bail};
use playground::Endpoint;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// `collective`, pointed at one controller.
#[derive(Debug, Clone)]
pub(crate) struct Cli {
    program: PathBuf,
    endpoint: Endpoint,
    home: PathBuf,
}

impl Cli {
    /// The program of a folder; `home` holds the publisher's key that the first publish makes.
    pub(crate) fn new(binaries: &Path, endpoint: Endpoint, home: &Path) -> Self {
        Self { program: binaries.join("collective"), endpoint, home: home.to_owned() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", self.home.join(".config"))
            .env("COLLECTIVE_SERVER", &self.endpoint.url)
            .env("COLLECTIVE_TOKEN", &self.endpoint.token)
            .env("COLLECTIVE_CA", &self.endpoint.ca_file)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end and returns what it printed.
    pub(crate) async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).output().await.context("start the collective program")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let problem = String::from_utf8_lossy(&output.stderr);
            bail!(
                "`collective {}` ended with {}: {}{}",
                arguments.join(" "),
                output.status,
                problem.trim(),
                text.trim()
            );
        }
        Ok(text)
    }

    /// Runs it to its end, whatever that is: its exit code, and what it printed.
    pub(crate) async fn answer(&self, arguments: &[&str]) -> anyhow::Result<(i32, String)> {
        let output = self.command(arguments).output().await.context("start the collective program")?;
        let code = output.status.code().context("the collective program was killed")?;
        let (text, problem) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((code, format!("{text}{problem}")))
    }

    /// Runs it and shows the user what it says as it says it.
    pub(crate) async fn show(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let status = self.command(arguments).status().await.context("start the collective program")?;
        if !status.success() {
            bail!("`collective {}` ended with {status}", arguments.join(" "));
        }
        Ok(())
    }
}
