//! Boots an appliance before it is published: a scratch overlay, no network, QEMU alone. What does not start here starts
//! nowhere.

use crate::commands::note;
use crate::failure::Failure;
use crate::output::printable;
use crate::time;
use controller_api::document::ApplianceSpec;
use controller_hypervisor::{Kind as Accelerator, probe_accelerator};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Where a guest says that it serves.
const HEALTH_PORT: &str = "org.collective.health.0";
/// Between two looks at what the guest has said.
const LOOK: Duration = Duration::from_millis(100);
/// Last lines of the console that are shown, and bytes of it that are read for them.
const LINES_SHOWN: usize = 20;
const CONSOLE_BYTES_MAX: usize = 4 << 20;
/// A volume for the test.
const VOLUME_BYTES: u64 = 1 << 30;
/// Longest reason for not booting.
const REASON_LEN_MAX: usize = 256;

/// Options of the test.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SmokeArgs {
    /// How long the appliance may take to start before it is refused
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = time::duration)]
    smoke_timeout: Duration,
    /// Do not boot it first; the reason is published with the version
    #[arg(long, value_name = "REASON")]
    no_smoke_test: Option<String>,
    /// The QEMU that boots it
    #[arg(long, value_name = "FILE", default_value = "qemu-system-x86_64", env = "COLLECTIVE_QEMU")]
    qemu: PathBuf,
}

/// Boots it, or answers the reason why not.
pub(crate) async fn test(
    args: &SmokeArgs,
    spec: &ApplianceSpec,
    disk: &Path,
) -> Result<Option<String>, Failure> {
    if let Some(reason) = &args.no_smoke_test {
        if reason.trim().is_empty() || reason.len() > REASON_LEN_MAX || reason.chars().any(char::is_control) {
            return Err(Failure::usage("--no-smoke-test wants a reason of 1 to 256 bytes on one line"));
        }
        return Ok(Some(reason.clone()));
    }
    let began = Instant::now();
    let scratch =
        tempfile::tempdir().map_err(|error| Failure::failed(format!("no scratch folder: {error}")))?;
    // A kernel may offer KVM and not run a guest with it.
    let probed = tokio::task::spawn_blocking(probe_accelerator).await;
    let accelerator = probed.map_or(Accelerator::Tcg, |probed| probed.kind);
    let mut guest = Guest::start((args.qemu.as_path(), accelerator), spec, disk, scratch.path())?;
    note(format_args!("booting it once without a network; it has {}", words(args.smoke_timeout)));
    let outcome = guest.wait(args.smoke_timeout).await;
    // It is killed with its handle as well; here it is waited for, so that nothing of it is left.
    let _ = guest.child.kill().await;
    match outcome {
        Ok(()) => {
            note(format_args!("it started within {:.1} s", began.elapsed().as_secs_f32()));
            Ok(None)
        }
        Err(why) => Err(Failure::refused(guest.report(&why, spec))),
    }
}

fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    if seconds >= 60 && seconds.is_multiple_of(60) {
        format!("{} min", seconds / 60)
    } else {
        format!("{seconds} s")
    }
}

enum Expected {
    Ready,
    Console(String),
}

struct Guest {
    child: Child,
    expected: Expected,
    health: PathBuf,
    console: PathBuf,
    errors: PathBuf,
}

impl Guest {
    fn start(
        (qemu, accelerator): (&Path, Accelerator),
        spec: &ApplianceSpec,
        disk: &Path,
        scratch: &Path,
    ) -> Result<Self, Failure> {
        let failed = |what: &Path, error: std::io::Error| {
            Failure::failed(format!("cannot use {}: {error}", what.display()))
        };
        let path = |name: &str| scratch.join(name);
        let config = path("config");
        std::fs::create_dir(&config).map_err(|error| failed(&config, error))?;
        for (name, text) in [
            ("meta-data", "instance-id: smoke-test\nlocal-hostname: smoke-test\n".to_owned()),
            ("user-data", "#cloud-config\n{}\n".to_owned()),
            ("instance.env", environment(spec)),
        ] {
            std::fs::write(config.join(name), text).map_err(|error| failed(&config, error))?;
        }
        let volumes: Vec<_> =
            spec.volumes.iter().map(|name| (name, path(&format!("volume-{name}.raw")))).collect();
        for (_, volume) in &volumes {
            std::fs::File::create(volume)
                .and_then(|file| file.set_len(VOLUME_BYTES))
                .map_err(|error| failed(volume, error))?;
        }
        let mut command = Command::new(qemu);
        let arguments = arguments(accelerator, spec, disk, scratch, &volumes);
        let errors = std::fs::File::create(path("errors")).map_err(|error| failed(scratch, error))?;
        command.args(arguments).env("TMPDIR", scratch).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = command.spawn().map_err(|error| {
            Failure::failed(format!(
                "cannot start {}: {error}; install QEMU, or publish with --no-smoke-test REASON",
                qemu.display()
            ))
        })?;
        let expected = match &spec.smoke {
            Some(smoke) => Expected::Console(smoke.console.clone()),
            None => Expected::Ready,
        };
        let (health, console, errors) = (path("health"), path("console"), path("errors"));
        Ok(Self { child, expected, health, console, errors })
    }

