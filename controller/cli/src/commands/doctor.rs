//! `doctor`: can this machine be a host? Every check tries the thing itself, and says what to do when it fails.

use super::Session;
use crate::args::Global;
use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::time;
use controller_hypervisor::{Kind as Accelerator, probe_accelerator};
use nix::sched::{CloneFlags, unshare};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Oldest libvirt and QEMU that are tested.
const LIBVIRT_MAJOR_MIN: u32 = 11;
const QEMU_MAJOR_MIN: u32 = 10;
/// Less is too little for a first bundle.
const DISK_FREE_MIN: u64 = 4 << 30;
const MEMORY_FREE_MIN: u64 = 2 << 30;
/// The controller's usual port.
const PORT: u16 = 8443;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Kernel features are tried in a network namespace that is thrown away. Exit code 1: something \
    that is needed is missing."
)]
pub(crate) struct Args {}

/// What came out of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    /// It works without, less well.
    Warning,
    /// It does not work without.
    Missing,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    result: Outcome,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, result: Outcome::Ok, found: found.into(), remedy: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, result: Outcome::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, result: Outcome::Missing, found: found.into(), remedy: Some(remedy.into()) }
    }
}

pub(crate) async fn run(global: &Global, _args: &Args) -> Result<ExitCode, Failure> {
    let local = tokio::task::spawn_blocking(checks);
    let mut checks = local.await.map_err(|error| Failure::failed(error.to_string()))?;
    checks.push(controller(global).await);
    let mut out = io::stdout();
    match global.output {
        Format::Json => output::json(&mut out, &checks)?,
        Format::Yaml => output::yaml(&mut out, &checks)?,
        _ => show(&mut out, &checks, output::colours())?,
    }
    let missing = checks.iter().any(|check| check.result == Outcome::Missing);
    Ok(if missing { ExitCode::from(Code::Failed as u8) } else { ExitCode::SUCCESS })
}

fn checks() -> Vec<Check> {
    let mut checks = vec![root()];
    checks.extend(kernel());
    checks.push(program("iproute2", "ip", "-V", None, "install iproute2"));
    checks.push(program("nsenter", "nsenter", "--version", None, "install util-linux"));
    checks.push(program("nftables", "nft", "--version", None, "install nftables"));
    checks.push(program(
        "libvirt",
        "libvirtd",
        "--version",
        Some(LIBVIRT_MAJOR_MIN),
        "install libvirt-daemon-system",
    ));
    let qemu = "install qemu-system-x86";
    checks.push(program("QEMU", controller_hypervisor::QEMU, "--version", Some(QEMU_MAJOR_MIN), qemu));
    checks.push(program("qemu-img", "qemu-img", "--version", Some(QEMU_MAJOR_MIN), "install qemu-utils"));
    checks.push(accelerator());
    checks.push(disk());
    checks.push(memory());
    checks.push(port());
    checks
}

fn root() -> Check {
    if nix::unistd::geteuid().is_root() {
        return Check::ok("root", "yes");
    }
    Check::missing(
        "root",
        "no",
        "daemons get their rights from systemd; a playground and these checks need sudo",
    )
}

/// Tries each kind of link and rule in a namespace that ends with the thread.
fn kernel() -> Vec<Check> {
    let tried = std::thread::spawn(|| -> io::Result<Vec<Check>> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(KERNEL_FEATURES.iter().map(try_feature).collect())
    });
    match tried.join().unwrap_or_else(|_| Err(io::Error::other("the check panicked"))) {
        Ok(mut checks) => {
            checks.insert(0, Check::ok("namespaces", "a network namespace can be made"));
            checks
        }
        Err(error) => {
            vec![Check::missing(
                "namespaces",
                error.to_string(),
                "run as root on a kernel with CONFIG_NET_NS",
            )]
        }
    }
}

struct Feature {
    name: &'static str,
    argv: &'static [&'static str],
    input: &'static str,
    remedy: &'static str,
}

const KERNEL_FEATURES: [Feature; 5] = [
    Feature {
        name: "tun",
        argv: &["ip", "tuntap", "add", "ct0", "mode", "tap", "vnet_hdr"],
        input: "",
        remedy: "load the kernel module tun and make /dev/net/tun available",
    },
    Feature {
        name: "bridge",
        argv: &["ip", "link", "add", "cb0", "type", "bridge"],
        input: "",
        remedy: "use a kernel with CONFIG_BRIDGE (modprobe bridge)",
    },
    Feature {
        name: "vxlan",
        argv: &[
            "ip",
            "link",
            "add",
            "cx0",
            "type",
            "vxlan",
            "id",
            "1",
            "dstport",
            "4789",
            "local",
            "127.0.0.1",
        ],
        input: "",
        remedy: "use a kernel with CONFIG_VXLAN (modprobe vxlan)",
    },
    Feature {
        name: "veth",
        argv: &["ip", "link", "add", "cv0", "type", "veth", "peer", "name", "cv1"],
        input: "",
        remedy: "use a kernel with CONFIG_VETH (modprobe veth); only the playground needs it",
    },
    Feature {
        name: "nft bridge",
        argv: &["nft", "-f", "-"],
        input: "table bridge collective-doctor {\n  map ports { type ifname . ether_addr : verdict; }\n  \
                chain forward { type filter hook forward priority 0; policy drop; }\n}\n",
        remedy: "use a kernel with CONFIG_NF_TABLES_BRIDGE (modprobe nf_tables)",
    },
];

