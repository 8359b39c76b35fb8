//! The views of a guest that runs here.

use crate::chain::{DiskId, format_name};
use crate::restore::disks_of;
use crate::work::Works;
use chassis::clock::unix_ms;
use controller_api::agent::{DesiredInstance, HostDesired};
use controller_api::life::{DiskName, LayerFormat};
use controller_hypervisor::{GuestMemory, Hypervisor};
use plugins_runtime::introspection::{Disk, Flow, GuestViews, Paging, Region, ViewError};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use uuid::Uuid;

/// Longest wait for the monitor or for netd.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// In CR4: page tables have five levels.
const FIVE_LEVELS: u64 = 1 << 12;
/// In EFER: the processor is in long mode.
const LONG_MODE: u64 = 1 << 10;

/// One guest, for one look.
pub(super) struct LiveGuest {
    memory: Arc<GuestMemory>,
    hypervisor: Hypervisor,
    netd: netd_client::Client,
    incarnation: Uuid,
    /// For what has to be asked: the look is on a thread that may block.
    asking: Handle,
    /// Asked for once a look.
    registers: OnceLock<Result<Vec<BTreeMap<String, u64>>, String>>,
    /// Names of its ports by netd's.
    ports: BTreeMap<String, String>,
    disks: Vec<LiveDisk>,
}

/// One disk and where its bytes are.
struct LiveDisk {
    disk: Disk,
    path: PathBuf,
    format: &'static str,
    /// Where QEMU's tool puts what was asked for.
    copy: PathBuf,
}

impl std::fmt::Debug for LiveGuest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveGuest").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

impl LiveGuest {
    pub(super) fn new(
        works: &Works,
        desired: &HostDesired,
        instance: &DesiredInstance,
        incarnation: Uuid,
        memory: Arc<GuestMemory>,
    ) -> Self {
        let all = desired.networks.iter().flat_map(|network| &network.ports);
        let ports = all.filter_map(|port| {
            let ours = instance.ports.iter().find(|own| own.tap == port.tap)?;
            Some((port.id.clone(), ours.name.to_string()))
        });
        let layout = works.store.layout();
        let disks = disks_of(instance).filter_map(|name| {
            let disk = DiskId::of(&name, &instance.id, incarnation);
            let chain = works.disks.chain(&disk)?;
            let path = layout.active(&disk, &chain);
            let (name, size) = match name {
                DiskName::System => ("system".to_owned(), instance.image_size_bytes.max(chain.disk_bytes)),
                DiskName::Volume(name) if chain.format == LayerFormat::Raw => {
                    (name.to_string(), std::fs::metadata(&path).ok()?.len())
                }
                DiskName::Volume(name) => (name.to_string(), chain.disk_bytes),
            };
            let disk = Disk { name, size };
            Some(LiveDisk { disk, path, format: format_name(chain.format), copy: layout.look(incarnation) })
        });
        Self {
            memory,
            hypervisor: works.hypervisor.clone(),
            netd: works.netd.clone(),
            incarnation,
            asking: Handle::current(),
            registers: OnceLock::new(),
            ports: ports.collect(),
            disks: disks.collect(),
        }
    }

    fn all_registers(&self) -> Result<&Vec<BTreeMap<String, u64>>, ViewError> {
        let asked = self.registers.get_or_init(|| self.ask(self.hypervisor.registers(self.incarnation)));
        asked.as_ref().map_err(|why| ViewError::Unavailable(why.clone()))
    }

    fn ask<T, E: std::error::Error + 'static>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        match self.asking.block_on(async { tokio::time::timeout(ASK_TIMEOUT, answer).await }) {
            Ok(answer) => answer.map_err(|error| chassis::telemetry::chain(&error).to_string()),
            Err(_) => Err(format!("there was no answer within {} s", ASK_TIMEOUT.as_secs())),
        }
    }
}

impl GuestViews for LiveGuest {
    fn regions(&self) -> Result<Vec<Region>, ViewError> {
        Ok(self.memory.ram().iter().map(|part| Region { start: part.start, len: part.len }).collect())
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), ViewError> {
        self.memory.read(address, into).map_err(|error| ViewError::Unavailable(error.to_string()))
    }

    fn paging(&self) -> Result<Paging, ViewError> {
        let registers = self.registers(0)?;
        let of = |name: &str| registers.get(name).copied().unwrap_or(0);
        if of("efer") & LONG_MODE == 0 {
            return Err(ViewError::Unavailable("the guest does not use 64-bit page tables".to_owned()));
        }
        Ok(if of("cr4") & FIVE_LEVELS == 0 { Paging::FourLevels } else { Paging::FiveLevels })
    }

    fn registers(&self, vcpu: u32) -> Result<BTreeMap<String, u64>, ViewError> {
        self.all_registers()?.get(vcpu as usize).cloned().ok_or(ViewError::OutOfRange)
    }

    fn flows(&self, limit: usize) -> Result<Vec<Flow>, ViewError> {
        let flows = self.ask(self.netd.flows()).map_err(ViewError::Unavailable)?;
        let now_ms = unix_ms();
        let mut ours: Vec<Flow> = flows
            .into_iter()
            .filter_map(|flow| {
                let last_seen_ms = now_ms.saturating_sub(u64::from(flow.idle_seconds) * 1_000);
                Some(Flow {
                    // The kernel does not keep when a conversation began.
                    first_seen_ms: 0,
                    last_seen_ms,
                    port: self.ports.get(&flow.port)?.clone(),
                    protocol: flow.protocol,
                    source: octets(flow.from),
                    destination: octets(flow.to),
                    source_port: flow.from_port,
                    destination_port: flow.to_port,
                    frames: flow.counter.frames,
                    bytes: flow.counter.bytes,
                })
            })
            .collect();
        ours.sort_by_key(|flow| std::cmp::Reverse(flow.last_seen_ms));
        ours.truncate(limit);
        Ok(ours)
    }

    fn disks(&self) -> Result<Vec<Disk>, ViewError> {
        Ok(self.disks.iter().map(|disk| disk.disk.clone()).collect())
    }

    fn read_disk(&self, disk: u32, offset: u64, into: &mut [u8]) -> Result<(), ViewError> {
        let disk = self.disks.get(disk as usize).ok_or(ViewError::OutOfRange)?;
        read_disk(disk, offset, into).map_err(ViewError::Unavailable)
    }
}

/// A raw file is read as it is; an overlay by QEMU's own tool, which shares the file with the guest that writes it and
/// asks the image for what the overlay lacks.
fn read_disk(disk: &LiveDisk, offset: u64, into: &mut [u8]) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    if disk.format == "raw" {
        let file = std::fs::File::open(&disk.path).map_err(told)?;
        return file.read_exact_at(into, offset).map_err(told);
    }
    const SECTOR: u64 = 512;
    let output = Command::new("qemu-img")
        .args(["dd", "-U", "-f", disk.format, "-O", "raw", "bs=512"])
        .arg(format!("skip={}", offset / SECTOR))
        // Where it ends, counted from the start of the disk.
        .arg(format!("count={}", offset / SECTOR + into.len() as u64 / SECTOR))
        .arg(format!("if={}", disk.path.display()))
        .arg(format!("of={}", disk.copy.display()))
        .stdin(Stdio::null())
        .output()
        .map_err(told)?;
    let copied = std::fs::File::open(&disk.copy).and_then(|file| file.read_exact_at(into, 0));
    // A copy that stays is overwritten by the next one.
    let _ = std::fs::remove_file(&disk.copy);
    if !output.status.success() {
        return Err(format!("qemu-img: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    copied.map_err(told)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
