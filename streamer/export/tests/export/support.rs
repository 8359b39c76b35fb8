//! A disk whose pieces come when a test says so, a server for it, and a client that says exactly what it is told.

use bytes::{BufMut as _, Bytes};
use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use streamer_export::{Export, Extent, Reading, Server};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PIECE: u64 = 64 << 10;
/// Thirty pieces and a half, and not a multiple of a page.
pub(crate) const SIZE: u64 = 30 * PIECE + PIECE / 2 + 512;
/// Pieces that are all zero.
pub(crate) const ZERO: [u64; 3] = [3, 4, 9];

/// What a byte of a disk is.
pub(crate) fn byte(at: u64) -> u8 {
    if ZERO.contains(&(at / PIECE)) { 0 } else { (at.wrapping_mul(2_654_435_761) >> 13) as u8 | 1 }
}

pub(crate) fn content(offset: u64, length: u64) -> Vec<u8> {
    (offset..offset + length).map(byte).collect()
}

/// A disk in memory.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) size: u64,
    absent: watch::Sender<BTreeSet<u64>>,
    pub(crate) readers: Arc<Mutex<Vec<String>>>,
    pub(crate) waiting: Arc<Mutex<usize>>,
}

impl Disk {
    pub(crate) fn new(absent: impl IntoIterator<Item = u64>) -> Self {
        let absent = watch::Sender::new(absent.into_iter().collect());
        Self { size: SIZE, absent, readers: Arc::default(), waiting: Arc::default() }
    }

    pub(crate) fn bring(&self, piece: u64) {
        self.absent.send_modify(|absent| {
            absent.remove(&piece);
        });
    }

    pub(crate) fn waiting(&self) -> usize {
        *self.waiting.lock().unwrap()
    }

    /// Faces to readers that live, of which the table's own is one.
    pub(crate) fn faces(&self) -> usize {
        Arc::strong_count(&self.readers)
    }

    fn pieces(offset: u64, length: u64) -> std::ops::RangeInclusive<u64> {
        offset / PIECE..=(offset + length - 1) / PIECE
    }
}

struct Waits(Arc<Mutex<usize>>);

impl Drop for Waits {
    fn drop(&mut self) {
        *self.0.lock().unwrap() -= 1;
    }
}

impl Export for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_now(&self, offset: u64, length: u32) -> Option<Bytes> {
        let absent = self.absent.borrow();
        let here = Self::pieces(offset, length.into()).all(|piece| !absent.contains(&piece));
        here.then(|| content(offset, length.into()).into())
    }

    fn read_at(&self, offset: u64, length: u32) -> Reading<'_> {
        Box::pin(async move {
            *self.waiting.lock().unwrap() += 1;
            let _waits = Waits(Arc::clone(&self.waiting));
            let mut absent = self.absent.subscribe();
            let here = |absent: &BTreeSet<u64>| {
                Self::pieces(offset, length.into()).all(|piece| !absent.contains(&piece))
            };
            absent.wait_for(here).await.map_err(io::Error::other)?;
            Ok(content(offset, length.into()).into())
        })
    }

    fn extents(&self, offset: u64, length: u32) -> Vec<Extent> {
        let end = offset + u64::from(length);
        let (mut at, mut extents) = (offset, Vec::<Extent>::new());
        while at < end {
            let (zero, next) = (ZERO.contains(&(at / PIECE)), ((at / PIECE + 1) * PIECE).min(end));
            match extents.last_mut().filter(|last| last.zero == zero) {
                Some(last) => last.length += next - at,
                None => extents.push(Extent { length: next - at, zero }),
            }
            at = next;
        }
        extents
    }

    fn for_reader(self: Arc<Self>, reader: &str) -> Arc<dyn Export> {
        self.readers.lock().unwrap().push(reader.to_owned());
        Arc::new(Self::clone(&self))
    }
}

