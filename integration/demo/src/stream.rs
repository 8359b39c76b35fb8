//! A download that a person outside takes from a guest: numbers, one a line, checked and timed as they arrive.

use crate::probe;
use anyhow::{Context as _, bail};
use playground::Part;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A connection is made within this.
const CONNECT: Duration = Duration::from_secs(5);
/// A stream that is silent for longer has ended, whatever TCP says.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Shorter waits between two arrivals are not remembered.
const PAUSE_MIN: Duration = Duration::from_millis(2);

/// A download under way.
pub(crate) struct Stream {
    seen: Arc<Mutex<Seen>>,
    from: Part,
    to: SocketAddr,
    socket: TcpStream,
}

#[derive(Debug)]
struct Seen {
    /// Of the body.
    bytes: u64,
    last: Instant,
    /// When a wait ended, and how long it was.
    pauses: Vec<(Instant, Duration)>,
    numbers: Numbers,
    /// How the connection ended.
    ended: Option<Result<(), String>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Its reader ends with it.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Stream {
    /// Asks a guest at an address for its endless stream, from inside a box.
    pub(crate) async fn open(from: &Part, to: SocketAddr) -> anyhow::Result<Self> {
        let part = from.clone();
        let socket = tokio::task::spawn_blocking(move || probe::connect(&part, to, CONNECT)).await??;
        (&socket).write_all(b"GET /cgi-bin/stream HTTP/1.0\r\n\r\n").context("ask for the stream")?;
        socket.set_read_timeout(Some(SILENCE))?;
        let seen = Arc::new(Mutex::new(Seen {
            bytes: 0,
            last: Instant::now(),
            pauses: Vec::new(),
            numbers: Numbers::default(),
            ended: None,
        }));
        let (reading, noted) = (socket.try_clone().context("keep the stream's socket")?, Arc::clone(&seen));
        tokio::task::spawn_blocking(move || read(reading, &noted));
        Ok(Self { seen, from: from.clone(), to, socket })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that arrived so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.seen().bytes
    }

    /// It goes on, and what arrived so far is what was sent.
    pub(crate) fn whole(&self) -> Result<(), String> {
        let seen = self.seen();
        match (&seen.numbers.wrong, &seen.ended) {
            (Some(wrong), _) => Err(wrong.clone()),
            (None, Some(Ok(()))) => Err("it came to its end".to_owned()),
            (None, Some(Err(problem))) => Err(problem.clone()),
            (None, None) => Ok(()),
        }
    }

    /// The longest wait of which some part lies between two moments.
    pub(crate) fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let seen = self.seen();
        let within = seen.pauses.iter().filter(|(end, length)| *end >= from && *end - *length <= to);
        let longest = within.map(|(_, length)| *length).max().unwrap_or_default();
        // The one that lasts.
        if seen.last <= to { longest.max(seen.last.elapsed()) } else { longest }
    }

    /// Waits until so many more bytes arrived; how long that took.
    pub(crate) async fn flows(&self, more: u64, patience: Duration) -> anyhow::Result<Duration> {
        let (began, goal) = (Instant::now(), self.bytes() + more);
        while self.bytes() < goal {
            if let Err(problem) = self.whole() {
                bail!("the stream broke off: {problem}");
            }
            if began.elapsed() > patience {
                bail!("{} of {more} bytes arrived in {} s", more - (goal - self.bytes()), patience.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(began.elapsed())
    }

    /// Asks the guest to end the stream and waits until it has arrived whole; its bytes and its last number.
    pub(crate) async fn finish(&self, patience: Duration) -> anyhow::Result<(u64, u64)> {
        probe::get(&self.from, self.to, "/cgi-bin/finish", CONNECT).await.context("end the stream")?;
        let until = Instant::now() + patience;
        loop {
            {
                let seen = self.seen();
                if let Some(end) = &seen.ended {
                    if let Err(problem) = end {
                        bail!("the stream broke off: {problem}");
                    }
                    if let Some(wrong) = &seen.numbers.wrong {
                        bail!("what arrived is not what was sent: {wrong}");
                    }
                    anyhow::ensure!(seen.numbers.ended, "the stream was cut off after {}", seen.numbers.last);
                    return Ok((seen.bytes, seen.numbers.last));
                }
            }
            anyhow::ensure!(Instant::now() < until, "the stream does not end");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn read(mut socket: TcpStream, noted: &Mutex<Seen>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let result = socket.read(&mut buffer);
        let now = Instant::now();
        let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
        let length = match result {
            Ok(0) => {
                seen.ended = Some(Ok(()));
                return;
            }
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                seen.ended = Some(Err(error.to_string()));
                return;
            }
        };
        let pause = now - seen.last;
        if pause >= PAUSE_MIN {
            seen.pauses.push((now, pause));
        }
        seen.last = now;
        seen.bytes += length as u64;
        seen.numbers.take(&buffer[..length]);
    }
}

/// The lines of a stream: a head, numbers from 1 without a hole, and `end`.
#[derive(Debug, Default)]
struct Numbers {
    line: Vec<u8>,
    body: bool,
    last: u64,
    ended: bool,
    wrong: Option<String>,
}

impl Numbers {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.line(String::from_utf8_lossy(&line).trim_end_matches('\r'));
                }
                byte => self.line.push(*byte),
            }
        }
    }

    fn line(&mut self, line: &str) {
        if !self.body {
            self.body = line.is_empty();
            return;
        }
        if self.wrong.is_some() {
            return;
        }
        match line.parse::<u64>() {
            Ok(number) if !self.ended && number == self.last + 1 => self.last = number,
            _ if !self.ended && line == "end" => self.ended = true,
            _ => self.wrong = Some(format!("{line:?} after {}", self.last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Numbers {
        let mut numbers = Numbers::default();
        for bytes in text.as_bytes().chunks(3) {
            numbers.take(bytes);
        }
        numbers
    }

    #[test]
    fn a_stream_is_whole_if_no_number_is_missing_and_it_says_so() {
        let whole = taken("HTTP/1.0 200 OK\r\n7: 8\r\n\r\n1\n2\n3\nend\n");
        assert_eq!((whole.last, whole.ended, whole.wrong), (3, true, None));
        assert!(!taken("HTTP/1.0 200 OK\r\n\r\n1\n2\n").ended);
    }

    #[test]
    fn a_hole_a_repetition_and_more_after_the_end_are_found() {
        for wrong in ["1\n3\n", "1\n1\n", "1\nend\n2\n", "1\nfin\n"] {
            assert!(taken(&format!("HTTP/1.0 200 OK\r\n\r\n{wrong}")).wrong.is_some(), "{wrong}");
        }
    }
}
