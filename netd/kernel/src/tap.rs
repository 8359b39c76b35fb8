//! Taps.
#![expect(unsafe_code, reason = "taps are made by ioctl on /dev/net/tun; there is no netlink for it")]

use nix::libc;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

/// `TUN_F`: fail if a link of that name exists (from `linux/if_tun.h`, absent from libc).
const IFF_TUN_EXCL: libc::c_int = 0x8000;

nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tunsetpersist, libc::TUNSETPERSIST);

/// Opens the guest's end of a tap, as a virtual machine does: frames without packet information, each preceded by a
/// 10-byte `virtio_net_hdr`. A tap that does not exist is made and goes with the file.
///
/// # Errors
/// The kernel refuses: the name is taken by another link, or the tap is open elsewhere.
pub fn open(name: &str) -> io::Result<File> {
    attach(name, 0)
}

/// Makes a tap that vanishes with the file unless [`keep`] is called. Fails if any link has the name.
pub(crate) fn create(name: &str) -> io::Result<File> {
    attach(name, IFF_TUN_EXCL)
}

/// From now on the tap outlives its file.
pub(crate) fn keep(tap: &File) -> io::Result<()> {
    // SAFETY: the file is an attached tun descriptor; the argument is a plain integer.
    unsafe { tunsetpersist(tap.as_raw_fd(), 1) }?;
    Ok(())
}

fn attach(name: &str, extra: libc::c_int) -> io::Result<File> {
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | extra;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        // The kernel reads 16 bits; the flag above bit 15 keeps its bit pattern.
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short },
    };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the request is fully initialised, its name ends with a zero, and it outlives the call.
    unsafe { tunsetiff(tun.as_raw_fd(), &raw const request) }?;
    Ok(tun)
}
