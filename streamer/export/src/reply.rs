//! Replies, written one behind the other into a buffer that is sent as a whole.

use crate::request::{Form, Request};
use crate::wire::*;
use crate::{Export, Extent};
use bytes::BufMut as _;
use std::ops::Range;

/// Bytes of a buffer that are kept for the next batch.
const KEPT_BYTES: usize = (1 << 20) + (64 << 10);

/// Replies to be sent. Its memory is cleared once, not for each reply.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    memory: Vec<u8>,
    filled: usize,
}

impl Replies {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.filled]
    }

    /// Forgets all, and gives back memory that a large reply took.
    pub(crate) fn clear(&mut self) {
        self.filled = 0;
        if self.memory.len() > KEPT_BYTES {
            self.memory.truncate(KEPT_BYTES);
            self.memory.shrink_to_fit();
        }
    }

    /// Room for the next bytes.
    fn room(&mut self, length: usize) -> &mut [u8] {
        let range = self.filled..self.filled + length;
        if self.memory.len() < range.end {
            self.memory.resize(range.end, 0);
        }
        self.filled = range.end;
        &mut self.memory[range]
    }

    fn simple_header(&mut self, request: &Request, code: u32) {
        let mut header = self.room(16);
        header.put_u32(SIMPLE_REPLY_MAGIC);
        header.put_u32(code);
        header.put_u64(request.cookie);
    }

    /// The header of a chunk whose payload is `length` bytes, of which the first `rest.len()` follow.
    fn chunk(&mut self, request: &Request, flags: u16, kind: u16, length: u32, rest: &[u8]) {
        let mut header = self.room(20 + rest.len());
        header.put_u32(STRUCTURED_REPLY_MAGIC);
        header.put_u16(flags);
        header.put_u16(kind);
        header.put_u64(request.cookie);
        header.put_u32(length);
        header.put_slice(rest);
    }

    pub(crate) fn error(&mut self, request: &Request, form: Form, code: u32) {
        if !form.structured {
            return self.simple_header(request, code);
        }
        let mut payload = [0; 6];
        payload.as_mut_slice().put_u32(code);
        self.chunk(request, CHUNK_DONE, CHUNK_ERROR, 6, &payload);
    }

    pub(crate) fn status(&mut self, request: &Request, export: &dyn Export) {
        let mut extents = export.extents(request.offset, request.length);
        if request.flags & CMD_FLAG_REQ_ONE != 0 {
            extents.truncate(1);
        }
        let mut payload = Vec::with_capacity(4 + extents.len() * 8);
        payload.put_u32(BASE_ALLOCATION_ID);
        for extent in extents {
            payload.put_u32(u32::try_from(extent.length).unwrap_or(u32::MAX));
            payload.put_u32(if extent.zero { STATE_HOLE_ZERO } else { 0 });
        }
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.chunk(request, CHUNK_DONE, CHUNK_BLOCK_STATUS, length, &payload);
    }

    /// The bytes of a read, which `fill` puts where they are sent from: given the range within the read. If it says
    /// false, there is no reply, and false is returned.
    pub(crate) fn read(
        &mut self,
        request: &Request,
        form: Form,
        export: &dyn Export,
        mut fill: impl FnMut(Range<usize>, &mut [u8]) -> bool,
    ) -> bool {
        let begun = self.filled;
        let filled = if form.structured {
            self.structured_read(request, export, fill)
        } else {
            self.simple_header(request, 0);
            let length = request.length as usize;
            fill(0..length, self.room(length))
        };
        if !filled {
            self.filled = begun;
        }
        filled
    }

    fn structured_read(
        &mut self,
        request: &Request,
        export: &dyn Export,
        mut fill: impl FnMut(Range<usize>, &mut [u8]) -> bool,
    ) -> bool {
        let extents = if request.flags & CMD_FLAG_DF == 0 {
            export.extents(request.offset, request.length)
        } else {
            vec![Extent { length: u64::from(request.length), zero: false }]
        };
        let mut at = 0;
        for (index, extent) in extents.iter().enumerate() {
            let length = u32::try_from(extent.length).unwrap_or(u32::MAX).min(request.length - at);
            let flags = if index + 1 == extents.len() { CHUNK_DONE } else { 0 };
            let mut place = [0; 12];
            let mut cursor = place.as_mut_slice();
            cursor.put_u64(request.offset + u64::from(at));
            cursor.put_u32(length);
            if extent.zero {
                export.passed_over(request.offset + u64::from(at), length);
                self.chunk(request, flags, CHUNK_OFFSET_HOLE, 12, &place);
            } else {
                self.chunk(request, flags, CHUNK_OFFSET_DATA, length + 8, &place[..8]);
                let range = at as usize..(at + length) as usize;
                if !fill(range, self.room(length as usize)) {
                    return false;
                }
            }
            at += length;
        }
        at == request.length
    }
}
