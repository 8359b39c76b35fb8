//! A private libvirtd: its folders, network and processes live in namespaces of their own, and end with the test.
//! Beside it an NBD server with one image: a disk whose boot sector is the probe guest.

use controller_hypervisor::probe_disk;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// libvirtd must not be process 1 of its namespace: it does not reap QEMU's orphans.
const SCRIPT: &str = r#"
set -e; D=$1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/libvirt /run/lock
mount --bind $D/run /run/libvirt
mount --bind $D/lib /var/lib/libvirt
mount --bind $D/cache /var/cache/libvirt
mount --bind $D/log /var/log/libvirt
mount --bind $D/etc /etc/libvirt
ip link set lo up
ip tuntap add dev ctprobe0 mode tap vnet_hdr
while :; do libvirtd -p /run/libvirt/libvirtd.pid & echo $! >$D/pid; wait $! || true; sleep 0.05; done
"#;

const QEMU_CONF: &str = r#"
user = "root"
group = "root"
remember_owner = 0
dynamic_ownership = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
seccomp_sandbox = 0
"#;

pub(crate) struct Host {
    folder: tempfile::TempDir,
    namespace: Child,
    nbd: Child,
}

impl Host {
    /// The NBD server has the image under every name: each start of a guest has one of its own.
    pub(crate) fn start() -> Self {
        Self::start_with(&probe_disk())
    }

    /// As [`Host::start`], with another image.
    pub(crate) fn start_with(image: &[u8]) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes namespaces: run it as root");
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["run", "lib", "cache", "log", "etc"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        // libvirt moves no guest from a host to itself, and all of ours are one machine.
        let conf = format!(
            "host_uuid = \"{}\"\nunix_sock_rw_perms = \"0700\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n",
            uuid::Uuid::new_v4()
        );
        std::fs::write(at("etc/libvirtd.conf"), conf).unwrap();
        std::fs::write(at("etc/qemu.conf"), QEMU_CONF).unwrap();
        std::fs::write(at("base.img"), image).unwrap();
        let out = std::fs::File::create(at("log/out")).unwrap();
        let namespace = dying_with_us("unshare")
            .args([
                "--mount",
                "--uts",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--propagation",
                "private",
            ])
            .args(["bash", "-c", SCRIPT, "host"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let nbd = dying_with_us("nbdkit")
            .args(["--foreground", "--readonly", "--unix"])
            .arg(at("nbd.sock"))
            .arg("file")
            .arg(at("base.img"))
            .spawn()
            .unwrap();
        Self { folder, namespace, nbd }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn uri(&self) -> String {
        format!("qemu:///system?socket={}", self.at("run/libvirt-sock").display())
    }

    #[allow(dead_code, reason = "not every test binary needs it")]
    pub(crate) fn virsh(&self, args: &[&str]) -> String {
        let output = Command::new("virsh").args(["-q", "-c", &self.uri()]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The power goes: everything in its namespaces ends at once.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub(crate) fn power_off(&mut self) {
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
    }

    #[allow(dead_code, reason = "not every test binary needs it")]
    pub(crate) fn kill_libvirtd(&self) {
        let pid = std::fs::read_to_string(self.at("pid")).unwrap();
        let ours = self.namespace.id();
        let first = std::fs::read_to_string(format!("/proc/{ours}/task/{ours}/children")).unwrap();
        let done = Command::new("nsenter")
            .args(["-t", first.trim(), "-m", "-p", "kill", "-9", pid.trim()])
            .status()
            .unwrap();
        assert!(done.success());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in [&mut self.namespace, &mut self.nbd] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command that is killed when this thread ends, however it ends.
fn dying_with_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}
