//! One connection: reads what the peer says, sends what the torrent wants said and the blocks the peer asked for.

use crate::Storage;
use crate::engine::Shared;
use crate::extension::{Numbers, REQUESTS_MAX};
use crate::meter::Meter;
use crate::transport::Stream;
use crate::uploads::{Lane, Turn};
use crate::wire::{self, Hello, Said, Say, Violation};
use bytes::{Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;
use streamer_plan::{Block, PeerKey, Pieces};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

/// Silence after which we say that we are still here. Of sixty idle peers this is all there is to do.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Silence after which one of ours, which keeps alive as we do, is dead. Nobody waits for that: who is silent while a
/// guest waits is overtaken by the scheduler.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// The same for other clients: they keep alive every two minutes.
const FOREIGN_SILENCE_MAX: Duration = Duration::from_secs(150);
/// A message that takes longer to leave finds a dead peer.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Room for what comes in, in bytes: little while a peer only chats, more while it sends blocks.
const ROOM_BYTES_MIN: usize = 4 << 10;
const ROOM_BYTES_MAX: usize = 64 << 10;

/// What a connection tells its torrent.
#[derive(Debug)]
pub(crate) enum Event {
    /// The first of all: how it speaks. `None` if it knows none of our extensions.
    Hello(Option<Hello>),
    Choking(bool),
    Has(u32),
    HasAll(Pieces),
    Wants(u32),
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
    #[error("it sent wrong bytes")]
    Poisoned,
    /// Of a web seed.
    #[error(transparent)]
    WebSeed(#[from] crate::web_seed::WebSeedError),
}

/// Blocks sent to one peer.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) bytes: AtomicU64,
    pub(crate) meter: Meter,
}

/// Everything a connection needs.
pub(crate) struct Connection {
    pub(crate) key: PeerKey,
    pub(crate) lane: Lane,
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) say: mpsc::UnboundedReceiver<Say>,
    pub(crate) events: mpsc::Sender<(PeerKey, Event)>,
    pub(crate) sent: Arc<Sent>,
    /// It keeps alive as we do.
    pub(crate) ours: bool,
    /// It will say hello before anything else, or never.
    pub(crate) extensible: bool,
}

/// The peer's numbers for our messages, told by the listening half to the talking one.
#[derive(Default)]
struct Spoken(AtomicU16);

impl Spoken {
    fn set(&self, numbers: Numbers) {
        self.0.store(u16::from_be_bytes([numbers.urgent, numbers.want]), Ordering::Relaxed);
    }

    fn get(&self) -> Numbers {
        let [urgent, want] = self.0.load(Ordering::Relaxed).to_be_bytes();
        Numbers { urgent, want }
    }
}

/// Runs a connection until it ends, and tells the torrent.
pub(crate) async fn run(connection: Connection) {
    let Connection { key, lane, stream, shared, storage, say, events, sent, ours, extensible } = connection;
    let (read_half, write_half) = tokio::io::split(stream);
    let spoken = Spoken::default();
    let door = shared.uploads.join(lane);
    let ended = {
        let listen = Listen { key, lane, shared: &shared, events: &events, spoken: &spoken, greeted: false };
        let silence = if ours { SILENCE_MAX } else { FOREIGN_SILENCE_MAX };
        let talk = Talk {
            lane,
            stream: write_half,
            shared: &shared,
            storage: &storage,
            door: &door,
            spoken: &spoken,
            sent: &sent,
            ahead: None,
        };
        tokio::select! {
            ended = listen.run(read_half, &storage, silence, extensible) => ended,
            ended = talk.run(say) => ended,
        }
    };
    shared.uploads.leave(lane);
    // The torrent may be gone first.
    let _ = events.send((key, Event::Gone(ended))).await;
}

struct Listen<'a> {
    key: PeerKey,
    lane: Lane,
    shared: &'a Shared,
    events: &'a mpsc::Sender<(PeerKey, Event)>,
    spoken: &'a Spoken,
    /// The torrent knows how it speaks.
    greeted: bool,
}

impl Listen<'_> {
    async fn run(
        mut self,
        mut stream: ReadHalf<Box<dyn Stream>>,
        storage: &Arc<dyn Storage>,
        silence: Duration,
        extensible: bool,
    ) -> Ended {
        let geometry = storage.geometry();
        let mut buffer = BytesMut::new();
        let mut room = ROOM_BYTES_MIN;
        if !extensible && let Err(ended) = self.greet(None).await {
            return ended;
        }
        loop {
            let done = match wire::take(&mut buffer, geometry) {
                Err(violation) => Err(violation.into()),
                Ok(Some(said)) => self.hear(said).await,
                Ok(None) => match timeout(silence, receive(&mut stream, &mut buffer, &mut room)).await {
                    Err(_) => Err(Ended::Silent),
                    Ok(received) => received.map_err(Ended::from),
                },
            };
            if let Err(ended) = done {
                return ended;
            }
        }
    }

    async fn hear(&mut self, said: Said) -> Result<(), Ended> {
        if !self.greeted {
            if let Said::Hello(hello) = said {
                self.spoken.set(hello.numbers);
                return self.greet(Some(hello)).await;
            }
            self.greet(None).await?;
        }
        let event = match said {
            Said::Nothing | Said::Hello(_) => return Ok(()),
            Said::Asks(block) => {
                let waiting = self.shared.uploads.ask(self.lane, block);
                let fine = waiting <= REQUESTS_MAX;
                return if fine { Ok(()) } else { Err(Violation::TooManyRequests.into()) };
            }
            Said::Urges(block) => {
                self.shared.uploads.urge(self.lane, block);
                return Ok(());
            }
            Said::TakesBack(block) => {
                self.shared.uploads.take_back(self.lane, block);
                return Ok(());
            }
            Said::Wants(piece) => Event::Wants(piece),
            Said::Choking(choking) => Event::Choking(choking),
            Said::Has(piece) => Event::Has(piece),
            Said::HasAll(pieces) => Event::HasAll(pieces),
            Said::Sends(block, bytes) => Event::Block(block, bytes),
        };
        self.tell(event).await
    }

    async fn greet(&mut self, hello: Option<Hello>) -> Result<(), Ended> {
        self.greeted = true;
        self.tell(Event::Hello(hello)).await
    }

    async fn tell(&self, event: Event) -> Result<(), Ended> {
        self.events.send((self.key, event)).await.map_err(|_| Ended::Dropped)
    }
}

