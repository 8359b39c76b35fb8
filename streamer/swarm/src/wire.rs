//! Messages of the peer protocol (BEP 3), checked against the torrent they are about.

use bytes::{BufMut as _, Bytes, BytesMut};
use librqbit_core::hash_id::Id20;
use librqbit_peer_protocol::{Handshake, Message, MessageDeserializeError};
use std::io;
use streamer_plan::{Block, Geometry, Pieces};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of a handshake.
const HANDSHAKE_BYTES: usize = 68;
/// Largest block anybody may ask of us, in bytes: what old clients ask at most.
const REQUEST_BYTES_MAX: u32 = 128 << 10;
/// Largest message: a block with its header, or the bitfield of the largest image.
const MESSAGE_BYTES_MAX: usize = (128 << 10) + 16;
/// Kind of an extension's message (BEP 10).
const EXTENDED: u8 = 20;
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
    /// Keep-alive, interest, or an extension: nothing to us.
    Nothing,
}

/// What we say.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    Unchoke,
    Interested,
    Has(u32),
    HasAll(Pieces),
    Ask(Block),
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
    // No extension was offered; some clients speak them all the same. Left unread: numbers in them may be of any size.
    if frame.get(4) == Some(&EXTENDED) {
        return Ok(Some(Said::Nothing));
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
            if !geometry.contains(block) || block.length > REQUEST_BYTES_MAX {
                return Err(Violation::BadRequest(block));
            }
            Said::Asks(block)
        }
        Message::Cancel(request) => Said::TakesBack(block(request)),
        Message::Piece(piece) => {
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let block = Block { piece: piece.index, begin: piece.begin, length };
            Said::Sends(block, frame.slice(BLOCK_HEADER_BYTES..))
        }
        Message::KeepAlive | Message::Interested | Message::NotInterested | Message::Extended(_) => {
            Said::Nothing
        }
    })
}

/// Appends a message.
pub(crate) fn put(buffer: &mut BytesMut, say: &Say) {
    let (kind, body): (u8, &[u32]) = match say {
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
        Say::Ask(block) => (6, &[block.piece, block.begin, block.length]),
        Say::TakeBack(block) => (8, &[block.piece, block.begin, block.length]),
    };
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

/// Sends our half of the handshake. No extension is offered.
pub(crate) async fn send_handshake(
    stream: &mut (impl AsyncWrite + Unpin),
    info_hash: [u8; 20],
    peer_id: [u8; 20],
) -> io::Result<()> {
    let handshake = Handshake { reserved: 0, info_hash: Id20::new(info_hash), peer_id: Id20::new(peer_id) };
    let mut bytes = [0; HANDSHAKE_BYTES];
    let length = handshake.serialize_unchecked_len(&mut bytes);
    stream.write_all(&bytes[..length]).await?;
    stream.flush().await
}

/// Reads the other half: info hash and peer id.
pub(crate) async fn read_handshake(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<([u8; 20], [u8; 20])> {
    let mut bytes = [0; HANDSHAKE_BYTES];
    stream.read_exact(&mut bytes).await?;
    let (handshake, _) = Handshake::deserialize(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok((handshake.info_hash.0, handshake.peer_id.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(10 * 65536, 65536).unwrap()
    }

    fn said(bytes: &[u8]) -> Result<Option<Said>, Violation> {
        take(&mut BytesMut::from(bytes), geometry())
    }

    #[test]
    fn what_is_said_is_understood() {
        let block = Block { piece: 3, begin: 16384, length: 16384 };
        let mut buffer = BytesMut::new();
        for say in [Say::Unchoke, Say::Interested, Say::Has(9), Say::Ask(block), Say::TakeBack(block)] {
            put(&mut buffer, &say);
        }
        put(&mut buffer, &Say::HasAll(Pieces::none(10)));
        buffer.extend_from_slice(&block_header(Block { length: 2, ..block }));
        buffer.extend_from_slice(b"xy");
        let mut next = || take(&mut buffer, geometry()).unwrap().unwrap();
        assert!(matches!(next(), Said::Choking(false)));
        assert!(matches!(next(), Said::Nothing));
        assert!(matches!(next(), Said::Has(9)));
        assert!(matches!(next(), Said::Asks(asked) if asked == block));
        assert!(matches!(next(), Said::TakesBack(asked) if asked == block));
        assert!(matches!(next(), Said::HasAll(pieces) if pieces.count() == 0));
        assert!(matches!(next(), Said::Sends(sent, bytes) if sent.length == 2 && bytes == b"xy"[..]));
        assert!(take(&mut buffer, geometry()).unwrap().is_none());
    }

    #[test]
    fn a_malformed_message_is_a_violation() {
        assert!(matches!(said(&[255; 8]), Err(Violation::TooLong(_))));
        assert!(matches!(said(&[0, 0, 0, 5, 4, 0, 0, 0, 10]), Err(Violation::NoSuchPiece(10))));
        assert!(matches!(said(&[0, 0, 0, 2, 4, 0]), Err(Violation::Malformed(_))));
        assert!(matches!(said(&[0, 0, 0, 2, 5, 0]), Err(Violation::Bitfield(_))));
        let mut outside = BytesMut::new();
        put(&mut outside, &Say::Ask(Block { piece: 9, begin: u32::MAX, length: 16384 }));
        assert!(matches!(said(&outside), Err(Violation::BadRequest(_))));
    }

    // A number of more than 64 bits in an extension's message overflowed in its parser, and took the connection's task
    // with it before the torrent was told.
    #[test]
    fn an_extension_is_passed_over_whatever_is_in_it() {
        for body in [&b""[..], b"\0d1:pi99999999999999999999ee", b"\0le", b"\x07llll"] {
            let mut message = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
            message.push(EXTENDED);
            message.extend_from_slice(body);
            assert!(matches!(said(&message), Ok(Some(Said::Nothing))), "{body:?}");
        }
    }

    #[test]
    fn an_unknown_message_is_passed_over() {
        assert!(matches!(said(&[0, 0, 0, 3, 9, 1, 2]), Ok(Some(Said::Nothing))));
    }
}