    async fn wait(&mut self, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            if self.has_started() {
                return Ok(());
            }
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(ended(status)),
                Err(error) => return Err(format!("QEMU cannot be watched: {error}")),
            }
            if Instant::now() >= end {
                return Err(format!("it did not start within {}", words(limit)));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn has_started(&self) -> bool {
        match &self.expected {
            Expected::Ready => tail(&self.health).lines().any(|line| line.trim() == "ready"),
            Expected::Console(text) => tail(&self.console).contains(text.as_str()),
        }
    }

    fn report(&self, why: &str, spec: &ApplianceSpec) -> Vec<String> {
        let expected = match &spec.smoke {
            Some(smoke) => format!("{:?} on its console", smoke.console),
            None => format!("`ready` on its port {HEALTH_PORT}"),
        };
        let mut messages = vec![format!("not published: {why}; expected was {expected}")];
        let (console, errors) = (tail(&self.console), tail(&self.errors));
        let text = if console.trim().is_empty() { errors } else { console };
        let lines: Vec<_> = text.lines().map(|line| printable(line.trim_end_matches('\r'))).collect();
        let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        messages.push(if shown.is_empty() {
            "its console stayed empty: does it write to ttyS0?".to_owned()
        } else {
            format!("its last lines:\n  {}", shown.join("\n  "))
        });
        messages
    }
}

fn ended(status: ExitStatus) -> String {
    format!("the guest ended by itself ({status})")
}

/// The end of what a guest has written so far.
fn tail(path: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        let from = file.metadata()?.len().saturating_sub(CONSOLE_BYTES_MAX as u64);
        file.seek(SeekFrom::Start(from))?;
        file.take(CONSOLE_BYTES_MAX as u64).read_to_end(&mut bytes)
    });
    // It may not have been made yet.
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
}

/// Commas separate QEMU's options: one in a path is written twice.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn arguments(
    accelerator: Accelerator,
    spec: &ApplianceSpec,
    disk: &Path,
    scratch: &Path,
    volumes: &[(&types::VolumeName, PathBuf)],
) -> Vec<String> {
    let at = |name: &str| quoted(&scratch.join(name));
    let mut list: Vec<String> = Vec::new();
    let mut say = |parts: &[&str]| list.extend(parts.iter().map(|part| (*part).to_owned()));
    say(&["-name", "smoke-test", "-machine", "q35", "-cpu", "max", "-nodefaults", "-no-user-config"]);
    say(&["-accel", accelerator.as_str(), "-display", "none", "-no-reboot", "-nic", "none"]);
    let hardware = &spec.hardware;
    say(&["-smp", &hardware.vcpus.to_string(), "-m", &format!("{}K", hardware.memory.0 / 1024)]);
    say(&["-drive", &format!("if=none,id=system,format=raw,snapshot=on,file={}", quoted(disk))]);
    say(&["-device", "virtio-blk-pci,drive=system,bootindex=0"]);
    for (name, path) in volumes {
        say(&["-drive", &format!("if=none,id=volume-{name},format=raw,file={}", quoted(path))]);
        say(&["-device", &format!("virtio-blk-pci,drive=volume-{name},serial=vol-{name}")]);
    }
    let config =
        format!("driver=vvfat,node-name=config,dir={},label=CIDATA,floppy=on,read-only=on", at("config"));
    say(&["-blockdev", &config, "-device", "virtio-blk-pci,drive=config,serial=config"]);
    for (index, _) in spec.ports.iter().enumerate() {
        say(&["-device", &format!("virtio-net-pci,mac={},romfile=", mac(index))]);
    }
    say(&["-chardev", &format!("file,id=console,path={}", at("console")), "-serial", "chardev:console"]);
    say(&["-chardev", &format!("file,id=health,path={}", at("health")), "-device", "virtio-serial-pci"]);
    say(&["-device", &format!("virtserialport,chardev=health,name={HEALTH_PORT}")]);
    say(&["-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random"]);
    list
}

