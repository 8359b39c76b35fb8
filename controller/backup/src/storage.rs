//! Named files at a place: all that a repository needs of the world.

mod folder;
mod remote;

use crate::{Credentials, Error, Location};
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A file that is being written. It has its name only once it is whole.
pub(crate) const TEMPORARY: &str = ".partial";

/// Files by name, such as `data/ab/abcd…`. Safe to call from many threads.
pub(crate) trait Storage: Send + Sync + 'static {
    /// The whole of a file.
    fn read(&self, name: &str) -> io::Result<Bytes>;
    /// A part of one; an error if it is shorter.
    fn read_range(&self, name: &str, range: Range<u64>) -> io::Result<Bytes>;
    /// A file is there wholly or not at all, and durable, once this returns.
    fn write(&self, name: &str, parts: &[Bytes]) -> io::Result<()>;
    /// Names and bytes of all files below a folder, at any depth; none if the folder is not there.
    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>>;
    /// A file that is not there is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// The storage at a location.
pub(crate) fn open(location: &Location, credentials: &Credentials) -> Result<Arc<dyn Storage>, Error> {
    Ok(match location {
        Location::Folder(path) => Arc::new(folder::Folder::new(path.clone())),
        Location::Sftp { .. } | Location::S3 { .. } => Arc::new(
            remote::Remote::new(location, credentials)
                .map_err(|source| Error::storage("connect", &location.to_string(), source))?,
        ),
    })
}
