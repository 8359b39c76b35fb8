//! Our extensions to the peer protocol, on BEP 10: sites, requests somebody waits for, and who fetches for a site.
//!
//! | message | body | means |
//! |---|---|---|
//! | handshake | `{m: {co_urgent: 1, co_want: 2}, reqq: .., site: .., v: ..}` | the first message of ours after the handshake |
//! | `co_urgent` | index, begin, length as in a request | somebody waits for this block, which was asked for before |
//! | `co_want` | index | somebody of your site waits for this piece: fetch it for us all |
//!
//! A handshake that is not understood is another client's affair and passed over; a malformed message of ours is not.

use crate::wire::{EXTENDED, Said, Violation, requested};
use bytes::{BufMut as _, BytesMut};
use std::sync::Arc;
use streamer_plan::{Bencode, BencodeDict, Block, Geometry};

/// Numbers of our messages, as we take them.
const URGENT: u8 = 1;
const WANT: u8 = 2;
/// Longest handshake that is read, in bytes.
const HELLO_BYTES_MAX: usize = 8 << 10;
/// Longest name of a site, in bytes.
pub(crate) const SITE_BYTES_MAX: usize = 63;
/// Requests we take from a peer at a time, as other clients are told.
pub(crate) const REQUESTS_MAX: usize = 1024;

/// Numbers of our messages, as a peer takes them; 0 if it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) urgent: u8,
    pub(crate) want: u8,
}

/// What a peer says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) numbers: Numbers,
    pub(crate) site: Option<Arc<str>>,
}

/// Reads a message of an extension, without its length and kind.
pub(crate) fn read(body: &[u8], geometry: Geometry) -> Result<Said, Violation> {
    match body.split_first() {
        Some((0, hello)) => Ok(read_hello(hello).map_or(Said::Nothing, Said::Hello)),
        Some((&URGENT, body)) => {
            let [piece, begin, length] = numbers(body).ok_or(Violation::Extension)?;
            requested(Block { piece, begin, length }, geometry).map(Said::Urges)
        }
        Some((&WANT, body)) => {
            let [piece] = numbers(body).ok_or(Violation::Extension)?;
            if piece >= geometry.pieces() {
                return Err(Violation::NoSuchPiece(piece));
            }
            Ok(Said::Wants(piece))
        }
        _ => Ok(Said::Nothing),
    }
}

fn numbers<const N: usize>(body: &[u8]) -> Option<[u32; N]> {
    let (chunks, rest) = body.as_chunks::<4>();
    let numbers: [[u8; 4]; N] = chunks.try_into().ok()?;
    rest.is_empty().then(|| numbers.map(u32::from_be_bytes))
}

fn read_hello(body: &[u8]) -> Option<Hello> {
    let value = Bencode::parse(body.get(..body.len().min(HELLO_BYTES_MAX + 1))?)?;
    let dict = value.dict()?;
    let messages = dict.get("m").and_then(Bencode::dict);
    let number = |name: &str| {
        let number = messages.and_then(|messages: &BencodeDict<'_>| messages.integer(name));
        number.and_then(|number| u8::try_from(number).ok()).unwrap_or(0)
    };
    let site = dict.bytes("site").and_then(|site| std::str::from_utf8(site).ok());
    let site = site.filter(|site| !site.is_empty() && site.len() <= SITE_BYTES_MAX);
    Some(Hello {
        numbers: Numbers { urgent: number("co_urgent"), want: number("co_want") },
        site: site.map(Arc::from),
    })
}

pub(crate) fn put_hello(buffer: &mut BytesMut, site: Option<&str>) {
    let version = concat!("Collective ", env!("CARGO_PKG_VERSION"));
    let site = site.map(|site| format!("4:site{}:{site}", site.len())).unwrap_or_default();
    let hello = format!(
        "d1:md9:co_urgenti{URGENT}e7:co_wanti{WANT}ee4:reqqi{REQUESTS_MAX}e{site}1:v{}:{version}e",
        version.len()
    );
    put(buffer, 0, hello.as_bytes());
}

pub(crate) fn put_urgent(buffer: &mut BytesMut, numbers: Numbers, block: Block) {
    if numbers.urgent != 0 {
        let mut body = [0; 12];
        let mut rest = &mut body[..];
        [block.piece, block.begin, block.length].iter().for_each(|number| rest.put_u32(*number));
        put(buffer, numbers.urgent, &body);
    }
}

pub(crate) fn put_want(buffer: &mut BytesMut, numbers: Numbers, piece: u32) {
    if numbers.want != 0 {
        put(buffer, numbers.want, &piece.to_be_bytes());
    }
}

fn put(buffer: &mut BytesMut, number: u8, body: &[u8]) {
    buffer.put_u32(u32::try_from(body.len() + 2).unwrap_or(u32::MAX));
    buffer.put_u8(EXTENDED);
    buffer.put_u8(number);
    buffer.put_slice(body);
}
