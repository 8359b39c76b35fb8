//! Freezing what a guest's disks hold, and its memory, while it goes on.
//!
//! A snapshot makes the active file of each named disk immutable and puts a fresh qcow2 file over it. No byte of a disk
//! is copied. With memory, QEMU copies it while the guest runs and stops the guest for what it changed meanwhile; the
//! disks are frozen within that pause, so memory and disks are of one instant. libvirt keeps no record of it: chains are
//! ours, and its records would forbid migration.

use crate::blocks::active_files;
use crate::hypervisor::{Hypervisor, HypervisorError, ours, refused};
use crate::machine::{escape, path, push};
use crate::native::Connection;
use crate::stops::Stops;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};
use uuid::Uuid;
use virt::domain::Domain as Handle;
use virt::domain_snapshot::DomainSnapshot;
use virt_sys as sys;

/// How long QEMU's word that the guest runs again may take after libvirt's.
const RESUME_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two flushes of memory that is being saved.
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

/// What shall be frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// For people who read logs.
    pub name: String,
    /// The disks; those that are not named go on as they are.
    pub disks: Vec<NewFile>,
    /// Where the guest's memory goes; none: it is not saved. The file must not be there yet.
    pub memory: Option<PathBuf>,
}

/// A disk and the file that the guest writes from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// The disk, such as `vda`.
    pub target: String,
    /// Its new active file, a qcow2; it must not be there yet.
    pub active: PathBuf,
}

/// What was frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotTaken {
    /// The instant that it is of: with memory, when the processors stood still; else when it was done.
    pub at: SystemTime,
    /// How long the guest's processors stood, by QEMU's clock, in microseconds. Without memory they run on: zero.
    pub pause: Duration,
}

impl Snapshot {
    fn xml(&self, all: impl Iterator<Item = String>) -> String {
        let mut xml = format!("<domainsnapshot>\n  <name>{}</name>\n", escape(&self.name));
        match &self.memory {
            Some(file) => {
                push(&mut xml, format_args!("  <memory snapshot='external' file='{}'/>\n", path(file)))
            }
            None => xml.push_str("  <memory snapshot='no'/>\n"),
        }
        xml.push_str("  <disks>\n");
        for disk in &self.disks {
            push(
                &mut xml,
                format_args!(
                    "    <disk name='{}' snapshot='external' type='file'><driver type='qcow2'/><source file='{}'/></disk>\n",
                    escape(&disk.target),
                    path(&disk.active),
                ),
            );
        }
        // A disk that is not mentioned would get a file of a name of libvirt's own.
        for other in all.filter(|target| self.disks.iter().all(|disk| disk.target != *target)) {
            push(&mut xml, format_args!("    <disk name='{}' snapshot='no'/>\n", escape(&other)));
        }
        xml.push_str("  </disks>\n</domainsnapshot>\n");
        xml
    }

    fn flags(&self) -> u32 {
        let how = match self.memory {
            Some(_) => sys::VIR_DOMAIN_SNAPSHOT_CREATE_LIVE,
            None => sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY,
        };
        // The files are there already; all disks or none.
        how | sys::VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    }

    /// Runs it; blocks.
    fn take(
        &self,
        connection: &Arc<Connection>,
        handle: &Handle,
        uuid: Uuid,
    ) -> Result<SnapshotTaken, HypervisorError> {
        let name = uuid.to_string();
        let xml = handle.get_xml_desc(0).map_err(|e| refused("look at", &name, e))?;
        let (state, _) = handle.get_state().map_err(|e| refused("look at", &name, e))?;
        let active = active_files(&xml);
        let mut made = self.make_files(handle)?;
        let stops = Stops::watch(connection, handle).map_err(|source| HypervisorError::Refused {
            what: "watch the processors of",
            name: name.clone(),
            source,
        })?;
        // QEMU flushes disks while the guest stands still: what is on disk by then is no part of the pause.
        for file in self.disks.iter().filter_map(|disk| active.get(&disk.target)) {
            let _ = File::open(file).and_then(|file| file.sync_data());
        }
        let request = self.xml(active.into_keys());
        let taken =
            flushing(self.memory.as_deref(), || DomainSnapshot::create_xml(handle, &request, self.flags()));
        let done = SystemTime::now();
        if let Err(error) = taken {
            // What has one of the files now, or may have, keeps all of them.
            let now = handle.get_xml_desc(0).map(|xml| active_files(&xml));
            let used = now.map_or(true, |now| now.values().any(|file| made.0.contains(file)));
            made.1 = used;
            return Err(refused("take a snapshot of", &name, error));
        }
        made.1 = true;
        let stands = self.memory.is_some() && state == sys::VIR_DOMAIN_RUNNING;
        let stood = stops.stood(stands.then_some(RESUME_TIMEOUT));
        let at = stood.first.map_or(done, |first| SystemTime::UNIX_EPOCH + first);
        Ok(SnapshotTaken { at: if self.memory.is_some() { at } else { done }, pause: stood.length })
    }

