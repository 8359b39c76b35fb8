//! Serves a file as the export `disk` until it is told to end: to measure the server without a swarm.
//!
//! usage: `serve_file FILE SOCKET`

use bytes::Bytes;
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use streamer_export::{Export, Extent, Reading, Server};
use tokio_util::sync::CancellationToken;

struct Disk {
    file: Arc<File>,
    size: u64,
}

impl Export for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_now(&self, offset: u64, length: u32) -> Option<Bytes> {
        let mut buffer = vec![0; length as usize];
        self.read_now_into(offset, &mut buffer).then(|| buffer.into())
    }

    fn read_now_into(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let wanted = buffer.len();
        let mut slices = [IoSliceMut::new(buffer)];
        let read = rustix::io::preadv2(&self.file, &mut slices, offset, ReadWriteFlags::NOWAIT);
        read.is_ok_and(|read| read == wanted)
    }

    fn read_at(&self, offset: u64, length: u32) -> Reading<'_> {
        let file = Arc::clone(&self.file);
        Box::pin(async move {
            let read = move || {
                let mut buffer = vec![0; length as usize];
                file.read_exact_at(&mut buffer, offset)?;
                Ok(buffer.into())
            };
            tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
        })
    }

    fn extents(&self, _offset: u64, length: u32) -> Vec<Extent> {
        vec![Extent { length: u64::from(length), zero: false }]
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(socket)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: serve_file FILE SOCKET"));
    };
    let file = File::open(file)?;
    let size = file.metadata()?.len();
    let server = Server::new();
    server.add("disk".to_owned(), Arc::new(Disk { file: Arc::new(file), size }));
    let shutdown = CancellationToken::new();
    let serving = server.serve(Path::new(&socket), shutdown.clone())?;
    tokio::select! {
        () = serving => {}
        ended = tokio::signal::ctrl_c() => ended?,
    }
    Ok(())
}
