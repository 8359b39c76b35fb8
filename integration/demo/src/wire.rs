//! Packets counted on a link of a box, by tcpdump.

use anyhow::{Context as _, bail};
use playground::Part;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A count under way.
#[derive(Debug)]
pub(crate) struct Count {
    child: Child,
    output: BufReader<tokio::process::ChildStdout>,
    errors: BufReader<tokio::process::ChildStderr>,
}

impl Count {
    /// Counts frames that match a pcap filter, from when this returns.
    pub(crate) async fn start(part: &Part, link: &str, filter: &str) -> anyhow::Result<Self> {
        // Only the network is entered, not the processes: then the child is tcpdump itself and takes its signal.
        let mut child = Command::new("nsenter")
            .args(["--target", &part.process().pid.to_string(), "--net", "--"])
            .args(["tcpdump", "-l", "-n", "-p", "-i", link, filter])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start tcpdump")?;
        let output = BufReader::new(child.stdout.take().context("tcpdump's output")?);
        let mut errors = BufReader::new(child.stderr.take().context("tcpdump's messages")?);
        let mut line = String::new();
        let listening = tokio::time::timeout(Duration::from_secs(10), async {
            while errors.read_line(&mut line).await? > 0 {
                if line.contains("listening on") {
                    return Ok(true);
                }
            }
            Ok::<_, std::io::Error>(false)
        });
        if !listening.await.context("tcpdump did not begin")?? {
            bail!("tcpdump on {link} of {}: {}", part.name(), line.trim());
        }
        Ok(Self { child, output, errors })
    }

    /// Ends the count (tcpdump prints an empty line then): one line for each frame that matched.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Vec<String>> {
        let pid = self.child.id().context("tcpdump ended by itself")?;
        Command::new("kill").args(["-INT", &pid.to_string()]).status().await?;
        let mut lines = String::new();
        let mut rest = String::new();
        let read = async {
            self.output.read_to_string(&mut lines).await?;
            self.errors.read_to_string(&mut rest).await
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.context("tcpdump did not end")??;
        self.child.wait().await?;
        Ok(lines
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('\t'))
            .map(str::to_owned)
            .collect())
    }
}