async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    room: &mut usize,
) -> io::Result<()> {
    buffer.reserve(*room);
    let free = buffer.capacity() - buffer.len();
    let read = stream.read_buf(buffer).await?;
    *room = if read == free { *room * 2 } else { read * 2 }.clamp(ROOM_BYTES_MIN, ROOM_BYTES_MAX);
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

struct Talk<'a> {
    lane: Lane,
    stream: WriteHalf<Box<dyn Stream>>,
    shared: &'a Shared,
    storage: &'a Arc<dyn Storage>,
    door: &'a Notify,
    spoken: &'a Spoken,
    sent: &'a Sent,
    /// Read from the disk, and not yet sent.
    ahead: Option<(Block, Bytes)>,
}

impl Talk<'_> {
    async fn run(mut self, mut say: mpsc::UnboundedReceiver<Say>) -> Ended {
        let mut buffer = BytesMut::new();
        let mut said = Instant::now();
        loop {
            while let Ok(next) = say.try_recv() {
                wire::put(&mut buffer, &next, self.spoken.get());
            }
            if let Err(ended) = self.talk(&mut buffer, &mut said).await {
                return ended;
            }
            match self.shared.uploads.next(self.lane) {
                Some(turn) => {
                    if let Err(ended) = self.send_block(turn).await {
                        return ended;
                    }
                    said = Instant::now();
                }
                None => tokio::select! {
                    biased;
                    next = say.recv() => match next {
                        None => return Ended::Dropped,
                        Some(next) => wire::put(&mut buffer, &next, self.spoken.get()),
                    },
                    () = self.door.notified() => {}
                    () = tokio::time::sleep_until(said + KEEP_ALIVE) => buffer.extend_from_slice(&[0; 4]),
                },
            }
        }
    }

    async fn talk(&mut self, buffer: &mut BytesMut, said: &mut Instant) -> Result<(), Ended> {
        if buffer.is_empty() {
            return Ok(());
        }
        send(&mut self.stream, buffer, &[]).await?;
        // A bitfield may have been long.
        *buffer = BytesMut::new();
        *said = Instant::now();
        Ok(())
    }

    async fn send_block(&mut self, turn: Turn) -> Result<(), Ended> {
        let block = turn.block;
        // A piece that is lost meanwhile is not sent: the peer asks another.
        let Some(bytes) = self.read(turn).await? else { return Ok(()) };
        send(&mut self.stream, &wire::block_header(block), &bytes).await?;
        let length = u64::from(block.length);
        self.sent.bytes.fetch_add(length, Ordering::Relaxed);
        self.sent.meter.count(length, self.shared.began.elapsed());
        self.storage.uploaded(length);
        Ok(())
    }

    /// A block; what is asked for behind it is read with it.
    async fn read(&mut self, turn: Turn) -> Result<Option<Bytes>, Ended> {
        let block = turn.block;
        if let Some((run, bytes)) = &self.ahead
            && run.piece == block.piece
            && run.begin <= block.begin
            && block.begin + block.length <= run.begin + run.length
        {
            let from = (block.begin - run.begin) as usize;
            return Ok(Some(bytes.slice(from..from + block.length as usize)));
        }
        let run = Block { length: turn.run_bytes, ..block };
        let bytes = match self.storage.read_block_now(run) {
            Some(bytes) => Some(bytes),
            None => {
                let _turn = self.shared.disk.acquire().await.map_err(|_| Ended::Dropped)?;
                let storage = Arc::clone(self.storage);
                let read = tokio::task::spawn_blocking(move || storage.read_block(run));
                read.await.map_err(|_| Ended::Dropped)?
            }
        };
        self.ahead = None;
        let Some(bytes) = bytes else { return Ok(None) };
        let first = bytes.slice(..block.length as usize);
        if turn.run_bytes > block.length {
            self.ahead = Some((run, bytes));
        }
        Ok(Some(first))
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), head: &[u8], body: &[u8]) -> Result<(), Ended> {
    match timeout(SEND_TIMEOUT, write(stream, head, body)).await {
        Err(_) => Err(Ended::Silent),
        Ok(result) => Ok(result?),
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), head: &[u8], body: &[u8]) -> io::Result<()> {
    let mut parts = [IoSlice::new(head), IoSlice::new(body)];
    let mut parts = &mut parts[..];
    let mut left = head.len() + body.len();
    while left > 0 {
        let written = stream.write_vectored(parts).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        left -= written;
        IoSlice::advance_slices(&mut parts, written);
    }
    stream.flush().await
}
