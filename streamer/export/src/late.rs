//! Reads that wait: each is a task of the runtime, and hands its bytes to the connection's thread.

use crate::Export;
use crate::request::Request;
use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Reads of one connection that wait at a time.
const READS_MAX: usize = 128;
/// Bytes they ask for.
const BYTES_MAX: u64 = 128 << 20;

/// A read that waited, and what became of it.
pub(crate) type Finished = (Request, io::Result<Bytes>);

/// Reads that wait, of one connection. Dropped, they wait no longer.
pub(crate) struct Late {
    runtime: Handle,
    tasks: JoinSet<()>,
    finished: Arc<Finish>,
    waiting: usize,
    waiting_bytes: u64,
}

struct Finish {
    reads: Mutex<Vec<Finished>>,
    /// Readable when there is one.
    signal: OwnedFd,
}

impl Late {
    pub(crate) fn new(runtime: Handle) -> io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let finished = Arc::new(Finish { reads: Mutex::default(), signal });
        Ok(Self { runtime, tasks: JoinSet::new(), finished, waiting: 0, waiting_bytes: 0 })
    }

    /// Some read has not been taken by [`Self::finished`].
    pub(crate) fn waits(&self) -> bool {
        self.waiting > 0
    }

    /// One more may wait. Of a read alone, any length may.
    pub(crate) fn admits(&self, request: &Request) -> bool {
        let bytes = self.waiting_bytes + u64::from(request.length);
        self.waiting < READS_MAX && (self.waiting == 0 || bytes <= BYTES_MAX)
    }

    pub(crate) fn begin(&mut self, request: Request, export: &Arc<dyn Export>) {
        self.waiting += 1;
        self.waiting_bytes += u64::from(request.length);
        while self.tasks.try_join_next().is_some() {}
        let export = Arc::clone(export);
        let owed = Owed { request, result: None, finished: Arc::clone(&self.finished) };
        let read = async move {
            let result = export.read_at(request.offset, request.length).await;
            drop(export);
            owed.give(result);
        };
        self.tasks.spawn_on(read, &self.runtime);
    }

    /// Readable when [`Self::finished`] has something.
    pub(crate) fn signal(&self) -> BorrowedFd<'_> {
        self.finished.signal.as_fd()
    }

    /// Takes the reads that have waited.
    pub(crate) fn finished(&mut self) -> Vec<Finished> {
        let mut count = [0; 8];
        // Cleared before it is looked; what comes after sets it again. Nothing to clear is no error.
        let _ = rustix::io::read(&self.finished.signal, &mut count);
        let mut reads = self.finished.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = std::mem::take(&mut *reads);
        self.waiting -= reads.len();
        self.waiting_bytes -= reads.iter().map(|(request, _)| u64::from(request.length)).sum::<u64>();
        reads
    }
}

/// A reply owed to the client, given also if the task ends early.
struct Owed {
    request: Request,
    result: Option<io::Result<Bytes>>,
    finished: Arc<Finish>,
}

impl Owed {
    fn give(mut self, result: io::Result<Bytes>) {
        self.result = Some(result);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(io::Error::other("the read was given up")));
        let mut reads = self.finished.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.push((self.request, result));
        drop(reads);
        // It can only be full, and then it is readable.
        let _ = rustix::io::write(&self.finished.signal, &1u64.to_ne_bytes());
    }
}
