//! Whether guests run on KVM here. `/dev/kvm` alone says little: on nested machines a guest may die in its first
//! seconds. So one is booted: firmware, boot sector, long mode, the instructions that are known to fail there.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The emulator of every guest.
pub const QEMU: &str = "qemu-system-x86_64";
/// The probe guest takes 0.2 s with TCG on an idle machine.
const PROBE_SECONDS_MAX: &str = "10";
/// `isa-debug-exit` makes QEMU exit with `(value << 1) | 1`; the guest writes 0x31 at its end.
const EXIT_CODE_GOOD: i32 = (0x31 << 1) | 1;

/// What runs guests' processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The processor itself.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Kind {
    /// `kvm` or `tcg`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accelerator {
    /// What guests run on.
    pub kind: Kind,
    /// Why not KVM, if so.
    pub reason: Option<String>,
}

/// Boots a probe guest with KVM; falls back to TCG and says why. Takes up to 10 s, blocking.
#[must_use]
pub fn probe_accelerator() -> Accelerator {
    let tried = match Path::new("/dev/kvm").exists() {
        false => Err("/dev/kvm does not exist".to_owned()),
        true => {
            boot_probe_guest(Kind::Kvm).map_err(|why| format!("a probe guest did not run with KVM: {why}"))
        }
    };
    match tried {
        Ok(()) => Accelerator { kind: Kind::Kvm, reason: None },
        Err(reason) => Accelerator { kind: Kind::Tcg, reason: Some(reason) },
    }
}

/// The version of QEMU, such as `10.0.2`.
///
/// # Errors
/// It is not installed or does not say.
pub fn qemu_version() -> Result<String, String> {
    let output = Command::new(QEMU)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {QEMU}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)
        .map(str::to_owned)
        .ok_or_else(|| format!("{QEMU} --version said {:?}", text.trim()))
}

/// Boots the probe guest to its end.
///
/// # Errors
/// What went wrong, for people.
pub fn boot_probe_guest(kind: Kind) -> Result<(), String> {
    let disk = ProbeDisk::make()?;
    let cpu = match kind {
        Kind::Kvm => "host",
        Kind::Tcg => "max",
    };
    // timeout(1) ends the guest also if this process dies meanwhile.
    let output = Command::new("timeout")
        .args(["--kill-after=1", PROBE_SECONDS_MAX, QEMU])
        .args(["-accel", kind.as_str(), "-cpu", cpu, "-machine", "q35", "-m", "64"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "null"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "virtio-blk-pci,drive=d"])
        .args(["-drive", &format!("if=none,id=d,format=raw,file={}", disk.0.display())])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {QEMU}: {error}"))?;
    match output.status.code() {
        Some(EXIT_CODE_GOOD) => Ok(()),
        Some(124) => Err(format!("it was not done after {PROBE_SECONDS_MAX} s")),
        Some(127) => Err(format!("{QEMU} is not installed: apt-get install qemu-system-x86")),
        _ => {
            let words = String::from_utf8_lossy(&output.stderr);
            let first = words.lines().find(|line| !line.trim().is_empty()).unwrap_or("QEMU said nothing");
            Err(format!("{} ({})", first.trim(), output.status))
        }
    }
}

/// A file that is gone when this is.
struct ProbeDisk(PathBuf);

impl ProbeDisk {
    fn make() -> Result<Self, String> {
        let name = format!("collective-probe-{}.img", uuid::Uuid::new_v4());
        let path = std::env::temp_dir().join(name);
        let fail = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(fail)?;
        let disk = Self(path.clone());
        file.write_all(&probe_disk()).map_err(fail)?;
        Ok(disk)
    }
}

