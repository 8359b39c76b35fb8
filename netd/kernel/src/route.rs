//! rtnetlink, one request at a time.
//!
//! The kernel carries a request out inside of the call that sends it, under one lock for all links, so its answer waits
//! when the call is back: nothing is gained by asking for several things at once, or by waiting elsewhere. What costs is
//! the number of requests.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

/// Longest wait for an answer. The deletion of some hundred links takes half a second.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// Room for one part of a dump; the kernel fills at most 32 KiB at a time.
const PART_BYTES: usize = 64 << 10;
/// How often a dump is begun again that others disturbed.
const DUMP_TRIES: u32 = 8;

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// The error's answer has attributes, among them words.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Why the kernel did not do or tell something.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// It refused.
    #[error("{source}{}", if words.is_empty() { String::new() } else { format!(" ({words})") })]
    Refused {
        /// Its number.
        source: io::Error,
        /// Its words, if it has some.
        words: String,
    },
    /// The socket is broken.
    #[error("the netlink socket failed: {0}")]
    Socket(io::Error),
    /// It is silent.
    #[error("the kernel did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// Others change what is listed all the time.
    #[error("the list was disturbed {DUMP_TRIES} times in a row")]
    Disturbed,
}

impl RouteError {
    /// The kernel's number, if it refused.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// One netlink message of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) kind: u16,
    flags: u16,
    sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// A socket of one network namespace.
#[derive(Debug)]
pub(crate) struct Route {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Route {
    /// Opens the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // Filters of lists are taken at their word.
        socket.set_netlink_get_strict_chk(true)?;
        crate::enlarge(&socket);
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::milliseconds(i64::try_from(TIMEOUT.as_millis()).unwrap_or(i64::MAX)),
        )?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; PART_BYTES] })
    }

    /// Carries a change out; answers once the kernel did.
    pub(crate) fn change(&mut self, message: &RouteNetlinkMessage, flags: u16) -> Result<(), RouteError> {
        let sequence = self.send(message, NLM_F_ACK | flags)?;
        self.answers(sequence, |_| {}).map(drop)
    }

    /// Reads one thing.
    pub(crate) fn ask(
        &mut self,
        message: &RouteNetlinkMessage,
        mut each: impl FnMut(Part<'_>),
    ) -> Result<(), RouteError> {
        let sequence = self.send(message, NLM_F_ACK)?;
        self.answers(sequence, &mut each).map(drop)
    }

    /// Reads a list. What others change meanwhile tears it: then it is read again from its beginning, and `begin` is
    /// called again.
    pub(crate) fn dump<T: Default>(
        &mut self,
        message: &RouteNetlinkMessage,
        mut each: impl FnMut(&mut T, Part<'_>),
    ) -> Result<T, RouteError> {
        for _ in 0..DUMP_TRIES {
            let mut list = T::default();
            let sequence = self.send(message, NLM_F_DUMP)?;
            match self.answers(sequence, |part| each(&mut list, part)) {
                Ok(true) => return Ok(list),
                Ok(false) => {}
                // The kernel ran out of room for the answer.
                Err(RouteError::Socket(error)) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                Err(error) if error.code() == Some(nix::libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(RouteError::Disturbed)
    }

    fn send(&mut self, message: &RouteNetlinkMessage, flags: u16) -> Result<u32, RouteError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message.clone()));
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(RouteError::Socket)?;
        Ok(self.sequence)
    }

    /// Hands out the parts of the answer to one request; whether nobody disturbed it. What is left of earlier answers
    /// that came too late is passed over.
    fn answers(&mut self, sequence: u32, mut each: impl FnMut(Part<'_>)) -> Result<bool, RouteError> {
        let deadline = Instant::now() + TIMEOUT;
        let mut whole = true;
        loop {
            let bytes = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(bytes) => bytes,
                Err(nix::Error::EAGAIN) => return Err(RouteError::Timeout),
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(RouteError::Socket(error.into())),
            };
            for part in parts(&self.buffer[..bytes]).filter(|part| part.sequence == sequence) {
                whole &= part.flags & NLM_F_DUMP_INTR == 0;
                match part.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        let code = part.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code == 0 { Ok(whole) } else { Err(refusal(code, part)) };
                    }
                    _ => each(part),
                }
            }
            if Instant::now() > deadline {
                return Err(RouteError::Timeout);
            }
        }
    }
}

fn refusal(code: i32, part: Part<'_>) -> RouteError {
    let words = if part.flags & NLM_F_ACK_TLVS == 0 {
        String::new()
    } else {
        // After the error's number comes the header of the request alone (NETLINK_CAP_ACK).
        let rest = part.payload.get(4 + HEADER_BYTES..).unwrap_or_default();
        attributes(rest)
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .map(|(_, words)| text(words))
            .unwrap_or_default()
    };
    RouteError::Refused { source: io::Error::from_raw_os_error(-code), words }
}

/// The messages in what one call received.
pub(crate) fn parts(mut bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = bytes.get(..length).filter(|_| length >= HEADER_BYTES)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Part {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            payload: &message[HEADER_BYTES..],
        })
    })
}

/// The attributes in a message's payload, or nested in another attribute.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Flags of nesting and byte order.
    const KIND_MASK: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & KIND_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A text of the kernel's, up to its terminating zero.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
