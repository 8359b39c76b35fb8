#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
#![allow(clippy::print_stdout, reason = "figures")]
//! Claims about guests that move between two real, private libvirtds whose only way to each other is this process.

#[allow(dead_code, reason = "some of it is for the tests beside it")]
mod private_libvirtd;

use controller_hypervisor::{
    Cache, Chain, Export, Hypervisor, Kind, Machine, Mark, Migration, MigrationProgress, Nic, Standing,
    VolumeDisk,
};
use private_libvirtd::Host;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use types::VolumeName;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);
/// Sectors that the guest writes in turn.
const SECTORS: u32 = 1024;

/// A boot sector: sector `1 + n % 1024` of its disk gets `n`, for n = 1, 2, 3, ... as fast as the disk takes it, through the
/// firmware; a dot on COM1 every 256 writes.
///
/// ```text
///   .code16
///   start: xor %ax,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss; mov $0x7c00,%sp; ljmp $0,$(0x7c00+next-start)
///   next:  mov %dl,(0x7c00+drive-start); movl $0,0x8000
///   again: incl 0x8000; movl 0x8000,%eax; andl $1023,%eax; incl %eax; movl %eax,(0x7c00+lba-start)
///          mov (0x7c00+drive-start),%dl; mov $(0x7c00+packet-start),%si; mov $0x4300,%ax; int $0x13; jc again
///          cmpb $0,0x8000; jne again; mov $0x3f8,%dx; mov $'.',%al; out %al,%dx; jmp again
///   drive: .byte 0
///   packet: .byte 16,0; .word 1,0x8000,0
///   lba:   .long 0,0
/// ```
#[rustfmt::skip]
const WRITER: [u8; 96] = [
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xea, 0x10, 0x7c, 0x00, 0x00,
    0x88, 0x16, 0x4f, 0x7c, 0x66, 0xc7, 0x06, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x66, 0xff, 0x06,
    0x00, 0x80, 0x66, 0xa1, 0x00, 0x80, 0x66, 0x25, 0xff, 0x03, 0x00, 0x00, 0x66, 0x40, 0x66, 0xa3,
    0x58, 0x7c, 0x8a, 0x16, 0x4f, 0x7c, 0xbe, 0x50, 0x7c, 0xb8, 0x00, 0x43, 0xcd, 0x13, 0x72, 0xdd,
    0x80, 0x3e, 0x00, 0x80, 0x00, 0x75, 0xd6, 0xba, 0xf8, 0x03, 0xb0, 0x2e, 0xee, 0xeb, 0xce, 0x00,
    0x10, 0x00, 0x01, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

fn writer_disk() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..WRITER.len()].copy_from_slice(&WRITER);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// The same machine, as it would be on a host; its files are made, empty.
fn machine_on(host: &Host, incarnation: Uuid) -> Machine {
    let socket = host.at("nbd.sock");
    let overlay = host.at("system.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b"])
        .arg(format!("nbd+unix:///base?socket={}", socket.display()))
        .args([&overlay, Path::new("1048576")])
        .status()
        .unwrap();
    assert!(made.success());
    for name in ["home.raw", "config.img"] {
        std::fs::File::create(host.at(name)).unwrap().set_len(1 << 20).unwrap();
    }
    Machine {
        mark: Mark { instance: "office/writer".parse().unwrap(), incarnation },
        accelerator: Kind::Tcg,
        vcpus: 1,
        memory_bytes: 64 << 20,
        cache: Cache::Writeback,
        system: Chain::over_image(overlay, Export { name: "base".to_owned(), socket }),
        volumes: vec![VolumeDisk {
            name: VolumeName::new("home").unwrap(),
            chain: Chain::raw(host.at("home.raw")),
        }],
        config_disk: host.at("config.img"),
        nics: vec![Nic { tap: "ctprobe0".to_owned(), mac: "02:00:00:00:00:01".parse().unwrap(), mtu: 1450 }],
        console_log: host.at("console.log"),
        health_socket: host.at("health.sock"),
    }
}

