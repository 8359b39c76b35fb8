//! A socket that sees the frames of one link.
#![expect(
    unsafe_code,
    reason = "packet sockets' auxiliary data and statistics are read by recvmsg and getsockopt only"
)]

use super::pcapng::Way;
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, setsockopt, sockopt};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, SystemTime};
use tokio::io::unix::AsyncFd;

const VLAN_TAG_BYTES: usize = 4;
/// Destination and source address: the tag comes after them.
const ADDRESSES_BYTES: usize = 12;
/// Tag of IEEE 802.1Q, where the kernel does not say which.
const VLAN_PROTOCOL: u16 = 0x8100;
/// Room for the auxiliary data and the timestamp.
const CONTROL_WORDS: usize = 16;

/// One frame, in the buffer it was read to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Since the epoch.
    pub(super) at: Duration,
    /// Bytes in the buffer.
    pub(super) captured: usize,
    /// Bytes of the frame, its VLAN tag included.
    pub(super) length: u32,
    pub(super) way: Way,
}

/// Closed with its last descriptor.
#[derive(Debug)]
pub(super) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Listens on a link of the calling thread's network namespace. `buffer_bytes` of frames wait at most; more are
    /// dropped for this socket, and for nobody else.
    pub(super) fn open(index: u32, buffer_bytes: usize) -> io::Result<Self> {
        // Without a protocol it hears nothing until it is bound to its link.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        setsockopt(&fd, sockopt::RcvBufForce, &buffer_bytes)?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        let on: libc::c_int = 1;
        // SAFETY: the option's value is an int that outlives the call, and its length is given.
        let set = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_AUXDATA,
                (&raw const on).cast(),
                length_of::<libc::c_int>(),
            )
        };
        check(set)?;
        // SAFETY: all of its fields are integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = libc::c_int::try_from(index).map_err(io::Error::other)?;
        // SAFETY: the address is initialised and outlives the call, and its length is given.
        let bound = unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>())
        };
        check(bound)?;
        Ok(Self(fd))
    }

    /// From now on the calling runtime says when frames wait.
    pub(super) fn register(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is the socket's own, always the same, and open as long as the socket is.
        unsafe { AsyncFd::register(self) }.map_err(io::Error::from)
    }

    /// The next frame that is there, cut to the buffer, with its VLAN tag where it was.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Seen> {
        // SAFETY: all fields of both are integers or pointers, for which zero is a value.
        let (mut address, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { mem::zeroed() };
        let mut control = [0u64; CONTROL_WORDS];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = length_of::<libc::sockaddr_ll>();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&control);
        // SAFETY: every pointer of the message is to memory of the length given beside it, that outlives the call.
        let length = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, libc::MSG_TRUNC) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let Control { at, tag } = read_control(&message);
        let mut captured = length.min(buffer.len());
        let mut whole = length;
        if let Some(tag) = tag {
            captured = insert_tag(buffer, captured, tag);
            whole += VLAN_TAG_BYTES;
        }
        let way = if address.sll_pkttype == libc::PACKET_OUTGOING { Way::Outbound } else { Way::Inbound };
        let at = at.unwrap_or_else(now);
        Ok(Seen { at, captured, length: u32::try_from(whole).unwrap_or(u32::MAX), way })
    }

    /// Frames seen and dropped since the last call.
    pub(super) fn statistics(&self) -> io::Result<(u32, u32)> {
        let mut value = MaybeUninit::<libc::tpacket_stats>::zeroed();
        let mut length = length_of::<libc::tpacket_stats>();
        // SAFETY: the value has room for the length given.
        let got = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                value.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        check(got)?;
        // SAFETY: it was zeroed, which is a value of two integers.
        let value = unsafe { value.assume_init() };
        Ok((value.tp_packets, value.tp_drops))
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Since the epoch.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// What the kernel says beside a frame.
#[derive(Default)]
struct Control {
    at: Option<Duration>,
    tag: Option<[u8; VLAN_TAG_BYTES]>,
}

fn read_control(message: &libc::msghdr) -> Control {
    let mut found = Control::default();
    // SAFETY: the kernel filled the message's control buffer and set its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a header that is not null lies whole inside of the control buffer.
        let (level, kind, data) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, libc::CMSG_DATA(header)) };
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: data of this kind is a timespec, maybe unaligned.
                let time: libc::timespec = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
                found.at = Some(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()));
            }
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                // SAFETY: data of this kind is a tpacket_auxdata, maybe unaligned.
                let auxiliary = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
                found.tag = tag_of(&auxiliary);
            }
            _ => {}
        }
        // SAFETY: as for the first.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    found
}

fn tag_of(auxiliary: &libc::tpacket_auxdata) -> Option<[u8; VLAN_TAG_BYTES]> {
    if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let said = auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let protocol = if said { auxiliary.tp_vlan_tpid } else { VLAN_PROTOCOL };
    let ([a, b], [c, d]) = (protocol.to_be_bytes(), auxiliary.tp_vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}

/// Puts a tag back that the kernel took out of the frame; how many bytes of the buffer are used then.
fn insert_tag(buffer: &mut [u8], captured: usize, tag: [u8; VLAN_TAG_BYTES]) -> usize {
    if captured < ADDRESSES_BYTES {
        return captured;
    }
    let captured = (captured + VLAN_TAG_BYTES).min(buffer.len());
    let Some(rest) = buffer.get_mut(ADDRESSES_BYTES..captured) else { return captured };
    if rest.len() >= VLAN_TAG_BYTES {
        rest.copy_within(..rest.len() - VLAN_TAG_BYTES, VLAN_TAG_BYTES);
    }
    for (to, from) in rest.iter_mut().zip(tag) {
        *to = from;
    }
    captured
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn length_of<T>() -> libc::socklen_t {
    mem::size_of::<T>() as libc::socklen_t
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_tag_goes_back_where_it_was_in_any_frame(
            frame in proptest::collection::vec(0..=255u8, 0..100), snap in 14..100usize, tag: [u8; 4],
        ) {
            let mut buffer = vec![0; snap];
            let captured = frame.len().min(snap);
            buffer[..captured].copy_from_slice(&frame[..captured]);
            let used = insert_tag(&mut buffer, captured, tag);
            let mut whole = frame.clone();
            if frame.len() >= ADDRESSES_BYTES {
                whole.splice(ADDRESSES_BYTES..ADDRESSES_BYTES, tag);
            }
            whole.truncate(snap);
            proptest::prop_assert_eq!(&buffer[..used], &whole[..]);
        }
    }
}
