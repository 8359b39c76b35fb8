//! A storage as the format's library wants it, under the caller's control.
//!
//! The library warns of a file that it cannot read and leaves it out; a backup that lacks a file is none. Whatever fails
//! is therefore kept here, and after a first failure nothing is written any more, above all no snapshot.

use crate::storage::{Storage, TEMPORARY};
use crate::{Control, Error};
use bytes::Bytes;
use rustic_core::{BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend};
use std::sync::{Arc, Mutex, PoisonError};

/// What went wrong first, if anything did; and how many files are open still.
#[derive(Debug, Default)]
pub(crate) struct Outcome(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failure: Option<Error>,
    unfinished: usize,
}

impl Outcome {
    /// Keeps the first.
    pub(crate) fn fail(&self, error: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failure.get_or_insert(error);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failure.is_some()
    }

    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failure.take()
    }

    /// A file was begun.
    pub(crate) fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unfinished += 1;
    }

    /// A file was read to its end, and was as long as it should.
    pub(crate) fn finish(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unfinished -= 1;
    }

    fn is_whole(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failure.is_none() && state.unfinished == 0
    }
}

/// A storage under control.
pub(crate) struct Backend {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) location: String,
    pub(crate) control: Arc<Control>,
    pub(crate) outcome: Arc<Outcome>,
}

impl Backend {
    fn name(kind: FileType, id: &Id) -> String {
        let hex = id.to_hex();
        match kind {
            FileType::Config => "config".to_owned(),
            FileType::Pack => format!("data/{}/{}", &hex.as_str()[..2], hex.as_str()),
            _ => format!("{}/{}", kind.dirname(), hex.as_str()),
        }
    }

    /// The library's face of what went wrong. Ours is kept, and is the one that the caller gets.
    fn refuse(&self, error: Error) -> Box<RusticError> {
        let shown = RusticError::new(ErrorKind::Backend, chain(&error));
        self.outcome.fail(error);
        shown
    }

    /// A read that fails is told only: the library may know a way on, such as another key.
    fn told(&self, doing: String, source: std::io::Error) -> Box<RusticError> {
        RusticError::new(ErrorKind::Backend, chain(&Error::storage(doing, &self.location, source)))
    }
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl ReadBackend for Backend {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if let Err(error) = self.control.check() {
            return Err(self.refuse(error));
        }
        if kind == FileType::Config {
            return match self.storage.read("config") {
                Ok(bytes) => Ok(vec![(Id::default(), u32::try_from(bytes.len()).unwrap_or(u32::MAX))]),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(self.told("look for a configuration".into(), error)),
            };
        }
        let files = self
            .storage
            .list(kind.dirname())
            .map_err(|error| self.told(format!("list {}", kind.dirname()), error))?;
        Ok(files
            .iter()
            .filter_map(|(name, bytes)| {
                // Files half written, and others' files, have names that are no ids.
                let last =
                    name.rsplit('/').next().filter(|last| last.len() == 64 && !last.ends_with(TEMPORARY))?;
                Some((last.parse().ok()?, u32::try_from(*bytes).ok()?))
            })
            .collect())
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        let name = Self::name(kind, id);
        self.control.check().map_err(|error| self.refuse(error))?;
        let bytes = self.storage.read(&name).map_err(|error| self.told(format!("read {name}"), error))?;
        self.control.receive(bytes.len() as u64).map_err(|error| self.refuse(error))?;
        Ok(bytes)
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        let name = Self::name(kind, id);
        self.control.receive(u64::from(length)).map_err(|error| self.refuse(error))?;
        let offset = u64::from(offset);
        self.storage
            .read_range(&name, offset..offset + u64::from(length))
            .map_err(|error| self.told(format!("read {name}"), error))
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        Self::name(kind, id)
    }
}

impl WriteBackend for Backend {
    fn write_bytes(&self, kind: FileType, id: &Id, _cacheable: bool, content: BytesList) -> RusticResult<()> {
        if self.outcome.has_failed() || (kind == FileType::Snapshot && !self.outcome.is_whole()) {
            return Err(RusticError::new(
                ErrorKind::Backend,
                "an earlier step failed, so nothing more is written",
            ));
        }
        let name = Self::name(kind, id);
        self.control.send(content.size() as u64).map_err(|error| self.refuse(error))?;
        self.storage
            .write(&name, content.slice())
            .map_err(|error| self.refuse(Error::storage(format!("write {name}"), &self.location, error)))
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        let name = Self::name(kind, id);
        self.control.check().map_err(|error| self.refuse(error))?;
        self.storage
            .remove(&name)
            .map_err(|error| self.refuse(Error::storage(format!("remove {name}"), &self.location, error)))
    }
}
