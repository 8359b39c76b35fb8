//! What a client sends once it has an export.

use crate::negotiation::broken;
use crate::wire::*;
use crate::{Export, READ_BYTES_MAX};
use bytes::Buf as _;
use std::io;

/// Bytes of a request on the wire.
pub(crate) const REQUEST_BYTES: usize = 28;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// What is to be done for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Read,
    Status,
    Refuse(u32),
    Leave,
}

/// How replies are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) structured: bool,
    /// `base:allocation` was chosen.
    pub(crate) allocation: bool,
}

impl Request {
    pub(crate) fn parse(bytes: &[u8; REQUEST_BYTES]) -> io::Result<Self> {
        let mut bytes = bytes.as_slice();
        if bytes.get_u32() != REQUEST_MAGIC {
            return Err(broken("wrong request magic"));
        }
        Ok(Self {
            flags: bytes.get_u16(),
            command: bytes.get_u16(),
            cookie: bytes.get_u64(),
            offset: bytes.get_u64(),
            length: bytes.get_u32(),
        })
    }

    /// Bytes that follow it on the wire.
    ///
    /// # Errors
    /// If they are more than any client may send.
    pub(crate) fn payload(&self) -> io::Result<usize> {
        match self.command {
            CMD_WRITE if self.length > READ_BYTES_MAX => Err(broken("a write larger than any may be")),
            CMD_WRITE => Ok(self.length as usize),
            _ => Ok(0),
        }
    }

    pub(crate) fn task(&self, form: Form, export: &dyn Export) -> Task {
        // Nothing is written, so nothing is to be forced to the disk.
        let flags = self.flags & !CMD_FLAG_FUA;
        let within = self.offset.checked_add(u64::from(self.length)).is_some_and(|end| end <= export.size());
        let readable = self.length > 0 && within;
        match self.command {
            CMD_DISC => Task::Leave,
            CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES => Task::Refuse(EPERM),
            CMD_READ
                if readable
                    && self.length <= READ_BYTES_MAX
                    && (flags == 0 || form.structured && flags == CMD_FLAG_DF) =>
            {
                Task::Read
            }
            CMD_BLOCK_STATUS if form.allocation && readable && flags & !CMD_FLAG_REQ_ONE == 0 => Task::Status,
            _ => Task::Refuse(EINVAL),
        }
    }
}
