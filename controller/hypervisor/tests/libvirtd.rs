#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
//! Claims about real domains on a real, private libvirtd.

#[allow(dead_code, reason = "some of it is for the tests beside it")]
mod private_libvirtd;

use controller_hypervisor::{
    Cache, Chain, Change, DomainState, Event, Export, Hypervisor, HypervisorError, Kind, Machine, Mark, Nic,
    Stop, VolumeDisk,
};
use private_libvirtd::Host;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use types::VolumeName;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

fn machine_of(host: &Host, incarnation: Uuid) -> Machine {
    let socket = host.at("nbd.sock");
    let overlay = host.at(&format!("{incarnation}.qcow2"));
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
        mark: Mark { instance: "office/probe".parse().unwrap(), incarnation },
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

async fn wait_for(events: &mut broadcast::Receiver<Event>, wanted: &Event) {
    let found = async {
        loop {
            match events.recv().await {
                Ok(event) if event == *wanted => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("no {wanted:?}"));
}

async fn connected(host: &Host) -> Hypervisor {
    let hypervisor = Hypervisor::connect(&host.uri()).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = hypervisor.list().await {
        assert!(Instant::now() < deadline, "{error:?} {:?}", std::fs::read_to_string(host.at("log/out")));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    hypervisor
}

/// Reads the console until `wanted` has come.
async fn expect(reader: &mut controller_hypervisor::ConsoleReader, wanted: &str) {
    let mut seen = Vec::new();
    let all = async {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            seen.extend(reader.read().await.expect("the console is open"));
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, all).await;
    assert!(in_time.is_ok(), "{:?}", String::from_utf8_lossy(&seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_lives_from_its_start_to_its_removal() {
    let host = Host::start();
    let hypervisor = connected(&host).await;
    let mut events = hypervisor.events();
    let uuid = Uuid::new_v4();
    let machine = machine_of(&host, uuid);

    hypervisor.start(&machine).await.unwrap();
    wait_for(&mut events, &Event::Lifecycle { uuid, change: Change::Started }).await;
    hypervisor.start(&machine).await.unwrap();
    let listed = hypervisor.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].mark.clone(), listed[0].state), (machine.mark.clone(), DomainState::Running));
    assert!(hypervisor.version().await.unwrap().contains('.'));

    // The guest echoes what it reads, and powers off at a `q`.
    let (mut reader, writer) = hypervisor.console(uuid).await.unwrap().split();
    let deadline = Instant::now() + DEADLINE;
    while !std::fs::read_to_string(host.at("console.log")).unwrap_or_default().contains("long mode") {
        assert!(Instant::now() < deadline, "the guest did not boot");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(writer.write(b"ping").await);
    expect(&mut reader, "ping").await;
    assert!(writer.write(b"q").await);
    wait_for(&mut events, &Event::Lifecycle { uuid, change: Change::Stopped }).await;
    assert_eq!(hypervisor.list().await.unwrap()[0].state, DomainState::Stopped { reason: "poweroff" });
    while reader.read().await.is_some() {}

    hypervisor.start(&machine).await.unwrap();
    hypervisor.stop(uuid, Stop::PowerOff).await.unwrap();
    hypervisor.stop(uuid, Stop::PowerOff).await.unwrap();
    hypervisor.undefine(uuid).await.unwrap();
    hypervisor.undefine(uuid).await.unwrap();
    assert_eq!(hypervisor.list().await.unwrap(), []);
    assert!(matches!(hypervisor.console(uuid).await, Err(HypervisorError::Absent(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_domain_is_neither_listed_nor_touched() {
    let host = Host::start();
    let hypervisor = connected(&host).await;
    let uuid = Uuid::new_v4();
    let machine = machine_of(&host, uuid);
    // Somebody else's domain, under the name and the UUID that ours would get.
    let xml = machine.xml();
    let (before, rest) = xml.split_once("<metadata>").unwrap();
    let foreign = format!("{before}{}", rest.split_once("</metadata>").unwrap().1);
    std::fs::write(host.at("foreign.xml"), &foreign).unwrap();
    host.virsh(&["create", host.at("foreign.xml").to_str().unwrap()]);

    assert_eq!(hypervisor.list().await.unwrap(), []);
    assert!(matches!(hypervisor.start(&machine).await, Err(HypervisorError::Foreign(_))));
    assert!(matches!(hypervisor.stop(uuid, Stop::PowerOff).await, Err(HypervisorError::Foreign(_))));
    assert!(matches!(hypervisor.undefine(uuid).await, Err(HypervisorError::Foreign(_))));
    let same_name = machine_of(&host, Uuid::new_v4());
    let error = hypervisor.start(&same_name).await.unwrap_err();
    assert_eq!(error.to_string(), "domain c-office-probe exists and is not ours: rename or remove it");
    assert_eq!(host.virsh(&["domstate", &uuid.to_string()]).trim(), "running");
    host.virsh(&["destroy", &uuid.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_outlives_libvirtd_and_the_connection_heals() {
    let host = Host::start();
    let hypervisor = connected(&host).await;
    let uuid = Uuid::new_v4();
    hypervisor.start(&machine_of(&host, uuid)).await.unwrap();
    let mut events = hypervisor.events();
    // A guest that is stopped, or whose libvirtd is killed again, while libvirtd reconnects to its monitor may be ended
    // by libvirtd without an event. A monitor command waits for that.
    let settled = || host.virsh(&["qemu-monitor-command", &uuid.to_string(), "--hmp", "info version"]);
    for _ in 0..2 {
        settled();
        host.kill_libvirtd();
        wait_for(&mut events, &Event::Disconnected).await;
        wait_for(&mut events, &Event::Connected).await;
        assert_eq!(hypervisor.list().await.unwrap()[0].state, DomainState::Running);
    }
    // Events arrive over the new connection.
    settled();
    hypervisor.stop(uuid, Stop::PowerOff).await.unwrap();
    wait_for(&mut events, &Event::Lifecycle { uuid, change: Change::Stopped }).await;
    hypervisor.undefine(uuid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libvirtd_that_is_away_is_named_in_the_error() {
    let hypervisor = Hypervisor::connect("qemu:///system?socket=/nonexistent/libvirt-sock").unwrap();
    let error = hypervisor.list().await.unwrap_err();
    assert_eq!(error.to_string(), "cannot reach libvirt at qemu:///system?socket=/nonexistent/libvirt-sock");
}
