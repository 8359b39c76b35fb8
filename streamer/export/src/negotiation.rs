//! The handshake: which export, which replies.

use crate::request::Form;
use crate::server::Entry;
use crate::wire::*;
use crate::{Export, READ_BYTES_MAX, Server};
use bytes::{Buf as _, BufMut as _};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// Longest option, in bytes. An export name is 64 and a query of contexts little more.
const OPTION_BYTES_MAX: u32 = 16 << 10;
/// Options of one client: some tools list all exports and ask for each with three.
pub(crate) const OPTIONS_MAX: u32 = 64 << 10;
/// A list is sent in parts of about this many bytes.
const LIST_BYTES: usize = 64 << 10;

/// What was agreed.
pub(crate) struct Session {
    /// As its reader sees it.
    pub(crate) export: Arc<dyn Export>,
    /// Ends the connection.
    pub(crate) gone: CancellationToken,
    pub(crate) form: Form,
}

pub(crate) fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Negotiates; `None` if the client left in order.
pub(crate) async fn negotiate(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    server: &Server,
) -> io::Result<Option<Session>> {
    let mut hello = Vec::with_capacity(18);
    hello.put_u64(INIT_MAGIC);
    hello.put_u64(OPTION_MAGIC);
    hello.put_u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    writer.write_all(&hello).await?;
    let flags = reader.read_u32().await?;
    if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
        return Err(broken("unknown client flags"));
    }
    let mut state = State {
        server,
        structured: false,
        allocation_of: None,
        no_zeroes: flags & u32::from(FLAG_NO_ZEROES) != 0,
    };
    for _ in 0..OPTIONS_MAX {
        if reader.read_u64().await? != OPTION_MAGIC {
            return Err(broken("wrong option magic"));
        }
        let option = reader.read_u32().await?;
        let length = reader.read_u32().await?;
        if length > OPTION_BYTES_MAX {
            if option == OPT_EXPORT_NAME {
                return Err(broken("export name too long"));
            }
            let skipped =
                tokio::io::copy(&mut (&mut *reader).take(u64::from(length)), &mut tokio::io::sink()).await?;
            if skipped < u64::from(length) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            reply(writer, option, REP_ERR_TOO_BIG, b"").await?;
            continue;
        }
        let mut data = vec![0; length as usize];
        reader.read_exact(&mut data).await?;
        match state.option(writer, option, &data).await? {
            Next::Option => {}
            Next::Leave => return Ok(None),
            Next::Transmit(session) => return Ok(Some(session)),
        }
    }
    Err(broken("too many options"))
}

enum Next {
    Option,
    Leave,
    Transmit(Session),
}

struct State<'a> {
    server: &'a Server,
    structured: bool,
    /// The export whose allocation was asked for.
    allocation_of: Option<String>,
    no_zeroes: bool,
}

