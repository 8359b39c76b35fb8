//! A machine with a netd.

use chassis::unix_http::CallError;
use netd_api::{Desired, Status};
use netd_client::Client;
use nix::sched::{CloneFlags, unshare};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NETD: &str = env!("CARGO_BIN_EXE_collective-netd");
const DEADLINE: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce() + Send>;

/// A namespace, a folder, and a configuration.
pub(crate) struct Machine {
    jobs: mpsc::Sender<Job>,
    pub(crate) folder: TempDir,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) client: Client,
}

#[expect(clippy::disallowed_methods, reason = "between two looks at a condition, or the moment of a kill")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// A running netd; killed when dropped.
pub(crate) struct Netd(pub(crate) Child);

impl Drop for Netd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
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
        let text = format!(
            "socket = {socket:?}\nstate_dir = {:?}\nunderlay_address = \"192.0.2.1\"\n",
            folder.path().join("state")
        );
        std::fs::write(folder.path().join("netd.toml"), text).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self { jobs, folder, runtime, client: Client::new(socket) }
    }

    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, answer) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(sender.send(job())))).unwrap();
        answer.recv().expect("the job panicked")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("netd.toml")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NETD);
        command.arg("--config").arg(self.config()).args(arguments).stdin(Stdio::null());
        command
    }

    pub(crate) fn netd(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        self.run(move || command.output().unwrap())
    }

    pub(crate) fn start(&self) -> Netd {
        let mut command = self.command(&[]);
        let netd = Netd(self.run(move || command.spawn().unwrap()));
        self.until("netd does not answer", |_| true);
        netd
    }

    pub(crate) fn shell(&self, line: &str) -> String {
        let line = line.to_owned();
        let output = self.run(move || Command::new("sh").args(["-c", &line]).output().unwrap());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits for a status.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.runtime.block_on(self.client.status());
            match status {
                Ok(status) if condition(&status) => return status,
                other => assert!(Instant::now() < deadline, "{what}: {other:?}"),
            }
            pause(Duration::from_millis(10));
        }
    }

    pub(crate) fn put(&self, desired: &Desired) -> Result<Status, CallError> {
        self.runtime.block_on(self.client.put_desired(desired))
    }

    /// What of ours there is, with indices: a recreated link has another one.
    pub(crate) fn ours(&self) -> String {
        self.shell("ip -o link | grep -oE '^[0-9]+: c[btx][^:]*'; nft list tables; true")
    }
}
