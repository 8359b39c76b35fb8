//! Namespaces under a name: making, finding, entering and removing them.

use super::{RouterError, file_error};
use crate::link;
use crate::route::Route;
use netd_plan::GROUP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use rtnetlink::LinkUnspec;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;

/// Longest alias the kernel takes, in bytes.
const ALIAS_LEN_MAX: usize = 255;

/// A namespace of ours, open.
#[derive(Debug)]
pub(super) struct Entered {
    file: File,
    path: PathBuf,
}

/// What is under a name.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing, or what is left of a namespace that is gone.
    Absent,
    /// Something without this netd's mark.
    Foreign,
    /// One of this netd's.
    Ours(Entered),
}

/// Runs a job on a thread of its own, whose network namespace it may change; it starts in the caller's.
pub(super) async fn on_thread<T: Send + 'static>(
    job: impl FnOnce(&Handle) -> Result<T, RouterError> + Send + 'static,
) -> Result<T, RouterError> {
    let runtime = Handle::current();
    let (sender, answer) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("netd-router".to_owned());
    let failed = |source| RouterError::Namespace { what: "start a thread for", path: PathBuf::new(), source };
    thread.spawn(move || drop(sender.send(job(&runtime)))).map_err(failed)?;
    answer.await.unwrap_or_else(|_| Err(failed(io::Error::other("the thread ended early"))))
}

/// What the loopback of a netd's namespaces is called.
pub(super) fn mark(state: &Path) -> String {
    let mut text = format!("collective router of {}", state.display());
    while text.len() > ALIAS_LEN_MAX {
        text.pop();
    }
    text
}

/// Makes a namespace, marks it, and only then gives it its name. Leaves the calling thread in it.
pub(super) fn create(path: &Path, mark: &str) -> Result<(), RouterError> {
    let fail = |source| RouterError::Namespace { what: "make", path: path.to_owned(), source };
    if !matches!(find(path, mark)?, Found::Absent) {
        return Err(RouterError::NotOurs(path.to_owned()));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(file_error(folder))?;
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| fail(errno.into()))?;
    let inside = |what| move |source| RouterError::Inside { what, source };
    let mut route = Route::open().map_err(fail)?;
    let message = LinkUnspec::new_with_name("lo")
        .append_extra_attribute(LinkAttribute::Group(GROUP))
        .append_extra_attribute(LinkAttribute::IfAlias(mark.to_owned()))
        .build();
    route.change(&RouteNetlinkMessage::SetLink(message), 0).map_err(inside("mark the loopback"))?;
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(file_error(path))?;
    let own = Some("/proc/thread-self/ns/net");
    mount(own, path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| fail(errno.into()))
}

/// Looks whose the namespace of this name is. Must run on a thread of its own, and may leave it in the namespace.
pub(super) fn find(path: &Path, mark: &str) -> Result<Found, RouterError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        other => other.map_err(file_error(path))?,
    };
    let kind = fstatfs(&file).map_err(|errno| file_error(path)(errno.into()))?;
    if kind.filesystem_type() != NSFS_MAGIC {
        // The file that a namespace is to be mounted on is empty.
        let empty = file.metadata().map_err(file_error(path))?;
        return Ok(if empty.is_file() && empty.len() == 0 { Found::Absent } else { Found::Foreign });
    }
    let before = File::open("/proc/thread-self/ns/net").map_err(file_error(path))?;
    let found = Entered { file, path: path.to_owned() };
    if found.enter().is_err() {
        // It is a namespace of another kind.
        return Ok(Found::Foreign);
    }
    let is_ours = is_marked(mark);
    Entered { file: before, path: path.to_owned() }.enter()?;
    Ok(if is_ours? { Found::Ours(found) } else { Found::Foreign })
}

fn is_marked(mark: &str) -> Result<bool, RouterError> {
    let fail = |source| RouterError::Inside { what: "look at the loopback", source };
    let mut route = Route::open().map_err(crate::RouteError::Socket).map_err(fail)?;
    let mut found = None;
    route.ask(&link::request(Some("lo")), |part| found = link::read(part)).map_err(fail)?;
    Ok(found.is_some_and(|lo| lo.link.group == GROUP && lo.link.alias.as_deref() == Some(mark)))
}

/// Takes the name away. The kernel removes the namespace and what is in it once nobody uses it.
pub(super) fn remove(path: &Path, mark: &str) -> Result<(), RouterError> {
    let fail = |source| RouterError::Namespace { what: "remove", path: path.to_owned(), source };
    match find(path, mark)? {
        Found::Foreign => return Err(RouterError::NotOurs(path.to_owned())),
        Found::Absent => {}
        Found::Ours(_) => umount2(path, MntFlags::MNT_DETACH).map_err(|errno| fail(errno.into()))?,
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
        _ => Ok(()),
    }
}

impl Entered {
    /// Opens a namespace of this netd's. Must run on a thread of its own.
    pub(super) fn open(path: &Path, mark: &str) -> Result<Self, RouterError> {
        match find(path, mark)? {
            Found::Ours(entered) => Ok(entered),
            Found::Absent | Found::Foreign => Err(RouterError::NotOurs(path.to_owned())),
        }
    }

    /// The calling thread is in it from now on.
    pub(super) fn enter(&self) -> Result<(), RouterError> {
        let fail = |source| RouterError::Namespace { what: "enter", path: self.path.clone(), source };
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| fail(errno.into()))
    }

    /// Device and inode: no two namespaces have the same.
    pub(super) fn identity(&self) -> Result<(u64, u64), RouterError> {
        let status = fstat(&self.file).map_err(|errno| file_error(&self.path)(errno.into()))?;
        Ok((status.st_dev, status.st_ino))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
