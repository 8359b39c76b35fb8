//! A block client that asks many things at a time: fixed newstyle, simple replies, one connection.

use anyhow::{Context as _, ensure};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Reads that wait for their reply, by cookie, and how long each is.
type Waiting = Arc<Mutex<HashMap<u64, (u32, oneshot::Sender<Vec<u8>>)>>>;

/// One connection to one export.
#[derive(Debug)]
pub(crate) struct Nbd {
    writer: tokio::sync::Mutex<(OwnedWriteHalf, u64)>,
    waiting: Waiting,
    replies: JoinHandle<()>,
}

impl Drop for Nbd {
    fn drop(&mut self) {
        self.replies.abort();
    }
}

impl Nbd {
    pub(crate) async fn connect(socket: &Path, export: &str) -> anyhow::Result<Self> {
        let what = || format!("cannot open the export {export} on {}", socket.display());
        let stream = UnixStream::connect(socket).await.with_context(what)?;
        let (mut reader, mut writer) = stream.into_split();
        negotiate(&mut reader, &mut writer, export).await.with_context(what)?;
        let waiting = Waiting::default();
        let replies = tokio::spawn(deliver(reader, Arc::clone(&waiting)));
        Ok(Self { writer: tokio::sync::Mutex::new((writer, 0)), waiting, replies })
    }

    /// Reads; resolves when the bytes are here. Requests travel in the order this is called.
    pub(crate) async fn read(&self, offset: u64, length: u32) -> anyhow::Result<Vec<u8>> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut writer = self.writer.lock().await;
            writer.1 += 1;
            let cookie = writer.1;
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(cookie, (length, sender));
            let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
            request.extend_from_slice(&[0; 4]);
            request.extend_from_slice(&cookie.to_be_bytes());
            request.extend_from_slice(&offset.to_be_bytes());
            request.extend_from_slice(&length.to_be_bytes());
            writer.0.write_all(&request).await.context("the export hung up")?;
        }
        receiver.await.with_context(|| format!("the read of {length} bytes at {offset} failed"))
    }
}

async fn negotiate(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    export: &str,
) -> anyhow::Result<()> {
    let mut hello = [0; 18];
    reader.read_exact(&mut hello).await?;
    ensure!(&hello[..16] == b"NBDMAGICIHAVEOPT", "this is no NBD server");
    // Fixed newstyle, no zeroes; then the oldest way to choose an export.
    let mut answer = 3u32.to_be_bytes().to_vec();
    answer.extend_from_slice(b"IHAVEOPT");
    answer.extend_from_slice(&1u32.to_be_bytes());
    answer.extend_from_slice(&u32::try_from(export.len())?.to_be_bytes());
    answer.extend_from_slice(export.as_bytes());
    writer.write_all(&answer).await?;
    reader.read_exact(&mut [0; 10]).await.context("it is not exported")?;
    Ok(())
}

/// Gives replies to those who wait until the server hangs up or says an error: then nobody waits any longer.
async fn deliver(mut reader: OwnedReadHalf, waiting: Waiting) {
    let mut header = [0; 16];
    while reader.read_exact(&mut header).await.is_ok() {
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let cookie = u64::from(word(8)) << 32 | u64::from(word(12));
        let entry = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&cookie);
        let Some((length, sender)) = entry else { break };
        if word(0) != REPLY_MAGIC || word(4) != 0 {
            break;
        }
        let mut data = vec![0; length as usize];
        if reader.read_exact(&mut data).await.is_err() {
            break;
        }
        let _ = sender.send(data);
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
