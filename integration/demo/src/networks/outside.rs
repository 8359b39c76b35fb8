//! The world outside of the networks, inside the playground's switch: a web server that says who asked, and a name
//! server that knows one address for every name.

use anyhow::Context as _;
use playground::Part;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

/// A guest that connected says what it wants within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest query that is read, in bytes (RFC 1035, 2.3.4).
const QUERY_BYTES_MAX: usize = 512;
/// Header of a query, in bytes.
const HEADER_BYTES: usize = 12;

/// Serves until it is dropped, and remembers who asked.
pub(super) struct Server {
    asked: Arc<Mutex<Vec<IpAddr>>>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    /// Where questions came from so far, in order.
    pub(super) fn asked(&self) -> Vec<IpAddr> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn noted(asked: &Mutex<Vec<IpAddr>>, who: SocketAddr) {
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(who.ip());
}

/// A web server at an address of a box that greets everybody by the address they come from.
pub(super) fn web(from: &Part, at: SocketAddr) -> anyhow::Result<Server> {
    let listener = from.in_namespace(move || TcpListener::bind(at)).context("enter the namespace")?;
    let listener = listener.with_context(|| format!("listen at {at}"))?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let asked = Arc::default();
    let notes = Arc::clone(&asked);
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, who)) = listener.accept().await {
            noted(&notes, who);
            let greet = async {
                let _ = stream.read(&mut [0; 1024]).await?;
                let greeting =
                    format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello {}\n", who.ip());
                stream.write_all(greeting.as_bytes()).await?;
                stream.shutdown().await
            };
            // Whoever hangs up early asked all the same.
            let _ = tokio::time::timeout(PATIENCE, greet).await;
        }
    });
    Ok(Server { asked, serving })
}

/// A name server at an address of a box: every name's IPv4 address is that one.
pub(super) fn names(from: &Part, at: SocketAddrV4) -> anyhow::Result<Server> {
    let socket = from.in_namespace(move || UdpSocket::bind(at)).context("enter the namespace")?;
    let socket = socket.with_context(|| format!("listen at {at}"))?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let asked = Arc::default();
    let notes = Arc::clone(&asked);
    let serving = tokio::spawn(async move {
        let mut query = [0; QUERY_BYTES_MAX];
        while let Ok((length, who)) = socket.recv_from(&mut query).await {
            noted(&notes, who);
            if let Some(answer) = query.get(..length).and_then(|query| answer(query, at)) {
                // A lost answer is asked for again.
                let _ = socket.send_to(&answer, who).await;
            }
        }
    });
    Ok(Server { asked, serving })
}

/// The answer to a query with one question (RFC 1035, 4.1): an address to a question for one, else none.
fn answer(query: &[u8], at: SocketAddrV4) -> Option<Vec<u8>> {
    let name = query.get(HEADER_BYTES..)?.iter().position(|byte| *byte == 0)?;
    // The zero that ends the name, type and class.
    let question = query.get(HEADER_BYTES..HEADER_BYTES + name + 5)?;
    let wants_address = question.ends_with(&[0, 1, 0, 1]);
    let mut answer = query.get(..2)?.to_vec();
    // An answer, recursion available, no error; one question, at most one answer.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(wants_address), 0, 0, 0, 0]);
    answer.extend(question);
    if wants_address {
        // The name is that of the question; type A, class IN, a minute to live, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(at.ip().octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_an_address_is_answered_and_another_is_not() {
        let at = "10.88.0.1:53".parse().unwrap();
        let query = |kind: u8| {
            let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            query.extend(b"\x03www\x07example\0");
            query.extend([0, kind, 0, 1]);
            query
        };
        let said = answer(&query(1), at).unwrap();
        assert_eq!((&said[..2], said[7]), (&[7, 9][..], 1));
        assert!(said.ends_with(&[10, 88, 0, 1]));
        assert_eq!(answer(&query(28), at).unwrap()[7], 0);
        assert_eq!(answer(&[0; 5], at), None);
    }
}
