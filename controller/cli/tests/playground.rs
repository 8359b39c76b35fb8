//! Claims about boxes, their supervisor and `down`, on real namespaces. Full sites with guests are the demo's.
//!
//! The boxes here run `sleep` and shell loops instead of daemons: what is claimed is what process 1 does with them.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic; clippy exempts only its #[test] functions"
)]

use playground::layout::{DaemonSpec, Folders, InitSpec};
use playground::process::ProcessIdentity;
use playground::{Playground, Removed};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

const COLLECTIVE: &str = env!("CARGO_BIN_EXE_collective");
const PATIENCE: Duration = Duration::from_secs(20);

fn need_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes namespaces: run it as root");
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::yield_now();
    }
}

/// What a playground must not change about the machine.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    links: BTreeSet<String>,
    mounts: String,
    namespaces: BTreeSet<String>,
}

impl Machine {
    fn look() -> Self {
        let names = |folder: &str| -> BTreeSet<String> {
            std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect()
        };
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        Self { links: names("/sys/class/net"), mounts, namespaces: names("/run/netns") }
    }
}

/// A box made by hand, as `up` makes it.
struct Made {
    state: tempfile::TempDir,
    process: ProcessIdentity,
    commands: Option<ChildStdin>,
}

fn shell(name: &str, script: &str, at_once: bool, folders: &Folders) -> DaemonSpec {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    DaemonSpec { name: name.to_owned(), argv, log: folders.log_of(name), at_once }
}

fn first_stage(spec: &Path) -> Child {
    Command::new(COLLECTIVE)
        .args(["playground", "host-init", "--spec"])
        .arg(spec)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(spec.with_extension("err")).unwrap())
        .spawn()
        .unwrap()
}

impl Made {
    fn new(daemons: impl Fn(&Folders) -> Vec<DaemonSpec>, leashed: bool) -> Self {
        need_root();
        let state = tempfile::tempdir().unwrap();
        let folders = Folders::new(state.path(), "h1");
        std::fs::create_dir_all(folders.log()).unwrap();
        std::fs::create_dir_all(folders.run()).unwrap();
        let spec = InitSpec {
            hostname: "h1".into(),
            status: folders.init_status(),
            outer_network: None,
            binds: vec![(folders.run(), "/run/collective".into())],
            daemons: daemons(&folders),
            leashed,
        };
        std::fs::write(folders.init_spec(), serde_json::to_vec(&spec).unwrap()).unwrap();
        let mut child = first_stage(&folders.init_spec());
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let commands = child.stdin.take();
        assert!(child.wait().unwrap().success());
        let process = ProcessIdentity::of(line.trim().parse().unwrap()).unwrap();
        let made = Self { state, process, commands };
        made.record();
        made
    }

    /// As `up` records it, before the box is told to go.
    fn record(&self) {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let record = serde_json::json!({
            "format": 1, "name": "test", "boot_id": boot.trim(), "hosts": 1, "port": 1, "complete": false,
            "boxes": {"h1": self.process}
        });
        std::fs::write(self.state.path().join("playground.json"), record.to_string()).unwrap();
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
    }

    fn open(&self) -> Playground {
        Playground::open(self.state.path()).unwrap()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.process.kill(PATIENCE).unwrap();
    }
}

#[test]
fn down_after_a_partial_up_leaves_nothing() {
    let before = Machine::look();
    let mut made = Made::new(|folders| vec![shell("netd", "exec sleep 1000", true, folders)], false);
    made.tell("go");
    let host = made.open().host(1).unwrap();
    wait_for("the daemon", || host.daemon("netd").is_ok());
    let daemon = host.daemon("netd").unwrap();
    // A process that made itself a daemon, as QEMU does: it is nobody's child but process 1's.
    let orphan = host.exec(&["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo started"]).unwrap();
    assert!(orphan.status.success(), "{orphan:?}");
    // `up` dies the hard way: nobody holds the box's standard input any more, and the box stays for `down`.
    made.commands = None;
    assert!(made.process.alive());
    let removed = playground::down(made.state.path()).unwrap();
    assert_eq!(removed, Removed::Playground { boxes: 1 });
    assert!(!made.process.alive() && !daemon.alive());
    assert!(!made.state.path().exists());
    assert_eq!(Machine::look(), before);
    assert_eq!(playground::down(made.state.path()).unwrap(), Removed::Nothing);
}

#[test]
fn a_box_whose_maker_dies_before_go_ends_by_itself() {
    let mut made = Made::new(|_| Vec::new(), false);
    assert!(made.process.alive());
    made.commands = None;
    wait_for("the box to end", || !made.process.alive());
}

#[test]
fn a_leashed_box_ends_with_its_maker() {
    let mut made = Made::new(|folders| vec![shell("netd", "exec sleep 1000", true, folders)], true);
    made.tell("go");
    let host = made.open().host(1).unwrap();
    wait_for("the daemon", || host.daemon("netd").is_ok());
    let daemon = host.daemon("netd").unwrap();
    made.commands = None;
    wait_for("the box to end", || !made.process.alive() && !daemon.alive());
}

