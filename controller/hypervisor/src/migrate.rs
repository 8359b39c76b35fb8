//! Moving a running domain to another libvirtd, with those of its disks that are this host's alone.
//!
//! The client manages it: this process holds a connection to either libvirtd, and QEMU's own two streams, memory and
//! disks, go through unix sockets of the same path on both hosts. Nothing listens on a network here.
//!
//! libvirt's promise, on which everything above stands: while the call is under way, and after it failed, the domain runs
//! at its source, or it is paused there and nothing else has it; once it has succeeded, it runs at its target. What is
//! in between, because a process was killed at the wrong time, is [`Standing::Between`]: somebody who knows both ends
//! has to say who has it.

use crate::hypervisor::{Hypervisor, HypervisorError, LibvirtError, ours, refused};
use crate::native::Connection;
use std::ffi::{CStr, CString, c_int};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use tokio::sync::oneshot;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain as Handle;
use virt_sys as sys;

/// Seconds between probes of the target's libvirtd, and how many may go unanswered.
const KEEPALIVE: (i32, u32) = (5, 5);
/// The machine type that our documents name; libvirt puts QEMU's newest of that kind in its place.
const MACHINE_TYPE: &str = "machine='q35'";

/// Where a domain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// URI of the target's libvirtd.
    pub to: String,
    /// [`crate::Machine::xml`] of the same machine at the target: its own paths, sockets and taps.
    pub document: String,
    /// Unix socket for memory: QEMU listens there at the target, and dials it at the source.
    pub memory: PathBuf,
    /// Unix socket for disks, likewise.
    pub disks: PathBuf,
    /// Targets of the disks whose active files travel, such as `vda`: these files are at the target already, as large, over
    /// the same bytes and empty.
    pub copied: Vec<String>,
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MigrationProgress {
    /// Bytes of memory and disks that were sent.
    pub sent_bytes: u64,
    /// Bytes that there are to send, as known so far.
    pub total_bytes: u64,
    /// How long the processors stood, in milliseconds; 0 before the end.
    pub downtime_ms: u64,
}

/// Whether a host has a domain that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is there, defined, and runs, or is paused for a reason that has nothing to do with a migration.
    Here,
    /// It is on its way in, or stands still at the end of its way out.
    Between,
    /// It is defined and does not run.
    Stopped,
}

impl Hypervisor {
    /// Moves a running domain; it is undefined here then and persistent there. Dropping the future does not stop it.
    ///
    /// # Errors
    /// It was not moved, or, if the connection to either libvirtd broke, that is not known: ask both for
    /// [`Hypervisor::standing`].
    pub async fn migrate(
        &self,
        uuid: Uuid,
        migration: Migration,
    ) -> Result<MigrationProgress, HypervisorError> {
        let connection = self.call(|connection| Ok(Arc::clone(connection))).await?;
        let (sender, receiver) = oneshot::channel();
        // It may take hours: no thread of the pools waits for it.
        std::thread::Builder::new()
            .name("migration".to_owned())
            .spawn(move || {
                // Nobody waits any more: whoever comes next asks for the standing.
                let _ = sender.send(migrate(&connection, uuid, &migration));
            })
            .map_err(|error| HypervisorError::Threads(error.to_string()))?;
        receiver.await.unwrap_or_else(|_| Err(HypervisorError::Threads("a migration panicked".to_owned())))
    }

