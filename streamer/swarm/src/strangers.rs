//! Where strangers' bytes are read, as functions without a socket: the door of the fuzz targets. Nothing else needs it.

use crate::{tracker, web_seed, wire};
use bytes::BytesMut;
use std::net::SocketAddr;
use streamer_plan::{Block, Geometry};

/// Reads the other half of a handshake: info hash and peer id.
///
/// # Errors
/// If it is too short or no handshake.
pub async fn handshake(mut bytes: &[u8]) -> std::io::Result<([u8; 20], [u8; 20])> {
    let shaken = wire::read_handshake(&mut bytes).await?;
    Ok((shaken.info_hash, shaken.peer_id))
}

/// Reads messages that arrive in parts of at most `part` bytes, until they end or break the protocol. Returns how many
/// were understood.
#[must_use]
pub fn messages(bytes: &[u8], part: usize, geometry: Geometry) -> usize {
    let (mut buffer, mut understood) = (BytesMut::new(), 0);
    for part in bytes.chunks(part.max(1)) {
        buffer.extend_from_slice(part);
        loop {
            match wire::take(&mut buffer, geometry) {
                Ok(Some(_)) => understood += 1,
                Ok(None) => break,
                Err(_) => return understood,
            }
        }
    }
    understood
}

/// Reads a tracker's answer: the peers it names, `None` if it is a refusal or malformed.
#[must_use]
pub fn tracker_answer(body: &[u8]) -> Option<Vec<SocketAddr>> {
    tracker::peers(body)
}

/// Reads a web server's answer, of this status and `Content-Range`, to a request for a piece from one block on; its body
/// arrives in parts of at most `part` bytes. The blocks it has, or `None` if it is no answer to that.
pub async fn web_seed_answer(
    geometry: Geometry,
    from: Block,
    status: u16,
    content_range: &[u8],
    body: &[u8],
    part: usize,
) -> Option<Vec<u8>> {
    web_seed::taken(geometry, from, status, content_range, body.chunks(part.max(1))).await
}
