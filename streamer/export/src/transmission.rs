//! Requests and replies, many at a time, in whatever order they are ready.

use crate::negotiation::{Session, broken};
use crate::wire::*;
use crate::{Export, Extent, READ_BYTES_MAX};
use bytes::{BufMut as _, Bytes};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

/// Requests of one connection at a time; the next is read when one is answered.
const REQUESTS_MAX: usize = 128;
/// Bytes asked by the requests of one connection at a time, in KiB.
const REQUEST_KIB_MAX: u32 = 128 << 10;

#[derive(Debug, Clone, Copy)]
struct Request {
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    length: u32,
}

/// Parts of a reply, with what it keeps reserved until it is sent.
struct Reply {
    parts: Vec<Bytes>,
    _reserved: Reserved,
}

struct Reserved {
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// Serves one client until it leaves. Reads that wait end with it.
pub(crate) async fn serve(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    session: Session,
) -> io::Result<()> {
    let (replies, queue) = mpsc::channel(REQUESTS_MAX);
    let mut tasks = JoinSet::new();
    tokio::select! {
        result = receive(BufReader::new(reader), &session, replies, &mut tasks) => result,
        result = send(BufWriter::new(writer), queue) => result,
    }
}

async fn receive(
    mut stream: impl AsyncRead + Unpin,
    session: &Session,
    replies: mpsc::Sender<Reply>,
    tasks: &mut JoinSet<()>,
) -> io::Result<()> {
    let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
    let bytes = Arc::new(Semaphore::new(REQUEST_KIB_MAX as usize));
    loop {
        let Some(request) = next(&mut stream).await? else { return Ok(()) };
        if request.command == CMD_DISC {
            return Ok(());
        }
        if request.command == CMD_WRITE {
            // Its payload must be taken off the wire to find the next request.
            if request.length > READ_BYTES_MAX {
                return Err(broken("a write larger than any may be"));
            }
            let mut payload = (&mut stream).take(u64::from(request.length));
            tokio::io::copy(&mut payload, &mut tokio::io::sink()).await?;
        }
        let kib = request.length.min(READ_BYTES_MAX).div_ceil(1024);
        let closed = |_| broken("closed");
        let reserved = Reserved {
            _request: Arc::clone(&requests).acquire_owned().await.map_err(closed)?,
            _bytes: Arc::clone(&bytes).acquire_many_owned(kib).await.map_err(closed)?,
        };
        while tasks.try_join_next().is_some() {}
        let form = Form { structured: session.structured, allocation: session.allocation };
        let export = &session.export;
        if let Some(parts) = answer_now(request, form, export.as_ref()) {
            let reply = Reply { parts, _reserved: reserved };
            if replies.send(reply).await.is_err() {
                return Ok(());
            }
            continue;
        }
        let (export, replies) = (Arc::clone(export), replies.clone());
        tasks.spawn(async move {
            let parts = match export.read_at(request.offset, request.length).await {
                Ok(bytes) => read_reply(request, form, export.as_ref(), bytes),
                Err(error) => {
                    tracing::error!(%error, offset = request.offset, "a guest's read failed");
                    error_reply(request, form, EIO)
                }
            };
            // The client may be gone; then nobody waits for this.
            let _ = replies.send(Reply { parts, _reserved: reserved }).await;
        });
    }
}

async fn send(mut stream: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Reply>) -> io::Result<()> {
    while let Some(reply) = queue.recv().await {
        write(&mut stream, reply).await?;
        while let Ok(reply) = queue.try_recv() {
            write(&mut stream, reply).await?;
        }
        stream.flush().await?;
    }
    Ok(())
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> io::Result<()> {
    for part in &reply.parts {
        stream.write_all(part).await?;
    }
    Ok(())
}

/// The next request; `None` if the client closed between two.
async fn next(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    let magic = match stream.read_u32().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    if magic != REQUEST_MAGIC {
        return Err(broken("wrong request magic"));
    }
    Ok(Some(Request {
        flags: stream.read_u16().await?,
        command: stream.read_u16().await?,
        cookie: stream.read_u64().await?,
        offset: stream.read_u64().await?,
        length: stream.read_u32().await?,
    }))
}

#[derive(Debug, Clone, Copy)]
struct Form {
    structured: bool,
    allocation: bool,
}

/// The reply, unless it is a read that has to wait.
fn answer_now(request: Request, form: Form, export: &dyn Export) -> Option<Vec<Bytes>> {
    let inside =
        request.offset.checked_add(u64::from(request.length)).is_some_and(|end| end <= export.size());
    let refuse = |code| Some(error_reply(request, form, code));
    match request.command {
        CMD_READ if !inside || request.length > READ_BYTES_MAX || request.length == 0 => refuse(EINVAL),
        CMD_READ => export
            .read_now(request.offset, request.length)
            .map(|bytes| read_reply(request, form, export, bytes)),
        CMD_WRITE => refuse(EPERM),
        CMD_BLOCK_STATUS if !form.allocation || !inside || request.length == 0 => refuse(EINVAL),
        CMD_BLOCK_STATUS => Some(status_reply(request, export)),
        _ => refuse(EINVAL),
    }
}

fn read_reply(request: Request, form: Form, export: &dyn Export, bytes: Bytes) -> Vec<Bytes> {
    if !form.structured {
        return vec![simple_header(request, 0), bytes];
    }
    let whole = [Extent { length: u64::from(request.length), zero: false }];
    let extents = if request.flags & CMD_FLAG_DF != 0 {
        whole.to_vec()
    } else {
        export.extents(request.offset, request.length)
    };
    let mut parts = Vec::with_capacity(extents.len() * 2);
    let mut at = 0u32;
    for (index, extent) in extents.iter().enumerate() {
        let length = u32::try_from(extent.length).unwrap_or(u32::MAX);
        let flags = if index + 1 == extents.len() { CHUNK_DONE } else { 0 };
        let offset = request.offset + u64::from(at);
        if extent.zero {
            let mut chunk = chunk_header(request, flags, CHUNK_OFFSET_HOLE, 12);
            chunk.put_u64(offset);
            chunk.put_u32(length);
            parts.push(chunk.into());
        } else {
            let mut chunk = chunk_header(request, flags, CHUNK_OFFSET_DATA, length + 8);
            chunk.put_u64(offset);
            parts.push(chunk.into());
            parts.push(bytes.slice(at as usize..(at + length) as usize));
        }
        at += length;
    }
    parts
}

fn status_reply(request: Request, export: &dyn Export) -> Vec<Bytes> {
    let mut extents = export.extents(request.offset, request.length);
    if request.flags & CMD_FLAG_REQ_ONE != 0 {
        extents.truncate(1);
    }
    let length = u32::try_from(4 + extents.len() * 8).unwrap_or(u32::MAX);
    let mut chunk = chunk_header(request, CHUNK_DONE, CHUNK_BLOCK_STATUS, length);
    chunk.put_u32(BASE_ALLOCATION_ID);
    for extent in extents {
        chunk.put_u32(u32::try_from(extent.length).unwrap_or(u32::MAX));
        chunk.put_u32(if extent.zero { STATE_HOLE_ZERO } else { 0 });
    }
    vec![chunk.into()]
}

fn error_reply(request: Request, form: Form, code: u32) -> Vec<Bytes> {
    if !form.structured {
        return vec![simple_header(request, code)];
    }
    let mut chunk = chunk_header(request, CHUNK_DONE, CHUNK_ERROR, 6);
    chunk.put_u32(code);
    chunk.put_u16(0);
    vec![chunk.into()]
}

fn simple_header(request: Request, code: u32) -> Bytes {
    let mut header = Vec::with_capacity(16);
    header.put_u32(SIMPLE_REPLY_MAGIC);
    header.put_u32(code);
    header.put_u64(request.cookie);
    header.into()
}

fn chunk_header(request: Request, flags: u16, kind: u16, length: u32) -> Vec<u8> {
    debug_assert!(kind != CHUNK_NONE || length == 0);
    let mut header = Vec::with_capacity(64);
    header.put_u32(STRUCTURED_REPLY_MAGIC);
    header.put_u16(flags);
    header.put_u16(kind);
    header.put_u64(request.cookie);
    header.put_u32(length);
    header
}
