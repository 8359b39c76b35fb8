#![expect(
    unsafe_code,
    reason = "libvirt's events, streams, statistics and jobs on disks are missing in the crate `virt`: native.rs, \
              stops.rs, blocks.rs"
)]
//! libvirt: the one place that says *domain*. Everywhere else the word is *instance*.
//!
//! What this is: a connection that heals itself ([`Hypervisor`]), typed virtual hardware rendered to libvirt's document
//! ([`Machine`], [`Chain`]), snapshots of disks and memory and guests that go on from them ([`Snapshot`],
//! [`Hypervisor::start_from`]), serial consoles as byte streams ([`Console`]), a guest's memory and registers
//! ([`GuestMemory`]), and the probe that says whether KVM works here ([`probe_accelerator`]). What it is not: it makes no disk, no tap and no decision. Start reading at `hypervisor.rs`.
//!
//! Invariants:
//! - Only a domain whose `<metadata>` carries our mark is listed or touched; every operation checks it again.
//! - Domains are persistent and QEMU is daemonized by libvirt: a guest survives the end of this process and of libvirtd.
//! - libvirt's event loop has its own thread, registered before the first connection is opened; calls that block run on
//!   a pool of their own, never on the async runtime's threads.
//! - What a disk stands on is said in full by us: libvirt never guesses it from bytes that a guest wrote.
//! - A guest whose disk does not answer is stopped by QEMU, never told of an I/O error.
//!
//! Refused: `virsh` as the interface (text to parse, a process a call) and talking to QEMU directly (libvirt already
//! knows how to confine, log, adopt and migrate it).

mod accelerator;
mod block_jobs;
mod blocks;
mod console;
mod disk;
mod guest_memory;
mod hypervisor;
mod lane;
mod machine;
mod migrate;
mod monitor;
mod native;
mod pool;
mod restore;
mod saved;
mod snapshot;
mod stops;

pub use accelerator::{
    Accelerator, Kind, QEMU, boot_probe_guest, probe_accelerator, probe_disk, qemu_version,
};
pub use block_jobs::{Commit, CommitProgress};
pub use console::{Console, ConsoleReader, ConsoleWriter};
pub use disk::{Cache, Chain, DiskFile, Export, Format, Under};
pub use guest_memory::{GuestMemory, MemoryError};
pub use hypervisor::{Change, Domain, DomainState, Event, Hypervisor, HypervisorError, LibvirtError, Stop};
pub use machine::{HEALTH_PORT, MARK_URI, Machine, Mark, Nic, VOLUME_NAME_LEN_MAX, VolumeDisk};
pub use migrate::{Migration, MigrationProgress, Standing};
pub use monitor::Ram;
pub use saved::{SavedError, rehome};
pub use snapshot::{NewFile, Snapshot, SnapshotTaken};