/// A server on a socket in a folder of its own; all is gone when it is dropped.
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) socket: PathBuf,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) runtime: tokio::runtime::Runtime,
    shutdown: CancellationToken,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (server, shutdown) = (Server::new(), CancellationToken::new());
        let socket = folder.path().join("nbd");
        let serving = {
            let _inside = runtime.enter();
            server.clone().serve(&socket, shutdown.clone()).unwrap()
        };
        let serving = Some(runtime.spawn(serving));
        Self { server, socket, folder, runtime, shutdown, serving }
    }

    /// A server of one disk named `disk`.
    pub(crate) fn of(disk: &Disk) -> Self {
        let rig = Self::new();
        rig.server.add("disk".to_owned(), Arc::new(disk.clone()));
        rig
    }

    pub(crate) fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket.display())
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    /// A client past the greeting.
    pub(crate) fn greeted(&self) -> Client {
        let mut client = self.connect();
        assert_eq!(client.take(18), [b"NBDMAGICIHAVEOPT".as_slice(), &[0, 3]].concat());
        client.send(&3u32.to_be_bytes());
        client
    }

    /// A client that may read.
    pub(crate) fn reading(&self, name: &str, structured: bool) -> Client {
        let mut client = self.greeted();
        if structured {
            client.option(8, b"");
            assert_eq!(client.answers(), [(1, vec![])]);
            client.option(10, &contexts(name, &["base:allocation"]));
            assert_eq!(client.answers().len(), 2);
        }
        client.option(7, &go(name));
        assert_eq!(client.answers().last().unwrap().0, 1, "{name} was refused");
        client
    }

    pub(crate) fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(serving) = self.serving.take() {
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, serving).await }).unwrap().unwrap();
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A block client made of bytes.
pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The server hangs up, having said nothing more. Whether it took all that was sent is its own affair.
    pub(crate) fn is_dropped(&mut self) -> bool {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn option(&mut self, option: u32, data: &[u8]) {
        self.send(&option_bytes(option, data));
    }

    /// What is answered to an option, until the last of it: kinds and payloads.
    pub(crate) fn answers(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut answers = Vec::new();
        loop {
            let header = self.take(20);
            assert_eq!(header[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
            let kind = u32::from_be_bytes(header[12..16].try_into().unwrap());
            let length = u32::from_be_bytes(header[16..20].try_into().unwrap());
            answers.push((kind, self.take(length as usize)));
            if kind == 1 || kind >= 1 << 31 {
                return answers;
            }
        }
    }

    pub(crate) fn request(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, length: u32) {
        self.send(&request(flags, command, cookie, offset, length));
    }

    /// A simple reply's error and cookie.
    pub(crate) fn simple(&mut self) -> (u32, u64) {
        let header = self.take(16);
        assert_eq!(header[..4], 0x6744_6698_u32.to_be_bytes());
        let (code, cookie) = (&header[4..8], &header[8..]);
        (u32::from_be_bytes(code.try_into().unwrap()), u64::from_be_bytes(cookie.try_into().unwrap()))
    }

    /// A chunk of a structured reply: flags, kind, cookie, payload.
    pub(crate) fn chunk(&mut self) -> (u16, u16, u64, Vec<u8>) {
        let header = self.take(20);
        assert_eq!(header[..4], 0x668e_33ef_u32.to_be_bytes());
        let number = |range: std::ops::Range<usize>| u16::from_be_bytes(header[range].try_into().unwrap());
        let length = u32::from_be_bytes(header[16..].try_into().unwrap());
        let cookie = u64::from_be_bytes(header[8..16].try_into().unwrap());
        (number(4..6), number(6..8), cookie, self.take(length as usize))
    }
}

pub(crate) fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(0x2560_9513);
    bytes.put_u16(flags);
    bytes.put_u16(command);
    bytes.put_u64(cookie);
    bytes.put_u64(offset);
    bytes.put_u32(length);
    bytes
}

pub(crate) fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.put_u32(option);
    bytes.put_u32(u32::try_from(data.len()).unwrap());
    bytes.put_slice(data);
    bytes
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.put_slice(text.as_bytes());
    bytes
}

/// The data of `NBD_OPT_GO` and `NBD_OPT_INFO`.
pub(crate) fn go(name: &str) -> Vec<u8> {
    [string(name), vec![0, 0]].concat()
}

/// The data of the options about metadata contexts.
pub(crate) fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.put_u32(u32::try_from(queries.len()).unwrap());
    queries.iter().for_each(|query| bytes.put_slice(&string(query)));
    bytes
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}
