//! Packets counted on a link of a box, by tcpdump.

use anyhow::{Context as _, bail};
use playground::Part;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// A count under way.
#[derive(Debug)]
pub(crate) struct Count {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reading: JoinHandle<std::io::Result<()>>,
    /// Kept open: tcpdump has something to say at its end.
    _errors: BufReader<tokio::process::ChildStderr>,
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
        let mut output = BufReader::new(child.stdout.take().context("tcpdump's output")?).lines();
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
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&lines);
        let reading = tokio::spawn(async move {
            while let Some(line) = output.next_line().await? {
                // It prints an empty line at its end, and packets of some protocols on several lines.
                if !line.is_empty() && !line.starts_with('\t') {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
            Ok(())
        });
        Ok(Self { child, lines, reading, _errors: errors })
    }

    /// Frames that matched so far, as far as tcpdump has told.
    pub(crate) fn so_far(&self) -> usize {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends the count: one line for each frame that matched.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Vec<String>> {
        let pid = self.child.id().context("tcpdump ended by itself")?;
        Command::new("kill").args(["-INT", &pid.to_string()]).status().await?;
        tokio::time::timeout(Duration::from_secs(10), &mut self.reading)
            .await
            .context("tcpdump did not end")???;
        self.child.wait().await?;
        Ok(std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
