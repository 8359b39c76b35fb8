//! A block client: the whole of what it sends, negotiation and transmission, to a server with one small image.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::io;
use std::sync::{Arc, OnceLock};
use streamer_export::{Export, Extent, READ_BYTES_MAX, Reading, Server};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

const SIZE: u64 = 1 << 20;
/// Alternately zero and not.
const EXTENT: u64 = 64 << 10;
/// The seeds' export name.
const NAME: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Half of it is in memory, half has to be waited for.
struct Image;

impl Image {
    fn check(offset: u64, length: u32) {
        assert!(length <= READ_BYTES_MAX && offset + u64::from(length) <= SIZE, "{length} bytes at {offset}");
    }
}

impl Export for Image {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_now(&self, offset: u64, length: u32) -> Option<Bytes> {
        Self::check(offset, length);
        (offset < SIZE / 2).then(|| vec![1; length as usize].into())
    }

    fn read_at(&self, offset: u64, length: u32) -> Reading<'_> {
        Self::check(offset, length);
        Box::pin(async move {
            tokio::task::yield_now().await;
            match offset % 3 {
                0 => Err(io::ErrorKind::Other.into()),
                _ => Ok(vec![1; length as usize].into()),
            }
        })
    }

    fn extents(&self, offset: u64, length: u32) -> Vec<Extent> {
        let end = offset + u64::from(length);
        assert!(end <= SIZE);
        let (mut at, mut extents) = (offset, Vec::new());
        while at < end {
            let next = ((at / EXTENT + 1) * EXTENT).min(end);
            extents.push(Extent { length: next - at, zero: (at / EXTENT) % 2 == 0 });
            at = next;
        }
        extents
    }
}

struct World {
    server: Server,
    runtime: tokio::runtime::Runtime,
}

fuzz_target!(|bytes: &[u8]| {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(|| {
        let server = Server::new();
        server.add(NAME.to_owned(), Arc::new(Image));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        World { server, runtime }
    });
    world.runtime.block_on(async {
        let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
        let serving = async {
            world.server.converse(server, &CancellationToken::new()).await;
        };
        let speaking = async {
            let (mut reader, mut writer) = client.split();
            let sending = async {
                // The server may hang up at any byte.
                let _ = writer.write_all(bytes).await;
                let _ = writer.shutdown().await;
            };
            let mut nothing = tokio::io::sink();
            let receiving = tokio::io::copy(&mut reader, &mut nothing);
            let _ = tokio::join!(sending, receiving);
        };
        tokio::join!(serving, speaking);
    });
});
