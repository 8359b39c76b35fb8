//! A thread in a network namespace of its own. When it ends the kernel takes the namespace and all its links away.

use netd_kernel::{Kernel, RouterFolders};
use netd_plan::Observed;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio::runtime::Runtime;

type Job = Box<dyn FnOnce(&Runtime, &Kernel) + Send>;

pub(crate) struct Namespace {
    thread_id: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Where its routers are kept.
    folder: TempDir,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let folder = tempfile::tempdir().unwrap();
        let folders = folders_in(folder.path());
        let thread = std::thread::spawn(move || {
            // Routers' namespaces are mounts, which go with a namespace of mounts.
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("this test makes network namespaces: run it as root");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let kernel = runtime.block_on(async { Kernel::open() }).unwrap().with_routers(folders);
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in queue {
                job(&runtime, &kernel);
            }
        });
        let thread_id = started.recv().expect("this test makes network namespaces: run it as root");
        Self { thread_id, jobs: Some(jobs), thread: Some(thread), folder }
    }

    /// Where its routers are kept.
    pub(crate) fn folders(&self) -> RouterFolders {
        folders_in(self.folder.path())
    }

    /// What a netd sees that was not there before.
    pub(crate) fn observed_by_another(&self) -> Observed {
        let folders = self.folders();
        self.run(|runtime, _| {
            let observed = async { Kernel::open().unwrap().with_routers(folders).observe().await };
            runtime.block_on(observed).unwrap()
        })
    }

    /// Whether there is anything of a router: a namespace, a file, a process.
    pub(crate) fn anything_left(&self) -> bool {
        let folders = self.folders();
        let is_empty =
            |path: &Path| std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
        !is_empty(&folders.namespaces)
            || !is_empty(&folders.state.join("routers"))
            || !servers_of(self.folder.path()).is_empty()
    }

    /// Runs on the namespace's thread and waits.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Runtime, &Kernel) -> T + Send + 'static,
    ) -> T {
        let (sender, answer) = mpsc::channel();
        let job: Job = Box::new(move |runtime, kernel| drop(sender.send(job(runtime, kernel))));
        self.jobs.as_ref().unwrap().send(job).expect("the namespace's thread is gone");
        answer.recv().expect("the job panicked")
    }

    /// Runs a command of iproute2 or nft in the namespace.
    pub(crate) fn shell(&self, line: &str) -> String {
        let line = line.to_owned();
        self.run(move |_, _| {
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// Where `ip link set … netns` finds it.
    pub(crate) fn thread_id(&self) -> i32 {
        self.thread_id
    }

    /// Joins two namespaces with a cable, both ends up.
    pub(crate) fn cable(&self, end: &str, other: &Self, other_end: &str) {
        let id = other.thread_id();
        self.shell(&format!("ip link add {end} type veth peer name {other_end} netns {id}"));
        self.shell(&format!("ip link set {end} up"));
        other.shell(&format!("ip link set {other_end} up"));
    }
}

fn folders_in(folder: &Path) -> RouterFolders {
    RouterFolders { namespaces: folder.join("netns"), state: folder.join("state") }
}

/// Processes that were started with a file in this folder.
fn servers_of(folder: &Path) -> Vec<i32> {
    let folder = format!("--conf-file={}/", folder.display());
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|words| String::from_utf8_lossy(&words).contains(&folder))
    };
    processes.filter(is_ours).collect()
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for pid in servers_of(self.folder.path()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
