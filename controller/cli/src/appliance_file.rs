//! A publisher's folder: `appliance.yaml` and the disk it names, refused with file, line and field.

use crate::appliance_text::{FILE, locate, read};
use crate::documents::issue_text;
use crate::failure::Failure;
use controller_api::document::Appliance;
use controller_api::rest::Issue;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest file taken.
const BYTES_MAX: u64 = 64 * 1024;
/// Disks are read in such sectors.
const SECTOR_BYTES: u64 = 512;

/// An appliance that can be published.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) appliance: Appliance,
    /// The system disk, absolute.
    pub(crate) disk: PathBuf,
    pub(crate) disk_bytes: u64,
}

/// Reads and checks a publisher's folder.
pub(crate) fn check(folder: &Path) -> Result<Checked, Failure> {
    let path = folder.join(FILE);
    let name = path.display().to_string();
    let refuse = |message: String| Failure::refused(vec![message]);
    let mut text = String::new();
    File::open(&path)
        .and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| refuse(format!("cannot read {name}: {error}")))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(refuse(format!("{name} is larger than 64 KiB: it is not an appliance's description")));
    }
    let appliance = read(&text).map_err(|issues| {
        Failure::refused(issues.iter().map(|issue| issue_text(Some(&name), issue)).collect())
    })?;
    let field = "spec.disks.system.file";
    let disk = folder.join(&appliance.spec.disks["system"].file);
    let disk_bytes = check_disk(&disk).map_err(|message| {
        let (line, column) = locate(&text, &["spec", "disks", "system", "file"]);
        refuse(issue_text(Some(&name), &Issue { line, column, field: field.to_owned(), message }))
    })?;
    let disk = disk.canonicalize().map_err(|error| refuse(format!("{}: {error}", disk.display())))?;
    Ok(Checked { appliance, disk, disk_bytes })
}

/// Size of a bootable raw disk, or what is wrong with it.
fn check_disk(path: &Path) -> Result<u64, String> {
    let shown = path.display();
    let mut file = File::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot read {shown}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let bytes = metadata.len();
    if bytes == 0 {
        return Err(format!("{shown} is empty: it must hold the raw bytes of a disk"));
    }
    if !bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(format!(
            "{shown} has {bytes} bytes, which is no multiple of {SECTOR_BYTES}: is it truncated?"
        ));
    }
    let mut sector = [0; 512];
    file.read_exact(&mut sector).map_err(|error| format!("cannot read {shown}: {error}"))?;
    if sector.starts_with(b"QFI\xfb") {
        return Err(format!("{shown} is a qcow2 file: convert it (`qemu-img convert -O raw`)"));
    }
    if sector[510..] != [0x55, 0xaa] {
        return Err(format!(
            "{shown} has no boot signature (0x55AA at byte 510): it is no bootable raw disk"
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: collective/v1\nkind: Appliance\nmetadata: {publisher: acme, name: gateway, version: 1.0.0}\n\
        spec:\n  summary: one line\n  hardware: {vcpus: 1, memory: 192MiB}\n  disks: {system: {file: system.raw}}\n  \
        ports: [wan, lan]\n";

    fn folder(text: &str, disk: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        std::fs::write(folder.path().join("system.raw"), disk).unwrap();
        folder
    }

    fn disk() -> Vec<u8> {
        let mut disk = vec![0; 4096];
        disk[510] = 0x55;
        disk[511] = 0xaa;
        disk
    }

    fn refusal(text: &str, disk: &[u8]) -> String {
        let folder = folder(text, disk);
        let failure = check(folder.path()).unwrap_err();
        assert_eq!(failure.code, crate::failure::Code::Refused);
        failure.messages.join("\n").replace(&folder.path().display().to_string(), "DIR")
    }

    #[test]
    fn takes_a_good_appliance() {
        let folder = folder(GOOD, &disk());
        let checked = check(folder.path()).unwrap();
        assert_eq!(checked.disk_bytes, 4096);
        assert_eq!(checked.appliance.spec.ports.len(), 2);
        assert!(checked.disk.is_absolute());
    }

    #[test]
    fn each_bad_disk_is_refused_with_its_reason() {
        let at = "DIR/appliance.yaml:7:20: spec.disks.system.file: DIR/system.raw";
        assert_eq!(refusal(GOOD, &[]), format!("{at} is empty: it must hold the raw bytes of a disk"));
        assert_eq!(
            refusal(GOOD, &disk()[..1000]),
            format!("{at} has 1000 bytes, which is no multiple of 512: is it truncated?")
        );
        assert_eq!(
            refusal(GOOD, &[0; 1024]),
            format!("{at} has no boot signature (0x55AA at byte 510): it is no bootable raw disk")
        );
        let mut qcow2 = disk();
        qcow2[..4].copy_from_slice(b"QFI\xfb");
        assert!(refusal(GOOD, &qcow2).ends_with("is a qcow2 file: convert it (`qemu-img convert -O raw`)"));
    }

    #[test]
    fn an_unknown_field_is_refused_with_line_and_field() {
        let text = GOOD.replace("  ports:", "  portz:");
        let problem = refusal(&text, &disk());
        assert!(problem.starts_with("DIR/appliance.yaml:8:3: "), "{problem}");
        assert!(problem.contains("portz"), "{problem}");
        assert!(!problem.contains('\n'), "{problem}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_field() {
        let problem = refusal(&GOOD.replace("publisher: acme", "publisher: Acme"), &disk());
        assert!(problem.contains("metadata.publisher: "), "{problem}");
        assert!(problem.contains("\"Acme\" is not a publisher name: use lower-case letters"), "{problem}");
        let problem = refusal(&GOOD.replace("vcpus: 1", "vcpus: 99"), &disk());
        assert_eq!(
            problem,
            "DIR/appliance.yaml:6:14: spec.hardware.vcpus: 99 processors cannot be: write 1 to 64"
        );
        let problem = refusal(&GOOD.replace("[wan, lan]", "[wan, wan]"), &disk());
        assert_eq!(problem, "DIR/appliance.yaml:8:3: spec.ports: wan is named twice");
        let problem = refusal(&GOOD.replace("file: system.raw", "file: ../system.raw"), &disk());
        assert!(problem.ends_with("\"../system.raw\" is not a file name beside appliance.yaml"), "{problem}");
    }

    #[test]
    fn no_file_is_refused_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let failure = check(folder.path()).unwrap_err();
        assert!(failure.messages[0].ends_with("appliance.yaml: No such file or directory (os error 2)"));
    }
}
