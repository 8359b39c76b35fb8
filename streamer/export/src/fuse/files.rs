//! What the kernel asks of the folder.

use crate::{Export, READ_BYTES_MAX, Server};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, Request,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How long the kernel believes that an export is there.
const BELIEVED: Duration = Duration::from_secs(1);
/// Largest read of the kernel: it takes its length from what may be written.
const REQUEST_BYTES: u32 = 1 << 20;
/// Reads ahead that the kernel lets wait before it holds others back.
const WAITING_MAX: u16 = 4096;
/// Names given out at a time.
const NAMES: usize = 256;
/// What the exports are told of who reads.
const READER: &str = "fuse";
/// Behind the root's inode.
const FIRST: u64 = INodeNo::ROOT.0;
/// Extents are asked for so many bytes at a time.
const EXTENT_BYTES: u64 = 1 << 30;

const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// An open file.
#[derive(Clone)]
struct Open {
    export: Arc<dyn Export>,
    /// Reads fail from then on.
    gone: CancellationToken,
}

pub(super) struct Files {
    server: Server,
    runtime: Handle,
    closed: CancellationToken,
    open: Mutex<HashMap<u64, Open>>,
    last_handle: AtomicU64,
    /// Bytes that are not zero, by inode: counted once.
    stored: Mutex<HashMap<u64, u64>>,
    since: SystemTime,
}

impl Files {
    pub(super) fn new(server: Server, runtime: Handle, closed: CancellationToken) -> Self {
        Self {
            server,
            runtime,
            closed,
            open: Mutex::default(),
            last_handle: AtomicU64::new(0),
            stored: Mutex::default(),
            since: SystemTime::now(),
        }
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, handle: FileHandle) -> Option<Open> {
        self.handles().get(&handle.0).cloned()
    }

    fn attributes(&self, inode: INodeNo, size: u64, stored: u64) -> FileAttr {
        let folder = inode == INodeNo::ROOT;
        let (kind, perm) = if folder { (FileType::Directory, 0o550) } else { (FileType::RegularFile, 0o440) };
        FileAttr {
            ino: inode,
            size,
            blocks: stored.div_ceil(512),
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: self.since,
            kind,
            perm,
            nlink: if folder { 2 } else { 1 },
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: REQUEST_BYTES,
            flags: 0,
        }
    }