    /// How far a domain's migration is; none if there is no migration under way.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn migration_progress(&self, uuid: Uuid) -> Result<Option<MigrationProgress>, HypervisorError> {
        self.call(move |connection| {
            let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
            job(&handle, 0).map_err(|source| HypervisorError::Refused {
                what: "ask about the migration of",
                name: uuid.to_string(),
                source,
            })
        })
        .await
    }

    /// Ends a domain's migration: it runs on here. One that is not migrating is fine.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn abort_migration(&self, uuid: Uuid) -> Result<(), HypervisorError> {
        self.call(move |connection| {
            let Some(handle) = ours(connection, uuid)? else { return Ok(()) };
            // SAFETY: the handle is live.
            if unsafe { sys::virDomainAbortJob(handle.as_ptr()) } < 0
                && matches!(job(&handle, 0), Ok(Some(_)))
            {
                let error = virt::error::Error::last_error();
                return Err(refused("abort the migration of", &uuid.to_string(), error));
            }
            Ok(())
        })
        .await
    }

    /// Whether this host has a domain; none if there is no such domain.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn standing(&self, uuid: Uuid) -> Result<Option<Standing>, HypervisorError> {
        self.call(move |connection| {
            let Some(handle) = ours(connection, uuid)? else { return Ok(None) };
            let (state, reason) =
                handle.get_state().map_err(|error| refused("look at", &uuid.to_string(), error))?;
            Ok(Some(standing(state, u32::try_from(reason).unwrap_or_default())))
        })
        .await
    }
}

fn standing(state: sys::virDomainState, reason: u32) -> Standing {
    let between = [
        sys::VIR_DOMAIN_PAUSED_MIGRATION,
        sys::VIR_DOMAIN_PAUSED_STARTING_UP,
        sys::VIR_DOMAIN_PAUSED_POSTCOPY,
        sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
    ];
    match state {
        sys::VIR_DOMAIN_PAUSED if between.contains(&reason) => Standing::Between,
        sys::VIR_DOMAIN_SHUTOFF | sys::VIR_DOMAIN_CRASHED => Standing::Stopped,
        _ => Standing::Here,
    }
}

fn migrate(
    connection: &Arc<Connection>,
    uuid: Uuid,
    migration: &Migration,
) -> Result<MigrationProgress, HypervisorError> {
    let name = uuid.to_string();
    let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
    let (state, _) = handle.get_state().map_err(|error| refused("look at", &name, error))?;
    if state != sys::VIR_DOMAIN_RUNNING {
        let message = "it does not run: only a running guest moves live".to_owned();
        let source = LibvirtError { message, absent: false };
        return Err(HypervisorError::Refused { what: "move", name, source });
    }
    let lives = handle.get_xml_desc(0).map_err(|error| refused("look at", &name, error))?;
    let document = as_it_lives(&migration.document, &lives);
    let target = Connect::open(Some(&migration.to))
        .map_err(|error| HypervisorError::Down { uri: migration.to.clone(), source: error.into() })?;
    target
        .set_keep_alive(KEEPALIVE.0, KEEPALIVE.1)
        .map_err(|error| refused("watch the target of", &name, error))?;
    let mut params = Params::default();
    params.add(sys::VIR_MIGRATE_PARAM_DEST_XML, &document)?;
    params.add(sys::VIR_MIGRATE_PARAM_PERSIST_XML, &document)?;
    params.add(sys::VIR_MIGRATE_PARAM_URI, &unix_uri(&migration.memory))?;
    params.add(sys::VIR_MIGRATE_PARAM_DISKS_URI, &unix_uri(&migration.disks))?;
    for disk in &migration.copied {
        params.add(sys::VIR_MIGRATE_PARAM_MIGRATE_DISKS, disk)?;
    }
    let flags = sys::VIR_MIGRATE_LIVE
        | sys::VIR_MIGRATE_PERSIST_DEST
        | sys::VIR_MIGRATE_UNDEFINE_SOURCE
        | sys::VIR_MIGRATE_ABORT_ON_ERROR
        | sys::VIR_MIGRATE_AUTO_CONVERGE
        | if migration.copied.is_empty() { 0 } else { sys::VIR_MIGRATE_NON_SHARED_INC };
    // SAFETY: both connections and the parameters live until it returns.
    let moved = unsafe {
        sys::virDomainMigrate3(
            handle.as_ptr(),
            target.as_ptr(),
            params.first,
            u32::try_from(params.count).unwrap_or_default(),
            flags,
        )
    };
    if moved.is_null() {
        return Err(refused("move", &name, virt::error::Error::last_error()));
    }
    // SAFETY: libvirt gave this reference away.
    let moved = unsafe { Handle::from_ptr(moved) };
    // What it took is for people: it has moved whether this is known or not.
    Ok(job(&moved, sys::VIR_DOMAIN_JOB_STATS_COMPLETED).ok().flatten().unwrap_or_default())
}

