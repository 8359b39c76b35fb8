//! A web server on loopback that has the image, and may misbehave.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Fine,
    IgnoresRanges,
    WrongBytes,
    WrongRange,
    CutsShort,
    Fails,
}

pub(crate) struct Web {
    pub(crate) url: String,
    pub(crate) manner: Arc<Mutex<Manner>>,
    pub(crate) requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Web {
    pub(crate) async fn start(truth: &Arc<Vec<u8>>, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/disk.raw", listener.local_addr().unwrap());
        let (manner, requests) = (Arc::new(Mutex::new(manner)), Arc::new(AtomicUsize::new(0)));
        let (truth, how, count) = (Arc::clone(truth), Arc::clone(&manner), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&truth), Arc::clone(&how), Arc::clone(&count)));
            }
        });
        Self { url, manner, requests, task }
    }
}

/// Reads a request's head.
pub(crate) async fn request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn serve(
    mut stream: TcpStream,
    truth: Arc<Vec<u8>>,
    manner: Arc<Mutex<Manner>>,
    requests: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    loop {
        let head = request(&mut stream).await?;
        requests.fetch_add(1, Ordering::Relaxed);
        let manner = *manner.lock().unwrap();
        let range = head.to_lowercase().split("range: bytes=").nth(1).unwrap().to_owned();
        let (first, last) = range.lines().next().unwrap().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let mut body = truth[first..=last].to_vec();
        let named = if manner == Manner::WrongRange { first + 1 } else { first };
        let status = match manner {
            Manner::IgnoresRanges => "200 OK",
            Manner::Fails => "503 Service Unavailable",
            _ => "206 Partial Content",
        };
        if manner == Manner::WrongBytes {
            body.iter_mut().for_each(|byte| *byte ^= 1);
        }
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {named}-{last}/{}\r\n\r\n",
            body.len(),
            truth.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if manner == Manner::CutsShort {
            stream.write_all(&body[..body.len() / 2]).await?;
            return stream.shutdown().await;
        }
        stream.write_all(&body).await?;
    }
}
