//! Hosts and a switch between them: network namespaces, links between them, and the shape of those links.
//!
//! ```text
//!   host 1: eth0 10.77.0.1 ──tbf─▶ ◀─tbf── p1 ┐
//!   host 2: eth0 10.77.0.2 ──tbf─▶ ◀─tbf── p2 ┤ 10.77.255.254, forwards (tracker)
//! ```
//!
//! The switch routes. A bridge was refused: with it every host knows every other one's hardware address, and the kernel
//! keeps 1024 of those for the whole machine, however many namespaces there are; beyond 32 hosts some are deaf.

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, unshare};
use playground::namespace;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes a shaped link sends at once: the largest segment the kernel hands to a link, so that none is cut up.
const BURST_BYTES: u64 = 64 * 1024;
/// Least queue of a shaped link: a small switch's port.
const QUEUE_BYTES_MIN: u64 = 128 * 1024;
/// Time a shaped link's queue lasts.
const QUEUE_MS: u64 = 10;
/// Where the tracker listens.
pub(crate) const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);

/// Rate of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) bits_per_s: u64,
}

impl Rate {
    pub(crate) const fn mbit(mbit_per_s: u64) -> Self {
        Self { bits_per_s: mbit_per_s * 1_000_000 }
    }

    /// Seconds that many bytes take.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a disk fit a float exactly")]
    pub(crate) fn seconds(self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / self.bits_per_s as f64
    }
}

/// A network namespace that exists while this does, or a program runs in it.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let make = || -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        let made = std::thread::spawn(make).join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        Ok(Self(made.context("cannot make a network namespace: this needs root")?))
    }

    /// For this process and others.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Runs `ip`, `bridge` or `tc` with a batch of commands.
    pub(crate) fn batch(&self, program: &'static str, lines: String) -> anyhow::Result<()> {
        self.feed(program, &["-batch", "-"], lines)
    }

    /// Runs a program with something to read.
    pub(crate) fn feed(
        &self,
        program: &'static str,
        arguments: &'static [&'static str],
        lines: String,
    ) -> anyhow::Result<()> {
        let what = format!("{program} (package iproute2, nftables or procps)");
        let output = namespace::run(&self.path(), move || -> io::Result<std::process::Output> {
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut input) = child.stdin.take() {
                input.write_all(lines.as_bytes())?;
            }
            child.wait_with_output()
        });
        let output = output.and_then(|inner| inner).with_context(|| what.clone())?;
        ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// What a program says.
    pub(crate) fn output(
        &self,
        program: &'static str,
        arguments: &'static [&'static str],
    ) -> anyhow::Result<String> {
        let run = move || Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let output = namespace::run(&self.path(), run).and_then(|inner| inner).context(program)?;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The switch all hosts are plugged into.
#[derive(Debug)]
pub(crate) struct Switch {
    namespace: Namespace,
    hosts: AtomicU8,
}

impl Switch {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let namespace = Namespace::new()?;
        namespace.batch("ip", format!("link set lo up\naddress add {SWITCH}/32 dev lo\n"))?;
        // Of the namespace this thread is in: the machine's own forwarding stays as it is.
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        let forwards = namespace::run(&namespace.path(), forward).and_then(|inner| inner);
        forwards.context("the switch cannot forward")?;
        Ok(Self { namespace, hosts: AtomicU8::new(0) })
    }

    pub(crate) fn network(&self) -> PathBuf {
        self.namespace.path()
    }

    /// A new host whose link has no limit yet. 250 at most.
    pub(crate) fn plug(&self) -> anyhow::Result<Host> {
        let number = self.hosts.fetch_add(1, Ordering::SeqCst) + 1;
        ensure!(number <= 250, "the switch is full");
        let namespace = Namespace::new()?;
        let port = format!("p{number}");
        let address = Ipv4Addr::new(10, 77, 0, number);
        self.namespace.batch(
            "ip",
            format!(
                "link add {port} type veth peer name eth0 netns {}\nlink set {port} up\n\
                 address add {SWITCH}/32 dev {port}\nroute add {address}/32 dev {port} src {SWITCH}\n",
                namespace.path().display()
            ),
        )?;
        namespace.batch(
            "ip",
            format!(
                "link set lo up\naddress add {address}/32 dev eth0\nlink set eth0 up\n\
                 route add {SWITCH}/32 dev eth0 src {address}\nroute add default via {SWITCH} src {address}\n"
            ),
        )?;
        Ok(Host { namespace, address, port })
    }

    /// Limits a host's link, both ways.
    pub(crate) fn shape(&self, host: &Host, rate: Rate) -> anyhow::Result<()> {
        host.namespace.batch("tc", bucket("eth0", rate))?;
        self.namespace.batch("tc", bucket(&host.port, rate))
    }
}

fn bucket(link: &str, rate: Rate) -> String {
    let queue = (rate.bits_per_s / 8 * QUEUE_MS / 1000).max(QUEUE_BYTES_MIN) + BURST_BYTES;
    let mut line = String::new();
    let _ = writeln!(
        line,
        "qdisc replace dev {link} root tbf rate {}bit burst {BURST_BYTES} limit {queue}",
        rate.bits_per_s
    );
    line
}

/// What a note says of shaped links.
pub(crate) fn shape_note(rate: Rate) -> String {
    format!(
        "links {} Mbit/s both ways by tbf (burst 64 KiB, queue {QUEUE_MS} ms or at least 128 KiB)",
        rate.bits_per_s / 1_000_000
    )
}

/// A host on the switch.
#[derive(Debug)]
pub(crate) struct Host {
    namespace: Namespace,
    pub(crate) address: Ipv4Addr,
    port: String,
}

impl Host {
    pub(crate) fn network(&self) -> PathBuf {
        self.namespace.path()
    }

    /// Bytes its link has carried towards it and from it, headers included.
    pub(crate) fn carried_bytes(&self) -> anyhow::Result<(u64, u64)> {
        let table = namespace::run(&self.network(), || std::fs::read_to_string("/proc/thread-self/net/dev"));
        let table = table.and_then(|inner| inner).context("cannot read a link's counters")?;
        parse_counters(&table).context("a host has no eth0")
    }
}

fn parse_counters(table: &str) -> Option<(u64, u64)> {
    let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:"))?;
    let mut fields = line.split_ascii_whitespace();
    let received = fields.next()?.parse().ok()?;
    let sent = fields.nth(7)?.parse().ok()?;
    Some((received, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_link_and_of_both_ways() {
        let table = "Inter-| Receive | Transmit\n    lo: 1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n  eth0: 700 9 0 0 0 0 0 0 55 3 0 0 0 0 0 0\n";
        assert_eq!(parse_counters(table), Some((700, 55)));
        assert_eq!(parse_counters("lo: 1"), None);
    }

    #[test]
    fn a_slow_link_still_queues_a_small_switchs_port() {
        assert!(bucket("eth0", Rate::mbit(20)).contains("rate 20000000bit burst 65536 limit 196608"));
        assert!(bucket("eth0", Rate::mbit(1000)).contains("limit 1315536"));
    }
}
