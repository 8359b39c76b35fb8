//! What is told of a torrent.

use super::Task;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use streamer_plan::PeerKind;

/// One connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Where it listens, or the far end of the connection; `0.0.0.0:0` for a web seed that has not answered before.
    pub address: SocketAddr,
    /// It is a publisher's own streamer.
    pub origin: bool,
    /// It is a host of our site.
    pub near: bool,
    /// It is a web server.
    pub web_seed: bool,
    /// Pieces it has.
    pub pieces: u32,
    /// Bytes of blocks fetched from it.
    pub bytes_down: u64,
    /// Bytes of blocks sent to it.
    pub bytes_up: u64,
    /// Bytes of blocks fetched from it in the last second.
    pub down_bytes_per_s: u64,
    /// Bytes of blocks sent to it in the last second.
    pub up_bytes_per_s: u64,
}

/// A torrent right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TorrentStatus {
    /// Connected peers.
    pub peers: Vec<PeerStatus>,
    /// Pieces being fetched or verified.
    pub fetching: Vec<u32>,
    /// Why the tracker does not help.
    pub tracker_trouble: Option<String>,
    /// Why the web seed does not help.
    pub web_seed_trouble: Option<String>,
    /// Somebody waits for a piece that no connected peer has.
    pub lacks_sources: bool,
    /// Bytes of blocks fetched in the last second, from all connected peers.
    pub down_bytes_per_s: u64,
    /// Bytes of blocks sent in the last second, to all connected peers.
    pub up_bytes_per_s: u64,
}

impl Task {
    pub(super) fn status(&self) -> TorrentStatus {
        let now = self.shared.began.elapsed();
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let peers: Vec<PeerStatus> = self
            .peers
            .iter()
            .map(|(key, peer)| PeerStatus {
                address: peer.address().unwrap_or(nowhere),
                origin: peer.is_origin,
                near: peer.kind == Some(PeerKind::Near),
                web_seed: peer.server.is_some(),
                pieces: self.scheduler.peer_count(*key),
                bytes_down: peer.bytes_down,
                bytes_up: peer.sent.bytes.load(Ordering::Relaxed),
                down_bytes_per_s: peer.received.rate(now),
                up_bytes_per_s: peer.sent.meter.rate(now),
            })
            .collect();
        TorrentStatus {
            down_bytes_per_s: peers.iter().map(|peer| peer.down_bytes_per_s).sum(),
            up_bytes_per_s: peers.iter().map(|peer| peer.up_bytes_per_s).sum(),
            peers,
            fetching: self.scheduler.in_flight().collect(),
            tracker_trouble: self.tracking.as_ref().and_then(|tracking| tracking.trouble.clone()),
            web_seed_trouble: self.web.as_ref().and_then(|web| web.trouble.clone()),
            lacks_sources: self.scheduler.lacks_sources(),
        }
    }
}
