//! Other clients, and a network they cannot leave.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub(crate) mod network;
pub(crate) mod stock;
pub(crate) mod transmission;

use std::net::IpAddr;
use streamer_api::Published;

/// Where the origin is, and the tracker.
pub(crate) const ORIGIN: [u8; 4] = [10, 77, 0, 1];
/// Where our other streamers are.
pub(crate) const HOST: [u8; 4] = [10, 77, 0, 2];
/// Where transmission is.
pub(crate) const TRANSMISSION: [u8; 4] = [10, 77, 0, 3];
/// Where librqbit's own session is.
pub(crate) const STOCK: [u8; 4] = [10, 77, 0, 4];

/// The metainfo for a client at `address`: it asks the tracker at its own address, and so from its own address. Who says
/// no address in an announce is told by where it comes from.
fn metainfo_for(published: &Published, address: [u8; 4]) -> Vec<u8> {
    let (from, to) = (format!("//{}:", IpAddr::from(ORIGIN)), format!("//{}:", IpAddr::from(address)));
    assert_eq!(from.len(), to.len(), "bencode has lengths");
    let mut metainfo = published.metainfo.0.clone();
    let at = metainfo.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    metainfo[at..at + to.len()].copy_from_slice(to.as_bytes());
    metainfo
}
