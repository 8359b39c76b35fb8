//! A running guest.

use crate::image::image;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Room for some ten thousand links.
const MEMORY_MIB: u32 = 2048;
/// Slow machines spare what a guest of one process does not need.
const KERNEL_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable cryptomgr.notests \
                           random.trust_cpu=on rcupdate.rcu_expedited=1";

pub(crate) struct Guest {
    claim: String,
    began: Instant,
    process: Child,
    console: Receiver<String>,
}

/// One claim at a time: guests are emulated, and two of them already take two processors.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guest {
    /// `trunk` is the socket at which somebody holds the other end of its network card.
    pub(crate) fn boot(claim: &str, trunk: Option<&Path>) -> Self {
        let image = image();
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg", "-cpu", "Nehalem", "-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-serial", "stdio", "-m", &MEMORY_MIB.to_string()])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.files)
            .args(["-append", &format!("{KERNEL_LINE} claim={claim}")]);
        if let Some(path) = trunk {
            let path = path.display();
            let end = format!("stream,id=trunk,server=off,addr.type=unix,addr.path={path}");
            command.args(["-netdev", &end, "-device", "virtio-net-pci,netdev=trunk,romfile="]);
        }
        let began = Instant::now();
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
                panic!("cannot run qemu-system-x86_64: {error}; run packaging/install-dependencies.sh")
            });
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, console) = channel();
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        });
        Self { claim: claim.to_owned(), began, process, console }
    }

    /// Waits for the guest to end and to have said that its claim holds.
    pub(crate) fn expect_within(mut self, longest: Duration) {
        let wanted = format!("claim {} holds", self.claim);
        let mut said = Vec::new();
        let ended = loop {
            match self.console.recv_timeout((self.began + longest).saturating_duration_since(Instant::now()))
            {
                Ok(line) => said.push(line),
                Err(end) => break end,
            }
        };
        let took = self.began.elapsed().as_secs_f64();
        let late = if ended == RecvTimeoutError::Timeout { " and the guest did not end" } else { "" };
        assert!(
            late.is_empty() && said.contains(&wanted),
            "not said within {took:.1} s: {wanted}{late}\n{}",
            said.join("\n")
        );
        println!("{wanted}: {took:.1} s; {}", said.join("; "));
        let _ = self.process.wait();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
