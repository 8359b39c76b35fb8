//! A tracker that knows just enough: HTTP, compact answers (BEP 23), everybody of a swarm.

use anyhow::Context as _;
use playground::namespace;
use std::collections::BTreeMap;
use std::net::{SocketAddrV4, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Longest request that is read.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// What the controller's own tracker says.
const INTERVAL_S: u32 = 10;

/// Peers of each swarm by their ids.
type Swarms = Arc<Mutex<BTreeMap<String, BTreeMap<String, SocketAddrV4>>>>;

/// A running tracker; ends when dropped.
#[derive(Debug)]
pub(crate) struct Tracker {
    pub(crate) url: String,
    swarms: Swarms,
    task: JoinHandle<()>,
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tracker {
    /// Listens on `address` inside a network namespace.
    pub(crate) fn start(network: &Path, address: SocketAddrV4) -> anyhow::Result<Self> {
        let listener = namespace::run(network, move || TcpListener::bind(address)).and_then(|inner| inner);
        let listener = listener.with_context(|| format!("the tracker cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let swarms = Swarms::default();
        let known = Arc::clone(&swarms);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&known)));
            }
        });
        Ok(Self { url: format!("http://{address}/announce"), swarms, task })
    }

    /// Forgets who is gone without a goodbye.
    pub(crate) fn forget(&self, gone: &[std::net::Ipv4Addr]) {
        for swarm in self.swarms.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            swarm.retain(|_, address| !gone.contains(address.ip()));
        }
    }
}

async fn serve(mut stream: TcpStream, swarms: Swarms) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        match stream.read_buf(&mut request).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
    let line = String::from_utf8_lossy(&request);
    let query =
        line.split_ascii_whitespace().nth(1).and_then(|path| path.split_once('?')).map(|(_, query)| query);
    let answer = query.and_then(|query| announce(&swarms, query));
    let (status, body) = match answer {
        Some(body) => ("200 OK", body),
        None => ("400 Bad Request", Vec::new()),
    };
    let mut answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())
            .into_bytes();
    answer.extend_from_slice(&body);
    // A peer that has gone asks again.
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
}

fn announce(swarms: &Swarms, query: &str) -> Option<Vec<u8>> {
    let get = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key));
    let address: SocketAddrV4 = format!("{}:{}", get("ip=")?, get("port=")?).parse().ok()?;
    let (hash, peer) = (get("info_hash=")?.to_owned(), get("peer_id=")?.to_owned());
    let mut swarms = swarms.lock().unwrap_or_else(PoisonError::into_inner);
    let swarm = swarms.entry(hash).or_default();
    if get("event=") == Some("stopped") {
        swarm.remove(&peer);
    } else {
        // A restarted daemon has a new id and the same address.
        swarm.retain(|_, known| *known != address);
        swarm.insert(peer.clone(), address);
    }
    let others: Vec<_> = swarm.iter().filter(|(id, _)| **id != peer).map(|(_, address)| *address).collect();
    let mut body = format!("d8:intervali{INTERVAL_S}e5:peers{}:", others.len() * 6).into_bytes();
    for other in others {
        body.extend_from_slice(&other.ip().octets());
        body.extend_from_slice(&other.port().to_be_bytes());
    }
    body.push(b'e');
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(swarms: &Swarms, peer: &str, last: u8, more: &str) -> Vec<u8> {
        let query = format!("info_hash=h&peer_id={peer}&ip=10.0.0.{last}&port=258{more}");
        announce(swarms, &query).unwrap_or_default()
    }

    #[test]
    fn a_peer_learns_of_the_others_and_not_of_itself() {
        let swarms = Swarms::default();
        assert_eq!(ask(&swarms, "a", 1, ""), b"d8:intervali10e5:peers0:e");
        assert_eq!(ask(&swarms, "b", 2, ""), b"d8:intervali10e5:peers6:\x0a\0\0\x01\x01\x02e");
        assert_eq!(ask(&swarms, "a", 1, "&event=stopped"), b"d8:intervali10e5:peers6:\x0a\0\0\x02\x01\x02e");
        assert_eq!(ask(&swarms, "b", 2, ""), b"d8:intervali10e5:peers0:e");
    }

    #[test]
    fn an_announce_without_an_address_is_refused() {
        assert_eq!(announce(&Swarms::default(), "info_hash=h&peer_id=a&port=1"), None);
    }
}
