//! A web server as a peer that has everything: the last resort (client and server).
//!
//! It is presented to the torrent like any other peer, by the same events. One range request fetches one piece; of its
//! answer no more is read than was asked for, so that limits and windows hold here too.

use crate::connection::{Ended, Event};
use crate::wire::Say;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use reqwest::StatusCode;
use reqwest::header::{self, HeaderValue};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use streamer_plan::{Block, Geometry, PeerKey, Pieces};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Range requests at a time, but for those somebody waits for.
const FETCHES_MAX: usize = 4;
/// Longest wait for the answer to begin, and to go on.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Why a web seed is of no use.
#[derive(Debug, Error)]
pub(crate) enum WebSeedError {
    #[error("the web seed cannot be reached: {}", crate::tracker::chain(.0))]
    Unreachable(reqwest::Error),
    #[error("the web seed is silent")]
    Silent,
    #[error("the web seed answers {0}")]
    Status(StatusCode),
    #[error("the web seed ignores ranges: it answers {0} to a request for a part")]
    NoRanges(StatusCode),
    #[error("the web seed sends another range than was asked for: {0:?}")]
    WrongRange(String),
    #[error("the web seed's answer was cut short")]
    CutShort,
}

impl WebSeedError {
    /// It will not be better in a moment.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::NoRanges(_) | Self::WrongRange(_))
    }
}

/// Everything a web seed needs.
pub(crate) struct WebSeed {
    pub(crate) key: PeerKey,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    pub(crate) geometry: Geometry,
    pub(crate) say: mpsc::UnboundedReceiver<Say>,
    pub(crate) events: mpsc::Sender<(PeerKey, Event)>,
    /// Where it turned out to be.
    pub(crate) address: Arc<OnceLock<SocketAddr>>,
}

/// A piece that is being fetched. Dropped, it ends.
struct Fetch {
    piece: u32,
    /// Offset in the piece behind all that was asked for: it is read once, from front to back.
    next: u32,
    asks: mpsc::UnboundedSender<Block>,
    /// Asked for and not taken back; some are delivered.
    asked: Vec<Block>,
    /// Offset in the piece up to where it is delivered.
    delivered: Arc<AtomicU32>,
    _stop: DropGuard,
}

impl Fetch {
    fn ask(&mut self, block: Block) {
        // If it has just failed, that is told next.
        let _ = self.asks.send(block);
        self.next = block.begin + block.length;
        self.asked.push(block);
    }

    /// Takes a block back; `true` if nobody waits for anything of it now.
    fn take_back(&mut self, block: Block) -> bool {
        let Some(at) = self.asked.iter().position(|asked| *asked == block) else { return false };
        self.asked.swap_remove(at);
        let delivered = self.delivered.load(Ordering::Relaxed);
        self.asked.iter().all(|asked| asked.begin < delivered)
    }
}

type Running = BoxFuture<'static, Result<(), WebSeedError>>;

/// Runs until the torrent lets it go or a request fails.
pub(crate) async fn run(seed: WebSeed) {
    let key = seed.key;
    let events = seed.events.clone();
    let ended = serve(seed).await;
    // The torrent may be gone first.
    let _ = events.send((key, Event::Gone(ended))).await;
}

async fn serve(mut seed: WebSeed) -> Ended {
    let mut all = Pieces::none(seed.geometry.pieces());
    for piece in 0..seed.geometry.pieces() {
        all.insert(piece);
    }
    for event in [Event::Hello(None), Event::HasAll(all), Event::Choking(false)] {
        if seed.events.send((seed.key, event)).await.is_err() {
            return Ended::Dropped;
        }
    }
    let turns = Arc::new(Semaphore::new(FETCHES_MAX));
    let mut fetches: Vec<Fetch> = Vec::new();
    let mut running: FuturesUnordered<Running> = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(result) = running.next() => match result {
                Err(error) => return error.into(),
                Ok(()) => fetches.retain(|fetch| !fetch.asks.is_closed()),
            },
            say = seed.say.recv() => match say {
                None => return Ended::Dropped,
                Some(Say::Ask { block, urgent }) => {
                    let fits = |fetch: &&mut Fetch| {
                        fetch.piece == block.piece && fetch.next <= block.begin && !fetch.asks.is_closed()
                    };
                    if let Some(fetch) = fetches.iter_mut().find(fits) {
                        fetch.ask(block);
                    } else {
                        let (fetch, running_fetch) = seed.begin(block, urgent, Arc::clone(&turns));
                        fetches.push(fetch);
                        running.push(running_fetch);
                    }
                }
                Some(Say::TakeBack(block)) => fetches.retain_mut(|fetch| !fetch.take_back(block)),
                Some(_) => {}
            },
        }
    }
}

impl WebSeed {
    fn begin(&self, block: Block, urgent: bool, turns: Arc<Semaphore>) -> (Fetch, Running) {
        let (asks, asked) = mpsc::unbounded_channel();
        let (stop, delivered) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let mut fetch = Fetch {
            piece: block.piece,
            next: 0,
            asks,
            asked: Vec::new(),
            delivered: Arc::clone(&delivered),
            _stop: stop.clone().drop_guard(),
        };
        fetch.ask(block);
        let range = Range::of(self.geometry, block);
        let download = Download {
            request: self.http.get(&self.url).header(header::RANGE, range.header()),
            range,
            asked,
            delivered,
            key: self.key,
            events: self.events.clone(),
            address: Arc::clone(&self.address),
        };
        let running = async move {
            let _turn = if urgent { None } else { turns.acquire().await.ok() };
            download.run().await
        };
        let running = async move { stop.run_until_cancelled(running).await.unwrap_or(Ok(())) };
        (fetch, Box::pin(running))
    }
}

