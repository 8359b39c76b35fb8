//! The cable between two guests, with somebody who looks at each frame.

use std::io::{self, Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub(crate) struct Trunk {
    folder: tempfile::TempDir,
    ends: [PathBuf; 2],
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Trunk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ends = ["a", "b"].map(|name| folder.path().join(name));
        let listeners = ends.each_ref().map(|end| UnixListener::bind(end).unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || join(&listeners, &log));
        Self { folder, ends, seen }
    }

    pub(crate) fn end(&self, number: usize) -> &Path {
        assert!(self.folder.path().exists());
        &self.ends[number]
    }

    /// All so far, as they are on a wire.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }
}

/// Waits for both ends, then carries frames until one hangs up.
fn join(listeners: &[UnixListener; 2], seen: &Arc<Mutex<Vec<Vec<u8>>>>) -> io::Result<()> {
    let (first, second) = (listeners[0].accept()?.0, listeners[1].accept()?.0);
    for (from, to) in [(first.try_clone()?, second.try_clone()?), (second, first)] {
        let seen = Arc::clone(seen);
        std::thread::spawn(move || carry(from, to, &seen));
    }
    Ok(())
}

fn carry(mut from: UnixStream, mut to: UnixStream, seen: &Mutex<Vec<Vec<u8>>>) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        from.read_exact(&mut frame)?;
        seen.lock().unwrap().push(frame.clone());
        to.write_all(&[&length[..], &frame].concat())?;
    }
}