fn try_feature(feature: &Feature) -> Check {
    let tried = || -> io::Result<std::process::Output> {
        let mut child = Command::new(feature.argv[0])
            .args(&feature.argv[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(feature.input.as_bytes())?;
        }
        child.wait_with_output()
    };
    match tried() {
        Ok(output) if output.status.success() => Check::ok(feature.name, "made in a private namespace"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let first = text.lines().next().unwrap_or("it failed without a word").to_owned();
            Check::missing(feature.name, first, feature.remedy)
        }
        Err(error) => {
            let found = format!("cannot run {}: {error}", feature.argv[0]);
            Check::missing(feature.name, found, format!("install {}", feature.argv[0]))
        }
    }
}

fn program(name: &'static str, program: &str, flag: &str, major_min: Option<u32>, remedy: &str) -> Check {
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return Check::missing(name, format!("cannot run {program}: {error}"), remedy),
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    match (major_min, major(&line)) {
        (Some(min), Some(major)) if major < min => Check::missing(
            name,
            line,
            format!("{remedy} {min} or newer (on Debian 12 from bookworm-backports)"),
        ),
        (Some(min), None) => {
            Check::warning(name, line, format!("its version is unknown; {min} or newer is needed"))
        }
        _ => Check::ok(name, line),
    }
}

/// First number that is followed by a dot: `QEMU emulator version 10.0.2 (...)` is 10.
fn major(line: &str) -> Option<u32> {
    line.split_ascii_whitespace().find_map(|word| {
        let (digits, _) = word.split_once('.')?;
        digits.parse().ok()
    })
}

/// `/dev/kvm` says little: only a guest that ran with it does.
fn accelerator() -> Check {
    let probed = probe_accelerator();
    match (probed.kind, probed.reason) {
        (Accelerator::Kvm, _) => Check::ok("KVM", "a probe guest booted with it"),
        (Accelerator::Tcg, reason) => Check::warning(
            "KVM",
            reason.unwrap_or_else(|| "it does not work here".to_owned()),
            "guests are emulated (TCG), several times slower; enable virtualisation in the firmware or the outer \
             hypervisor",
        ),
    }
}

/// The nearest folder that is there.
fn disk() -> Check {
    let place =
        ["/var/lib/collective", "/var/lib", "/"].into_iter().map(Path::new).find(|path| path.is_dir());
    let place = place.unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(place) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let found = format!("{} free at {}", time::bytes(free), place.display());
            if free >= DISK_FREE_MIN {
                return Check::ok("disk", found);
            }
            Check::warning("disk", found, format!("free some: {} at least", time::bytes(DISK_FREE_MIN)))
        }
        Err(error) => Check::warning("disk", error.to_string(), "look at the file system of /var/lib"),
    }
}

fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = available(&text).unwrap_or(0);
    let found = format!("{} available", time::bytes(free));
    if free >= MEMORY_FREE_MIN {
        return Check::ok("memory", found);
    }
    Check::warning("memory", found, format!("free some: {} at least", time::bytes(MEMORY_FREE_MIN)))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn port() -> Check {
    match std::net::TcpListener::bind(("127.0.0.1", PORT)) {
        Ok(_) => Check::ok("port", format!("127.0.0.1:{PORT} is free")),
        Err(error) => Check::warning(
            "port",
            format!("127.0.0.1:{PORT}: {error}"),
            "a controller or playground may already run; else choose another port",
        ),
    }
}

async fn controller(global: &Global) -> Check {
    let session = match Session::new(global) {
        Ok(session) => session,
        Err(failure) => {
            return Check::ok("controller", format!("not asked: {}", failure.messages.join("; ")));
        }
    };
    let server = session.context.server.clone();
    match session.client.version().await.map_err(Failure::from) {
        Ok(view) => Check::ok("controller", format!("{server} answers, version {}", view.version)),
        Err(failure) => Check::warning(
            "controller",
            failure.messages.join("; "),
            "is it running, and is the context right? `collective playground up` makes one to try",
        ),
    }
}

fn show(out: &mut impl Write, checks: &[Check], colours: bool) -> io::Result<()> {
    for check in checks {
        let (word, colour) = match check.result {
            Outcome::Ok => ("ok", "32"),
            Outcome::Warning => ("warning", "33"),
            Outcome::Missing => ("missing", "31"),
        };
        let mark = if colours { format!("\u{1b}[{colour}m{word:<8}\u{1b}[0m") } else { format!("{word:<8}") };
        writeln!(out, "{mark} {:<12} {}", check.name, output::printable(&check.found))?;
        if let Some(remedy) = &check.remedy {
            writeln!(out, "{:<22}-> {remedy}", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), Some(10));
        assert_eq!(major("libvirtd (libvirt) 11.3.0"), Some(11));
        assert_eq!(major("qemu-img version 9.2.1"), Some(9));
        assert_eq!(major("nothing"), None);
    }

    #[test]
    fn a_missing_thing_is_told_with_what_to_do() {
        let check = program("libvirt", "no-such-program", "--version", Some(11), "install libvirt");
        assert_eq!((check.result, check.remedy.as_deref()), (Outcome::Missing, Some("install libvirt")));
        let mut out = Vec::new();
        show(&mut out, &[check], false).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("missing  libvirt      cannot run no-such-program: "), "{text}");
        assert!(text.ends_with("-> install libvirt\n"), "{text}");
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("nonsense"), None);
    }
}