fn mac(index: usize) -> String {
    format!("02:1f:ff:00:00:{index:02x}")
}

/// What a guest is told: addresses for documentation (RFC 5737), each port in a subnet of its own.
fn environment(spec: &ApplianceSpec) -> String {
    let mut text = String::from(
        "INSTANCE=\"smoke/test\"\nDEPLOYMENT=\"smoke\"\nMEMBER=\"test\"\nINCARNATION=\"smoke-test\"\n",
    );
    let ports: Vec<_> = spec.ports.iter().map(types::PortName::as_str).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "PORTS=\"{}\"", ports.join(" "));
    for (index, port) in ports.iter().enumerate() {
        let (name, net) = (port.replace('-', "_"), index * 32);
        let _ = writeln!(
            text,
            "PORT_{name}_MAC=\"{}\"\nPORT_{name}_ADDRESS=\"192.0.2.{}/27\"\nPORT_{name}_ROUTER=\"\"\nPORT_{name}_MTU=\"1450\"",
            mac(index),
            net + 2
        );
    }
    if let [from, to, ..] = ports.as_slice() {
        let _ = writeln!(
            text,
            "GATEWAY_FROM=\"{from}\"\nGATEWAY_TO=\"{to}\"\nLEASES=\"\"\nFORWARDS=\"\"\nOUTBOUND=\"\""
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    /// A disk whose boot sector writes a text to the serial port and stays, or ends the machine.
    fn disk(folder: &Path, text: &str) -> PathBuf {
        // mov si,text; next: lodsb; test al,al; jz stay; mov dx,0x3f8; out dx,al; jmp next; stay: hlt; jmp stay
        let mut sector =
            vec![0xbe, 0x13, 0x7c, 0xac, 0x84, 0xc0, 0x74, 0x08, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5];
        sector.extend([0x90, 0x90, 0xf4, 0xeb, 0xfd]);
        sector.extend(text.as_bytes());
        sector.resize(1 << 20, 0);
        (sector[510], sector[511]) = (0x55, 0xaa);
        let path = folder.join("system, with comma.raw");
        std::fs::write(&path, sector).unwrap();
        path
    }

    fn spec(console: Option<&str>) -> ApplianceSpec {
        let mut spec: ApplianceSpec = serde_json::from_value(serde_json::json!({
            "hardware": {"vcpus": 1, "memory": "32MiB"}, "disks": {"system": {"file": "system.raw"}},
            "ports": ["wan", "lan"], "volumes": ["home"],
        }))
        .unwrap();
        spec.smoke = console.map(|text| controller_api::document::SmokeSpec { console: text.to_owned() });
        spec
    }

    fn args(seconds: u64) -> SmokeArgs {
        SmokeArgs {
            smoke_timeout: Duration::from_secs(seconds),
            no_smoke_test: None,
            qemu: "qemu-system-x86_64".into(),
        }
    }

    #[tokio::test]
    async fn a_guest_that_shows_its_text_is_published_and_its_disk_is_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path(), "login: ");
        let before = std::fs::read(&disk).unwrap();
        assert_eq!(test(&args(120), &spec(Some("login:")), &disk).await, Ok(None));
        assert_eq!(std::fs::read(&disk).unwrap(), before);
    }

    #[tokio::test]
    async fn a_guest_that_does_not_start_is_refused_with_what_it_last_said() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path(), "panic: no root\x1b[2J\r\n");
        for spec in [spec(Some("login:")), spec(None)] {
            let refused = test(&args(5), &spec, &disk).await.unwrap_err();
            assert_eq!(refused.code, Code::Refused);
            assert!(refused.messages[0].contains("did not start within 5 s"), "{refused:?}");
            assert!(refused.messages[1].contains("panic: no root"), "{refused:?}");
            assert!(!refused.messages[1].contains('\x1b'));
        }
    }

    #[tokio::test]
    async fn not_booting_wants_a_reason_that_is_kept() {
        let without = |reason: &str| SmokeArgs { no_smoke_test: Some(reason.into()), ..args(1) };
        let nowhere = Path::new("/nonexistent");
        let kept = test(&without("built for arm"), &spec(None), nowhere).await;
        assert_eq!(kept, Ok(Some("built for arm".into())));
        for reason in ["", "  ", "two\nlines"] {
            assert_eq!(test(&without(reason), &spec(None), nowhere).await.unwrap_err().code, Code::Usage);
        }
        let none = SmokeArgs { qemu: "/nonexistent/qemu".into(), ..args(1) };
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path(), "");
        assert!(test(&none, &spec(None), &disk).await.unwrap_err().messages[0].contains("--no-smoke-test"));
    }
}
