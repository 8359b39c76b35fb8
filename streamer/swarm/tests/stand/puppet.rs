//! A peer on strings: claims every piece, and then behaves as told.

use super::{HASH, PIECE};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Never answers a request.
    Frozen,
    /// A byte now and then.
    Drips,
    /// Answers requests in pairs, the later one first.
    Reorders,
    /// Half a block, and hangs up.
    Truncates,
    /// Wrong bytes.
    Poisons,
    /// Blocks nobody asked for, without end.
    Floods,
    /// Blocks that are shorter than what was asked for.
    CutsBlocks,
}

pub(crate) struct Puppet {
    pub(crate) address: SocketAddr,
    /// Requests it got.
    pub(crate) asked: Arc<AtomicUsize>,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Puppet {
    pub(crate) async fn start(truth: &Arc<Vec<u8>>, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (truth, counts) = (Arc::clone(truth), (Arc::clone(&asked), Arc::clone(&connections)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counts.1.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(act(stream, Arc::clone(&truth), manner, Arc::clone(&counts.0)));
            }
        });
        Self { address, asked, connections, task }
    }
}

async fn act(
    mut stream: TcpStream,
    truth: Arc<Vec<u8>>,
    manner: Manner,
    asked: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut theirs = [0; 68];
    stream.read_exact(&mut theirs).await?;
    let hello = [b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0", &HASH[..], b"-CO0100-puppetpuppet"].concat();
    stream.write_all(&hello).await?;
    let pieces = u32::try_from(truth.len()).unwrap() / PIECE;
    let mut bits = vec![0u8; pieces.div_ceil(8) as usize];
    (0..pieces).for_each(|piece| bits[(piece / 8) as usize] |= 0x80 >> (piece % 8));
    say(&mut stream, 5, &bits).await?;
    say(&mut stream, 1, &[]).await?;
    let mut waiting: Vec<[u32; 3]> = Vec::new();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await?;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut message).await?;
        if message.first() != Some(&6) {
            continue;
        }
        asked.fetch_add(1, Ordering::Relaxed);
        let number = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
        waiting.push([number(1), number(5), number(9)]);
        let ready = manner != Manner::Reorders || waiting.len() == 2;
        for request in std::mem::take(&mut waiting).into_iter().rev() {
            if ready {
                answer(&mut stream, &truth, manner, request).await?;
            } else {
                waiting.push(request);
            }
        }
    }
}

async fn answer(
    stream: &mut TcpStream,
    truth: &[u8],
    manner: Manner,
    [piece, begin, length]: [u32; 3],
) -> std::io::Result<()> {
    let from = (piece * PIECE + begin) as usize;
    let mut bytes = truth[from..from + length as usize].to_vec();
    let head = |length: u32| {
        let numbers = [piece.to_be_bytes(), begin.to_be_bytes()].concat();
        [&(length + 9).to_be_bytes()[..], &[7], &numbers].concat()
    };
    match manner {
        Manner::Frozen => Ok(()),
        Manner::Reorders => stream.write_all(&[head(length), bytes].concat()).await,
        Manner::Drips => {
            for byte in [head(length), bytes].concat() {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        }
        Manner::Truncates => {
            stream.write_all(&[head(length), bytes[..bytes.len() / 2].to_vec()].concat()).await?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Manner::Poisons => {
            bytes[0] ^= 1;
            stream.write_all(&[head(length), bytes].concat()).await
        }
        Manner::Floods => loop {
            stream.write_all(&[head(length), bytes.clone()].concat()).await?;
        },
        Manner::CutsBlocks => {
            stream.write_all(&[head(length / 2), bytes[..bytes.len() / 2].to_vec()].concat()).await
        }
    }
}

async fn say(stream: &mut TcpStream, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len() + 1).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], &[kind], body].concat()).await
}