async fn connected(host: &Host) -> Hypervisor {
    let hypervisor = Hypervisor::connect(&host.uri()).unwrap();
    until("libvirtd", async || hypervisor.list().await.is_ok()).await;
    hypervisor
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How often a guest has written 256 times.
fn dots(host: &Host) -> usize {
    std::fs::read(host.at("console.log")).unwrap_or_default().iter().filter(|byte| **byte == b'.').count()
}

async fn writes_on(host: &Host) {
    let before = dots(host);
    until("the guest writes", async || dots(host) > before + 1).await;
}

/// The way from the source's QEMU to the target's: a socket of the same name on both.
struct Way {
    bytes: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Way {
    /// Nothing passes as long as the gate is shut.
    fn between(source: &Host, target: &Host, name: &str, gate: watch::Receiver<bool>) -> Self {
        let listener = UnixListener::bind(source.at(&format!("run/{name}"))).unwrap();
        let to = target.at(&format!("run/{name}"));
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, to.clone(), gate.clone(), Arc::clone(&counted)));
            }
        });
        Self { bytes, task }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(near: UnixStream, to: PathBuf, mut gate: watch::Receiver<bool>, counted: Arc<AtomicU64>) {
    let Ok(far) = UnixStream::connect(to).await else { return };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let back = async move { tokio::io::copy(&mut far_read, &mut near_write).await.map(drop) };
    let forth = async move {
        let mut chunk = vec![0; 64 << 10];
        loop {
            if gate.wait_for(|open| *open).await.is_err() {
                return Ok(());
            }
            let count = near_read.read(&mut chunk).await?;
            if count == 0 {
                return far_write.shutdown().await;
            }
            far_write.write_all(&chunk[..count]).await?;
            counted.fetch_add(count as u64, Ordering::Relaxed);
        }
    };
    let _ = tokio::try_join!(forth, back);
}

/// Two hosts with the guest writing on the first.
struct Scene {
    source: Host,
    target: Host,
    from: Hypervisor,
    to: Hypervisor,
    uuid: Uuid,
    migration: Migration,
    ways: [Way; 2],
    gate: watch::Sender<bool>,
}

impl Scene {
    async fn new(open: bool) -> Self {
        let (source, target) = (Host::start_with(&writer_disk()), Host::start_with(&writer_disk()));
        let (from, to) = (connected(&source).await, connected(&target).await);
        let uuid = Uuid::new_v4();
        from.start(&machine_on(&source, uuid)).await.unwrap();
        writes_on(&source).await;
        let (gate, opened) = watch::channel(open);
        let ways = ["memory", "disks"].map(|name| Way::between(&source, &target, name, opened.clone()));
        let migration = Migration {
            to: target.uri(),
            document: machine_on(&target, uuid).xml(),
            memory: "/run/libvirt/memory".into(),
            disks: "/run/libvirt/disks".into(),
            copied: vec!["vda".to_owned(), "vdb".to_owned()],
        };
        Self { source, target, from, to, uuid, migration, ways, gate }
    }

    fn begin(&self) -> JoinHandle<Result<MigrationProgress, controller_hypervisor::HypervisorError>> {
        let (from, uuid, migration) = (self.from.clone(), self.uuid, self.migration.clone());
        tokio::spawn(async move { from.migrate(uuid, migration).await })
    }

    /// What the guest wrote, as its disk's reader sees it after it was stopped.
    async fn numbers(&self, host: &Host, hypervisor: &Hypervisor) -> Vec<u32> {
        hypervisor.stop(self.uuid, controller_hypervisor::Stop::PowerOff).await.unwrap();
        let raw = host.at("all.raw");
        let read = Command::new("qemu-img")
            .args(["convert", "-U", "-O", "raw"])
            .args([&host.at("system.qcow2"), &raw])
            .status()
            .unwrap();
        assert!(read.success());
        let bytes = std::fs::read(raw).unwrap();
        let number = |sector: u32| {
            let at = (1 + sector) as usize * 512;
            u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
        };
        (0..SECTORS).map(number).collect()
    }
}

