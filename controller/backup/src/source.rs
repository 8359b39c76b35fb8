use crate::backend::Outcome;
use crate::{Control, Error};
use bytes::Bytes;
use rustic_core::repofile::{Metadata, Node, NodeType};
use rustic_core::{ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name in the backup, relative, its parts separated by slashes.
    pub name: String,
    /// Its bytes.
    pub content: Content,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In this file, which never changes again. One with the size and time of modification of the same name in the
    /// backup before is not read.
    File(PathBuf),
    /// Here.
    Bytes(Bytes),
}

/// The files of one backup, looked at once.
pub(crate) struct Sources {
    entries: Vec<ReadSourceEntry<Opening>>,
    pub(crate) total_bytes: u64,
    pub(crate) files: u64,
}

impl Sources {
    /// Looks at all of them, so that one that is missing is told before anything is written.
    pub(crate) fn new(
        root: &Path,
        mut files: Vec<SourceFile>,
        control: &Arc<Control>,
        outcome: &Arc<Outcome>,
    ) -> Result<Self, Error> {
        // In the order of a walk: by parts, not by bytes.
        files.sort_by(|one, other| Path::new(&one.name).cmp(Path::new(&other.name)));
        files.dedup_by(|one, other| one.name == other.name);
        let mut entries = Vec::with_capacity(files.len());
        let mut total_bytes = 0;
        for file in files {
            let path = root.join(&file.name);
            let (metadata, size) = match &file.content {
                Content::File(from) => {
                    let found = fs::metadata(from).map_err(|source| Error::File {
                        doing: "back up",
                        path: from.clone(),
                        source,
                    })?;
                    let mtime =
                        jiff::Timestamp::new(found.mtime(), i32::try_from(found.mtime_nsec()).unwrap_or(0))
                            .ok();
                    (
                        Metadata {
                            mode: Some(0o600),
                            mtime,
                            size: found.len(),
                            links: 1,
                            ..Metadata::default()
                        },
                        found.len(),
                    )
                }
                Content::Bytes(bytes) => (
                    Metadata { mode: Some(0o600), size: bytes.len() as u64, links: 1, ..Metadata::default() },
                    bytes.len() as u64,
                ),
            };
            total_bytes += size;
            let node = Node::new_node(path.file_name().unwrap_or(OsStr::new("")), NodeType::File, metadata);
            let open = Opening {
                content: file.content,
                size,
                control: Arc::clone(control),
                outcome: Arc::clone(outcome),
            };
            entries.push(ReadSourceEntry { path, node, open: Some(open) });
        }
        let files = entries.len() as u64;
        Ok(Self { entries, total_bytes, files })
    }
}

impl ReadSource for Sources {
    type Open = Opening;
    type Iter = std::vec::IntoIter<RusticResult<ReadSourceEntry<Opening>>>;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(Some(self.total_bytes))
    }

    fn entries(&self) -> Self::Iter {
        self.entries.iter().cloned().map(Ok).collect::<Vec<_>>().into_iter()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Opening {
    content: Content,
    size: u64,
    control: Arc<Control>,
    outcome: Arc<Outcome>,
}

impl ReadSourceOpen for Opening {
    type Reader = Reading;

    fn open(self) -> RusticResult<Reading> {
        self.outcome.begin();
        let (from, path): (Box<dyn Read + Send>, _) = match self.content {
            Content::Bytes(bytes) => (Box::new(io::Cursor::new(bytes)), PathBuf::new()),
            Content::File(path) => match File::open(&path) {
                Ok(file) => (Box::new(file), path),
                Err(source) => {
                    let shown =
                        RusticError::new(ErrorKind::InputOutput, format!("cannot open {}", path.display()));
                    self.outcome.fail(Error::File { doing: "back up", path, source });
                    return Err(shown);
                }
            },
        };
        Ok(Reading {
            from,
            path,
            left: self.size,
            ended: false,
            control: self.control,
            outcome: self.outcome,
        })
    }
}

/// A file that is read, and must be as long as it was.
pub(crate) struct Reading {
    from: Box<dyn Read + Send>,
    path: PathBuf,
    left: u64,
    ended: bool,
    control: Arc<Control>,
    outcome: Arc<Outcome>,
}

impl Reading {
    fn fail(&self, error: Error) -> io::Error {
        self.outcome.fail(error);
        io::Error::other("the file was not backed up")
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.control.check() {
            return Err(self.fail(error));
        }
        let read = match self.from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(source) => {
                return Err(self.fail(Error::File { doing: "back up", path: self.path.clone(), source }));
            }
            Ok(read) => read,
        };
        let ends = read == 0 && !buffer.is_empty();
        if read as u64 > self.left || (ends && self.left > 0) {
            return Err(self.fail(Error::Changed { path: self.path.clone() }));
        }
        self.left -= read as u64;
        if ends && !self.ended {
            self.ended = true;
            self.outcome.finish();
        }
        Ok(read)
    }
}