/// One request and its answer.
struct Download {
    request: reqwest::RequestBuilder,
    range: Range,
    asked: mpsc::UnboundedReceiver<Block>,
    delivered: Arc<AtomicU32>,
    key: PeerKey,
    events: mpsc::Sender<(PeerKey, Event)>,
    address: Arc<OnceLock<SocketAddr>>,
}

impl Download {
    async fn run(mut self) -> Result<(), WebSeedError> {
        let response = timeout(SILENCE_MAX, self.request.send()).await.map_err(|_| WebSeedError::Silent)?;
        let response = response.map_err(WebSeedError::Unreachable)?;
        if let Some(remote) = response.remote_addr() {
            // It may have moved since; the first is as good as any.
            let _ = self.address.set(remote);
        }
        self.range.check(response.status(), response.headers().get(header::CONTENT_RANGE))?;
        let mut body = Body::new(self.range, response.bytes_stream().boxed());
        while !body.is_done() {
            let Some(block) = self.asked.recv().await else { break };
            let bytes = body.block(block).await?;
            self.delivered.store(block.begin + block.length, Ordering::Relaxed);
            if self.events.send((self.key, Event::Block(block, bytes))).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// The part of the image one request is for.
#[derive(Debug, Clone, Copy)]
struct Range {
    /// Offset in the piece.
    begin: u32,
    /// Offset in the image.
    first: u64,
    length: u32,
    /// Bytes of the image.
    total: u64,
}

impl Range {
    /// The rest of a piece, from one block on.
    fn of(geometry: Geometry, from: Block) -> Self {
        Self {
            begin: from.begin,
            first: geometry.offset(from.piece) + u64::from(from.begin),
            length: geometry.length(from.piece) - from.begin,
            total: geometry.size_bytes(),
        }
    }

    fn last(&self) -> u64 {
        self.first + u64::from(self.length) - 1
    }

    fn header(&self) -> String {
        format!("bytes={}-{}", self.first, self.last())
    }

    fn check(&self, status: StatusCode, said: Option<&HeaderValue>) -> Result<(), WebSeedError> {
        match status {
            StatusCode::PARTIAL_CONTENT => {}
            status if status.is_success() => return Err(WebSeedError::NoRanges(status)),
            status => return Err(WebSeedError::Status(status)),
        }
        let said = said.and_then(|value| value.to_str().ok());
        let range = format!("bytes {}-{}", self.first, self.last());
        let fine = said
            .and_then(|said| said.split_once('/'))
            .is_some_and(|(said, total)| said == range && (total == "*" || total == self.total.to_string()));
        let said: String = said.unwrap_or_default().chars().take(100).collect();
        if fine { Ok(()) } else { Err(WebSeedError::WrongRange(said)) }
    }
}

/// An answer's bytes, in order.
struct Body {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    range: Range,
    bytes: BytesMut,
    /// Bytes handed out.
    read: u32,
}

impl Body {
    fn new(range: Range, chunks: BoxStream<'static, reqwest::Result<Bytes>>) -> Self {
        Self { chunks, range, bytes: BytesMut::new(), read: 0 }
    }

    fn is_done(&self) -> bool {
        self.read >= self.range.length
    }

    /// Blocks are asked for in order; some may be left out.
    async fn block(&mut self, block: Block) -> Result<Bytes, WebSeedError> {
        let skip = (block.begin - self.range.begin).saturating_sub(self.read);
        self.fill(skip).await?;
        self.bytes.advance(skip as usize);
        self.fill(block.length).await?;
        self.read += skip + block.length;
        Ok(self.bytes.split_to(block.length as usize).freeze())
    }

    async fn fill(&mut self, length: u32) -> Result<(), WebSeedError> {
        while self.bytes.len() < length as usize {
            let chunk = timeout(SILENCE_MAX, self.chunks.next()).await.map_err(|_| WebSeedError::Silent)?;
            match chunk.transpose().map_err(WebSeedError::Unreachable)? {
                Some(chunk) => self.bytes.extend_from_slice(&chunk),
                None => return Err(WebSeedError::CutShort),
            }
        }
        Ok(())
    }
}

/// For the fuzz targets: the blocks of an answer that begins with this status and `Content-Range`, from one block on.
pub(crate) async fn taken<'a>(
    geometry: Geometry,
    from: Block,
    status: u16,
    content_range: &[u8],
    parts: impl Iterator<Item = &'a [u8]>,
) -> Option<Vec<u8>> {
    let range = Range::of(geometry, from);
    let said = HeaderValue::from_bytes(content_range).ok()?;
    range.check(StatusCode::from_u16(status).ok()?, Some(&said)).ok()?;
    let parts: Vec<_> = parts.map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    let mut body = Body::new(range, futures::stream::iter(parts).boxed());
    let mut taken = Vec::new();
    let blocks = (0..geometry.blocks(from.piece)).map(|index| geometry.block(from.piece, index));
    for block in blocks.filter(|block| block.begin >= from.begin) {
        let Ok(bytes) = body.block(block).await else { break };
        taken.extend_from_slice(&bytes);
    }
    Some(taken)
}
