//! `appliance.yaml` and the disk it names: read, checked, refused with file, line and field.

use crate::documents::issue_text;
use crate::failure::Failure;
use controller_api::document::{API_VERSION, Appliance};
use controller_api::rest::Issue;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use types::ByteSize;

/// The file's name in a publisher's folder.
const FILE: &str = "appliance.yaml";
/// Longest file taken.
const BYTES_MAX: u64 = 64 * 1024;
/// Disks are read in such sectors.
const SECTOR_BYTES: u64 = 512;
const VCPUS_MAX: u32 = 64;
const MEMORY_MIN: ByteSize = ByteSize(16 << 20);
const MEMORY_MAX: ByteSize = ByteSize(1 << 40);
const PORTS_MAX: usize = 8;

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
    let appliance = parse(&text).map_err(|issue| refuse(issue_text(Some(&name), &issue)))?;
    let issues = issues(&appliance, &text);
    if !issues.is_empty() {
        return Err(Failure::refused(issues.iter().map(|issue| issue_text(Some(&name), issue)).collect()));
    }
    let field = "spec.disks.system.file";
    let disk = folder.join(&appliance.spec.disks["system"].file);
    let disk_bytes = check_disk(&disk).map_err(|message| {
        let (line, column) = locate(&text, &["spec", "disks", "system", "file"]);
        refuse(issue_text(Some(&name), &Issue { line, column, field: field.to_owned(), message }))
    })?;
    let disk = disk.canonicalize().map_err(|error| refuse(format!("{}: {error}", disk.display())))?;
    Ok(Checked { appliance, disk, disk_bytes })
}

/// Text to a document; the error says line, column and field.
fn parse(text: &str) -> Result<Appliance, Issue> {
    let mut path = String::new();
    let result: Result<Appliance, serde_saphyr::Error> =
        serde_saphyr::with_deserializer_from_str(text, |yaml| {
            serde_path_to_error::deserialize(yaml).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        });
    result.map_err(|error| {
        let place = error.location();
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Issue {
            line: place.map_or(0, |place| number(place.line())),
            column: place.map_or(0, |place| number(place.column())),
            field: if path == "." { String::new() } else { path.clone() },
            message: message(&error),
        }
    })
}

/// The parser's sentence without the excerpt of the text and the place, which are told apart.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let cut = first.find(" at line ").or_else(|| first.find(" (line ")).unwrap_or(first.len());
    let words = first[..cut].trim();
    match words.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, words)) => words.to_owned(),
        None => words.to_owned(),
    }
}

/// What is wrong with a document that can be read.
fn issues(appliance: &Appliance, text: &str) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut say = |path: &[&str], message: String| {
        let (line, column) = locate(text, path);
        issues.push(Issue { line, column, field: path.join("."), message });
    };
    if appliance.api_version != API_VERSION {
        say(&["apiVersion"], format!("{:?} is not known: write {API_VERSION}", appliance.api_version));
    }
    if appliance.kind != "Appliance" {
        say(&["kind"], format!("{:?} is no appliance: write Appliance", appliance.kind));
    }
    let name = &appliance.metadata.name;
    if let Err(error) = format!("{}/{name}", appliance.metadata.publisher).parse::<types::ApplianceRef>() {
        say(&["metadata", "name"], error.to_string());
    }
    let (vcpus, memory) = (appliance.spec.hardware.vcpus, appliance.spec.hardware.memory);
    if vcpus == 0 || vcpus > VCPUS_MAX {
        say(&["spec", "hardware", "vcpus"], format!("{vcpus} processors cannot be: write 1 to {VCPUS_MAX}"));
    }
    if memory < MEMORY_MIN || memory > MEMORY_MAX {
        say(
            &["spec", "hardware", "memory"],
            format!("{memory} cannot be: write {MEMORY_MIN} to {MEMORY_MAX}"),
        );
    }
    let disks: Vec<_> = appliance.spec.disks.keys().map(String::as_str).collect();
    if disks != ["system"] {
        say(
            &["spec", "disks"],
            format!("exactly one disk named system is expected, not [{}]", disks.join(", ")),
        );
    } else {
        let file = &appliance.spec.disks["system"].file;
        let plain = !file.is_empty() && !file.contains('/') && file != "." && file != "..";
        if !plain {
            say(&["spec", "disks", "system", "file"], format!("{file:?} is not a file name beside {FILE}"));
        }
    }
    if appliance.spec.ports.len() > PORTS_MAX {
        say(
            &["spec", "ports"],
            format!("{} ports are too many: {PORTS_MAX} at most", appliance.spec.ports.len()),
        );
    }
    if let Some(twice) = repeated(&appliance.spec.ports) {
        say(&["spec", "ports"], format!("{twice} is named twice"));
    }
    if let Some(twice) = repeated(&appliance.spec.volumes) {
        say(&["spec", "volumes"], format!("{twice} is named twice"));
    }
    issues
}

fn repeated<T: PartialEq>(items: &[T]) -> Option<&T> {
    items.iter().enumerate().find(|(index, item)| items[..*index].contains(item)).map(|(_, item)| item)
}

/// Line and column of a value in block or flow YAML of our shape: the last key is looked for after each key before it.
/// Zero if it is not found: a place is a help, not a promise.
fn locate(text: &str, path: &[&str]) -> (u32, u32) {
    let mut at = 0;
    for key in path {
        let Some(next) = find_key(text, at, key) else { return (0, 0) };
        at = next;
    }
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (u32::try_from(line).unwrap_or(0), u32::try_from(column).unwrap_or(0))
}

fn find_key(text: &str, from: usize, key: &str) -> Option<usize> {
    let starts = |at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || matches!(c, '{' | ',' | '"' | '\''))
    };
    let ends = |at: usize| text[at..].trim_start_matches(['"', '\'', ' ']).starts_with(':');
    text[from..]
        .match_indices(key)
        .map(|(offset, _)| from + offset)
        .find(|at| starts(*at) && ends(*at + key.len()))
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
