use super::{Storage, TEMPORARY};
use crate::{Credentials, Location};
use bytes::Bytes;
use opendal::blocking::Operator;
use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::options::{ListOptions, ReadOptions};
use opendal::services::{S3, Sftp};
use opendal::{Buffer, ErrorKind};
use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Tries of one operation after its first.
const RETRIES_MAX: usize = 4;
/// Longest that one operation may take before it is tried again: the largest file is a pack of 128 MiB.
const OPERATION_TIMEOUT: Duration = Duration::from_mins(5);
/// S3's region where a server has none of its own.
const REGION_DEFAULT: &str = "us-east-1";

/// Another machine's storage.
pub(crate) struct Remote {
    operator: Operator,
    /// A file that is being written is not seen by anybody under its name.
    writes_are_atomic: bool,
}

/// Serves the connections of all remote storages; blocking calls come from threads outside of it.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if RUNTIME.get().is_none() {
        let built = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("backup-remote")
            .enable_all()
            .build()?;
        // Another thread's is as good.
        let _ = RUNTIME.set(built);
    }
    RUNTIME.get().ok_or_else(|| io::Error::other("no runtime"))
}

impl Remote {
    pub(crate) fn new(location: &Location, credentials: &Credentials) -> io::Result<Self> {
        // Whoever set one before has set the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (operator, writes_are_atomic) = match location {
            Location::S3 { endpoint, bucket, prefix } => {
                let mut service = S3::default()
                    .endpoint(endpoint)
                    .bucket(bucket)
                    .root(prefix)
                    .region(REGION_DEFAULT)
                    .disable_config_load()
                    .disable_ec2_metadata();
                if let Some((id, key)) = &credentials.s3 {
                    service = service.access_key_id(id).secret_access_key(key.expose());
                }
                (opendal::Operator::new(service).map_err(as_io)?, true)
            }
            Location::Sftp { server, folder } => {
                let mut service = Sftp::default().endpoint(&format!("ssh://{server}")).root(folder);
                if let Some(key) = credentials.ssh_key.as_ref().and_then(|path| path.to_str()) {
                    service = service.key(key);
                }
                (opendal::Operator::new(service).map_err(as_io)?, false)
            }
            Location::Folder(path) => {
                return Err(io::Error::other(format!("{} is a folder of this machine", path.display())));
            }
        };
        let operator = operator
            .layer(TimeoutLayer::new().with_io_timeout(OPERATION_TIMEOUT))
            .layer(RetryLayer::new().with_max_times(RETRIES_MAX).with_jitter());
        let _entered = runtime()?.enter();
        Ok(Self { operator: Operator::new(operator).map_err(as_io)?, writes_are_atomic })
    }
}

impl Storage for Remote {
    fn read(&self, name: &str) -> io::Result<Bytes> {
        self.operator.read(name).map(|buffer| buffer.to_bytes()).map_err(as_io)
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        let length = range.end.saturating_sub(range.start);
        let options = ReadOptions { range: range.into(), ..ReadOptions::default() };
        let bytes = self.operator.read_options(name, options).map_err(as_io)?.to_bytes();
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write(&self, name: &str, parts: &[Bytes]) -> io::Result<()> {
        let buffer = Buffer::from_iter(parts.iter().cloned());
        if self.writes_are_atomic {
            return self.operator.write(name, buffer).map(|_| ()).map_err(as_io);
        }
        let partial = format!("{name}{TEMPORARY}");
        let written = self
            .operator
            .write(&partial, buffer)
            .and_then(|_| self.operator.rename(&partial, name))
            .map_err(as_io);
        if written.is_err() {
            let _ = self.operator.delete(&partial);
        }
        written
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let options = ListOptions { recursive: true, ..ListOptions::default() };
        let entries = match self.operator.list_options(&format!("{folder}/"), options) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(as_io)?,
        };
        Ok(entries
            .iter()
            .filter(|entry| entry.metadata().is_file())
            .map(|entry| (entry.path().to_owned(), entry.metadata().content_length()))
            .collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operator.delete(name).map_err(as_io)
    }
}

fn as_io(error: opendal::Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::RateLimited => io::ErrorKind::WouldBlock,
        // Servers say it in words: "InsufficientStorage" (507), "XMinioStorageFull", "No space left on device", "Failure" over SFTP.
        _ if ["InsufficientStorage", "StorageFull", "QuotaExceeded", "No space left"]
            .iter()
            .any(|word| error.to_string().contains(word)) =>
        {
            io::ErrorKind::StorageFull
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
