//! What this machine is, and how much of it is free.

use crate::config::Config;
use crate::store::{read_json, write_json};
use controller_api::agent::HostFacts;
use controller_hypervisor::{Accelerator, Cache, Hypervisor, Kind, probe_accelerator, qemu_version};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What does not change while this process runs.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) accelerator: Accelerator,
    pub(crate) cache: Cache,
    qemu_version: String,
    kernel: String,
    processors: u32,
    memory_bytes: u64,
}

/// The probe's answer, good until the next boot or another QEMU.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Probed {
    boot_id: String,
    qemu_version: String,
    kvm: bool,
    reason: Option<String>,
}

impl Machine {
    /// Finds out; blocking, and up to 10 s long the first time after a boot.
    pub(crate) fn find_out(config: &Config, cache_file: &Path) -> Self {
        let qemu_version = qemu_version().unwrap_or_default();
        let kernel = nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        Self {
            accelerator: accelerator(&qemu_version, cache_file),
            cache: cache_mode(&config.state_dir),
            kernel,
            processors: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
            memory_bytes: memory_total()
                .saturating_sub(config.memory_reserved.0)
                .min(config.memory_max.map_or(u64::MAX, |most| most.0)),
            qemu_version,
        }
    }

    /// Bytes guests may use.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// One-minute load divided by processors.
    #[expect(clippy::cast_precision_loss, reason = "processors are few")]
    pub(crate) fn load(&self) -> f32 {
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: f32 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
        load / self.processors as f32
    }

    /// For the controller.
    pub(crate) async fn facts(&self, config: &Config, hypervisor: &Hypervisor) -> HostFacts {
        HostFacts {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            libvirt_version: hypervisor.version().await.unwrap_or_default(),
            qemu_version: self.qemu_version.clone(),
            kernel: self.kernel.clone(),
            accelerator: self.accelerator.kind.as_str().to_owned(),
            accelerator_reason: self.accelerator.reason.clone(),
            cpu_total_milli: self.processors * 1_000,
            memory_total_bytes: self.memory_bytes,
            disk_total_bytes: disk(&config.state_dir).0,
            underlay_address: Some(config.underlay_address),
            underlay_mtu: mtu_of(config.underlay_address),
            move_address: None,
        }
    }
}

/// MTU of the link with an address; none if there is none or it cannot be read.
fn mtu_of(address: std::net::IpAddr) -> Option<u16> {
    let has = |link: &nix::ifaddrs::InterfaceAddress| {
        let held = link.address.as_ref();
        let v4 = held.and_then(|held| held.as_sockaddr_in()).map(|held| held.ip().into());
        v4.or_else(|| held.and_then(|held| held.as_sockaddr_in6()).map(|held| held.ip().into()))
            == Some(address)
    };
    let name = nix::ifaddrs::getifaddrs().ok()?.find(has)?.interface_name;
    // Unlike /sys, which shows the links of whoever mounted it, this shows those of this process's network namespace.
    let text = fs::read_to_string(Path::new("/proc/sys/net/ipv6/conf").join(name).join("mtu")).ok()?;
    // Loopback's is one more than fits.
    Some(u16::try_from(text.trim().parse::<u32>().ok()?).unwrap_or(u16::MAX))
}

/// Bytes in all and free for us on a path's file system.
pub(crate) fn disk(path: &Path) -> (u64, u64) {
    statvfs(path).map_or((0, 0), |stat| {
        let unit = stat.fragment_size();
        (stat.blocks() * unit, stat.blocks_available() * unit)
    })
}

fn accelerator(qemu_version: &str, cache_file: &Path) -> Accelerator {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    // A cache that cannot be read is probed anew.
    if let Ok(Some(held)) = read_json::<Probed>(cache_file)
        && !boot_id.is_empty()
        && (held.boot_id.as_str(), held.qemu_version.as_str()) == (boot_id.as_str(), qemu_version)
    {
        let kind = if held.kvm { Kind::Kvm } else { Kind::Tcg };
        return Accelerator { kind, reason: held.reason };
    }
    let found = probe_accelerator();
    let probed = Probed {
        boot_id,
        qemu_version: qemu_version.to_owned(),
        kvm: found.kind == Kind::Kvm,
        reason: found.reason.clone(),
    };
    if let Err(error) = write_json(cache_file, &probed) {
        tracing::warn!(error = %chassis::telemetry::chain(&error), "the accelerator's probe is not kept");
    }
    found
}

/// Past the page cache where the file system can.
fn cache_mode(folder: &Path) -> Cache {
    let path = folder.join(".direct-io");
    let direct = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
        .open(&path);
    let _ = fs::remove_file(&path);
    if direct.is_ok() { Cache::Direct } else { Cache::Writeback }
}

fn memory_total() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
