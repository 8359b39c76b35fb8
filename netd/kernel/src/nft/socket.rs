//! The socket to nftables: dumps and atomic batches.
//!
//! It blocks: netlink answers within the call that asks, so there is nothing to wait for, and callers put it on a thread
//! of its own. A limit on every receive is there for a kernel that breaks that promise.

use super::NftError;
use super::message::{
    Messages, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, attribute, kind, messages,
    u32_of,
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::io;
use std::os::fd::AsRawFd as _;

/// Longest wait for one answer, in seconds.
const ANSWER_TIMEOUT_S: i64 = 20;
/// Largest batch, in bytes: it has to be in the send buffer at once. Elements of 500,000 ports.
const SEND_BYTES: usize = 512 << 20;
const RECEIVE_BYTES: usize = 8 << 20;
/// The kernel fills at most 32 KiB of it.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Tries of one dump that others' commits interrupt, and of one batch that they overtake.
const TRIES: usize = 16;

const NFTA_GEN_ID: u16 = 1;
const NFNL_BATCH_GENID: u16 = 1;

/// Number of the last commit of any table in the namespace.
pub(super) type Generation = u32;

#[derive(Debug)]
pub(super) struct NftSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Committed {
    /// The generation it changed.
    pub(super) from: Generation,
    /// The generation it made.
    pub(super) to: Generation,
}

/// Changes that happen all at once or not at all.
#[derive(Debug, Default)]
pub(super) struct Batch {
    messages: Messages,
    /// Numbers of messages within the batch, which begins with 0.
    count: u32,
}

impl Batch {
    /// Begins one more change.
    pub(super) fn change(&mut self, kind: u16, flags: u16) -> &mut Messages {
        self.count += 1;
        self.messages.begin(kind, flags, self.count);
        &mut self.messages
    }

    /// The change begun last.
    pub(super) fn open(&mut self) -> &mut Messages {
        &mut self.messages
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl NftSocket {
    /// In the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.set_cap_ack(true)?;
        let limit = TimeVal::seconds(ANSWER_TIMEOUT_S);
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
        setsockopt(&socket, sockopt::SendTimeout, &limit)?;
        // Without CAP_NET_ADMIN the defaults stay, and nothing could be committed anyway.
        let forced = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES)
            .and_then(|()| setsockopt(&socket, sockopt::SndBufForce, &SEND_BYTES));
        if let Err(error) = forced {
            tracing::debug!(%error, "the buffers for the rules stay at their default");
        }
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM_BYTES] })
    }

    /// Number of the last commit.
    pub(super) fn generation(&mut self) -> Result<Generation, NftError> {
        let mut generation = None;
        self.get(kind::GET_GENERATION, "tell its generation", &[], |attributes| {
            generation = attribute(attributes, NFTA_GEN_ID).and_then(u32_of);
        })?;
        generation.ok_or(NftError::Unreadable("tell its generation"))
    }

    /// One object; false if there is none.
    pub(super) fn get(
        &mut self,
        kind: u16,
        what: &'static str,
        filter: &[(u16, &str)],
        mut each: impl FnMut(&[u8]),
    ) -> Result<bool, NftError> {
        match self.request(kind, NLM_F_ACK, what, filter, &mut each) {
            Ok(_) => Ok(true),
            Err(NftError::Kernel { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All objects. `restart` forgets what `each` was told: the dump was interrupted and begins again. The dump of what
    /// is not there fails with [`io::ErrorKind::NotFound`].
    pub(super) fn dump<T: Default>(
        &mut self,
        kind: u16,
        what: &'static str,
        filter: &[(u16, &str)],
        mut each: impl FnMut(&mut T, &[u8]),
    ) -> Result<T, NftError> {
        for _ in 0..TRIES {
            let mut found = T::default();
            match self.request(kind, NLM_F_DUMP, what, filter, &mut |attributes| each(&mut found, attributes))
            {
                Ok(Whole::Yes) => return Ok(found),
                Ok(Whole::No) => {}
                Err(NftError::Kernel { source, .. }) if is_overrun(&source) => self.drain(),
                Err(error) => return Err(error),
            }
        }
        Err(NftError::Busy(what))
    }

    fn request(
        &mut self,
        kind: u16,
        flags: u16,
        what: &'static str,
        filter: &[(u16, &str)],
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<Whole, NftError> {
        let fail = |source: io::Error| NftError::Kernel { what, source };
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Messages::default();
        request.begin(kind, flags, self.sequence);
        for (kind, value) in filter {
            request.text(*kind, value);
        }
        self.send(&request.finish()).map_err(fail)?;
        let mut whole = Whole::Yes;
        loop {
            let length = self.receive(MsgFlags::empty()).map_err(fail)?;
            for message in messages(self.buffer.get(..length).unwrap_or_default()) {
                // Left over from a request that was given up.
                if message.sequence != self.sequence {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    whole = Whole::No;
                }
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => match message.error() {
                        0 => return Ok(whole),
                        code if Errno::from_raw(code) == Errno::EINTR => return Ok(Whole::No),
                        code => return Err(fail(io::Error::from_raw_os_error(code))),
                    },
                    _ => each(message.attributes()),
                }
            }
        }
    }

    /// Carries out a batch.
    pub(super) fn commit(&mut self, batch: Batch, what: &'static str) -> Result<Committed, NftError> {
        let count = batch.count;
        let mut changes = batch.messages;
        changes.begin(kind::BATCH_END, 0, count + 1);
        let changes = changes.finish();
        for _ in 0..TRIES {
            // The kernel refuses a batch that names another generation than its own: so ours is the one after it.
            let from = self.generation()?;
            let mut begin = Messages::default();
            begin.begin(kind::BATCH_BEGIN, 0, 0);
            begin.attribute(NFNL_BATCH_GENID, &from.to_be_bytes());
            let bytes = [begin.finish(), changes.clone()].concat();
            match self.exchange(&bytes) {
                Ok(()) => {
                    // Zero is no generation.
                    let to = from.checked_add(1).unwrap_or(1);
                    return Ok(Committed { from, to });
                }
                Err(error) if error.raw_os_error() == Some(Errno::ERESTART as i32) => {}
                Err(source) => return Err(NftError::Kernel { what, source }),
            }
        }
        Err(NftError::Busy(what))
    }

    /// The kernel has carried out the batch when the call returns, and has answered each message that failed; one that
    /// succeeded is not answered, but the next question is.
    fn exchange(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.drain();
        self.send(bytes)?;
        let mut result = Ok(());
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    for message in messages(self.buffer.get(..length).unwrap_or_default()) {
                        let error = message.error();
                        if message.kind == NLMSG_ERROR && error != 0 && result.is_ok() {
                            result = Err(io::Error::from_raw_os_error(error));
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return result,
                Err(error) => return Err(error),
            }
        }
    }

    fn drain(&mut self) {
        while self.receive(MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = send(self.socket.as_raw_fd(), bytes, MsgFlags::empty())?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    fn receive(&mut self, flags: MsgFlags) -> io::Result<usize> {
        Ok(recv(self.socket.as_raw_fd(), &mut self.buffer, flags)?)
    }
}

/// Whether a dump was of one generation.
enum Whole {
    Yes,
    No,
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}
