//! Messages of the peer protocol (BEP 3), checked against the torrent they are about, and our extensions to it.

pub(crate) use crate::extension::Hello;

use crate::extension::{self, Numbers};
use bytes::{BufMut as _, Bytes, BytesMut};
use librqbit_core::hash_id::Id20;
use librqbit_peer_protocol::{Handshake, Message, MessageDeserializeError};
use std::io;
use std::sync::Arc;
use streamer_plan::{BLOCK_BYTES, Block, Geometry, Pieces};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of a handshake.
const HANDSHAKE_BYTES: usize = 68;
/// Largest block anybody may ask of us, in bytes: what old clients ask at most.
const REQUEST_BYTES_MAX: u32 = 128 << 10;
/// Largest message: a block with its header, or the bitfield of the largest image.
const MESSAGE_BYTES_MAX: usize = (128 << 10) + 16;
/// Kind of an extension's message (BEP 10).
pub(crate) const EXTENDED: u8 = 20;
/// The bit of a handshake that says so (BEP 10).
const EXTENSIONS: u64 = 1 << 20;
/// Length, kind, piece and offset before a block's bytes.
const BLOCK_HEADER_BYTES: usize = 13;

/// What a peer said.
#[derive(Debug)]
pub(crate) enum Said {
    Choking(bool),
    Has(u32),
    HasAll(Pieces),
    Asks(Block),
    TakesBack(Block),
    Sends(Block, Bytes),
    /// It speaks our extensions.
    Hello(Hello),
    /// Somebody waits for a block it asked for.
    Urges(Block),
    /// Somebody of its site waits for a piece, and we are the one to fetch it.
    Wants(u32),
    /// Keep-alive, interest, or another extension: nothing to us.
    Nothing,
}

/// What we say.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    /// To a peer that knows of extensions; our site.
    Hello(Option<Arc<str>>),
    Unchoke,
    Interested,
    Has(u32),
    HasAll(Pieces),
    Ask {
        block: Block,
        urgent: bool,
    },
    /// Somebody waits now for a block that was asked for earlier.
    Urge(Block),
    Want(u32),
    TakeBack(Block),
}

/// A peer broke the protocol.
#[derive(Debug, Error)]
pub(crate) enum Violation {
    #[error("a message of {0} bytes")]
    TooLong(usize),
    #[error("malformed message: {0}")]
    Malformed(MessageDeserializeError),
    #[error("piece {0} does not exist")]
    NoSuchPiece(u32),
    #[error("a request outside of its piece or too long: {0:?}")]
    BadRequest(Block),
    #[error(transparent)]
    Bitfield(#[from] streamer_plan::WrongBitfield),
    #[error("more requests than anybody needs")]
    TooManyRequests,
    #[error("a block that nobody cuts so: {0:?}")]
    BadBlock(Block),
    #[error("blocks that nobody asked for")]
    Unasked,
    #[error("a malformed message of our own extension")]
    Extension,
}

/// Takes the next whole message off the buffer; `None` if more bytes are needed.
pub(crate) fn take(buffer: &mut BytesMut, geometry: Geometry) -> Result<Option<Said>, Violation> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let total = u32::from_be_bytes(*prefix) as usize + 4;
    if total > MESSAGE_BYTES_MAX {
        return Err(Violation::TooLong(total));
    }
    if buffer.len() < total {
        buffer.reserve(total - buffer.len());
        return Ok(None);
    }
    let frame = buffer.split_to(total).freeze();
    if frame.get(4) == Some(&EXTENDED) {
        return extension::read(&frame[5..], geometry).map(Some);
    }
    match Message::deserialize(&frame, &[]) {
        Ok((message, _)) => understand(&message, &frame, geometry).map(Some),
        // Of other extensions, such as the fast one.
        Err(MessageDeserializeError::UnsupportedMessageId(_)) => Ok(Some(Said::Nothing)),
        Err(error) => Err(Violation::Malformed(error)),
    }
}

