//! Splits libvirt's saved memory into QEMU's page records and what is between them. The pieces, one after the other, are
//! the stream: nothing is left out, nothing is an error.
//!
//! The form: libvirt's header (92 bytes and the text whose length it says), then QEMU's migration stream, version 3: a
//! section of RAM is begun (`0x01`, the list of blocks), goes on (`0x02`) and ends (`0x03`); each holds records of a 64-bit
//! word, address and flags, and each ends with a footer. What comes after RAM's end, the devices, is small.

use std::io::{self, Read};

/// Shortest and longest piece of what are no records. Where one ends depends on the bytes before it, not on where they
/// are: what stays the same is found again though a device before it says more than last time.
const PIECE_BYTES: (usize, usize) = (128, 4 << 10);
/// Ends a piece where these bits of the hash of the bytes before are zeros: once in 512.
const PIECE_END: u64 = 0x1ff << 23;
/// Records of pages that are all zeros make one piece, up to an address that is a multiple of this: so they are the same
/// pieces wherever the run begins.
const ZEROS_BYTES: u64 = 256 << 10;
/// Most bytes of libvirt's text: it writes 64 KiB more than it needs, documents have some ten.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;
/// Bytes of a page of the target.
const PAGE_BYTES: usize = 4096;
/// How libvirt's file begins, and how many bytes its header has before its text.
const LIBVIRT: (&[u8], usize) = (b"LibvirtQemudSave", 92);
/// How QEMU's stream begins, with its version.
const QEMU: &[u8] = b"QEVM\0\0\0\x03";
/// Between a section's identifier and its records: the name `ram`, instance 0, version 4.
const RAM: &[u8] = b"\x03ram\0\0\0\0\0\0\0\x04";
/// How far into the stream RAM begins at most.
const RAM_AT_MAX: usize = 64 << 10;
const SECTION_START: u8 = 0x01;
const SECTION_PART: u8 = 0x02;
const SECTION_END: u8 = 0x03;
const SECTION_FOOTER: u8 = 0x7e;
/// Flags of a record, in the low bits of its word.
const FLAG_ZERO: u64 = 0x02;
const FLAG_MEM_SIZE: u64 = 0x04;
const FLAG_PAGE: u64 = 0x08;
const FLAG_EOS: u64 = 0x10;
const FLAG_CONTINUE: u64 = 0x20;
const FLAG_MULTIFD_FLUSH: u64 = 0x200;
const FLAGS: u64 = 0xfff;

/// A part of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// One record that holds a page.
    Page(Vec<u8>),
    /// Anything else.
    Other(Vec<u8>),
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Page(bytes) | Self::Other(bytes) => bytes,
        }
    }
}

/// Where in the stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At its very beginning.
    Begin,
    /// Before a section of RAM, of this identifier.
    Section(u32),
    /// Among the records of such a section; the last one, if so.
    Records { id: u32, last: bool },
    /// Nothing is known of what follows.
    Rest,
}

/// The pieces of a stream.
pub(crate) struct Split<R> {
    from: R,
    state: State,
    /// Read, and given out up to here.
    ahead: Vec<u8>,
    given: usize,
    /// So many bytes of what follows are no records.
    plain: usize,
    ended: bool,
}

