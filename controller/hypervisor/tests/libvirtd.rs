#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
//! Claims about real domains on a real, private libvirtd: its folders, network and processes live in namespaces of
//! their own, and end with the test.

use controller_hypervisor::{
    Cache, Change, DomainState, Event, Export, Hypervisor, HypervisorError, Kind, Machine, Mark, Nic, Stop,
    VolumeDisk, probe_disk,
};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use types::VolumeName;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// libvirtd must not be process 1 of its namespace: it does not reap QEMU's orphans.
const SCRIPT: &str = r#"
set -e; D=$1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/libvirt /run/lock
mount --bind $D/run /run/libvirt
mount --bind $D/lib /var/lib/libvirt
mount --bind $D/cache /var/cache/libvirt
mount --bind $D/log /var/log/libvirt
mount --bind $D/etc /etc/libvirt
ip link set lo up
ip tuntap add dev ctprobe0 mode tap vnet_hdr
while :; do libvirtd -p /run/libvirt/libvirtd.pid & echo $! >$D/pid; wait $! || true; sleep 0.05; done
"#;

const QEMU_CONF: &str = r#"
user = "root"
group = "root"
remember_owner = 0
dynamic_ownership = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
seccomp_sandbox = 0
"#;

struct Host {
    folder: tempfile::TempDir,
    namespace: Child,
    nbd: Child,
}

impl Host {
    fn start() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes namespaces: run it as root");
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["run", "lib", "cache", "log", "etc"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let conf = "unix_sock_rw_perms = \"0700\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n";
        std::fs::write(at("etc/libvirtd.conf"), conf).unwrap();
        std::fs::write(at("etc/qemu.conf"), QEMU_CONF).unwrap();
        std::fs::write(at("base.img"), probe_disk()).unwrap();
        let out = std::fs::File::create(at("log/out")).unwrap();
        let namespace = dying_with_us("unshare")
            .args([
                "--mount",
                "--uts",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--propagation",
                "private",
            ])
            .args(["bash", "-c", SCRIPT, "host"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let nbd = dying_with_us("qemu-nbd")
            .args(["--persistent", "--shared=0", "--read-only", "--format=raw", "--export-name=base"])
            .arg(format!("--socket={}", at("nbd.sock").display()))
            .arg(at("base.img"))
            .spawn()
            .unwrap();
        Self { folder, namespace, nbd }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn uri(&self) -> String {
        format!("qemu:///system?socket={}", self.at("run/libvirt-sock").display())
    }

    fn virsh(&self, args: &[&str]) -> String {
        let output = Command::new("virsh").args(["-q", "-c", &self.uri()]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn kill_libvirtd(&self) {
        let pid = std::fs::read_to_string(self.at("pid")).unwrap();
        let ours = self.namespace.id();
        let first = std::fs::read_to_string(format!("/proc/{ours}/task/{ours}/children")).unwrap();
        let done = Command::new("nsenter")
            .args(["-t", first.trim(), "-m", "-p", "kill", "-9", pid.trim()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    fn machine(&self, incarnation: Uuid) -> Machine {
        let socket = self.at("nbd.sock");
        let overlay = self.at(&format!("{incarnation}.qcow2"));
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b"])
            .arg(format!("nbd+unix:///base?socket={}", socket.display()))
            .args([&overlay, Path::new("1048576")])
            .status()
            .unwrap();
        assert!(made.success());
        for name in ["home.raw", "config.img"] {
            std::fs::File::create(self.at(name)).unwrap().set_len(1 << 20).unwrap();
        }
        Machine {
            mark: Mark { instance: "office/probe".parse().unwrap(), incarnation },
            accelerator: Kind::Tcg,
            vcpus: 1,
            memory_bytes: 64 << 20,
            cache: Cache::Writeback,
            overlay,
            image: Export { name: "base".to_owned(), socket },
            volumes: vec![VolumeDisk { name: VolumeName::new("home").unwrap(), file: self.at("home.raw") }],
            config_disk: self.at("config.img"),
            nics: vec![Nic {
                tap: "ctprobe0".to_owned(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                mtu: 1450,
            }],
            console_log: self.at("console.log"),
            health_socket: self.at("health.sock"),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in [&mut self.namespace, &mut self.nbd] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command that is killed when this thread ends, however it ends.
fn dying_with_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
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
    let machine = host.machine(uuid);

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
    let machine = host.machine(uuid);
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
    let same_name = host.machine(Uuid::new_v4());
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
    hypervisor.start(&host.machine(uuid)).await.unwrap();
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
