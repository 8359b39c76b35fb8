//! A real guest, looked at as the agent does, and written to as nobody should.

use crate::private_libvirtd::Host;
use controller_hypervisor::{Cache, Chain, Export, GuestMemory, Hypervisor, Kind, Machine, Mark, Stop};
use plugins_runtime::introspection::{
    BYTES_MAX_DEFAULT, Disk, Flow, Grant, GuestFacts, GuestViews, IntrospectionInput, Paging, Region, Report,
    Trigger, ViewError,
};
use plugins_runtime::{Limits, Policy, Runtime, State};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use types::Revision;
use uuid::Uuid;

const MEMORY_BYTES: u64 = 128 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Guest {
    hypervisor: Hypervisor,
    uuid: Uuid,
    memory: Arc<GuestMemory>,
    /// The same memory, to be written.
    tampering: File,
    policy: Arc<Policy>,
    state: State,
    pub(crate) took_us: u64,
    _image: Image,
    _host: Host,
    _compiled: tempfile::TempDir,
}

/// What the policy knows of the kernel; its state begins with it.
#[derive(Debug)]
pub(crate) struct Kernel(serde_json::Value);

impl Kernel {
    pub(crate) fn symbol(&self, name: &str) -> u64 {
        self.0["kernel"]["symbols"][name].as_u64().unwrap()
    }
    pub(crate) fn offset(&self, name: &str) -> u64 {
        self.0["kernel"]["offsets"][name].as_u64().unwrap()
    }
    fn root(&self) -> u64 {
        self.0["kernel"]["root"].as_u64().unwrap()
    }
}

/// The appliance's disk behind an NBD socket.
struct Image(Child);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The station, built unless it is there.
fn appliance() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = Command::new(root.join("integration/appliances/build.sh")).arg("station").status().unwrap();
    assert!(built.success());
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    cache.join("collective/appliances/station/system.raw")
}

impl Guest {
    pub(crate) async fn boot() -> Self {
        let disk = appliance();
        let policies = xtask::policies::build(None).unwrap().policies;
        let component = policies.iter().find(|policy| policy.name == "linux-integrity").unwrap();
        let compiled = tempfile::tempdir().unwrap();
        let limits =
            Limits { deadline_ms: 4_000, memory_bytes_max: 128 << 20, calls_max: 2, ..Limits::default() };
        let runtime = Runtime::new(limits, &compiled.path().join("compiled")).unwrap();
        let policy = runtime.load(&fs::read(&component.path).unwrap()).unwrap();

        let host = Host::start();
        let socket = host.at("image.sock");
        let image = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nbdkit", "--foreground", "--readonly", "--unix"])
            .arg(&socket)
            .arg("file")
            .arg(&disk)
            .spawn()
            .unwrap();
        let hypervisor = Hypervisor::connect(&host.uri()).unwrap();
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        while hypervisor.list().await.is_err() || !socket.exists() {
            assert!(Instant::now() < deadline, "no libvirtd");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let uuid = Uuid::new_v4();
        hypervisor.start(&machine(&host, uuid, &socket, &disk)).await.unwrap();
        let memory = Arc::new(hypervisor.guest_memory(uuid).await.unwrap());
        Self {
            hypervisor,
            uuid,
            memory,
            tampering: tampering(uuid),
            policy,
            state: State::default(),
            took_us: 0,
            _image: Image(image),
            _host: host,
            _compiled: compiled,
        }
    }

    /// One look, on a thread that may block; the guest runs meanwhile.
    pub(crate) fn look(&mut self) -> Report {
        let registers = self.block_on(self.hypervisor.registers(self.uuid)).unwrap();
        let views = Arc::new(Views { memory: Arc::clone(&self.memory), registers });
        let input = IntrospectionInput {
            decision_id: "look".to_owned(),
            seed: 0,
            now_ms: 0,
            revision: Revision(0),
            settings: serde_json::Value::Null,
            guest: GuestFacts {
                arch: "x86_64".to_owned(),
                vcpus: 1,
                memory_bytes: MEMORY_BYTES,
                ..GuestFacts::default()
            },
            grants: [Grant::Memory, Grant::Cpu].into(),
            bytes_max: BYTES_MAX_DEFAULT,
            trigger: Trigger::Time,
            trigger_attributes: BTreeMap::new(),
            state: self.state.clone(),
        };
        let decision = self.policy.inspect(&input, views).unwrap();
        self.took_us = decision.took_us;
        self.state = decision.verdict.state.clone();
        decision.verdict
    }

    pub(crate) fn wait(&self, time: Duration) {
        self.block_on(tokio::time::sleep(time));
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| Handle::current().block_on(future))
    }

    pub(crate) fn kernel(&self) -> Kernel {
        let (len, rest) = self.state.0.split_first_chunk::<8>().unwrap();
        let len = usize::try_from(u64::from_le_bytes(*len)).unwrap();
        Kernel(serde_json::from_slice(&rest[..len]).unwrap())
    }