impl State<'_> {
    async fn option<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        option: u32,
        data: &[u8],
    ) -> io::Result<Next> {
        match option {
            OPT_EXPORT_NAME => return self.export_name(writer, data).await,
            OPT_ABORT => {
                // The client may be gone already, which is what it wants.
                let _ = reply(writer, option, REP_ACK, b"").await;
                return Ok(Next::Leave);
            }
            OPT_LIST if !data.is_empty() => reply(writer, option, REP_ERR_INVALID, b"").await?,
            OPT_LIST => {
                let mut list = Vec::new();
                for name in self.server.names() {
                    let mut entry = Vec::with_capacity(4 + name.len());
                    put_string(&mut entry, &name);
                    put_reply(&mut list, option, REP_SERVER, &entry);
                    if list.len() >= LIST_BYTES {
                        writer.write_all(&list).await?;
                        list.clear();
                    }
                }
                writer.write_all(&list).await?;
                reply(writer, option, REP_ACK, b"").await?;
            }
            OPT_INFO | OPT_GO => return self.info(writer, option, data).await,
            OPT_STRUCTURED_REPLY if !data.is_empty() => reply(writer, option, REP_ERR_INVALID, b"").await?,
            OPT_STRUCTURED_REPLY => {
                self.structured = true;
                reply(writer, option, REP_ACK, b"").await?;
            }
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => self.contexts(writer, option, data).await?,
            _ => reply(writer, option, REP_ERR_UNSUP, b"").await?,
        }
        Ok(Next::Option)
    }

    /// The old way: there is no way to refuse but to hang up.
    async fn export_name<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, data: &[u8]) -> io::Result<Next> {
        let name = std::str::from_utf8(data).map_err(|_| broken("export name is not UTF-8"))?;
        let (entry, reader) = self.server.find(name).ok_or_else(|| broken("no such export"))?;
        let session = self.session(name, entry, reader);
        let mut answer = Vec::new();
        answer.put_u64(session.export.size());
        answer.put_u16(EXPORT_FLAGS);
        if !self.no_zeroes {
            answer.put_bytes(0, 124);
        }
        writer.write_all(&answer).await?;
        Ok(Next::Transmit(session))
    }

    async fn info<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        option: u32,
        mut data: &[u8],
    ) -> io::Result<Next> {
        let name = take_string(&mut data);
        let well_formed = data.len() >= 2 && {
            let requests = usize::from(data.get_u16());
            data.len() == requests * 2
        };
        let Some(name) = name.filter(|_| well_formed) else {
            reply(writer, option, REP_ERR_INVALID, b"").await?;
            return Ok(Next::Option);
        };
        let Some((entry, reader)) = self.server.find(&name) else {
            reply(writer, option, REP_ERR_UNKNOWN, b"this image is not exported here").await?;
            return Ok(Next::Option);
        };
        let size = entry.export.size();
        // Its reader is known to the export before the client knows that it may read.
        let session = (option == OPT_GO).then(|| self.session(&name, entry, reader));
        let mut export = Vec::new();
        export.put_u16(INFO_EXPORT);
        export.put_u64(size);
        export.put_u16(EXPORT_FLAGS);
        reply(writer, option, REP_INFO, &export).await?;
        let mut sizes = Vec::new();
        sizes.put_u16(INFO_BLOCK_SIZE);
        sizes.put_u32(1);
        sizes.put_u32(4096);
        sizes.put_u32(READ_BYTES_MAX);
        reply(writer, option, REP_INFO, &sizes).await?;
        reply(writer, option, REP_ACK, b"").await?;
        Ok(session.map_or(Next::Option, Next::Transmit))
    }

    async fn contexts<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        option: u32,
        mut data: &[u8],
    ) -> io::Result<()> {
        let set = option == OPT_SET_META_CONTEXT;
        if set {
            self.allocation_of = None;
        }
        let Some((name, wanted)) = wants_allocation(&mut data, set).filter(|_| self.structured) else {
            return reply(writer, option, REP_ERR_INVALID, b"").await;
        };
        if self.server.find(&name).is_none() {
            return reply(writer, option, REP_ERR_UNKNOWN, b"this image is not exported here").await;
        }
        if wanted {
            let mut context = Vec::new();
            context.put_u32(if set { BASE_ALLOCATION_ID } else { 0 });
            context.put_slice(BASE_ALLOCATION.as_bytes());
            reply(writer, option, REP_META_CONTEXT, &context).await?;
            if set {
                self.allocation_of = Some(name);
            }
        }
        reply(writer, option, REP_ACK, b"").await
    }

    fn session(&self, name: &str, entry: Entry, reader: &str) -> Session {
        Session {
            export: entry.export.for_reader(reader),
            gone: entry.gone,
            form: Form {
                structured: self.structured,
                allocation: self.allocation_of.as_deref() == Some(name),
            },
        }
    }
}

/// The export's name, and whether its allocation is asked for; `None` if malformed.
fn wants_allocation(data: &mut &[u8], set: bool) -> Option<(String, bool)> {
    let name = take_string(data)?;
    if data.len() < 4 {
        return None;
    }
    let queries = data.get_u32();
    // No query at all lists everything, and sets nothing.
    let mut wanted = queries == 0 && !set;
    for _ in 0..queries {
        let query = take_string(data)?;
        wanted |= query == BASE_ALLOCATION || (!set && query == "base:");
    }
    data.is_empty().then_some((name, wanted))
}

fn take_string(data: &mut &[u8]) -> Option<String> {
    if data.len() < 4 {
        return None;
    }
    let length = data.get_u32() as usize;
    if length > data.len() {
        return None;
    }
    let (text, rest) = data.split_at(length);
    *data = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn put_string(data: &mut Vec<u8>, text: &str) {
    data.put_u32(u32::try_from(text.len()).unwrap_or(0));
    data.put_slice(text.as_bytes());
}

async fn reply(
    writer: &mut (impl AsyncWrite + Unpin),
    option: u32,
    kind: u32,
    data: &[u8],
) -> io::Result<()> {
    let mut answer = Vec::with_capacity(20 + data.len());
    put_reply(&mut answer, option, kind, data);
    writer.write_all(&answer).await
}

fn put_reply(answer: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    answer.put_u64(REPLY_MAGIC);
    answer.put_u32(option);
    answer.put_u32(kind);
    answer.put_u32(u32::try_from(data.len()).unwrap_or(0));
    answer.put_slice(data);
}
