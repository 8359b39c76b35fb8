//! Frames of ports as a pcapng stream.
//!
//! A thread of its own reads packet sockets on the ports' taps. Its callers' slowness ends there: what does not fit its
//! bounded buffers is dropped for the capture, counted, and reaches the guest all the same. A frame that a guest sends
//! is seen before any rule, one that it is sent after all of them; to the tap the former is inbound.

mod pcapng;
mod socket;

use futures::Stream;
use futures::future::select_all;
use netd_plan::CapturePoint;
use nix::net::if_::if_nametoindex;
use pcapng::{Packet, Statistics};
use socket::{PacketSocket, now};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Most ports of one capture.
pub const CAPTURE_PORTS_MAX: usize = 64;
/// Frames of all ports of one capture that wait in the kernel, in bytes; each port has an equal part.
const WAITING_BYTES: usize = 16 << 20;
/// A chunk that reached this size is handed over before more is read.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a slow caller; then frames wait in the kernel, then they are dropped.
const CHUNKS_MAX: usize = 16;
/// Frames read of one port before the next has its turn.
const FRAMES_PER_TURN: usize = 64;
/// How long a caller who no longer reads holds up the end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// When a capture ends.
#[derive(Debug, Clone, Copy)]
pub struct CaptureLimits {
    /// Bytes kept of each frame.
    pub snap_bytes: u32,
    /// How long at most.
    pub duration: Duration,
    /// Bytes of the whole stream.
    pub bytes: u64,
}

/// Why a capture cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No port, or too many.
    #[error("{0} ports are meant; capture 1 to {CAPTURE_PORTS_MAX} at a time")]
    Ports(usize),
    /// The limit leaves no room for frames.
    #[error("{limit} bytes leave no room for frames of these ports; allow more than {needed}")]
    Bytes {
        /// As given.
        limit: u64,
        /// Of the blocks that every capture of these ports has.
        needed: u64,
    },
    /// A port's link is not there.
    #[error("port {port}: its link {link} cannot be listened to")]
    Link {
        /// The port's id.
        port: String,
        /// Its tap.
        link: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// The stream's chunks. Dropped, the capture ends.
#[derive(Debug)]
pub struct Chunks(mpsc::Receiver<Vec<u8>>);

impl Stream for Chunks {
    type Item = Vec<u8>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        self.0.poll_recv(context)
    }
}

/// Begins a capture in the network namespace of the calling thread.
///
/// # Errors
/// [`CaptureError`]; nothing is captured then.
pub fn capture(points: &[CapturePoint], limits: CaptureLimits) -> Result<Chunks, CaptureError> {
    if points.is_empty() || points.len() > CAPTURE_PORTS_MAX {
        return Err(CaptureError::Ports(points.len()));
    }
    let mut header = Vec::new();
    pcapng::section_header(&mut header);
    for CapturePoint { port, tap } in points {
        pcapng::interface(&mut header, tap, port, limits.snap_bytes);
    }
    let needed = header.len() as u64 + points.len() as u64 * pcapng::STATISTICS_BYTES;
    let Some(room) = limits.bytes.checked_sub(needed).filter(|room| *room > 0) else {
        return Err(CaptureError::Bytes { limit: limits.bytes, needed });
    };
    let begin = now();
    let sockets = points.iter().map(|point| listen(point, WAITING_BYTES / points.len()));
    let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CaptureError::Thread)?;
    let capturing = move || {
        let capture = Capturing {
            sockets: Vec::new(),
            sender,
            chunk: header,
            frame: vec![0; limits.snap_bytes as usize],
            room,
            begin,
        };
        runtime.block_on(capture.run(sockets, limits.duration));
    };
    let thread = std::thread::Builder::new().name("netd-capture".to_owned());
    thread.spawn(capturing).map_err(CaptureError::Thread)?;
    Ok(Chunks(chunks))
}