/// The document with the machine type that the guest has been running on: the target's newest may be another one.
fn as_it_lives(document: &str, lives: &str) -> String {
    let found =
        lives.split_once(" machine='").and_then(|(_, rest)| rest.split_once('\'')).map(|(own, _)| own);
    match found {
        Some(own) => document.replacen(MACHINE_TYPE, &format!("machine='{own}'"), 1),
        None => document.to_owned(),
    }
}

fn unix_uri(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// What libvirt says of a domain's job; none if there is no such job.
fn job(handle: &Handle, flags: u32) -> Result<Option<MigrationProgress>, LibvirtError> {
    let mut kind: c_int = 0;
    let mut params = Params::default();
    // SAFETY: the handle is live; libvirt allocates the parameters, which are freed with `params`.
    let done = unsafe {
        sys::virDomainGetJobStats(handle.as_ptr(), &mut kind, &mut params.first, &mut params.count, flags)
    };
    if done < 0 {
        return Err(virt::error::Error::last_error().into());
    }
    if u32::try_from(kind) == Ok(sys::VIR_DOMAIN_JOB_NONE) {
        return Ok(None);
    }
    Ok(Some(MigrationProgress {
        sent_bytes: params.number(sys::VIR_DOMAIN_JOB_DATA_PROCESSED),
        total_bytes: params.number(sys::VIR_DOMAIN_JOB_DATA_TOTAL),
        downtime_ms: params.number(sys::VIR_DOMAIN_JOB_DOWNTIME),
    }))
}

/// libvirt's typed parameters.
#[derive(Debug)]
struct Params {
    first: sys::virTypedParameterPtr,
    count: c_int,
    room: c_int,
}

impl Default for Params {
    fn default() -> Self {
        Self { first: ptr::null_mut(), count: 0, room: 0 }
    }
}

impl Params {
    fn add(&mut self, name: &CStr, value: &str) -> Result<(), HypervisorError> {
        let value = CString::new(value)
            .map_err(|_| HypervisorError::Threads("a text with a zero byte".to_owned()))?;
        // SAFETY: the three fields belong together; libvirt copies name and value.
        let done = unsafe {
            sys::virTypedParamsAddString(
                &mut self.first,
                &mut self.count,
                &mut self.room,
                name.as_ptr(),
                value.as_ptr(),
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(refused("name what moves of", "a domain", virt::error::Error::last_error())),
        }
    }

    /// 0 if it is not there.
    fn number(&self, name: &CStr) -> u64 {
        let mut value = 0;
        // SAFETY: as above; a number that is not there, or of another kind, leaves the value alone.
        unsafe { sys::virTypedParamsGetULLong(self.first, self.count, name.as_ptr(), &mut value) };
        value
    }
}

impl Drop for Params {
    fn drop(&mut self) {
        // SAFETY: libvirt allocated them, and nobody else frees them.
        unsafe { sys::virTypedParamsFree(self.first, self.count) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_keeps_the_machine_type_it_runs_on() {
        let ours = "<os><type arch='x86_64' machine='q35'>hvm</type></os>";
        let lives = "<domain><os><type arch='x86_64' machine='pc-q35-9.2'>hvm</type></os></domain>";
        assert_eq!(as_it_lives(ours, lives), "<os><type arch='x86_64' machine='pc-q35-9.2'>hvm</type></os>");
        assert_eq!(as_it_lives(ours, "<domain/>"), ours);
    }

    #[test]
    fn only_a_pause_of_a_migration_is_between() {
        assert_eq!(standing(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_MIGRATION), Standing::Between);
        assert_eq!(standing(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_STARTING_UP), Standing::Between);
        assert_eq!(standing(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_IOERROR), Standing::Here);
        assert_eq!(standing(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_USER), Standing::Here);
        assert_eq!(standing(sys::VIR_DOMAIN_RUNNING, 0), Standing::Here);
        assert_eq!(standing(sys::VIR_DOMAIN_SHUTOFF, 0), Standing::Stopped);
    }
}