impl Drop for ProbeDisk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A 1 MiB disk with the probe guest in its boot sector. It enters long mode, checks `cmpxchg16b`, SSE and (where the
/// processor has it) BMI2, prints a line on COM1, writes to the debug-exit port, and where that does not exist echoes
/// COM1 until it reads a `q`, on which it powers off.
#[must_use]
pub fn probe_disk() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..PROBE_GUEST.len()].copy_from_slice(&PROBE_GUEST);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// `probe_guest.S`, assembled: `as --64 -o p.o probe_guest.S && objcopy -O binary -j .text p.o p.bin`.
#[rustfmt::skip]
const PROBE_GUEST: [u8; 384] = [
    0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xea, 0x12, 0x7c,
    0x00, 0x00, 0xba, 0xf9, 0x03, 0x30, 0xc0, 0xee, 0xbf, 0x00, 0x10, 0xb9, 0x00, 0x18, 0xf3, 0xab,
    0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0xc7, 0x06, 0x00, 0x30,
    0x83, 0x00, 0x0f, 0x01, 0x16, 0x70, 0x7d, 0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8,
    0x0f, 0x20, 0xe0, 0x66, 0x0d, 0x20, 0x06, 0x00, 0x00, 0x0f, 0x22, 0xe0, 0x66, 0xb9, 0x80, 0x00,
    0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x66, 0x83, 0xe0, 0xfb,
    0x66, 0x0d, 0x03, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0xea, 0x6e, 0x7c, 0x08, 0x00, 0xbc, 0x00,
    0x80, 0x00, 0x00, 0xbf, 0x00, 0x40, 0x00, 0x00, 0x31, 0xc0, 0x31, 0xd2, 0x48, 0x89, 0x07, 0x48,
    0x89, 0x47, 0x08, 0xbb, 0x34, 0x12, 0x00, 0x00, 0xb9, 0x78, 0x56, 0x00, 0x00, 0xf0, 0x48, 0x0f,
    0xc7, 0x0f, 0x0f, 0x85, 0x8f, 0x00, 0x00, 0x00, 0x81, 0x7f, 0x08, 0x78, 0x56, 0x00, 0x00, 0x0f,
    0x85, 0x82, 0x00, 0x00, 0x00, 0xf3, 0x0f, 0x6f, 0x07, 0xf3, 0x0f, 0x7f, 0x47, 0x10, 0x81, 0x7f,
    0x10, 0x34, 0x12, 0x00, 0x00, 0x75, 0x70, 0xb8, 0x07, 0x00, 0x00, 0x00, 0x31, 0xc9, 0x0f, 0xa2,
    0x0f, 0xba, 0xe3, 0x08, 0x73, 0x25, 0xb8, 0x05, 0x00, 0x00, 0x00, 0xb9, 0x03, 0x00, 0x00, 0x00,
    0xc4, 0xe2, 0xf1, 0xf7, 0xd0, 0x83, 0xfa, 0x28, 0x75, 0x4d, 0xbf, 0x00, 0x40, 0x00, 0x00, 0xc7,
    0x07, 0x77, 0x00, 0x00, 0x00, 0xc4, 0xe3, 0x7b, 0xf0, 0x07, 0x04, 0x48, 0x8d, 0x35, 0x4f, 0x00,
    0x00, 0x00, 0xac, 0x84, 0xc0, 0x74, 0x07, 0xe8, 0x32, 0x00, 0x00, 0x00, 0xeb, 0xf4, 0xb0, 0x31,
    0xe6, 0xf4, 0x66, 0xba, 0xfd, 0x03, 0xec, 0xf3, 0x90, 0xa8, 0x01, 0x74, 0xf5, 0x66, 0xba, 0xf8,
    0x03, 0xec, 0x3c, 0x71, 0x74, 0x07, 0xe8, 0x13, 0x00, 0x00, 0x00, 0xeb, 0xe5, 0x66, 0xba, 0x04,
    0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xb0, 0x32, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x88, 0xc4,
    0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x88, 0xe0, 0x66, 0xba, 0xf8, 0x03, 0xee,
    0xc3, 0x63, 0x6f, 0x6c, 0x6c, 0x65, 0x63, 0x74, 0x69, 0x76, 0x65, 0x20, 0x70, 0x72, 0x6f, 0x62,
    0x65, 0x3a, 0x20, 0x6c, 0x6f, 0x6e, 0x67, 0x20, 0x6d, 0x6f, 0x64, 0x65, 0x0d, 0x0a, 0x00, 0x90,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,
    0x0f, 0x00, 0x60, 0x7d, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_guest_runs_to_its_end_with_tcg() {
        assert_eq!(boot_probe_guest(Kind::Tcg), Ok(()));
    }

    #[test]
    fn a_probe_answers_kvm_only_if_the_guest_ran_and_else_says_why() {
        let found = probe_accelerator();
        assert_eq!(found.kind == Kind::Tcg, found.reason.is_some(), "{found:?}");
    }

    #[test]
    fn the_version_is_a_number() {
        let version = qemu_version().unwrap();
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    }
}
