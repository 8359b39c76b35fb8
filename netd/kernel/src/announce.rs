//! Telling a network where a guest is now.
//!
//! The bridge on this host gets a forwarding entry. What is behind an uplink (the other hosts' tunnels and bridges, the
//! site's switches) learns from frames under the guest's address that leave by that uplink: a reverse ARP, which is what
//! virtual machine monitors send for a guest that has moved and nobody answers, and for each address what its owner may
//! say unasked (RFC 5227, RFC 4861). They go out of the uplink itself, not through the bridge, whose rules would rightly
//! drop what no port sent.
#![expect(unsafe_code, reason = "there is no safe address of a packet socket to send to")]

use crate::apply::{link_at, named};
use crate::{Kernel, StepError};
use netd_plan::Announcement;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use nix::sys::socket::{AddressFamily as Family, SockFlag, SockType, socket};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

type Mac = [u8; 6];
const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const REVERSE_ARP: u16 = 0x8035;
const ARP_REQUEST: u16 = 1;
const REVERSE_REQUEST: u16 = 3;
const ICMPV6: u8 = 58;
/// Shortest Ethernet frame in bytes, without its checksum.
const FRAME_BYTES_MIN: usize = 60;

impl Kernel {
    /// Tells who is at a tap from now on, then names it so.
    pub(crate) fn announce(
        &self,
        tap: &str,
        alias: &str,
        announcement: &Announcement,
    ) -> Result<(), StepError> {
        // The kernel settles a link's state when it is asked for it, and a port takes an entry once it forwards.
        let _ = self.host().find(tap);
        let index = self.ours(tap)?;
        let entry = RouteNetlinkMessage::NewNeighbour(forwarding_entry(index, announcement.mac.0));
        let here = self.request(tap, &entry, NLM_F_CREATE | NLM_F_REPLACE);
        for uplink in &announcement.uplinks {
            let uplink_index = self.find(uplink)?;
            if here.is_err() {
                // Flooded, frames find the guest as well. What the bridge remembers would lead them astray.
                let entry = forwarding_entry(uplink_index, announcement.mac.0);
                let _ = self.request(uplink, &RouteNetlinkMessage::DelNeighbour(entry), 0);
            }
            send(uplink_index, announcement)
                .map_err(|source| StepError::Announce { link: uplink.clone(), source })?;
        }
        self.change(named(link_at(index), alias).build())
    }
}

/// Where the bridge finds a guest from now on. It ages as if it were learned, and goes elsewhere with the guest's
/// frames.
fn forwarding_entry(tap: u32, mac: Mac) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = tap;
    entry.header.state = NeighbourState::Reachable;
    entry.header.flags = NeighbourFlags::Controller;
    entry.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    entry
}

/// Sends what says who is here out of the link of this index, in the calling thread's network namespace.
fn send(uplink: u32, announcement: &Announcement) -> io::Result<()> {
    // Of protocol zero: it sends, and receives nothing.
    let socket = socket(Family::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(uplink).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    for frame in frames(announcement) {
        // SAFETY: both buffers are initialised, outlive the call, and are passed with their own sizes.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn frames(announcement: &Announcement) -> Vec<Vec<u8>> {
    let mac = announcement.mac.0;
    let nobody = Ipv4Addr::UNSPECIFIED;
    let mut frames = vec![arp(REVERSE_ARP, REVERSE_REQUEST, (mac, nobody), (mac, nobody))];
    frames.extend(announcement.addresses.iter().map(|address| match address {
        IpAddr::V4(v4) => arp(ARP, ARP_REQUEST, (mac, *v4), ([0; 6], *v4)),
        IpAddr::V6(v6) => advertisement(mac, *v6),
    }));
    frames
}

fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(FRAME_BYTES_MIN), 0);
    frame
}

/// Ethernet and IPv4 addresses of a sender and a target.
fn arp(kind: u16, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let payload = [
        &[0, 1, 8, 0, 6, 4][..],
        &operation.to_be_bytes(),
        &sender.0,
        &sender.1.octets(),
        &target.0,
        &target.1.octets(),
    ]
    .concat();
    ethernet(BROADCAST, sender.0, kind, &payload)
}

/// An unsolicited neighbour advertisement that replaces what others remember.
fn advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    let option = [&[TARGET_LINK_LAYER_ADDRESS, 1][..], &mac].concat();
    let mut message = [&[ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0][..], &address.octets(), &option].concat();
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let pseudo_header =
        [&address.octets()[..], &ALL_NODES.octets(), &[0, 0], &length, &[0, 0, 0, ICMPV6]].concat();
    let checksum = checksum(&[pseudo_header, message.clone()].concat());
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header =
        [&[0x60, 0, 0, 0][..], &length, &[ICMPV6, 255], &address.octets(), &ALL_NODES.octets()].concat();
    ethernet(ALL_NODES_MAC, mac, IPV6, &[header, message].concat())
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the failure")]
    use super::*;
    use types::MacAddress;

    #[test]
    fn each_address_is_announced_once_and_the_guest_by_its_mac() {
        let announcement = Announcement {
            mac: MacAddress([2, 0, 0, 0, 0, 7]),
            addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            uplinks: Vec::new(),
        };
        let frames: Vec<String> = frames(&announcement).iter().map(hex::encode).collect();
        let padded = |text: &str| format!("{text:0<120}");
        assert_eq!(
            frames[..2],
            [
                padded(
                    "ffffffffffff020000000007803500010800060400030200000000070000000002000000000700000000"
                ),
                padded(
                    "ffffffffffff02000000000708060001080006040001020000000007\
                     0a0000070000000000000a000007"
                ),
            ]
        );
        let solicited = hex::decode(&frames[2]).unwrap();
        assert_eq!(solicited.len(), 14 + 40 + 32);
        assert_eq!(solicited[..6], ALL_NODES_MAC);
        // Summed with its own checksum and the pseudo header it is zero.
        let pseudo = [&solicited[22..54], &[0, 0, 0, 32, 0, 0, 0, 58][..], &solicited[54..]].concat();
        assert_eq!(checksum(&pseudo), 0);
    }
}