fn understand(message: &Message<'_>, frame: &Bytes, geometry: Geometry) -> Result<Said, Violation> {
    let block = |request: &librqbit_peer_protocol::Request| Block {
        piece: request.index,
        begin: request.begin,
        length: request.length,
    };
    Ok(match message {
        Message::Choke => Said::Choking(true),
        Message::Unchoke => Said::Choking(false),
        Message::Have(piece) if *piece >= geometry.pieces() => return Err(Violation::NoSuchPiece(*piece)),
        Message::Have(piece) => Said::Has(*piece),
        Message::Bitfield(bits) => Said::HasAll(Pieces::from_bitfield(bits.as_ref(), geometry.pieces())?),
        Message::Request(request) => {
            let block = block(request);
            Said::Asks(requested(block, geometry)?)
        }
        Message::Cancel(request) => Said::TakesBack(block(request)),
        Message::Piece(piece) => {
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let block = Block { piece: piece.index, begin: piece.begin, length };
            // We ask for blocks of one cut only.
            if !geometry.contains(block) || geometry.block(block.piece, block.begin / BLOCK_BYTES) != block {
                return Err(Violation::BadBlock(block));
            }
            Said::Sends(block, frame.slice(BLOCK_HEADER_BYTES..))
        }
        Message::KeepAlive | Message::Interested | Message::NotInterested | Message::Extended(_) => {
            Said::Nothing
        }
    })
}

/// A block that may be asked of us.
pub(crate) fn requested(block: Block, geometry: Geometry) -> Result<Block, Violation> {
    let fine = geometry.contains(block) && block.length <= REQUEST_BYTES_MAX;
    if fine { Ok(block) } else { Err(Violation::BadRequest(block)) }
}

/// Appends a message; those of an extension only if the peer has `numbers` for them.
pub(crate) fn put(buffer: &mut BytesMut, say: &Say, numbers: Numbers) {
    let (kind, body): (u8, &[u32]) = match say {
        Say::Hello(site) => return extension::put_hello(buffer, site.as_deref()),
        Say::Urge(block) => return extension::put_urgent(buffer, numbers, *block),
        Say::Want(piece) => return extension::put_want(buffer, numbers, *piece),
        Say::Ask { block, urgent } => {
            put_plain(buffer, 6, &[block.piece, block.begin, block.length]);
            if *urgent {
                extension::put_urgent(buffer, numbers, *block);
            }
            return;
        }
        Say::Unchoke => (1, &[]),
        Say::Interested => (2, &[]),
        Say::Has(piece) => (4, &[*piece]),
        Say::HasAll(pieces) => {
            let bits = pieces.to_bitfield();
            buffer.put_u32(u32::try_from(bits.len() + 1).unwrap_or(u32::MAX));
            buffer.put_u8(5);
            buffer.put_slice(&bits);
            return;
        }
        Say::TakeBack(block) => (8, &[block.piece, block.begin, block.length]),
    };
    put_plain(buffer, kind, body);
}

fn put_plain(buffer: &mut BytesMut, kind: u8, body: &[u32]) {
    buffer.put_u32(u32::try_from(body.len() * 4 + 1).unwrap_or(u32::MAX));
    buffer.put_u8(kind);
    body.iter().for_each(|number| buffer.put_u32(*number));
}

/// The header before a block's bytes.
pub(crate) fn block_header(block: Block) -> [u8; BLOCK_HEADER_BYTES] {
    let mut header = [0; BLOCK_HEADER_BYTES];
    let mut rest = &mut header[..];
    rest.put_u32(block.length + 9);
    rest.put_u8(7);
    rest.put_u32(block.piece);
    rest.put_u32(block.begin);
    header
}

/// Sends our half of the handshake. Of the extensions only their protocol (BEP 10) is offered.
pub(crate) async fn send_handshake(
    stream: &mut (impl AsyncWrite + Unpin),
    info_hash: [u8; 20],
    peer_id: [u8; 20],
) -> io::Result<()> {
    let handshake =
        Handshake { reserved: EXTENSIONS, info_hash: Id20::new(info_hash), peer_id: Id20::new(peer_id) };
    let mut bytes = [0; HANDSHAKE_BYTES];
    let length = handshake.serialize_unchecked_len(&mut bytes);
    stream.write_all(&bytes[..length]).await?;
    stream.flush().await
}

/// The other half of a handshake.
#[derive(Debug)]
pub(crate) struct Shaken {
    pub(crate) info_hash: [u8; 20],
    pub(crate) peer_id: [u8; 20],
    /// It knows of extensions.
    pub(crate) extensible: bool,
}

/// Reads the other half.
pub(crate) async fn read_handshake(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Shaken> {
    let mut bytes = [0; HANDSHAKE_BYTES];
    stream.read_exact(&mut bytes).await?;
    let (handshake, _) = Handshake::deserialize(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(Shaken {
        info_hash: handshake.info_hash.0,
        peer_id: handshake.peer_id.0,
        extensible: handshake.reserved & EXTENSIONS != 0,
    })
}

#[cfg(test)]
mod tests;
