//! One connection: reads what the peer says, sends what the torrent wants said and the blocks the peer asked for.

use crate::Storage;
use crate::transport::Stream;
use crate::wire::{self, Said, Say, Violation};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use streamer_plan::{Block, PeerKey, Pieces};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;

/// Silence after which we say that we are still here.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Silence after which one of ours, which keeps alive as we do, is dead.
const SILENCE_MAX: Duration = Duration::from_secs(13);
/// The same for other clients: they keep alive every two minutes.
const FOREIGN_SILENCE_MAX: Duration = Duration::from_secs(150);
/// A message that takes longer to leave finds a dead peer.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests a peer may have waiting here.
const REQUESTS_MAX: usize = 512;
/// Blocks read from the disk at a time for one peer.
const READ_BLOCKS_MAX: usize = 4;

/// What a connection tells its torrent.
#[derive(Debug)]
pub(crate) enum Event {
    Choking(bool),
    Has(u32),
    HasAll(Pieces),
    Block(Block, Bytes),
    Gone(Ended),
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub(crate) enum Ended {
    #[error("it is gone")]
    Lost(#[from] io::Error),
    #[error("it broke the protocol")]
    Violation(#[from] Violation),
    #[error("it is silent")]
    Silent,
    #[error("it is not needed")]
    Dropped,
}

/// Everything a connection needs.
pub(crate) struct Connection {
    pub(crate) key: PeerKey,
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) storage: Arc<dyn Storage>,
    /// Of the whole engine: whoever reads blocks waits in line.
    pub(crate) disk: Arc<Semaphore>,
    pub(crate) say: mpsc::UnboundedReceiver<Say>,
    pub(crate) events: mpsc::Sender<(PeerKey, Event)>,
    pub(crate) uploaded: Arc<AtomicU64>,
    /// It keeps alive as we do.
    pub(crate) ours: bool,
}

/// Blocks a peer asked for and has not got.
#[derive(Default)]
struct Asked {
    blocks: Mutex<VecDeque<Block>>,
    more: Notify,
}

impl Asked {
    fn with<T>(&self, change: impl FnOnce(&mut VecDeque<Block>) -> T) -> T {
        change(&mut self.blocks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs a connection until it ends, and tells the torrent.
pub(crate) async fn run(connection: Connection) {
    let Connection { key, stream, storage, disk, say, events, uploaded, ours } = connection;
    let (read_half, write_half) = tokio::io::split(stream);
    let asked = Asked::default();
    let ended = {
        let listen = listen(read_half, key, &storage, &events, &asked, ours);
        let talk = Talk { stream: write_half, storage: &storage, disk, asked: &asked, uploaded };
        tokio::select! {
            ended = listen => ended,
            ended = talk.run(say) => ended,
        }
    };
    // The torrent may be gone first.
    let _ = events.send((key, Event::Gone(ended))).await;
}

async fn listen(
    mut stream: ReadHalf<Box<dyn Stream>>,
    key: PeerKey,
    storage: &Arc<dyn Storage>,
    events: &mpsc::Sender<(PeerKey, Event)>,
    asked: &Asked,
    ours: bool,
) -> Ended {
    let geometry = storage.geometry();
    let silence = if ours { SILENCE_MAX } else { FOREIGN_SILENCE_MAX };
    let mut buffer = BytesMut::with_capacity(64 << 10);
    loop {
        let event = match wire::take(&mut buffer, geometry) {
            Err(violation) => return violation.into(),
            Ok(None) => {
                match timeout(silence, receive(&mut stream, &mut buffer)).await {
                    Err(_) => return Ended::Silent,
                    Ok(Err(error)) => return error.into(),
                    Ok(Ok(())) => {}
                }
                continue;
            }
            Ok(Some(Said::Nothing)) => continue,
            Ok(Some(Said::Asks(block))) => {
                let waiting = asked.with(|blocks| {
                    blocks.push_back(block);
                    blocks.len()
                });
                if waiting > REQUESTS_MAX {
                    return Violation::TooManyRequests.into();
                }
                asked.more.notify_one();
                continue;
            }
            Ok(Some(Said::TakesBack(block))) => {
                asked.with(|blocks| blocks.retain(|waiting| *waiting != block));
                continue;
            }
            Ok(Some(Said::Choking(choking))) => Event::Choking(choking),
            Ok(Some(Said::Has(piece))) => Event::Has(piece),
            Ok(Some(Said::HasAll(pieces))) => Event::HasAll(pieces),
            Ok(Some(Said::Sends(block, bytes))) => Event::Block(block, bytes),
        };
        if events.send((key, event)).await.is_err() {
            return Ended::Dropped;
        }
    }
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(32 << 10);
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

struct Talk<'a> {
    stream: WriteHalf<Box<dyn Stream>>,
    storage: &'a Arc<dyn Storage>,
    disk: Arc<Semaphore>,
    asked: &'a Asked,
    uploaded: Arc<AtomicU64>,
}

impl Talk<'_> {
    async fn run(mut self, mut say: mpsc::UnboundedReceiver<Say>) -> Ended {
        let mut buffer = BytesMut::new();
        loop {
            tokio::select! {
                biased;
                next = say.recv() => match next {
                    None => return Ended::Dropped,
                    Some(next) => wire::put(&mut buffer, &next),
                },
                () = self.asked.more.notified() => {
                    if let Err(ended) = self.send_blocks(&mut say, &mut buffer).await {
                        return ended;
                    }
                }
                () = tokio::time::sleep(KEEP_ALIVE) => buffer.extend_from_slice(&[0; 4]),
            }
            while let Ok(next) = say.try_recv() {
                wire::put(&mut buffer, &next);
            }
            if let Err(ended) = self.send(&mut buffer).await {
                return ended;
            }
        }
    }

    /// Sends what the peer asked for; what we have to say goes between any two blocks.
    async fn send_blocks(
        &mut self,
        say: &mut mpsc::UnboundedReceiver<Say>,
        buffer: &mut BytesMut,
    ) -> Result<(), Ended> {
        loop {
            let blocks: Vec<Block> =
                self.asked.with(|blocks| blocks.drain(..blocks.len().min(READ_BLOCKS_MAX)).collect());
            if blocks.is_empty() {
                return Ok(());
            }
            for (block, bytes) in self.read(blocks).await? {
                buffer.extend_from_slice(&wire::block_header(block));
                buffer.extend_from_slice(&bytes);
                while let Ok(next) = say.try_recv() {
                    wire::put(buffer, &next);
                }
                self.send(buffer).await?;
                let length = u64::from(block.length);
                self.uploaded.fetch_add(length, Ordering::Relaxed);
                self.storage.uploaded(length);
            }
        }
    }

    async fn read(&mut self, blocks: Vec<Block>) -> Result<Vec<(Block, Bytes)>, Ended> {
        let _turn = self.disk.acquire().await.map_err(|_| Ended::Dropped)?;
        let storage = Arc::clone(self.storage);
        let read = move || {
            // A piece that is lost meanwhile is not sent: the peer asks another.
            blocks.into_iter().filter_map(|block| Some((block, storage.read_block(block)?))).collect()
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| Ended::Dropped)
    }

    async fn send(&mut self, buffer: &mut BytesMut) -> Result<(), Ended> {
        if buffer.is_empty() {
            return Ok(());
        }
        let sent = timeout(SEND_TIMEOUT, flush(&mut self.stream, buffer)).await;
        buffer.clear();
        match sent {
            Err(_) => Err(Ended::Silent),
            Ok(result) => Ok(result?),
        }
    }
}

async fn flush(stream: &mut (impl AsyncWrite + Unpin), buffer: &[u8]) -> io::Result<()> {
    stream.write_all(buffer).await?;
    stream.flush().await
}
