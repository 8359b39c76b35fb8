//! Explanations and captures of a real daemon, over its socket and on its command line.
#![allow(clippy::unwrap_used, reason = "in a test's helpers too, a panic is the failure")]

use chassis::unix_http::CallError;
use netd_api::{
    Accept, Capture, Desired, Direction, End, Network, Port, Protocol, Question, Service, Verdict,
};
use netd_client::Client;
use nix::sched::{CloneFlags, unshare};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use types::{Generation, MacAddress};

const NETD: &str = env!("CARGO_BIN_EXE_collective-netd");
const DEADLINE: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce() + Send>;

/// A namespace with a running netd that holds two ports: anybody may open tcp 80 to `b`, and `a` may open it.
struct Machine {
    jobs: mpsc::Sender<Job>,
    folder: TempDir,
    runtime: tokio::runtime::Runtime,
    client: Client,
    netd: Child,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.netd.kill();
        let _ = self.netd.wait();
    }
}

fn run<T: Send + 'static>(jobs: &mpsc::Sender<Job>, job: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, answer) = mpsc::channel();
    jobs.send(Box::new(move || drop(sender.send(job())))).unwrap();
    answer.recv().expect("the job panicked")
}

#[expect(clippy::disallowed_methods, reason = "between two looks at a condition")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

impl Machine {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test makes network namespaces: run it as root");
            ready.send(()).unwrap();
            queue.iter().for_each(|job| job());
        });
        started.recv().expect("this test makes network namespaces: run it as root");
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("netd.sock");
        let state = folder.path().join("state");
        let config = folder.path().join("netd.toml");
        std::fs::write(&config, format!("socket = {socket:?}\nstate_dir = {state:?}\n")).unwrap();
        let mut command = Command::new(NETD);
        command.arg("--config").arg(&config).stdin(Stdio::null());
        let netd = run(&jobs, move || command.spawn().unwrap());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let machine = Self { jobs, folder, runtime, client: Client::new(socket), netd };
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = machine.runtime.block_on(machine.client.put_desired(&desired())) {
            assert!(Instant::now() < deadline, "netd does not answer: {error}");
            pause();
        }
        machine
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NETD);
        command.arg("--config").arg(self.path("netd.toml")).args(arguments).stdin(Stdio::null());
        command
    }

    fn netd(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn desired() -> Desired {
    let port = |name: &str, last: u8, direction| Port {
        addresses: vec![format!("10.20.0.{last}").parse().unwrap()],
        accept: vec![Accept { direction, remote: None, protocol: Protocol::Tcp { listen_port: 80 } }],
        ..Port::closed(format!("office/{name}/eth0"), format!("ct{last}"), MacAddress([2, 0, 0, 0, 0, last]))
    };
    let network = Network {
        id: "office/lan".to_owned(),
        bridge: "cb1".to_owned(),
        mtu: 1450,
        ports: vec![port("a", 1, Direction::FromGuest), port("b", 2, Direction::ToGuest)],
        ..Network::default()
    };
    Desired { generation: Generation(1), networks: vec![network], ..Desired::default() }
}

fn end(id: &str) -> End {
    End::Port { id: id.to_owned(), address: None }
}

fn capture(of: &str) -> Capture {
    Capture { of: vec![of.to_owned()], snap_bytes: 65_535, seconds: 60, bytes: 1 << 20 }
}

fn status_of(error: &CallError) -> u16 {
    match error {
        CallError::Refused { status, .. } => *status,
        other => panic!("{other}"),
    }
}

#[test]
fn a_question_is_answered_and_proven() {
    let machine = Machine::new();
    let ask = |listen_port, to: &str| {
        let service = Service::Tcp { listen_port };
        let question = Question { from: end("office/a/eth0"), to: end(to), service, prove: true };
        machine.runtime.block_on(machine.client.explain(&question))
    };
    let open = ask(80, "office/b/eth0").unwrap();
    assert_eq!((open.verdict, open.proven), (Verdict::Pass, Some(Verdict::Pass)));
    let closed = ask(22, "office/b/eth0").unwrap();
    assert_eq!((closed.verdict, closed.proven), (Verdict::Drop, Some(Verdict::Drop)));
    assert_eq!(status_of(&ask(80, "office/z/eth0").unwrap_err()), 404);
    assert_eq!(status_of(&ask(0, "office/b/eth0").unwrap_err()), 422);
}

#[test]
fn the_command_line_prints_a_table() {
    let machine = Machine::new();
    let output = machine.netd(&["explain", "--from", "10.20.0.9", "--to", "office/b/eth0", "--tcp", "80"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("drop\n") && text.contains("has no uplink"), "{text}");
    let output = machine.netd(&[
        "explain",
        "--from",
        "office/a/eth0",
        "--to",
        "office/b/eth0",
        "--tcp",
        "80",
        "--prove",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("pass  first frame, office/a/eth0 sends "), "{text}");
    assert!(text.ends_with("\npass; the kernel does the same\n"), "{text}");
    let help = String::from_utf8(machine.netd(&["explain", "--help"]).stdout).unwrap();
    assert!(help.contains("collective-netd explain --from office/a/eth0"), "{help}");
}

#[test]
fn a_capture_is_streamed_limited_in_number_and_ends_with_the_caller() {
    let machine = Machine::new();
    let begin = |of: &str| machine.runtime.block_on(machine.client.capture(&capture(of)));
    let mut four: Vec<_> = (0..4).map(|_| begin("office/lan").unwrap()).collect();
    for stream in &mut four {
        let first = machine.runtime.block_on(stream.chunk()).unwrap().unwrap();
        assert_eq!(first[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    }
    assert_eq!(status_of(&begin("office/a/eth0").map(drop).unwrap_err()), 429);
    drop(four);
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = begin("office/a/eth0").map(drop) {
        assert!(Instant::now() < deadline, "a hang-up frees nothing: {error}");
        pause();
    }
    assert_eq!(status_of(&begin("office/z/eth0").map(drop).unwrap_err()), 404);
    let endless = Capture { seconds: 0, ..capture("office/lan") };
    let refused = machine.runtime.block_on(machine.client.capture(&endless)).map(drop).unwrap_err();
    assert_eq!(status_of(&refused), 422);
    assert_eq!(refused.to_string(), "seconds: 0 is out of range; use 1 to 3600");
}

#[test]
fn a_capture_is_written_to_a_file_that_tcpdump_reads() {
    let machine = Machine::new();
    let file = machine.path("office.pcapng");
    let write = file.to_str().unwrap();
    let mut capture = machine.command(&["capture", "office/a/eth0", "--seconds", "1", "--write", write]);
    let capture = std::thread::spawn(move || capture.output().unwrap());
    let tap = run(&machine.jobs, || netd_kernel::open_tap("ct1").unwrap());
    let deadline = Instant::now() + DEADLINE;
    let mut frame = vec![0; 10];
    frame.extend([0xff; 6]);
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0, 0, 0, 0, 1, 10, 20, 0, 1, 0, 0, 0, 0, 0, 0, 10, 20, 0, 2]);
    while !capture.is_finished() {
        assert!(Instant::now() < deadline, "the capture does not end");
        std::io::Write::write_all(&mut &tap, &frame).unwrap();
        pause();
    }
    let output = capture.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new("tcpdump").args(["-n", "-r", write]).output().expect("install tcpdump");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ARP, Request who-has 10.20.0.2 tell 10.20.0.1"), "{text}");
}