    /// Makes the files that shall become active: libvirt would make them while the guest stands still.
    fn make_files(&self, handle: &Handle) -> Result<Made, HypervisorError> {
        let mut made = Made(Vec::new(), false);
        if let Some(path) = &self.memory {
            made.make(path)?;
        }
        for disk in &self.disks {
            let info = handle
                .get_block_info(&disk.target, 0)
                .map_err(|e| refused("look at a disk of", &disk.target, e))?;
            made.make(&disk.active)?;
            make_qcow2(&disk.active, info.capacity)
                .map_err(|source| HypervisorError::File { path: disk.active.clone(), source })?;
        }
        Ok(made)
    }
}

/// Runs `f` while a file that it writes is brought to disk again and again: libvirt does that once, at its end, with the
/// guest standing still.
fn flushing<T>(file: Option<&Path>, f: impl FnOnce() -> T) -> T {
    let Some(file) = file.and_then(|path| File::open(path).ok()) else { return f() };
    std::thread::scope(|scope| {
        let (ended, end) = channel::<()>();
        scope.spawn(move || {
            while end.recv_timeout(FLUSH_PAUSE) == Err(RecvTimeoutError::Timeout) {
                // libvirt's own flush is the one that counts.
                let _ = file.sync_data();
            }
        });
        let result = f();
        drop(ended);
        result
    })
}

/// Files that were made, and go when this does unless they are used.
struct Made(Vec<PathBuf>, bool);

impl Made {
    /// One that is there already is somebody's.
    fn make(&mut self, path: &Path) -> Result<(), HypervisorError> {
        let made = File::options().write(true).create_new(true).mode(0o600).open(path);
        made.map_err(|source| HypervisorError::File { path: path.to_owned(), source })?;
        self.0.push(path.to_owned());
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.1 {
            for path in &self.0 {
                // It may be gone by libvirt's doing.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// An empty one that names nothing beneath it: chains are told by the domain's document.
fn make_qcow2(path: &Path, bytes: u64) -> io::Result<()> {
    let output = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(path)
        .arg(bytes.to_string())
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("qemu-img: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

impl Hypervisor {
    /// Freezes a running domain's disks, and its memory if told to. All of it happens, or nothing does and no file of it
    /// stays, unless libvirtd dies meanwhile: [`Hypervisor::active_files`] then tells which.
    ///
    /// # Errors
    /// [`HypervisorError`]; the guest runs on.
    pub async fn snapshot(&self, uuid: Uuid, snapshot: &Snapshot) -> Result<SnapshotTaken, HypervisorError> {
        let snapshot = snapshot.clone();
        self.call_copying(move |connection| {
            let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
            snapshot.take(connection, &handle, uuid)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_disk_is_mentioned_and_only_the_named_ones_are_frozen() {
        let snapshot = Snapshot {
            name: "a<b".to_owned(),
            disks: vec![NewFile { target: "vda".to_owned(), active: "/n&1".into() }],
            memory: None,
        };
        let all = ["vda", "vdb"].map(str::to_owned);
        assert_eq!(
            snapshot.xml(all.clone().into_iter()),
            "<domainsnapshot>\n  <name>a&lt;b</name>\n  <memory snapshot='no'/>\n  <disks>\n    \
             <disk name='vda' snapshot='external' type='file'><driver type='qcow2'/><source file='/n&amp;1'/></disk>\n    \
             <disk name='vdb' snapshot='no'/>\n  </disks>\n</domainsnapshot>\n"
        );
        let live = Snapshot { memory: Some("/m".into()), ..snapshot };
        assert!(live.xml(all.into_iter()).contains("<memory snapshot='external' file='/m'/>"));
    }
}