#[test]
fn a_killed_daemon_is_started_again_and_counted() {
    let daemons = |folders: &Folders| {
        vec![
            shell("netd", "exec sleep 1000", true, folders),
            shell("agent", "echo hello; exec sleep 1000", false, folders),
        ]
    };
    let mut made = Made::new(daemons, false);
    made.tell("go");
    let playground = made.open();
    let host = playground.host(1).unwrap();
    wait_for("netd", || host.daemon("netd").is_ok());
    assert!(host.daemon("agent").is_err(), "it was not told to start");
    made.tell("start agent");
    wait_for("the agent's log", || {
        std::fs::read_to_string(host.log("agent")).is_ok_and(|log| log == "hello\n")
    });
    let killed = host.kill9("netd").unwrap();
    wait_for("another netd", || host.daemon("netd").is_ok_and(|netd| netd != killed));
    wait_for("the count", || {
        playground.status().boxes[0].daemons.iter().any(|daemon| daemon.name == "netd" && daemon.starts == 2)
    });
    let status = playground.status();
    assert!(!status.up, "up never came to its end");
    assert_eq!(status.boxes[0].daemons[0].ended.as_deref(), Some("killed by SIGKILL"));
}

#[test]
fn a_box_has_its_own_network_name_processes_and_sockets() {
    let mut made = Made::new(|_| Vec::new(), false);
    made.tell("go");
    let host = made.open().host(1).unwrap();
    // Process 1 writes its status first when its mounts are made.
    wait_for("its mounts", || host.folders().init_status().exists());
    assert_eq!(host.exec(&["hostname"]).unwrap().stdout, b"h1\n");
    let links = host.exec(&["ls", "/sys/class/net"]).unwrap();
    assert_eq!(String::from_utf8(links.stdout).unwrap(), "lo\n");
    let init = host.exec(&["cat", "/proc/1/comm"]).unwrap();
    assert_eq!(String::from_utf8(init.stdout).unwrap(), "collective\n");
    let machines = host.exec(&["ls", "/run"]).unwrap();
    assert_eq!(String::from_utf8(machines.stdout).unwrap(), "collective\nlock\n");
    let machine = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = machine.local_addr().unwrap();
    std::net::TcpStream::connect(address).unwrap();
    let reached = host.in_namespace(move || std::net::TcpStream::connect(address).is_ok()).unwrap();
    assert!(!reached, "a box reaches the machine's own loopback");
}

#[test]
fn orphans_do_not_stay_as_zombies() {
    let mut made = Made::new(|_| Vec::new(), false);
    made.tell("go");
    let host = made.open().host(1).unwrap();
    wait_for("its mounts", || host.folders().init_status().exists());
    host.exec(&["sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done"]).unwrap();
    let children = || {
        let pid = made.process.pid;
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
    };
    wait_for("the orphans to be reaped", || children().trim().is_empty());
}

#[test]
fn after_another_boot_only_the_folder_is_removed() {
    let mut bystander = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(bystander.id()).unwrap();
    let process = ProcessIdentity::of(pid).unwrap();
    let state = tempfile::tempdir().unwrap();
    let record = serde_json::json!({
        "format": 1, "name": "test", "boot_id": "of another boot", "hosts": 1, "port": 1, "complete": true,
        "boxes": {"h1": process}
    });
    std::fs::write(state.path().join("playground.json"), record.to_string()).unwrap();
    assert_eq!(playground::down(state.path()).unwrap(), Removed::Playground { boxes: 0 });
    assert!(process.alive());
    assert!(!state.path().exists());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_folder_that_is_no_playground_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("precious"), "").unwrap();
    let error = playground::down(folder.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("is not a playground's folder (it has no playground.json); nothing was removed"),
        "{error}"
    );
    assert!(folder.path().join("precious").exists());
}

#[test]
fn an_up_that_cannot_work_says_why_and_changes_nothing() {
    need_root();
    let before = Machine::look();
    let parent = tempfile::tempdir().unwrap();
    let state = parent.path().join("p");
    let empty = parent.path().join("bin");
    std::fs::create_dir(&empty).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(COLLECTIVE);
        command.args(["playground", "up", "--state"]).arg(&state).args(arguments).env("HOME", parent.path());
        command.stdin(Stdio::null()).output().unwrap()
    };
    let output = run(&["--bin", empty.to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("error: collective is missing in "), "{error}");
    let output = run(&["--hosts", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: 0 hosts cannot be: choose 1 to 64\n");
    assert!(!state.exists());
    assert_eq!(Machine::look(), before);
}

#[test]
fn down_of_nothing_is_success() {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(COLLECTIVE)
        .args(["playground", "down", "--name", "nothing", "--state"])
        .arg(home.path().join("none"))
        .env("HOME", home.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "there was no playground nothing\n");
}