    /// Physical address, by five levels of page tables.
    fn physical(&self, kernel: &Kernel, address: u64) -> u64 {
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        let registers = self.block_on(self.hypervisor.registers(self.uuid)).unwrap();
        let levels = if registers[0]["cr4"] & 0x1000 == 0 { 4 } else { 5 };
        let mut table = kernel.root();
        for level in (1..=levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let entry = self.physical_number(table + (address >> shift & 511) * 8);
            assert_eq!(entry & 1, 1, "{address:#x} is not mapped");
            if level == 1 || entry & 0x80 != 0 {
                let size = 1_u64 << shift;
                return (entry & ADDRESS & !(size - 1)) + (address & (size - 1));
            }
            table = entry & ADDRESS;
        }
        unreachable!("a walk ends");
    }

    fn physical_number(&self, address: u64) -> u64 {
        let mut number = [0; 8];
        self.memory.read(address, &mut number).unwrap();
        u64::from_le_bytes(number)
    }

    pub(crate) fn number(&self, kernel: &Kernel, address: u64) -> u64 {
        self.physical_number(self.physical(kernel, address))
    }

    /// Writes into the guest. Its memory is smaller than the hole of addresses, so places in the file are the physical.
    pub(crate) fn put(&self, kernel: &Kernel, address: u64, number: u64) {
        let physical = self.physical(kernel, address);
        self.tampering.write_all_at(&number.to_le_bytes(), physical).unwrap();
    }

    /// A task by its name, and its number.
    pub(crate) fn task(&self, kernel: &Kernel, name: &str) -> (u64, u32) {
        let tasks = kernel.offset("task_struct.tasks");
        let (comm, pid) = (kernel.offset("task_struct.comm"), kernel.offset("task_struct.pid"));
        let init = kernel.symbol("init_task");
        let mut at = self.number(kernel, init + tasks) - tasks;
        while at != init {
            let mut text = [0; 16];
            self.memory.read(self.physical(kernel, at + comm), &mut text).unwrap();
            if text.starts_with(name.as_bytes()) {
                return (at, (self.number(kernel, at + pid) & 0xffff_ffff) as u32);
            }
            at = self.number(kernel, at + tasks) - tasks;
        }
        panic!("there is no {name}");
    }

    pub(crate) async fn stop(self) {
        self.hypervisor.stop(self.uuid, Stop::PowerOff).await.unwrap();
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        while self.memory.is_there() {
            assert!(Instant::now() < deadline, "a guest that is gone is said to be there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(self.hypervisor.guest_memory(self.uuid).await.is_err());
        self.hypervisor.undefine(self.uuid).await.unwrap();
    }
}

fn machine(host: &Host, incarnation: Uuid, socket: &Path, disk: &Path) -> Machine {
    let overlay = host.at("overlay.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b"])
        .arg(format!("nbd+unix:///base?socket={}", socket.display()))
        .arg(&overlay)
        .arg(fs::metadata(disk).unwrap().len().to_string())
        .status()
        .unwrap();
    assert!(made.success());
    File::create(host.at("config.img")).unwrap().set_len(1 << 20).unwrap();
    Machine {
        mark: Mark { instance: "office/station".parse().unwrap(), incarnation },
        accelerator: Kind::Tcg,
        vcpus: 1,
        memory_bytes: MEMORY_BYTES,
        cache: Cache::Writeback,
        system: Chain::over_image(overlay, Export { name: "base".to_owned(), socket: socket.to_owned() }),
        volumes: Vec::new(),
        config_disk: host.at("config.img"),
        nics: Vec::new(),
        console_log: host.at("console.log"),
        health_socket: host.at("health.sock"),
    }
}

/// The memory of the QEMU with this UUID, writable.
fn tampering(uuid: Uuid) -> File {
    let wanted = uuid.to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let mut qemu = processes.filter(|process| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        line.starts_with(b"/usr/bin/qemu-system") && String::from_utf8_lossy(&line).contains(&wanted)
    });
    let files = fs::read_dir(qemu.next().unwrap().join("fd")).unwrap().flatten().map(|entry| entry.path());
    let is_memory = |path: &PathBuf| {
        let link = fs::read_link(path).unwrap_or_default();
        link.to_string_lossy().starts_with("/memfd:memory-backend-memfd")
    };
    let path = files.into_iter().find(is_memory).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

#[derive(Debug)]
struct Views {
    memory: Arc<GuestMemory>,
    registers: Vec<BTreeMap<String, u64>>,
}

impl GuestViews for Views {
    fn regions(&self) -> Result<Vec<Region>, ViewError> {
        Ok(self.memory.ram().iter().map(|part| Region { start: part.start, len: part.len }).collect())
    }
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), ViewError> {
        self.memory.read(address, into).map_err(|error| ViewError::Unavailable(error.to_string()))
    }
    fn paging(&self) -> Result<Paging, ViewError> {
        let five = self.registers[0].get("cr4").is_some_and(|cr4| cr4 & 0x1000 != 0);
        Ok(if five { Paging::FiveLevels } else { Paging::FourLevels })
    }
    fn registers(&self, vcpu: u32) -> Result<BTreeMap<String, u64>, ViewError> {
        self.registers.get(vcpu as usize).cloned().ok_or(ViewError::OutOfRange)
    }
    fn flows(&self, _: usize) -> Result<Vec<Flow>, ViewError> {
        Ok(Vec::new())
    }
    fn disks(&self) -> Result<Vec<Disk>, ViewError> {
        Ok(Vec::new())
    }
    fn read_disk(&self, _: u32, _: u64, _: &mut [u8]) -> Result<(), ViewError> {
        Err(ViewError::OutOfRange)
    }
}