fn listen(point: &CapturePoint, buffer_bytes: usize) -> Result<PacketSocket, CaptureError> {
    let index = if_nametoindex(point.tap.as_str()).map_err(io::Error::from);
    let socket = index.and_then(|index| PacketSocket::open(index, buffer_bytes));
    let (port, link) = (point.port.clone(), point.tap.clone());
    socket.map_err(|source| CaptureError::Link { port, link, source })
}

/// Whether there is more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    More,
    End,
}

/// A capture under way.
struct Capturing {
    sockets: Vec<AsyncFd<PacketSocket>>,
    sender: mpsc::Sender<Vec<u8>>,
    /// Blocks that were not handed over yet.
    chunk: Vec<u8>,
    /// Where a frame is read to.
    frame: Vec<u8>,
    /// Bytes of frames' blocks that may still come.
    room: u64,
    begin: Duration,
}

impl Capturing {
    async fn run(mut self, sockets: Vec<PacketSocket>, duration: Duration) {
        let deadline = Instant::now() + duration;
        let registered = sockets.into_iter().map(PacketSocket::register).collect::<io::Result<Vec<_>>>();
        match registered {
            Ok(sockets) => self.sockets = sockets,
            Err(error) => return tracing::error!(%error, "a capture could not begin"),
        }
        let work = async { while self.turn().await == Next::More {} };
        tokio::select! {
            () = work => {}
            () = sleep_until(deadline) => {}
        }
        self.finish().await;
    }

    /// Hands over what there is, waits for frames, and reads some of each port.
    async fn turn(&mut self) -> Next {
        if self.flush().await == Next::End || self.wait().await == Next::End {
            return Next::End;
        }
        for index in 0..self.sockets.len() {
            if self.read(index) == Next::End {
                return Next::End;
            }
            if self.chunk.len() >= CHUNK_BYTES && self.flush().await == Next::End {
                return Next::End;
            }
        }
        Next::More
    }

    async fn flush(&mut self) -> Next {
        if self.chunk.is_empty() {
            return Next::More;
        }
        // The chunk is not lost if this is cut short while it waits for room.
        let Ok(permit) = self.sender.reserve().await else { return Next::End };
        permit.send(std::mem::take(&mut self.chunk));
        Next::More
    }

    async fn wait(&self) -> Next {
        let readable = self.sockets.iter().map(|socket| Box::pin(socket.readable()));
        tokio::select! {
            () = self.sender.closed() => Next::End,
            _ = select_all(readable) => Next::More,
        }
    }

    /// Reads frames until none waits or it is the next port's turn.
    fn read(&mut self, index: usize) -> Next {
        let Some(socket) = self.sockets.get(index) else { return Next::More };
        for _ in 0..FRAMES_PER_TURN {
            if self.chunk.len() >= CHUNK_BYTES {
                break;
            }
            let seen = socket.try_io(tokio::io::Interest::READABLE, |s| s.receive(&mut self.frame));
            // A link that goes down or away is told once, and may come again.
            let Ok(seen) = seen else { return Next::More };
            let begin = self.chunk.len();
            let packet = Packet {
                interface: u32::try_from(index).unwrap_or_default(),
                at: seen.at,
                bytes: self.frame.get(..seen.captured).unwrap_or_default(),
                length: seen.length,
                way: seen.way,
            };
            pcapng::packet(&mut self.chunk, &packet);
            let used = (self.chunk.len() - begin) as u64;
            match self.room.checked_sub(used) {
                Some(room) => self.room = room,
                None => {
                    self.chunk.truncate(begin);
                    return Next::End;
                }
            }
        }
        Next::More
    }

    /// What was seen and what was dropped.
    async fn finish(mut self) {
        let end = now();
        for (index, socket) in self.sockets.iter().enumerate() {
            let (received, dropped) = socket.get_ref().statistics().unwrap_or_default();
            let statistics =
                Statistics { begin: self.begin, end, received: received.into(), dropped: dropped.into() };
            pcapng::statistics(&mut self.chunk, u32::try_from(index).unwrap_or_default(), &statistics);
        }
        self.sockets.clear();
        let _ = timeout(END_TIMEOUT, self.flush()).await;
    }
}