impl<R: Read> Split<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, state: State::Begin, ahead: Vec::new(), given: 0, plain: 0, ended: false }
    }

    /// The next piece, never empty; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        if self.plain > 0 {
            return self.plain_piece(self.plain);
        }
        match self.state {
            State::Begin => match self.begin()? {
                Some(len) => self.plain_piece(len),
                None => self.rest(),
            },
            State::Section(id) => match self.section(id)? {
                Some(len) => Ok(self.give(len).map(Piece::Other)),
                None => self.rest(),
            },
            State::Records { id, last } => self.record(id, last),
            State::Rest => self.rest(),
        }
    }

    /// What is not understood, as it comes.
    fn rest(&mut self) -> io::Result<Option<Piece>> {
        self.state = State::Rest;
        let len = self.peek(PIECE_BYTES.1)?.len();
        self.plain_piece(len)
    }

    /// A portion of so many bytes, which are there and are no records.
    fn plain_piece(&mut self, len: usize) -> io::Result<Option<Piece>> {
        let portion = portion_len(&self.peek(len.min(PIECE_BYTES.1))?[..len.min(PIECE_BYTES.1)]);
        self.plain = if self.state == State::Rest { 0 } else { len - portion };
        Ok(self.give(portion).map(Piece::Other))
    }

    /// Bytes up to RAM's first record.
    fn begin(&mut self) -> io::Result<Option<usize>> {
        let (magic, fixed) = LIBVIRT;
        let header = self.peek(fixed)?;
        let start = match header.get(20..24) {
            Some(len) if header.starts_with(magic) => {
                let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
                if len > TEXT_BYTES_MAX {
                    return Ok(None);
                }
                fixed + len
            }
            _ => 0,
        };
        let all = self.peek(start + RAM_AT_MAX)?;
        let Some(stream) = all.get(start..).filter(|stream| stream.starts_with(QEMU)) else {
            return Ok(None);
        };
        let found = stream
            .windows(5 + RAM.len())
            .position(|window| window[0] == SECTION_START && &window[5..] == RAM);
        let Some(at) = found.map(|at| start + at) else { return Ok(None) };
        let Some(id) = word_32(&all[at + 1..]) else { return Ok(None) };
        let blocks_at = at + 5 + RAM.len();
        let Some(len) = blocks_len(&all[blocks_at..]) else { return Ok(None) };
        self.state = State::Records { id, last: false };
        Ok(Some(blocks_at + len))
    }

    /// A section's own header, if it is one of RAM.
    fn section(&mut self, id: u32) -> io::Result<Option<usize>> {
        let header = self.peek(5)?;
        let last = match header.first() {
            Some(&SECTION_PART) => false,
            Some(&SECTION_END) => true,
            _ => return Ok(None),
        };
        if header.get(1..).and_then(word_32) != Some(id) {
            return Ok(None);
        }
        self.state = State::Records { id, last };
        Ok(Some(5))
    }

    fn record(&mut self, id: u32, last: bool) -> io::Result<Option<Piece>> {
        let bytes = self.peek(8 + 1 + 255 + PAGE_BYTES)?;
        let Some(word) = word_64(bytes) else { return self.rest() };
        let flags = word & FLAGS;
        if flags == FLAG_EOS {
            // The footer repeats the section's identifier.
            let footed =
                bytes.get(8) == Some(&SECTION_FOOTER) && bytes.get(9..).and_then(word_32) == Some(id);
            self.state = if footed && !last { State::Section(id) } else { State::Rest };
            let len = if footed { 13 } else { 8 };
            return Ok(self.give(len).map(Piece::Other));
        }
        let named = match (flags & FLAG_CONTINUE, bytes.get(8)) {
            (0, Some(len)) => 1 + usize::from(*len),
            _ => 0,
        };
        match flags & !FLAG_CONTINUE {
            FLAG_PAGE if bytes.len() >= 8 + named + PAGE_BYTES => {
                Ok(self.give(8 + named + PAGE_BYTES).map(Piece::Page))
            }
            FLAG_ZERO if bytes.len() > 8 + named => {
                let len = zeros_len(bytes, 8 + named + 1);
                Ok(self.give(len).map(Piece::Other))
            }
            FLAG_MULTIFD_FLUSH => Ok(self.give(8).map(Piece::Other)),
            _ => self.rest(),
        }
    }

    /// At least so many bytes of what follows, fewer only at the end.
    fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        while self.ahead.len() - self.given < len && !self.ended {
            self.ahead.drain(..self.given);
            self.given = 0;
            let wanted = (len - self.ahead.len()).max(READ_BYTES) as u64;
            let read = self.from.by_ref().take(wanted).read_to_end(&mut self.ahead)?;
            self.ended = read == 0;
        }
        Ok(&self.ahead[self.given..])
    }

    /// Takes so many bytes, which are there; none if that is zero.
    fn give(&mut self, len: usize) -> Option<Vec<u8>> {
        let bytes = self.ahead[self.given..self.given + len].to_vec();
        self.given += len;
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// Bytes up to where a piece ends: a gear hash, which forgets a byte after 64 others.
fn portion_len(bytes: &[u8]) -> usize {
    let mut hash = 0_u64;
    for (index, byte) in bytes.iter().enumerate() {
        // An odd multiplier spreads a byte over the word.
        hash = (hash << 1).wrapping_add((u64::from(*byte) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if index + 1 >= PIECE_BYTES.0 && hash & PIECE_END == 0 {
            return index + 1;
        }
    }
    bytes.len()
}

/// Bytes of the records of zeros that go on after the first one, which has so many.
fn zeros_len(bytes: &[u8], first: usize) -> usize {
    let mut len = first;
    while let Some(record) = bytes.get(len..len + 9) {
        match word_64(record) {
            Some(word)
                if word & FLAGS == FLAG_ZERO | FLAG_CONTINUE
                    && !(word & !FLAGS).is_multiple_of(ZEROS_BYTES) =>
            {
                len += 9;
            }
            _ => break,
        }
    }
    len
}

/// Bytes of the list of RAM's blocks: the sum of their sizes, then a name and a size each.
fn blocks_len(bytes: &[u8]) -> Option<usize> {
    let word = word_64(bytes)?;
    if word & FLAGS != FLAG_MEM_SIZE {
        return None;
    }
    let mut left = word & !FLAGS;
    let mut at = 8;
    while left > 0 {
        at += 1 + usize::from(*bytes.get(at)?);
        let size = bytes.get(at..).and_then(word_64)?;
        left = left.checked_sub(size).filter(|_| size > 0)?;
        at += 8;
    }
    Some(at)
}

fn word_32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn word_64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
pub(crate) mod tests;
