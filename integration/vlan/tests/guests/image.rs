//! What a guest boots from: Debian's kernel, and a first file system of the few programs it needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const MODULES: [&str; 8] =
    ["8021q", "bridge", "veth", "tun", "virtio_net", "vxlan", "nf_tables", "nft_meta_bridge"];
/// What netd and the tests' helpers run.
const PROGRAMS: [&str; 4] = ["sh", "ip", "bridge", "nft"];
const FOLDERS: [&str; 6] = ["bin", "proc", "sys", "dev", "tmp", "modules"];

/// Of this run of the tests; its folder is gone with it.
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) files: PathBuf,
}

pub(crate) fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(build)
}

fn build() -> Image {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel.sh");
    let listing = output(Command::new(script).args(MODULES));
    let mut lines = listing.lines();
    let folder = PathBuf::from(lines.next().unwrap());
    let order: Vec<&str> = lines.collect();
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path();
    for name in FOLDERS {
        fs::create_dir(root.join(name)).unwrap();
    }
    for name in &order {
        let file = format!("{name}.ko");
        fs::copy(folder.join(&file), root.join("modules").join(&file)).unwrap();
    }
    fs::write(root.join("modules/order"), order.join("\n")).unwrap();
    let guest = Path::new(env!("CARGO_BIN_EXE_vlan-guest"));
    output(Command::new("strip").arg("-o").arg(root.join("init")).arg(guest));
    let mut libraries = libraries(guest);
    for name in PROGRAMS {
        let found = output(Command::new("sh").args(["-c", &format!("command -v {name}")]));
        let program = Path::new(found.trim());
        fs::copy(program, root.join("bin").join(name)).unwrap();
        libraries.extend(self::libraries(program));
    }
    for library in libraries {
        let place = root.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&library, place).unwrap();
    }
    let files = pack(root);
    Image { kernel: folder.join("vmlinux"), files }
}

/// The dynamic linker and all shared objects.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let listing = output(Command::new("ldd").arg(program));
    listing.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Nameless once it is open: it goes with this process.
fn pack(root: &Path) -> PathBuf {
    let archive = tempfile::tempfile().unwrap();
    let status = Command::new("sh")
        .args(["-c", "find . | cpio --quiet -o -H newc"])
        .current_dir(root)
        .stdout(archive.try_clone().unwrap())
        .status()
        .unwrap();
    assert!(status.success(), "cpio failed; run packaging/install-dependencies.sh");
    use std::os::fd::IntoRawFd as _;
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), archive.into_raw_fd()))
}

fn output(command: &mut Command) -> String {
    let ran = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let ran = ran.unwrap_or_else(|error| {
        panic!("{}: {error}; run packaging/install-dependencies.sh", command.get_program().display())
    });
    assert!(ran.status.success(), "{command:?}: {}", ran.status);
    String::from_utf8(ran.stdout).unwrap()
}
