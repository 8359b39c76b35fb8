//! Peers that speak the protocol, each with one bad manner.

use super::{PIECE, Stand};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What is wrong with a peer; all claim to have every piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes requests and answers none.
    Silent,
    /// Every byte it sends is wrong.
    Poisons,
    /// Its blocks are half as long as they were asked for.
    CutsShort,
    /// It hangs up in the middle of every block.
    HangsUp,
    /// A byte now and then.
    Drips,
    /// It answers the last request first; its bytes are right.
    Reorders,
}

impl Manner {
    pub(crate) const ALL: [Self; 6] =
        [Self::Silent, Self::Poisons, Self::CutsShort, Self::HangsUp, Self::Drips, Self::Reorders];
}

/// Between two bytes of one that drips: 16 KiB take five minutes.
const DRIP: Duration = Duration::from_millis(20);
/// Requests come together; one that reorders waits so long for the next.
const GATHER: Duration = Duration::from_millis(10);

/// A peer that listens until the test's runtime ends.
pub(crate) struct Rogue {
    pub(crate) address: SocketAddr,
    /// Requests it got.
    pub(crate) asked: Arc<AtomicU64>,
}

struct Request {
    piece: u32,
    begin: u32,
    length: u32,
}

struct Conversation {
    stream: OwnedWriteHalf,
    manner: Manner,
    bytes: Arc<Vec<u8>>,
}

impl Rogue {
    pub(crate) async fn start(stand: &Stand, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rogue = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (bytes, asked) = (Arc::new(stand.bytes.clone()), Arc::clone(&rogue.asked));
        let info_hash = stand.info_hash();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever it speaks with hangs up sooner or later.
                tokio::spawn(converse(stream, info_hash, manner, Arc::clone(&bytes), Arc::clone(&asked)));
            }
        });
        rogue
    }
}

async fn converse(
    stream: TcpStream,
    info_hash: [u8; 20],
    manner: Manner,
    bytes: Arc<Vec<u8>>,
    asked: Arc<AtomicU64>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read_half, write_half) = stream.into_split();
    read_half.read_exact(&mut [0; 68]).await?;
    let (requests, queue) = mpsc::unbounded_channel();
    let listening = tokio::spawn(listen(read_half, requests, asked));
    let talk = Conversation { stream: write_half, manner, bytes }.run(info_hash, queue).await;
    listening.abort();
    talk
}

/// Takes requests; everything else is of no interest.
async fn listen(
    mut stream: OwnedReadHalf,
    requests: mpsc::UnboundedSender<Request>,
    asked: Arc<AtomicU64>,
) -> io::Result<()> {
    loop {
        let mut message = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut message).await?;
        if message.first() == Some(&6) {
            asked.fetch_add(1, Ordering::SeqCst);
            let number = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
            let request = Request { piece: number(1), begin: number(5), length: number(9) };
            // It may have stopped answering.
            let _ = requests.send(request);
        }
    }
}

impl Conversation {
    async fn run(
        &mut self,
        info_hash: [u8; 20],
        mut queue: mpsc::UnboundedReceiver<Request>,
    ) -> io::Result<()> {
        let id = format!("-CO0100-{:?}------------", self.manner);
        self.stream.write_all(&super::handshake(info_hash, id.as_bytes()[..20].try_into().unwrap())).await?;
        let pieces = self.bytes.len().div_ceil(usize::try_from(PIECE).unwrap());
        let mut claims = vec![0xff; pieces.div_ceil(8)];
        if !pieces.is_multiple_of(8) {
            *claims.last_mut().unwrap() <<= 8 - pieces % 8;
        }
        self.say(5, &claims).await?;
        self.say(1, &[]).await?;
        while let Some(request) = queue.recv().await {
            let mut requests = vec![request];
            if self.manner == Manner::Reorders {
                while let Ok(Some(next)) = timeout(GATHER, queue.recv()).await {
                    requests.push(next);
                }
            }
            for request in requests.into_iter().rev() {
                self.answer(&request).await?;
            }
        }
        Ok(())
    }

    async fn say(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut message = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
        message.push(kind);
        message.extend_from_slice(body);
        self.stream.write_all(&message).await
    }

    async fn answer(&mut self, request: &Request) -> io::Result<()> {
        let at = usize::try_from(u64::from(request.piece) * PIECE).unwrap() + request.begin as usize;
        let mut block = self.bytes[at..at + request.length as usize].to_vec();
        match self.manner {
            Manner::Silent => return Ok(()),
            Manner::Poisons => block.iter_mut().for_each(|byte| *byte = !*byte),
            Manner::CutsShort => block.truncate(block.len() / 2),
            Manner::HangsUp | Manner::Drips | Manner::Reorders => {}
        }
        let mut message = u32::try_from(block.len() + 9).unwrap().to_be_bytes().to_vec();
        message.push(7);
        message.extend_from_slice(&request.piece.to_be_bytes());
        message.extend_from_slice(&request.begin.to_be_bytes());
        message.extend_from_slice(&block);
        match self.manner {
            Manner::HangsUp => {
                self.stream.write_all(&message[..message.len() / 2]).await?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Manner::Drips => {
                for byte in message {
                    self.stream.write_u8(byte).await?;
                    tokio::time::sleep(DRIP).await;
                }
                Ok(())
            }
            _ => self.stream.write_all(&message).await,
        }
    }
}
