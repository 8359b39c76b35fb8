//! Listens on the health ports of running guests: a line `ready` says that the guest serves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Pause between attempts to open a guest's port; QEMU makes the socket before the guest runs.
const DIAL_PAUSE: Duration = Duration::from_millis(100);
/// Longest line that is looked at; the rest of a longer one is skipped.
const LINE_BYTES_MAX: usize = 64;

/// One run of one incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) incarnation: Uuid,
    pub(crate) started_ms: u64,
}

/// One reader a run.
#[derive(Debug)]
pub(crate) struct Listener {
    readers: BTreeMap<Run, JoinHandle<()>>,
    ready: mpsc::Sender<Run>,
}

impl Listener {
    /// Each `ready` is sent to the channel.
    pub(crate) fn new(ready: mpsc::Sender<Run>) -> Self {
        Self { readers: BTreeMap::new(), ready }
    }

    /// Listens to these runs and no others.
    pub(crate) fn listen(&mut self, runs: &[Run], socket: impl Fn(Uuid) -> PathBuf) {
        self.readers.retain(|run, reader| {
            let keep = runs.contains(run);
            if !keep {
                reader.abort();
            }
            keep
        });
        for run in runs {
            self.readers.entry(*run).or_insert_with(|| {
                let (path, ready, run) = (socket(run.incarnation), self.ready.clone(), *run);
                tokio::spawn(async move { read(&path, run, &ready).await })
            });
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.readers.values().for_each(JoinHandle::abort);
    }
}

async fn read(path: &Path, run: Run, ready: &mpsc::Sender<Run>) {
    loop {
        if let Ok(stream) = UnixStream::connect(path).await {
            // Its end is the guest's or QEMU's: whether the run goes on is seen elsewhere.
            let _ = read_lines(stream, run, ready).await;
        }
        tokio::time::sleep(DIAL_PAUSE).await;
    }
}

async fn read_lines(mut stream: UnixStream, run: Run, ready: &mpsc::Sender<Run>) -> std::io::Result<()> {
    let mut line = Vec::new();
    let mut bytes = [0; 512];
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        for byte in &bytes[..count] {
            if *byte == b'\n' {
                if line.trim_ascii() == b"ready" && ready.send(run).await.is_err() {
                    return Ok(());
                }
                line.clear();
            } else if line.len() <= LINE_BYTES_MAX {
                line.push(*byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn only_the_line_ready_counts_also_in_parts_and_after_a_long_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.sock");
        let guest = UnixListener::bind(&path).unwrap();
        let (sender, mut ready) = mpsc::channel(8);
        let mut listener = Listener::new(sender);
        let run = Run { incarnation: Uuid::nil(), started_ms: 7 };
        listener.listen(&[run], |_| path.clone());
        let (mut stream, _) = guest.accept().await.unwrap();
        stream.write_all(b"already\nready to\n").await.unwrap();
        stream.write_all(&[b'x'; 4096]).await.unwrap();
        stream.write_all(b"ready\nrea").await.unwrap();
        stream.flush().await.unwrap();
        assert!(ready.try_recv().is_err());
        stream.write_all(b"dy\r\n").await.unwrap();
        assert_eq!(ready.recv().await, Some(run));
        assert!(ready.try_recv().is_err());
        // The next reader is told anew, as after a restart of the agent.
        drop(stream);
        let (mut stream, _) = guest.accept().await.unwrap();
        stream.write_all(b"ready\n").await.unwrap();
        assert_eq!(ready.recv().await, Some(run));
        listener.listen(&[], |_| path.clone());
        assert!(listener.readers.is_empty());
    }
}
