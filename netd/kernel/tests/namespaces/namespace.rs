//! A thread in a network namespace of its own. When it ends the kernel takes the namespace and all its links away.

use netd_kernel::Kernel;
use nix::sched::{CloneFlags, unshare};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::runtime::Runtime;

type Job = Box<dyn FnOnce(&Runtime, &Kernel) + Send>;

pub(crate) struct Namespace {
    thread_id: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test makes network namespaces: run it as root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let kernel = runtime.block_on(async { Kernel::open() }).unwrap();
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in queue {
                job(&runtime, &kernel);
            }
        });
        let thread_id = started.recv().expect("this test makes network namespaces: run it as root");
        Self { thread_id, jobs: Some(jobs), thread: Some(thread) }
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

    /// Joins two namespaces with a cable, both ends up.
    pub(crate) fn cable(&self, end: &str, other: &Self, other_end: &str) {
        let id = other.thread_id;
        self.shell(&format!("ip link add {end} type veth peer name {other_end} netns {id}"));
        self.shell(&format!("ip link set {end} up"));
        other.shell(&format!("ip link set {other_end} up"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