/// The newest number is in its place, and so are the 1,023 before it: no write is lost, none is older than another one.
fn assert_nothing_is_lost(numbers: &[u32]) {
    let newest = *numbers.iter().max().unwrap();
    assert!(newest > SECTORS, "the guest has written all sectors: {newest}");
    for (sector, number) in (0..).zip(numbers) {
        assert_eq!(number % SECTORS, sector, "sector {sector} holds {number}");
        assert!(number + SECTORS > newest, "sector {sector} holds {number}, the newest is {newest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_writes_moves_with_all_it_wrote_and_goes_on() {
    let scene = Scene::new(true).await;
    until("all sectors are written", async || dots(&scene.source) > 8).await;
    let begun = Instant::now();
    let done = scene.begin().await.unwrap().unwrap();
    let total = begun.elapsed();
    assert_eq!(scene.from.standing(scene.uuid).await.unwrap(), None);
    assert_eq!(scene.to.standing(scene.uuid).await.unwrap(), Some(Standing::Here));
    assert!(scene.from.list().await.unwrap().is_empty());
    assert_eq!(scene.to.list().await.unwrap()[0].mark.incarnation, scene.uuid);
    writes_on(&scene.target).await;
    // It is defined there: it outlives its end.
    let numbers = scene.numbers(&scene.target, &scene.to).await;
    assert_nothing_is_lost(&numbers);
    assert_eq!(scene.to.standing(scene.uuid).await.unwrap(), Some(Standing::Stopped));
    let [memory, disks] = scene.ways.each_ref().map(|way| way.bytes.load(Ordering::Relaxed));
    assert!(memory > 1 << 20 && disks > u64::from(SECTORS) * 512, "{memory} {disks}");
    println!("memory {memory} B, disks {disks} B, downtime {} ms, {total:?} in all", done.downtime_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_target_loses_power_on_the_way_runs_on_at_its_source() {
    let mut scene = Scene::new(false).await;
    let moving = scene.begin();
    until("it is coming in", async || {
        matches!(scene.to.standing(scene.uuid).await, Ok(Some(Standing::Between)))
    })
    .await;
    scene.target.power_off();
    scene.gate.send(true).unwrap();
    let problem = moving.await.unwrap().unwrap_err();
    assert_eq!(scene.from.standing(scene.uuid).await.unwrap(), Some(Standing::Here), "{problem:?}");
    writes_on(&scene.source).await;
    assert_nothing_is_lost(&scene.numbers(&scene.source, &scene.from).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_called_off_leaves_the_guest_at_its_source_and_nothing_at_its_target() {
    let scene = Scene::new(false).await;
    let moving = scene.begin();
    until("it is under way", async || {
        matches!(scene.to.standing(scene.uuid).await, Ok(Some(Standing::Between)))
            && matches!(scene.from.migration_progress(scene.uuid).await, Ok(Some(_)))
    })
    .await;
    scene.from.abort_migration(scene.uuid).await.unwrap();
    scene.gate.send(true).unwrap();
    let problem = moving.await.unwrap().unwrap_err();
    assert_eq!(scene.from.standing(scene.uuid).await.unwrap(), Some(Standing::Here), "{problem:?}");
    until("the target forgets it", async || matches!(scene.to.standing(scene.uuid).await, Ok(None))).await;
    assert_eq!(scene.from.migration_progress(scene.uuid).await.unwrap(), None);
    scene.from.abort_migration(scene.uuid).await.unwrap();
    writes_on(&scene.source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_be_reached_or_has_no_room_is_said_and_changes_nothing() {
    let mut scene = Scene::new(true).await;
    scene.migration.to = "qemu:///system?socket=/nowhere/libvirt-sock".to_owned();
    let problem = scene.begin().await.unwrap().unwrap_err();
    assert!(problem.to_string().contains("cannot reach libvirt at"), "{problem}");
    scene.migration.to = scene.target.uri();
    // Other hardware than the guest has.
    scene.migration.document = scene.migration.document.replace("<vcpu>1</vcpu>", "<vcpu>2</vcpu>");
    let problem = scene.begin().await.unwrap().unwrap_err();
    assert!(format!("{problem:?}").contains("vCPU"), "{problem:?}");
    assert_eq!(scene.to.standing(scene.uuid).await.unwrap(), None);
    writes_on(&scene.source).await;
}
