//! Requests off the wire.

use crate::patience::Patience;
use crate::request::{REQUEST_BYTES, Request};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Bytes of requests taken at once.
const RECEIVE_BYTES: usize = 16 << 10;

/// Requests that have come.
pub(crate) struct Inbox {
    memory: Box<[u8]>,
    begin: usize,
    end: usize,
    /// Bytes to come that nobody wants.
    unwanted: usize,
    patience: Patience,
}

impl Default for Inbox {
    fn default() -> Self {
        let memory = vec![0; RECEIVE_BYTES].into();
        Self { memory, begin: 0, end: 0, unwanted: 0, patience: Patience::default() }
    }
}

impl Inbox {
    /// The next request that is here as a whole.
    pub(crate) fn next(&mut self) -> io::Result<Option<Request>> {
        let skipped = self.unwanted.min(self.end - self.begin);
        self.begin += skipped;
        self.unwanted -= skipped;
        let Some((bytes, _)) = self.memory[self.begin..self.end].split_first_chunk::<REQUEST_BYTES>() else {
            return Ok(None);
        };
        let request = Request::parse(bytes)?;
        self.begin += REQUEST_BYTES;
        self.unwanted = request.payload()?;
        Ok(Some(request))
    }

    /// Waits for more; how many bytes came, 0 if the client left.
    pub(crate) fn receive(&mut self, stream: &UnixStream) -> io::Result<usize> {
        self.memory.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        let begun = Instant::now();
        loop {
            let looks = self.patience.looks(begun.elapsed());
            let flags = if looks { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            match recv(stream, &mut self.memory[self.end..], flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if looks => {
                    let offered = Instant::now();
                    std::thread::yield_now();
                    self.patience.offered(offered.elapsed());
                }
                received => {
                    let (received, _) = received?;
                    self.patience.came(begun.elapsed());
                    self.end += received;
                    return Ok(received);
                }
            }
        }
    }
}
