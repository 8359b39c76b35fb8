//! Real guests: QEMU without KVM boots the workspace appliance until it says `ready` on its virtio-serial port.
//!
//! The workspace needs no network for that: it says so once its pages are served inside. So a guest has none.

use crate::argv;
use crate::lab::until;
use crate::leash::{Leashed, output};
use anyhow::Context as _;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The port's name; the hypervisor's own.
const HEALTH_PORT: &str = "org.collective.health.0";
/// Longest boot.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);
/// As in the hypervisor's machines.
const RECONNECT_DELAY_S: u32 = 30;
const INSTANCE: &str = "INSTANCE=\"bench/workspace\"\nMEMBER=\"workspace\"\nINCARNATION=\"5f1c3c44-0000-4000-8000-000000000002\"\n";

/// What lies below the guest's overlay.
#[derive(Debug, Clone)]
pub(crate) enum Backing {
    /// A complete file.
    File(PathBuf),
    /// An export on a unix socket.
    Nbd { socket: PathBuf, export: String },
}

/// A guest that is prepared and not yet started.
#[derive(Debug)]
pub(crate) struct Guest {
    folder: tempfile::TempDir,
}

impl Guest {
    /// Makes its configuration disk and an overlay over `size_bytes`.
    pub(crate) fn prepare(parent: &Path, size_bytes: u64) -> anyhow::Result<Self> {
        let folder = tempfile::TempDir::new_in(parent)?;
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("instance.env"), INSTANCE)?;
        std::fs::File::create(path("config"))?.set_len(2 << 20)?;
        output(&argv!["mkfs.vfat", "-n", "CIDATA", path("config")])?;
        output(&argv!["mcopy", "-i", path("config"), path("instance.env"), "::/instance.env"])?;
        let size = size_bytes.to_string();
        output(&argv!["qemu-img", "create", "-q", "-f", "qcow2", path("overlay"), size])?;
        std::fs::write(path("health"), "")?;
        Ok(Self { folder })
    }

    /// Starts it and waits until it is ready: how long that took since `since`.
    pub(crate) async fn boot(&self, backing: &Backing, since: Instant) -> anyhow::Result<Duration> {
        let path = |name: &str| self.folder.path().join(name);
        let log = path("qemu");
        let qemu = Leashed::start(None, &self.command_line(backing), &log)?;
        let health = path("health");
        let boot = until("the guest to be ready", BOOT_TIMEOUT, || async {
            let health = std::fs::read_to_string(&health).unwrap_or_default();
            Ok(health.lines().any(|line| line == "ready").then(|| since.elapsed()))
        });
        let boot = boot.await.with_context(|| {
            let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
            format!("QEMU says {:?}; the console ends {:?}", read("qemu").trim(), tail(&read("console")))
        })?;
        drop(qemu);
        Ok(boot)
    }

    fn command_line(&self, backing: &Backing) -> Vec<std::ffi::OsString> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let image = match backing {
            Backing::File(file) => {
                json!({"driver": "file", "node-name": "image", "filename": file, "read-only": true})
            }
            Backing::Nbd { socket, export } => json!({
                "driver": "nbd", "node-name": "image", "read-only": true, "export": export,
                "server": {"type": "unix", "path": socket}, "reconnect-delay": RECONNECT_DELAY_S,
            }),
        };
        let nodes = [
            image,
            json!({"driver": "file", "node-name": "overlay", "filename": path("overlay"), "cache": {"no-flush": true}}),
            json!({"driver": "qcow2", "node-name": "system", "file": "overlay", "backing": "image"}),
            json!({"driver": "file", "node-name": "config", "filename": path("config"), "read-only": true}),
        ];
        let mut argv =
            argv!["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512"]
                .to_vec();
        argv.extend(argv!["-display", "none", "-nodefaults", "-no-user-config"]);
        argv.extend(argv!["-serial", format!("file:{}", path("console"))]);
        for node in nodes {
            argv.extend(argv!["-blockdev", node.to_string()]);
        }
        argv.extend(argv!["-device", "virtio-blk-pci,drive=system,bootindex=0"]);
        argv.extend(argv!["-device", "virtio-blk-pci,drive=config"]);
        argv.extend(argv!["-chardev", format!("file,id=health,path={}", path("health"))]);
        argv.extend(argv!["-device", "virtio-serial-pci"]);
        argv.extend(argv!["-device", format!("virtserialport,chardev=health,name={HEALTH_PORT}")]);
        argv.extend(argv!["-device", "virtio-rng-pci"]);
        argv
    }
}

fn tail(text: &str) -> &str {
    let start = text.char_indices().rev().nth(400).map_or(0, |(at, _)| at);
    &text[start..]
}
