//! The BitTorrent tracker (BEP 3, compact answers BEP 23 and BEP 7) for members of the cluster.
//!
//! Peers are kept in memory only: whoever lives announces itself again within an interval. Info hashes must belong to a
//! published image, but that an origin may announce first: it seeds before the version is published.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// Seconds between two announces of a peer.
pub(crate) const INTERVAL_S: u64 = 10;
/// A peer that was not heard for so long is gone, in milliseconds.
const EXPIRY_MS: u64 = 3 * INTERVAL_S * 1_000;
const NUMWANT_DEFAULT: usize = 50;
const NUMWANT_MAX: usize = 200;
/// Most info hashes that are kept.
const SWARMS_MAX: usize = 10_000;
/// Most peers of one info hash that are kept.
const PEERS_MAX: usize = 10_000;

/// One announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announce {
    pub(crate) info_hash: [u8; 20],
    pub(crate) peer_id: [u8; 20],
    pub(crate) port: u16,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) left: u64,
    pub(crate) stopped: bool,
    pub(crate) compact: bool,
    pub(crate) numwant: usize,
}

/// Reads the query of an announce. Values are bytes, percent-encoded.
pub(crate) fn parse(query: &str) -> Result<Announce, String> {
    let mut values: HashMap<&str, Vec<u8>> = HashMap::new();
    for part in query.split('&') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        values.insert(key, decode(value).ok_or_else(|| format!("{key} is not percent-encoded"))?);
    }
    let hash = |key: &str| -> Result<[u8; 20], String> {
        let bytes = values.get(key).ok_or_else(|| format!("{key} is missing"))?;
        bytes.as_slice().try_into().map_err(|_| format!("{key} has {} bytes, not 20", bytes.len()))
    };
    let text = |key: &str| {
        values.get(key).and_then(|bytes| std::str::from_utf8(bytes).ok()).filter(|t| !t.is_empty())
    };
    let port = text("port").and_then(|port| port.parse().ok()).filter(|port| *port != 0);
    let ip = match text("ip") {
        Some(ip) => Some(ip.parse().map_err(|_| "ip is no address".to_owned())?),
        None => None,
    };
    Ok(Announce {
        info_hash: hash("info_hash")?,
        peer_id: hash("peer_id")?,
        port: port.ok_or("port is missing or no port")?,
        ip,
        left: text("left").and_then(|left| left.parse().ok()).unwrap_or(u64::MAX),
        stopped: text("event") == Some("stopped"),
        compact: text("compact") != Some("0"),
        numwant: text("numwant").and_then(|n| n.parse().ok()).unwrap_or(NUMWANT_DEFAULT).min(NUMWANT_MAX),
    })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    Some(bytes)
}

#[derive(Debug, Clone)]
struct Peer {
    address: SocketAddr,
    seeder: bool,
    seen_ms: u64,
}

/// All swarms.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    swarms: HashMap<[u8; 20], BTreeMap<[u8; 20], Peer>>,
}

impl Tracker {
    /// Takes an announce up and answers it, bencoded.
    pub(crate) fn announce(&mut self, announce: &Announce, from: IpAddr, now_ms: u64) -> Vec<u8> {
        if !self.swarms.contains_key(&announce.info_hash) && self.swarms.len() >= SWARMS_MAX {
            self.swarms.retain(|_, peers| peers.values().any(|peer| peer.seen_ms + EXPIRY_MS > now_ms));
            if self.swarms.len() >= SWARMS_MAX {
                return failure("too many swarms");
            }
        }
        let peers = self.swarms.entry(announce.info_hash).or_default();
        peers.retain(|_, peer| peer.seen_ms + EXPIRY_MS > now_ms);
        if announce.stopped {
            peers.remove(&announce.peer_id);
        } else if peers.len() < PEERS_MAX || peers.contains_key(&announce.peer_id) {
            let address = SocketAddr::new(announce.ip.unwrap_or(from).to_canonical(), announce.port);
            // A peer that was started again has another id at the same address: the old one is gone.
            peers.retain(|id, peer| *id == announce.peer_id || peer.address != address);
            let peer = Peer { address, seeder: announce.left == 0, seen_ms: now_ms };
            peers.insert(announce.peer_id, peer);
        }
        answer(announce, peers)
    }
}

