//! Processes that can be named for longer than they live: a pid with its start time and boot.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// One process of this boot. Two processes never have the same identity, however often pids are recycled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// In the machine's own pid namespace.
    pub pid: i32,
    /// Clock ticks between the machine's boot and the process's start.
    pub start_ticks: u64,
}

/// Identity of this boot of the machine.
///
/// # Errors
/// `/proc` is not there.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

impl ProcessIdentity {
    /// Of a process that is there now.
    ///
    /// # Errors
    /// It is not.
    pub fn of(pid: i32) -> io::Result<Self> {
        let (start_ticks, _) = stat(pid)?;
        Ok(Self { pid, start_ticks })
    }

    /// It has not ended. A zombie has.
    #[must_use]
    pub fn alive(&self) -> bool {
        matches!(stat(self.pid), Ok((start, state)) if start == self.start_ticks && !matches!(state, 'Z' | 'X'))
    }

    /// Kills it and waits until it has ended, at most `patience`. One that has ended already is success.
    ///
    /// # Errors
    /// It may not be killed, or it did not end.
    pub fn kill(&self, patience: Duration) -> io::Result<()> {
        let Some(fd) = self.open()? else { return Ok(()) };
        match pidfd_send_signal(&fd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        wait_ended(&fd, patience)
    }

    /// A handle of exactly this process; none if it has ended.
    fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Looked at after the handle was taken: if the start time still agrees, the handle is the right process.
        Ok(self.alive().then_some(fd))
    }
}

fn wait_ended(fd: &OwnedFd, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the process does not end")),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Start time and state of a process.
fn stat(pid: i32) -> io::Result<(u64, char)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

/// The program's name in parentheses may itself contain parentheses and spaces: fields count from the last one.
fn parse_stat(text: &str) -> Option<(u64, char)> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((start, state))
}

/// Children of a process, in the machine's own pid namespace.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// What a process is called in the innermost pid namespace it is in.
pub(crate) fn inner_pid(pid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!(parse_stat(text), Some((98765, 'S')));
        assert_eq!(parse_stat("7 (x"), None);
    }

    #[test]
    fn never_kills_a_process_that_only_has_the_pid() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let real = ProcessIdentity::of(pid).unwrap();
        let recycled = ProcessIdentity { start_ticks: real.start_ticks - 1, ..real };
        recycled.kill(Duration::from_secs(1)).unwrap();
        assert!(real.alive());
        real.kill(Duration::from_secs(5)).unwrap();
        assert!(!real.alive());
        child.wait().unwrap();
        real.kill(Duration::from_secs(1)).unwrap();
    }
}
