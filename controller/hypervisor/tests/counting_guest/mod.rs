//! A guest that counts, on its disks and in its memory, and says when the two differ. What it is: counting_guest.c.

use controller_hypervisor::{
    Cache, Chain, DiskFile, Export, Format, Hypervisor, Kind, Machine, Mark, Nic, Under, VolumeDisk,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use types::VolumeName;
use uuid::Uuid;

use crate::private_libvirtd::Host;

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of each of its disks.
const DISK_BYTES: u64 = 1 << 20;
/// Where its disks hold its count.
#[allow(dead_code, reason = "not every test binary needs it")]
const COUNT_AT: usize = 64 * 512;

/// A libvirtd whose image is the counting guest.
pub(crate) async fn host() -> (Host, Hypervisor) {
    let host = Host::start();
    let mut disk = vec![0; DISK_BYTES as usize];
    disk[..COUNTING_GUEST.len()].copy_from_slice(COUNTING_GUEST);
    // The server opens it for each client.
    std::fs::write(host.at("base.img"), disk).unwrap();
    std::fs::File::create(host.at("config.img")).unwrap().set_len(DISK_BYTES).unwrap();
    let hypervisor = Hypervisor::connect(&host.uri()).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = hypervisor.list().await {
        assert!(Instant::now() < deadline, "{error:?} {:?}", std::fs::read_to_string(host.at("log/out")));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (host, hypervisor)
}

/// A machine of that member's name, its files named after it, over what is given newest first.
pub(crate) fn machine(host: &Host, member: &str, system: Vec<Under>, volume: Vec<Under>) -> Machine {
    let chain = |name: &str, under: Vec<Under>| {
        let path = host.at(&format!("{member}.{name}"));
        match under.is_empty() {
            true => {
                std::fs::File::create(&path).unwrap().set_len(DISK_BYTES).unwrap();
                Chain::raw(path)
            }
            false => {
                overlay(&path);
                Chain { active: DiskFile { path, format: Format::Qcow2 }, under }
            }
        }
    };
    Machine {
        mark: Mark { instance: format!("office/{member}").parse().unwrap(), incarnation: Uuid::new_v4() },
        accelerator: Kind::Tcg,
        vcpus: 1,
        memory_bytes: 64 << 20,
        cache: Cache::Writeback,
        system: chain("system", system),
        volumes: vec![VolumeDisk { name: VolumeName::new("home").unwrap(), chain: chain("home", volume) }],
        config_disk: host.at("config.img"),
        nics: vec![Nic { tap: "ctprobe0".to_owned(), mac: "02:00:00:00:00:01".parse().unwrap(), mtu: 1450 }],
        console_log: host.at(&format!("{member}.log")),
        health_socket: host.at(&format!("{member}.sock")),
    }
}

/// The image as a server of this host has it.
pub(crate) fn image(host: &Host) -> Under {
    let export = Export { name: "base".to_owned(), socket: host.at("nbd.sock") };
    Under::Export { export, format: Format::Raw }
}

#[allow(dead_code, reason = "not every test binary needs it")]
pub(crate) fn file(path: PathBuf, format: Format) -> Under {
    Under::File(DiskFile { path, format })
}

/// Names of what it stands on are not written into it: only the chain says.
fn overlay(path: &Path) {
    let size = DISK_BYTES.to_string();
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(path).arg(size).status();
    assert!(made.unwrap().success());
}

/// All that it has counted, in order, as its console says. A line that was begun before is left out.
pub(crate) fn counts(machine: &Machine) -> Vec<u32> {
    let text = std::fs::read_to_string(&machine.console_log).unwrap_or_default();
    assert!(!text.contains(['!', '?']), "its disks are not those of its memory, or fail: {text:?}");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .filter(|line| line.len() == 8)
        .filter_map(|line| u32::from_str_radix(line, 16).ok())
        .collect()
}

pub(crate) fn last(machine: &Machine) -> u32 {
    counts(machine).last().copied().unwrap_or(0)
}

/// Waits until it has counted `more` from now on.
pub(crate) async fn go_on(machine: &Machine, more: usize) {
    let wanted = counts(machine).len() + more;
    let deadline = Instant::now() + DEADLINE;
    while counts(machine).len() < wanted {
        assert!(Instant::now() < deadline, "it counts no more: {:?}", last(machine));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The count that a disk's file holds, itself and over nothing.
#[allow(dead_code, reason = "not every test binary needs it")]
pub(crate) fn count_in(file: &DiskFile) -> u32 {
    let raw = file.path.with_extension("raw-copy");
    // What is beneath does not matter: the count was written to this very file.
    let done = Command::new("qemu-img")
        .args(["convert", "-q", "-U", "-O", "raw", "--image-opts"])
        .arg(match file.format {
            Format::Qcow2 => {
                format!("driver=qcow2,file.driver=file,file.filename={}", file.path.display())
            }
            Format::Raw => format!("driver=raw,file.driver=file,file.filename={}", file.path.display()),
        })
        .arg(&raw)
        .status()
        .unwrap();
    assert!(done.success());
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::remove_file(&raw).unwrap();
    u32::from_le_bytes(bytes[COUNT_AT..COUNT_AT + 4].try_into().unwrap())
}

/// Its first disk's first bytes: `build.sh` makes them.
const COUNTING_GUEST: &[u8] = include_bytes!("counting_guest.bin");
