//! A tracker on loopback: names everybody who announced, and whatever the test adds.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[derive(Default)]
pub(crate) struct State {
    /// Those who announced, by port.
    announced: Vec<SocketAddr>,
    /// Named to everybody, after the others.
    pub(crate) more: Vec<SocketAddr>,
    /// Answers that are given first, whatever they are.
    pub(crate) lies: Vec<Vec<u8>>,
    /// Whoever asks is named to itself as well.
    pub(crate) names_askers: bool,
    pub(crate) answers: usize,
}

pub(crate) struct Tracker {
    pub(crate) url: String,
    pub(crate) state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tracker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/announce", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state, task }
    }

    pub(crate) fn add(&self, address: SocketAddr) {
        self.state.lock().unwrap().more.push(address);
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    loop {
        let request = super::web::request(&mut stream).await?;
        let body = answer(&request, &state);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        stream.flush().await?;
        // Whoever closes is done.
        if stream.read(&mut []).await.is_err() {
            return Ok(());
        }
    }
}

fn answer(request: &str, state: &Mutex<State>) -> Vec<u8> {
    let mut state = state.lock().unwrap();
    state.answers += 1;
    if !state.lies.is_empty() {
        return state.lies.remove(0);
    }
    let port = request.split("&port=").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
    let asker = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    state.announced.retain(|address| *address != asker);
    let mut named: Vec<SocketAddr> = state.announced.iter().chain(&state.more).copied().collect();
    if state.names_askers {
        named.push(asker);
    }
    if !request.contains("event=stopped") {
        state.announced.push(asker);
    }
    let mut body = format!("d8:intervali1e5:peers{}:", named.len() * 6).into_bytes();
    for address in named {
        let SocketAddr::V4(address) = address else { continue };
        body.extend(address.ip().octets());
        body.extend(address.port().to_be_bytes());
    }
    body.push(b'e');
    body
}
