//! Peers and block clients that break every rule.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stand;

use stand::authority::Authority;
use stand::rogue::{Manner, Rogue};
use stand::{Daemon, Nbd, PIECE, Stand, Tracker, handshake, until};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use streamer_api::{ImageStatus, Prefetch};

#[tokio::test]
async fn a_peer_that_sends_garbage_is_banned_and_the_data_is_right() {
    let stand = Stand::new(16).await;
    stand.tracker.add(Rogue::start(&stand, Manner::Poisons).await.address);
    let host = stand.host(Prefetch::Off).await;
    let both =
        |status: &ImageStatus| status.peers.len() == 2 && status.peers.iter().all(|peer| peer.pieces == 16);
    host.becomes(&stand.published, "both peers", both).await;
    stand.check(&host, 0, 16 * PIECE).await;
    let status = host.status(&stand.published).await;
    assert!(status.bytes_poisoned >= PIECE, "{status:?}");
    assert_eq!((status.bytes.origin, status.bytes.peer), (12 * PIECE, 0));
    assert!(host.log().contains("a peer sent wrong bytes; it is banned for a while"));
}

#[tokio::test]
async fn peers_that_speak_nonsense_are_dropped_and_others_served() {
    let stand = Stand::new(16).await;
    let address: SocketAddr = stand.origin.client.status().await.unwrap().listen.parse().unwrap();
    let hash = stand.info_hash();
    let ask = |piece: u32, begin: u32, length: u32| {
        let mut message = vec![0, 0, 0, 13, 6];
        [piece, begin, length].iter().for_each(|number| message.extend_from_slice(&number.to_be_bytes()));
        message
    };
    let nonsense: Vec<Vec<u8>> = vec![
        vec![0xff; 200],
        [0xff, 0xff, 0xff, 0xff, 9].to_vec(),
        vec![0, 0, 0, 5, 4, 0, 0, 1, 0],
        vec![0, 0, 0, 4, 5, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 2, 6, 0],
        ask(99, 0, 16384),
        ask(0, u32::MAX, 16384),
        ask(0, 0, 0),
        ask(0, 0, 1 << 30),
    ];
    let tries = nonsense.len();
    tokio::task::spawn_blocking(move || {
        for (index, message) in nonsense.into_iter().enumerate() {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let id: [u8; 20] = format!("-XX0000-{index:012}").into_bytes().try_into().unwrap();
            stream.write_all(&handshake(hash, &id)).unwrap();
            stream.write_all(&message).unwrap();
            // It ends: by a close, or by a reset if we were still speaking.
            let mut rest = Vec::new();
            match stream.read_to_end(&mut rest) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{index}"),
            }
        }
        // An unknown torrent, and no BitTorrent at all.
        for hello in [handshake([9; 20], b"-XX0000-aaaaaaaaaaaa"), vec![b'G'; 68]] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&hello).unwrap();
            assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
        }
    })
    .await
    .unwrap();
    assert!(tries > 5);
    let host = stand.host(Prefetch::Off).await;
    stand.check(&host, 0, PIECE).await;
}

fn greeted(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream
}

fn option(kind: u32, length: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

#[tokio::test]
async fn block_clients_that_speak_nonsense_are_dropped_and_others_served() {
    let stand = Stand::new(8).await;
    let host = stand.host(Prefetch::Off).await;
    let (socket, name) = (host.nbd(), stand.published.digest.hex());
    let bytes = stand.slice(0, 4096).to_vec();
    tokio::task::spawn_blocking(move || {
        let flags = 3u32.to_be_bytes();
        let hellos: Vec<Vec<u8>> = vec![
            vec![0xff; 64],
            [&flags[..], &[0xaa; 64]].concat(),
            [&flags[..], &option(1, u32::MAX, b"")].concat(),
            [&flags[..], &option(1, 5, b"nope!")].concat(),
            [&flags[..], &option(1, 2, &[0xff, 0xfe])].concat(),
        ];
        for (index, hello) in hellos.into_iter().enumerate() {
            let mut stream = greeted(&socket);
            stream.write_all(&hello).unwrap();
            let ended = stream.read_to_end(&mut Vec::new());
            assert!(
                ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset,
                "{index}"
            );
        }
        // Malformed options are answered and forgiven.
        let mut stream = greeted(&socket);
        stream.write_all(&flags).unwrap();
        for bad in [
            option(7, 4, &[0xff; 4]),
            option(7, 0, b""),
            option(6, 6, &[0, 0, 0, 0, 0, 9]),
            option(10, 4, &[0, 0, 0, 9]),
            option(8, 1, &[1]),
            option(77, 3, b"abc"),
            option(3, 1, b"x"),
        ] {
            stream.write_all(&bad).unwrap();
            let mut reply = [0; 20];
            stream.read_exact(&mut reply).unwrap();
            let kind = u32::from_be_bytes(reply[12..16].try_into().unwrap());
            assert!(kind & 1 << 31 != 0, "{bad:?}");
            let length = u32::from_be_bytes(reply[16..20].try_into().unwrap());
            stream.read_exact(&mut vec![0; length as usize]).unwrap();
        }
        // Requests outside of the disk are refused, the connection goes on; a wrong magic ends it.
        let mut nbd = Nbd::connect(&socket, &name);
        for (offset, length) in [(u64::MAX, 512), (8 * PIECE, 1), (8 * PIECE - 1, 2), (0, 0), (0, 64 << 20)] {
            nbd.ask(offset, length);
            assert_eq!(nbd.error(), 22, "{offset} {length}");
        }
        assert_eq!(nbd.write(0, &[1; 512]), 1);
        assert!(nbd.read(0, 4096) == bytes);
        nbd.raw(&[0xab; 28]);
        assert!(nbd.ended());
    })
    .await
    .unwrap();
    stand.check(&host, 0, 8 * PIECE).await;
}

#[tokio::test]
async fn with_certificates_only_hosts_of_the_authority_take_part() {
    let tracker = Tracker::start().await;
    let (authority, foreign) = (Authority::new(), Authority::new());
    let origin = authority.daemon("origin", "origin", &authority).await;
    let bytes = stand::disk(8);
    let raw = origin.folder.path().join("disk.raw");
    std::fs::write(&raw, &bytes).unwrap();
    let published = origin.publish(&raw, &tracker.url).await;
    let stand = Stand { tracker, origin, published, bytes, raw };

    let stranger = foreign.daemon("stranger", "host", &authority).await;
    stranger.put(&stand.published, &stand.tracker.url, Prefetch::Idle).await;
    let plain = Daemon::start("host", "").await;
    plain.put(&stand.published, &stand.tracker.url, Prefetch::Idle).await;

    let host = authority.daemon("host", "host", &authority).await;
    host.put(&stand.published, &stand.tracker.url, Prefetch::Off).await;
    stand.check(&host, 0, 8 * PIECE).await;
    let status = host.status(&stand.published).await;
    assert_eq!(status.bytes.origin, 6 * PIECE);

    // Both have tried by now: the tracker names the origin to them.
    for outsider in [&stranger, &plain] {
        until("an attempt", || async { outsider.log().contains("a peer does not answer").then_some(()) })
            .await;
        let status = outsider.status(&stand.published).await;
        assert_eq!((status.peers.len(), status.pieces_local), (0, 0));
    }
}