fn answer(announce: &Announce, peers: &BTreeMap<[u8; 20], Peer>) -> Vec<u8> {
    let complete = peers.values().filter(|peer| peer.seeder).count();
    // Seeders first: whoever asks most needs the pieces nobody else has.
    let mut others: Vec<_> = peers.iter().filter(|(id, _)| **id != announce.peer_id).collect();
    others.sort_by_key(|(_, peer)| !peer.seeder);
    others.truncate(if announce.stopped { 0 } else { announce.numwant });
    let mut out =
        format!("d8:completei{complete}e10:incompletei{}e8:intervali{INTERVAL_S}e", peers.len() - complete)
            .into_bytes();
    if announce.compact {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (_, peer) in others {
            match peer.address.ip() {
                IpAddr::V4(ip) => v4.extend(ip.octets().into_iter().chain(peer.address.port().to_be_bytes())),
                IpAddr::V6(ip) => v6.extend(ip.octets().into_iter().chain(peer.address.port().to_be_bytes())),
            }
        }
        out.extend_from_slice(b"5:peers");
        string(&mut out, &v4);
        if !v6.is_empty() {
            out.extend_from_slice(b"6:peers6");
            string(&mut out, &v6);
        }
    } else {
        out.extend_from_slice(b"5:peersl");
        for (id, peer) in others {
            out.extend_from_slice(b"d2:ip");
            string(&mut out, peer.address.ip().to_string().as_bytes());
            out.extend_from_slice(b"7:peer id");
            string(&mut out, id);
            out.extend_from_slice(format!("4:porti{}ee", peer.address.port()).as_bytes());
        }
        out.push(b'e');
    }
    out.push(b'e');
    out
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

/// A refusal in the tracker's words.
pub(crate) fn failure(reason: &str) -> Vec<u8> {
    let mut out = b"d14:failure reason".to_vec();
    string(&mut out, reason.as_bytes());
    out.push(b'e');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn announce(id: u8, left: u64) -> Announce {
        let id_text = format!("%{id:02x}").repeat(20);
        parse(&format!(
            "info_hash={}&peer_id={id_text}&port={}&left={left}&compact=1",
            "%01".repeat(20),
            1000 + u16::from(id)
        ))
        .unwrap()
    }

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn a_peer_learns_of_the_others_and_not_of_itself() {
        let mut tracker = Tracker::default();
        assert_eq!(
            tracker.announce(&announce(1, 0), FROM, 0),
            b"d8:completei1e10:incompletei0e8:intervali10e5:peers0:e"
        );
        let answer = tracker.announce(&announce(2, 5), FROM, 0);
        assert_eq!(
            answer,
            [
                b"d8:completei1e10:incompletei1e8:intervali10e5:peers6:".as_slice(),
                &[10, 0, 0, 1, 3, 233],
                b"e"
            ]
            .concat()
        );
    }

    #[test]
    fn a_silent_or_stopped_peer_is_forgotten() {
        let mut tracker = Tracker::default();
        tracker.announce(&announce(1, 0), FROM, 0);
        let empty = b"d8:completei0e10:incompletei1e8:intervali10e5:peers0:e";
        assert_eq!(tracker.announce(&announce(2, 5), FROM, EXPIRY_MS), empty);
        let stop = Announce { stopped: true, ..announce(2, 5) };
        tracker.announce(&stop, FROM, EXPIRY_MS);
        assert_eq!(tracker.announce(&announce(3, 5), FROM, EXPIRY_MS), empty);
    }

    #[test]
    fn an_announce_without_its_parts_is_refused_with_the_part() {
        assert_eq!(parse("port=1").unwrap_err(), "info_hash is missing");
        for value in ["%1", "%", "%+f", "%-1", "% 1"] {
            let query = format!("info_hash={value}");
            assert_eq!(parse(&query).unwrap_err(), "info_hash is not percent-encoded");
        }
        let hash = "%01".repeat(20);
        assert_eq!(
            parse(&format!("info_hash={hash}&peer_id=ab")).unwrap_err(),
            "peer_id has 2 bytes, not 20"
        );
        assert_eq!(
            parse(&format!("info_hash={hash}&peer_id={hash}&port=0")).unwrap_err(),
            "port is missing or no port"
        );
    }

    proptest! {
        #[test]
        fn no_query_makes_the_tracker_panic(query in "[ -~]{0,120}") {
            if let Ok(announce) = parse(&query) {
                Tracker::default().announce(&announce, FROM, 0);
            }
        }
    }
}
