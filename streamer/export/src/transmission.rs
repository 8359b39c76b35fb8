//! Requests and replies, many at a time, in whatever order they are ready.
//!
//! A connection is a thread. Bytes in memory go from the page cache into a buffer behind their header, and all replies
//! of a batch leave in one call; a read that waits is a task of the runtime (`late`), so that the thread is free for
//! those behind it. Refused: a task for the connection, too. It costs two more system calls and a queue for each
//! batch, which is as much as the read itself.

use crate::Export;
use crate::inbox::Inbox;
use crate::late::Late;
use crate::negotiation::Session;
use crate::reply::Replies;
use crate::request::{Form, Request, Task};
use crate::wire::EIO;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Replies are sent when they are this many bytes, though more requests are here.
const BATCH_BYTES: usize = 256 << 10;
/// Of a connection's thread: nothing deep runs on it.
const STACK_BYTES: usize = 256 << 10;

/// Serves one client until it leaves or its export is gone. Reads that wait end with it, also if this is dropped.
pub(crate) async fn serve(
    stream: UnixStream,
    session: Session,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let stream = Arc::new(stream);
    let hang_up = HangUp(Arc::clone(&stream));
    let late = Late::new(Handle::current())?;
    let Session { export, gone, form } = session;
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("block client".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        let replies = Replies::default();
        let result = Connection { stream: &stream, export, form, late, replies }.run();
        // Nobody asks if the server was dropped.
        let _ = ended.send(result);
    })?;
    let broken = |_| io::Error::other("the thread of a block client panicked");
    tokio::pin!(end);
    tokio::select! {
        result = &mut end => return result.map_err(broken)?,
        () = gone.cancelled() => {}
        () = shutdown.cancelled() => {}
    }
    drop(hang_up);
    end.await.map_err(broken)?
}

/// Ends the connection's thread: whatever it waits for on the socket is over.
struct HangUp(Arc<UnixStream>);

impl Drop for HangUp {
    fn drop(&mut self) {
        // It may be closed from the other side.
        let _ = rustix::net::shutdown(&*self.0, Shutdown::Both);
    }
}

struct Connection<'a> {
    stream: &'a UnixStream,
    export: Arc<dyn Export>,
    form: Form,
    late: Late,
    replies: Replies,
}

/// How a wait ended.
enum Woken {
    ByClient,
    ByRead,
    ClientGone,
}

impl Connection<'_> {
    fn run(mut self) -> io::Result<()> {
        let mut inbox = Inbox::default();
        loop {
            while let Some(request) = inbox.next()? {
                match request.task(self.form, self.export.as_ref()) {
                    Task::Leave => return self.leave(),
                    Task::Refuse(code) => self.replies.error(&request, self.form, code),
                    Task::Status => self.replies.status(&request, self.export.as_ref()),
                    Task::Read => self.read(request)?,
                }
                if self.replies.bytes().len() >= BATCH_BYTES {
                    self.send()?;
                }
            }
            self.send()?;
            if self.late.waits() {
                match self.wait(PollFlags::IN)? {
                    Woken::ByRead => {
                        self.finish()?;
                        continue;
                    }
                    Woken::ByClient => {}
                    Woken::ClientGone => return Ok(()),
                }
            }
            if inbox.receive(self.stream)? == 0 {
                return Ok(());
            }
        }
    }

    fn read(&mut self, request: Request) -> io::Result<()> {
        let export = &self.export;
        let fill = |range: std::ops::Range<usize>, buffer: &mut [u8]| {
            export.read_now_into(request.offset + range.start as u64, buffer)
        };
        if self.replies.read(&request, self.form, export.as_ref(), fill) {
            return Ok(());
        }
        while !self.late.admits(&request) {
            self.send()?;
            self.wait_for_read()?;
        }
        self.late.begin(request, &self.export);
        Ok(())
    }

    /// The client wants no more; it gets what it asked for, if it stays for it.
    fn leave(mut self) -> io::Result<()> {
        loop {
            self.send()?;
            if !self.late.waits() {
                return Ok(());
            }
            self.wait_for_read()?;
        }
    }

    fn wait_for_read(&mut self) -> io::Result<()> {
        match self.wait(PollFlags::empty())? {
            Woken::ClientGone => Err(io::ErrorKind::ConnectionReset.into()),
            _ => self.finish(),
        }
    }

    /// Replies to reads that have waited.
    fn finish(&mut self) -> io::Result<()> {
        for (request, result) in self.late.finished() {
            let filled = result.map(|bytes| {
                bytes.len() == request.length as usize
                    && self.replies.read(&request, self.form, self.export.as_ref(), |range, buffer| {
                        buffer.copy_from_slice(&bytes[range]);
                        true
                    })
            });
            if !matches!(filled, Ok(true)) {
                let why = filled
                    .err()
                    .map_or_else(|| "its export gave too few bytes".to_owned(), |error| error.to_string());
                tracing::error!(why, offset = request.offset, "a guest's read failed");
                self.replies.error(&request, self.form, EIO);
            }
            if self.replies.bytes().len() >= BATCH_BYTES {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Waits for a read, for the client to be gone, and for what else is asked of the socket.
    fn wait(&self, socket: PollFlags) -> io::Result<Woken> {
        let signal = self.late.signal();
        let mut polled = [
            PollFd::from_borrowed_fd(self.stream.as_fd(), socket | PollFlags::RDHUP),
            PollFd::from_borrowed_fd(signal, PollFlags::IN),
        ];
        loop {
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let [client, read] = [polled[0].revents(), polled[1].revents()];
            // Reads first: a client that never stops asking would keep them here.
            if !read.is_empty() {
                return Ok(Woken::ByRead);
            }
            if client.contains(PollFlags::IN) {
                return Ok(Woken::ByClient);
            }
            if client.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
                return Ok(Woken::ClientGone);
            }
        }
    }

    /// Sends all replies there are; waits while the client takes none.
    fn send(&mut self) -> io::Result<()> {
        let mut bytes = self.replies.bytes();
        while !bytes.is_empty() {
            match send(self.stream, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => bytes = &bytes[sent?..],
            }
        }
        self.replies.clear();
        Ok(())
    }
}
