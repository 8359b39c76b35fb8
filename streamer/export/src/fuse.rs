//! The exports as a read-only folder, one file each: for virtual machine monitors that speak no NBD, loop mounts, and
//! people.
//!
//! The kernel keeps what it has read: an export's bytes never change. A read of bytes that are not here waits, and only
//! that read; it ends with an I/O error if its export is removed or the folder unmounted.
//!
//! We mount it ourselves and not through `fuser`, which would unmount by path what somebody else may have mounted there
//! since.

mod files;

use crate::Server;
use files::Files;
use fuser::{BackgroundSession, Config, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Threads that take requests: reads in memory are answered on them.
const THREADS: usize = 2;
/// Mounts that killed daemons left one over the other.
const DEAD_MOUNTS_MAX: usize = 64;

/// Why the folder could not be mounted.
#[derive(Debug, Error)]
pub enum MountError {
    /// It is not there and cannot be made, or is no folder.
    #[error("cannot use {0} as a mount point")]
    Folder(PathBuf, #[source] io::Error),
    /// Something else is mounted there.
    #[error("something is mounted on {0} already")]
    Busy(PathBuf),
    /// The kernel has no FUSE, or does not let us.
    #[error("cannot open /dev/fuse")]
    Device(#[source] io::Error),
    /// The kernel refused: it takes the right to mount.
    #[error("cannot mount on {0}")]
    Mount(PathBuf, #[source] io::Error),
    /// Kernel and we do not understand each other.
    #[error("cannot serve {0}")]
    Serve(PathBuf, #[source] io::Error),
}

/// The folder, until this is dropped.
#[derive(Debug)]
pub struct Mount {
    folder: PathBuf,
    closed: CancellationToken,
    _session: BackgroundSession,
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whoever has a file open or stands in the folder keeps it, and gets errors.
        self.closed.cancel();
        if let Err(error) = rustix::mount::unmount(&self.folder, UnmountFlags::DETACH) {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot unmount the folder of exports");
        }
    }
}

/// Mounts the exports of a server on a folder, which is made if it is not there. What a killed daemon left mounted there
/// is unmounted first. Reads that wait run on the given runtime.
///
/// # Errors
/// [`MountError`] says which step failed; nothing stays mounted then.
pub fn mount(server: &Server, folder: &Path, runtime: Handle) -> Result<Mount, MountError> {
    clear(folder)?;
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| MountError::Device(error.into()))?;
    let options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},allow_other,default_permissions",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let failed = |error| MountError::Mount(folder.to_owned(), error);
    let options = CString::new(options).map_err(|error| failed(error.into()))?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount("collective", folder, "fuse.collective", flags, options.as_c_str())
        .map_err(|error| failed(error.into()))?;
    let closed = CancellationToken::new();
    let files = Files::new(server.clone(), runtime, closed.clone());
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    let session = Session::from_fd(files, device, SessionACL::All, config).and_then(Session::spawn);
    match session {
        Ok(session) => Ok(Mount { folder: folder.to_owned(), closed, _session: session }),
        Err(error) => {
            // The first error is the one to tell.
            let _ = rustix::mount::unmount(folder, UnmountFlags::DETACH);
            Err(MountError::Serve(folder.to_owned(), error))
        }
    }
}

/// Makes the folder a place to mount on.
fn clear(folder: &Path) -> Result<(), MountError> {
    let unusable = |error| MountError::Folder(folder.to_owned(), error);
    for _ in 0..DEAD_MOUNTS_MAX {
        // The kernel may remember what a dead mount's folder looked like, but not what is in it.
        match std::fs::read_dir(folder).and_then(|_| std::fs::metadata(folder)) {
            Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
                rustix::mount::unmount(folder, UnmountFlags::DETACH)
                    .map_err(|error| unusable(error.into()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(folder).map_err(unusable)?;
            }
            Err(error) => return Err(unusable(error)),
            Ok(found) if !found.is_dir() => return Err(unusable(io::ErrorKind::NotADirectory.into())),
            Ok(found) => {
                let parent = std::fs::metadata(folder.join("..")).map_err(unusable)?;
                let mounted = parent.dev() != found.dev();
                return if mounted { Err(MountError::Busy(folder.to_owned())) } else { Ok(()) };
            }
        }
    }
    Err(MountError::Busy(folder.to_owned()))
}
