//! Shortening a disk's chain while its guest runs.

use crate::blocks::{active_files, block_commit, block_job, end_block_job};
use crate::hypervisor::{Hypervisor, HypervisorError, LibvirtError, ours, refused};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use virt_sys as sys;

/// A commit: what `top` and the layers between hold goes into `base`, and `top` stands for them no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The disk, such as `vda`.
    pub target: String,
    /// The newest layer of those that go; the active file may be it.
    pub top: PathBuf,
    /// The layer that takes what they hold, and changes: nothing else may stand on it.
    pub base: PathBuf,
}

/// How a commit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitProgress {
    /// There is none on that disk: it never began, was aborted, or is done, which [`Hypervisor::active_files`] and the
    /// chain tell.
    None,
    /// It works.
    Working {
        /// Bytes looked through so far.
        done_bytes: u64,
        /// Bytes to look through; grows while the guest writes.
        total_bytes: u64,
    },
    /// All is copied and kept in step: [`Hypervisor::pivot`] ends it. Only of a commit of the active file.
    Ready,
}

impl Hypervisor {
    /// Begins a commit; it goes on by itself, also when libvirtd or this process dies.
    ///
    /// # Errors
    /// [`HypervisorError`]; for one, there is a job on the disk already.
    pub async fn commit(&self, uuid: Uuid, commit: &Commit) -> Result<(), HypervisorError> {
        let commit = commit.clone();
        self.call(move |connection| {
            let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
            let name = uuid.to_string();
            let xml = handle.get_xml_desc(0).map_err(|e| refused("look at", &name, e))?;
            let active = active_files(&xml).get(&commit.target) == Some(&commit.top);
            let flags = if active { sys::VIR_DOMAIN_BLOCK_COMMIT_ACTIVE } else { 0 };
            let target = text(commit.target.as_bytes(), &name)?;
            let files = [file(&commit.base, &name)?, file(&commit.top, &name)?];
            block_commit(&handle, &target, [&files[0], &files[1]], flags)
                .map_err(|source| job_refused("commit layers of", &name, source))
        })
        .await
    }

    /// How the commit on a disk is.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn commit_progress(&self, uuid: Uuid, target: &str) -> Result<CommitProgress, HypervisorError> {
        let target = target.to_owned();
        self.call(move |connection| {
            let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
            let name = uuid.to_string();
            let disk = text(target.as_bytes(), &name)?;
            let job = block_job(&handle, &disk)
                .map_err(|source| job_refused("look at the commit of", &name, source))?;
            let Some(job) = job else { return Ok(CommitProgress::None) };
            let xml = handle.get_xml_desc(0).map_err(|e| refused("look at", &name, e))?;
            Ok(match is_ready(&xml, &target) {
                true => CommitProgress::Ready,
                false => CommitProgress::Working { done_bytes: job.done, total_bytes: job.total },
            })
        })
        .await
    }

    /// Ends a commit of the active file that is [`CommitProgress::Ready`]: from now on the guest writes its base.
    ///
    /// # Errors
    /// [`HypervisorError`]; for one, it is not ready.
    pub async fn pivot(&self, uuid: Uuid, target: &str) -> Result<(), HypervisorError> {
        self.end_job(uuid, target, sys::VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT, "pivot").await
    }

    /// Ends the commit on a disk; the chain is what it was, though its base may hold some of what the guest sees anyway
    /// from above it.
    ///
    /// # Errors
    /// [`HypervisorError`]; for one, there is none.
    pub async fn abort_commit(&self, uuid: Uuid, target: &str) -> Result<(), HypervisorError> {
        self.end_job(uuid, target, 0, "abort the commit of").await
    }

    async fn end_job(
        &self,
        uuid: Uuid,
        target: &str,
        flags: sys::virDomainBlockJobAbortFlags,
        what: &'static str,
    ) -> Result<(), HypervisorError> {
        let target = target.to_owned();
        self.call(move |connection| {
            let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
            let name = uuid.to_string();
            let disk = text(target.as_bytes(), &name)?;
            end_block_job(&handle, &disk, flags).map_err(|source| job_refused(what, &name, source))
        })
        .await
    }
}

/// libvirt says of a mirror whether it is in step with its disk.
fn is_ready(xml: &str, target: &str) -> bool {
    let wanted = format!("<target dev='{target}'");
    let disks = xml.split("<disk ").skip(1).filter_map(|rest| rest.split_once("</disk>"));
    disks.filter(|(disk, _)| disk.contains(&wanted)).any(|(disk, _)| {
        let mirror = disk.split_once("<mirror ").and_then(|(_, rest)| rest.split_once('>'));
        mirror.is_some_and(|(mirror, _)| mirror.contains("ready='yes'"))
    })
}

fn job_refused(what: &'static str, name: &str, source: LibvirtError) -> HypervisorError {
    HypervisorError::Refused { what, name: name.to_owned(), source }
}

fn file(path: &Path, name: &str) -> Result<CString, HypervisorError> {
    text(path.as_os_str().as_bytes(), name)
}

fn text(bytes: &[u8], name: &str) -> Result<CString, HypervisorError> {
    CString::new(bytes).map_err(|_| {
        let message = "a name has a zero byte in it".to_owned();
        job_refused("name a disk of", name, LibvirtError { message, absent: false })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mirror_of_the_disk_itself_makes_it_ready() {
        let disk = |target: &str, mirror: &str| {
            format!(
                "<disk type='file'><source file='/a'/>{mirror}<target dev='{target}' bus='virtio'/></disk>"
            )
        };
        let ready = "<mirror type='file' job='active-commit' ready='yes'></mirror>";
        let xml = disk("vda", "<mirror type='file' job='active-commit'></mirror>") + &disk("vdb", ready);
        assert_eq!(["vda", "vdb", "vdc"].map(|target| is_ready(&xml, target)), [false, true, false]);
    }
}
