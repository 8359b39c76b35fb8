//! Threads for calls that block.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// libvirtd works on five requests of one client at a time by default; one is left for the keeper of the connection.
const THREADS: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// The threads; they end when this is dropped and their jobs are done.
#[derive(Debug)]
pub(crate) struct Pool(Sender<Job>);

impl Pool {
    pub(crate) fn new() -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for index in 0..THREADS {
            let receiver = Arc::clone(&receiver);
            std::thread::Builder::new().name(format!("libvirt-{index}")).spawn(move || work(&receiver))?;
        }
        Ok(Self(sender))
    }

    /// Runs a job. `None` if it panicked.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        let job = Box::new(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            if let Ok(result) = result {
                // Nobody waits any more: the caller gave up.
                let _ = sender.send(result);
            }
        });
        self.0.send(job).ok()?;
        receiver.await.ok()
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