    fn file_attributes(&self, number: u64, export: &dyn Export) -> FileAttr {
        let mut counted = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = *counted.entry(number).or_insert_with(|| stored_bytes(export));
        drop(counted);
        self.attributes(INodeNo(number + FIRST), export.size(), stored)
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each answers with the nearest value that may be, and then that is it.
        let _ = config.set_max_write(REQUEST_BYTES);
        let _ = config.set_max_background(WAITING_MAX);
        let _ = config.set_congestion_threshold(WAITING_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = name.to_str().filter(|_| parent == INodeNo::ROOT).and_then(|name| self.server.find(name));
        match found {
            Some((entry, "")) => {
                let attributes = self.file_attributes(entry.number, entry.export.as_ref());
                reply.entry(&BELIEVED, &attributes, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn forget(&self, _: &Request, inode: INodeNo, _lookups: u64) {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).remove(&inode.0.wrapping_sub(FIRST));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        if inode == INodeNo::ROOT {
            return reply.attr(&BELIEVED, &self.attributes(inode, 0, 0));
        }
        let number = inode.0.wrapping_sub(FIRST);
        let open = handle.and_then(|handle| self.opened(handle)).map(|open| open.export);
        match open.or_else(|| Some(self.server.numbered(number)?.export)) {
            Some(export) => reply.attr(&BELIEVED, &self.file_attributes(number, export.as_ref())),
            None => reply.error(Errno::ESTALE),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let Some(entry) = self.server.numbered(inode.0.wrapping_sub(FIRST)) else {
            return reply.error(Errno::ENOENT);
        };
        let handle = self.last_handle.fetch_add(1, Ordering::Relaxed) + 1;
        let open = Open { export: entry.export.for_reader(READER), gone: entry.gone };
        self.handles().insert(handle, open);
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.handles().remove(&handle.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(Open { export, gone }) = self.opened(handle) else { return reply.error(Errno::EBADF) };
        if gone.is_cancelled() || self.closed.is_cancelled() {
            return reply.error(Errno::EIO);
        }
        let left = export.size().saturating_sub(offset);
        let length = u32::try_from(left).unwrap_or(u32::MAX).min(size).min(READ_BYTES_MAX);
        if length == 0 {
            return reply.data(&[]);
        }
        let mut buffer = vec![0; length as usize];
        if export.read_now_into(offset, &mut buffer) {
            return reply.data(&buffer);
        }
        drop(buffer);
        let closed = self.closed.clone();
        self.runtime.spawn(async move {
            let read = tokio::select! {
                read = export.read_at(offset, length) => read,
                () = gone.cancelled() => Err(io::Error::other("the export was removed")),
                () = closed.cancelled() => Err(io::Error::other("the folder was unmounted")),
            };
            match read {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => {
                    tracing::error!(%error, offset, "a read of an export's file failed");
                    reply.error(Errno::EIO);
                }
            }
        });
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Some(Open { export, .. }) = self.opened(handle) else { return reply.error(Errno::EBADF) };
        let found = match (whence, u64::try_from(offset)) {
            (SEEK_DATA, Ok(offset)) => seek(export.as_ref(), offset, false),
            (SEEK_HOLE, Ok(offset)) => seek(export.as_ref(), offset, true),
            _ => return reply.error(Errno::EINVAL),
        };
        match found.map(i64::try_from) {
            Some(Ok(offset)) => reply.offset(offset),
            _ => reply.error(Errno::ENXIO),
        }
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if inode != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        // An entry's offset is two more than its number, those of the dots are 1 and 2: so that it stays right while
        // exports come and go.
        for (at, name) in [(1, "."), (2, "..")] {
            if offset < at && reply.add(INodeNo::ROOT, at, FileType::Directory, name) {
                return reply.ok();
            }
        }
        let mut after = offset.saturating_sub(2);
        loop {
            let names = self.server.names_after(after, NAMES);
            let Some((last, _)) = names.last() else { return reply.ok() };
            after = *last;
            for (number, name) in names {
                if reply.add(INodeNo(number + FIRST), number + 2, FileType::RegularFile, name) {
                    return reply.ok();
                }
            }
        }
    }
}

/// The first byte at or behind an offset that is zero, or is not; the end is zero. `None` if there is none.
fn seek(export: &dyn Export, offset: u64, zero: bool) -> Option<u64> {
    let size = export.size();
    if offset >= size {
        return None;
    }
    let found = extents(export, offset).find(|(_, _, is_zero)| *is_zero == zero).map(|(at, _, _)| at);
    found.or(zero.then_some(size))
}

fn stored_bytes(export: &dyn Export) -> u64 {
    extents(export, 0).filter(|(_, _, zero)| !zero).map(|(_, length, _)| length).sum()
}

/// Extents from an offset to the end: where, how long, whether zero.
fn extents(export: &dyn Export, offset: u64) -> impl Iterator<Item = (u64, u64, bool)> + '_ {
    let size = export.size();
    let windows = std::iter::successors(Some(offset), |at| Some(at + EXTENT_BYTES));
    windows.take_while(move |at| *at < size).flat_map(move |begin| {
        let length = u32::try_from(EXTENT_BYTES.min(size - begin)).unwrap_or(u32::MAX);
        export.extents(begin, length).into_iter().scan(begin, |at, extent| {
            let begun = *at;
            *at += extent.length;
            Some((begun, extent.length, extent.zero))
        })
    })
}
