//! A guest that goes on from saved memory.

use crate::hypervisor::{Hypervisor, HypervisorError, refuse_foreign, refused};
use crate::machine::Machine;
use crate::saved::{SavedError, rehome};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use virt::domain::Domain as Handle;
use virt_sys as sys;

impl Hypervisor {
    /// Defines the machine and lets it go on from `memory`, a file of [`Snapshot::memory`](crate::Snapshot::memory), as
    /// it was at that instant: its disks must be what they were then, its hardware what it was. Its name, UUID, paths
    /// and taps may be others. The file stays as it is; it can be started from any number of times. A machine that runs
    /// is left alone.
    ///
    /// A copy of the memory is made beside the system disk's active file, and is gone when this returns.
    ///
    /// # Errors
    /// [`HypervisorError::Saved`] if the file is not what it should be; libvirt's words if the hardware differs.
    pub async fn start_from(&self, machine: &Machine, memory: &Path) -> Result<(), HypervisorError> {
        let (machine, memory) = (machine.clone(), memory.to_owned());
        self.call_copying(move |connection| {
            let (name, uuid) = (machine.name(), machine.mark.incarnation);
            refuse_foreign(connection, &name, uuid)?;
            if let Ok(handle) = Handle::lookup_by_uuid(&connection.connect, uuid)
                && handle.is_active().map_err(|e| refused("look at", &name, e))?
            {
                return Ok(());
            }
            let copy = Copy::make(&machine, &memory)
                .map_err(|source| HypervisorError::Saved { file: memory.clone(), source })?;
            let xml = machine.xml_on(&copy.machine_type);
            // Persistent first: libvirt would forget a guest that was only restored, once it stops.
            Handle::define_xml(&connection.connect, &xml).map_err(|e| refused("define", &name, e))?;
            let path = copy.path.to_string_lossy();
            let flags = sys::VIR_DOMAIN_SAVE_RUNNING;
            Handle::domain_restore_flags(&connection.connect, &path, Some(&xml), flags)
                .map_err(|e| refused("restore", &name, e))
        })
        .await
    }
}

/// The memory as the machine's own; its file is gone when this is.
struct Copy {
    path: PathBuf,
    machine_type: String,
}

impl Copy {
    fn make(machine: &Machine, memory: &Path) -> Result<Self, SavedError> {
        let mut saved = File::open(memory)?;
        let mut path = machine.system.active.path.clone().into_os_string();
        path.push(".memory");
        let mut copy = Self { path: path.into(), machine_type: String::new() };
        // One of an earlier attempt may have stayed.
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&copy.path)?;
        copy.machine_type = rehome(&mut saved, &mut file, &machine.name(), machine.mark.incarnation)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What cannot be removed is overwritten by the next attempt.
        let _ = std::fs::remove_file(&self.path);
    }
}
